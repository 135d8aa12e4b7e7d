//! Browser workers when something is killed: the worker, its Chromium, or Redis.

use std::{fs, sync::atomic::Ordering};

use rustix::process::Signal;
use serde_json::json;

use crate::support::{
    browser::{Site, chromium, profiles, worker},
    processes::{kill, state_and_parent},
    redis::RedisServer,
    wait::{DEADLINE, eventually},
};

#[cfg_attr(without_chromium, ignore = "there is no Chromium")]
#[tokio::test]
async fn a_killed_chromium_of_several_sessions_is_told_at_once_and_replaced() {
    let (server, site) = (RedisServer::start(), Site::start(1).await);
    let worker = worker(&server, &site, "isolation = \"shared\"").await;
    for session in ["a", "b"] {
        worker.ask(session, "start", json!([])).await.unwrap();
    }
    let visits = site.visits.load(Ordering::SeqCst);
    let running = worker.publish("goto", json!([site.url("/never")]), json!({ "session": "a" })).await;
    let asked = eventually(DEADLINE, async || site.visits.load(Ordering::SeqCst) > visits).await;
    assert!(asked, "the page was not asked for");
    let first = chromium(&worker).unwrap();
    kill(first, Signal::KILL);
    let lost = Err("session lost: the browser crashed; open it again".to_owned());
    assert_eq!(worker.answer(&running).await, lost);
    assert_eq!(worker.ask("b", "status", json!([])).await, lost);
    let page = worker.ask("a", "start", json!([site.url("/")])).await.unwrap();
    assert_eq!(page["page"]["title"], json!("A page"));
    assert_ne!(chromium(&worker), Some(first));
    let reaped = eventually(DEADLINE, async || state_and_parent(first.cast_signed()).is_none()).await;
    assert!(reaped, "the killed browser is a zombie");
    // The killed one and its files are gone, the files of the new one lie in its profile.
    let left: Vec<_> = fs::read_dir(worker.directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().starts_with("org.chromium")), "left behind: {left:?}");
    // The directory is also the worker's home.
    assert!(!left.iter().any(|name| name == ".config"), "reports of crashes in the home: {left:?}");
    assert_eq!(profiles(&worker).len(), 1, "{left:?}");
}

#[cfg_attr(without_chromium, ignore = "there is no Chromium")]
#[tokio::test]
async fn a_killed_worker_leaves_no_chromium() {
    let (server, site) = (RedisServer::start(), Site::start(1).await);
    let mut worker = worker(&server, &site, "spare_browser = false").await;
    worker.ask("a", "start", json!([site.url("/")])).await.unwrap();
    assert!(chromium(&worker).is_some_and(|id| id != worker.id()));
    let [profile] = &profiles(&worker)[..] else { panic!("{:?}", profiles(&worker)) };
    worker.kill();
    let gone = eventually(DEADLINE, async || worker.processes().is_empty()).await;
    assert!(gone, "left behind: {:?}", worker.processes());
    // The next worker here tidies up, before it takes a job.
    worker.start_again();
    let error = worker.ask("a", "status", json!([])).await.unwrap_err();
    assert!(error.starts_with("session lost: worker `browser-"), "{error}");
    assert!(!profile.exists(), "the profile of the killed worker is left");
    worker.ask("a", "start", json!([site.url("/")])).await.unwrap();
    assert_eq!(profiles(&worker).len(), 1);
}

#[cfg_attr(without_chromium, ignore = "there is no Chromium")]
#[tokio::test]
async fn after_a_crash_the_worker_is_not_busy_with_what_is_lost() {
    let (server, site) = (RedisServer::start(), Site::start(1).await);
    let worker = worker(&server, &site, "isolation = \"shared\"").await;
    for session in ["a", "b"] {
        worker.ask(session, "start", json!([])).await.unwrap();
    }
    let (waiting, idle) = ((Some("WAITING"), Some("2")), (Some("IDLE"), Some("0")));
    for (wanted, kills) in [(waiting, true), (idle, false)] {
        let tells = eventually(DEADLINE, async || {
            let (state, sessions) = (worker.heartbeat("state").await, worker.heartbeat("sessions").await);
            (state.as_deref(), sessions.as_deref()) == wanted
        });
        assert!(tells.await, "the heartbeat never tells {wanted:?}");
        if kills {
            kill(chromium(&worker).unwrap(), Signal::KILL);
        }
    }
    // The next job of each is told, whatever it asks for, and no later one.
    let lost = Err("session lost: the browser crashed; open it again".to_owned());
    assert_eq!(worker.ask("a", "start", json!([])).await, lost);
    assert_eq!(worker.ask("b", "status", json!([])).await, lost);
    let error = worker.ask("b", "status", json!([])).await.unwrap_err();
    assert!(error.contains("session `b` is not open"), "{error}");
    let page = worker.ask("a", "start", json!([site.url("/")])).await.unwrap();
    assert_eq!((&page["already_open"], &page["page"]["title"]), (&json!(false), &json!("A page")));
}

#[cfg_attr(without_chromium, ignore = "there is no Chromium")]
#[tokio::test]
async fn whatever_is_killed_no_job_is_lost_and_none_done_that_was_not() {
    const JOBS: usize = 120;
    let mut server = RedisServer::start_with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let site = Site::start(1).await;
    let mut worker = worker(&server, &site, "").await;
    let sessions = ["a", "b", "c"];
    for session in sessions {
        worker.ask(session, "start", json!([])).await.unwrap();
    }
    let mut ids = Vec::new();
    for number in 0..JOBS {
        let session = json!({ "session": sessions[number % sessions.len()] });
        // Begun again now and then: no crash makes all that follows fail.
        let method = if number % 10 < sessions.len() { "start" } else { "goto" };
        let url = json!([site.url(&format!("/mark/{number}"))]);
        ids.push(worker.publish(method, url, session).await);
    }
    for (done, fault) in [(10, Fault::Chromium), (30, Fault::Redis), (50, Fault::Worker), (70, Fault::Chromium)] {
        let some_done = eventually(DEADLINE, async || worker.unsettled().await <= (JOBS - done) as u64).await;
        assert!(some_done, "{} of {JOBS} jobs are not done; {}", worker.unsettled().await, worker.log());
        match fault {
            Fault::Chromium => chromium(&worker).into_iter().for_each(|id| kill(id, Signal::KILL)),
            Fault::Redis => {
                server.restart();
                worker.reconnect(&server).await;
            }
            Fault::Worker => {
                worker.kill();
                worker.start_again();
            }
        }
    }
    let settled = eventually(DEADLINE, async || worker.unsettled().await == 0).await;
    assert!(settled, "{} jobs are not settled; {}", worker.unsettled().await, worker.log());
    let mut done = 0;
    for (number, id) in ids.iter().enumerate() {
        assert!(worker.answered(id).await > 0, "job {number} has no answer");
        match worker.answer(id).await {
            Ok(page) => {
                let page = page.get("page").unwrap_or(&page);
                assert_eq!(page["title"], json!(format!("mark {number}")));
                assert!(site.marks.lock().unwrap().contains(&number), "job {number} is said to be done");
                done += 1;
            }
            Err(error) => assert!(error.contains("session"), "job {number}: {error}"),
        }
    }
    assert!(done > 0 && done < JOBS, "{done} of {JOBS} jobs were done: nothing was killed in time, or all was");
}

/// What is killed.
enum Fault {
    Chromium,
    Redis,
    Worker,
}

//! Each session of a browser worker has a Chromium of its own: what one page does reaches no other session. The
//! Chromium ends with its session, and the next one is started in advance.

use std::collections::BTreeSet;

use rustix::process::Signal;
use serde_json::json;

use crate::support::{
    browser::{Site, chromiums, profiles, worker},
    processes::{all, command_line, kill, state_and_parent},
    redis::RedisServer,
    wait::{DEADLINE, eventually},
    worker_process::WorkerProcess,
};

const NO_SPARE: &str = "spare_browser = false\n";
/// A worker that is to leave does not wait for its sessions.
const LEAVES_SOON: &str = "[worker_types.browser.scaling]\ndrain_timeout_seconds = 1\n";

/// Starts a session, and returns the main process of the Chromium that it has got.
async fn start(worker: &WorkerProcess, session: &str, url: &str) -> u32 {
    let before = chromiums(worker);
    worker.ask(session, "start", json!([url])).await.unwrap_or_else(|error| panic!("{error}; {}", worker.log()));
    let new: Vec<_> = chromiums(worker).difference(&before).copied().collect();
    let [new] = new[..] else { panic!("one Chromium more than {before:?}, not {new:?}") };
    new
}

/// The session answers, and has the Chromium that it had.
async fn goes_on(worker: &WorkerProcess, session: &str, browser: u32) {
    let status = worker.ask(session, "status", json!([])).await;
    assert_eq!(status.map(|status| status["title"].clone()), Ok(json!("A page")), "{}", worker.log());
    assert!(chromiums(worker).contains(&browser), "{}", worker.log());
}

/// Waits until exactly these Chromiums and as many profiles are there.
async fn left(worker: &WorkerProcess, expected: &[u32]) {
    let expected: BTreeSet<u32> = expected.iter().copied().collect();
    let are_left = async || chromiums(worker) == expected && profiles(worker).len() == expected.len();
    let (found, paths) = (chromiums(worker), profiles(worker));
    assert!(eventually(DEADLINE, are_left).await, "{found:?} {paths:?}, not {expected:?}; {}", worker.log());
}

#[cfg_attr(without_chromium, ignore = "there is no Chromium")]
#[tokio::test]
async fn a_page_that_eats_memory_loses_its_own_session_and_no_other() {
    let (server, site) = (RedisServer::start(), Site::start(1).await);
    let worker = worker(&server, &site, &format!("{NO_SPARE}max_memory_mib = 640")).await;
    let good = start(&worker, "good", &site.url("/")).await;
    let mut error = worker.ask("evil", "start", json!([site.url("/eater")])).await.err();
    let ended = eventually(DEADLINE, async || {
        goes_on(&worker, "good", good).await;
        if error.is_none() {
            error = worker.ask("evil", "status", json!([])).await.err();
        }
        error.is_some()
    });
    assert!(ended.await, "the page goes on; {}", worker.log());
    let error = error.unwrap();
    assert!(error.starts_with("session lost: ") && error.contains("more than max_memory_mib = 640"), "{error}");
    goes_on(&worker, "good", good).await;
    left(&worker, &[good]).await;
    let again = start(&worker, "evil", &site.url("/")).await;
    left(&worker, &[good, again]).await;
}

#[cfg_attr(without_chromium, ignore = "there is no Chromium")]
#[tokio::test]
async fn a_crash_loses_its_own_session_and_no_other() {
    let (server, site) = (RedisServer::start(), Site::start(1).await);
    let worker = worker(&server, &site, NO_SPARE).await;
    let good = start(&worker, "good", &site.url("/")).await;
    let evil = start(&worker, "evil", &site.url("/")).await;
    kill(evil, Signal::KILL);
    let error = worker.ask("evil", "status", json!([])).await;
    assert_eq!(error, Err("session lost: the browser crashed; open it again".to_owned()));
    goes_on(&worker, "good", good).await;
    // The page's own process crashes, the browser lives.
    let evil = start(&worker, "evil", &site.url("/")).await;
    let pages = renderers(evil);
    assert!(!pages.is_empty(), "the page has no process");
    for page in pages {
        kill(page, Signal::KILL);
    }
    // The browser may still tell where the page is that has just crashed.
    let mut error = None;
    let told = eventually(DEADLINE, async || {
        error = worker.ask("evil", "status", json!([])).await.err();
        error.is_some()
    });
    assert!(told.await, "the page goes on; {}", worker.log());
    assert_eq!(error.as_deref(), Some("session lost: the page crashed; open it again"));
    goes_on(&worker, "good", good).await;
    left(&worker, &[good]).await;
}

/// The processes of the pages of a Chromium: found by their ancestors, because they overwrite their arguments
/// and environment.
fn renderers(browser: u32) -> Vec<u32> {
    let parent = |process: u32| state_and_parent(process.cast_signed()).map(|(_, parent)| parent);
    let is_below = |process: u32| std::iter::successors(Some(process), |at| parent(*at)).any(|at| at == browser);
    let all = all().into_iter().map(i32::cast_unsigned);
    let is_renderer = |process: &u32| command_line(process.cast_signed()).join(" ").contains("--type=renderer");
    all.filter(is_renderer).filter(|process| is_below(*process)).collect()
}

#[cfg_attr(without_chromium, ignore = "there is no Chromium")]
#[tokio::test]
async fn an_endless_loop_holds_up_its_own_session_and_no_other() {
    let (server, site) = (RedisServer::start(), Site::start(1).await);
    let worker = worker(&server, &site, NO_SPARE).await;
    let good = start(&worker, "good", &site.url("/")).await;
    let evil = worker.publish("start", json!([site.url("/loop")]), json!({ "session": "evil" })).await;
    let loops = async || site.marks.lock().unwrap().contains(&1);
    assert!(eventually(DEADLINE, loops).await, "the page does not begin; {}", worker.log());
    goes_on(&worker, "good", good).await;
    let page = worker.ask("good", "goto", json!([site.url("/")])).await.unwrap();
    assert_eq!(page["title"], json!("A page"));
    // The page may have loaded just before its loop, and then hangs at its next job.
    if worker.answer(&evil).await.is_ok() {
        let _ = worker.ask("evil", "goto", json!([site.url("/")])).await;
    }
    goes_on(&worker, "good", good).await;
    let _ = worker.ask("evil", "close", json!([])).await;
    left(&worker, &[good]).await;
}

#[cfg_attr(without_chromium, ignore = "there is no Chromium")]
#[tokio::test]
async fn a_browser_and_its_profile_end_with_their_session_or_their_worker() {
    let (server, site) = (RedisServer::start(), Site::start(1).await);
    let mut worker = worker(&server, &site, &format!("{NO_SPARE}{LEAVES_SOON}")).await;
    let [a, b] = [start(&worker, "a", &site.url("/")).await, start(&worker, "b", &site.url("/cookie")).await];
    left(&worker, &[a, b]).await;
    assert_eq!(worker.ask("b", "close", json!([])).await, Ok(json!({ "closed": 1 })));
    left(&worker, &[a]).await;
    goes_on(&worker, "a", a).await;
    let page = worker.ask("b", "start", json!([site.url("/cookie")])).await.unwrap();
    assert_eq!(page["page"]["title"], json!("stranger"), "a closed session is forgotten");
    worker.leave().await;
    assert!(profiles(&worker).is_empty(), "the worker has left {:?}", profiles(&worker));
    let nobody = eventually(DEADLINE, async || worker.processes().is_empty()).await;
    assert!(nobody, "left behind: {:?}", worker.processes());

    worker.start_again();
    // A worker that left has told that its sessions are lost, or has closed them.
    let _ = worker.ask("a", "status", json!([])).await;
    let _ = worker.ask("b", "status", json!([])).await;
    start(&worker, "a", &site.url("/")).await;
    start(&worker, "b", &site.url("/")).await;
    let abandoned = profiles(&worker);
    assert_eq!(abandoned.len(), 2);
    worker.kill();
    let gone = eventually(DEADLINE, async || worker.processes().is_empty()).await;
    assert!(gone, "left behind: {:?}", worker.processes());
    worker.start_again();
    let error = worker.ask("a", "status", json!([])).await.unwrap_err();
    assert!(error.starts_with("session lost: worker `browser-"), "{error}");
    assert!(abandoned.iter().all(|profile| !profile.exists()), "profiles of the killed worker are left");
}

#[cfg_attr(without_chromium, ignore = "there is no Chromium")]
#[tokio::test]
async fn a_spare_browser_gets_the_next_session_if_there_is_a_place() {
    let (server, site) = (RedisServer::start(), Site::start(1).await);
    let mut worker = worker(&server, &site, &format!("max_pages = 2\n{LEAVES_SOON}")).await;
    worker.ask("x", "status", json!([])).await.unwrap_err();
    let a = start(&worker, "a", &site.url("/")).await;
    let told = async |field: &str, value: &str| worker.heartbeat(field).await.as_deref() == Some(value);
    let is_ready = async || told("browsers", "2").await && told("pages", "1").await;
    assert!(eventually(DEADLINE, is_ready).await, "no spare browser; {}", worker.log());
    let both = chromiums(&worker);
    assert!(both.len() == 2 && both.contains(&a), "{both:?}");
    let opened = worker.ask("b", "start", json!([])).await.unwrap();
    assert_eq!((&opened["already_open"], &opened["page"]["url"]), (&json!(false), &json!("about:blank")));
    assert_eq!(chromiums(&worker), both, "the spare browser is not used; {}", worker.log());
    assert!(eventually(DEADLINE, async || told("sessions", "2").await).await, "{}", worker.log());

    // A spare that has ended is replaced.
    worker.ask("b", "close", json!([])).await.unwrap();
    let mut spare = BTreeSet::new();
    let is_replaced = async || {
        // Each job is an occasion to start one; before, the one of the closed session has to be gone.
        let _ = worker.ask("a", "status", json!([])).await;
        spare = &chromiums(&worker) - &both;
        spare.len() == 1 && told("browsers", "2").await
    };
    assert!(eventually(DEADLINE, is_replaced).await, "no spare browser; {}", worker.log());
    kill(spare.pop_first().unwrap(), Signal::KILL);
    let page = worker.ask("c", "start", json!([site.url("/")])).await.unwrap();
    assert_eq!(page["page"]["title"], json!("A page"));
    worker.leave().await;
    assert!(profiles(&worker).is_empty(), "the worker has left {:?}", profiles(&worker));
}

#[cfg_attr(without_chromium, ignore = "there is no Chromium")]
#[tokio::test]
async fn a_killed_worker_leaves_no_spare_browser() {
    let (server, site) = (RedisServer::start(), Site::start(1).await);
    let mut worker = worker(&server, &site, "").await;
    start(&worker, "a", &site.url("/")).await;
    assert!(eventually(DEADLINE, async || chromiums(&worker).len() == 2).await, "no spare browser; {}", worker.log());
    worker.kill();
    let gone = eventually(DEADLINE, async || worker.processes().is_empty()).await;
    assert!(gone, "left behind: {:?}", worker.processes());
}

#[cfg_attr(without_chromium, ignore = "there is no Chromium")]
#[tokio::test]
async fn sessions_share_a_browser_if_they_are_told_to() {
    let (server, site) = (RedisServer::start(), Site::start(1).await);
    let worker = worker(&server, &site, "isolation = \"shared\"").await;
    let browser = start(&worker, "a", &site.url("/")).await;
    for (session, title) in [("b", "stranger"), ("c", "stranger"), ("b", "known")] {
        let page = worker.ask(session, "start", json!([site.url("/cookie")])).await.unwrap();
        assert_eq!(page["page"]["title"], json!(title), "{session}");
    }
    goes_on(&worker, "a", browser).await;
    left(&worker, &[browser]).await;
    // It stays for the next session.
    assert_eq!(worker.ask_with("close_all", json!([]), json!({})).await, Ok(json!({ "closed": 3 })));
    worker.ask("d", "start", json!([site.url("/")])).await.unwrap();
    left(&worker, &[browser]).await;
}

/// No machine has a tebibyte for each session.
#[tokio::test]
async fn memory_lowers_the_places_and_leaves_one() {
    let (server, site) = (RedisServer::start(), Site::start(1).await);
    let worker = worker(&server, &site, "max_pages = 3\nmax_memory_mib = 1048576").await;
    let status = worker.ask_with("status", json!([]), json!({})).await.unwrap();
    assert_eq!((&status["places"], &status["max_pages"]), (&json!(1), &json!(3)));
    assert_eq!(worker.heartbeat("places").await.as_deref(), Some("1"));
    let told = worker.log().matches("memory is less than one browser may use").count();
    assert_eq!(told, 1, "{}", worker.log());
}

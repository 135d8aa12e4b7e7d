//! Settings that change while the real autoscaler runs: what holds at once, what goes on undisturbed, what is refused.

mod files;
mod signals;

use std::collections::BTreeSet;

use swarm::model::snapshot::{ReloadOutcome, Role};

use crate::support::{
    autoscaler::{ALONE, Autoscaler, NO_SWEEP, SLEEPER, pool, real_pool},
    command::{add_jobs, add_sleep, answers, records, redis, work_off},
    redis::RedisServer,
};

fn with(types: &[String]) -> String {
    format!("{NO_SWEEP}{}", types.concat())
}

/// The workers of a type, by name.
async fn workers(scaler: &Autoscaler, worker_type: &str) -> BTreeSet<String> {
    scaler.of(worker_type).await.workers.iter().map(|worker| worker.id.to_string()).collect()
}

#[tokio::test]
async fn new_thresholds_hold_at_once() {
    let server = RedisServer::start();
    let client = server.client().await;
    let slow = "max_workers = 4, scale_up_threshold = 100, cooldown_seconds = 1000";
    let scaler = Autoscaler::start(&server.url(), &with(&[pool("test", slow, SLEEPER)])).await;
    scaler.until_ready().await;
    add_jobs(&client, "test:jobs", 10).await;
    scaler.until_workers("test", 1).await;
    let before = workers(&scaler, "test").await;

    let quick = "max_workers = 4, scale_up_threshold = 2, cooldown_seconds = 1000";
    let reload = scaler.reload(&server.url(), &with(&[pool("test", quick, SLEEPER)])).await;
    assert_eq!(reload.outcome, ReloadOutcome::Applied, "{reload:?}");
    assert_eq!(reload.changes, "test: scaling.scale_up_threshold 100 → 2");
    scaler.until_workers("test", 4).await;
    assert!(workers(&scaler, "test").await.is_superset(&before), "who was there stays");
    scaler.until("it is recorded", async || records(&client, "test").await.len() == 2).await;
    assert_eq!(records(&client, "test").await[1]["trigger"], "reload");
    assert_eq!(scaler.of("test").await.evaluations.cmp(&2), std::cmp::Ordering::Greater, "its counts go on");

    scaler.until_logged("configuration loaded again: test: scaling.scale_up_threshold 100 → 2").await;
    assert!(scaler.metric(r#"swarm_config_reloads_total{outcome="applied"}"#).await > 0.5);
    assert!(scaler.metric("swarm_config_last_reload_success").await > 0.5);
}

#[tokio::test]
async fn a_cooldown_under_way_goes_on() {
    let server = RedisServer::start();
    let client = server.client().await;
    let scaling = |max: u32| format!("max_workers = {max}, scale_up_threshold = 1, cooldown_seconds = 1000");
    let settings = |max| with(&[pool("test", &scaling(max), SLEEPER)]);
    let scaler = Autoscaler::start(&server.url(), &settings(4)).await;
    scaler.until_ready().await;
    add_jobs(&client, "test:jobs", 4).await;
    scaler.until_workers("test", 4).await;
    let _: String = redis(&client, "XGROUP CREATE test:jobs test 0").await;
    work_off(&client, "test:jobs", "test").await;
    let _: u64 = redis(&client, "PUBLISH jobs:published test:jobs").await;
    scaler.until("the cooldown holds them", async || scaler.of("test").await.recheck_at.is_some()).await;
    let before = scaler.of("test").await;
    assert_eq!(
        before.recheck_at,
        before.last_change.map(|change| change.at.after(std::time::Duration::from_secs(1000)))
    );

    let reload = scaler.reload(&server.url(), &settings(9)).await;
    assert_eq!(reload.outcome, ReloadOutcome::Applied);
    scaler.until("it has looked", async || scaler.of("test").await.evaluations > before.evaluations).await;
    let after = scaler.of("test").await;
    assert_eq!((after.max_workers, after.last_change, after.recheck_at), (9, before.last_change, before.recheck_at));
    scaler.until_workers("test", 4).await;
}

#[tokio::test]
async fn a_worker_type_that_is_new_gets_its_worker_and_one_that_goes_is_drained_while_others_work_on() {
    let server = RedisServer::start();
    let client = server.client().await;
    let [kept, gone, new] = ["kept", "gone", "new"].map(|name| real_pool(name, "cooldown_seconds = 1000"));
    let scaler = Autoscaler::start(&server.url(), &with(&[kept.clone(), gone])).await;
    scaler.until_ready().await;
    add_sleep(&client, "kept", "long", 15.0).await;
    add_sleep(&client, "gone", "last", 12.0).await;
    add_sleep(&client, "new", "first", 0.1).await;
    for busy in ["kept", "gone"] {
        scaler.until("it is busy", async || scaler.of(busy).await.workers.iter().any(|one| one.busy)).await;
    }
    let before = workers(&scaler, "kept").await;
    let leaver = workers(&scaler, "gone").await.pop_first().expect("it has a worker");

    let reload = scaler.reload(&server.url(), &with(&[kept, new])).await;
    assert_eq!((reload.outcome, reload.changes.as_str()), (ReloadOutcome::Applied, "added new; removed gone"));
    scaler.until("the waiting job is done", async || answers(&client, "first").await.len() == 1).await;
    assert_eq!(scaler.status().await.worker_types.len(), 2);
    assert_eq!(answers(&client, "last").await.len(), 0, "the worker that leaves has its job to finish");
    scaler.until("its job is done", async || answers(&client, "last").await.len() == 1).await;
    let is_there = |(_, words): &(u32, String)| words.contains("worker --type gone");
    scaler.until("it has left", async || !scaler.processes().iter().any(is_there)).await;
    scaler.until_logged(&leaver).await;

    scaler.until("the long job is done", async || answers(&client, "long").await.len() == 1).await;
    assert_eq!(answers(&client, "long").await[0]["ok"], true);
    assert_eq!(workers(&scaler, "kept").await, before, "a busy worker is not touched");
    assert_eq!(records(&client, "gone").await.len(), 1, "its start; what ends it is no scaling");
}

#[tokio::test]
async fn a_type_that_comes_back_knows_its_cooldown() {
    let server = RedisServer::start();
    let client = server.client().await;
    let test = pool("test", "scale_up_threshold = 1, cooldown_seconds = 1000", SLEEPER);
    let other = pool("other", "", SLEEPER);
    let off = test.replace("[worker_types.test]\n", "[worker_types.test]\nenabled = false\n");
    let scaler = Autoscaler::start(&server.url(), &with(&[test.clone(), other.clone()])).await;
    scaler.until_ready().await;
    add_jobs(&client, "test:jobs", 2).await;
    scaler.until_workers("test", 2).await;
    // The first job alone may have started a worker before the second one came.
    let all_recorded = async || records(&client, "test").await.last().is_some_and(|record| record["to_count"] == "2");
    scaler.until("it is recorded", all_recorded).await;
    let before = scaler.of("test").await.last_change;

    let reload = scaler.reload(&server.url(), &with(&[off, other.clone()])).await;
    assert_eq!(reload.changes, "removed test");
    let _: u64 = redis(&client, "DEL test:jobs").await;
    let is_sleeper = |(_, words): &(u32, String)| words.contains("sleep 1000");
    scaler.until("its workers have left", async || !scaler.processes().iter().any(is_sleeper)).await;
    let reload = scaler.reload(&server.url(), &with(&[test, other])).await;
    assert_eq!(reload.changes, "added test");
    scaler.until_workers("test", 0).await;
    assert_eq!(scaler.of("test").await.last_change, before);
}

#[tokio::test]
async fn what_is_wrong_is_refused_with_all_errors_and_the_old_settings_go_on() {
    let server = RedisServer::start();
    let client = server.client().await;
    let fine = |max: u32| with(&[pool("test", &format!("max_workers = {max}, scale_up_threshold = 1"), SLEEPER)]);
    let scaler = Autoscaler::start(&server.url(), &fine(2)).await;
    scaler.until_ready().await;
    assert!(scaler.metric("swarm_config_last_reload_success").await > 0.5);

    let wrong = format!("{}[worker_types.other.scaling]\nmax_workers = -1\nmin_wrokers = 2\n", fine(5));
    let reload = scaler.reload(&server.url(), &wrong).await;
    assert_eq!(reload.outcome, ReloadOutcome::Refused);
    let said = |part: &str| reload.errors.iter().any(|error| error.contains(part));
    assert!(reload.errors.len() == 2 && said("max_workers") && said("min_wrokers"), "{:?}", reload.errors);
    assert!(reload.errors.iter().all(|error| error.contains("swarm.toml:")), "{:?}", reload.errors);
    for error in &reload.errors {
        scaler.until_logged(error).await;
    }
    let (ready, body) = scaler.readyz().await;
    assert!(ready && body.contains("refused") && body.contains("min_wrokers"), "{body}");
    assert!(scaler.metric(r#"swarm_config_reloads_total{outcome="refused"}"#).await > 0.5);
    assert!(scaler.metric("swarm_config_last_reload_success").await < 0.5);
    add_jobs(&client, "test:jobs", 9).await;
    scaler.until_workers("test", 2).await;
    assert_eq!(scaler.of("test").await.max_workers, 2, "nothing of it holds");

    let nothing = scaler.reload(&server.url(), NO_SWEEP).await;
    assert_eq!(nothing.outcome, ReloadOutcome::Refused, "without a worker type there is nothing to do");

    assert_eq!(scaler.reload(&server.url(), &fine(5)).await.outcome, ReloadOutcome::Applied);
    scaler.until_workers("test", 5).await;
    assert!(scaler.metric("swarm_config_last_reload_success").await > 0.5);
}

#[tokio::test]
async fn what_needs_a_restart_is_named_once_and_the_rest_is_taken() {
    let server = RedisServer::start();
    let client = server.client().await;
    let scaling = |max: u32| pool("test", &format!("max_workers = {max}, scale_up_threshold = 1"), SLEEPER);
    let scaler = Autoscaler::start(&server.url(), &with(&[scaling(1)])).await;
    scaler.until_ready().await;
    add_jobs(&client, "test:jobs", 3).await;
    scaler.until_workers("test", 1).await;

    let new = format!("{NO_SWEEP}dry_run = true\nleader_lease_seconds = 3\n{}", scaling(3));
    let reload = scaler.reload("redis://127.0.0.1:1/9", &format!("{new}[fly]\npoll_seconds = 7\n")).await;
    assert_eq!(reload.outcome, ReloadOutcome::Applied);
    let named = ["redis_url", "fly.poll_seconds", "scaler.dry_run", "scaler.leader_lease_seconds"];
    assert_eq!(reload.need_restart, named);
    let warning = format!("only after a restart have changed: {}", named.join(", "));
    scaler.until_logged(&warning).await;
    assert_eq!(scaler.log().matches("after a restart").count(), 1, "in one line");
    scaler.until_workers("test", 3).await;
    assert!(!scaler.status().await.dry_run);
}

#[tokio::test]
async fn the_lead_is_kept_and_a_standby_takes_the_settings_too() {
    let server = RedisServer::start();
    let client = server.client().await;
    let settings = |max: u32| {
        let test = pool("test", &format!("max_workers = {max}, scale_up_threshold = 1"), SLEEPER);
        format!("{NO_SWEEP}leader_lease_seconds = 3600\n{test}")
    };
    let leader = Autoscaler::start(&server.url(), &settings(1)).await;
    leader.until("it leads", async || leader.status().await.leadership.role == Role::Leader).await;
    let standby = Autoscaler::start(&server.url(), &settings(1)).await;
    standby.until_ready().await;
    let before = leader.status().await.leadership;

    add_jobs(&client, "test:jobs", 3).await;
    leader.until_workers("test", 1).await;
    for scaler in [&standby, &leader] {
        assert_eq!(scaler.reload(&server.url(), &settings(2)).await.outcome, ReloadOutcome::Applied);
    }
    leader.until_workers("test", 2).await;
    assert_eq!(leader.status().await.leadership, before);
    assert_eq!(standby.of("test").await.max_workers, 2);
    assert_eq!(standby.status().await.leadership.role, Role::Standby);
    assert!(workers(&standby, "test").await.is_empty(), "it still does not act");

    leader.signal(rustix::process::Signal::TERM);
    standby.until_workers("test", 2).await;
    standby
        .until("it is recorded with another token", async || {
            let all = records(&client, "test").await;
            all.iter().map(|one| &one["token"]).collect::<BTreeSet<_>>().len() >= 2
        })
        .await;
}

#[tokio::test]
async fn flags_stay_above_the_file() {
    let server = RedisServer::start();
    let settings = format!("[scaler]\nsweep_interval_seconds = 1\n{}", pool("test", "", SLEEPER));
    let scaler = Autoscaler::start_with(&server.url(), &settings, &["--check-interval", "86400"]).await;
    scaler.until_ready().await;
    let reload = scaler.reload(&server.url(), &settings.replace("= 1\n", "= 2\n")).await;
    assert_eq!(reload.outcome, ReloadOutcome::Unchanged, "{reload:?}");
}

#[tokio::test]
async fn new_settings_are_taken_while_redis_is_away() {
    let mut server = RedisServer::start();
    let settings = |min: u32| format!("{NO_SWEEP}{ALONE}{}", pool("test", &format!("min_workers = {min}"), SLEEPER));
    let scaler = Autoscaler::start(&server.url(), &settings(1)).await;
    scaler.until_workers("test", 1).await;
    server.kill();
    scaler.until("it knows", async || scaler.status().await.redis_error.is_some()).await;
    assert_eq!(scaler.reload(&server.url(), &settings(3)).await.outcome, ReloadOutcome::Applied);
    scaler.until_workers("test", 3).await;
    let more = format!("{}{}", settings(3), pool("more", "min_workers = 1", SLEEPER));
    assert_eq!(scaler.reload(&server.url(), &more).await.outcome, ReloadOutcome::Applied);
    scaler.until_workers("more", 1).await;
    scaler.until_workers("test", 3).await;

    server.restart();
    scaler.until_ready().await;
    add_jobs(&server.client().await, "more:jobs", 7).await;
    scaler.until("its jobs are seen", async || scaler.of("more").await.demand.lag.known() == Some(&7)).await;
}

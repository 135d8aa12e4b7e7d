//! No signal is lost in a change-over, no job is done twice, and who is paused stays so.

use std::collections::BTreeSet;

use rustix::process::Signal;
use swarm::model::{Source, snapshot::ReloadOutcome};

use super::with;
use crate::support::{
    autoscaler::{Autoscaler, KEYSPACE, NO_SWEEP, SLEEPER, TRACKING, pool, real_pool},
    command::{add_jobs, add_sleep, answers, pending, redis},
    redis::RedisServer,
};

/// Change-overs in a row.
const TIMES: usize = 12;

#[tokio::test]
async fn jobs_in_the_middle_of_change_overs_are_all_noticed() {
    for signals in [KEYSPACE, TRACKING] {
        let server = RedisServer::start();
        let client = server.client().await;
        let test = pool("test", "max_workers = 1", SLEEPER);
        let some = |more: bool| {
            let other = if more { pool("other", "", SLEEPER) } else { String::new() };
            format!("{NO_SWEEP}{signals}{test}{other}")
        };
        let scaler = Autoscaler::start(&server.url(), &some(false)).await;
        scaler.until_ready().await;
        for round in 1..=TIMES {
            // The set of queues is another one each time, so every listener is replaced.
            scaler.rewrite(&server.url(), &some(round % 2 == 1));
            scaler.signal(Signal::HUP);
            for part in 1..=10 {
                add_jobs(&client, "test:jobs", 1).await;
                tokio::task::yield_now().await;
                let jobs = u64::try_from((round - 1) * 10 + part).unwrap();
                if part == 10 {
                    scaler
                        .until("the last job is seen", async || {
                            scaler.of("test").await.demand.lag.known() == Some(&jobs)
                        })
                        .await;
                }
            }
        }
        let changed_over = async || scaler.log().matches("configuration loaded again").count() >= 2;
        scaler.until("it did change over", changed_over).await;
    }
}

#[tokio::test]
async fn a_flood_during_change_overs_loses_no_job_and_does_none_twice() {
    let server = RedisServer::start();
    let client = server.client().await;
    let some = |more: bool| {
        let threshold = if more { 3 } else { 2 };
        let scaling = format!("max_workers = 3, scale_up_threshold = {threshold}, cooldown_seconds = 0");
        let other = if more { pool("other", "", SLEEPER) } else { String::new() };
        with(&[real_pool("test", &scaling), other])
    };
    let scaler = Autoscaler::start(&server.url(), &some(false)).await;
    scaler.until_ready().await;
    let mut ids = BTreeSet::new();
    for round in 0..6 {
        for number in 0..20 {
            let id = format!("job-{round}-{number}");
            add_sleep(&client, "test", &id, 0.02).await;
            ids.insert(id);
        }
        let reload = scaler.reload(&server.url(), &some(round % 2 == 0)).await;
        assert_eq!(reload.outcome, ReloadOutcome::Applied, "{reload:?}");
    }
    for id in &ids {
        scaler.until("every job is answered", async || !answers(&client, id).await.is_empty()).await;
    }
    scaler.until("nothing is left", async || pending(&client, "test:jobs", "test").await.is_empty()).await;
    for id in &ids {
        assert_eq!(answers(&client, id).await.len(), 1, "{id} was done once");
    }
}

#[tokio::test]
async fn other_signals_hold_from_then_on() {
    let server = RedisServer::start();
    let client = server.client().await;
    let test = pool("test", "max_workers = 2", SLEEPER);
    let scaler = Autoscaler::start(&server.url(), &format!("{NO_SWEEP}{KEYSPACE}{test}")).await;
    scaler.until_source(Source::Keyspace, "up").await;
    let reload = scaler.reload(&server.url(), &format!("{NO_SWEEP}{TRACKING}{test}")).await;
    assert_eq!(reload.changes, "signals.keyspace, signals.tracking");
    scaler.until_source(Source::Tracking, "up").await;
    scaler.until_source(Source::Keyspace, "off").await;
    scaler.until_quiet().await;
    add_jobs(&client, "test:jobs", 1).await;
    scaler.until_workers("test", 1).await;
    scaler
        .until("tracking told of it", async || scaler.metric(r#"swarm_signals_total{source="tracking"}"#).await >= 1.0)
        .await;
}

#[tokio::test]
async fn who_is_paused_stays_paused_with_redis_away_too() {
    let mut server = RedisServer::start();
    let client = server.client().await;
    let some = |more: bool| {
        let other = if more { pool("other", "", SLEEPER) } else { String::new() };
        format!("{NO_SWEEP}leader_lease_seconds = 0\n{}{other}", pool("test", "min_workers = 2", SLEEPER))
    };
    let scaler = Autoscaler::start(&server.url(), &some(false)).await;
    scaler.until_workers("test", 2).await;
    let _: u64 = redis(&client, "HSET scaler:override:test mode paused by ann@here").await;
    let _: u64 = redis(&client, "PUBLISH scaler:control test").await;
    scaler.until("it is paused", async || scaler.of("test").await.control.is_some()).await;
    assert_eq!(scaler.reload(&server.url(), &some(true)).await.outcome, ReloadOutcome::Applied);
    server.kill();
    scaler.until("it knows", async || scaler.status().await.redis_error.is_some()).await;
    let reload = scaler.reload(&server.url(), &some(false).replace("min_workers = 2", "min_workers = 4")).await;
    assert_eq!(reload.outcome, ReloadOutcome::Applied);
    scaler
        .until("it has looked under the new settings", async || {
            let of = scaler.of("test").await;
            of.min_workers == 4 && of.sources.contains(&Source::Reload)
        })
        .await;
    let of = scaler.of("test").await;
    assert!(of.control.is_some() && of.reasons[0].contains("paused by ann@here"), "{:?}", of.reasons);
    assert_eq!(of.workers.len(), 2);
}

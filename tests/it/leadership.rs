//! Several autoscalers for the same queues: one leads, and no other one ever acts. Each runs processes of its own, so
//! whoever acts shows by its workers and by the fencing token in its records.

use std::collections::BTreeSet;

use fred::prelude::Client;
use rustix::process::Signal;
use swarm::model::snapshot::Role;

use crate::support::{
    autoscaler::{Autoscaler, FAST_SWEEP, NO_SWEEP, SLEEPER, pool, swarm},
    command::{ScalingRecord, add_jobs, records, redis},
    redis::RedisServer,
};

/// After a table `[scaler]`: a lease that nobody waits for the end of.
const LONG: &str = "leader_lease_seconds = 3600\n";
/// A lease whose end is waited for. Who leads acts for three fifths of it without a renewal: for longer than a busy
/// machine holds a process up.
const SHORT: &str = "leader_lease_seconds = 10\n";
/// A worker for each job.
const EAGER: &str = "scale_up_threshold = 1, max_workers = 20";

async fn start(server: &RedisServer, scaler: &str) -> Autoscaler {
    Autoscaler::start(&server.url(), &format!("{scaler}{}", pool("test", EAGER, SLEEPER))).await
}

/// A leader and a standby, both at rest.
async fn start_two(server: &RedisServer, scaler: &str) -> (Autoscaler, Autoscaler) {
    lead_and_follow(async || start(server, scaler).await).await
}

/// Of two that `start`, a leader and a standby, both at rest.
pub(crate) async fn lead_and_follow(start: impl AsyncFn() -> Autoscaler) -> (Autoscaler, Autoscaler) {
    let first = start().await;
    until_role(&first, Role::Leader).await;
    let second = start().await;
    let leader = Some(first.status().await.instance);
    second.until("it knows who leads", async || second.status().await.leadership.leader == leader).await;
    first.until_ready().await;
    second.until_ready().await;
    (first, second)
}

pub(crate) async fn until_role(scaler: &Autoscaler, role: Role) {
    scaler.until(role.as_str(), async || scaler.status().await.leadership.role == role).await;
}

/// Waits until the scaler has started `count` workers, and its own last record is there.
async fn until_scaled(scaler: &Autoscaler, client: &Client, count: u32) {
    scaler.until_workers("test", count).await;
    let (instance, count) = (scaler.status().await.instance, count.to_string());
    scaler
        .until("it is recorded", async || {
            let last = records(client, "test").await.pop();
            last.is_some_and(|record| record["instance"] == instance && record["to_count"] == count)
        })
        .await;
}

async fn token(scaler: &Autoscaler) -> u64 {
    scaler.status().await.leadership.token.expect("who leads has a token")
}

/// Who wrote these records, with which tokens.
pub(crate) fn writers(records: &[ScalingRecord]) -> BTreeSet<(String, String)> {
    records.iter().map(|record| (record["token"].clone(), record["instance"].clone())).collect()
}

/// The fencing token and the instance.
pub(crate) async fn writer(scaler: &Autoscaler) -> (String, String) {
    (token(scaler).await.to_string(), scaler.status().await.instance)
}

#[tokio::test]
async fn one_leads_from_the_start_and_the_other_decides_and_does_nothing() {
    let server = RedisServer::start();
    let client = server.client().await;
    let (leader, standby) = start_two(&server, &format!("{FAST_SWEEP}{LONG}")).await;
    add_jobs(&client, "test:jobs", 3).await;
    until_scaled(&leader, &client, 3).await;
    standby.until("it would scale", async || standby.of("test").await.desired == 3).await;
    standby.until_evaluated("test", 3).await;

    standby.until_workers("test", 0).await;
    let shown = swarm(standby.directory()).args(["status", "--url", &standby.url()]).output().unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(
        shown.contains("would scale up 0 → 3"),
        "a standby does not tell as done what it leaves to the leader: {shown}"
    );
    assert_eq!(writers(&records(&client, "test").await), BTreeSet::from([writer(&leader).await]));
    for (scaler, role, gauge) in [(&leader, "leader", 1.0), (&standby, "standby", 0.0)] {
        let (ready, body) = scaler.readyz().await;
        assert!(ready && body.contains(&format!("\"role\":\"{role}\"")), "{body}");
        assert!((scaler.metric("swarm_leader").await - gauge).abs() < f64::EPSILON);
    }
    let log = standby.log();
    let told = log.lines().any(|line| line.contains("INFO") && line.contains("scale up 0 → 3"));
    assert!(!told, "only the leader says so: {log}");
}

#[tokio::test]
async fn a_leader_that_is_stopped_hands_over_at_once() {
    let server = RedisServer::start();
    let client = server.client().await;
    let (mut leader, standby) = start_two(&server, &format!("{NO_SWEEP}{LONG}")).await;
    add_jobs(&client, "test:jobs", 2).await;
    until_scaled(&leader, &client, 2).await;
    let before = writer(&leader).await;

    leader.signal(Signal::TERM);
    assert_eq!(leader.exit().await.code(), Some(0));
    // Nothing but the hand-over wakes it: its lease would have lasted for an hour, and no job comes in.
    until_role(&standby, Role::Leader).await;
    until_scaled(&standby, &client, 2).await;
    let after = writer(&standby).await;
    assert!(after.0.parse::<u64>().ok() > before.0.parse().ok(), "{before:?} {after:?}");
    assert_eq!(writers(&records(&client, "test").await), BTreeSet::from([before, after]));
}

#[tokio::test]
async fn a_leader_that_is_killed_is_followed_when_its_lease_is_over() {
    let server = RedisServer::start();
    let client = server.client().await;
    let (mut leader, standby) = start_two(&server, &format!("{NO_SWEEP}{SHORT}")).await;
    leader.signal(Signal::KILL);
    leader.exit().await;
    add_jobs(&client, "test:jobs", 2).await;
    until_scaled(&standby, &client, 2).await;
    assert_eq!(writers(&records(&client, "test").await), BTreeSet::from([writer(&standby).await]));
}

#[tokio::test]
async fn invariant_15_a_leader_that_was_frozen_does_not_act_on_waking() {
    let server = RedisServer::start();
    let client = server.client().await;
    let (frozen, standby) = start_two(&server, &format!("{NO_SWEEP}{SHORT}")).await;
    add_jobs(&client, "test:jobs", 2).await;
    until_scaled(&frozen, &client, 2).await;
    let mut expected = BTreeSet::from([writer(&frozen).await]);

    frozen.signal(Signal::STOP);
    until_role(&standby, Role::Leader).await;
    expected.insert(writer(&standby).await);
    // On waking it finds notifications of these jobs, which would have it start three more workers.
    add_jobs(&client, "test:jobs", 3).await;
    until_scaled(&standby, &client, 5).await;
    frozen.signal(Signal::CONT);
    until_role(&frozen, Role::Standby).await;
    frozen.until("it has seen the jobs", async || frozen.of("test").await.desired == 5).await;
    add_jobs(&client, "test:jobs", 1).await;
    until_scaled(&standby, &client, 6).await;
    frozen.until("it has seen the job", async || frozen.of("test").await.desired == 6).await;

    let records = records(&client, "test").await;
    assert_eq!(writers(&records), expected);
    let of_frozen = records.iter().filter(|record| record["token"] == "1").count();
    assert_eq!(of_frozen, 1, "what it did before: {records:?}");
    assert!(records.iter().all(|record| !record.contains_key("fenced")), "{records:?}");
    // The leader can't see these: they finish and leave.
    frozen.until_workers("test", 0).await;
}

#[tokio::test]
async fn when_redis_comes_back_empty_one_leads_with_a_greater_token() {
    let mut server = RedisServer::start();
    let (first, second) = start_two(&server, &format!("{NO_SWEEP}{SHORT}")).await;
    let before = token(&first).await;
    server.kill();
    for scaler in [&first, &second] {
        scaler.until("it does not act", async || !scaler.readyz().await.0).await;
        until_role(scaler, Role::Standby).await;
    }
    server.restart();
    let client = server.client().await;
    let roles = async || [first.status().await.leadership.role, second.status().await.leadership.role];
    first.until("one leads", async || roles().await.contains(&Role::Leader)).await;
    add_jobs(&client, "test:jobs", 2).await;
    first.until("somebody scales", async || !records(&client, "test").await.is_empty()).await;
    first.until_ready().await;
    second.until_ready().await;

    let mut roles = roles().await;
    roles.sort_by_key(|role| role.as_str());
    assert_eq!(roles, [Role::Leader, Role::Standby]);
    let records = records(&client, "test").await;
    assert_eq!(records.len(), 1, "{records:?}");
    assert!(records[0]["token"].parse::<u64>().is_ok_and(|token| token > before), "{before}: {records:?}");
}

#[tokio::test]
async fn a_record_that_comes_late_is_kept_and_marked_and_overwrites_no_memory() {
    let server = RedisServer::start();
    let client = server.client().await;
    let scaler = start(&server, &format!("{NO_SWEEP}{LONG}")).await;
    scaler.until_ready().await;
    // As if another one had taken over between the write and its record.
    let _: String = redis(&client, "SET scaler:leader:token 99").await;
    let _: u64 = redis(&client, "HSET scaler:state:test last_change_at 1 from 3 to 4").await;
    add_jobs(&client, "test:jobs", 2).await;
    until_scaled(&scaler, &client, 2).await;
    let records = records(&client, "test").await;
    assert_eq!((records[0]["token"].as_str(), records[0].get("fenced").map(String::as_str)), ("1", Some("1")));
    let to: String = redis(&client, "HGET scaler:state:test to").await;
    assert_eq!(to, "4");
    scaler.until_logged("is marked `fenced`").await;
}

#[tokio::test]
async fn a_dry_run_beside_a_leader_never_leads() {
    let server = RedisServer::start();
    let mut leader = start(&server, &format!("{NO_SWEEP}{LONG}")).await;
    let settings = format!("{FAST_SWEEP}{}", pool("test", EAGER, SLEEPER));
    let observer = Autoscaler::start_with(&server.url(), &settings, &["--dry-run"]).await;
    let instance = Some(leader.status().await.instance);
    observer.until("it knows who leads", async || observer.status().await.leadership.leader == instance).await;
    leader.signal(Signal::TERM);
    leader.exit().await;
    observer.until("nobody leads", async || observer.status().await.leadership.leader.is_none()).await;
    assert_eq!(observer.status().await.leadership.role, Role::Observer);
    observer.until("it is ready", async || observer.readyz().await.0).await;
}

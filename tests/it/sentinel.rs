//! `redis+sentinel://` on real sentinels: the whole product finds the primary, and after a failover the new one.

use std::process::Output;

use rustix::process::Signal;
use swarm::model::snapshot::Role;

use crate::{
    leadership::until_role,
    support::{
        autoscaler::{Autoscaler, NO_SWEEP, SLEEPER, pool, real_pool, swarm},
        command::{add_jobs, add_sleep, answers, records, redis},
        sentinel::Sentinels,
        wait::{DEADLINE, eventually},
        worker::WorkerProcess,
    },
};

/// One worker for each five jobs; let go as soon as that is allowed.
const HASTY: &str = "min_workers = 0, scale_up_threshold = 5, cooldown_seconds = 0";

fn run(url: &str, arguments: &[&str]) -> Output {
    let directory = tempfile::tempdir().unwrap();
    swarm(directory.path()).args(arguments).env("REDIS_URL", url).output().unwrap()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[tokio::test]
async fn the_scaler_holds_during_a_failover_and_goes_on_with_the_new_primary() {
    let mut servers = Sentinels::start().await;
    let scaler = Autoscaler::start(&servers.url(), &format!("{NO_SWEEP}{}", pool("test", HASTY, SLEEPER))).await;
    scaler.until_ready().await;
    let client = servers.client().await;
    add_jobs(&client, "test:jobs", 10).await;
    scaler.until_workers("test", 2).await;
    // One change or two: the first jobs alone may have started a worker.
    let has_come_to = async |client: &_, count: &str| {
        records(client, "test").await.last().is_some_and(|record| record["to_count"] == count)
    };
    scaler.until("the change is recorded", async || has_come_to(&client, "2").await).await;
    let before = records(&client, "test").await;
    let copies: u64 = redis(&client, "WAIT 2 10000").await;
    assert_eq!(copies, 2, "both replicas have it all");

    servers.fail_over().await;
    scaler.until_ready().await;
    assert!(!scaler.log().contains("scale down"), "{}", scaler.log());
    scaler.until_workers("test", 2).await;
    add_jobs(&servers.client().await, "test:jobs", 10).await;
    scaler.until_workers("test", 4).await;
    let client = servers.client().await;
    scaler.until("the history goes on", async || has_come_to(&client, "4").await).await;
    assert_eq!(records(&client, "test").await[..before.len()], before, "and begins with what was before");
}

#[tokio::test]
async fn a_frozen_primary_is_left_for_the_new_one() {
    let servers = Sentinels::start().await;
    let scaler = Autoscaler::start(&servers.url(), &format!("{NO_SWEEP}{}", pool("test", HASTY, SLEEPER))).await;
    scaler.until_ready().await;
    let before = servers.primary().await;
    servers.servers[before].stop();
    servers.until_other_primary(before).await;
    scaler.until_ready().await;
    add_jobs(&servers.client().await, "test:jobs", 1).await;
    scaler.until_workers("test", 1).await;

    // When it wakes it takes itself for the primary until a sentinel tells it otherwise.
    servers.servers[before].cont();
    add_jobs(&servers.client().await, "test:jobs", 9).await;
    scaler.until_workers("test", 2).await;
}

/// The sentinels and the replicas lose the primary, and the autoscaler does not: they have another user there.
#[tokio::test]
async fn who_leads_on_a_primary_that_is_cut_off_goes_on_with_the_new_one() {
    let servers = Sentinels::start().await;
    for server in &servers.servers {
        let _: String = redis(&server.client().await, "ACL SETUSER scaler on >secret ~* &* +@all").await;
    }
    let url = servers.url().replace("//", "//scaler:secret@");
    let settings = format!("{NO_SWEEP}leader_lease_seconds = 10\n{}", pool("test", HASTY, SLEEPER));
    let scaler = Autoscaler::start(&url, &settings).await;
    scaler.until_ready().await;
    until_role(&scaler, Role::Leader).await;
    let before = servers.primary().await;
    let old = servers.servers[before].client().await;
    let _: String = redis(&old, "AUTH scaler secret").await;
    add_jobs(&old, "test:jobs", 1).await;
    scaler.until_workers("test", 1).await;
    scaler.until("the change is recorded", async || records(&old, "test").await.len() == 1).await;
    // WAIT is about the writes of its own connection, and thereby about all that came before.
    let _: u64 = redis(&old, "INCR mark").await;
    let copies: u64 = redis(&old, "WAIT 2 10000").await;
    assert_eq!(copies, 2, "both replicas have it all");

    let _: String = redis(&old, "ACL SETUSER default -@all").await;
    servers.until_other_primary(before).await;
    let role: Vec<fred::types::Value> = redis(&old, "ROLE").await;
    assert_eq!(role[0].as_str().as_deref(), Some("master"), "it does not know");
    let left = async || redis::<u64>(&old, "EXISTS scaler:leader").await == 0;
    scaler.until("nobody leads on the old primary", left).await;
    until_role(&scaler, Role::Leader).await;
    add_jobs(&servers.client().await, "test:jobs", 9).await;
    scaler.until_workers("test", 2).await;
    let told = async || records(&servers.client().await, "test").await.len() == 2;
    scaler.until("the change is recorded on the new primary, after the first one", told).await;
    assert_eq!(records(&old, "test").await.len(), 1, "nothing is written to the old one any more");
}

#[tokio::test]
async fn workers_finish_their_jobs_on_the_new_primary_and_take_more() {
    let mut servers = Sentinels::start().await;
    let worker = WorkerProcess::start(&servers.url(), "w1", "heartbeat_seconds = 1");
    let client = servers.client().await;
    worker.until_state(&client, "IDLE").await;
    add_sleep(&client, "t", "long", 5.0).await;
    worker.until_state(&client, "BUSY").await;
    let _: u64 = redis(&client, "WAIT 2 10000").await;

    servers.fail_over().await;
    let client = servers.client().await;
    let answered = async || answers(&client, "long").await.len() == 1;
    assert!(eventually(DEADLINE, answered).await, "{}", worker.log());
    add_sleep(&client, "t", "next", 0.0).await;
    let answered = async || answers(&client, "next").await.len() == 1;
    assert!(eventually(DEADLINE, answered).await, "{}", worker.log());
}

#[tokio::test]
async fn a_pool_of_real_workers_and_every_command_work_before_and_after() {
    let mut servers = Sentinels::start().await;
    let url = servers.url();
    let pool = real_pool("browser", "min_workers = 0, cooldown_seconds = 3600");
    let mut scaler = Autoscaler::start(&url, &format!("{NO_SWEEP}{pool}")).await;
    scaler.until_ready().await;
    for round in ["before", "after"] {
        let echo = run(&url, &["publish", "browser.echo", round, "--wait", "--timeout", "60"]);
        assert!(echo.status.success() && said(&echo).contains(round), "{}\n{}", said(&echo), scaler.log());
        for arguments in [&["events"][..], &["dead", "list"], &["pause", "browser"], &["resume", "browser"]] {
            let output = run(&url, arguments);
            assert!(output.status.success(), "{round}: swarm {arguments:?}: {}", said(&output));
        }
        if round == "before" {
            servers.fail_over().await;
            scaler.until_ready().await;
        }
    }
    scaler.signal(Signal::TERM);
    assert!(scaler.exit().await.success(), "{}", scaler.log());
}

#[tokio::test]
async fn what_the_sentinels_say_is_told_when_there_is_no_primary() {
    let servers = Sentinels::start().await;
    let wrong = run(&servers.url().replace("mymaster", "other"), &["publish", "browser.echo", "hi"]);
    assert!(!wrong.status.success() && said(&wrong).contains("watches no `other`"), "{}", said(&wrong));
    let nobody = run("redis+sentinel://u:hunter2@127.0.0.1:1/mymaster", &["publish", "browser.echo", "hi"]);
    let told = said(&nobody);
    assert!(told.contains("`mymaster`/0 of the sentinels 127.0.0.1:1") && !told.contains("hunter2"), "{told}");
}

//! How the scaler starts, stops and dies, and what becomes of its workers, its memory and its records then.

use rustix::process::Signal;

use crate::support::{
    autoscaler::{Autoscaler, FAST_SWEEP, NO_SWEEP, SLEEPER, gated_pool, pool},
    command::{add_job, add_jobs, answers, records, redis, work_off},
    gate::Gate,
    processes::{kill, variable_of},
    redis::RedisServer,
    wait::{DEADLINE, eventually},
};

/// Notes its start and its orderly end.
const NOTING: &str = "trap 'echo $SWARM_WORKER_ID >> $SWARM_TEST_DIR/drained; exit 0' TERM; \
    echo $SWARM_WORKER_ID >> $SWARM_TEST_DIR/starts; \
    while :; do sleep 0.05; done";
/// Does not leave when asked to.
const STUBBORN: &str = "trap '' TERM; echo $$ >> $SWARM_TEST_DIR/pids; while :; do sleep 0.05; done";

#[tokio::test]
async fn sigterm_drains_the_workers_and_exits_with_0() {
    let server = RedisServer::start();
    let settings = format!("{NO_SWEEP}{}", pool("test", "min_workers = 3", NOTING));
    let mut scaler = Autoscaler::start(&server.url(), &settings).await;
    scaler.until("3 workers run", async || scaler.lines("starts").len() == 3).await;

    scaler.signal(Signal::TERM);
    assert_eq!(scaler.exit().await.code(), Some(0));
    assert_eq!(scaler.processes(), [], "it ends after everything that it started");
    assert_eq!(scaler.lines("drained").len(), 3);
    scaler.until_logged("stopping: workers finish").await;
    scaler.until_logged("autoscaler stopped").await;
}

#[tokio::test]
async fn it_is_unready_while_it_drains_and_a_second_sigterm_ends_it_at_once() {
    let server = RedisServer::start();
    let settings = format!("{NO_SWEEP}{}", pool("test", "min_workers = 1, drain_timeout_seconds = 3600", STUBBORN));
    let mut scaler = Autoscaler::start(&server.url(), &settings).await;
    scaler.until("the worker runs", async || scaler.lines("pids").len() == 1).await;

    scaler.signal(Signal::TERM);
    scaler
        .until("it says that it is being stopped", async || {
            let (ready, why) = scaler.readyz().await;
            !ready && why.contains("being stopped")
        })
        .await;
    scaler.signal(Signal::TERM);
    assert_eq!(scaler.exit().await.code(), Some(128 + Signal::TERM.as_raw()));
    // The guard keeps to the drain timeout of an hour, so somebody has to end this worker.
    kill(scaler.lines("pids")[0].parse().expect("a process id"), Signal::KILL);
}

#[tokio::test]
async fn nothing_outlives_a_scaler_that_is_killed() {
    let server = RedisServer::start();
    let settings = format!(
        "{NO_SWEEP}{}{}",
        pool("orderly", "min_workers = 2", NOTING),
        pool("stubborn", "min_workers = 2, drain_timeout_seconds = 1", STUBBORN)
    );
    let mut scaler = Autoscaler::start(&server.url(), &settings).await;
    scaler.until("4 workers run", async || scaler.lines("starts").len() == 2 && scaler.lines("pids").len() == 2).await;

    scaler.signal(Signal::KILL);
    scaler.exit().await;
    let gone = eventually(DEADLINE, async || scaler.processes().is_empty()).await;
    assert!(gone, "left behind: {:?}", scaler.processes());
    assert_eq!(scaler.lines("drained").len(), 2, "who leaves when asked was asked");
}

#[tokio::test]
async fn the_job_of_a_worker_that_is_killed_is_done_by_another() {
    let server = RedisServer::start();
    let client = server.client().await;
    let gate = Gate::new();
    let settings = format!("{FAST_SWEEP}{}", gated_pool("test", "min_workers = 1, max_workers = 1", &gate));
    let scaler = Autoscaler::start(&server.url(), &settings).await;
    add_job(&client, "test", "wait", "job").await;
    let holder = async || {
        let pending: Vec<(String, String, u64, u64)> = redis(&client, "XPENDING test:jobs test - + 10").await;
        pending.first().map(|(_, holder, ..)| holder.clone())
    };
    scaler.until("a worker is at work", async || scaler.of("test").await.workers.iter().any(|one| one.busy)).await;
    let victim = holder().await.expect("a busy worker holds the job");
    let processes = scaler.processes();
    let (id, _) = processes
        .iter()
        .find(|(id, _)| variable_of(*id, "SWARM_WORKER_ID") == victim)
        .expect("the worker is a process");
    kill(*id, Signal::KILL);
    gate.open();

    scaler.until("the job is answered", async || !answers(&client, "job").await.is_empty()).await;
    assert_eq!(answers(&client, "job").await[0]["ok"], true);
    let of_test = scaler.of("test").await;
    assert!(of_test.workers.iter().all(|one| one.id.as_str() != victim), "the dead worker was replaced");
    scaler.until_logged(&victim).await;
}

#[tokio::test]
async fn a_worker_that_dies_is_replaced_at_once() {
    let server = RedisServer::start();
    let client = server.client().await;
    let settings = format!("{NO_SWEEP}{}", pool("test", "min_workers = 1", NOTING));
    let scaler = Autoscaler::start(&server.url(), &settings).await;
    scaler.until_ready().await;
    scaler.until("the worker runs", async || scaler.lines("starts").len() == 1).await;
    let victim = scaler.lines("starts").remove(0);
    // Its children bear its name as well.
    for (id, _) in scaler.processes().into_iter().filter(|(id, _)| variable_of(*id, "SWARM_WORKER_ID") == victim) {
        kill(id, Signal::KILL);
    }
    scaler.until("another one runs", async || scaler.lines("starts").len() == 2).await;
    scaler.until("it is recorded", async || records(&client, "test").await.len() == 2).await;
    assert_eq!(records(&client, "test").await[1]["trigger"], "backend");
}

#[tokio::test]
async fn a_cooldown_survives_a_restart() {
    let server = RedisServer::start();
    let client = server.client().await;
    let scaling = "min_workers = 0, scale_up_threshold = 5, cooldown_seconds = 3600";
    let settings = format!("{FAST_SWEEP}{}", pool("test", scaling, SLEEPER));
    let scaler = Autoscaler::start(&server.url(), &settings).await;
    add_jobs(&client, "test:jobs", 1).await;
    scaler.until_workers("test", 1).await;
    scaler.until("the change is recorded", async || records(&client, "test").await.len() == 1).await;
    let before = scaler.of("test").await.last_change.expect("there was a change");
    let remembered: Vec<u64> = redis(&client, "HMGET scaler:state:test last_change_at from to").await;
    assert_eq!(remembered, [before.at.0, 0, 1]);

    // Without a job nothing changes, so that what a new scaler shows is what it was told.
    let _: u64 = redis(&client, "DEL test:jobs").await;
    let scaler = scaler.restart(&server.url(), &settings).await;
    scaler.until_evaluated("test", 2).await;
    scaler.until_workers("test", 0).await;
    assert_eq!(scaler.of("test").await.last_change, Some(before));

    let _: u64 = redis(&client, "DEL scaler:state:test").await;
    let scaler = scaler.restart(&server.url(), &settings).await;
    scaler.until_evaluated("test", 2).await;
    assert_eq!(scaler.of("test").await.last_change, None);
}

#[tokio::test]
async fn workers_that_crash_at_once_are_started_ever_less_often_and_harm_no_other_pool() {
    let server = RedisServer::start();
    let client = server.client().await;
    let crashing = "echo $SWARM_WORKER_ID >> $SWARM_TEST_DIR/crashes; exit 3";
    let settings = format!(
        "{FAST_SWEEP}{}{}",
        pool("broken", "min_workers = 1", crashing),
        pool("test", "min_workers = 0", SLEEPER)
    );
    let scaler = Autoscaler::start(&server.url(), &settings).await;
    scaler
        .until("the backoff is told with its cause", async || {
            let reasons = scaler.of("broken").await.reasons.join("\n");
            reasons.contains("rounds of starts in a row failed")
                && reasons.contains('3')
                && reasons.contains("next try in")
        })
        .await;
    add_jobs(&client, "test:jobs", 1).await;
    scaler.until_workers("test", 1).await;

    scaler.until("a few tries", async || scaler.lines("crashes").len() >= 4).await;
    scaler.until("they are recorded", async || records(&client, "broken").await.len() >= 4).await;
    let tries: Vec<u64> = records(&client, "broken")
        .await
        .iter()
        .map(|record| record["timestamp"].parse().expect("milliseconds"))
        .collect();
    let pauses: Vec<u64> = tries.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(pauses[1] >= 1_000 && pauses[2] >= 2_000, "1 s after the second crash, 2 s after the third: {pauses:?}");
}

#[tokio::test]
async fn a_dry_run_decides_and_logs_and_changes_nothing() {
    let server = RedisServer::start();
    let client = server.client().await;
    let settings = format!("{NO_SWEEP}{}", pool("test", "min_workers = 0, scale_up_threshold = 5", NOTING));
    let scaler = Autoscaler::start_with(&server.url(), &settings, &["--dry-run"]).await;
    scaler.until_ready().await;
    assert!(scaler.status().await.dry_run);
    add_jobs(&client, "test:jobs", 10).await;
    scaler.until_logged("would scale up 0 → 2").await;
    scaler.until_quiet().await;
    let of = scaler.of("test").await;
    assert!(of.reasons[0].starts_with("would scale up 0 → 2: "), "{:?}", of.reasons);

    scaler.until_workers("test", 0).await;
    assert_eq!(scaler.lines("starts"), [""; 0]);
    let keys: Vec<String> = redis(&client, "KEYS *").await;
    assert_eq!(keys, ["test:jobs"], "it writes nothing to redis");
}

#[tokio::test]
async fn there_is_one_record_for_each_change() {
    let server = RedisServer::start();
    let client = server.client().await;
    let scaling = "min_workers = 0, max_workers = 4, scale_up_threshold = 5, cooldown_seconds = 0";
    let settings = format!("{FAST_SWEEP}{}", pool("test", scaling, NOTING));
    let scaler = Autoscaler::start(&server.url(), &settings).await;
    let _: String = redis(&client, "XGROUP CREATE test:jobs test 0 MKSTREAM").await;
    for round in 1..=3 {
        add_jobs(&client, "test:jobs", 20).await;
        scaler.until_workers("test", 4).await;
        scaler.until("the workers run", async || scaler.lines("starts").len() >= 4 * round).await;
        work_off(&client, "test:jobs", "test").await;
        scaler.until_workers("test", 0).await;
        scaler.until("the workers have left", async || scaler.lines("drained").len() == 4 * round).await;
    }
    let total = |records: &[crate::support::command::ScalingRecord], decision: &str| {
        let of = records.iter().filter(|record| record["decision"] == decision);
        of.map(|record| number(&record["to_count"]).abs_diff(number(&record["from_count"]))).sum::<u64>()
    };
    scaler.until("all is recorded", async || total(&records(&client, "test").await, "scale_down") == 12).await;
    let records = records(&client, "test").await;
    assert_eq!(total(&records, "scale_up"), 12, "{records:?}");
    assert_eq!(scaler.lines("starts").len(), 12);
    let mut at = 0;
    for record in &records {
        assert_eq!((number(&record["from_count"]), record["outcome"].as_str()), (at, "done"), "{records:?}");
        at = number(&record["to_count"]);
    }
    let changes =
        scaler.metric("swarm_scaling_events_total{worker_type=\"test\",action=\"scale_down\",outcome=\"done\"}");
    let downs = records.iter().filter(|record| record["decision"] == "scale_down").count();
    assert_eq!(changes.await.to_string(), downs.to_string());
}

#[tokio::test]
async fn a_program_that_is_missing_is_recorded_as_a_failure() {
    let server = RedisServer::start();
    let client = server.client().await;
    let broken = "[worker_types.test]\nscaling = { min_workers = 1 }\nprocess = { command = [\"no-such-program\"] }\n";
    let scaler = Autoscaler::start(&server.url(), &format!("{NO_SWEEP}{broken}")).await;
    scaler.until("the failure is recorded", async || !records(&client, "test").await.is_empty()).await;
    let record = records(&client, "test").await.remove(0);
    assert_eq!((record["from_count"].as_str(), record["to_count"].as_str()), ("0", "1"));
    assert_eq!(record["outcome"], "failed");
    assert!(record["error"].contains("no-such-program"), "{record:?}");
    assert!(scaler.of("test").await.backend_error.as_deref().is_some_and(|why| why.contains("no-such-program")));
    let remembered: u64 = redis(&client, "EXISTS scaler:state:test").await;
    assert_eq!(remembered, 0, "a change that did not happen starts no cooldown");
}

fn number(field: &str) -> u64 {
    field.parse().expect("a count")
}

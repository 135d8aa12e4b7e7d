//! The `latency` strategy, schedules, spare workers and limits on steps, with the real binary and real workers.

use std::time::SystemTime;

use jiff::{Timestamp, ToSpan, tz::TimeZone};

use crate::support::{
    autoscaler::{Autoscaler, FAST_SWEEP, NO_SWEEP, SLEEPER, pool, real_pool, swarm},
    command::{ScalingRecord, add_jobs, add_sleep, records, redis},
    redis::RedisServer,
};

/// What stands between two words of a reason, as a number.
fn number(reason: &str, before: &str, after: &str) -> f64 {
    let found =
        reason.split_once(before).and_then(|(_, rest)| rest.split_once(after)).map(|(number, _)| number.parse());
    found.and_then(Result::ok).unwrap_or_else(|| panic!("no number between `{before}` and `{after}` in `{reason}`"))
}

#[tokio::test]
async fn latency_learns_how_long_a_job_takes_and_starts_as_many_workers_as_that_needs() {
    let server = RedisServer::start();
    let client = server.client().await;
    // As long as nothing is known, all the jobs are one worker's.
    let scaling = "strategy = \"latency\", target_wait_seconds = 2, jobs_per_worker = 1000, max_workers = 8";
    let scaler = Autoscaler::start(&server.url(), &format!("{NO_SWEEP}{}", real_pool("test", scaling))).await;
    scaler.until_ready().await;
    for job in 0..40 {
        add_sleep(&client, "test", &format!("job-{job}"), 0.5).await;
    }
    let learned = |record: &ScalingRecord| record["reason"].contains("s a job");
    scaler.until("it has learned", async || records(&client, "test").await.iter().any(learned)).await;
    let records = records(&client, "test").await;
    assert!(records[0]["reason"].contains("until it is known how long a job takes"), "{records:?}");
    assert_eq!(records[0]["to_count"], "1", "{records:?}");

    let told = records.iter().find(|record| learned(record)).expect("it was just seen");
    let reason = &told["reason"];
    let (depth, job) = (number(reason, ": depth ", ","), number(reason, ", ", " s a job"));
    let arriving = number(reason, " s a job, ", " jobs/s");
    let wanted = number(reason, "arriving: ", " workers");
    // A job sleeps for half a second; what comes on top is the machine's.
    assert!((0.4..2.0).contains(&job), "{reason}");
    assert!(wanted >= 2.0 && (wanted - (depth + 2.0 * arriving) * (job / 2.0).min(1.0)).abs() <= 2.0, "{reason}");
    let reached: f64 = told["to_count"].parse().expect("a number");
    assert!((reached - wanted.min(8.0)).abs() < 0.5, "{told:?}");
}

/// The time `seconds` from now, as a cron expression of UTC.
fn seconds_from_now(seconds: i64) -> String {
    let now = Timestamp::try_from(SystemTime::now()).expect("the clock is right");
    (now + seconds.seconds()).to_zoned(TimeZone::UTC).strftime("%-S %-M %-H * * *").to_string()
}

#[tokio::test]
async fn a_window_opens_and_closes_by_itself() {
    let server = RedisServer::start();
    let client = server.client().await;
    let window = format!(
        "[[worker_types.test.scaling.schedule]]\nstart = \"{}\"\nend = \"{}\"\nmin_workers = 2\n",
        seconds_from_now(5),
        seconds_from_now(17)
    );
    let pool = "[worker_types.test]\nworker = { heartbeats = false }\n\
        process = { command = [\"sleep\", \"1000\"] }\n[worker_types.test.scaling]\ncooldown_seconds = 0\n";
    let scaler = Autoscaler::start(&server.url(), &format!("{NO_SWEEP}{pool}{window}")).await;
    scaler.until_workers("test", 2).await;
    assert_eq!(scaler.of("test").await.min_workers, 2);
    // No job, no sweep, nobody: the end of the window wakes it.
    scaler.until_workers("test", 0).await;
    scaler.until("it is recorded", async || records(&client, "test").await.len() == 2).await;
    let records = records(&client, "test").await;
    assert!(records[0]["reason"].contains("at least 2 (schedule, for "), "{records:?}");
    assert_eq!((records[1]["decision"].as_str(), records[1]["trigger"].as_str()), ("scale_down", "recheck"));
    assert_eq!(scaler.of("test").await.min_workers, 0);
}

#[tokio::test]
async fn why_tells_of_spare_workers_and_of_steps() {
    let server = RedisServer::start();
    let client = server.client().await;
    let scaling = "max_workers = 9, scale_up_threshold = 2, spare = 1, max_step_up = 3, step_period_seconds = 3600";
    let scaler = Autoscaler::start(&server.url(), &format!("{NO_SWEEP}{}", pool("test", scaling, SLEEPER))).await;
    scaler.until_workers("test", 1).await;
    add_jobs(&client, "test:jobs", 20).await;
    scaler.until_workers("test", 3).await;
    scaler.until_quiet().await;
    let told = swarm(scaler.directory()).args(["why", "test", "--url", &scaler.url()]).output().unwrap();
    let text = String::from_utf8(told.stdout).unwrap();
    for part in ["1. depth 20 ≥ 2 wants 10", "at most 3 more within 3600 s (max_step_up), the next in ", "=> held at 3"]
    {
        assert!(text.contains(part), "`{part}` is missing in\n{text}");
    }
    scaler.until("it is recorded", async || !records(&client, "test").await.is_empty()).await;
    let first = &records(&client, "test").await[0];
    assert!(first["reason"].contains("1 spare beside 0 at work wants 1"), "{first:?}");
}

#[tokio::test]
async fn a_queue_that_stays_unreadable_gets_the_fallback_and_a_readable_one_loses_it() {
    let server = RedisServer::start();
    let client = server.client().await;
    let scaling = "max_workers = 5, cooldown_seconds = 0, fallback_workers = 2, fallback_after_seconds = 2";
    let scaler = Autoscaler::start(&server.url(), &format!("{FAST_SWEEP}{}", pool("test", scaling, SLEEPER))).await;
    scaler.until_ready().await;
    let begun = std::time::Instant::now();
    let _: String = redis(&client, "SET test:jobs neither-a-stream-nor-a-list").await;
    scaler.until_workers("test", 2).await;
    assert!(begun.elapsed() >= std::time::Duration::from_secs(2), "started after {:?}", begun.elapsed());
    scaler.until("it is recorded", async || !records(&client, "test").await.is_empty()).await;
    let record = records(&client, "test").await.remove(0);
    assert!(record["reason"].contains("at least 2 (fallback)"), "{record:?}");

    let _: u64 = redis(&client, "DEL test:jobs").await;
    scaler.until_workers("test", 0).await;
}

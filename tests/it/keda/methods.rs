//! Each method, and each error.

use tonic::Code;

use super::client::{Keda, start};
use crate::support::{
    autoscaler::{FAST_SWEEP, SWARM},
    command::{add_jobs, add_sleep, records, redis},
    redis::RedisServer,
    worker::WorkerProcess,
};

const WORKERS: &[(&str, &str)] = &[("workerType", "t")];
const DEPTH: &[(&str, &str)] = &[("workerType", "t"), ("metric", "depth"), ("targetSize", "2.5")];

#[tokio::test]
async fn keda_is_told_the_recommendation_and_swarm_starts_nobody() {
    let server = RedisServer::start();
    let client = server.client().await;
    let scaler = start(&server, FAST_SWEEP).await;
    let mut keda = Keda::connect(&scaler).await;
    assert_eq!(keda.spec(WORKERS).await.unwrap(), ("swarm-t-workers".to_owned(), 1, 1.0));
    assert_eq!(keda.spec(DEPTH).await.unwrap(), ("swarm-t-depth".to_owned(), 3, 2.5));
    keda.until_value(&scaler, WORKERS, 0).await;
    keda.until_active(&scaler, WORKERS, false).await;

    add_jobs(&client, "t:jobs", 5).await;
    keda.until_value(&scaler, DEPTH, 5).await;
    keda.until_value(&scaler, WORKERS, 3).await;
    keda.until_active(&scaler, WORKERS, true).await;
    keda.until_active(&scaler, DEPTH, true).await;

    let seen = scaler.of("t").await;
    assert_eq!((seen.recommended, seen.desired), (Some(3), 3));
    assert!(seen.reasons[0].starts_with("recommends 3: KEDA scales this type"), "{:?}", seen.reasons);
    assert!(records(&client, "t").await.is_empty(), "swarm has changed nothing");
    let counted = async |method: &str| {
        scaler.metric(&format!("swarm_keda_requests_total{{method=\"{method}\",code=\"OK\"}}")).await
    };
    assert!(counted("GetMetricSpec").await >= 5.0 && counted("GetMetrics").await >= 3.0);
    assert!(counted("IsActive").await >= 3.0);
}

#[tokio::test]
async fn why_says_who_scales() {
    let server = RedisServer::start();
    let scaler = start(&server, FAST_SWEEP).await;
    let config = scaler.directory().join("swarm.toml");
    let told = std::process::Command::new(SWARM)
        .args(["why", "t", "--url", &scaler.url(), "--config"])
        .arg(config)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&told.stdout);
    assert!(text.contains("KEDA scales this type"), "{text}\n{}", String::from_utf8_lossy(&told.stderr));
}

#[tokio::test]
async fn a_wrong_trigger_is_told_what_is_wrong() {
    let server = RedisServer::start();
    let scaler = start(&server, &format!("{FAST_SWEEP}[worker_types.other]\n")).await;
    let mut keda = Keda::connect(&scaler).await;
    for (metadata, code, told) in [
        (&[("workerType", "x")][..], Code::NotFound, "there is no worker type `x`; there are other, t"),
        (&[], Code::InvalidArgument, "no `workerType`"),
        (&[("workerType", "t"), ("metric", "lag")], Code::InvalidArgument, "`workers` or `depth`, not `lag`"),
        (&[("workerType", "t"), ("metric", "depth")], Code::InvalidArgument, "needs `targetSize`"),
        (&[("workerType", "t"), ("targetSize", "3")], Code::InvalidArgument, "is for `metric: depth`"),
    ] {
        let errors = [
            keda.is_active(metadata).await.unwrap_err(),
            keda.spec(metadata).await.unwrap_err(),
            keda.value_of(metadata, "swarm-t-workers").await.unwrap_err(),
            keda.stream(metadata).await.unwrap_err(),
        ];
        for error in errors {
            assert!(error.code() == code && error.message().contains(told), "{metadata:?}: {error:?}");
        }
    }
    let error = keda.value_of(WORKERS, "swarm-t-depth").await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    assert!(error.message().contains("this trigger has `swarm-t-workers`"), "{error:?}");
    let refused = scaler.metric("swarm_keda_requests_total{method=\"IsActive\",code=\"NOT_FOUND\"}").await;
    assert_eq!(refused.to_bits(), 1_f64.to_bits());
}

#[tokio::test]
async fn a_list_is_served_too() {
    let server = RedisServer::start();
    let client = server.client().await;
    let list = "[worker_types.l]\nkind = \"list\"\nscaling = { strategy = \"backlog\", jobs_per_worker = 1 }\n";
    let scaler = start(&server, &format!("{FAST_SWEEP}{list}")).await;
    let mut keda = Keda::connect(&scaler).await;
    let of_list = &[("workerType", "l")];
    keda.until_active(&scaler, of_list, false).await;
    let _: u64 = redis(&client, "RPUSH l:jobs one two three four").await;
    keda.until_active(&scaler, of_list, true).await;
    keda.until_value(&scaler, of_list, 4).await;
}

#[tokio::test]
async fn a_worker_is_seen_by_its_heartbeat_and_keeps_its_type_active() {
    let server = RedisServer::start();
    let client = server.client().await;
    let scaler = start(&server, FAST_SWEEP).await;
    let mut keda = Keda::connect(&scaler).await;
    let worker = WorkerProcess::start(&server.url(), "w", "heartbeat_seconds = 1\n");
    worker.until_state(&client, "IDLE").await;
    // Before Redis 7.2, a group lists a consumer once it has had a job.
    add_sleep(&client, "t", "first", 0.0).await;
    scaler.until_workers("t", 1).await;
    // A session without a job: nothing of it is in the queue.
    let _: u64 = redis(&client, "HSET worker:heartbeat:t:w-by-hand state BUSY jobs_in_progress 0 sessions 1").await;
    let _: u64 = redis(&client, "XGROUP CREATECONSUMER t:jobs t w-by-hand").await;
    let _: u64 = redis(&client, "PUBLISH worker:events t").await;
    // It is not to be stopped, although the queue is empty.
    keda.until_active(&scaler, WORKERS, true).await;
    keda.until_value(&scaler, WORKERS, 1).await;
    let _: u64 = redis(&client, "DEL worker:heartbeat:t:w-by-hand").await;
    let _: u64 = redis(&client, "PUBLISH worker:events t").await;
    keda.until_active(&scaler, WORKERS, false).await;
}

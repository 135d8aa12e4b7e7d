//! `StreamIsActive`.

use tonic::Code;

use super::client::{HALF, KEDA, Keda, start};
use crate::support::{
    autoscaler::FAST_SWEEP,
    command::{add_jobs, redis, work_off},
    redis::RedisServer,
    wait::DEADLINE,
};

const T: &[(&str, &str)] = &[("workerType", "t")];

/// Waits for the next message.
async fn next(stream: &mut tonic::Streaming<super::client::proto::IsActiveResponse>) -> bool {
    let message = tokio::time::timeout(DEADLINE, stream.message()).await.expect("a message in time");
    message.unwrap().expect("the stream goes on").result
}

#[tokio::test]
async fn a_stream_tells_the_state_and_each_change_once() {
    let server = RedisServer::start();
    let client = server.client().await;
    let _: String = redis(&client, "XGROUP CREATE t:jobs t 0 MKSTREAM").await;
    let scaler = start(&server, FAST_SWEEP).await;
    let mut keda = Keda::connect(&scaler).await;
    let mut stream = keda.open(&scaler, T).await;
    assert!(!next(&mut stream).await);
    add_jobs(&client, "t:jobs", 1).await;
    assert!(next(&mut stream).await);
    // More jobs are no change; the next message is the end of the work.
    add_jobs(&client, "t:jobs", 3).await;
    scaler.until("they were evaluated", async || scaler.of("t").await.recommended == Some(2)).await;
    let mut late = keda.open(&scaler, T).await;
    assert!(next(&mut late).await, "the current state comes first");
    work_off(&client, "t:jobs", "t").await;
    assert!(!next(&mut stream).await && !next(&mut late).await);
}

#[tokio::test]
async fn a_stream_ends_when_its_worker_type_is_removed_or_the_autoscaler_stops() {
    let server = RedisServer::start();
    let other = "[worker_types.other]\n";
    let mut scaler = start(&server, &format!("{FAST_SWEEP}{other}")).await;
    let mut keda = Keda::connect(&scaler).await;
    let (mut of_t, mut of_other) = (keda.open(&scaler, T).await, keda.open(&scaler, &[("workerType", "other")]).await);
    assert!(!next(&mut of_t).await && !next(&mut of_other).await);
    scaler.reload(&server.url(), &format!("{KEDA}{FAST_SWEEP}{HALF}")).await;
    let removed = tokio::time::timeout(DEADLINE, of_other.message()).await.unwrap().unwrap_err();
    assert_eq!((removed.code(), removed.message()), (Code::NotFound, "there is no worker type `other`; there are t"));
    scaler.signal(rustix::process::Signal::TERM);
    let stopped = tokio::time::timeout(DEADLINE, of_t.message()).await.unwrap();
    assert!(stopped.is_ok_and(|message| message.is_none()), "after a regular end, KEDA comes back soon");
    assert!(scaler.exit().await.success());
}

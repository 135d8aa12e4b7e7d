//! While Redis is away, nothing is told as 0 or inactive.

use tonic::Code;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

use super::client::{Keda, channel, start};
use crate::support::{autoscaler::FAST_SWEEP, command::add_jobs, redis::RedisServer, wait::DEADLINE};

const T: &[(&str, &str)] = &[("workerType", "t")];
const DEPTH: &[(&str, &str)] = &[("workerType", "t"), ("metric", "depth"), ("targetSize", "5")];

#[tokio::test]
async fn without_redis_every_number_is_unavailable_and_a_stream_waits() {
    let mut server = RedisServer::start();
    let scaler = start(&server, FAST_SWEEP).await;
    let mut keda = Keda::connect(&scaler).await;
    let mut health = HealthClient::new(channel(&scaler).await);
    let mut serving = async || {
        let request = HealthCheckRequest { service: "externalscaler.ExternalScaler".to_owned() };
        health.check(request).await.unwrap().into_inner().status == i32::from(ServingStatus::Serving)
    };
    scaler.until("it serves", &mut serving).await;
    let mut stream = keda.open(&scaler, T).await;
    assert!(!stream.message().await.unwrap().unwrap().result);

    server.kill();
    for metadata in [T, DEPTH] {
        // A stream is open and silent.
        let unavailable = [Code::Unavailable, Code::Unavailable, Code::Ok];
        scaler.until("nothing is known", async || keda.codes(metadata).await == unavailable).await;
    }
    let told = keda.is_active(T).await.expect_err("redis is away");
    assert!(told.message().starts_with("worker type `t`: "), "{told:?}");
    scaler.until("it does not serve", async || !serving().await).await;
    let mut opened_meanwhile = keda.open(&scaler, T).await;

    server.start_again();
    let client = server.client().await;
    scaler.until("it is known again", async || keda.codes(T).await == [Code::Ok; 3]).await;
    add_jobs(&client, "t:jobs", 1).await;
    let pushed = tokio::time::timeout(DEADLINE, stream.message()).await.expect("pushed over the old stream");
    assert!(pushed.unwrap().unwrap().result);
    // Its first message may be of before the job.
    let mut told = async || opened_meanwhile.message().await.unwrap().unwrap().result;
    while !tokio::time::timeout(DEADLINE, told()).await.expect("pushed over the stream of meanwhile") {}
    scaler.until("it serves again", &mut serving).await;
}

#[tokio::test]
async fn a_server_that_hangs_is_not_taken_for_an_empty_queue() {
    let server = RedisServer::start();
    let client = server.client().await;
    let scaler = start(&server, FAST_SWEEP).await;
    let mut keda = Keda::connect(&scaler).await;
    add_jobs(&client, "t:jobs", 1).await;
    scaler.until("it is active", async || keda.is_active(T).await.unwrap_or(false)).await;
    server.stop();
    scaler
        .until("nothing is known", async || match keda.is_active(T).await {
            Ok(active) => {
                assert!(active, "the last known state");
                false
            }
            Err(status) => status.code() == Code::Unavailable,
        })
        .await;
    server.cont();
    scaler.until("it is active again", async || keda.is_active(T).await.unwrap_or(false)).await;
}

//! Queues that settings add and take away while the autoscaler runs.

use swarm::model::snapshot::ReloadOutcome;

use super::*;

#[tokio::test]
async fn a_queue_that_is_added_counts_at_once_and_one_that_is_taken_away_no_longer() {
    let server = RedisServer::start();
    let with = |extra: &[&str], more| format!("{NO_SWEEP}{}", pool("test", extra, more));
    let (client, scaler) = start(&server, "", &pool("test", &[], "")).await;
    add_jobs(&client, "test:jobs", 5).await;
    add_jobs(&client, "urgent:jobs", 10).await;
    add_jobs(&client, "tenant-a:jobs", 15).await;
    scaler.until_workers("test", 1).await;
    let evaluations = scaler.of("test").await.evaluations;

    let reload = scaler.reload(&server.url(), &with(&["urgent:jobs"], "")).await;
    assert_eq!(reload.outcome, ReloadOutcome::Applied, "{reload:?}");
    assert!(reload.changes.contains("extra_queues"), "{reload:?}");
    scaler.until_workers("test", 3).await;
    assert!(scaler.of("test").await.evaluations > evaluations, "its counts go on");

    scaler.reload(&server.url(), &with(&["urgent:jobs", "tenant-*:jobs"], "")).await;
    scaler.until_workers("test", 6).await;
    scaler.reload(&server.url(), &with(&["urgent:jobs", "tenant-*:jobs"], "combine = \"max\"")).await;
    scaler.until_workers("test", 3).await;
    scaler.reload(&server.url(), &with(&[], "")).await;
    scaler.until_workers("test", 1).await;
    assert_eq!(scaler.of("test").await.queues, None);
}

/// Found queues are searched again, and no worker is let go meanwhile.
#[tokio::test]
async fn queues_that_were_found_are_not_lost_with_other_settings() {
    let server = RedisServer::start();
    let (client, scaler) = start(&server, "", &pool("test", &["tenant-*:jobs"], "")).await;
    add_jobs(&client, "tenant-a:jobs", 15).await;
    scaler.until_workers("test", 3).await;
    scaler.until("it is recorded", async || !records(&client, "test").await.is_empty()).await;
    let settings = format!("{NO_SWEEP}{CHANNEL}{}", pool("test", &["tenant-*:jobs"], ""));
    let reload = scaler.reload(&server.url(), &settings).await;
    assert_eq!(reload.outcome, ReloadOutcome::Applied, "{reload:?}");
    until_seen(&scaler, "all are found again", |of| of.demand.depth().known() == Some(&15)).await;
    scaler.until_quiet().await;
    let downs = records(&client, "test").await.into_iter().filter(|record| record["decision"] == "scale_down");
    assert_eq!(downs.count(), 0, "the cooldown is 0 s, and nobody was let go");
}

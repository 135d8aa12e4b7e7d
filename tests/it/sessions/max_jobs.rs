//! Sessions of a worker that leaves after a number of jobs.

use super::{LONG, Worker, call, open, until_heartbeat};
use crate::support::{redis::RedisServer, wait::DEADLINE};

#[tokio::test]
async fn a_session_that_its_last_job_opened_is_served_until_it_is_closed() {
    let server = RedisServer::start();
    let client = server.client().await;
    let worker = Worker::start_for(&server, "w1", 1, LONG);
    assert_eq!(open(&client, "chan").await, "w1");
    until_heartbeat(&client, "w1", "state", "DRAINING").await;
    // It reads no new jobs: another worker hands it those of its session.
    let other = Worker::start(&server, "w2");
    for count in 1..=3 {
        let answer = call(&client, &format!("next-{count}"), "t.next", "chan").await;
        assert!(answer.ok, "{:?}", answer.error);
    }
    assert!(call(&client, "close", "t.close", "chan").await.ok);
    let report = tokio::time::timeout(DEADLINE, worker.task).await.expect("it leaves by itself").unwrap().unwrap();
    assert_eq!((report.processed, report.abandoned), (5, 0));
    assert_eq!(other.leave().await.processed, 0);
}

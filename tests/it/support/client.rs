//! The product's own client of jobs, which waits for a server that is slow to answer as long as all waits.

use std::sync::Arc;

use swarm::{
    broker::Client,
    config::{Settings, WorkerTypeSettings},
    connection::RedisTarget,
};

use super::wait::DEADLINE;

/// Returns a client of the jobs of one worker type.
pub(crate) fn patient_client(redis_url: &str, worker_type: &str) -> Client {
    let mut settings = Settings { redis_url: redis_url.into(), ..Settings::default() };
    settings.worker_types.insert(worker_type.to_owned(), WorkerTypeSettings::default());
    let target = RedisTarget::new(&settings.redis_url, DEADLINE).expect("our own URL is well formed");
    Client::new(Arc::new(settings), target)
}

//! Heartbeats of workers that are not there.

use fred::prelude::{Client, HashesInterface};
use swarm::model::{WorkerId, WorkerState, WorkerType, keys};

use crate::protocol::{type_name, worker_name};

/// Writes that the first `count` workers, all of worker type `index`, are idle. This never lapses.
pub(crate) async fn write_heartbeats(client: &Client, index: usize, count: usize) -> anyhow::Result<()> {
    let worker_type = WorkerType::new(type_name(index));
    for number in 0..count {
        let key = keys::heartbeat(&worker_type, &WorkerId::new(worker_name(number)));
        let fields = [(keys::STATE_FIELD, WorkerState::Idle.as_str()), (keys::SESSIONS_FIELD, "0")];
        let _: () = client.hset(key, fields.to_vec()).await?;
    }
    Ok(())
}

//! The commands of a heartbeat: as one script, which also reports what there is to do on the worker's queues, or as a
//! transaction, where scripts are refused or the keys are on several servers. Sends nothing itself.

use std::sync::Arc;

use redis::{Cmd, Pipeline};

use crate::{model::keys, worker::execute::Executor};

const HEARTBEAT: &str = include_str!("heartbeat.lua");
/// Heartbeats that the history stream keeps.
const HISTORY: usize = 10_000;

/// Names and values of a heartbeat.
pub(super) type Fields = Vec<(&'static str, String)>;

/// Value of the control key, and the number of fields that the heartbeat did not have before.
pub(super) type Sent = (Option<Vec<u8>>, usize);

/// Returns the key of the worker's heartbeat.
pub(super) fn key(executor: &Executor) -> String {
    keys::heartbeat(&executor.config.worker_type, &executor.config.id)
}

/// Returns the script of a heartbeat that looks at `queues` and, if `publish`, notifies the scaler.
pub(super) fn heartbeat(executor: &Executor, fields: &Fields, publish: bool, queues: &[Arc<str>]) -> Cmd {
    let (config, layout) = (&executor.config, executor.commands.layout());
    let lapse = config.lapse().as_millis().to_string();
    let mut script = redis::cmd("EVAL");
    script.arg(HEARTBEAT).arg(3 + 2 * queues.len());
    script.arg(keys::control(&config.worker_type, &config.id)).arg(key(executor)).arg(keys::WORKER_STATUS);
    for queue in queues {
        script.arg(&**queue).arg(layout.delayed(queue));
    }
    script.arg(&lapse).arg(HISTORY).arg(if publish { keys::WORKER_EVENTS_CHANNEL } else { "" });
    script
        .arg(keys::worker_event(&config.worker_type, &config.id))
        .arg(&config.group)
        .arg(config.id.as_str())
        .arg(&lapse);
    script.arg(2 * fields.len()).arg(fields);
    for queue in queues {
        script.arg(executor.in_flight.entries_of(queue).len());
    }
    script
}

/// Returns the transaction of a heartbeat.
pub(super) fn transaction(executor: &Executor, fields: &Fields, publish: bool) -> Pipeline {
    let config = &executor.config;
    let mut pipeline = redis::pipe();
    pipeline.atomic();
    pipeline.cmd("GET").arg(keys::control(&config.worker_type, &config.id));
    pipeline.cmd("HSET").arg(key(executor)).arg(fields);
    pipeline.cmd("PEXPIRE").arg(key(executor)).arg(config.lapse().as_millis().to_string()).ignore();
    add_history(&mut pipeline, fields);
    if publish {
        let event = keys::worker_event(&config.worker_type, &config.id);
        pipeline.cmd("PUBLISH").arg(keys::WORKER_EVENTS_CHANNEL).arg(event).ignore();
    }
    pipeline
}

/// Adds a heartbeat to the history.
pub(super) fn add_history(pipeline: &mut Pipeline, fields: &Fields) {
    pipeline.cmd("XADD").arg(keys::WORKER_STATUS).arg("MAXLEN").arg("~").arg(HISTORY).arg("*").arg(fields).ignore();
}

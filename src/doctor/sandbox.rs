//! Checks whether browser workers run their pages in Chromium's own sandbox: by the heartbeats of those that have a
//! Chromium, and by the settings where none has.

use redis::{RedisResult, streams::StreamInfoConsumersReply};

use super::{
    Area, Finding,
    finding::{bounded, some},
};
use crate::{
    config::{HandlerKind, Settings, WorkerTypeSettings},
    connection::Connection,
    model::{WorkerId, WorkerType, keys},
};

/// Maximum workers of one type whose heartbeats are read.
const LOOKED_AT: usize = 200;

/// Returns a finding for each worker type that drives browsers.
pub(super) async fn look(connection: &mut Connection, settings: &Settings) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (name, of) in settings.enabled().filter(|(name, of)| of.worker.handler(name) == HandlerKind::Browser) {
        // Without the right to ask, the settings tell.
        let (with, without) = workers(connection, name, of).await.unwrap_or_default();
        findings.push(finding(name, of, with, without));
    }
    bounded(findings)
}

fn finding(name: &str, of: &WorkerTypeSettings, with: usize, without: usize) -> Finding {
    let cure = "docs/browser.md says how to get one; until then only what isolates the worker protects its machine";
    let count = |workers: usize| some(u64::try_from(workers).unwrap_or(u64::MAX), "worker");
    if without > 0 {
        let found = format!("`{name}`: {} run pages without Chromium's own sandbox, {with} with it", count(without));
        return Finding::warning(Area::Workers, found).cure(cure);
    }
    if with > 0 {
        return Finding::ok(Area::Workers, format!("`{name}`: {} run pages in Chromium's own sandbox", count(with)));
    }
    if of.browser.no_sandbox {
        let found = format!("`{name}`: pages will run without Chromium's own sandbox (`no_sandbox = true`)");
        return Finding::warning(Area::Workers, found).cure(cure);
    }
    Finding::ok(Area::Workers, format!("`{name}`: pages will run in Chromium's own sandbox, or not at all"))
}

/// Returns how many workers have a Chromium with, and without its sandbox.
async fn workers(connection: &mut Connection, name: &str, of: &WorkerTypeSettings) -> RedisResult<(usize, usize)> {
    let mut info = redis::cmd("XINFO");
    info.arg("CONSUMERS").arg(of.queues(name).own).arg(of.group(name));
    let consumers: StreamInfoConsumersReply = info.query_async(connection).await?;
    let worker_type = WorkerType::new(name);
    let mut pipeline = redis::pipe();
    for consumer in consumers.consumers.iter().take(LOOKED_AT) {
        pipeline.cmd("HMGET").arg(keys::heartbeat(&worker_type, &WorkerId::new(consumer.name.as_str()))).arg("sandbox");
    }
    if pipeline.is_empty() {
        return Ok((0, 0));
    }
    let told: Vec<(Option<String>,)> = pipeline.query_async(connection).await?;
    let count = |value: &str| told.iter().filter(|(sandbox,)| sandbox.as_deref() == Some(value)).count();
    Ok((count("1"), count("0")))
}

//! Runs the checks for `swarm doctor`: server, rights, autoscaler, backend, queues, workers and overrides. Only reads;
//! everything that it tries changes nothing. Wires nothing together and prints nothing.

mod attempts;
mod autoscaler;
mod finding;
mod frameworks;
mod groups;
mod memory;
mod patterns;
mod queue_servers;
mod queues;
mod rights;
mod sandbox;
mod server;
mod types;
mod wake;

pub use finding::{Area, Finding, Level};

use crate::{
    backend::{Check, CheckOutcome},
    config::Settings,
    connection::RedisTarget,
    model::snapshot::FleetSnapshot,
};

/// What the autoscaler reports about itself over HTTP.
#[derive(Debug)]
pub enum Seen {
    /// State of the autoscaler.
    Fleet(Box<FleetSnapshot>),
    /// The autoscaler could not be asked, and why.
    Not(String),
}

impl Seen {
    fn fleet(&self) -> Option<&FleetSnapshot> {
        match self {
            Self::Fleet(fleet) => Some(fleet),
            Self::Not(_) => None,
        }
    }
}

/// Runs all checks that use Redis and the autoscaler's state.
pub async fn examine(settings: &Settings, seen: &Seen) -> Vec<Finding> {
    let mut findings = Vec::new();
    let target = match RedisTarget::new(&settings.redis_url, settings.scaler.redis_timeout()) {
        Ok(target) => target,
        Err(error) => {
            findings.push(Finding::problem(Area::Redis, error.to_string()));
            return findings;
        }
    };
    let mut redis = match target.connect().await {
        Ok(connection) => Some(connection),
        Err(error) => {
            findings.push(Finding::problem(Area::Redis, error.to_string()));
            None
        }
    };
    let servers = settings.queue_servers();
    let top_level = queue_servers::only(settings, &servers[0]);
    let mut doubt = None;
    if let Some(connection) = &mut redis {
        findings.extend(server::look(connection, &target, settings).await);
        let writes = memory::look(connection).await;
        findings.extend(writes.findings);
        doubt = writes.doubt;
        findings.extend(wake::look(connection, &target, &top_level, wake::Whose::Swarms).await);
        findings.extend(rights::look(connection, &target, settings, &top_level).await);
    }
    findings.extend(autoscaler::look(redis.as_mut(), settings, seen, doubt.as_deref()).await);
    if let Some(connection) = &mut redis {
        findings.extend(queues::look(connection, &top_level, doubt.as_deref()).await);
        findings.extend(finding::bounded(patterns::look(connection, &top_level).await));
        findings.extend(frameworks::look(connection, &top_level, target.database()).await);
        findings.extend(sandbox::look(connection, settings).await);
        if seen.fleet().is_none() {
            findings.extend(types::from_redis(connection, settings).await);
        }
    }
    for server in &servers[1..] {
        findings.extend(queue_servers::look(settings, server).await);
    }
    if let Some(fleet) = seen.fleet() {
        findings.extend(types::from_fleet(fleet, settings));
    }
    findings
}

/// Converts the checks of a backend into findings.
pub fn of_backend(checks: Vec<Check>) -> Vec<Finding> {
    let finding = |Check { what, outcome }| match outcome {
        CheckOutcome::Fine(told) => Finding::ok(Area::Backend, format!("{what}: {told}")),
        CheckOutcome::Doubtful(told) => Finding::warning(Area::Backend, format!("{what}: {told}")),
        CheckOutcome::Wrong(told) => Finding::problem(Area::Backend, format!("{what}: {told}")),
    };
    finding::bounded(checks.into_iter().map(finding).collect())
}

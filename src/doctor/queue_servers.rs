//! Checks the Redis servers that worker types have of their own: that each answers, wakes the autoscaler, and lets this
//! user read the queues.

use secrecy::SecretString;

use super::{Area, Finding, frameworks, patterns, queues, rights, server, wake};
use crate::{
    config::{QueueServer, Settings},
    connection::RedisTarget,
};

/// Returns the settings with the worker types of one server only, as if it were the top-level one.
pub(super) fn only(settings: &Settings, server: &QueueServer<'_>) -> Settings {
    let on_server = |name: &str| server.types.iter().any(|(other, _)| *other == name);
    let mut only = settings.clone();
    only.redis_url = SecretString::clone(server.url);
    only.worker_types.retain(|name, of| !of.enabled || on_server(name));
    only
}

/// Checks one server.
pub(super) async fn look(settings: &Settings, server: &QueueServer<'_>) -> Vec<Finding> {
    let names: Vec<&str> = server.types.iter().map(|(name, _)| *name).collect();
    let problem = |error: String| {
        let cure =
            format!("`redis_url` of the worker types {} names it; until it answers, they are held", names.join(", "));
        vec![Finding::problem(Area::Redis, error).cure(cure)]
    };
    let target = match RedisTarget::new(server.url, settings.scaler.redis_timeout()) {
        Ok(target) => target,
        Err(error) => return problem(error.to_string()),
    };
    let mut connection = match target.connect().await {
        Ok(connection) => connection,
        Err(error) => return problem(error.to_string()),
    };
    let mut only = only(settings, server);
    // swarm's own channel is on the top-level server.
    only.signals.channel.clear();
    let mut findings = server::look_at_queues(&mut connection, &target, &only).await;
    findings.extend(wake::look(&mut connection, &target, &only, wake::Whose::Others).await);
    findings.extend(rights::look_at_queues(&mut connection, &target, &only).await);
    findings.extend(queues::look(&mut connection, &only, None).await);
    findings.extend(super::finding::bounded(patterns::look(&mut connection, &only).await));
    findings.extend(frameworks::look(&mut connection, &only, target.database()).await);
    let at = target.display();
    findings.into_iter().map(|finding| finding.at(&at)).collect()
}

//! Wires the access rules over HTTP, and the services for overrides, jobs and dead letters.

use std::sync::Arc;

use super::jobs::Jobs;
use crate::{
    config::Settings,
    connection::RedisTarget,
    http::{HttpAccess, HttpControl},
    scaler::{Fleet, OverrideService},
};

/// Returns the services for overrides, jobs and dead letters over HTTP, if the settings have a token for them.
pub(super) fn http_control(
    settings: &Settings,
    target: &Arc<RedisTarget>,
    fleet: &Arc<Fleet>,
    jobs: &Arc<Jobs>,
) -> Option<HttpControl> {
    let token = settings.http.token.clone()?;
    let desk = OverrideService::new(target.clone(), fleet.clone(), settings.scaler.events_max_len);
    Some(HttpControl { token, desk: Arc::new(desk), jobs: jobs.clone(), dead_letters: jobs.clone() })
}

/// Returns the access rules for reads over HTTP.
pub(super) fn http_access(settings: &Settings) -> HttpAccess {
    HttpAccess { hosts: settings.http.hosts.clone(), read_token: settings.http.read_token.clone() }
}

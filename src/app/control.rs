//! Wires what the HTTP server shows of the history, and the desk to which it hands orders.

use std::sync::Arc;

use crate::{
    config::Settings,
    connection::RedisTarget,
    http::HttpControl,
    scaler::{Fleet, OverrideService},
};

/// Orders over HTTP, if there is a token for them.
pub(super) fn http_control(settings: &Settings, target: &Arc<RedisTarget>, fleet: &Arc<Fleet>) -> Option<HttpControl> {
    let token = settings.http.token.clone()?;
    let desk = OverrideService::new(target.clone(), fleet.clone(), settings.scaler.events_max_len);
    Some(HttpControl { token, desk: Arc::new(desk) })
}

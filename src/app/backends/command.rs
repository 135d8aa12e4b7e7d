//! Makes the backend of `orchestrator = "command"`, which asks workers to drain over Redis.

use std::sync::Arc;

use super::over_redis::OverRedis;
use crate::{
    app::MakeBackend,
    backend::{
        Check, OnChange, ScalingBackend,
        command::{CommandBackend, CommandSpec},
    },
    config::Settings,
    model::Clock,
};

pub(super) fn make(settings: Arc<Settings>) -> anyhow::Result<Box<MakeBackend<'static>>> {
    let drain = OverRedis::new(&settings)?;
    Ok(Box::new(move |on_change, clock| {
        Box::pin(async move { Ok(Arc::new(start(&settings, drain, on_change, clock)) as Arc<dyn ScalingBackend>) })
    }))
}

pub(super) async fn check(settings: &Settings) -> anyhow::Result<Vec<Check>> {
    let backend = start(settings, OverRedis::new(settings)?, Arc::new(|_| {}), Clock::start());
    let checks = backend.check().await;
    backend.shutdown(false).await;
    Ok(checks)
}

fn start(settings: &Settings, drain: OverRedis, on_change: OnChange, clock: Clock) -> CommandBackend {
    CommandBackend::start(&CommandSpec::all(settings), Arc::new(drain), on_change, clock)
}

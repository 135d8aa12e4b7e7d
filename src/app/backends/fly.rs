//! Makes the backend of `orchestrator = "fly"`, with the token and the app from the environment.

use std::sync::Arc;

use crate::{
    app::MakeBackend,
    backend::{
        Check, OnChange, ScalingBackend,
        fly::{Access, FlyBackend, FlySpec},
    },
    config::{Settings, process_environment},
    model::Clock,
};

#[expect(clippy::unnecessary_wraps, reason = "other backends look at the environment here")]
pub(super) fn make(settings: Arc<Settings>) -> anyhow::Result<Box<MakeBackend<'static>>> {
    Ok(Box::new(move |on_change, clock| {
        Box::pin(async move { Ok(Arc::new(start(&settings, on_change, clock)?) as Arc<dyn ScalingBackend>) })
    }))
}

pub(super) async fn check(settings: &Settings) -> anyhow::Result<Vec<Check>> {
    let backend = start(settings, Arc::new(|_| {}), Clock::start())?;
    let checks = backend.check().await;
    backend.shutdown(false).await;
    Ok(checks)
}

fn start(settings: &Settings, on_change: OnChange, clock: Clock) -> anyhow::Result<FlyBackend> {
    let own_app = process_environment("FLY_APP_NAME");
    let types = FlySpec::all(settings, own_app.as_deref()).map_err(super::reported)?;
    let access = Access::from_settings(&settings.fly, process_environment("FLY_API_TOKEN"));
    let backend = FlyBackend::start(&types, &access, settings.fly.poll(), on_change, clock).map_err(super::reported)?;
    Ok(backend.in_app(own_app))
}

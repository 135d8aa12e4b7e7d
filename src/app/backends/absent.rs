//! Stands in for a backend that this build was compiled without: every call returns an error that names the feature.
#![expect(clippy::unused_async, reason = "the backends that it stands in for wait")]

use std::sync::Arc;

use crate::{
    app::{MakeBackend, features::of_backend},
    backend::{Check, LeaseObject},
    config::Settings,
};

#[expect(clippy::needless_pass_by_value, reason = "as the backends that it stands in for")]
pub(super) fn make(settings: Arc<Settings>) -> anyhow::Result<Box<MakeBackend<'static>>> {
    Err(of_backend(&settings).into())
}

#[cfg_attr(
    not(test),
    cfg_attr(feature = "kubernetes", expect(dead_code, reason = "only Kubernetes has such an object"))
)]
pub(super) async fn lease(settings: &Settings) -> anyhow::Result<Option<Arc<dyn LeaseObject>>> {
    Err(of_backend(settings).into())
}

pub(super) async fn check(settings: &Settings) -> anyhow::Result<Vec<Check>> {
    Err(of_backend(settings).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Orchestrator;

    #[tokio::test]
    async fn the_error_names_the_setting_and_the_feature() {
        for orchestrator in [Orchestrator::Docker, Orchestrator::Kubernetes, Orchestrator::Fly, Orchestrator::Keda] {
            let settings = Arc::new(Settings { orchestrator, ..Settings::default() });
            let name = orchestrator.as_str();
            let wanted = format!(
                "orchestrator = \"{name}\": this build has no {name} backend; build it with `--features {name}`"
            );
            let errors =
                [make(Arc::clone(&settings)).err(), lease(&settings).await.err(), check(&settings).await.err()];
            assert_eq!(errors.map(|error| error.unwrap().to_string()), [(); 3].map(|()| wanted.clone()));
        }
    }
}

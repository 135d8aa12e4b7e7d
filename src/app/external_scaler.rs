//! Starts the server of `orchestrator = "keda"`, if this build can.

#[cfg(feature = "keda")]
mod present {
    use std::sync::Arc;

    use tokio::task::JoinSet;
    use tokio_util::sync::CancellationToken;

    use crate::{
        app::spawn,
        config::{Orchestrator, Settings},
        keda::{KedaServer, Sources},
        model::snapshot::StatusSource,
        scaler::Updates,
    };

    /// The bound server; nothing with another orchestrator.
    pub(in crate::app) struct ExternalScaler(Option<KedaServer>);

    impl ExternalScaler {
        /// Binds the address.
        pub(in crate::app) async fn bind(settings: &Settings) -> anyhow::Result<Self> {
            if settings.orchestrator != Orchestrator::Keda {
                return Ok(Self(None));
            }
            Ok(Self(Some(KedaServer::bind(&settings.keda).await?)))
        }

        /// Adds the server to `essential`.
        pub(in crate::app) fn serve(
            self,
            status: Arc<dyn StatusSource>,
            updates: Arc<Updates>,
            essential: &mut JoinSet<&'static str>,
            stop: &CancellationToken,
        ) {
            let Some(server) = self.0 else { return };
            tracing::info!(listen = %server.local_addr(), tls = server.has_tls(), "keda server listens");
            let updates = Arc::new(move |worker_type: &_| updates.subscribe(worker_type));
            spawn(essential, "keda", server.serve(Sources { status, updates }, stop.clone()));
        }
    }
}

#[cfg(not(feature = "keda"))]
mod absent {
    use std::sync::Arc;

    use tokio::task::JoinSet;
    use tokio_util::sync::CancellationToken;

    use crate::{config::Settings, model::snapshot::StatusSource, scaler::Updates};

    /// No server; `orchestrator = "keda"` is refused where backends are made.
    pub(in crate::app) struct ExternalScaler;

    impl ExternalScaler {
        #[expect(clippy::unused_async, reason = "the server that it stands in for waits")]
        pub(in crate::app) async fn bind(_: &Settings) -> anyhow::Result<Self> {
            Ok(Self)
        }

        #[expect(clippy::unused_self, reason = "as the server that it stands in for")]
        pub(in crate::app) fn serve(
            self,
            _: Arc<dyn StatusSource>,
            _: Arc<Updates>,
            _: &mut JoinSet<&'static str>,
            _: &CancellationToken,
        ) {
        }
    }
}

#[cfg(not(feature = "keda"))]
pub(super) use absent::ExternalScaler;
#[cfg(feature = "keda")]
pub(super) use present::ExternalScaler;

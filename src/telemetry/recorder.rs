//! The recorder that collects all metrics, and its text form for `/metrics`.
#![expect(clippy::disallowed_macros, reason = "`telemetry` is where metrics are emitted")]

use std::{sync::Arc, time::Duration};

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use tokio_util::sync::CancellationToken;

use super::{
    events::signals,
    metric::{self, Kind},
    per_type,
};
use crate::model::snapshot::{DeadLetterCounts, TypeSnapshot};

/// Upper bounds in seconds, 50 µs to 60 s. A reaction takes about a millisecond until the backend is asked; a process
/// is ready after some ten milliseconds, a container or machine after seconds. The bounds are dense around the targets
/// for each of them.
const BUCKETS: [f64; 16] =
    [50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 100e-3, 250e-3, 1.0, 2.5, 10.0, 30.0, 60.0];

/// The samples of a histogram stay in memory until they are put into buckets. At this interval a busy histogram holds a
/// few thousand samples at most.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Why the recorder could not be installed.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// The recorder refused its settings.
    #[error("metrics can't be recorded: {0}")]
    Build(#[from] BuildError),
    /// A recorder is already installed.
    #[error("metrics are recorded already; install the recorder once, at the start")]
    AlreadyInstalled,
}

/// Reads the recorded metrics. Cheap to clone.
#[derive(Clone, Debug)]
pub struct MetricsHandle(PrometheusHandle);

impl MetricsHandle {
    /// Returns all metrics in the Prometheus text format, version 0.0.4, in pieces that are rendered on demand: first
    /// the recorded metrics, then one piece for each metric of worker types. With ten thousand worker types the whole
    /// text is megabytes, which so need not be in memory at the same time.
    pub fn render(
        self,
        worker_types: Vec<Arc<TypeSnapshot>>,
        dead_letters: DeadLetterCounts,
    ) -> impl Iterator<Item = String> + Send {
        std::iter::once_with(move || self.0.render())
            .chain(per_type::FAMILIES.iter().map(move |family| family.render(&worker_types, &dead_letters)))
    }

    /// Keeps the recorder small until `cancelled`. The caller that installs the recorder runs this for the recorder's
    /// whole life: without it, histograms grow between two scrapes of `/metrics`.
    pub async fn upkeep(self, cancelled: CancellationToken) {
        let mut ticks = tokio::time::interval(UPKEEP_INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while cancelled.run_until_cancelled(ticks.tick()).await.is_some() {
            self.0.run_upkeep();
        }
    }

    /// Returns a handle to a recorder in which nothing is recorded: for tests, and for processes that have a recorder
    /// of their own.
    pub(crate) fn detached() -> Result<Self, InstallError> {
        Ok(Self(recorder()?.handle()))
    }
}

/// Installs a Prometheus recorder for this process. Events that were emitted before are not counted.
pub fn install_metrics() -> Result<MetricsHandle, InstallError> {
    let recorder = recorder()?;
    let handle = MetricsHandle(recorder.handle());
    metrics::set_global_recorder(recorder).map_err(|_| InstallError::AlreadyInstalled)?;
    announce();
    signals::install();
    Ok(handle)
}

/// Builds a recorder with the buckets of every histogram.
pub(super) fn recorder() -> Result<PrometheusRecorder, BuildError> {
    let histograms = metric::ALL.iter().filter(|metric| metric.kind == Kind::Histogram);
    let builder = histograms.into_iter().try_fold(PrometheusBuilder::new(), |builder, metric| {
        builder.set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), &BUCKETS)
    })?;
    Ok(builder.build_recorder())
}

/// Describes every metric to the recorder in force, and sets the build's version.
pub(super) fn announce() {
    for metric in metric::ALL {
        match metric.kind {
            Kind::Counter => metrics::describe_counter!(metric.name, metric.unit, metric.help),
            Kind::Gauge => metrics::describe_gauge!(metric.name, metric.unit, metric.help),
            Kind::Histogram => metrics::describe_histogram!(metric.name, metric.unit, metric.help),
        }
    }
    metrics::gauge!(metric::BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
}

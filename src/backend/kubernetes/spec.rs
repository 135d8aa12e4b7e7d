//! Targets to scale: the settings as this backend needs them, and errors for missing objects.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    backend::BackendError,
    config::{KubernetesSettings, Settings, TargetKind, WorkerTypeSettings},
    model::WorkerType,
};

/// This backend's part of the settings.
#[derive(Clone, Debug)]
pub struct KubernetesSpec {
    /// Where, and by which label.
    pub cluster: KubernetesSettings,
    /// The targets.
    pub types: BTreeMap<WorkerType, TargetSpec>,
}

/// The target of one worker type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetSpec {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: TargetKind,
    /// Whether its workers can be asked to drain: those without heartbeats can't.
    pub drains: bool,
    /// How long its workers may take to finish when the scaler lets all of them go.
    pub drain_timeout: Duration,
}

impl KubernetesSpec {
    /// From the settings, for the worker types that are enabled.
    pub fn from_settings(settings: &Settings) -> Self {
        let types = settings.enabled().map(|(name, entry)| (WorkerType::new(name), TargetSpec::new(name, entry)));
        Self { cluster: settings.kubernetes.clone(), types: types.collect() }
    }
}

impl TargetSpec {
    fn new(worker_type: &str, settings: &WorkerTypeSettings) -> Self {
        Self {
            name: settings.kubernetes.name(worker_type),
            kind: settings.kubernetes.kind,
            drains: settings.worker.heartbeats,
            drain_timeout: settings.scaling.drain_timeout(),
        }
    }

    /// Whether a reconciler of this one does for the other one too: how long workers may take at the end is told it
    /// then.
    pub(super) fn is_kept_like(&self, other: &Self) -> bool {
        (self.kind, &self.name, self.drains) == (other.kind, &other.name, other.drains)
    }

    /// As messages name it: ``deployment `discord-worker-browser` ``.
    pub(super) fn shown(&self) -> String {
        format!("{} `{}`", kind_name(self.kind), self.name)
    }

    /// It is not among the labelled objects.
    pub(super) fn missing(&self) -> BackendError {
        BackendError::permanent(format!(
            "no {} carries the worker label; create it, label it, or name another one by `kubernetes.name` and \
             `kubernetes.kind` of the worker type",
            self.shown()
        ))
    }
}

/// `deployment`, `statefulset`, `cronjob`.
pub(super) fn kind_name(kind: TargetKind) -> &'static str {
    match kind {
        TargetKind::Deployment => "deployment",
        TargetKind::StatefulSet => "statefulset",
        TargetKind::Job => "cronjob",
    }
}

/// `apps` and `deployments`, …: the API's group and name of the resource.
pub(super) fn api_resource(kind: TargetKind) -> (&'static str, &'static str) {
    match kind {
        TargetKind::Deployment => ("apps", "deployments"),
        TargetKind::StatefulSet => ("apps", "statefulsets"),
        TargetKind::Job => ("batch", "cronjobs"),
    }
}

/// The version of the API that has the kind: `apps/v1`.
pub(super) fn api_version(kind: TargetKind) -> String {
    format!("{}/v1", api_resource(kind).0)
}

/// `Deployment`, `StatefulSet`, `CronJob`: the API's name.
pub(super) fn api_kind(kind: TargetKind) -> &'static str {
    match kind {
        TargetKind::Deployment => "Deployment",
        TargetKind::StatefulSet => "StatefulSet",
        TargetKind::Job => "CronJob",
    }
}

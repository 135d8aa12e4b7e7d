//! `[kubernetes]` and `[worker_types.NAME.kubernetes]`: where the cluster's side of the pools is.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `[kubernetes]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct KubernetesSettings {
    /// Namespace of all targets and pods. Default: the scaler's own in a cluster, else that of the kubeconfig's context.
    pub namespace: Option<String>,
    /// The kubeconfig. Default: the service account in a cluster, else `KUBECONFIG`, else `~/.kube/config`.
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig. Default: its current one. Not used in a cluster.
    pub context: Option<String>,
    /// Label whose value is the worker type, on targets and on their pods.
    pub label: String,
}

impl Default for KubernetesSettings {
    fn default() -> Self {
        Self { namespace: None, kubeconfig: None, context: None, label: "swarm/worker-type".to_owned() }
    }
}

/// `[worker_types.NAME.kubernetes]`
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct KubernetesTarget {
    /// Name of the object to scale. Default: `discord-worker-{type}`.
    pub name: Option<String>,
    /// What it is.
    pub kind: TargetKind,
}

super::section::defaults!(KubernetesTarget);

impl KubernetesTarget {
    /// Name of the object to scale for a worker type.
    pub fn name(&self, worker_type: &str) -> String {
        self.name.clone().unwrap_or_else(|| format!("discord-worker-{worker_type}"))
    }
}

/// What runs the pods of a worker type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TargetKind {
    /// A Deployment: idle workers leave first.
    #[default]
    Deployment,
    /// A StatefulSet: Kubernetes always removes the highest ordinals.
    StatefulSet,
}

//! `[kubernetes]` and `[worker_types.NAME.kubernetes]`: the cluster, and the objects that run the pods.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `[kubernetes]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct KubernetesSettings {
    /// Namespace of all targets and pods. Default: the scaler's own in a cluster, else that of the kubeconfig's
    /// context.
    pub namespace: Option<String>,
    /// Path of the kubeconfig. Default: the service account in a cluster, else `KUBECONFIG`, else `~/.kube/config`.
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig. Default: its current one. Not used in a cluster.
    pub context: Option<String>,
    /// Name of a Lease (`coordination.k8s.io/v1`) in that namespace by which several autoscalers elect the leader.
    /// Default: they elect it in Redis.
    pub lease: Option<String>,
    /// Label whose value is the worker type, on targets and on their pods.
    pub label: String,
}

impl Default for KubernetesSettings {
    fn default() -> Self {
        Self { namespace: None, kubeconfig: None, context: None, lease: None, label: "swarm/worker-type".to_owned() }
    }
}

impl KubernetesSettings {
    /// Returns the problems of the table, each with its key.
    pub(super) fn problems(&self) -> Vec<(&'static str, String)> {
        let lease = self.lease.iter().filter(|name| !is_object_name(name));
        let problem = |name: &String| {
            format!(
                "{name:?} can't name an object; use 1 to 253 lower-case letters, digits, `-` and `.`, beginning and ending \
                 with a letter or digit"
            )
        };
        lease.map(|name| ("lease", problem(name))).collect()
    }
}

/// Returns whether the text is a DNS subdomain name (RFC 1123), as the API requires.
fn is_object_name(name: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    (1..=253).contains(&name.len())
        && name.split('.').all(|part| part.starts_with(alphanumeric) && part.ends_with(alphanumeric))
        && name.chars().all(|c| alphanumeric(c) || "-.".contains(c))
}

/// `[worker_types.NAME.kubernetes]`
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct KubernetesTarget {
    /// Name of the object to scale. Default: `discord-worker-{type}`.
    pub name: Option<String>,
    /// Kind of the object. `"job"`: a suspended CronJob, of whose template each worker is a Job of its own.
    pub kind: TargetKind,
}

super::section::defaults!(KubernetesTarget);

impl KubernetesTarget {
    /// Returns the name of the object to scale for a worker type.
    pub fn name(&self, worker_type: &str) -> String {
        self.name.clone().unwrap_or_else(|| format!("discord-worker-{worker_type}"))
    }
}

/// Kind of object that runs the pods of a worker type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TargetKind {
    /// A Deployment: idle workers leave first.
    #[default]
    Deployment,
    /// A StatefulSet: Kubernetes always removes the highest ordinals.
    StatefulSet,
    /// A suspended CronJob as the template of Jobs: each worker is a Job with one pod, and a busy one is never stopped.
    Job,
}

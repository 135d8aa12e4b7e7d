//! Settings of worker types whose workers belong to a job framework.

use std::{sync::Arc, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{QueueKind, WorkerTypeSettings};
use crate::{
    model::StopPolicy,
    queue_kind::{FrameworkSpec, QueueSpec},
};

/// `[worker_types.NAME.celery]`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CelerySettings {
    /// When the workers acknowledge a task. Must say what the tasks' `acks_late` says.
    pub acknowledge: Acknowledge,
    /// Time after which Celery delivers a task again that was fetched and not acknowledged, in seconds. Must say what
    /// `visibility_timeout` in `broker_transport_options` says. `swarm doctor` warns of tasks that get near it.
    #[schemars(range(min = 1))]
    pub visibility_timeout_seconds: u64,
}

impl Default for CelerySettings {
    fn default() -> Self {
        Self { acknowledge: Acknowledge::default(), visibility_timeout_seconds: 3_600 }
    }
}

/// When a worker acknowledges a task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Acknowledge {
    /// Before it runs the task, as Celery does by default.
    #[default]
    Early,
    /// After it has run the task: `acks_late`.
    Late,
}

impl WorkerTypeSettings {
    /// Returns the kind of its queues: that of `framework` if it is set, else `kind`.
    pub fn queue_kind(&self) -> QueueKind {
        self.framework.map_or(self.kind, QueueKind::Framework)
    }

    /// Returns the description of its queues for its framework; `None` without a framework.
    pub fn framework_spec(&self) -> Option<FrameworkSpec> {
        let framework = self.framework?;
        let profile = framework.profile();
        let queues = match self.queues.as_slice() {
            [] => vec![profile.default_queue().to_owned()],
            named => named.to_vec(),
        };
        let prefix = self.key_prefix.clone().unwrap_or_else(|| profile.default_prefix().to_owned());
        let late_acknowledgement = self.celery.acknowledge == Acknowledge::Late;
        let visibility_timeout = Duration::from_secs(self.celery.visibility_timeout_seconds);
        let longest_job = self.longest_job_seconds.map(Duration::from_secs);
        Some(FrameworkSpec { framework, queues, prefix, late_acknowledgement, visibility_timeout, longest_job })
    }

    /// Returns how to read its own queue; with a framework, all its queues.
    pub fn queue_spec(&self, name: &str) -> QueueSpec {
        QueueSpec {
            key: self.queue(name).into(),
            group: self.group(name).into(),
            kind: self.queue_kind(),
            idleness: self.idleness(),
            framework: self.framework_spec().map(Arc::new),
        }
    }

    /// Returns its queues for people: `rq mail, newsletter`, or the key of its own queue.
    pub fn queue_title(&self, name: &str) -> String {
        match self.framework_spec() {
            Some(spec) => format!("{} {}", spec.framework.profile().name(), spec.queues.join(", ")),
            None => self.queue(name),
        }
    }

    /// Returns how to stop its workers.
    pub fn stop_policy(&self) -> StopPolicy {
        let of_framework = self.framework.map(|framework| framework.profile().stop_signal());
        // Whoever names the signal means this one, immediately.
        let of_profile = self.framework.filter(|_| self.stop_signal.is_none());
        StopPolicy {
            quiet: of_profile.and_then(|framework| framework.profile().quiet_signal()),
            signal: self.stop_signal.or(of_framework).unwrap_or_default(),
            hard_kill: self.hard_kill.unwrap_or(self.framework.is_none()),
            helpers_first: self.framework.is_some_and(|framework| framework.profile().helpers_first()),
            may_be_missed: self.framework.is_some_and(|framework| framework.profile().may_miss_stop_signal()),
        }
    }

    /// Returns whether its workers write swarm's heartbeats. Those of a framework never do, nor those that work on a
    /// Redis server of their own.
    pub fn writes_heartbeats(&self) -> bool {
        self.worker.heartbeats && self.framework.is_none() && self.redis_url.is_none()
    }
}

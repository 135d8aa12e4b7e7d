//! The settings of `swarm worker`: how a worker of one type takes jobs, and which handler runs them.

use std::{collections::BTreeMap, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `[worker_types.NAME.worker]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct WorkerSettings {
    /// Jobs that one worker runs concurrently. Each of its open sessions may run one more.
    #[schemars(range(min = 1, max = 10_000))]
    pub concurrency: u32,
    /// Jobs after which a worker leaves by itself, whatever became of them. Jobs of its open sessions do not count.
    /// Default: unlimited.
    #[schemars(range(min = 1))]
    pub max_jobs: Option<u64>,
    /// Seconds between heartbeats. A worker that misses three counts as gone.
    #[schemars(range(min = 1, max = 3_600))]
    pub heartbeat_seconds: u64,
    /// Whether the workers write heartbeats, as `swarm worker` does. With `false`, a worker counts as ready as soon as
    /// it runs, and as busy while a consumer of its name holds jobs.
    pub heartbeats: bool,
    /// What shows that a worker is idle if neither heartbeats nor a consumer group do.
    pub idle: IdleRule,
    /// Maximum seconds for one job; then it fails. 0: unlimited.
    #[schemars(range(max = 604_800))]
    pub job_timeout_seconds: u64,
    /// Seconds without a job after which a session is closed.
    #[schemars(range(min = 1, max = 604_800))]
    pub session_idle_seconds: u64,
    /// Address and port of each worker's own `/metrics`; port 0 picks a free port. `""`: none.
    pub metrics_listen: String,
    /// The handler that runs the jobs. Default: `exec` if `exec` names a program, else the handler with the worker
    /// type's name, else `builtin`.
    pub handler: Option<HandlerKind>,
    /// `handler = "exec"`: program and arguments, started once for each job, with the job as JSON on stdin and the
    /// result as JSON on stdout.
    pub exec: Vec<String>,
    /// `handler = "exec"`: additional environment variables for the program, which inherits only a few of the worker's.
    pub exec_environment: BTreeMap<String, String>,
}

super::section::defaults!(WorkerSettings);

impl Default for WorkerSettings {
    fn default() -> Self {
        Self {
            concurrency: 1,
            max_jobs: None,
            heartbeat_seconds: 5,
            heartbeats: true,
            idle: IdleRule::default(),
            job_timeout_seconds: 3_600,
            session_idle_seconds: 900,
            metrics_listen: String::new(),
            handler: None,
            exec: Vec::new(),
            exec_environment: BTreeMap::new(),
        }
    }
}

impl WorkerSettings {
    /// Returns `heartbeat_seconds` as a duration.
    pub fn heartbeat_interval(&self) -> Duration {
        Duration::from_secs(self.heartbeat_seconds)
    }

    /// Returns `job_timeout_seconds` as a duration; `None` if unlimited.
    pub fn job_timeout(&self) -> Option<Duration> {
        (self.job_timeout_seconds > 0).then(|| Duration::from_secs(self.job_timeout_seconds))
    }

    /// Returns `session_idle_seconds` as a duration.
    pub fn session_idle(&self) -> Duration {
        Duration::from_secs(self.session_idle_seconds)
    }

    /// Returns the handler for worker type `name`.
    pub fn handler(&self, name: &str) -> HandlerKind {
        let of_name = if self.exec.is_empty() { HandlerKind::of_type(name) } else { Some(HandlerKind::Exec) };
        self.handler.or(of_name).unwrap_or_default()
    }
}

/// What shows that a worker is idle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum IdleRule {
    /// Heartbeats, or a consumer group with nothing pending. A list without heartbeats has neither, so an empty list
    /// never scales its workers down.
    #[default]
    Stated,
    /// An empty list. For workers that may be stopped at any time: a worker may have just taken the last job.
    EmptyQueue,
}

/// The handler of a worker type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum HandlerKind {
    /// `echo` and `sleep` only, which every handler supports.
    #[default]
    Builtin,
    /// The program that `exec` names.
    Exec,
    /// Drives Chromium.
    Browser,
    /// Holds game sessions over WebSocket.
    Tankpit,
}

impl HandlerKind {
    /// Returns the default handler of a worker type with this name.
    fn of_type(name: &str) -> Option<Self> {
        match name {
            "browser" => Some(Self::Browser),
            "tankpit" => Some(Self::Tankpit),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_handler_is_the_one_named_else_the_program_else_the_types_own() {
        let exec = vec!["cat".to_owned()];
        let of = |handler, exec: &[String]| {
            WorkerSettings { handler, exec: exec.to_vec(), ..WorkerSettings::default() }.handler("thumbnails")
        };
        assert_eq!(of(None, &[]), HandlerKind::Builtin);
        assert_eq!(of(None, &exec), HandlerKind::Exec);
        assert_eq!(of(Some(HandlerKind::Builtin), &exec), HandlerKind::Builtin);
    }
}

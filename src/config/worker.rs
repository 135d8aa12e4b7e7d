//! The settings of `swarm worker`: how a worker of one type takes jobs, and what does them.

use std::{collections::BTreeMap, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `[worker_types.NAME.worker]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct WorkerSettings {
    /// Jobs one worker does at the same time. Jobs of its open sessions come on top, one for each session.
    #[schemars(range(min = 1, max = 10_000))]
    pub concurrency: u32,
    /// Seconds between heartbeats; a worker silent for three of them counts as gone.
    #[schemars(range(min = 1, max = 3_600))]
    pub heartbeat_seconds: u64,
    /// Whether its workers write heartbeats, as `swarm worker` does. `false` for programs that don't: they count as
    /// ready as soon as they run, and as busy while a consumer of their name holds jobs.
    pub heartbeats: bool,
    /// What shows that a worker is idle, where neither heartbeats nor a consumer group do.
    pub idle: IdleRule,
    /// Seconds one job may take; then it is given up and has failed. 0: as long as it likes.
    #[schemars(range(max = 604_800))]
    pub job_timeout_seconds: u64,
    /// Seconds after which a session that nothing was asked of is closed.
    #[schemars(range(min = 1, max = 604_800))]
    pub session_idle_seconds: u64,
    /// Address and port of each worker's own `/metrics`; port 0 takes a free one. `""`: none.
    pub metrics_listen: String,
    /// What does the jobs. Default: `exec` if `exec` names a program, else the handler of the worker type's name, else
    /// `builtin`.
    pub handler: Option<HandlerKind>,
    /// `handler = "exec"`: program and arguments, started once for each job: job as JSON on stdin, result as JSON on
    /// stdout.
    pub exec: Vec<String>,
    /// `handler = "exec"`: more environment variables for the program. It gets few of the worker's own.
    pub exec_environment: BTreeMap<String, String>,
}

super::section::defaults!(WorkerSettings);

impl Default for WorkerSettings {
    fn default() -> Self {
        Self {
            concurrency: 1,
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
    /// `heartbeat_seconds` as a duration.
    pub fn heartbeat_interval(&self) -> Duration {
        Duration::from_secs(self.heartbeat_seconds)
    }

    /// `job_timeout_seconds` as a duration; `None` if a job may take as long as it likes.
    pub fn job_timeout(&self) -> Option<Duration> {
        (self.job_timeout_seconds > 0).then(|| Duration::from_secs(self.job_timeout_seconds))
    }

    /// `session_idle_seconds` as a duration.
    pub fn session_idle(&self) -> Duration {
        Duration::from_secs(self.session_idle_seconds)
    }

    /// What does the jobs of worker type `name`.
    pub fn handler(&self, name: &str) -> HandlerKind {
        let of_name = if self.exec.is_empty() { HandlerKind::of_type(name) } else { Some(HandlerKind::Exec) };
        self.handler.or(of_name).unwrap_or_default()
    }
}

/// What shows that a worker is idle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum IdleRule {
    /// Heartbeats, or a consumer group in which nothing is pending. A list without heartbeats has neither: its workers
    /// are never let go for want of jobs.
    #[default]
    Stated,
    /// An empty list. For workers that may be stopped at any time: one may have just taken the last job.
    EmptyQueue,
}

/// What does the jobs of a worker type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum HandlerKind {
    /// `echo` and `sleep` only, which every handler knows too.
    #[default]
    Builtin,
    /// The program that `exec` names.
    Exec,
    /// Drives Chromium.
    Browser,
    /// Keeps game sessions over WebSocket.
    Tankpit,
}

impl HandlerKind {
    /// The handler that a worker type of that name has if nothing else is said.
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

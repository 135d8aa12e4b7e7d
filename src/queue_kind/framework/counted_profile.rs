//! The profile of frameworks whose queues are known from counts alone. Only their names, the parts of their queues and
//! their stop signals differ; all of them show at most whether the pool as a whole is idle.

use std::sync::Arc;

use redis::Cmd;

use super::{
    Certainty, FrameworkProfile, FrameworkSpec, JobTimes, SignalKeys, Trace,
    counted::{CountedReader, Part},
};
use crate::{
    model::{QuietSignal, StopSignal},
    queue_kind::QueueReader,
};

/// See the [module](self).
#[derive(Debug)]
pub(super) struct CountedProfile {
    /// Name in the configuration.
    pub(super) name: &'static str,
    /// Queue that the framework uses if none is named.
    pub(super) default_queue: &'static str,
    /// Prefix of the framework's keys, unless its configuration changes it.
    pub(super) default_prefix: &'static str,
    /// Returns the parts of a queue, the main one first.
    pub(super) parts: fn(&FrameworkSpec, &str) -> Vec<Part>,
    /// Command that the server refuses if the main key holds another type.
    pub(super) content: &'static str,
    /// Flags in `notify-keyspace-events` for the events of the keys.
    pub(super) event_flags: &'static str,
    /// Commands that the reader needs, in the form of ACLs.
    pub(super) commands: &'static [&'static str],
    /// Whether the parts show every running job. If they don't, they show none.
    pub(super) shows_running: bool,
    /// Signal that makes a worker take no more jobs, if running jobs have little time after the stop signal.
    pub(super) quiet_signal: Option<QuietSignal>,
    /// Signal that lets a worker finish its jobs and leave.
    pub(super) stop_signal: StopSignal,
    /// Returns the evidence that a queue has been used, if an empty queue leaves some behind.
    pub(super) trace: Option<fn(&FrameworkSpec, &str) -> Trace>,
    /// What a program must have so that the signal is safe.
    pub(super) stop_caveat: Option<&'static str>,
    /// Returns where the times of a queue's jobs are, if the framework keeps them.
    pub(super) job_times: Option<fn(&FrameworkSpec, &str) -> JobTimes>,
}

impl CountedProfile {
    fn parts(&self, spec: &FrameworkSpec, queue: &str) -> impl Iterator<Item = Part> {
        (self.parts)(spec, queue).into_iter()
    }
}

impl FrameworkProfile for CountedProfile {
    fn name(&self) -> &'static str {
        self.name
    }

    fn default_queue(&self) -> &'static str {
        self.default_queue
    }

    fn default_prefix(&self) -> &'static str {
        self.default_prefix
    }

    fn key(&self, spec: &FrameworkSpec, queue: &str) -> String {
        self.parts(spec, queue).next().expect("a queue has a main part").into_key()
    }

    fn content(&self, key: &str) -> Cmd {
        redis::cmd(self.content).arg(key).to_owned()
    }

    fn signals(&self, spec: &FrameworkSpec) -> SignalKeys {
        let parts = spec.queues.iter().flat_map(|queue| self.parts(spec, queue));
        let keys = parts.filter(Part::is_signal).map(Part::into_key).collect();
        SignalKeys { keys, ..SignalKeys::default() }
    }

    fn event_flags(&self) -> &'static str {
        self.event_flags
    }

    fn reader(&self, spec: &Arc<FrameworkSpec>) -> Box<dyn QueueReader> {
        Box::new(CountedReader::new(spec, self.parts, self.shows_running))
    }

    fn commands(&self) -> &'static [&'static str] {
        self.commands
    }

    fn certainty(&self) -> Certainty {
        if self.shows_running { Certainty::PoolOnly } else { Certainty::Never }
    }

    fn stop_signal(&self) -> StopSignal {
        self.stop_signal
    }

    fn quiet_signal(&self) -> Option<QuietSignal> {
        self.quiet_signal
    }

    fn stop_caveat(&self) -> Option<&'static str> {
        self.stop_caveat
    }

    fn trace(&self, spec: &FrameworkSpec, queue: &str) -> Option<Trace> {
        self.trace.map(|trace| trace(spec, queue))
    }

    fn job_times(&self, spec: &FrameworkSpec, queue: &str) -> Option<JobTimes> {
        self.job_times.map(|times| times(spec, queue))
    }

    fn identity(&self) -> Option<&'static str> {
        None
    }
}

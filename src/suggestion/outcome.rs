//! What is compared of a simulation.

use serde::Serialize;

use crate::simulation::{Report, Waits};

/// Figures of one simulation, without its changes and its timeline.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Outcome {
    /// Waiting times of the jobs.
    pub wait_seconds: Waits,
    /// Hours of all workers together.
    pub worker_hours: f64,
    /// Share of the workers' slots in which a job ran: 0 to 1.
    pub utilisation: f64,
    /// Maximum workers at a time.
    pub workers_max: u32,
    /// Workers that were started.
    pub workers_started: usize,
    /// Arrived jobs that were not finished.
    pub unfinished: usize,
}

impl From<&Report> for Outcome {
    fn from(report: &Report) -> Self {
        Self {
            wait_seconds: report.wait_seconds,
            worker_hours: report.worker_hours,
            utilisation: report.utilisation,
            workers_max: report.workers_max,
            workers_started: report.workers_started,
            unfinished: report.unfinished,
        }
    }
}

impl Outcome {
    /// Returns whether jobs wait no longer than with `other`, and no more of them stay unfinished.
    pub(super) fn waits_no_longer(&self, other: &Self) -> bool {
        let (waits, others) = (self.wait_seconds, other.wait_seconds);
        waits.p95 <= others.p95 && waits.p99 <= others.p99 && self.unfinished <= other.unfinished
    }
}

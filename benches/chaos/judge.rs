//! Judges a journal: which jobs were lost, which were begun twice although nothing was wrong with their worker, and how
//! many workers were replaced without need.
//!
//! A job may be begun again when the worker that had it was killed, was frozen meanwhile, or belonged to a killed
//! autoscaler, whose workers all drain. An outage of Redis or a frozen autoscaler excuses nothing.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    faults::{Fault, Kind},
    journal::Line,
};

/// Longer than a heartbeat's lapse: a worker that was frozen for that long may be replaced.
const LAPSE_MILLISECONDS: u128 = 2_000;

/// What the journal says.
#[derive(Debug, Default)]
pub(crate) struct Judgement {
    /// Jobs that ended at least once.
    pub(crate) done: usize,
    /// Jobs that never ended.
    pub(crate) lost: usize,
    /// Begins after the first whose earlier worker was hit by a fault.
    pub(crate) repeated: usize,
    /// Begins after the first whose earlier worker was hit by none.
    pub(crate) doubled: usize,
    /// Workers that ever began a job.
    pub(crate) workers: usize,
    /// Those of them that were gone at the end although no fault allows their replacement.
    pub(crate) unneeded: BTreeSet<String>,
    /// One line for each thing that should not be.
    pub(crate) details: Vec<String>,
}

impl Judgement {
    /// Judges the jobs `0..published`. `alive` are the workers at the end.
    pub(crate) fn new(journal: &[Line], faults: &[Fault], published: usize, alive: &BTreeSet<String>) -> Self {
        let workers: BTreeSet<&String> = journal.iter().map(|line| &line.worker).collect();
        let mut judgement = Self { workers: workers.len(), ..Self::default() };
        let replaceable = replaceable(faults);
        let explained = |worker: &str| alive.contains(worker) || replaceable.contains(worker);
        judgement.unneeded = workers.into_iter().filter(|worker| !explained(worker)).cloned().collect();

        let mut lines: BTreeMap<usize, Vec<&Line>> = (0..published).map(|number| (number, Vec::new())).collect();
        for line in journal {
            lines.entry(line.number).or_default().push(line);
        }
        for (number, lines) in &lines {
            if lines.iter().any(|line| !line.begins) {
                judgement.done += 1;
            } else {
                judgement.lost += 1;
                judgement.details.push(format!("job {number} is lost: {lines:?}"));
            }
            let begins: Vec<&&Line> = lines.iter().filter(|line| line.begins).collect();
            for pair in begins.windows(2) {
                if excused(pair[0], pair[1].at, faults) {
                    judgement.repeated += 1;
                } else {
                    judgement.doubled += 1;
                    judgement.details.push(format!("job {number} was begun again, its worker alive: {lines:?}"));
                }
            }
        }
        judgement
    }
}

/// Returns the workers that may be replaced: killed, frozen for long, or of a killed autoscaler.
fn replaceable(faults: &[Fault]) -> BTreeSet<&str> {
    let may = |fault: &&Fault| match fault.kind {
        Kind::WorkerFrozen => fault.until - fault.from >= LAPSE_MILLISECONDS,
        _ => true,
    };
    faults.iter().filter(may).flat_map(|fault| &fault.workers).map(String::as_str).collect()
}

/// Returns whether a fault hit the worker between its begin and the next one at `again`.
fn excused(begin: &Line, again: u128, faults: &[Fault]) -> bool {
    let hit = |fault: &Fault| match fault.kind {
        Kind::WorkerFrozen => fault.from <= again && begin.at <= fault.until,
        _ => fault.from <= again,
    };
    faults.iter().any(|fault| fault.workers.contains(&begin.worker) && hit(fault))
}

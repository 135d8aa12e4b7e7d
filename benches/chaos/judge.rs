//! Judges a journal: which jobs were lost, which were begun twice although nothing was wrong with their worker, and how
//! many workers were replaced without need.
//!
//! A job may be begun again when the worker that had it was killed, was frozen meanwhile, or belonged to a killed
//! autoscaler, whose workers all drain; and by a worker that was frozen while it began the job. An outage of Redis or a
//! frozen autoscaler excuses nothing.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    faults::{Fault, Kind},
    journal::Line,
};

/// Longer than a heartbeat's lapse: a worker that was frozen for that long may be replaced.
const LAPSE_MILLISECONDS: u128 = 2_000;

/// Longer than it takes to begin a job once it is looked whose it is.
const BEGIN_MILLISECONDS: u128 = 500;

/// What the journal says.
#[derive(Debug, Default)]
pub(crate) struct Judgement {
    /// Jobs that ended at least once.
    pub(crate) done: usize,
    /// Jobs that never ended.
    pub(crate) lost: usize,
    /// Begins after the first that a fault of a worker explains.
    pub(crate) repeated: usize,
    /// Begins after the first that none explains.
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
                if excused(pair[0], pair[1], faults) {
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

/// Returns whether a fault explains that a job was begun again: it hit the first worker between the two begins, or the
/// second worker was frozen between its look whether the job is its own and the begin. No worker can close that gap;
/// what such a begin leads to is refused, because its claim is lost.
fn excused(first: &Line, again: &Line, faults: &[Fault]) -> bool {
    let hit_first = |fault: &Fault| match fault.kind {
        Kind::WorkerFrozen => fault.from <= again.at && first.at <= fault.until,
        _ => fault.from <= again.at,
    };
    let just_thawed = |fault: &Fault| {
        fault.kind == Kind::WorkerFrozen && (fault.until..fault.until + BEGIN_MILLISECONDS).contains(&again.at)
    };
    let of = |fault: &Fault, line: &Line| fault.workers.contains(&line.worker);
    faults.iter().any(|fault| of(fault, first) && hit_first(fault) || of(fault, again) && just_thawed(fault))
}

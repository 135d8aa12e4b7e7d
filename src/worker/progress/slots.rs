//! The newest progress of each job until it is written, and when that is due. Pure: the time is an argument.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    broker::{Delivery, Job, PROGRESS_TTL},
    model::{Timestamp, progress::Progress},
};

/// Minimum time between two writes for one job, and between its start and the first one: a job that is shorter than
/// this costs nothing.
const WRITE_INTERVAL: Duration = Duration::from_secs(1);
/// Time after which unchanged progress is written again, so that it does not expire: two writes may fail.
const REFRESH_INTERVAL: Duration = Duration::from_secs(PROGRESS_TTL.as_secs() / 3);

/// One execution of a job by its handler.
pub(super) struct Execution {
    /// Number of the execution, unique in this worker.
    pub(super) run: u64,
    pub(super) began: Instant,
    pub(super) claim: Arc<JobClaim>,
    /// Set and read while the slots are locked.
    pub(super) has_ended: AtomicBool,
}

impl Execution {
    pub(super) fn new(run: u64, began: Instant, claim: JobClaim) -> Self {
        Self { run, began, claim: Arc::new(claim), has_ended: AtomicBool::new(false) }
    }
}

/// The claim on a job that reports progress.
pub(in crate::worker) struct JobClaim {
    pub(in crate::worker) stream: Arc<str>,
    pub(in crate::worker) entry: String,
    /// Number of the delivery.
    pub(in crate::worker) number: u32,
    /// Id of the job.
    pub(in crate::worker) id: String,
    /// The job, if the values of some of its arguments are to be masked.
    pub(in crate::worker) masking: Option<Box<Job>>,
}

impl JobClaim {
    /// Returns the claim on a job that was delivered. `masks`: values of some arguments are to be masked.
    pub(in crate::worker) fn new(delivery: &Delivery, job: &Job, masks: bool) -> Self {
        Self {
            stream: Arc::clone(&delivery.stream),
            entry: delivery.entry.clone(),
            number: delivery.number,
            id: job.id.clone(),
            masking: masks.then(|| Box::new(job.clone())),
        }
    }

    /// Returns the claim on a made-up job.
    #[cfg(test)]
    pub(super) fn of_test(run: u64) -> Self {
        Self { stream: "s".into(), entry: format!("{run}-0"), number: 1, id: format!("j{run}"), masking: None }
    }
}

/// What is to be done for one job.
pub(in crate::worker) enum Step {
    /// Write its progress.
    Write(Write),
    /// Remove its progress: it has ended.
    End(Arc<JobClaim>),
}

/// Progress to be written.
pub(in crate::worker) struct Write {
    pub(in crate::worker) claim: Arc<JobClaim>,
    pub(in crate::worker) progress: Progress,
    /// When the handler reported it.
    pub(in crate::worker) at: Timestamp,
    pub(super) run: u64,
}

/// Jobs that have reported progress, by the number of their execution.
#[derive(Default)]
pub(super) struct Slots {
    reporting: HashMap<u64, Slot>,
}

struct Slot {
    claim: Arc<JobClaim>,
    state: State,
    progress: Progress,
    at: Timestamp,
    /// Whether Redis does not have this progress.
    is_unwritten: bool,
    /// Whether Redis may have any progress of the job.
    was_written: bool,
    /// When progress was written last; before that, when the job began.
    last: Instant,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Running,
    Lost,
    Ended,
}

impl Slot {
    fn due(&self) -> Option<Instant> {
        match self.state {
            State::Running if self.is_unwritten => Some(self.last + WRITE_INTERVAL),
            State::Running => Some(self.last + REFRESH_INTERVAL),
            State::Ended => Some(self.last),
            State::Lost => None,
        }
    }
}

impl Slots {
    /// Takes progress in. Returns whether it may be due before everything else.
    pub(super) fn report(&mut self, execution: &Execution, progress: Progress, at: Timestamp) -> bool {
        // A task that outlives its job may still report.
        if execution.has_ended.load(Ordering::Relaxed) {
            return false;
        }
        let slot = self.reporting.entry(execution.run).or_insert_with(|| Slot {
            claim: Arc::clone(&execution.claim),
            state: State::Running,
            progress: Progress::default(),
            at,
            is_unwritten: false,
            was_written: false,
            last: execution.began,
        });
        (slot.progress, slot.at) = (progress, at);
        !std::mem::replace(&mut slot.is_unwritten, true)
    }

    /// Ends the progress of a job. Returns whether it is to be removed from Redis.
    pub(super) fn end(&mut self, execution: &Execution) -> bool {
        execution.has_ended.store(true, Ordering::Relaxed);
        let Some(slot) = self.reporting.get_mut(&execution.run) else { return false };
        if slot.was_written && slot.state == State::Running {
            slot.state = State::Ended;
            return true;
        }
        self.reporting.remove(&execution.run);
        false
    }

    pub(super) fn take_due(&mut self, now: Instant, limit: usize) -> Vec<Step> {
        let is_due = |slot: &Slot| slot.due().is_some_and(|due| due <= now);
        let due = self.reporting.iter().filter(|(_, slot)| is_due(slot)).map(|(run, _)| *run);
        let due: Vec<u64> = due.take(limit).collect();
        due.into_iter().filter_map(|run| self.take(run, now)).collect()
    }

    fn take(&mut self, run: u64, now: Instant) -> Option<Step> {
        let slot = self.reporting.get_mut(&run)?;
        if slot.state == State::Ended {
            return self.reporting.remove(&run).map(|slot| Step::End(slot.claim));
        }
        // Also if the write fails: it may have reached Redis all the same.
        (slot.is_unwritten, slot.was_written, slot.last) = (false, true, now);
        let (claim, progress, at) = (Arc::clone(&slot.claim), slot.progress.clone(), slot.at);
        Some(Step::Write(Write { claim, progress, at, run }))
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        self.reporting.values().filter_map(Slot::due).min()
    }

    /// Returns how many jobs report progress.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.reporting.len()
    }

    pub(super) fn not_written(&mut self, run: u64) {
        if let Some(slot) = self.reporting.get_mut(&run) {
            slot.is_unwritten = true;
        }
    }

    pub(super) fn lost(&mut self, run: u64) {
        if let Some(slot) = self.reporting.get_mut(&run)
            && slot.state == State::Running
        {
            slot.state = State::Lost;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Jobs that began at a made-up time, and what is written when.
    struct Bench {
        slots: Slots,
        began: Instant,
    }

    impl Bench {
        fn new() -> Self {
            Self { slots: Slots::default(), began: Instant::now() }
        }

        fn job(&self, run: u64) -> Execution {
            Execution::new(run, self.began, JobClaim::of_test(run))
        }

        fn report(&mut self, job: &Execution, text: &str) -> bool {
            self.slots.report(job, Progress::new(text), Timestamp(7))
        }

        /// What is due `ms` milliseconds after the beginning, sorted: `ID=TEXT`, or `ID!` for an end.
        fn due(&mut self, ms: u32) -> Vec<String> {
            let step = |step: &Step| match step {
                Step::Write(write) => format!("{}={}", write.claim.id, write.progress),
                Step::End(claim) => format!("{}!", claim.id),
            };
            let mut due: Vec<String> = self.slots.take_due(self.began + MS * ms, 100).iter().map(step).collect();
            due.sort();
            due
        }
    }

    #[test]
    fn a_job_is_written_at_most_once_a_second_and_the_latest_wins() {
        let mut bench = Bench::new();
        let job = bench.job(1);
        assert!(bench.report(&job, "a") && !bench.report(&job, "b"), "only the first report wakes the writer");
        assert!(bench.due(999).is_empty(), "a job that is shorter costs nothing");
        assert_eq!(bench.slots.next_due(), Some(bench.began + WRITE_INTERVAL));
        assert_eq!(bench.due(1_000), ["j1=b"]);
        assert!(bench.report(&job, "c"));
        for text in ["d", "e"] {
            assert!(!bench.report(&job, text));
        }
        assert!(bench.due(1_999).is_empty());
        assert_eq!((bench.due(2_000), bench.due(3_000)), (vec!["j1=e".to_owned()], Vec::new()));
    }

    #[test]
    fn what_does_not_change_is_written_again_before_it_expires() {
        let mut bench = Bench::new();
        let job = bench.job(1);
        bench.report(&job, "a");
        assert_eq!(bench.due(1_000), ["j1=a"]);
        assert!(bench.due(20_999).is_empty());
        assert_eq!(bench.due(21_000), ["j1=a"]);
    }

    #[test]
    fn progress_ends_with_its_job_and_not_before_it_was_written() {
        let mut bench = Bench::new();
        let [short, long] = [bench.job(1), bench.job(2)];
        bench.report(&short, "a");
        bench.report(&long, "b");
        assert!(!bench.slots.end(&short), "nothing was written");
        assert_eq!(bench.due(1_000), ["j2=b"]);
        bench.report(&long, "c");
        assert!(bench.slots.end(&long));
        assert!(!bench.report(&long, "late"));
        assert_eq!((bench.due(1_001), bench.due(100_000)), (vec!["j2!".to_owned()], Vec::new()));
        assert!(bench.slots.reporting.is_empty());
    }

    #[test]
    fn what_was_refused_is_due_again_and_a_lost_job_is_silent() {
        let mut bench = Bench::new();
        let [refused, lost] = [bench.job(1), bench.job(2)];
        bench.report(&refused, "a");
        bench.report(&lost, "b");
        assert_eq!(bench.due(1_000), ["j1=a", "j2=b"]);
        bench.slots.not_written(1);
        bench.slots.lost(2);
        bench.report(&lost, "c");
        assert!(bench.due(1_999).is_empty());
        assert_eq!((bench.due(2_000), bench.due(60_000)), (vec!["j1=a".to_owned()], vec!["j1=a".to_owned()]));
        assert!(!bench.slots.end(&lost), "the progress there is another worker's");
        assert_eq!(bench.slots.reporting.len(), 1);
    }
}

//! How long a job takes and how many come, learned from what a queue counts between one look and the next.
//!
//! A worker's time is measured by looks at who is at work. While jobs wait all the time, that is everybody, and the
//! measure is exact however far apart the looks are. Otherwise only looks close to each other tell something.

use std::time::Duration;

use crate::model::Timestamp;

/// Arrivals that came so long ago count half.
const ARRIVALS_HALF_LIFE: f64 = 30.0;

/// Fewer seconds than these tell no rate: a burst at the first looks is not what comes all day.
const ARRIVALS_AT_LEAST: f64 = 10.0;

/// Finished jobs count half when so many more have finished, and their workers have worked for
/// [`SERVICE_HALF_LIFE_SECONDS`] more: enough to be a mean, few enough to follow a change.
const SERVICE_HALF_LIFE_JOBS: f64 = 50.0;
/// See [`SERVICE_HALF_LIFE_JOBS`].
const SERVICE_HALF_LIFE_SECONDS: f64 = 60.0;

/// Finished jobs from which on their time counts as known.
const ENOUGH_JOBS: u64 = 3;

/// A queue and its workers at one look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sample {
    /// When.
    pub(super) at: Timestamp,
    /// Jobs ever added to the queue.
    pub(super) added: u64,
    /// Jobs ever delivered to its workers, if that is counted.
    pub(super) read: Option<u64>,
    /// Jobs not delivered.
    pub(super) lag: u64,
    /// Jobs delivered and unfinished.
    pub(super) pending: u64,
    /// Workers at work, or about to be.
    pub(super) at_work: u32,
}

impl Sample {
    /// Jobs that finished between `earlier` and this look. `None` if the counts went back: the stream or its group was made
    /// again.
    fn finished_since(&self, earlier: &Self) -> Option<u64> {
        let by_reads = |of: &Self| of.read?.checked_sub(of.pending);
        let by_depth = |of: &Self| of.added.checked_sub(of.lag.saturating_add(of.pending));
        match (self.read, earlier.read) {
            (Some(_), Some(_)) => by_reads(self)?.checked_sub(by_reads(earlier)?),
            _ => by_depth(self)?.checked_sub(by_depth(earlier)?),
        }
    }
}

/// An amount over a time, of which what is long ago counts less.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Faded {
    amount: f64,
    seconds: f64,
}

impl Faded {
    /// Takes what there was as worth less by so many half-lives, and adds to it.
    fn add(&mut self, half_lives: f64, amount: f64, seconds: f64) {
        let worth = (-half_lives).exp2();
        self.amount = self.amount.mul_add(worth, amount);
        self.seconds = self.seconds.mul_add(worth, seconds);
    }
}

/// Why there are no rates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unlearned {
    /// Too few jobs were seen to finish.
    TooFew,
    /// The queue does not count: a list, or a stream of Redis before 7.
    Uncounted,
}

/// What was learned.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rates {
    /// A worker's time for one job.
    pub(super) job: Duration,
    /// Jobs that come in a second.
    pub(super) arriving: f64,
}

/// What is known of the flow of jobs through one queue.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Flow {
    last: Option<Sample>,
    uncounted: bool,
    arrivals: Faded,
    /// Finished jobs over the time that workers were at work.
    service: Faded,
    finished: u64,
}

impl Flow {
    /// Learns from one more look. Looks further apart than `gap` tell of the time of jobs only if jobs waited all the time.
    pub(super) fn note(&mut self, sample: Sample, gap: Duration) {
        self.uncounted = false;
        let Some(last) = self.last.filter(|last| last.at < sample.at) else {
            self.last.get_or_insert(sample);
            return;
        };
        self.last = Some(sample);
        let Some(came) = sample.added.checked_sub(last.added) else { return };
        let passed = sample.at.since(last.at);
        let seconds = passed.as_secs_f64();
        self.arrivals.add(seconds / ARRIVALS_HALF_LIFE, float(came), seconds);
        // More wait than came meanwhile: some of them have waited all the time.
        let waited = sample.lag > came;
        if waited || passed <= gap {
            self.note_service(&last, &sample, seconds);
        }
    }

    fn note_service(&mut self, last: &Sample, sample: &Sample, seconds: f64) {
        let Some(finished) = sample.finished_since(last) else { return };
        let worked = f64::midpoint(f64::from(last.at_work), f64::from(sample.at_work)) * seconds;
        if worked > 0.0 {
            let jobs = float(finished);
            let half_lives = (jobs / SERVICE_HALF_LIFE_JOBS).min(worked / SERVICE_HALF_LIFE_SECONDS);
            self.service.add(half_lives, jobs, worked);
            self.finished = self.finished.saturating_add(finished);
        }
    }

    /// There is nothing to learn from: the queue does not count.
    pub(super) fn note_uncounted(&mut self) {
        self.uncounted = true;
        self.last = None;
    }

    /// Whether there is something to learn from.
    pub(super) fn counts(&self) -> bool {
        !self.uncounted
    }

    /// What was learned so far.
    pub(super) fn rates(&self) -> Result<Rates, Unlearned> {
        if self.uncounted {
            return Err(Unlearned::Uncounted);
        }
        if self.finished < ENOUGH_JOBS {
            return Err(Unlearned::TooFew);
        }
        let job = Duration::try_from_secs_f64(self.service.seconds / self.service.amount);
        let arriving = self.arrivals.amount / self.arrivals.seconds.max(ARRIVALS_AT_LEAST);
        Ok(Rates { job: job.map_err(|_| Unlearned::TooFew)?, arriving })
    }
}

/// Exact up to 2^53, which no queue gets past.
#[expect(clippy::cast_precision_loss, reason = "rates need no exactness beyond that")]
pub(super) fn float(count: u64) -> f64 {
    count as f64
}

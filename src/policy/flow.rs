//! Learns how long a job takes and how many arrive, from the counters of a queue in successive observations.
//!
//! The time that workers spend on jobs is measured by the number of workers at work in each observation. While jobs
//! wait all the time, every worker is at work, and the measure is exact however far apart the observations are.
//! Otherwise only observations close to each other are useful.

use std::time::Duration;

use crate::model::Timestamp;

/// Half-life of arrivals, in seconds.
const ARRIVALS_HALF_LIFE: f64 = 30.0;

/// Shortest time over which arrivals give a rate, in seconds: a burst at the first observations is not the rate of the
/// day.
const ARRIVALS_AT_LEAST: f64 = 10.0;

/// Half-life of finished jobs: a job's weight halves after this number of further jobs and after another
/// [`SERVICE_HALF_LIFE_SECONDS`] of work. Enough jobs for a mean, and few enough to follow a change.
const SERVICE_HALF_LIFE_JOBS: f64 = 50.0;
/// See [`SERVICE_HALF_LIFE_JOBS`].
const SERVICE_HALF_LIFE_SECONDS: f64 = 60.0;

/// Finished jobs after which their mean time counts as known.
const ENOUGH_JOBS: u64 = 3;

/// A queue and its workers in one observation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sample {
    /// Time of the observation.
    pub(super) at: Timestamp,
    /// Jobs ever added to the queue.
    pub(super) added: u64,
    /// Jobs ever delivered to its workers, if the queue counts them.
    pub(super) read: Option<u64>,
    /// Jobs not delivered.
    pub(super) lag: u64,
    /// Jobs delivered and unfinished.
    pub(super) pending: u64,
    /// Workers at work, or about to be.
    pub(super) at_work: u32,
}

impl Sample {
    /// Returns the jobs that finished between `earlier` and this observation. `None` if the counters went back, because
    /// the stream or its group was recreated.
    fn finished_since(&self, earlier: &Self) -> Option<u64> {
        let by_reads = |of: &Self| of.read?.checked_sub(of.pending);
        let by_depth = |of: &Self| of.added.checked_sub(of.lag.saturating_add(of.pending));
        match (self.read, earlier.read) {
            (Some(_), Some(_)) => by_reads(self)?.checked_sub(by_reads(earlier)?),
            _ => by_depth(self)?.checked_sub(by_depth(earlier)?),
        }
    }
}

/// An amount over a time, with exponential decay.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Faded {
    amount: f64,
    seconds: f64,
}

impl Faded {
    /// Decays the present amount by `half_lives`, and adds to it.
    fn add(&mut self, half_lives: f64, amount: f64, seconds: f64) {
        let worth = (-half_lives).exp2();
        self.amount = self.amount.mul_add(worth, amount);
        self.seconds = self.seconds.mul_add(worth, seconds);
    }
}

/// Why there are no rates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unlearned {
    /// Too few jobs have finished so far.
    TooFew,
    /// The queue keeps no counters: a list, or a stream of Redis before 7.
    Uncounted,
}

/// Learned rates.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rates {
    /// Time that a worker takes for one job.
    pub(super) job: Duration,
    /// Jobs that arrive per second.
    pub(super) arriving: f64,
}

/// What is known about the flow of jobs through one queue. Takes a pointer until something is learned, because most
/// worker types use other strategies.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Flow(Option<Box<Learned>>);

impl Flow {
    /// Learns from one more observation. Observations further apart than `gap` give a job's time only if jobs waited
    /// all the time.
    pub(super) fn note(&mut self, sample: Sample, gap: Duration) {
        self.0.get_or_insert_default().note(sample, gap);
    }

    /// Records that the queue keeps no counters, so that nothing can be learned.
    pub(super) fn note_uncounted(&mut self) {
        let learned = self.0.get_or_insert_default();
        learned.uncounted = true;
        learned.last = None;
    }

    /// Returns whether the queue keeps counters, as far as is known.
    pub(super) fn counts(&self) -> bool {
        self.0.as_ref().is_none_or(|learned| !learned.uncounted)
    }

    /// Returns the rates that were learned so far.
    pub(super) fn rates(&self) -> Result<Rates, Unlearned> {
        self.0.as_ref().ok_or(Unlearned::TooFew)?.rates()
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Learned {
    last: Option<Sample>,
    uncounted: bool,
    arrivals: Faded,
    /// Finished jobs over the time that workers worked on them.
    service: Faded,
    /// Seconds that workers have worked on unfinished jobs.
    in_progress: f64,
    finished: u64,
}

impl Learned {
    fn note(&mut self, sample: Sample, gap: Duration) {
        self.uncounted = false;
        let Some(last) = self.last.filter(|last| last.at < sample.at) else {
            self.last.get_or_insert(sample);
            return;
        };
        self.last = Some(sample);
        let Some(came) = sample.added.checked_sub(last.added) else {
            self.in_progress = 0.0;
            return;
        };
        let passed = sample.at.since(last.at);
        let seconds = passed.as_secs_f64();
        self.arrivals.add(seconds / ARRIVALS_HALF_LIFE, float(came), seconds);
        // More jobs wait than have arrived since, so some of them have waited all the time.
        let waited = sample.lag > came;
        match sample.finished_since(&last) {
            Some(finished) if waited || passed <= gap => self.note_service(&last, &sample, finished, seconds),
            _ => self.in_progress = 0.0,
        }
    }

    /// Attributes to finished jobs their share of the time that workers were at work. A job in progress counts as half
    /// done on average: a hundred jobs that have just begun must not look like a hundred jobs that take long.
    fn note_service(&mut self, last: &Sample, sample: &Sample, finished: u64, seconds: f64) {
        let jobs = float(finished);
        let worked =
            f64::midpoint(f64::from(last.at_work), f64::from(sample.at_work)).mul_add(seconds, self.in_progress);
        if finished == 0 || worked <= 0.0 {
            self.in_progress = worked;
            return;
        }
        let theirs = worked * jobs / (jobs + float(sample.pending) / 2.0);
        self.in_progress = worked - theirs;
        let half_lives = (jobs / SERVICE_HALF_LIFE_JOBS).min(theirs / SERVICE_HALF_LIFE_SECONDS);
        self.service.add(half_lives, jobs, theirs);
        self.finished = self.finished.saturating_add(finished);
    }

    fn rates(&self) -> Result<Rates, Unlearned> {
        if self.uncounted {
            return Err(Unlearned::Uncounted);
        }
        if self.finished < ENOUGH_JOBS {
            return Err(Unlearned::TooFew);
        }
        let of_finished = self.service.seconds / self.service.amount;
        // Mean time that each job in progress has taken so far, less the part, at most a half, that earlier jobs left.
        let pending = self.last.map_or(0, |last| last.pending);
        let so_far = if pending > 0 { self.in_progress / float(pending) - of_finished / 2.0 } else { 0.0 };
        let job = Duration::try_from_secs_f64(of_finished.max(so_far));
        let arriving = self.arrivals.amount / self.arrivals.seconds.max(ARRIVALS_AT_LEAST);
        Ok(Rates { job: job.map_err(|_| Unlearned::TooFew)?, arriving })
    }
}

/// Converts a count; exact up to 2^53, which no queue exceeds.
#[expect(clippy::cast_precision_loss, reason = "rates need no exactness beyond that")]
pub(super) fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const GAP: Duration = Duration::from_secs(1);

    /// Returns an observation at that second: jobs added, jobs read, unfinished jobs among the read ones, workers at
    /// work.
    fn look(second: u64, added: u64, read: u64, pending: u64, at_work: u32) -> Sample {
        let at = Timestamp(second * 1_000);
        Sample { at, added, read: Some(read), lag: added - read, pending, at_work }
    }

    fn flow(looks: &[Sample]) -> Flow {
        let mut flow = Flow::default();
        for sample in looks {
            flow.note(*sample, GAP);
        }
        flow
    }

    /// Returns the time of a job in whole seconds; jobs in progress cause the rest.
    fn job_seconds(looks: &[Sample]) -> Option<f64> {
        flow(looks).rates().ok().map(|rates| rates.job.as_secs_f64().round())
    }

    #[test]
    fn looks_far_apart_tell_the_time_of_a_job_if_jobs_waited_all_the_time() {
        // Four workers, a minute, 60 jobs.
        assert_eq!(job_seconds(&[look(0, 500, 4, 4, 4), look(60, 520, 64, 4, 4)]), Some(4.0));
        // As many jobs arrived as wait now: perhaps none waited for a while.
        assert_eq!(job_seconds(&[look(0, 60, 4, 4, 4), look(60, 520, 64, 4, 4)]), None);
        assert_eq!(job_seconds(&[look(0, 4, 4, 4, 4), look(1, 8, 8, 4, 4)]), Some(1.0), "near each other they do");
    }

    #[test]
    fn what_came_while_nobody_was_seen_at_work_tells_nothing_of_jobs_and_all_of_arrivals() {
        let looks = [look(0, 10, 10, 0, 0), look(1, 20, 20, 0, 0), look(100, 824, 820, 0, 4)];
        assert_eq!(flow(&looks).rates(), Err(Unlearned::TooFew));
        let told = [looks.as_slice(), &[look(101, 828, 828, 4, 4)]].concat();
        let rates = flow(&told).rates().expect("four were seen to finish");
        assert!((rates.arriving - 8.0).abs() < 0.3 && rates.job <= Duration::from_secs(1), "{rates:?}");
    }

    #[test]
    fn a_burst_at_the_first_looks_is_not_what_comes_all_day() {
        let rates = flow(&[look(0, 0, 0, 0, 2), look(1, 100, 4, 1, 2)]).rates();
        assert_eq!(rates.map(|rates| rates.arriving), Ok(10.0));
    }

    #[test]
    fn a_stream_made_again_begins_a_new_count_and_nothing_is_forgotten() {
        let before = [look(0, 500, 4, 4, 4), look(60, 520, 64, 4, 4)];
        let after = [before.as_slice(), &[look(61, 3, 0, 0, 4), look(62, 400, 2, 2, 4)]].concat();
        assert_eq!(job_seconds(&after), Some(4.0));
    }

    #[test]
    fn without_a_count_of_what_was_read_the_depth_tells_what_was_finished() {
        let unread = |sample: Sample| Sample { read: None, ..sample };
        assert_eq!(job_seconds(&[look(0, 500, 4, 4, 4), unread(look(60, 520, 64, 4, 4))]), Some(4.0));
        // 300 entries were trimmed before they were read; if they counted as read, they would count as finished jobs.
        let trimmed = Sample { read: Some(364), ..look(60, 520, 64, 4, 4) };
        assert_eq!(job_seconds(&[unread(look(0, 500, 4, 4, 4)), trimmed]), Some(4.0));
    }

    #[test]
    fn jobs_that_take_longer_than_before_are_noticed_before_one_of_them_ends() {
        let quick = [look(0, 900, 4, 4, 4), look(60, 900, 244, 4, 4)];
        assert_eq!(job_seconds(&quick), Some(1.0));
        let slow = [quick.as_slice(), &[look(180, 900, 244, 4, 4)]].concat();
        assert_eq!(job_seconds(&slow), Some(120.0));
    }

    #[test]
    fn many_that_begin_at_once_do_not_look_like_long_jobs() {
        let one = [look(0, 900, 1, 1, 1), look(10, 900, 11, 1, 1)];
        assert_eq!(job_seconds(&one), Some(1.0));
        // A hundred more workers, shortly before their jobs are done.
        let many = [one.as_slice(), &[look(11, 900, 112, 101, 101), look(12, 900, 113, 101, 101)]].concat();
        assert_eq!(job_seconds(&many), Some(1.0));
    }

    #[test]
    fn a_queue_that_does_not_count_is_told_from_one_that_was_not_watched_for_long() {
        let mut flow = flow(&[look(0, 500, 4, 4, 4), look(60, 520, 64, 4, 4)]);
        flow.note_uncounted();
        assert_eq!((flow.rates(), flow.counts()), (Err(Unlearned::Uncounted), false));
        flow.note(look(70, 520, 74, 4, 4), GAP);
        assert!(flow.rates().is_ok() && flow.counts());
    }
}

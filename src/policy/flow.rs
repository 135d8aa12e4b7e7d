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
    /// Jobs that finished between `earlier` and this look. `None` if the counts went back: the stream or its group was
    /// made again.
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

/// What is known of the flow of jobs through one queue. Takes a pointer until something is learned: most worker types
/// go by other strategies.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Flow(Option<Box<Learned>>);

impl Flow {
    /// Learns from one more look. Looks further apart than `gap` tell of the time of jobs only if jobs waited all the
    /// time.
    pub(super) fn note(&mut self, sample: Sample, gap: Duration) {
        self.0.get_or_insert_default().note(sample, gap);
    }

    /// There is nothing to learn from: the queue does not count.
    pub(super) fn note_uncounted(&mut self) {
        let learned = self.0.get_or_insert_default();
        learned.uncounted = true;
        learned.last = None;
    }

    /// Whether there is something to learn from, as far as that was seen.
    pub(super) fn counts(&self) -> bool {
        self.0.as_ref().is_none_or(|learned| !learned.uncounted)
    }

    /// What was learned so far.
    pub(super) fn rates(&self) -> Result<Rates, Unlearned> {
        self.0.as_ref().ok_or(Unlearned::TooFew)?.rates()
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Learned {
    last: Option<Sample>,
    uncounted: bool,
    arrivals: Faded,
    /// Finished jobs over the time that workers were at work on them.
    service: Faded,
    /// Seconds that workers were at work on jobs that are not finished.
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
        // More wait than came meanwhile: some of them have waited all the time.
        let waited = sample.lag > came;
        match sample.finished_since(&last) {
            Some(finished) if waited || passed <= gap => self.note_service(&last, &sample, finished, seconds),
            _ => self.in_progress = 0.0,
        }
    }

    /// Of the time that workers were at work, finished jobs get theirs. One that is in progress is half done on the
    /// average: a hundred that have just begun must not look like a hundred that take long.
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
        // Those in progress have taken so long already, each of them, of which up to a half was left by those before.
        let pending = self.last.map_or(0, |last| last.pending);
        let so_far = if pending > 0 { self.in_progress / float(pending) - of_finished / 2.0 } else { 0.0 };
        let job = Duration::try_from_secs_f64(of_finished.max(so_far));
        let arriving = self.arrivals.amount / self.arrivals.seconds.max(ARRIVALS_AT_LEAST);
        Ok(Rates { job: job.map_err(|_| Unlearned::TooFew)?, arriving })
    }
}

/// Exact up to 2^53, which no queue gets past.
#[expect(clippy::cast_precision_loss, reason = "rates need no exactness beyond that")]
pub(super) fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const GAP: Duration = Duration::from_secs(1);

    /// A look at that second: jobs added, read, and unfinished of those that were read; workers at work.
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

    /// In whole seconds: what is in progress makes for the rest.
    fn job_seconds(looks: &[Sample]) -> Option<f64> {
        flow(looks).rates().ok().map(|rates| rates.job.as_secs_f64().round())
    }

    #[test]
    fn looks_far_apart_tell_the_time_of_a_job_if_jobs_waited_all_the_time() {
        // Four workers, a minute, 60 jobs.
        assert_eq!(job_seconds(&[look(0, 500, 4, 4, 4), look(60, 520, 64, 4, 4)]), Some(4.0));
        // As many came as wait: perhaps none did for a while.
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
        // 300 entries were trimmed before they were read: counted as read they would be finished jobs.
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
        // A hundred workers more, a little before they are done.
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

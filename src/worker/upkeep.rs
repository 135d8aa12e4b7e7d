//! What there is to do on the worker's queues besides new jobs, as its last heartbeat saw it: whether jobs may be lost,
//! and when a delayed job is due. While a heartbeat sees nothing, the worker sends no command to find out. Pure.

use std::time::Duration;

use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

/// Intervals between two searches for lost jobs while heartbeats see none. Such a search also removes consumers of
/// workers that are gone.
const SEARCH_INTERVALS: u32 = 36;
/// The same after the first search and after one that found a worker that is gone: its consumer will be left.
pub(super) const TIDY_INTERVALS: u32 = 6;

/// See the [module](self).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Upkeep {
    /// When Redis reported it.
    pub(super) at: Instant,
    /// Whether jobs may be lost: pending on this worker without being in flight, or not renewed by their worker.
    pub(super) may_be_lost: bool,
    /// Time until a delayed job is due; zero if that is unknown, `None` without delayed jobs.
    pub(super) due_in: Option<Duration>,
}

/// The last report; `None` if heartbeats can't report it.
pub(super) type Report = watch::Receiver<Option<Upkeep>>;

impl Upkeep {
    /// Returns the report of all queues from that of each: whether jobs may be lost, and in how many milliseconds a
    /// delayed job is due, negative without one.
    pub(super) fn of(at: Instant, queues: &[i64]) -> Self {
        let (mut may_be_lost, mut due_in) = (false, None);
        for queue in queues.chunks_exact(2) {
            may_be_lost |= queue[0] != 0;
            due_in = due_in.into_iter().chain(u64::try_from(queue[1]).map(Duration::from_millis)).min();
        }
        Self { at, may_be_lost, due_in }
    }
}

/// When to search for lost jobs.
#[derive(Clone, Debug)]
pub(super) struct SearchTimes {
    interval: Duration,
    /// When the last search began; `None` if the next one must not wait.
    searched: Option<Instant>,
    /// Maximum intervals until the next search.
    rest: u32,
    report: Report,
}

impl SearchTimes {
    /// Returns times for a worker with this heartbeat interval that has not searched yet.
    pub(super) fn new(interval: Duration, report: Report) -> Self {
        Self { interval, searched: None, rest: TIDY_INTERVALS, report }
    }

    /// Records that a search began at `now` and whether it found a worker that is gone.
    pub(super) fn searched(&mut self, now: Instant, found_gone: bool) {
        let is_first = self.searched.is_none();
        self.searched = Some(now);
        self.rest = if is_first || found_gone { TIDY_INTERVALS } else { SEARCH_INTERVALS };
    }

    /// Makes the next search due.
    pub(super) fn search_now(&mut self) {
        self.searched = None;
    }

    /// Returns whether a search is due.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.next().is_none_or(|next| now >= next)
    }

    /// Waits until a search is due.
    pub(super) async fn until_due(mut self) {
        loop {
            let Some(next) = self.next() else { return };
            tokio::select! {
                () = sleep_until(next) => return,
                Ok(()) = self.report.changed() => {}
            }
        }
    }

    /// Returns when the next search is due; `None` means now. At each interval, and rarely while heartbeats report that
    /// no job is lost. A report counts for two intervals, so that a late heartbeat does not cause a search.
    fn next(&self) -> Option<Instant> {
        let searched = self.searched?;
        let next = searched + self.interval;
        Some(match *self.report.borrow() {
            Some(Upkeep { at, may_be_lost: false, .. }) => {
                next.max(at + self.interval * 2).min(searched + self.interval * self.rest)
            }
            _ => next,
        })
    }
}

/// When to move delayed jobs.
#[derive(Debug)]
pub(super) struct DueTimes {
    interval: Duration,
    /// When the last attempt ended, and after which wait to make another one, unless a report says otherwise.
    looked: Option<(Instant, Duration)>,
    /// Whether the last attempt failed: then reports do not count.
    failed: bool,
    report: Report,
}

impl DueTimes {
    /// Returns times for a worker with this heartbeat interval that has not looked yet.
    pub(super) fn new(interval: Duration, report: Report) -> Self {
        Self { interval, looked: None, failed: false, report }
    }

    /// Records an attempt, after which the next job is due in `next`.
    pub(super) fn looked(&mut self, now: Instant, next: Option<Duration>) {
        self.looked = Some((now, next.unwrap_or(self.interval).min(self.interval)));
        self.failed = false;
    }

    /// Records an attempt that failed.
    pub(super) fn failed(&mut self, now: Instant) {
        self.looked = Some((now, self.interval));
        self.failed = true;
    }

    /// Waits until it is time for an attempt.
    pub(super) async fn until_due(&mut self) {
        loop {
            let Some(next) = self.next() else { return };
            tokio::select! {
                () = sleep_until(next) => return,
                Ok(()) = self.report.changed() => {}
            }
        }
    }

    /// Returns the time of the next attempt; `None` means now.
    fn next(&self) -> Option<Instant> {
        let report = *self.report.borrow();
        let looked = self.looked.map(|(at, wait)| (at, at + wait));
        match (report, looked) {
            // A report is about jobs that were added after the last attempt, too.
            (Some(Upkeep { at, due_in, .. }), looked)
                if !self.failed && looked.is_none_or(|(looked, _)| at > looked) =>
            {
                Some(at + due_in.unwrap_or(self.interval * 2).min(self.interval * 2))
            }
            (_, looked) => looked.map(|(_, next)| next),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(5);

    #[expect(clippy::unnecessary_wraps, reason = "it is the value of a report")]
    fn seen(at: Instant, may_be_lost: bool) -> Option<Upkeep> {
        Some(Upkeep { at, may_be_lost, due_in: None })
    }

    #[test]
    fn one_queue_with_something_to_do_is_enough() {
        let at = Instant::now();
        let of = |queues: &[i64]| {
            let Upkeep { may_be_lost, due_in, .. } = Upkeep::of(at, queues);
            (may_be_lost, due_in.map(|wait| wait.as_millis()))
        };
        assert_eq!(of(&[0, -1]), (false, None));
        assert_eq!(of(&[0, -1, 1, -1]), (true, None));
        assert_eq!(of(&[0, 70, 0, -1, 0, 30]), (false, Some(30)));
        assert_eq!(of(&[]), (false, None));
    }

    #[test]
    fn without_reports_a_search_is_due_at_each_interval() {
        let (_sender, report) = watch::channel(None);
        let (mut times, start) = (SearchTimes::new(INTERVAL, report), Instant::now());
        assert!(times.is_due(start), "the first one waits for nothing");
        times.searched(start, false);
        assert!(!times.is_due(start + INTERVAL / 2) && times.is_due(start + INTERVAL));
        times.search_now();
        assert!(times.is_due(start));
    }

    #[test]
    fn a_report_of_lost_jobs_is_followed_within_an_interval_and_one_of_none_defers_the_search() {
        let start = Instant::now();
        let (sender, report) = watch::channel(seen(start, false));
        let mut times = SearchTimes::new(INTERVAL, report);
        assert!(times.is_due(start), "whatever is reported, the first search is not deferred");
        for (found_gone, rest) in [(false, TIDY_INTERVALS), (false, SEARCH_INTERVALS), (true, TIDY_INTERVALS)] {
            times.searched(start, found_gone);
            for beat in 1..rest {
                sender.send_replace(seen(start + INTERVAL * (beat - 1), false));
                assert!(!times.is_due(start + INTERVAL * beat));
            }
            sender.send_replace(seen(start + INTERVAL * rest, false));
            assert!(times.is_due(start + INTERVAL * rest), "not for ever");
        }
        times.searched(start, false);
        sender.send_replace(seen(start + INTERVAL * 2, true));
        assert!(times.is_due(start + INTERVAL * 2));
        sender.send_replace(seen(start + INTERVAL * 2, false));
        assert!(!times.is_due(start + INTERVAL * 3) && times.is_due(start + INTERVAL * 4), "the reports have ended");
        sender.send_replace(None);
        assert!(times.is_due(start + INTERVAL));
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_learns_of_a_report() {
        let (sender, report) = watch::channel(seen(Instant::now(), false));
        let mut times = SearchTimes::new(INTERVAL, report);
        times.searched(Instant::now(), false);
        let begun = Instant::now();
        let waiting = tokio::spawn(times.until_due());
        tokio::time::sleep(INTERVAL * 3 / 2).await;
        sender.send_replace(seen(Instant::now(), true));
        waiting.await.unwrap();
        assert_eq!(begun.elapsed(), INTERVAL * 3 / 2);
    }

    #[test]
    fn delayed_jobs_are_moved_when_they_are_due_and_without_reports_looked_for_at_each_interval() {
        let due_in = |at, due_in| Some(Upkeep { at, may_be_lost: false, due_in });
        let (sender, report) = watch::channel(None);
        let (mut times, start) = (DueTimes::new(INTERVAL, report), Instant::now());
        assert_eq!(times.next(), None, "the first attempt waits for nothing");
        times.looked(start, None);
        assert_eq!(times.next(), Some(start + INTERVAL));
        times.looked(start, Some(INTERVAL / 5));
        assert_eq!(times.next(), Some(start + INTERVAL / 5));
        times.looked(start, Some(INTERVAL * 5));
        assert_eq!(times.next(), Some(start + INTERVAL), "another one may be due earlier");
        let later = start + INTERVAL / 2;
        sender.send_replace(due_in(later, None));
        assert_eq!(times.next(), Some(later + INTERVAL * 2), "if the reports end");
        sender.send_replace(due_in(later, Some(INTERVAL / 5)));
        assert_eq!(times.next(), Some(later + INTERVAL / 5));
        sender.send_replace(due_in(later, Some(Duration::ZERO)));
        assert_eq!(times.next(), Some(later), "due, or unknown");
        times.failed(later + INTERVAL / 5);
        sender.send_replace(due_in(later + INTERVAL / 2, Some(Duration::ZERO)));
        assert_eq!(
            times.next(),
            Some(later + INTERVAL / 5 + INTERVAL),
            "a failure is repeated at most at each interval"
        );
    }
}

//! The counts of a reader, and their conversion to demand.

use std::time::Duration;

use super::{Framework, FrameworkReading, Occupation, clock::ServerClock};
use crate::{
    model::{Counters, Demand, Reading, Timestamp, Work},
    queue_kind::Observed,
};

/// Margin added to a due time, so that the count at that time includes the job that is due.
const ALARM_MARGIN: Duration = Duration::from_millis(3);

/// Counts of a reading. Times are in milliseconds, of the server's clock.
#[derive(Clone, Debug)]
pub(super) struct Tally {
    pub(super) waiting: u64,
    /// Jobs that workers are known to hold.
    pub(super) running: u64,
    /// Why workers may hold more jobs than that.
    pub(super) running_unknown: Option<String>,
    pub(super) due: u64,
    pub(super) later: u64,
    pub(super) next_due: Option<u64>,
    pub(super) paused: Vec<String>,
    pub(super) limit: Option<u64>,
    /// When the oldest waiting job was enqueued; `None` if that is unknown.
    pub(super) oldest: Option<u64>,
    pub(super) occupation: Occupation,
    /// Time after which workers report a change that causes no signal.
    pub(super) look_again: Option<Duration>,
    /// What the framework counts.
    pub(super) counters: Counters,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            waiting: 0,
            running: 0,
            running_unknown: None,
            due: 0,
            later: 0,
            next_due: None,
            paused: Vec::new(),
            limit: None,
            oldest: None,
            occupation: Occupation::Unknown,
            look_again: None,
            counters: Counters::default(),
        }
    }
}

impl Tally {
    /// Adds the first score of a schedule, in milliseconds.
    pub(super) fn next_at(&mut self, due: Option<u64>) {
        self.next_due = [self.next_due, due].into_iter().flatten().min();
    }

    /// Requests another reading after this time.
    pub(super) fn look_again_after(&mut self, time: Duration) {
        self.look_again = [self.look_again, Some(time)].into_iter().flatten().min();
    }

    /// Adds the time at which a waiting job was enqueued.
    pub(super) fn enqueued_at(&mut self, at: Option<u64>) {
        self.oldest = [self.oldest, at].into_iter().flatten().min();
    }

    /// Returns the demand, the occupation and the time of the next reading.
    pub(super) fn observed(self, framework: Framework, clock: &ServerClock) -> Observed {
        let Self {
            waiting,
            running,
            running_unknown,
            due,
            later,
            next_due,
            paused,
            limit,
            oldest,
            occupation,
            look_again,
            counters,
        } = self;
        // Workers beyond the framework's limit would have nothing to do.
        let room = limit.map_or(u64::MAX, |limit| limit.saturating_sub(running));
        let lag = waiting.saturating_add(due).min(room);
        let name = framework.profile().name();
        let (lag, pending) = match &running_unknown {
            None => (lag, Reading::Known(running)),
            // The known running jobs still count.
            Some(why) => (lag.saturating_add(running), Reading::Unknown(why.clone())),
        };
        let oldest = match oldest {
            Some(at) => Reading::Known(Some(clock.ours(at))),
            None if lag == 0 && pending == Reading::Known(0) => Reading::Known(None),
            None => Reading::Unknown(format!("{name} does not tell how old its jobs are")),
        };
        let next_due = next_due.map(|at| clock.ours(at));
        let work = Work {
            framework: name.to_owned(),
            waiting,
            running: match running_unknown {
                None => Reading::Known(running),
                Some(why) => Reading::Unknown(why),
            },
            due,
            later,
            next_due,
            paused,
            limit,
        };
        let due_at = next_due.map(|at: Timestamp| at.after(ALARM_MARGIN));
        let look_at = [due_at, look_again.map(|time| clock.now().after(time))].into_iter().flatten().min();
        let demand = Demand { lag: Reading::Known(lag), pending, oldest };
        let framework = Some(Box::new(FrameworkReading { work, occupation, look_at }));
        Observed { counters, framework, ..Observed::of(demand, Reading::Known(Vec::new())) }
    }
}

/// Converts a score in seconds to milliseconds.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a time after 1970, below 2^53")]
pub(super) fn ms_of_seconds(seconds: f64) -> u64 {
    (seconds.max(0.0) * 1_000.0).round() as u64
}

/// Converts a time in milliseconds to a score in seconds.
pub(super) fn seconds_of_ms(ms: u64) -> String {
    format!("{}.{:03}", ms / 1_000, ms % 1_000)
}

/// Parses a date with a time zone, or without one in UTC; returns milliseconds since 1970.
pub(super) fn ms_of_date(text: &str) -> Option<u64> {
    let at: jiff::Timestamp = match text.parse() {
        Ok(at) => at,
        Err(_) => format!("{}Z", text.trim_end_matches('Z')).parse().ok()?,
    };
    u64::try_from(at.as_millisecond()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn demand_is_what_waits_runs_and_is_due_within_the_frameworks_own_limit() {
        let tally = Tally { waiting: 5, running: 2, due: 1, later: 9, next_due: Some(70_000), ..Tally::default() };
        let observed = tally.clone().observed(Framework::Rq, &ServerClock::default());
        assert_eq!(observed.demand.depth(), Reading::Known(8));
        let reading = observed.framework.expect("it is one");
        assert_eq!((reading.work.later, reading.look_at), (9, Some(Timestamp(70_003))));
        let limited = Tally { limit: Some(4), ..tally.clone() }.observed(Framework::Rq, &ServerClock::default());
        assert_eq!((limited.demand.lag, limited.demand.pending), (Reading::Known(2), Reading::Known(2)));
        let unknown = Tally { running_unknown: Some("no".to_owned()), ..tally };
        let unknown = unknown.observed(Framework::Rq, &ServerClock::default()).demand;
        assert_eq!((unknown.at_least(), unknown.depth().known()), (Some(8), None), "it raises, and never lowers");
    }

    #[test]
    fn times_are_read_as_frameworks_write_them() {
        assert_eq!(ms_of_seconds(1_700_000_000.25), 1_700_000_000_250);
        assert_eq!(seconds_of_ms(1_700_000_000_005), "1700000000.005");
        for text in ["2026-01-01T00:00:00.5Z", "2026-01-01T00:00:00.500000", "2026-01-01T01:00:00.5+01:00"] {
            assert_eq!(ms_of_date(text), Some(1_767_225_600_500), "{text}");
        }
        assert_eq!(ms_of_date("soon"), None);
    }
}

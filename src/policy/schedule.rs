//! Which windows of a schedule are open at a time, and when that changes. Crates handle cron expressions and time
//! zones. Across a change of the clocks, `start` and `end` follow the wall clock and `duration` the elapsed time.

use croner::Cron;
use jiff::Zoned;

use crate::{config::ScheduleWindow, model::Timestamp};

/// State of a schedule at a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Floor {
    /// The open window with the highest minimum: its minimum, and when it closes.
    pub(super) window: Option<(u32, Timestamp)>,
    /// The open window with the lowest maximum: its maximum, and when it closes.
    pub(super) ceiling: Option<(u32, Timestamp)>,
    /// When the first window opens or closes.
    pub(super) change_at: Option<Timestamp>,
}

/// State of a window at a time.
enum State {
    Open { closes_at: Timestamp },
    Closed { opens_at: Timestamp },
}

/// Returns the state of `windows` at `now`.
pub(super) fn floor(windows: &[ScheduleWindow], now: Timestamp) -> Floor {
    windows.iter().filter_map(|window| Some((window, state(window, now)?))).fold(
        Floor::default(),
        |floor, (window, state)| {
            let (open, change_at) = match state {
                State::Open { closes_at } => (Some(closes_at), closes_at),
                State::Closed { opens_at } => (None, opens_at),
            };
            let minimum = open.filter(|_| window.min_workers > 0).map(|closes_at| (window.min_workers, closes_at));
            let maximum = window.max_workers.zip(open);
            Floor {
                window: floor.window.max(minimum),
                ceiling: [floor.ceiling, maximum].into_iter().flatten().min(),
                change_at: Some(floor.change_at.map_or(change_at, |earlier| earlier.min(change_at))),
            }
        },
    )
}

/// Returns the state of a window at `now`; `None` for a window that validation refuses.
fn state(window: &ScheduleWindow, now: Timestamp) -> Option<State> {
    let start = window.start.get()?;
    let here = zoned(now)?.with_time_zone(window.time_zone.get()?.clone());
    let opened_at = start.find_previous_occurrence(&here, true).ok();
    let closes_at = opened_at.and_then(|opened_at| closing(window, &opened_at));
    match closes_at.filter(|closes_at| *closes_at > now) {
        Some(closes_at) => Some(State::Open { closes_at }),
        None => Some(State::Closed { opens_at: next(start, &here)? }),
    }
}

/// Returns when a window that opened at `opened_at` closes. If it opens again before that, it stays open, which the
/// next evaluation sees.
fn closing(window: &ScheduleWindow, opened_at: &Zoned) -> Option<Timestamp> {
    match (&window.duration, &window.end) {
        (Some(duration), _) => Some(timestamp(opened_at)?.after(*duration.get()?)),
        (None, Some(end)) => next(end.get()?, opened_at),
        (None, None) => None,
    }
}

fn next(cron: &Cron, after: &Zoned) -> Option<Timestamp> {
    timestamp(&cron.find_next_occurrence(after, false).ok()?)
}

/// Converts to whole seconds, the resolution of cron expressions. Rounds down, so that an occurrence counts from its
/// second on.
fn zoned(at: Timestamp) -> Option<Zoned> {
    let seconds = i64::try_from(at.0 / 1_000).ok()?;
    Some(jiff::Timestamp::from_second(seconds).ok()?.to_zoned(jiff::tz::TimeZone::UTC))
}

fn timestamp(at: &Zoned) -> Option<Timestamp> {
    u64::try_from(at.timestamp().as_millisecond()).ok().map(Timestamp)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a window until a duration such as `10h` or a cron expression.
    fn window(start: &str, until: &str, zone: &str, min_workers: u32) -> ScheduleWindow {
        let (duration, end) = if until.contains(' ') { (None, Some(until.into())) } else { (Some(until.into()), None) };
        ScheduleWindow { start: start.into(), duration, end, time_zone: zone.into(), min_workers, max_workers: None }
    }

    fn at(time: &str) -> Timestamp {
        let time: jiff::Timestamp = time.parse().expect("written as it should be");
        timestamp(&time.to_zoned(jiff::tz::TimeZone::UTC)).expect("after 1970")
    }

    /// Returns the workers, and when their number changes.
    fn says(windows: &[ScheduleWindow], time: &str) -> (u32, String) {
        let floor = floor(windows, at(time));
        let change_at = floor.change_at.expect("a schedule always changes");
        let change_at = jiff::Timestamp::from_millisecond(i64::try_from(change_at.0).expect("before the far future"));
        (floor.window.map_or(0, |(workers, _)| workers), change_at.expect("within jiff's range").to_string())
    }

    #[track_caller]
    fn check(windows: &[ScheduleWindow], expected: &[(&str, u32, &str)]) {
        for (time, workers, change_at) in expected {
            assert_eq!(says(windows, time), (*workers, (*change_at).to_owned()), "at {time}");
        }
    }

    #[test]
    fn a_window_opens_and_closes_by_the_clock_of_its_zone() {
        let office = [window("0 8 * * MON-FRI", "0 18 * * MON-FRI", "Europe/Berlin", 4)];
        // 2026-03-06 is a Friday, an hour ahead of UTC.
        check(
            &office,
            &[
                ("2026-03-06T06:59:59.999Z", 0, "2026-03-06T07:00:00Z"),
                ("2026-03-06T07:00:00Z", 4, "2026-03-06T17:00:00Z"),
                ("2026-03-06T16:59:59.999Z", 4, "2026-03-06T17:00:00Z"),
                ("2026-03-06T17:00:00Z", 0, "2026-03-09T07:00:00Z"),
                ("2026-07-03T06:00:00Z", 4, "2026-07-03T16:00:00Z"),
            ],
        );
    }

    #[test]
    fn the_night_of_a_change_of_clocks_ends_by_the_clock_or_by_the_time_that_passed() {
        let (by_clock, by_time) = ("0 6 * * *", "8h");
        for (until, spring, autumn) in [
            (by_clock, "2026-03-29T04:00:00Z", "2026-10-25T05:00:00Z"),
            // In spring an hour is left out, so eight hours end at 7 o'clock; in autumn at 5.
            (by_time, "2026-03-29T05:00:00Z", "2026-10-25T04:00:00Z"),
        ] {
            let night = [window("0 22 * * *", until, "Europe/Berlin", 2)];
            check(&night, &[("2026-03-28T21:00:00Z", 2, spring), ("2026-10-24T20:00:00Z", 2, autumn)]);
        }
    }

    #[test]
    fn a_start_within_the_hour_left_out_is_when_that_hour_would_end_and_one_in_the_doubled_hour_is_the_first() {
        let window = [window("30 2 * * *", "20m", "Europe/Berlin", 1)];
        check(
            &window,
            &[
                ("2026-03-29T00:59:59Z", 0, "2026-03-29T01:00:00Z"),
                ("2026-03-29T01:00:00Z", 1, "2026-03-29T01:20:00Z"),
                ("2026-10-25T00:29:59Z", 0, "2026-10-25T00:30:00Z"),
                ("2026-10-25T00:30:00Z", 1, "2026-10-25T00:50:00Z"),
                ("2026-10-25T01:30:00Z", 0, "2026-10-26T01:30:00Z"),
            ],
        );
    }

    #[test]
    fn of_windows_that_overlap_the_one_with_the_most_workers_counts() {
        let windows = [window("0 8 * * *", "10h", "UTC", 2), window("0 12 * * *", "1h", "UTC", 5)];
        check(
            &windows,
            &[
                ("2026-01-01T09:00:00Z", 2, "2026-01-01T12:00:00Z"),
                ("2026-01-01T12:00:00Z", 5, "2026-01-01T13:00:00Z"),
                ("2026-01-01T13:00:00Z", 2, "2026-01-01T18:00:00Z"),
            ],
        );
    }

    #[test]
    fn of_windows_that_overlap_the_one_with_the_lowest_maximum_counts() {
        let limited = |start, until, max_workers| {
            let max_workers = Some(max_workers);
            ScheduleWindow { max_workers, ..window(start, until, "UTC", 0) }
        };
        let windows =
            [limited("0 8 * * *", "10h", 5), limited("0 12 * * *", "1h", 2), window("0 9 * * *", "1h", "UTC", 4)];
        for (time, minimum, maximum) in [
            ("2026-01-01T07:00:00Z", None, None),
            ("2026-01-01T08:00:00Z", None, Some(5)),
            ("2026-01-01T09:00:00Z", Some(4), Some(5)),
            ("2026-01-01T12:00:00Z", None, Some(2)),
            ("2026-01-01T13:00:00Z", None, Some(5)),
        ] {
            let floor = floor(&windows, at(time));
            let workers = |window: Option<(u32, Timestamp)>| window.map(|(workers, _)| workers);
            assert_eq!((workers(floor.window), workers(floor.ceiling)), (minimum, maximum), "at {time}");
        }
    }

    #[test]
    fn a_window_that_opens_again_before_it_closes_stays_open() {
        let rolling = [window("*/10 * * * *", "15m", "UTC", 3)];
        for minute in 0..60 {
            assert_eq!(says(&rolling, &format!("2026-01-01T00:{minute:02}:30Z")).0, 3, "minute {minute}");
        }
    }

    #[test]
    fn without_windows_nothing_ever_changes() {
        assert_eq!(floor(&[], at("2026-01-01T00:00:00Z")), Floor::default());
    }
}

//! The workers that each hour of the day needs, and the windows of a schedule that follow it. Pure.

use std::{cmp::Reverse, collections::BinaryHeap, time::Duration};

use jiff::{Timestamp, civil::Weekday, tz::TimeZone};

use crate::{
    config::{Said, ScheduleWindow},
    simulation::{Trace, TraceJob, nearest_rank},
};

/// Maximum windows for one kind of day: a person must be able to read the schedule.
const MAX_WINDOWS: usize = 3;
/// Percent of an hour's jobs that start immediately with as many workers as the hour needs.
const ENOUGH: usize = 95;
/// How long before its hour a window opens, so that the workers are ready.
const LEAD_MINUTES: usize = 5;
const HOURS: usize = 24;
const HOUR_MICROS: u64 = 3_600_000_000;

/// Days with the same windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Days {
    All,
    Weekdays,
    Weekend,
}

impl Days {
    fn cron(self) -> &'static str {
        match self {
            Self::All => "*",
            Self::Weekdays => "MON-FRI",
            Self::Weekend => "SAT,SUN",
        }
    }
}

/// Workers of one slot that each hour of the recording needed.
#[derive(Clone, Debug)]
pub(super) struct HourlyNeeds {
    /// For each kind of day and hour of the day, what each of those hours needed, sorted.
    of_days: Vec<(Days, [Vec<u32>; HOURS])>,
    /// What all jobs needed, sorted.
    of_jobs: Vec<u32>,
}

/// Hours `from..to` in which as many workers are needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stretch {
    from: usize,
    to: usize,
    workers: u32,
}

impl Stretch {
    /// Returns minute and hour of a cron expression.
    fn opens(self) -> String {
        match self.from.checked_sub(1) {
            // The days of the expression would be other ones before midnight.
            None => "0 0".to_owned(),
            Some(before) => format!("{} {before}", 60 - LEAD_MINUTES),
        }
    }

    fn lasts(self) -> String {
        let hours = self.to - self.from;
        if self.from == 0 { format!("{hours}h") } else { format!("{hours}h {LEAD_MINUTES}m") }
    }

    fn with(self, next: Self) -> Self {
        Self { to: next.to, workers: self.workers.max(next.workers), ..self }
    }

    /// Worker-hours that are added if both have the same number.
    fn cost_with(self, next: Self) -> u64 {
        let most = self.workers.max(next.workers);
        let added = |of: Self| u64::from(most - of.workers) * (of.to - of.from) as u64;
        added(self) + added(next)
    }
}

/// A minimum of workers that follows the hours.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Plan {
    /// Minimum outside of the windows.
    pub(super) min_workers: u32,
    pub(super) windows: Vec<ScheduleWindow>,
}

impl HourlyNeeds {
    /// Returns the needs of a trace by the clock of `zone`; of weekdays and weekends apart if `weekends_apart`.
    pub(super) fn of(trace: &Trace, zone: &TimeZone, weekends_apart: bool) -> Self {
        let begins = trace.begins.0.saturating_mul(1_000);
        let lasts = u64::try_from(trace.lasts.as_micros()).unwrap_or(u64::MAX);
        let needs = needs(trace);
        let kinds = if weekends_apart { vec![Days::Weekdays, Days::Weekend] } else { vec![Days::All] };
        let mut of_days: Vec<(Days, [Vec<u32>; HOURS])> =
            kinds.into_iter().map(|days| (days, std::array::from_fn(|_| Vec::new()))).collect();
        let mut next = 0;
        for number in begins / HOUR_MICROS..=begins.saturating_add(lasts) / HOUR_MICROS {
            let (from, to) = (number * HOUR_MICROS, (number + 1) * HOUR_MICROS);
            let first = next;
            while trace.jobs.get(next).is_some_and(|job| begins + job.arrives.0 < to) {
                next += 1;
            }
            // Half an hour shows what the hour is like.
            let seen = to.min(begins + lasts).saturating_sub(from.max(begins));
            let Some((hour, is_weekend)) = local(from, zone).filter(|_| seen >= HOUR_MICROS / 2) else { continue };
            let mut of_hour = needs[first..next].to_vec();
            of_hour.sort_unstable();
            let needed = nearest_rank(&of_hour, ENOUGH).unwrap_or(0);
            of_days[usize::from(weekends_apart && is_weekend)].1[hour].push(needed);
        }
        for hour in of_days.iter_mut().flat_map(|(_, hours)| hours) {
            hour.sort_unstable();
        }
        let mut of_jobs = needs;
        of_jobs.sort_unstable();
        Self { of_days, of_jobs }
    }

    /// Returns the workers with which that percentage of all jobs starts immediately.
    pub(super) fn constant(&self, percent: usize, concurrency: u32, max_workers: u32) -> u32 {
        workers(&self.of_jobs, percent, concurrency, max_workers)
    }

    /// Returns a plan with what each hour needed on that percentage of the days, in workers of `concurrency` jobs, at
    /// most `max_workers`; `None` if every hour needs the same number.
    pub(super) fn plan(
        &self,
        percent: usize,
        concurrency: u32,
        max_workers: u32,
        time_zone: &Said<TimeZone>,
    ) -> Option<Plan> {
        let needed = |needs: &Vec<u32>| workers(needs, percent, concurrency, max_workers);
        let levels: Vec<(Days, [u32; HOURS])> =
            self.of_days.iter().map(|(days, hours)| (*days, hours.each_ref().map(needed))).collect();
        let min_workers = levels.iter().flat_map(|(_, levels)| levels).copied().min()?;
        let mut days: Vec<(Days, Vec<Stretch>)> =
            levels.iter().map(|(days, levels)| (*days, stretches(levels, min_workers))).collect();
        if let [(_, one), (_, other)] = days.as_slice()
            && one == other
        {
            days = vec![(Days::All, one.clone())];
        }
        let window = |days: Days, stretch: &Stretch| ScheduleWindow {
            start: format!("{} * * {}", stretch.opens(), days.cron()).into(),
            duration: Some(stretch.lasts().into()),
            time_zone: time_zone.clone(),
            min_workers: stretch.workers,
            ..ScheduleWindow::default()
        };
        let of_days = |(days, all): (Days, Vec<Stretch>)| all.iter().map(|of| window(days, of)).collect::<Vec<_>>();
        let windows: Vec<_> = days.into_iter().flat_map(of_days).collect();
        (!windows.is_empty()).then_some(Plan { min_workers, windows })
    }
}

/// Returns for each job how many jobs are in progress when it starts, itself included, if each starts on its arrival:
/// with as many slots it need not wait.
fn needs(trace: &Trace) -> Vec<u32> {
    let mut ends = BinaryHeap::new();
    let need = |job: &TraceJob| {
        while ends.peek().is_some_and(|Reverse(end)| *end <= job.arrives) {
            ends.pop();
        }
        ends.push(Reverse(job.arrives.after(job.service)));
        u32::try_from(ends.len()).unwrap_or(u32::MAX)
    };
    trace.jobs.iter().map(need).collect()
}

/// Returns the workers that provide for that percentage of the sorted needs.
fn workers(needs: &[u32], percent: usize, concurrency: u32, max_workers: u32) -> u32 {
    nearest_rank(needs, percent).unwrap_or(0).div_ceil(concurrency.max(1)).min(max_workers)
}

/// Returns the hour of a time since 1970, and whether it is on a weekend.
fn local(micros: u64, zone: &TimeZone) -> Option<(usize, bool)> {
    let time = Timestamp::from_microsecond(i64::try_from(micros).ok()?).ok()?.to_zoned(zone.clone());
    let hour = usize::try_from(time.hour()).ok()?;
    Some((hour, matches!(time.weekday(), Weekday::Saturday | Weekday::Sunday)))
}

/// Returns the stretches above `min_workers`: at most [`MAX_WINDOWS`], by joining neighbours where that adds the fewest
/// worker-hours.
fn stretches(levels: &[u32; HOURS], min_workers: u32) -> Vec<Stretch> {
    let mut all: Vec<Stretch> = Vec::new();
    for (hour, &workers) in levels.iter().enumerate() {
        match all.last_mut().filter(|last| last.workers == workers) {
            Some(last) => last.to = hour + 1,
            None => all.push(Stretch { from: hour, to: hour + 1, workers }),
        }
    }
    let windows = |all: &[Stretch]| all.iter().filter(|of| of.workers > min_workers).count();
    while windows(&all) > MAX_WINDOWS {
        let cheapest = (1..all.len()).min_by_key(|&next| all[next - 1].cost_with(all[next]));
        let Some(next) = cheapest else { break };
        let joined = all[next - 1].with(all.remove(next));
        all[next - 1] = joined;
    }
    all.retain(|of| of.workers > min_workers);
    all
}

/// Returns the time zone of a schedule: that of its first window, as text and as a value. Default: UTC.
pub(super) fn time_zone(schedule: &[ScheduleWindow]) -> (Said<TimeZone>, TimeZone) {
    let said = schedule.first().map_or_else(Said::default, |window| window.time_zone.clone());
    let zone = said.get().cloned().unwrap_or(TimeZone::UTC);
    (said, zone)
}

/// Returns whether a time is long enough to tell weekdays from weekends.
pub(super) fn has_a_week(lasts: Duration) -> bool {
    lasts >= Duration::from_secs(7 * 86_400)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulation::SimTime;

    /// Monday 2026-01-05T00:00:00Z.
    const MONDAY: crate::model::Timestamp = crate::model::Timestamp(1_767_571_200_000);

    /// Jobs of a minute: on each day, in each of these hours, as many as keep `busy` workers.
    fn trace(days: u64, busy: impl Fn(u64, u64) -> u64) -> Trace {
        let mut jobs = Vec::new();
        for (day, hour) in (0..days).flat_map(|day| (0..24).map(move |hour| (day, hour))) {
            for minute in 0..60 {
                let arrives = SimTime((day * 86_400 + hour * 3_600 + minute * 60) * 1_000_000);
                let job = TraceJob { arrives, service: Duration::from_secs(60) };
                jobs.extend(std::iter::repeat_n(job, usize::try_from(busy(day % 7, hour)).unwrap()));
            }
        }
        Trace { begins: MONDAY, lasts: Duration::from_secs(days * 86_400), jobs, services: String::new() }
    }

    fn plan(needs: &HourlyNeeds, percent: usize) -> Option<(u32, Vec<String>)> {
        let plan = needs.plan(percent, 1, 5, &Said::default())?;
        let told = |of: &ScheduleWindow| {
            let of = serde_json::json!(of);
            format!("{} for {}: {}", of["start"].as_str().unwrap(), of["duration"].as_str().unwrap(), of["min_workers"])
        };
        Some((plan.min_workers, plan.windows.iter().map(told).collect()))
    }

    #[test]
    fn office_hours_become_a_window_on_weekdays() {
        let office = trace(14, |day, hour| if day < 5 && (8..18).contains(&hour) { 4 } else { 0 });
        let needs = HourlyNeeds::of(&office, &TimeZone::UTC, true);
        assert_eq!(plan(&needs, 50), Some((0, vec!["55 7 * * MON-FRI for 10h 5m: 4".to_owned()])));
        assert_eq!((needs.constant(50, 1, 9), needs.constant(95, 1, 9), needs.constant(95, 3, 9)), (2, 4, 2));
        let berlin = TimeZone::get("Europe/Berlin").unwrap();
        let needs = HourlyNeeds::of(&office, &berlin, true);
        assert_eq!(plan(&needs, 50), Some((0, vec!["55 8 * * MON-FRI for 10h 5m: 4".to_owned()])));
    }

    #[test]
    fn a_need_of_some_days_counts_only_for_plans_that_cover_them() {
        // On two of seven days a peak at noon, beyond the maximum of the pool.
        let peaks = trace(7, |day, hour| if day < 2 && hour == 12 { 9 } else { 1 });
        let needs = HourlyNeeds::of(&peaks, &TimeZone::UTC, false);
        assert_eq!(plan(&needs, 50), None);
        assert_eq!(plan(&needs, 100), Some((1, vec!["55 11 * * * for 1h 5m: 5".to_owned()])));
    }

    #[test]
    fn equal_days_share_their_windows_and_equal_hours_need_none() {
        let daily = trace(7, |_, hour| if hour < 6 { 1 } else { 3 });
        let shared = Some((1, vec!["55 5 * * * for 18h 5m: 3".to_owned()]));
        for apart in [true, false] {
            assert_eq!(plan(&HourlyNeeds::of(&daily, &TimeZone::UTC, apart), 50), shared);
        }
        assert_eq!(plan(&HourlyNeeds::of(&trace(7, |_, _| 2), &TimeZone::UTC, true), 100), None);
    }

    #[test]
    fn a_window_from_midnight_opens_at_midnight() {
        let nightly = trace(7, |_, hour| if hour < 6 { 3 } else { 1 });
        let needs = HourlyNeeds::of(&nightly, &TimeZone::UTC, false);
        assert_eq!(plan(&needs, 50), Some((1, vec!["0 0 * * * for 6h: 3".to_owned()])));
    }

    #[test]
    fn many_levels_become_few_windows_that_cover_each_hour() {
        let levels: [u32; HOURS] = std::array::from_fn(|hour| u32::try_from(hour % 7).unwrap());
        let windows = stretches(&levels, 0);
        assert!(windows.len() <= MAX_WINDOWS, "{windows:?}");
        for (hour, &level) in levels.iter().enumerate() {
            let there = windows.iter().find(|of| (of.from..of.to).contains(&hour)).map_or(0, |of| of.workers);
            assert!(there >= level, "{hour}: {windows:?}");
        }
    }

    #[test]
    fn a_job_needs_a_slot_beside_those_in_progress() {
        let job = |second: u64, service| TraceJob {
            arrives: SimTime(second * 1_000_000),
            service: Duration::from_secs(service),
        };
        let jobs = vec![job(0, 10), job(5, 10), job(10, 1), job(11, 1), job(100, 1)];
        let lasts = Duration::from_secs(100);
        assert_eq!(super::needs(&Trace { begins: MONDAY, lasts, jobs, services: String::new() }), [1, 2, 2, 2, 1]);
        assert_eq!([0, 50, 51, 100].map(|percent| nearest_rank(&[1, 2, 3, 4], percent)), [1, 2, 3, 4].map(Some));
        assert_eq!(nearest_rank::<u32>(&[], 50), None);
    }
}

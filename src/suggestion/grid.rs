//! The settings that are tried. Pure.

use serde_json::Value;

use super::hours::HourlyNeeds;
use crate::config::{Said, ScalingSettings, Strategy};

/// Jobs per slot of a worker that the thresholds try.
const JOBS_PER_SLOT: [u64; 3] = [1, 2, 5];
/// Cooldowns that are tried besides the present one.
const COOLDOWN_SECONDS: [u64; 2] = [60, 300];
/// Percent of the days for whose needs the windows provide.
const PERCENT_OF_DAYS: [usize; 3] = [50, 80, 100];
/// Percent of all jobs for whose needs a constant minimum provides.
const PERCENT_OF_JOBS: [usize; 2] = [50, 95];

/// Settings to try.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// The settings.
    pub scaling: ScalingSettings,
    /// What differs from the present settings, one `key = value` each.
    pub changes: Vec<String>,
    /// Windows of the schedule that are new.
    pub new_windows: usize,
}

impl Candidate {
    /// Returns the candidate of these settings.
    pub(super) fn new(scaling: ScalingSettings, present: &ScalingSettings) -> Self {
        let new = |window: &&_| !present.schedule.contains(window);
        let new_windows = scaling.schedule.iter().filter(new).count();
        let mut changes = changed_keys(&scaling, present);
        match new_windows {
            0 if scaling.schedule == present.schedule => {}
            0 => changes.push("without its windows for min_workers".to_owned()),
            // Each window is something to understand.
            count => changes.extend((1..=count).map(|number| format!("window {number}"))),
        }
        Self { scaling, changes, new_windows }
    }

    /// Returns the changes in a line: `strategy = "backlog", jobs_per_worker = 2, 3 windows`.
    pub fn words(&self) -> String {
        if self.changes.is_empty() {
            return "no change".to_owned();
        }
        let keys = self.changes.len() - self.new_windows;
        let mut words = self.changes[..keys].to_vec();
        match self.new_windows {
            0 => {}
            1 => words.push("1 window".to_owned()),
            count => words.push(format!("{count} windows")),
        }
        words.join(", ")
    }
}

fn changed_keys(scaling: &ScalingSettings, present: &ScalingSettings) -> Vec<String> {
    let (Value::Object(now), Value::Object(before)) = (serde_json::json!(scaling), serde_json::json!(present)) else {
        return Vec::new();
    };
    let changed = now.iter().filter(|(key, value)| *key != "schedule" && before.get(*key) != Some(value));
    changed.map(|(key, value)| format!("{key} = {value}")).collect()
}

/// Returns settings with other thresholds and cooldowns, without the present ones.
pub(super) fn thresholds(present: &ScalingSettings, concurrency: u32) -> Vec<ScalingSettings> {
    let mut all = Vec::new();
    let mut cooldowns = vec![present.cooldown_seconds];
    cooldowns.extend(COOLDOWN_SECONDS);
    for cooldown_seconds in cooldowns {
        let of = |strategy| ScalingSettings { strategy, cooldown_seconds, ..present.clone() };
        all.push(of(present.strategy));
        for jobs in JOBS_PER_SLOT.map(|jobs| jobs * u64::from(concurrency.max(1))) {
            all.push(ScalingSettings { jobs_per_worker: jobs, ..of(Strategy::Backlog) });
            for down in [0, jobs / 2] {
                let (up, threshold) = (jobs, of(Strategy::Threshold));
                if down < up {
                    all.push(ScalingSettings { scale_up_threshold: up, scale_down_threshold: down, ..threshold });
                }
            }
        }
        if present.strategy == Strategy::Latency {
            for seconds in [present.target_wait_seconds.div_ceil(2), present.target_wait_seconds * 2] {
                let target_wait_seconds = seconds.clamp(1, 86_400);
                all.push(ScalingSettings { target_wait_seconds, ..of(Strategy::Latency) });
            }
        }
    }
    distinct(all, present)
}

/// Returns the settings of `bases` with other minimums of workers: none, constant ones, and those of a schedule that
/// follows the needs of each hour.
pub(super) fn minimums(
    bases: &[ScalingSettings],
    present: &ScalingSettings,
    needs: &HourlyNeeds,
    concurrency: u32,
    time_zone: Option<&Said<jiff::tz::TimeZone>>,
) -> Vec<ScalingSettings> {
    let mut all = Vec::new();
    // Windows with a maximum are a person's limits.
    let limits: Vec<_> = present.schedule.iter().filter(|window| window.max_workers.is_some()).cloned().collect();
    for base in bases {
        let max = base.max_workers;
        let constant = PERCENT_OF_JOBS.map(|percent| needs.constant(percent, concurrency, max));
        for min_workers in constant.into_iter().chain([0]) {
            all.push(ScalingSettings { min_workers, ..base.clone() });
        }
        let plans = PERCENT_OF_DAYS.iter().filter_map(|percent| needs.plan(*percent, concurrency, max, time_zone?));
        for plan in plans {
            let schedule = plan.windows.into_iter().chain(limits.iter().cloned()).collect();
            all.push(ScalingSettings { min_workers: plan.min_workers, schedule, ..base.clone() });
        }
    }
    distinct(all, present)
}

fn distinct(all: Vec<ScalingSettings>, present: &ScalingSettings) -> Vec<ScalingSettings> {
    let mut distinct: Vec<ScalingSettings> = Vec::with_capacity(all.len());
    for settings in all {
        if settings != *present && !distinct.contains(&settings) {
            distinct.push(settings);
        }
    }
    distinct
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ScheduleWindow;

    #[test]
    fn each_candidate_is_new_and_keeps_the_maximum() {
        let present = ScalingSettings { max_workers: 7, ..ScalingSettings::default() };
        let all = thresholds(&present, 2);
        assert!((10..40).contains(&all.len()), "{}", all.len());
        for (place, one) in all.iter().enumerate() {
            assert!(one.max_workers == 7 && *one != present && !all[..place].contains(one), "{one:?}");
            assert!(one.scale_down_threshold < one.scale_up_threshold, "{one:?}");
        }
    }

    #[test]
    fn changes_are_told_in_words() {
        let present = ScalingSettings::default();
        let window = |hour: u32| ScheduleWindow {
            start: format!("0 {hour} * * *").into(),
            duration: Some("2h".into()),
            min_workers: 1,
            ..ScheduleWindow::default()
        };
        let scaling = ScalingSettings {
            cooldown_seconds: 300,
            schedule: vec![window(1), window(5)],
            ..ScalingSettings::default()
        };
        let candidate = Candidate::new(scaling.clone(), &present);
        assert_eq!((candidate.words().as_str(), candidate.changes.len()), ("cooldown_seconds = 300, 2 windows", 3));
        let without = Candidate::new(ScalingSettings { schedule: Vec::new(), ..scaling.clone() }, &scaling);
        assert_eq!(without.words(), "without its windows for min_workers");
        assert_eq!(Candidate::new(present.clone(), &present).words(), "no change");
    }
}

//! Semantic checks of `[worker_types.NAME.scaling]`.

use serde_json::json;

use super::Checks;
use crate::config::{
    origin::{Origin, dotted, element_of, join, pointer},
    scaling::{ScalingSettings, Strategy},
    schedule::ScheduleWindow,
    settings::Settings,
};

use Strategy::{Backlog, Latency, Step, Threshold};

/// Strategies that use a setting which not all of them use.
const OF_STRATEGIES: [(&str, &[Strategy]); 5] = [
    ("scale_up_threshold", &[Threshold, Step]),
    ("scale_down_threshold", &[Threshold, Step]),
    ("step", &[Step]),
    ("jobs_per_worker", &[Backlog, Latency]),
    ("target_wait_seconds", &[Latency]),
];

impl Checks<'_> {
    pub(super) fn scaling(&mut self, at: &str, scaling: &ScalingSettings) {
        if scaling.min_workers > scaling.max_workers {
            let pair = [("max_workers", scaling.max_workers.into()), ("min_workers", scaling.min_workers.into())];
            self.reject_pair(at, pair, "is less than", "raise max_workers or lower min_workers", &[]);
        }
        let by_threshold = matches!(scaling.strategy, Threshold | Step);
        if by_threshold && scaling.scale_down_threshold >= scaling.scale_up_threshold {
            let pair = [
                ("scale_down_threshold", scaling.scale_down_threshold),
                ("scale_up_threshold", scaling.scale_up_threshold),
            ];
            let cure = "lower scale_down_threshold or raise scale_up_threshold";
            self.reject_pair(at, pair, "is not less than", cure, &[join(at, "strategy")]);
        }
        if scaling.spare > scaling.max_workers {
            let pair = [("spare", scaling.spare.into()), ("max_workers", scaling.max_workers.into())];
            self.reject_pair(at, pair, "is more than", "raise max_workers or lower spare", &[]);
        }
        if let Some(workers) = scaling.fallback_workers.filter(|workers| *workers > scaling.max_workers) {
            let pair = [("fallback_workers", workers.into()), ("max_workers", scaling.max_workers.into())];
            self.reject_pair(at, pair, "is more than", "raise max_workers or lower fallback_workers", &[]);
        }
        for (index, window) in scaling.schedule.iter().enumerate() {
            self.window(at, index, window, scaling);
        }
    }

    /// The budget must have room for every minimum. Without a budget, a priority has no effect.
    pub(super) fn budget(&mut self, settings: &Settings) {
        let Some(total) = settings.scaler.max_total_workers else {
            for (name, _) in settings.enabled().filter(|(_, of)| of.scaling.priority != 0) {
                let at = pointer(&["worker_types", name, "scaling", "priority"]);
                self.warn_unused(&at, "no scaler.max_total_workers");
            }
            return;
        };
        let minimums: Vec<_> = settings.enabled().filter(|(_, of)| of.scaling.min_workers > 0).collect();
        let sum: u64 = minimums.iter().map(|(_, of)| u64::from(of.scaling.min_workers)).sum();
        if sum <= u64::from(total) {
            return;
        }
        let minimums = minimums.iter().map(|(name, _)| pointer(&["worker_types", name, "scaling", "min_workers"]));
        let involved: Vec<_> = std::iter::once(pointer(&["scaler", "max_total_workers"])).chain(minimums).collect();
        let message = format!(
            "scaler.max_total_workers = {total} is less than the sum of min_workers of all worker types, {sum}; \
             raise it or lower min_workers"
        );
        self.reject(&involved, message);
    }

    fn window(&mut self, scaling_at: &str, index: usize, window: &ScheduleWindow, scaling: &ScalingSettings) {
        let at = element_of(&join(scaling_at, "schedule"), index);
        let name = format!("{}.schedule[{index}]", dotted(scaling_at));
        for (key, problem) in window.problems() {
            self.reject(&[join(&at, key)], format!("{name}.{key}: {problem}"));
        }
        if window.min_workers > scaling.max_workers {
            let pair = [join(&at, "min_workers"), join(scaling_at, "max_workers")];
            let place = self.origins.strongest(&pair);
            let max = self.said(&pair[1], scaling.max_workers.into(), &place);
            let message = format!(
                "{name}.min_workers = {} is more than {max}; raise max_workers or lower min_workers",
                window.min_workers
            );
            self.reject(&pair, message);
        }
    }

    /// Warns about settings that have no effect.
    pub(super) fn scaling_without_effect(&mut self, at: &str, scaling: &ScalingSettings) {
        let (said, default) = (json!(scaling), json!(ScalingSettings::default()));
        // A value that equals the default, as in a file that spells out every setting, is not a mistake.
        let is_said = |key: &str| said[key] != default[key];
        for (key, strategies) in OF_STRATEGIES {
            if !strategies.contains(&scaling.strategy) && is_said(key) {
                self.warn_unused(&join(at, key), &format!("strategy = {}", said["strategy"]));
            }
        }
        if is_said("step_period_seconds") && scaling.max_step_up.is_none() && scaling.max_step_down.is_none() {
            self.warn_unused(&join(at, "step_period_seconds"), "neither max_step_up nor max_step_down");
        }
        if is_said("fallback_after_seconds") && scaling.fallback_workers.is_none() {
            self.warn_unused(&join(at, "fallback_after_seconds"), "no fallback_workers");
        }
        for (index, window) in scaling.schedule.iter().enumerate() {
            if window.is_always_open() {
                let end = join(&element_of(&join(at, "schedule"), index), "end");
                self.warnings.push(format!(
                    "{}: {}.schedule[{index}].end is the same as its start: the window is always open; give it another end, \
                     or a duration",
                    self.origins.of(&end),
                    dotted(at)
                ));
            }
            if window.max_workers.is_some_and(|max| max >= scaling.max_workers) {
                let key = join(&element_of(&join(at, "schedule"), index), "max_workers");
                self.warn_unused(&key, &format!("max_workers = {} outside of the window", scaling.max_workers));
            }
            if (1..=scaling.min_workers).contains(&window.min_workers) {
                let key = join(&element_of(&join(at, "schedule"), index), "min_workers");
                if *self.origins.of(&key) != Origin::Default {
                    self.warn_unused(&key, &format!("min_workers = {} outside of the window", scaling.min_workers));
                }
            }
        }
    }
}

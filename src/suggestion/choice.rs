//! The choice among simulated settings. Pure.

use serde::Serialize;

use super::{Candidate, Outcome};

/// Smallest part by which a suggestion must be better: less can be chance.
const MIN_GAIN: f64 = 0.05;
/// Settings whose result is this close to the best one count as equally good; the simplest of them is chosen.
const EQUALLY_GOOD: f64 = 0.02;
/// Waits below this one need no improvement.
const SHORT_WAIT_SECONDS: f64 = 0.01;

/// What a suggestion improves. It worsens neither the waits nor the worker-hours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Aim {
    /// Fewer worker-hours, and no longer waits.
    Cheaper,
    /// Shorter waits, and no more worker-hours.
    Quicker,
}

impl Aim {
    /// Returns the value that the aim wants small.
    fn value(self, of: &Outcome, present: &Outcome) -> f64 {
        match self {
            Self::Cheaper => of.worker_hours,
            Self::Quicker if present.wait_seconds.p95 >= SHORT_WAIT_SECONDS => of.wait_seconds.p95,
            Self::Quicker => of.wait_seconds.p99,
        }
    }

    /// Returns whether the outcome reaches the aim and worsens nothing.
    pub(super) fn is_reached(self, of: &Outcome, present: &Outcome) -> bool {
        let (value, before) = (self.value(of, present), self.value(present, present));
        let better = value <= before * (1.0 - MIN_GAIN) && (self == Self::Cheaper || before >= SHORT_WAIT_SECONDS);
        better && of.worker_hours <= present.worker_hours && of.waits_no_longer(present)
    }

    /// Returns whether the outcome confirms the aim on other jobs: it is better, and nothing is worse by more than
    /// chance.
    pub(super) fn is_confirmed(self, of: &Outcome, present: &Outcome) -> bool {
        let no_more = |value: f64, before: f64| value <= before * (1.0 + MIN_GAIN) + SHORT_WAIT_SECONDS;
        let (waits, before) = (of.wait_seconds, present.wait_seconds);
        self.value(of, present) < self.value(present, present)
            && of.worker_hours <= present.worker_hours * (1.0 + MIN_GAIN)
            && no_more(waits.p95, before.p95)
            && no_more(waits.p99, before.p99)
            && of.unfinished <= present.unfinished
    }

    /// Returns the index of the best settings, if some reach the aim: among those that are about equally good, the
    /// ones with the fewest changes.
    pub(super) fn best(
        self,
        tried: &[(Candidate, Outcome)],
        present: &Outcome,
        wanted: impl Fn(&Candidate) -> bool,
    ) -> Option<usize> {
        let reached = || {
            let all = tried.iter().enumerate().filter(|(_, (candidate, _))| wanted(candidate));
            all.filter(|(_, (_, outcome))| self.is_reached(outcome, present))
        };
        let value = |outcome: &Outcome| self.value(outcome, present);
        let best = reached().map(|(_, (_, outcome))| value(outcome)).min_by(f64::total_cmp)?;
        let good = reached().filter(|(_, (_, outcome))| value(outcome) <= best * (1.0 + EQUALLY_GOOD));
        let simplest = good.min_by(|(_, (one, a)), (_, (other, b))| {
            one.changes.len().cmp(&other.changes.len()).then(value(a).total_cmp(&value(b)))
        });
        simplest.map(|(index, _)| index)
    }
}

/// Returns the indexes of at most `most` settings than which no others are both cheaper and quicker, from cheap to
/// expensive and evenly spread.
pub(super) fn front(tried: &[(Candidate, Outcome)], most: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..tried.len()).collect();
    let figures = |index: &usize| (tried[*index].1.worker_hours, tried[*index].1.wait_seconds.p95);
    order.sort_by(|one, other| {
        let (one, other) = (figures(one), figures(other));
        one.0.total_cmp(&other.0).then(one.1.total_cmp(&other.1))
    });
    let mut shortest = f64::INFINITY;
    order.retain(|index| {
        let wait = figures(index).1;
        let is_shorter = wait < shortest;
        shortest = shortest.min(wait);
        is_shorter
    });
    let count = order.len();
    if count <= most {
        return order;
    }
    (0..most).map(|place| order[place * (count - 1) / (most - 1).max(1)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::ScalingSettings, simulation::Waits};

    fn outcome(worker_hours: f64, p95: f64, p99: f64) -> Outcome {
        let wait_seconds = Waits { p95, p99, ..Waits::default() };
        Outcome { wait_seconds, worker_hours, utilisation: 0.0, workers_max: 1, workers_started: 1, unfinished: 0 }
    }

    fn tried(all: &[(usize, Outcome)]) -> Vec<(Candidate, Outcome)> {
        let candidate = |changes| Candidate {
            scaling: ScalingSettings::default(),
            changes: vec!["a = 1".to_owned(); changes],
            new_windows: 0,
        };
        all.iter().map(|(changes, outcome)| (candidate(*changes), *outcome)).collect()
    }

    fn best(aim: Aim, present: &Outcome, all: &[(usize, Outcome)]) -> Option<usize> {
        aim.best(&tried(all), present, |_| true)
    }

    #[test]
    fn a_suggestion_improves_one_thing_and_worsens_nothing() {
        let present = outcome(100.0, 4.0, 8.0);
        let cheap_and_slow = (1, outcome(10.0, 4.1, 8.0));
        let cheap_with_a_tail = (1, outcome(10.0, 4.0, 8.1));
        let quick_and_dear = (1, outcome(101.0, 0.0, 0.0));
        let hardly = (1, outcome(97.0, 3.9, 8.0));
        let none = [cheap_and_slow, cheap_with_a_tail, quick_and_dear, hardly];
        assert_eq!([Aim::Cheaper, Aim::Quicker].map(|aim| best(aim, &present, &none)), [None, None]);
        let cheaper = (1, outcome(80.0, 4.0, 8.0));
        let quicker = (1, outcome(100.0, 2.0, 8.0));
        let some = [cheap_and_slow, cheaper, quicker];
        assert_eq!([Aim::Cheaper, Aim::Quicker].map(|aim| best(aim, &present, &some)), [Some(1), Some(2)]);
        let unfinished = (1, Outcome { unfinished: 1, ..cheaper.1 });
        assert_eq!(best(Aim::Cheaper, &present, &[unfinished]), None);
    }

    #[test]
    fn of_equally_good_ones_the_simplest_is_chosen() {
        let present = outcome(100.0, 4.0, 8.0);
        let all = [(3, outcome(50.0, 4.0, 8.0)), (1, outcome(50.5, 4.0, 8.0)), (1, outcome(60.0, 4.0, 8.0))];
        assert_eq!(best(Aim::Cheaper, &present, &all), Some(1));
    }

    #[test]
    fn waits_of_milliseconds_need_no_improvement() {
        let present = outcome(100.0, 0.002, 0.004);
        assert_eq!(best(Aim::Quicker, &present, &[(1, outcome(100.0, 0.0, 0.0))]), None);
        let present = outcome(100.0, 0.0, 4.0);
        assert_eq!(best(Aim::Quicker, &present, &[(1, outcome(100.0, 0.0, 1.0))]), Some(0), "by the 99th percentile");
    }

    #[test]
    fn other_jobs_confirm_a_gain_or_refute_it() {
        let present = outcome(100.0, 4.0, 8.0);
        assert!(Aim::Cheaper.is_confirmed(&outcome(99.0, 4.1, 8.2), &present));
        assert!(!Aim::Cheaper.is_confirmed(&outcome(101.0, 3.0, 8.0), &present), "it costs more");
        assert!(!Aim::Cheaper.is_confirmed(&outcome(50.0, 4.5, 8.0), &present), "jobs wait longer");
        assert!(Aim::Quicker.is_confirmed(&outcome(103.0, 3.0, 8.0), &present));
        assert!(!Aim::Quicker.is_confirmed(&outcome(106.0, 3.0, 8.0), &present));
    }

    #[test]
    fn the_front_has_no_settings_that_others_beat() {
        let all = [outcome(3.0, 1.0, 0.0), outcome(1.0, 5.0, 0.0), outcome(2.0, 5.0, 0.0), outcome(4.0, 0.5, 0.0)];
        let all = tried(&all.map(|outcome| (1, outcome)));
        assert_eq!(front(&all, 9), [1, 0, 3]);
        assert_eq!(front(&all, 2), [1, 3], "the ends");
    }
}

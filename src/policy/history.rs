//! What a decision needs to know about the past. The code that carries decisions out writes it; `decide` reads it.

use std::{collections::VecDeque, time::Duration};

use super::{
    backoff::Failures,
    flow::{Flow, Sample},
    observation::{Observation, at_work},
    steps::Steps,
};
use crate::{
    config::{ScalingSettings, Strategy},
    model::{
        Counters, Timestamp,
        snapshot::{Action, Change},
    },
};

/// The past of one worker type.
#[derive(Clone, Debug, PartialEq)]
pub struct History {
    /// When this scaler began to watch. Counts as a change for scale-down, so that a restart alone never lowers a
    /// target.
    pub started_at: Timestamp,
    /// Last change that was carried out, in either direction.
    pub last_change: Option<Change>,
    /// Recommendations of the strategy within the stabilization window, oldest first. A recommendation that a later one
    /// reached or exceeded is dropped, so the values fall and the first one is the highest.
    pub recommendations: VecDeque<(Timestamp, u32)>,
    /// Recent additions and removals of workers.
    pub steps: Steps,
    /// What the strategy `latency` has learned about the queue.
    pub flow: Flow,
    /// Consecutive rounds of failed starts.
    pub start_failures: Option<Failures>,
    /// Consecutive failed requests to the backend, for each direction: a refused scale-in says nothing about a
    /// scale-out.
    pub backend_failures: ByDirection,
    /// Replacements of workers without a heartbeat, since all workers last had one.
    pub replacements: Option<Failures>,
    /// Since when the depth can't be read completely; `None` while it can.
    pub unreadable_since: Option<Timestamp>,
    /// Last number that was recommended to whoever sets the number of workers; `None` before the
    /// first one, and where swarm sets it.
    pub recommended: Option<u32>,
}

/// Failed requests to the backend, by direction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ByDirection {
    /// Requests for more workers, or for replacements.
    pub up: Option<Failures>,
    /// Requests for fewer workers.
    pub down: Option<Failures>,
}

impl ByDirection {
    /// Returns whether no request has failed in either direction.
    pub fn is_empty(&self) -> bool {
        self.up.is_none() && self.down.is_none()
    }

    /// Returns the failures of one direction.
    pub fn of(&self, action: Action) -> Option<&Failures> {
        match action {
            Action::ScaleDown => self.down.as_ref(),
            Action::ScaleUp | Action::Hold => self.up.as_ref(),
        }
    }

    fn of_mut(&mut self, action: Action) -> &mut Option<Failures> {
        match action {
            Action::ScaleDown => &mut self.down,
            Action::ScaleUp | Action::Hold => &mut self.up,
        }
    }
}

impl History {
    /// Returns an empty past.
    pub fn new(started_at: Timestamp) -> Self {
        Self {
            started_at,
            last_change: None,
            recommended: None,
            recommendations: VecDeque::new(),
            steps: Steps::default(),
            flow: Flow::default(),
            start_failures: None,
            backend_failures: ByDirection::default(),
            replacements: None,
            unreadable_since: None,
        }
    }

    /// Records whether the depth can be read completely.
    pub fn note_depth(&mut self, observation: &Observation, now: Timestamp) {
        let readable = observation.demand.depth().known().is_some();
        self.unreadable_since = if readable { None } else { self.unreadable_since.or(Some(now)) };
    }

    /// Returns the past after a restart. A change that another machine's clock dated after the start counts as made at
    /// the start: a fast clock must not prolong a cooldown.
    pub fn resumed(started_at: Timestamp, last_change: Option<Change>) -> Self {
        let mut history = Self::new(started_at);
        if let Some(change) = last_change {
            history.note_change(Change { at: change.at.min(started_at), ..change });
        }
        history
    }

    /// Keeps a [`Decision::recommendation`](super::Decision::recommendation) for the stabilization window.
    pub fn note_recommendation(&mut self, settings: &ScalingSettings, now: Timestamp, recommendation: u32) {
        while self.recommendations.back().is_some_and(|&(_, earlier)| earlier <= recommendation) {
            self.recommendations.pop_back();
        }
        self.recommendations.push_back((now, recommendation));
        let window = settings.stabilization_window();
        while self.recommendations.front().is_some_and(|&(at, _)| at.after(window) <= now) {
            self.recommendations.pop_front();
        }
    }

    /// Records a change that was carried out; for a partly carried out change, the part, so that `step` does not
    /// continue from there immediately. A change to the same number is ignored: it starts no cooldown.
    pub fn note_change(&mut self, change: Change) {
        if change.from != change.to {
            self.last_change = Some(change);
            self.steps.note(change);
        }
    }

    /// Learns from an observation how long jobs take and how many arrive, if the strategy needs it. Values that could
    /// not be read are left out; none is treated as zero.
    pub fn note_flow(
        &mut self,
        settings: &ScalingSettings,
        now: Timestamp,
        observation: &Observation,
        counters: Counters,
    ) {
        if settings.strategy != Strategy::Latency {
            return;
        }
        let demand = &observation.demand;
        let seen = (demand.lag.known(), demand.pending.known(), observation.pool.known());
        let (Some(&lag), Some(&pending), Some(counts)) = seen else { return };
        // Whether a worker without a heartbeat is at work would be a guess, unless it is known how many are.
        let hidden = match counters.running {
            _ if counts.possibly_busy == 0 => 0,
            Some(running) => counts.possibly_busy.min(u32::try_from(running).unwrap_or(u32::MAX)),
            None => return,
        };
        let Some(added) = counters.added else { return self.flow.note_uncounted() };
        let at_work = at_work(counts, lag).saturating_add(hidden);
        self.flow.note(Sample { at: now, added, read: counters.read, lag, pending, at_work }, gap(settings));
    }

    /// Returns when to observe again to learn how long jobs take, while there are jobs; `None` if there is nothing to
    /// learn.
    pub fn learns_at(
        &self,
        settings: &ScalingSettings,
        now: Timestamp,
        observation: &Observation,
    ) -> Option<Timestamp> {
        let unfinished = observation.demand.depth().known().is_some_and(|depth| *depth > 0);
        let learns = settings.strategy == Strategy::Latency && self.flow.counts();
        (learns && unfinished).then(|| now.after(between_looks(settings)))
    }

    /// Records that a worker that was started at `started_at` ended early, or did not become ready. Each round of
    /// starts counts once.
    pub fn note_start_failure(&mut self, started_at: Timestamp, at: Timestamp, message: impl Into<String>) {
        let earlier = self.start_failures.as_ref();
        self.start_failures = Some(Failures::one_more_round(earlier, started_at, at, message.into()));
    }

    /// Records that a worker became ready and stayed: earlier failures no longer count.
    pub fn note_start_success(&mut self) {
        self.start_failures = None;
    }

    /// Records a failed request to the backend. [`Action::Hold`] stands for a request that replaces workers.
    pub fn note_backend_failure(&mut self, action: Action, at: Timestamp, message: impl Into<String>) {
        let failures = self.backend_failures.of_mut(action);
        *failures = Some(Failures::one_more(failures.as_ref(), at, message.into()));
    }

    /// Records a successful request to the backend: earlier failures in its direction no longer count.
    pub fn note_backend_success(&mut self, action: Action) {
        *self.backend_failures.of_mut(action) = None;
    }

    /// Records the replacement of a worker without a heartbeat.
    pub fn note_replacement(&mut self, at: Timestamp) {
        self.replacements = Some(Failures::one_more(self.replacements.as_ref(), at, String::new()));
    }
}

/// Returns the time between two observations while jobs are in progress. An error of half this time in the time of a
/// job is small compared with the target.
fn between_looks(settings: &ScalingSettings) -> Duration {
    (settings.target_wait() / 10).clamp(Duration::from_millis(100), Duration::from_secs(5))
}

/// Returns the longest time between two observations that can tell how long jobs took: somewhat more than the intended
/// time.
fn gap(settings: &ScalingSettings) -> Duration {
    (between_looks(settings) * 3).max(Duration::from_secs(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Demand, PoolCounts, Reading};

    fn at(seconds: u64) -> Timestamp {
        Timestamp(seconds * 1_000)
    }

    #[test]
    fn wishes_keep_only_what_can_still_be_the_highest_of_the_window() {
        let settings = ScalingSettings { stabilization_window_seconds: Some(60), ..ScalingSettings::default() };
        let mut history = History::new(at(0));
        for (second, recommendation) in [(1, 3), (2, 9), (3, 4), (4, 4), (5, 2)] {
            history.note_recommendation(&settings, at(second), recommendation);
        }
        assert_eq!(history.recommendations, [(at(2), 9), (at(4), 4), (at(5), 2)]);
        history.note_recommendation(&settings, at(62), 1);
        assert_eq!(history.recommendations, [(at(4), 4), (at(5), 2), (at(62), 1)]);
    }

    #[test]
    fn a_change_dated_in_the_future_counts_as_of_the_start() {
        let change = Change { at: at(9_000), from: 4, to: 2 };
        let history = History::resumed(at(100), Some(change));
        assert_eq!(history.last_change, Some(Change { at: at(100), ..change }));
    }

    #[test]
    fn a_change_that_changed_nothing_starts_no_cooldown() {
        let mut history = History::new(at(0));
        history.note_change(Change { at: at(5), from: 3, to: 3 });
        assert_eq!(history.last_change, None);
    }

    #[test]
    fn where_jobs_run_may_be_hidden_if_their_number_is_known() {
        let settings = ScalingSettings { strategy: Strategy::Latency, ..ScalingSettings::default() };
        let learned = |running| {
            let mut history = History::new(at(0));
            for second in 0..3 {
                let (lag, pending) = (Reading::Known(100), Reading::Known(2));
                let demand = Demand { lag, pending, oldest: Reading::Known(None) };
                let pool = Reading::Known(PoolCounts { ready: 4, possibly_busy: 4, ..PoolCounts::default() });
                let read = Some(2 + second * 4);
                let counters = Counters { added: Some(102 + second * 4), read, running };
                let observation = Observation { demand, queues: None, allowance: None, pool };
                history.note_flow(&settings, at(second), &observation, counters);
            }
            history.flow.rates().ok().map(|rates| rates.job.as_secs_f64())
        };
        assert_eq!(learned(None), None, "it would be a guess");
        let job = learned(Some(2)).expect("eight jobs have ended");
        assert!((0.4..=0.6).contains(&job), "two of four workers did four jobs a second: {job}");
    }

    #[test]
    fn failures_count_until_a_success() {
        let mut history = History::new(at(0));
        history.note_start_failure(at(0), at(1), "exit code 1");
        history.note_start_failure(at(1), at(2), "exit code 2");
        history.note_backend_failure(Action::ScaleUp, at(3), "no route");
        let starts = history.start_failures.clone().expect("two were noted");
        assert_eq!((starts.count, starts.last_at, starts.message.as_str()), (2, at(2), "exit code 2"));
        history.note_start_success();
        assert_eq!(history.start_failures, None);
        assert_eq!(history.backend_failures.up.as_ref().map(|failures| failures.count), Some(1));
        history.note_backend_success(Action::ScaleDown);
        assert!(history.backend_failures.up.is_some(), "the other direction");
        history.note_backend_success(Action::ScaleUp);
        assert!(history.backend_failures.is_empty());
    }

    #[test]
    fn workers_of_one_round_count_as_one_failure() {
        let mut history = History::new(at(0));
        let count = |history: &History| history.start_failures.as_ref().map(|failures| failures.count);
        for ended in [5, 6, 9] {
            history.note_start_failure(at(1), at(ended), "signal 9");
        }
        assert_eq!(count(&history), Some(1));
        history.note_start_failure(at(5), at(10), "signal 9");
        assert_eq!(count(&history), Some(2), "it was started after the round had failed");
        history.note_start_failure(at(9), at(11), "signal 9");
        assert_eq!(count(&history), Some(2), "the round before, dying late");
    }
}

//! The events of the demo so far: combines snapshots, history and results. Knows no terminal and does no I/O.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use super::jobs::JobCounts;
use crate::{
    cli::view::{events, words},
    model::{
        Timestamp, WorkerId, WorkerType,
        snapshot::{FleetSnapshot, Reaction},
    },
    scaler::ScalingEvent,
};

/// Points of a queue's curve: as wide as a wide terminal.
pub(super) const CURVE: usize = 200;
/// Time between two points of the curve.
const CURVE_STEP: Duration = Duration::from_millis(250);
/// Lines kept for the screen.
const LINES: usize = 100;

/// One event of the timeline.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Line {
    /// Time since the start.
    pub(super) at: Duration,
    /// Kind of the event.
    pub(super) kind: Kind,
    /// Description in words.
    pub(super) text: String,
}

/// Kinds of events, for their colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The demo itself: acts and set-up.
    Act,
    /// More workers.
    Up,
    /// Fewer workers.
    Down,
    /// A duration, or a count of finished jobs.
    Measure,
    /// Something went wrong.
    Trouble,
}

/// The timeline so far.
#[derive(Debug, Default)]
pub(super) struct Timeline {
    lines: VecDeque<Line>,
    unread: Vec<Line>,
    curves: BTreeMap<WorkerType, VecDeque<u64>>,
    curve_at: Duration,
    reactions: BTreeMap<(WorkerType, Timestamp), Reaction>,
    seen: BTreeSet<WorkerId>,
    there: BTreeSet<WorkerId>,
    most: u32,
    /// Number of workers in the last entry of the history, by worker type.
    told_workers: BTreeMap<String, u32>,
    decisions: usize,
    failures: usize,
    told: JobCounts,
}

impl Timeline {
    /// Adds a line.
    pub(super) fn tell(&mut self, at: Duration, kind: Kind, text: impl Into<String>) {
        let line = Line { at, kind, text: text.into() };
        if self.lines.len() == LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(line.clone());
        self.unread.push(line);
    }

    /// Adds a decision that was carried out or failed.
    pub(super) fn note_event(&mut self, at: Duration, event: &ScalingEvent) {
        self.decisions += 1;
        let kind = match (&event.error, event.decision.as_str()) {
            (Some(_), _) => Kind::Trouble,
            (None, "scale_down") => Kind::Down,
            _ => Kind::Up,
        };
        self.failures += usize::from(event.error.is_some());
        if let (None, Some(workers)) = (&event.error, event.to_count) {
            self.told_workers.insert(event.worker_type.clone(), workers);
        }
        let trigger = event.trigger.join(", ");
        let text = format!("{:<7} {}  {} ({trigger})", event.worker_type, events::change(event), events::reason(event));
        self.tell(at, kind, text);
    }

    /// Returns whether the last change of each pool in the history is the one to its minimum.
    pub(super) fn has_told_rest(&self, fleet: &FleetSnapshot) -> bool {
        fleet
            .worker_types
            .iter()
            .all(|of| self.told_workers.get(of.worker_type.as_str()).is_none_or(|workers| *workers == of.min_workers))
    }

    /// Adds that the pools are at rest.
    pub(super) fn tell_rest(&mut self, at: Duration, fleet: &FleetSnapshot) {
        let of = |of: &std::sync::Arc<crate::model::snapshot::TypeSnapshot>| {
            let ready = of.pool.known().map_or_else(|| words::UNKNOWN.to_owned(), |pool| pool.ready.to_string());
            format!("{} {ready}", of.worker_type)
        };
        let pools: Vec<String> = fleet.worker_types.iter().map(of).collect();
        self.tell(at, Kind::Act, format!("at rest: every pool is at its minimum again ({})", pools.join(", ")));
    }

    /// Takes note of the autoscaler's state.
    pub(super) fn note_fleet(&mut self, at: Duration, fleet: &FleetSnapshot) {
        let new_point = at >= self.curve_at;
        if new_point {
            self.curve_at = at + CURVE_STEP;
        }
        self.there.clear();
        let mut workers = 0;
        for of in &fleet.worker_types {
            if new_point && let Some(depth) = of.demand.depth().known() {
                let curve = self.curves.entry(of.worker_type.clone()).or_default();
                if curve.len() == CURVE {
                    curve.pop_front();
                }
                curve.push_back(*depth);
            }
            self.seen.extend(of.workers.iter().map(|worker| worker.id.clone()));
            self.there.extend(of.workers.iter().filter(|worker| !worker.draining).map(|worker| worker.id.clone()));
            workers += of.pool.known().map_or(0, |pool| pool.ready + pool.starting);
            self.note_reaction(at, of);
        }
        self.most = self.most.max(workers);
    }

    /// Adds the reaction that belongs to the last change.
    fn note_reaction(&mut self, at: Duration, of: &crate::model::snapshot::TypeSnapshot) {
        let (Some(change), Some(reaction)) = (of.last_change, of.reaction) else { return };
        if reaction.requested_ms.is_none() {
            return;
        }
        let before = self.reactions.insert((of.worker_type.clone(), change.at), reaction);
        let ready_before = before.is_some_and(|before| before.running_ms.is_some());
        if let (Some(running), false) = (reaction.running_ms, ready_before) {
            let text = format!(
                "{:<7} decided {}, requested {}, worker ready {}",
                of.worker_type,
                words::milliseconds(reaction.decided_ms),
                reaction.requested_ms.map_or_else(|| words::NONE.to_owned(), words::milliseconds),
                words::milliseconds(running)
            );
            self.tell(at, Kind::Measure, text);
        }
    }

    /// Takes note of the results; adds a line when all jobs so far have one.
    pub(super) fn note_job_counts(&mut self, at: Duration, job_counts: JobCounts) {
        if job_counts.open() == 0 && job_counts.published > 0 && self.told != job_counts {
            self.tell(at, Kind::Measure, format!("jobs    all {} published so far are answered", job_counts.published));
            self.told = job_counts;
        }
    }

    /// Returns the lines that were added since the last call.
    pub(super) fn take_unread(&mut self) -> Vec<Line> {
        std::mem::take(&mut self.unread)
    }

    /// Returns the newest lines, oldest first.
    pub(super) fn newest(&self, count: usize) -> impl Iterator<Item = &Line> {
        self.lines.iter().skip(self.lines.len().saturating_sub(count))
    }

    /// Returns the depth of a queue over time, the newest last.
    pub(super) fn curve(&self, worker_type: &WorkerType) -> Vec<u64> {
        self.curves.get(worker_type).map(|curve| curve.iter().copied().collect()).unwrap_or_default()
    }

    /// Returns the workers started, and those of them that have left or were asked to.
    pub(super) fn workers(&self) -> (usize, usize) {
        (self.seen.len(), self.seen.difference(&self.there).count())
    }

    /// Returns the maximum number of workers at a time.
    pub(super) fn most_workers(&self) -> u32 {
        self.most
    }

    /// Returns the decisions that changed something, and those that failed.
    pub(super) fn decisions(&self) -> (usize, usize) {
        (self.decisions, self.failures)
    }

    /// Returns median and maximum of one stage of all reactions, in milliseconds.
    pub(super) fn spread(&self, stage: impl Fn(&Reaction) -> Option<f64>) -> Option<(f64, f64)> {
        let mut times: Vec<f64> = self.reactions.values().filter_map(stage).collect();
        times.sort_by(f64::total_cmp);
        Some((*times.get(times.len().checked_sub(1)? / 2)?, *times.last()?))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{cli::view::fleet::made_up, model::snapshot::Change};

    #[test]
    fn each_change_has_one_reaction_and_its_readiness_is_told_once() {
        let mut timeline = Timeline::default();
        let mut fleet = made_up();
        for (at, running) in [(1, None), (1, Some(50.0)), (1, Some(50.0)), (2, Some(70.0))] {
            let of = Arc::make_mut(&mut fleet.worker_types[0]);
            of.last_change = Some(Change { at: Timestamp(at), from: 0, to: 1 });
            of.reaction = Some(Reaction { decided_ms: 1.0, requested_ms: Some(2.0), running_ms: running });
            timeline.note_fleet(Duration::ZERO, &fleet);
        }
        assert_eq!(timeline.spread(|reaction| reaction.running_ms), Some((50.0, 70.0)));
        assert_eq!(timeline.take_unread().len(), 2);
        assert_eq!(timeline.curve(&WorkerType::new("browser")), [37]);
    }

    #[test]
    fn rest_is_told_once_the_history_has_the_last_scale_down() {
        let (mut timeline, fleet) = (Timeline::default(), made_up());
        assert!(timeline.has_told_rest(&fleet), "nothing was changed yet");
        let event = |to: u32, error: Option<&str>| ScalingEvent {
            worker_type: "browser".to_owned(),
            to_count: Some(to),
            error: error.map(str::to_owned),
            ..ScalingEvent::default()
        };
        for (event, rest) in [
            (event(6, None), false),
            (event(3, None), false),
            (event(1, Some("refused")), false),
            (event(1, None), true),
        ] {
            timeline.note_event(Duration::ZERO, &event);
            assert_eq!(timeline.has_told_rest(&fleet), rest, "{event:?}");
        }
        timeline.take_unread();
        timeline.tell_rest(Duration::ZERO, &fleet);
        assert!(timeline.take_unread()[0].text.ends_with("(browser 4, tankpit ?)"));
    }

    #[test]
    fn without_reactions_there_is_no_spread() {
        assert_eq!(Timeline::default().spread(|reaction| reaction.running_ms), None);
    }

    #[test]
    fn answers_are_told_once_when_none_is_open() {
        let mut timeline = Timeline::default();
        for done in [1, 2, 2] {
            timeline.note_job_counts(Duration::ZERO, JobCounts { published: 2, done, failed: 0 });
        }
        assert_eq!(timeline.take_unread().len(), 1);
    }
}

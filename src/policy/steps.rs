//! How many workers were added, or let go, within a period that ends now.

use std::{collections::VecDeque, time::Duration};

use crate::{
    config::ScalingSettings,
    model::{Timestamp, snapshot::Change},
};

/// Maximum changes that are remembered in each direction. Changes beyond that number within a period escape the limit.
const MAX_CHANGES: usize = 256;

/// Recent changes, over the longest period that settings allow. Takes a pointer until there is one: most worker types
/// are idle.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Steps(Option<Box<Log>>);

/// Changes by direction, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Log {
    added: VecDeque<(Timestamp, u32)>,
    removed: VecDeque<(Timestamp, u32)>,
}

/// The remainder of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Room {
    /// Workers by which the number may change now.
    pub(super) workers: u32,
    /// When it may change further, if it changes by all of them now.
    pub(super) more_at: Timestamp,
}

impl Steps {
    /// Records a change.
    pub(super) fn note(&mut self, change: Change) {
        let log = self.0.get_or_insert_default();
        let steps = if change.to > change.from { &mut log.added } else { &mut log.removed };
        let reach = ScalingSettings::LONGEST_STEP_PERIOD;
        while steps.front().is_some_and(|(at, _)| steps.len() == MAX_CHANGES || at.after(reach) <= change.at) {
            steps.pop_front();
        }
        steps.push_back((change.at, change.to.abs_diff(change.from)));
    }

    /// Returns how many workers may be added at `now`, with at most `most` in any `period`.
    pub(super) fn room_to_add(&self, most: u32, period: Duration, now: Timestamp) -> Room {
        room(self.0.iter().flat_map(|log| &log.added), most, period, now)
    }

    /// Like [`Steps::room_to_add`], for letting workers go.
    pub(super) fn room_to_remove(&self, most: u32, period: Duration, now: Timestamp) -> Room {
        room(self.0.iter().flat_map(|log| &log.removed), most, period, now)
    }
}

fn room<'a>(steps: impl Iterator<Item = &'a (Timestamp, u32)>, most: u32, period: Duration, now: Timestamp) -> Room {
    let within = steps.filter(|(at, _)| at.after(period) > now);
    let (taken, oldest) =
        within.fold((0_u32, now), |(taken, oldest), &(at, workers)| (taken.saturating_add(workers), oldest.min(at)));
    Room { workers: most.saturating_sub(taken), more_at: oldest.after(period) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp(seconds * 1_000)
    }

    fn up(seconds: u64, workers: u32) -> Change {
        Change { at: at(seconds), from: 0, to: workers }
    }

    #[test]
    fn room_comes_back_as_steps_leave_the_period() {
        let mut steps = Steps::default();
        let room = |steps: &Steps, now| steps.room_to_add(5, Duration::from_secs(60), at(now));
        assert_eq!(room(&steps, 0), Room { workers: 5, more_at: at(60) });
        steps.note(up(0, 2));
        assert_eq!(room(&steps, 10), Room { workers: 3, more_at: at(60) });
        steps.note(up(10, 4));
        assert_eq!(room(&steps, 59), Room { workers: 0, more_at: at(60) });
        assert_eq!(room(&steps, 60), Room { workers: 1, more_at: at(70) });
        assert_eq!(room(&steps, 70), Room { workers: 5, more_at: at(130) });
    }

    #[test]
    fn the_directions_are_counted_apart() {
        let mut steps = Steps::default();
        steps.note(Change { at: at(0), from: 5, to: 1 });
        let period = Duration::from_secs(60);
        assert_eq!(steps.room_to_add(4, period, at(1)).workers, 4);
        assert_eq!(steps.room_to_remove(4, period, at(1)).workers, 0);
    }

    #[test]
    fn what_no_period_reaches_is_forgotten() {
        let mut steps = Steps::default();
        let kept = |steps: &Steps| steps.0.as_ref().map_or(0, |log| log.added.len());
        (0..2_000).for_each(|second| steps.note(up(second, 1)));
        assert_eq!(kept(&steps), MAX_CHANGES);
        steps.note(up(9_000, 1));
        assert_eq!(kept(&steps), 1);
    }
}

//! How many workers were added, or let go, within a time that ends now.

use std::{collections::VecDeque, time::Duration};

use crate::{config::ScalingSettings, model::Timestamp};

/// Changes that are remembered. Who changes more often than that within a period is not held to a limit above it.
const MOST: usize = 256;

/// Changes in one direction, oldest first, for as long as a period may be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Steps(VecDeque<(Timestamp, u32)>);

/// What is left of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Room {
    /// Workers by which the number may change now.
    pub(super) workers: u32,
    /// When it may change by more, if it changes by all of them now.
    pub(super) more_at: Timestamp,
}

impl Steps {
    /// Keeps a change by so many workers.
    pub(super) fn note(&mut self, at: Timestamp, workers: u32) {
        while self.0.front().is_some_and(|(then, _)| then.after(ScalingSettings::LONGEST_STEP_PERIOD) <= at) {
            self.0.pop_front();
        }
        if self.0.len() == MOST {
            self.0.pop_front();
        }
        self.0.push_back((at, workers));
    }

    /// The room at `now`, with at most `most` workers in any `period`.
    pub(super) fn room(&self, most: u32, period: Duration, now: Timestamp) -> Room {
        let within = || self.0.iter().filter(|(at, _)| at.after(period) > now);
        let taken = within().fold(0_u32, |sum, (_, workers)| sum.saturating_add(*workers));
        let oldest = within().map(|(at, _)| *at).min().unwrap_or(now);
        Room { workers: most.saturating_sub(taken), more_at: oldest.after(period) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp(seconds * 1_000)
    }

    #[test]
    fn room_comes_back_as_steps_leave_the_period() {
        let mut steps = Steps::default();
        let room = |steps: &Steps, now| steps.room(5, Duration::from_secs(60), at(now));
        assert_eq!(room(&steps, 0), Room { workers: 5, more_at: at(60) });
        steps.note(at(0), 2);
        assert_eq!(room(&steps, 10), Room { workers: 3, more_at: at(60) });
        steps.note(at(10), 4);
        assert_eq!(room(&steps, 59), Room { workers: 0, more_at: at(60) });
        assert_eq!(room(&steps, 60), Room { workers: 1, more_at: at(70) });
        assert_eq!(room(&steps, 70), Room { workers: 5, more_at: at(130) });
    }

    #[test]
    fn what_no_period_reaches_is_forgotten() {
        let mut steps = Steps::default();
        (0..2_000).for_each(|second| steps.note(at(second), 1));
        assert_eq!(steps.0.len(), MOST);
        steps.note(at(9_000), 1);
        assert_eq!(steps.0.len(), 1);
    }
}

//! The bounds of a pool at a given time: `min_workers`, which the schedule can raise, and `max_workers`, which it can
//! lower.

use super::{reason::Reason, schedule};
use crate::{config::ScalingSettings, model::Timestamp};

/// Bounds at one time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    /// Lower bound.
    pub(super) min: u32,
    /// Upper bound. Nobody is started beyond it.
    pub(super) max: u32,
    /// `max_workers`. Workers beyond it are let go immediately; between the two bounds, only idle ones.
    pub(super) hard_max: u32,
    /// Rule that sets the lower bound.
    pub(super) why_min: Reason,
    /// Rule that sets the upper bound.
    pub(super) why_max: Reason,
    /// When the schedule changes next.
    pub(super) change_at: Option<Timestamp>,
}

impl Bounds {
    /// Returns the bounds at `now`.
    pub(super) fn at(settings: &ScalingSettings, now: Timestamp) -> Self {
        let (min, max) = (settings.min_workers, settings.max_workers);
        let (why_min, why_max) = (Reason::Minimum { min }, Reason::Maximum { max });
        let bounds = Self { min, max, hard_max: max, why_min, why_max, change_at: None };
        if settings.schedule.is_empty() { bounds } else { bounds.scheduled(settings, now) }
    }

    fn scheduled(self, settings: &ScalingSettings, now: Timestamp) -> Self {
        let floor = schedule::floor(&settings.schedule, now);
        let (min, why_min) = match floor.window {
            Some((min, ends_at)) if min > self.min => (min, Reason::Schedule { min, remaining: ends_at.since(now) }),
            _ => (self.min, self.why_min),
        };
        let (max, why_max) = match floor.ceiling {
            Some((max, ends_at)) if max < self.max => {
                (max, Reason::ScheduleMaximum { max, remaining: ends_at.since(now) })
            }
            _ => (self.max, self.why_max),
        };
        Self { min, max, why_min, why_max, change_at: floor.change_at, ..self }
    }

    /// Returns `workers` limited to the bounds that hold immediately: a maximum that the schedule lowers stops nobody.
    pub(super) fn repaired(&self, workers: u32) -> u32 {
        workers.max(self.min.min(self.max)).min(self.hard_max)
    }

    /// Returns `workers` limited to the bounds. Unlike `clamp` it does not panic if the bounds cross; then the upper
    /// bound wins.
    pub(super) fn bound(&self, workers: u32) -> u32 {
        workers.max(self.min).min(self.max)
    }
}

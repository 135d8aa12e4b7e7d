//! The bounds of a pool at a given time: `min_workers`, which the schedule can raise, and `max_workers`.

use super::{reason::Reason, schedule};
use crate::{config::ScalingSettings, model::Timestamp};

/// Bounds at one time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    /// Lower bound.
    pub(super) min: u32,
    /// Upper bound.
    pub(super) max: u32,
    /// Rule that sets the lower bound.
    pub(super) why_min: Reason,
    /// When the schedule changes next.
    pub(super) change_at: Option<Timestamp>,
}

impl Bounds {
    /// Returns the bounds at `now`.
    pub(super) fn at(settings: &ScalingSettings, now: Timestamp) -> Self {
        let (min, max) = (settings.min_workers, settings.max_workers);
        let bounds = Self { min, max, why_min: Reason::Minimum { min }, change_at: None };
        if settings.schedule.is_empty() { bounds } else { bounds.raised(settings, now) }
    }

    fn raised(self, settings: &ScalingSettings, now: Timestamp) -> Self {
        let floor = schedule::floor(&settings.schedule, now);
        let (min, why_min) = match floor.window {
            Some((min, ends_at)) if min > self.min => (min, Reason::Schedule { min, remaining: ends_at.since(now) }),
            _ => (self.min, self.why_min),
        };
        Self { min, why_min, change_at: floor.change_at, ..self }
    }

    /// Returns `workers` limited to the bounds. Unlike `clamp` it does not panic if the bounds cross; then the upper
    /// bound wins.
    pub(super) fn bound(&self, workers: u32) -> u32 {
        workers.max(self.min).min(self.max)
    }
}

//! Between what the number of workers lies at a time: `min_workers` and `max_workers`, and what the schedule makes of
//! the first.

use super::{reason::Reason, schedule};
use crate::{config::ScalingSettings, model::Timestamp};

/// The bounds at one time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    /// The lower one.
    pub(super) min: u32,
    /// The upper one.
    pub(super) max: u32,
    /// Why the lower one is what it is.
    pub(super) why_min: Reason,
    /// When the schedule changes next.
    pub(super) change_at: Option<Timestamp>,
}

impl Bounds {
    /// The bounds at `now`.
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

    /// `workers` within the bounds. Unlike `clamp` it does not panic if they cross; then the upper one wins.
    pub(super) fn bound(&self, workers: u32) -> u32 {
        workers.max(self.min).min(self.max)
    }
}

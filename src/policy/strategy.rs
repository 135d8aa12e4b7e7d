//! How a depth becomes a wish. Knows no bounds but the floor that `threshold` falls back to, and no past.

use super::reason::Reason;
use crate::config::{ScalingSettings, Strategy};

/// What the configured strategy wants for `depth` unfinished jobs and `current` workers, and its arithmetic.
pub(super) fn wish(settings: &ScalingSettings, depth: u64, current: u32) -> (u32, Reason) {
    match settings.strategy {
        Strategy::Threshold => {
            let needed = workers_for(depth, settings.scale_up_threshold);
            by_threshold(settings, depth, current, needed, settings.min_workers)
        }
        Strategy::Step => {
            let up = current.saturating_add(settings.step);
            let down = current.saturating_sub(settings.step).max(settings.min_workers);
            by_threshold(settings, depth, current, up, down)
        }
        Strategy::Backlog => {
            let wish = workers_for(depth, settings.jobs_per_worker);
            (wish, Reason::Backlog { depth, jobs_per_worker: settings.jobs_per_worker, wish })
        }
    }
}

/// `up` from the upper threshold on, `down` from the lower one down, between them whatever is there.
fn by_threshold(settings: &ScalingSettings, depth: u64, current: u32, up: u32, down: u32) -> (u32, Reason) {
    let (low, high) = (settings.scale_down_threshold, settings.scale_up_threshold);
    if depth >= high {
        let wish = up.max(current);
        let reason = if up < current {
            Reason::DepthCovered { depth, threshold: high, needed: up, current }
        } else {
            Reason::DepthHigh { depth, threshold: high, wish }
        };
        (wish, reason)
    } else if depth <= low {
        (down, Reason::DepthLow { depth, threshold: low, wish: down })
    } else {
        (current, Reason::DepthBetween { depth, low, high, current })
    }
}

/// Workers that `depth` jobs need at `jobs_each`.
fn workers_for(depth: u64, jobs_each: u64) -> u32 {
    u32::try_from(depth.div_ceil(jobs_each.max(1))).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_started_share_needs_a_whole_worker() {
        assert_eq!([0, 1, 5, 6, 10].map(|depth| workers_for(depth, 5)), [0, 1, 1, 2, 2]);
        assert_eq!(workers_for(u64::MAX, 1), u32::MAX);
    }
}

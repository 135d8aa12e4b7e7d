//! Why a decision is what it is: words for people, labels for metrics.

use std::{fmt, time::Duration};

/// One step of a decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The depth reached the upper threshold.
    DepthHigh {
        /// Unfinished jobs.
        depth: u64,
        /// `scale_up_threshold`.
        threshold: u64,
        /// Workers wanted for them.
        wish: u32,
    },
    /// The depth reached the upper threshold, and there are workers enough for it.
    DepthCovered {
        /// Unfinished jobs.
        depth: u64,
        /// `scale_up_threshold`.
        threshold: u64,
        /// Workers that they need.
        needed: u32,
        /// Workers that there are.
        current: u32,
    },
    /// The depth fell to the lower threshold.
    DepthLow {
        /// Unfinished jobs.
        depth: u64,
        /// `scale_down_threshold`.
        threshold: u64,
        /// Workers wanted for them.
        wish: u32,
    },
    /// The depth is between the thresholds.
    DepthBetween {
        /// Unfinished jobs.
        depth: u64,
        /// `scale_down_threshold`.
        low: u64,
        /// `scale_up_threshold`.
        high: u64,
        /// Workers that there are.
        current: u32,
    },
    /// The `backlog` strategy's share for each worker.
    Backlog {
        /// Unfinished jobs.
        depth: u64,
        /// Jobs for each worker.
        jobs_per_worker: u64,
        /// Workers wanted for them.
        wish: u32,
    },
    /// There is work, and without this rule no worker.
    Activation {
        /// Unfinished jobs, or those known of.
        depth: u64,
        /// `activation_threshold`.
        threshold: u64,
        /// Workers that there are.
        current: u32,
    },
    /// Raised to the lower bound.
    Minimum {
        /// `min_workers`.
        min: u32,
    },
    /// Lowered to the upper bound.
    Maximum {
        /// `max_workers`.
        max: u32,
    },
    /// Not all of the depth could be read, so it lowers nothing.
    DepthUnknown {
        /// Why it could not.
        why: String,
    },
    /// The pool could not be read, so nothing is changed.
    PoolUnknown {
        /// Why it could not.
        why: String,
    },
    /// More workers were wanted a short while ago.
    Stabilization {
        /// Workers wanted at most within the window.
        highest: u32,
        /// The window.
        window: Duration,
        /// Until that wish leaves the window.
        remaining: Duration,
    },
    /// Workers that hold a job or session are not let go.
    Busy {
        /// How many do.
        busy: u32,
        /// Of how many.
        of: u32,
    },
    /// The last change is too fresh.
    Cooldown {
        /// Until it is not.
        remaining: Duration,
    },
    /// New workers keep ending early, so none are started for a while.
    StartBackoff {
        /// How many ended early in a row.
        count: u32,
        /// How the last one ended.
        message: String,
        /// Until the next try.
        remaining: Duration,
    },
    /// The backend keeps failing, so it is not asked for a while.
    BackendBackoff {
        /// Failures in a row.
        count: u32,
        /// The last one.
        message: String,
        /// Until the next try.
        remaining: Duration,
    },
    /// Somebody wants nothing to be changed.
    Paused {
        /// Who.
        by: String,
        /// Until it ends; `None`: when somebody ends it.
        remaining: Option<Duration>,
    },
    /// Somebody wants to see what would be changed.
    ObserveOnly {
        /// Who.
        by: String,
        /// Until it ends; `None`: when somebody ends it.
        remaining: Option<Duration>,
    },
    /// Somebody wants so many workers.
    Pinned {
        /// How many, within the bounds.
        workers: u32,
        /// Who.
        by: String,
        /// Until it ends; `None`: when somebody ends it.
        remaining: Option<Duration>,
    },
}

impl Reason {
    /// The name in metric labels: a closed set, whatever the numbers and error texts.
    pub fn label(&self) -> &'static str {
        match self {
            Self::DepthHigh { .. } => "depth_high",
            Self::DepthCovered { .. } => "depth_covered",
            Self::DepthLow { .. } => "depth_low",
            Self::DepthBetween { .. } => "depth_between",
            Self::Backlog { .. } => "backlog",
            Self::Activation { .. } => "activation",
            Self::Minimum { .. } => "min_workers",
            Self::Maximum { .. } => "max_workers",
            Self::DepthUnknown { .. } => "depth_unknown",
            Self::PoolUnknown { .. } => "pool_unknown",
            Self::Stabilization { .. } => "stabilization",
            Self::Busy { .. } => "busy",
            Self::Cooldown { .. } => "cooldown",
            Self::StartBackoff { .. } => "start_backoff",
            Self::BackendBackoff { .. } => "backend_backoff",
            Self::Paused { .. } => "paused",
            Self::ObserveOnly { .. } => "observe_only",
            Self::Pinned { .. } => "pinned",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DepthHigh { depth, threshold, wish } => write!(f, "depth {depth} ≥ {threshold} wants {wish}"),
            Self::DepthCovered { depth, threshold, needed, current } => {
                write!(f, "depth {depth} ≥ {threshold} wants {needed}, and there are {current}")
            }
            Self::DepthLow { depth, threshold, wish } => write!(f, "depth {depth} ≤ {threshold} wants {wish}"),
            Self::DepthBetween { depth, low, high, current } => {
                write!(f, "depth {depth} between {low} and {high} keeps {current}")
            }
            Self::Backlog { depth, jobs_per_worker, wish } => {
                write!(f, "depth {depth} at {jobs_per_worker} per worker wants {wish}")
            }
            Self::Activation { depth, threshold, current: 0 } => {
                write!(f, "depth {depth} ≥ {threshold} starts the first worker")
            }
            Self::Activation { depth, threshold, .. } => {
                write!(f, "depth {depth} ≥ {threshold} keeps the last worker")
            }
            Self::Minimum { min } => write!(f, "at least {min} (min_workers)"),
            Self::Maximum { max } => write!(f, "at most {max} (max_workers)"),
            Self::DepthUnknown { why } => write!(f, "not all of the depth is known ({why}), so nobody is let go"),
            Self::PoolUnknown { why } => write!(f, "the workers are not known ({why}), so nothing is changed"),
            Self::Stabilization { highest, window, remaining } => {
                let (window, remaining) = (Seconds(*window), Seconds(*remaining));
                write!(f, "{highest} were wanted within the last {window}, no longer in {remaining}")
            }
            Self::Busy { of: 1, .. } => f.write_str("the only worker is busy"),
            Self::Busy { busy, of } if busy >= of => write!(f, "all {of} workers are busy"),
            Self::Busy { busy: 1, of } => write!(f, "1 of {of} workers is busy"),
            Self::Busy { busy, of } => write!(f, "{busy} of {of} workers are busy"),
            Self::Cooldown { remaining } => write!(f, "cooldown ends in {}", Seconds(*remaining)),
            Self::StartBackoff { count, message, remaining } => {
                write!(f, "{count} workers in a row ended early ({message}), next try in {}", Seconds(*remaining))
            }
            Self::BackendBackoff { count: 1, message, remaining } => {
                write!(f, "scaling failed ({message}), next try in {}", Seconds(*remaining))
            }
            Self::BackendBackoff { count, message, remaining } => {
                write!(f, "scaling failed {count} times in a row ({message}), next try in {}", Seconds(*remaining))
            }
            Self::Paused { by, remaining } => write!(f, "paused by {by}{}", Ending(*remaining)),
            Self::ObserveOnly { by, remaining } => write!(f, "only observed, as {by} wants it{}", Ending(*remaining)),
            Self::Pinned { workers, by, remaining } => write!(f, "pinned at {workers} by {by}{}", Ending(*remaining)),
        }
    }
}

/// When something ends by itself, if it does.
struct Ending(Option<Duration>);

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |remaining| write!(f, " for {}", Seconds(remaining)))
    }
}

/// A wait in whole seconds, rounded up: what ends in 0.2 s does not end "in 0 s".
struct Seconds(Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} s", self.0.as_millis().div_ceil(1_000))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_round_up_to_whole_seconds() {
        let shown = |millis| Reason::Cooldown { remaining: Duration::from_millis(millis) }.to_string();
        assert_eq!(shown(1), "cooldown ends in 1 s");
        assert_eq!(shown(41_000), "cooldown ends in 41 s");
        assert_eq!(shown(41_001), "cooldown ends in 42 s");
    }
}

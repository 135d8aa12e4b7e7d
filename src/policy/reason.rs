//! Reasons of a decision: words for people, labels for metrics.

use std::{fmt, time::Duration};

use super::flow::{Unlearned, float};
use crate::model::{Allowance, QueueDemands};

/// One step of a decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The longest of several queues counts.
    Longest {
        /// Key of the longest queue.
        queue: String,
        /// Unfinished jobs in it.
        jobs: u64,
        /// Number of queues.
        of: usize,
    },
    /// The depth reached the upper threshold.
    DepthHigh {
        /// Unfinished jobs.
        depth: u64,
        /// `scale_up_threshold`.
        threshold: u64,
        /// Workers that the strategy recommends.
        recommendation: u32,
    },
    /// The depth reached the upper threshold, and there are enough workers for it.
    DepthCovered {
        /// Unfinished jobs.
        depth: u64,
        /// `scale_up_threshold`.
        threshold: u64,
        /// Workers that the jobs need.
        needed: u32,
        /// Present workers.
        current: u32,
    },
    /// The depth fell to the lower threshold.
    DepthLow {
        /// Unfinished jobs.
        depth: u64,
        /// `scale_down_threshold`.
        threshold: u64,
        /// Workers that the strategy recommends.
        recommendation: u32,
    },
    /// The depth is between the thresholds.
    DepthBetween {
        /// Unfinished jobs.
        depth: u64,
        /// `scale_down_threshold`.
        low: u64,
        /// `scale_up_threshold`.
        high: u64,
        /// Present workers.
        current: u32,
    },
    /// The `backlog` strategy's share for each worker.
    Backlog {
        /// Unfinished jobs.
        depth: u64,
        /// Jobs for each worker.
        jobs_per_worker: u64,
        /// Workers that the strategy recommends.
        recommendation: u32,
    },
    /// The `latency` strategy's arithmetic.
    Latency {
        /// Unfinished jobs.
        depth: u64,
        /// Time that a worker takes for one job.
        job: Duration,
        /// Jobs that arrive in 1,000 seconds.
        arriving: u64,
        /// Workers that the strategy recommends.
        recommendation: u32,
        /// `target_wait_seconds`.
        within: Duration,
    },
    /// `latency` does not know enough, and divides the jobs as `backlog` does.
    LatencyUnlearned {
        /// Unfinished jobs.
        depth: u64,
        /// Jobs for each worker.
        jobs_per_worker: u64,
        /// Workers that the jobs need.
        recommendation: u32,
        /// What `latency` lacks.
        why: Unlearned,
    },
    /// Raised so that some workers are idle.
    Spare {
        /// `spare`.
        spare: u32,
        /// Workers at work, and those that waiting jobs are about to occupy.
        at_work: u32,
        /// Workers at work and spare workers together.
        recommendation: u32,
    },
    /// There is work, and no other rule asks for a worker.
    Activation {
        /// Unfinished jobs, or the known part of them.
        depth: u64,
        /// `activation_threshold`.
        threshold: u64,
        /// Present workers.
        current: u32,
    },
    /// There is too little work to start the first worker.
    BelowActivation {
        /// Unfinished jobs, or the known part of them.
        depth: u64,
        /// `activation_threshold`.
        threshold: u64,
    },
    /// Jobs wait, and every worker holds as many sessions as it can.
    NoPlace {
        /// Jobs that wait.
        jobs: u64,
        /// Workers without room.
        full: u32,
    },
    /// Raised to the lower bound.
    Minimum {
        /// `min_workers`.
        min: u32,
    },
    /// Raised to the number of an open window of the schedule.
    Schedule {
        /// `min_workers` of the window.
        min: u32,
        /// Time until the window closes.
        remaining: Duration,
    },
    /// Lowered to what the budget leaves.
    Budget(Allowance),
    /// Raised because the queue can't be read for too long.
    Fallback {
        /// `fallback_workers`.
        workers: u32,
        /// Time since the queue became unreadable.
        unreadable: Duration,
    },
    /// Lowered to the maximum of an open window of the schedule.
    ScheduleMaximum {
        /// Its `max_workers`.
        max: u32,
        /// Until it closes.
        remaining: Duration,
    },
    /// Lowered to the upper bound.
    Maximum {
        /// `max_workers`.
        max: u32,
    },
    /// A part of the depth could not be read, so it lowers nothing.
    DepthUnknown {
        /// Why the pool could not be read.
        why: String,
    },
    /// The pool could not be read, so nothing changes.
    PoolUnknown {
        /// Why the depth could not be read.
        why: String,
    },
    /// A recent recommendation was higher.
    Stabilization {
        /// Highest recommendation within the window.
        highest: u32,
        /// Length of the window.
        window: Duration,
        /// Time until that recommendation leaves the window.
        remaining: Duration,
    },
    /// Workers that hold a job or session are not let go.
    Busy {
        /// Workers that hold a job or session.
        busy: u32,
        /// Workers that count as capacity.
        of: u32,
    },
    /// Workers without a heartbeat may hold a job, and are not let go.
    PossiblyBusy {
        /// Workers without a heartbeat.
        workers: u32,
        /// Workers that count as capacity.
        of: u32,
    },
    /// The platform decides who goes, and would remove workers that are not idle.
    Order {
        /// How many have to stay.
        stay: u32,
        /// Of how many.
        of: u32,
    },
    /// Too many workers do not leave, or never became ready.
    Ceiling {
        /// Workers that do not leave or never became ready.
        stuck: u32,
        /// Maximum workers that may exist, including those that count as capacity.
        ceiling: u32,
    },
    /// The last change is too recent.
    Cooldown {
        /// Time until the cooldown ends.
        remaining: Duration,
    },
    /// The limit on additions is reached.
    StepUp {
        /// `max_step_up`.
        most: u32,
        /// `step_period_seconds`.
        period: Duration,
        /// Time until more workers may be added.
        remaining: Duration,
    },
    /// The limit on removals is reached.
    StepDown {
        /// `max_step_down`.
        most: u32,
        /// `step_period_seconds`.
        period: Duration,
        /// Time until more workers may be let go.
        remaining: Duration,
    },
    /// New workers keep ending early or never become ready, so none are started for a while.
    StartBackoff {
        /// Consecutive rounds of failed starts.
        count: u32,
        /// Error of the last round.
        message: String,
        /// Time until the next attempt.
        remaining: Duration,
    },
    /// The backend keeps failing, so it is not asked for a while.
    BackendBackoff {
        /// Consecutive failures.
        count: u32,
        /// Error of the last one.
        message: String,
        /// Time until the next attempt.
        remaining: Duration,
    },
    /// A person paused the worker type: nothing changes.
    Paused {
        /// Person who set the override.
        by: String,
        /// Time until the override ends; `None`: when somebody ends it.
        remaining: Option<Duration>,
    },
    /// Somebody wants no worker to be let go.
    PausedIn {
        /// Person who set the override.
        by: String,
        /// Time until the override ends; `None`: when somebody ends it.
        remaining: Option<Duration>,
    },
    /// Somebody wants no worker to be started.
    PausedOut {
        /// Person who set the override.
        by: String,
        /// Time until the override ends; `None`: when somebody ends it.
        remaining: Option<Duration>,
    },
    /// A person wants to see what would change.
    ObserveOnly {
        /// Who.
        by: String,
        /// Until it ends; `None`: when somebody ends it.
        remaining: Option<Duration>,
    },
    /// KEDA sets the number of workers; swarm only recommends one. First of the reasons.
    Recommended,
    /// A person pinned the number of workers.
    Pinned {
        /// Pinned number, limited to the bounds.
        workers: u32,
        /// Who.
        by: String,
        /// Until it ends; `None`: when somebody ends it.
        remaining: Option<Duration>,
    },
}

impl Reason {
    /// Returns the reason that the longest of these queues counts; `None` if nothing is known about any of them.
    pub(super) fn longest(queues: &QueueDemands) -> Option<Self> {
        let longest = queues.longest.as_ref()?;
        Some(Self::Longest { queue: longest.queue.to_string(), jobs: longest.jobs, of: queues.count })
    }

    /// Returns the name in metric labels: a closed set, independent of numbers and error texts.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Longest { .. } => "longest_queue",
            Self::DepthHigh { .. } => "depth_high",
            Self::DepthCovered { .. } => "depth_covered",
            Self::DepthLow { .. } => "depth_low",
            Self::DepthBetween { .. } => "depth_between",
            Self::Backlog { .. } => "backlog",
            Self::Latency { .. } => "latency",
            Self::LatencyUnlearned { .. } => "latency_unlearned",
            Self::Spare { .. } => "spare",
            Self::Activation { .. } => "activation",
            Self::BelowActivation { .. } => "below_activation",
            Self::NoPlace { .. } => "no_place",
            Self::Minimum { .. } => "min_workers",
            Self::Schedule { .. } => "schedule",
            Self::Budget(_) => "budget",
            Self::Fallback { .. } => "fallback",
            Self::ScheduleMaximum { .. } => "schedule_max",
            Self::Maximum { .. } => "max_workers",
            Self::DepthUnknown { .. } => "depth_unknown",
            Self::PoolUnknown { .. } => "pool_unknown",
            Self::Stabilization { .. } => "stabilization",
            Self::Busy { .. } => "busy",
            Self::PossiblyBusy { .. } => "possibly_busy",
            Self::Order { .. } => "removal_order",
            Self::Ceiling { .. } => "ceiling",
            Self::Cooldown { .. } => "cooldown",
            Self::StepUp { .. } => "max_step_up",
            Self::StepDown { .. } => "max_step_down",
            Self::StartBackoff { .. } => "start_backoff",
            Self::BackendBackoff { .. } => "backend_backoff",
            Self::Paused { .. } => "paused",
            Self::PausedIn { .. } => "paused_in",
            Self::PausedOut { .. } => "paused_out",
            Self::ObserveOnly { .. } => "observe_only",
            Self::Recommended => "recommended",
            Self::Pinned { .. } => "pinned",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Longest { queue, jobs, of } => write!(f, "{queue} is the longest of {of} queues with {jobs}"),
            Self::DepthHigh { depth, threshold, recommendation } => {
                write!(f, "depth {depth} ≥ {threshold} wants {recommendation}")
            }
            Self::DepthCovered { depth, threshold, needed, current } => {
                write!(f, "depth {depth} ≥ {threshold} wants {needed}, and there are {current}")
            }
            Self::DepthLow { depth, threshold, recommendation } => {
                write!(f, "depth {depth} ≤ {threshold} wants {recommendation}")
            }
            Self::DepthBetween { depth, low, high, current } => {
                write!(f, "depth {depth} between {low} and {high} keeps {current}")
            }
            Self::Backlog { depth, jobs_per_worker, recommendation } => {
                write!(f, "depth {depth} at {jobs_per_worker} per worker wants {recommendation}")
            }
            Self::Latency { depth, job, arriving, recommendation, within } => {
                let arriving = Figure(float(*arriving) / 1e3);
                write!(f, "depth {depth}, {} s a job, {arriving} jobs/s arriving: ", Figure(job.as_secs_f64()))?;
                cleared(f, *recommendation, *job, *within)
            }
            Self::LatencyUnlearned { depth, jobs_per_worker, recommendation, why } => {
                let why = lacks(*why);
                write!(f, "depth {depth} at {jobs_per_worker} per worker wants {recommendation}, {why}")
            }
            Self::Spare { spare, at_work, recommendation } => {
                write!(f, "{spare} spare beside {at_work} at work wants {recommendation}")
            }
            Self::Activation { depth, threshold, current: 0 } => {
                write!(f, "depth {depth} ≥ {threshold} starts the first worker")
            }
            Self::Activation { depth, threshold, .. } => {
                write!(f, "depth {depth} ≥ {threshold} keeps the last worker")
            }
            Self::BelowActivation { depth, threshold } => {
                write!(f, "depth {depth} < {threshold} (activation_threshold) starts nobody")
            }
            Self::NoPlace { jobs, full } => {
                let (wait, have) = (if *jobs == 1 { "waits" } else { "wait" }, if *full == 1 { "has" } else { "have" });
                write!(f, "{jobs} {wait} and {full} of {full} workers {have} no room for a session: one more")
            }
            Self::Minimum { min } => write!(f, "at least {min} (min_workers)"),
            Self::Schedule { min, remaining } => write!(f, "at least {min} (schedule, for {})", Seconds(*remaining)),
            Self::Budget(allowance) => write!(f, "{allowance}"),
            Self::Fallback { workers, unreadable } => {
                write!(f, "the queue has been unreadable for {}: at least {workers} (fallback)", Seconds(*unreadable))
            }
            Self::ScheduleMaximum { max, remaining } => {
                write!(f, "at most {max} (schedule, for {})", Seconds(*remaining))
            }
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
            Self::PossiblyBusy { workers: 1, of } => write!(f, "1 of {of} workers is not heard and may be busy"),
            Self::PossiblyBusy { workers, of } => write!(f, "{workers} of {of} workers are not heard and may be busy"),
            Self::Order { stay, of } => write!(
                f,
                "{stay} of {of} workers stay because the platform chooses whom it removes, and would remove one that is not \
                 idle"
            ),
            Self::Ceiling { stuck, ceiling } => {
                write!(f, "{stuck} workers do not leave or never became ready, and at most {ceiling} may exist")
            }
            Self::Cooldown { remaining } => write!(f, "cooldown ends in {}", Seconds(*remaining)),
            Self::StepUp { most, period, remaining } => {
                let (period, remaining) = (Seconds(*period), Seconds(*remaining));
                write!(f, "at most {most} more within {period} (max_step_up), the next in {remaining}")
            }
            Self::StepDown { most, period, remaining } => {
                let (period, remaining) = (Seconds(*period), Seconds(*remaining));
                write!(f, "at most {most} fewer within {period} (max_step_down), the next in {remaining}")
            }
            Self::StartBackoff { count, message, remaining } => {
                write!(f, "{count} rounds of starts in a row failed ({message}), next try in {}", Seconds(*remaining))
            }
            Self::BackendBackoff { count: 1, message, remaining } => {
                write!(f, "scaling failed ({message}), next try in {}", Seconds(*remaining))
            }
            Self::BackendBackoff { count, message, remaining } => {
                write!(f, "scaling failed {count} times in a row ({message}), next try in {}", Seconds(*remaining))
            }
            Self::Paused { by, remaining } => overridden(f, "paused", by, *remaining),
            Self::PausedIn { by, remaining } => overridden(f, "scaling in paused", by, *remaining),
            Self::PausedOut { by, remaining } => overridden(f, "scaling out paused", by, *remaining),
            Self::ObserveOnly { by, remaining } => {
                write!(f, "only observed, as {by} wants it{}", Remaining(*remaining))
            }
            Self::Recommended => f.write_str("KEDA scales this type"),
            Self::Pinned { workers, by, remaining } => overridden(f, &format!("pinned at {workers}"), by, *remaining),
        }
    }
}

/// Returns in words why `latency` divides the jobs as `backlog` does.
fn lacks(why: Unlearned) -> &'static str {
    match why {
        Unlearned::TooFew => "until it is known how long a job takes",
        Unlearned::Uncounted => "as this queue does not count its jobs",
    }
}

/// Writes how many workers clear the queue: `2 workers clear it within 30 s`.
fn cleared(f: &mut fmt::Formatter<'_>, workers: u32, job: Duration, within: Duration) -> fmt::Result {
    // A job that takes longer than the target can't finish within it, however many workers there are.
    let does = if job > within { "begin" } else { "clear" };
    match workers {
        0 => f.write_str("nobody is needed"),
        1 => write!(f, "1 worker {does}s it within {}", Seconds(within)),
        _ => write!(f, "{workers} workers {does} it within {}", Seconds(within)),
    }
}

/// Writes an override: `paused by ann@desk for 60 s`.
fn overridden(f: &mut fmt::Formatter<'_>, what: &str, by: &str, remaining: Option<Duration>) -> fmt::Result {
    write!(f, "{what} by {by}{}", Remaining(remaining))
}

/// Time until an override ends, if it ends by itself.
struct Remaining(Option<Duration>);

impl fmt::Display for Remaining {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |remaining| write!(f, " for {}", Seconds(remaining)))
    }
}

/// A wait in whole seconds, rounded up, so that a wait of 0.2 s is not shown as "0 s".
struct Seconds(Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} s", self.0.as_millis().div_ceil(1_000))
    }
}

/// A measured number with two digits, or with all digits before the point: 0.034, 0.8, 3.1, 120.
struct Figure(f64);

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let places = [(9.95, 0), (0.995, 1), (0.0995, 2)];
        let places = places.into_iter().find(|(from, _)| self.0 >= *from).map_or(3, |(_, places)| places);
        let text = format!("{:.places$}", self.0);
        f.write_str(if places > 0 { text.trim_end_matches('0').trim_end_matches('.') } else { &text })
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

    #[test]
    fn figures_have_two_digits() {
        let shown = [0.0, 0.0004, 0.034, 0.8, 0.996, 1.0, 3.11, 9.96, 41.7, 120.2].map(|of| Figure(of).to_string());
        assert_eq!(shown, ["0", "0", "0.034", "0.8", "1", "1", "3.1", "10", "42", "120"]);
    }

    #[test]
    fn latency_is_told_as_arithmetic() {
        let told = |recommendation, job, within| {
            let (job, within) = (Duration::from_millis(job), Duration::from_secs(within));
            Reason::Latency { depth: 120, job, arriving: 3_100, recommendation, within }.to_string()
        };
        let start = "depth 120, 0.8 s a job, 3.1 jobs/s arriving: ";
        assert_eq!(told(13, 800, 10), format!("{start}13 workers clear it within 10 s"));
        assert_eq!(told(1, 800, 600), format!("{start}1 worker clears it within 600 s"));
        assert_eq!(told(0, 800, 600), format!("{start}nobody is needed"));
        assert!(told(151, 20_000, 10).ends_with("20 s a job, 3.1 jobs/s arriving: 151 workers begin it within 10 s"));
    }
}

//! What comes in a simulation: jobs, each with its time and how long it takes.

use std::time::Duration;

use super::{
    Row, SimTime, Times, Workload, WorkloadError,
    random::{Purpose, row},
};
use crate::model::Timestamp;

/// How long jobs take if nobody said so and the trace does not tell.
const DEFAULT_SERVICE: Times = Times::Exponential(Duration::from_secs(1));

/// What the clock shows at the beginning of a trace that does not say: a Monday at midnight, 2026-01-05T00:00:00Z.
const A_MONDAY: Timestamp = Timestamp(1_767_571_200_000);
/// A time before this, in 1973, is no date: the file counts from some other moment.
const FIRST_DATE: Timestamp = Timestamp(100_000_000_000);

/// One job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceJob {
    /// When it is put on the queue.
    pub arrives: SimTime,
    /// How long a worker takes for it.
    pub service: Duration,
}

/// All that comes.
#[derive(Clone, Debug, PartialEq)]
pub struct Trace {
    /// What the clock shows at the beginning.
    pub begins: Timestamp,
    /// For how long jobs come.
    pub lasts: Duration,
    /// The jobs, by arrival.
    pub jobs: Vec<TraceJob>,
    /// Where the service times are from, in words.
    pub services: String,
}

/// How a trace is made of what is known of it.
#[derive(Clone, Debug, Default)]
pub struct TraceOptions {
    /// How long jobs take, whatever the trace says.
    pub service: Option<Times>,
    /// What the clock shows at the beginning; default: the trace's own time, and a Monday at midnight for one that has
    /// none.
    pub begins: Option<Timestamp>,
    /// For everything that is drawn.
    pub seed: u64,
}

impl Trace {
    /// A made-up one.
    ///
    /// # Errors
    /// If the workload makes no sense.
    pub fn generated(workload: &Workload, options: &TraceOptions) -> Result<Self, WorkloadError> {
        let arrivals = workload.arrivals(options.seed)?.into_iter().map(|at| (at, None)).collect();
        Ok(Self::new(options.begins.unwrap_or(A_MONDAY), workload.lasts, arrivals, options))
    }

    /// One that was recorded, in any order. It begins with its first job and ends with its last one.
    pub fn recorded(mut rows: Vec<Row>, options: &TraceOptions) -> Self {
        rows.sort_by_key(|row| row.arrival_us);
        let first = rows.first().map_or(0, |row| row.arrival_us);
        let last = rows.last().map_or(0, |row| row.arrival_us);
        let arrivals = rows.into_iter().map(|row| (SimTime(row.arrival_us - first), row.service)).collect();
        let own = Timestamp(first / 1_000);
        let begins = options.begins.unwrap_or(if own < FIRST_DATE { A_MONDAY } else { own });
        Self::new(begins, Duration::from_micros(last - first), arrivals, options)
    }

    fn new(
        begins: Timestamp,
        lasts: Duration,
        arrivals: Vec<(SimTime, Option<Duration>)>,
        options: &TraceOptions,
    ) -> Self {
        let known: Vec<Duration> = arrivals.iter().filter_map(|(_, service)| *service).collect();
        let (told, jobs) = (known.len(), arrivals.len());
        let (times, services) = match &options.service {
            Some(times) => (times.clone(), times.to_string()),
            None if told == 0 => (DEFAULT_SERVICE, format!("{DEFAULT_SERVICE} (assumed)")),
            None if told == jobs => (Times::Observed(known), "from the trace".to_owned()),
            None => {
                let others = jobs - told;
                (Times::Observed(known), format!("{told} from the trace, the other {others} drawn from those"))
            }
        };
        let mut random = row(options.seed, Purpose::Services);
        let chosen = options.service.is_some();
        let job = |(arrives, service): (SimTime, Option<Duration>)| {
            let service = service.filter(|_| !chosen).unwrap_or_else(|| times.sample(&mut random));
            TraceJob { arrives, service }
        };
        Self { begins, lasts, jobs: arrivals.into_iter().map(job).collect(), services }
    }

    /// Workers that would be busy all the time if each job were begun at once: the work that comes in, by time.
    pub fn offered_load(&self) -> f64 {
        let work: f64 = self.jobs.iter().map(|job| job.service.as_secs_f64()).sum();
        if self.lasts.is_zero() { 0.0 } else { work / self.lasts.as_secs_f64() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(rows: &[(u64, Option<u64>)]) -> Vec<Row> {
        rows.iter()
            .map(|(at, service)| Row { arrival_us: at * 1_000, service: service.map(Duration::from_millis) })
            .collect()
    }

    #[test]
    fn a_recording_begins_with_its_first_job_whatever_the_order() {
        let trace = Trace::recorded(rows(&[(5_000, Some(7)), (2_000, Some(9))]), &TraceOptions::default());
        let job = |ms: u64, service| TraceJob { arrives: SimTime(ms * 1_000), service: Duration::from_millis(service) };
        assert_eq!(trace.jobs, [job(0, 9), job(3_000, 7)]);
        assert_eq!((trace.begins, trace.lasts), (A_MONDAY, Duration::from_secs(3)));
        assert_eq!(trace.services, "from the trace");
    }

    #[test]
    fn unknown_services_are_drawn_from_the_known_ones_and_a_distribution_wins_over_all() {
        let some = rows(&[(0, Some(7)), (1, None), (2, None)]);
        let trace = Trace::recorded(some.clone(), &TraceOptions::default());
        assert!(trace.jobs.iter().all(|job| job.service == Duration::from_millis(7)), "{trace:?}");
        assert_eq!(trace.services, "1 from the trace, the other 2 drawn from those");
        let service = Some(Times::Fixed(Duration::from_secs(1)));
        let trace = Trace::recorded(some, &TraceOptions { service, ..TraceOptions::default() });
        assert!(trace.jobs.iter().all(|job| job.service == Duration::from_secs(1)), "{trace:?}");
        assert!(Trace::recorded(rows(&[(0, None)]), &TraceOptions::default()).services.ends_with("(assumed)"));
    }
}

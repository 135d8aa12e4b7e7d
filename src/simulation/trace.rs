//! The jobs of a simulation, each with its arrival time and service time.

use std::time::Duration;

use super::{
    Row, SimTime, Times, Workload, WorkloadError,
    random::{Purpose, row},
};
use crate::model::Timestamp;

/// Service times if neither the options nor the trace give them.
const DEFAULT_SERVICE: Times = Times::Exponential(Duration::from_secs(1));

/// Start time of a trace that does not give one: a Monday at midnight, 2026-01-05T00:00:00Z.
const A_MONDAY: Timestamp = Timestamp(1_767_571_200_000);
/// A time before this one, in 1973, is not a date: the file counts from some other moment.
const FIRST_DATE: Timestamp = Timestamp(100_000_000_000);

/// One job of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceJob {
    /// When the job is put on the queue.
    pub arrives: SimTime,
    /// Time that a worker takes for the job.
    pub service: Duration,
}

/// All jobs of a simulation.
#[derive(Clone, Debug, PartialEq)]
pub struct Trace {
    /// Time of the clock at the beginning.
    pub begins: Timestamp,
    /// Duration of the arrivals.
    pub lasts: Duration,
    /// Jobs, sorted by arrival.
    pub jobs: Vec<TraceJob>,
    /// Source of the service times, in words.
    pub services: String,
}

/// How a trace is completed from generated or recorded arrivals.
#[derive(Clone, Debug, Default)]
pub struct TraceOptions {
    /// Service times that replace those of the trace.
    pub service: Option<Times>,
    /// Time of the clock at the beginning. Default: the trace's own time; for a trace without one, a Monday at
    /// midnight.
    pub begins: Option<Timestamp>,
    /// Seed of everything that is drawn at random.
    pub seed: u64,
}

impl Trace {
    /// Returns a generated trace.
    ///
    /// # Errors
    /// If the workload is invalid.
    pub fn generated(workload: &Workload, options: &TraceOptions) -> Result<Self, WorkloadError> {
        let arrivals = workload.arrivals(options.seed)?.into_iter().map(|at| (at, None)).collect();
        Ok(Self::new(options.begins.unwrap_or(A_MONDAY), workload.lasts, arrivals, options))
    }

    /// Returns a trace of recorded jobs, which may be in any order. It begins with the first arrival and ends with the
    /// last.
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
            None if told == 0 => (DEFAULT_SERVICE, assumed()),
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

    /// Returns whether nothing says how long jobs take.
    pub fn has_assumed_services(&self) -> bool {
        self.services == assumed()
    }

    /// Returns whether nothing says when the trace begins.
    pub fn has_assumed_start(&self) -> bool {
        self.begins == A_MONDAY
    }

    /// Splits the trace at a time since its beginning.
    pub fn split(&self, at: Duration) -> (Self, Self) {
        let border = SimTime::START.after(at);
        let (before, after) = self.jobs.split_at(self.jobs.partition_point(|job| job.arrives < border));
        let later = |job: &TraceJob| TraceJob { arrives: SimTime(job.arrives.0 - border.0), ..*job };
        let part = |begins, lasts, jobs| Self { begins, lasts, jobs, services: self.services.clone() };
        (
            part(self.begins, at, before.to_vec()),
            part(border.on_clock(self.begins), self.lasts.saturating_sub(at), after.iter().map(later).collect()),
        )
    }

    /// Returns the offered load: the workers that would be busy all the time if each job were started on arrival. It is
    /// the total service time divided by the duration.
    pub fn offered_load(&self) -> f64 {
        let work: f64 = self.jobs.iter().map(|job| job.service.as_secs_f64()).sum();
        if self.lasts.is_zero() { 0.0 } else { work / self.lasts.as_secs_f64() }
    }
}

/// Names the service times that are used if nothing gives them.
fn assumed() -> String {
    format!("{DEFAULT_SERVICE} (assumed)")
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
    fn both_parts_of_a_trace_are_traces() {
        let begins = FIRST_DATE.0;
        let all = [(begins, Some(7)), (begins + 2_000, Some(8)), (begins + 3_000, Some(9))];
        let trace = Trace::recorded(rows(&all), &TraceOptions::default());
        let (before, after) = trace.split(Duration::from_secs(2));
        assert_eq!((before.begins, before.lasts, before.jobs.len()), (FIRST_DATE, Duration::from_secs(2), 1));
        assert_eq!((after.begins, after.lasts), (Timestamp(begins + 2_000), Duration::from_secs(1)));
        let arrivals: Vec<u64> = after.jobs.iter().map(|job| job.arrives.0).collect();
        assert_eq!(arrivals, [0, 1_000_000]);
        assert!(!trace.has_assumed_start() && !trace.has_assumed_services());
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

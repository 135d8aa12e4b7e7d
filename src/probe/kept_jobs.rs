//! Reads which jobs arrive on the queues of a framework that keeps the times of its jobs, and how long they take,
//! without taking part: with LRANGE, ZREVRANGE, HMGET and TIME. `docs/redis.md` lists the rights.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
    time::Duration,
};

use redis::{Pipeline, Value};

use super::arrivals::{ArrivalError, Asker, MAX_LATE_INTERVALS, Recorded};
use crate::{
    connection::RedisTarget,
    model::Timestamp,
    queue_kind::{JobStage, JobTimes, TimesOfJob, explain, reply},
};

/// Jobs of one read.
const PAGE_JOBS: usize = 500;

/// Jobs that are looked for in each observation because they were not seen in the newest ones of any key.
const MISSED_JOBS: usize = 50;

/// One watched queue.
#[derive(Debug)]
struct KeptQueue {
    times: JobTimes,
    /// Jobs that are not known to have ended, by id.
    open: BTreeMap<String, Open>,
    /// Ids of jobs that are recorded, or came before the recording.
    done: HashSet<String>,
    /// Where the search for missed jobs goes on.
    missed_after: String,
}

/// What is known about an unfinished job.
#[derive(Clone, Copy, Debug)]
struct Open {
    arrived: u64,
    began: Option<u64>,
    /// Last observation, by the server's clock.
    seen_at: u64,
}

/// Watches the queues of a worker type. After an error the next observation reconnects.
#[derive(Debug)]
pub struct KeptJobsWatch {
    asker: Asker,
    queues: Vec<KeptQueue>,
    since: Timestamp,
    /// Longest time between two observations of a running job after which its end is known well enough.
    longest_gap_ms: u64,
}

/// Jobs of one page.
struct Page {
    ids: Vec<String>,
    stage: JobStage,
    /// Index of the key among the holders.
    holder: usize,
}

impl KeptJobsWatch {
    /// Watches for all jobs since `since`. With an `interval`, observations at that interval also measure the time of
    /// jobs that the framework deletes as soon as they have ended.
    pub fn new(target: Arc<RedisTarget>, queues: Vec<JobTimes>, since: Timestamp, interval: Option<Duration>) -> Self {
        let gap = interval.unwrap_or_default() * MAX_LATE_INTERVALS;
        let watched =
            |times| KeptQueue { times, open: BTreeMap::new(), done: HashSet::new(), missed_after: String::new() };
        Self {
            asker: Asker::new(target),
            queues: queues.into_iter().map(watched).collect(),
            since,
            longest_gap_ms: u64::try_from(gap.as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// Makes one observation. Adds each job to `recorded` once, when it has ended. Jobs that were added before an error
    /// count.
    ///
    /// # Errors
    /// If Redis can't be asked, or refuses a command.
    pub async fn look(&mut self, recorded: &mut Vec<Recorded>) -> Result<(), ArrivalError> {
        let now = self.asker.time().await?;
        for queue in 0..self.queues.len() {
            self.look_at(queue, now, recorded).await?;
        }
        Ok(())
    }

    /// Returns the jobs that arrived and are not known to have ended.
    pub fn rest(self) -> Vec<Recorded> {
        let rest = |(queue, kept): (usize, KeptQueue)| {
            let recorded = move |open: Open| Recorded { queue, arrival: Timestamp(open.arrived), service_ms: None };
            kept.open.into_values().map(recorded)
        };
        let mut rest: Vec<_> = self.queues.into_iter().enumerate().flat_map(rest).collect();
        rest.sort_by_key(|job| job.arrival);
        rest
    }

    /// Reads the newest jobs of each key, further back until a page brings nothing new; then the jobs that were not
    /// among them.
    async fn look_at(&mut self, queue: usize, now: u64, recorded: &mut Vec<Recorded>) -> Result<(), ArrivalError> {
        let mut skipped: BTreeMap<usize, usize> =
            (0..self.queues[queue].times.holders.len()).map(|holder| (holder, 0)).collect();
        let mut seen = BTreeSet::new();
        while !skipped.is_empty() {
            for page in self.pages(queue, &skipped).await? {
                let wanted = self.queues[queue].unread(&page);
                let is_last = page.ids.len() < PAGE_JOBS;
                seen.extend(page.ids);
                let is_news = self.read_jobs(queue, wanted, now, recorded).await?;
                if is_last || !is_news {
                    skipped.remove(&page.holder);
                } else {
                    skipped.entry(page.holder).and_modify(|skipped| *skipped += PAGE_JOBS);
                }
            }
        }
        let missed = self.queues[queue].missed(&seen);
        self.read_jobs(queue, missed, now, recorded).await?;
        Ok(())
    }

    async fn pages(&mut self, queue: usize, skipped: &BTreeMap<usize, usize>) -> Result<Vec<Page>, ArrivalError> {
        let times = &self.queues[queue].times;
        let mut pipeline = redis::pipe();
        for (holder, skipped) in skipped {
            pipeline.add_command(times.holders[*holder].page(*skipped, PAGE_JOBS));
        }
        let replies = self.asker.ask(&pipeline).await?;
        let pages = skipped.keys().zip(replies).map(|(holder, answer)| {
            let of = &times.holders[*holder];
            let elements = texts(&answer).map_err(|error| ArrivalError::Refused(explain(&of.key, &error)))?;
            let ids = elements.into_iter().flatten().map(|element| (times.id)(&element).to_owned()).collect();
            Ok(Page { ids, stage: of.stage, holder: *holder })
        });
        pages.collect()
    }

    /// Reads the times of these jobs. Returns whether one of them is new and arrived since the recording began.
    async fn read_jobs(
        &mut self,
        queue: usize,
        ids: Vec<String>,
        now: u64,
        recorded: &mut Vec<Recorded>,
    ) -> Result<bool, ArrivalError> {
        if ids.is_empty() {
            return Ok(false);
        }
        let kept = &mut self.queues[queue];
        let mut pipeline = Pipeline::new();
        for id in &ids {
            pipeline.cmd("HMGET").arg(format!("{}{id}", kept.times.prefix)).arg(kept.times.fields);
        }
        let replies = self.asker.ask(&pipeline).await?;
        let mut is_news = false;
        for (id, answer) in ids.into_iter().zip(replies) {
            let key = || format!("{}{id}", kept.times.prefix);
            let values = texts(&answer).map_err(|error| ArrivalError::Refused(explain(&key(), &error)))?;
            let times = (kept.times.parse)(&values);
            is_news |= !kept.open.contains_key(&id) && times.arrived.is_some_and(|at| at >= self.since.0);
            if let Some((arrived, service_ms)) = kept.learn(id, times, now, self.since.0, self.longest_gap_ms) {
                recorded.push(Recorded { queue, arrival: Timestamp(arrived), service_ms });
            }
        }
        Ok(is_news)
    }
}

impl KeptQueue {
    /// Returns the jobs of a page whose times must be read: new ones, and those that run or have ended.
    fn unread(&self, page: &Page) -> Vec<String> {
        let is_unread = |id: &&String| match (self.open.get(*id), page.stage) {
            (None, _) => !self.done.contains(*id),
            (Some(_), stage) => stage != JobStage::Waiting,
        };
        page.ids.iter().filter(is_unread).cloned().collect()
    }

    /// Returns open jobs that were not seen: all that have begun, since they may have ended, and some others.
    fn missed(&mut self, seen: &BTreeSet<String>) -> Vec<String> {
        let unseen = || self.open.iter().filter(|(id, _)| !seen.contains(*id));
        let mut missed: Vec<String> =
            unseen().filter(|(_, open)| open.began.is_some()).map(|(id, _)| id.clone()).collect();
        let waiting = unseen().filter(|(id, open)| open.began.is_none() && **id > self.missed_after);
        let some: Vec<String> = waiting.take(MISSED_JOBS).map(|(id, _)| id.clone()).collect();
        self.missed_after = some.last().filter(|_| some.len() == MISSED_JOBS).cloned().unwrap_or_default();
        missed.extend(some);
        missed
    }

    /// Notes what the framework tells about a job now. Returns the arrival and the duration of a job that has ended.
    fn learn(
        &mut self,
        id: String,
        times: TimesOfJob,
        now: u64,
        since: u64,
        longest_gap_ms: u64,
    ) -> Option<(u64, Option<f64>)> {
        let known = self.open.get(&id).copied();
        let service = |from: u64, to: u64| Some(Duration::from_millis(to.checked_sub(from)?).as_secs_f64() * 1_000.0);
        let ended = match (known, times) {
            (None, TimesOfJob { arrived: Some(arrived), .. }) if arrived < since => None,
            (_, TimesOfJob { arrived: Some(arrived), began: Some(began), ended: Some(ended) }) if ended >= began => {
                Some((arrived, service(began, ended)))
            }
            (known, TimesOfJob { arrived: Some(arrived), began, .. }) => {
                let arrived = known.map_or(arrived, |open| open.arrived);
                self.open.insert(id, Open { arrived, began, seen_at: now });
                return None;
            }
            // The framework has deleted it, somewhere between two observations.
            (Some(open), _) => {
                let is_sharp = now.saturating_sub(open.seen_at) <= longest_gap_ms;
                let end = u64::midpoint(open.seen_at, now);
                Some((open.arrived, open.began.filter(|_| is_sharp).and_then(|began| service(began, end))))
            }
            (None, _) => None,
        };
        self.open.remove(&id);
        self.done.insert(id);
        ended
    }
}

/// Returns the texts of an array; an empty one for a missing key.
fn texts(answer: &Value) -> Result<Vec<Option<String>>, String> {
    match answer {
        Value::Array(all) => Ok(all.iter().map(|one| reply::text(one).map(str::to_owned)).collect()),
        Value::Nil => Ok(Vec::new()),
        other => Err(reply::refusal(other).unwrap_or_else(|| format!("expected a list, found {other:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue_kind::{Framework, FrameworkSpec};

    const SINCE: u64 = 1_000;
    const GAP: u64 = 400;

    fn queue() -> KeptQueue {
        let spec = FrameworkSpec {
            framework: Framework::BullMq,
            queues: vec!["mail".to_owned()],
            prefix: "bull".to_owned(),
            late_acknowledgement: false,
            visibility_timeout: Duration::ZERO,
            longest_job: None,
        };
        let times = Framework::BullMq.profile().job_times(&spec, "mail").expect("it keeps them");
        KeptQueue { times, open: BTreeMap::new(), done: HashSet::new(), missed_after: String::new() }
    }

    fn told(arrived: u64, began: Option<u64>, ended: Option<u64>) -> TimesOfJob {
        TimesOfJob { arrived: Some(arrived), began, ended }
    }

    fn learn(queue: &mut KeptQueue, times: TimesOfJob, now: u64) -> Option<(u64, Option<f64>)> {
        queue.learn("a".to_owned(), times, now, SINCE, GAP)
    }

    #[test]
    fn a_job_is_recorded_once_with_the_times_that_its_framework_tells() {
        let mut queue = queue();
        assert_eq!(learn(&mut queue, told(2_000, None, None), 2_100), None);
        assert_eq!(learn(&mut queue, told(2_000, Some(2_200), None), 2_300), None);
        let ended = learn(&mut queue, told(2_000, Some(2_200), Some(2_700)), 9_000);
        assert_eq!(ended, Some((2_000, Some(500.0))));
        let page = Page { ids: vec!["a".to_owned()], stage: JobStage::Ended, holder: 0 };
        assert!(queue.unread(&page).is_empty() && queue.open.is_empty(), "it is done");
    }

    #[test]
    fn a_job_that_came_before_the_recording_is_not_recorded() {
        let mut queue = queue();
        assert_eq!(learn(&mut queue, told(999, Some(2_000), Some(3_000)), 3_100), None);
        assert!(queue.open.is_empty() && queue.done.contains("a"));
    }

    #[test]
    fn the_end_of_a_deleted_job_lies_between_two_looks_or_is_unknown() {
        for (now, service) in [(2_500, Some(250.0)), (5_000, None)] {
            let mut queue = queue();
            assert_eq!(learn(&mut queue, told(2_000, Some(2_200), None), 2_400), None);
            assert_eq!(learn(&mut queue, TimesOfJob::default(), now), Some((2_000, service)));
        }
        let mut queue = queue();
        assert_eq!(learn(&mut queue, told(2_000, None, None), 2_400), None);
        let gone = learn(&mut queue, TimesOfJob::default(), 2_500);
        assert_eq!(gone, Some((2_000, None)), "nobody saw when it began");
    }

    #[test]
    fn an_attempt_that_failed_is_not_the_end_of_a_job_that_runs_again() {
        let mut queue = queue();
        assert_eq!(learn(&mut queue, told(2_000, Some(3_000), Some(2_500)), 3_100), None);
        assert!(queue.open.contains_key("a"));
    }

    #[test]
    fn jobs_that_no_page_shows_are_looked_for_in_turn() {
        let mut queue = queue();
        for number in 0..120 {
            let began = (number == 7).then_some(2_000);
            queue.learn(format!("{number:03}"), told(2_000, began, None), 2_100, SINCE, GAP);
        }
        let seen = BTreeSet::from(["000".to_owned()]);
        let mut found = BTreeSet::new();
        for _ in 0..3 {
            let missed = queue.missed(&seen);
            assert_eq!(missed[0], "007", "it may have ended at any time");
            assert!(missed.len() <= MISSED_JOBS + 1, "{}", missed.len());
            found.extend(missed);
        }
        assert_eq!(found.len(), 119, "all but the one that was seen");
    }
}

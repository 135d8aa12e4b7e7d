//! Where a framework writes when its jobs arrived, began and ended.

use redis::Cmd;

/// The keys of one queue that name its jobs, and what the hash of each job tells. Describes reads only.
#[derive(Clone, Debug)]
pub struct JobTimes {
    /// Keys that name jobs.
    pub holders: Vec<JobHolder>,
    /// Returns the id of a job, from an element of such a key.
    pub id: fn(&str) -> &str,
    /// Part of the key of a job's hash before the job's id.
    pub prefix: String,
    /// Fields of the hash.
    pub fields: &'static [&'static str],
    /// Parses the values of the fields.
    pub parse: fn(&[Option<String>]) -> TimesOfJob,
}

/// What a framework tells about one job, in milliseconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimesOfJob {
    /// When it came to its queue; for a delayed job, when it was due.
    pub arrived: Option<u64>,
    /// When a worker began it; for a job that was retried, the last time.
    pub began: Option<u64>,
    /// When it ended; for a job that was retried, the last time.
    pub ended: Option<u64>,
}

/// A key that names jobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobHolder {
    /// The key.
    pub key: String,
    /// Where its newest job is.
    pub order: Order,
    /// What its jobs do.
    pub stage: JobStage,
}

/// Where the newest job of a key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// In a list, the first one.
    NewestFirst,
    /// In a list, the last one.
    NewestLast,
    /// In a sorted set, the one with the highest score.
    Scored,
}

/// What the jobs of a key do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobStage {
    /// They wait for a worker.
    Waiting,
    /// They run.
    Running,
    /// They have ended, and the framework keeps them for a while.
    Ended,
}

impl JobHolder {
    /// Returns the command that reads `count` elements after the newest `skipped` ones.
    pub fn page(&self, skipped: usize, count: usize) -> Cmd {
        let (newest, oldest) = (skipped, skipped + count - 1);
        let mut command = match self.order {
            Order::NewestFirst | Order::NewestLast => redis::cmd("LRANGE"),
            Order::Scored => redis::cmd("ZREVRANGE"),
        };
        command.arg(&self.key);
        match self.order {
            Order::NewestFirst | Order::Scored => command.arg(newest).arg(oldest),
            Order::NewestLast => command.arg(format!("-{}", oldest + 1)).arg(format!("-{}", newest + 1)),
        };
        command
    }
}

/// Returns the times of the jobs of a queue of Bull or BullMQ. The lists are those of both, which have the newest job
/// first; `sets` are its sorted sets of waiting jobs.
pub(super) fn of_bull(prefix: &str, queue: &str, sets: &[&str]) -> JobTimes {
    let holder = |what: &str, order, stage| JobHolder { key: format!("{prefix}:{queue}:{what}"), order, stage };
    let mut holders = vec![
        holder("wait", Order::NewestFirst, JobStage::Waiting),
        holder("paused", Order::NewestFirst, JobStage::Waiting),
        holder("active", Order::NewestFirst, JobStage::Running),
        holder("completed", Order::Scored, JobStage::Ended),
        holder("failed", Order::Scored, JobStage::Ended),
    ];
    holders.extend(sets.iter().map(|what| holder(what, Order::Scored, JobStage::Waiting)));
    JobTimes {
        holders,
        id: |element| element,
        prefix: format!("{prefix}:{queue}:"),
        fields: &["timestamp", "opts", "processedOn", "finishedOn"],
        parse: |values| {
            let text = |place: usize| values.get(place)?.as_deref();
            let at = |place: usize| text(place)?.parse::<u64>().ok();
            let options = text(1).and_then(|options| serde_json::from_str::<serde_json::Value>(options).ok());
            let delay = options.and_then(|options| options["delay"].as_u64()).unwrap_or(0);
            TimesOfJob { arrived: at(0).map(|at| at.saturating_add(delay)), began: at(2), ended: at(3) }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_begin_with_the_newest_job() {
        let page = |order, skipped| {
            let holder = JobHolder { key: "k".to_owned(), order, stage: JobStage::Waiting };
            let packed = holder.page(skipped, 500).get_packed_command();
            let text = String::from_utf8(packed).expect("it is text");
            text.split("\r\n").filter(|part| !part.starts_with(['*', '$'])).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(page(Order::NewestFirst, 0), "LRANGE k 0 499 ");
        assert_eq!(page(Order::NewestLast, 0), "LRANGE k -500 -1 ");
        assert_eq!(page(Order::NewestLast, 500), "LRANGE k -1000 -501 ");
        assert_eq!(page(Order::Scored, 500), "ZREVRANGE k 500 999 ");
    }

    #[test]
    fn a_delayed_job_of_bull_arrives_when_it_is_due() {
        let times = of_bull("bull", "mail", &["prioritized"]);
        let values = |values: [Option<&str>; 4]| (times.parse)(&values.map(|value| value.map(str::to_owned)));
        let ended = values([Some("1000"), Some("{\"delay\":500}"), Some("1600"), Some("1900")]);
        assert_eq!(ended, TimesOfJob { arrived: Some(1_500), began: Some(1_600), ended: Some(1_900) });
        let waits = values([Some("1000"), Some("{\"attempts\":0}"), None, None]);
        assert_eq!(waits, TimesOfJob { arrived: Some(1_000), ..TimesOfJob::default() });
        assert_eq!(values([None, Some("no JSON"), None, None]), TimesOfJob::default());
    }
}

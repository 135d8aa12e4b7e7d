//! Which queues are recorded, and how: streams by their entries, the queues of a framework by the times that it keeps.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use anyhow::bail;

use crate::{
    broker::find_queues,
    config::{Settings, WorkerTypeSettings},
    connection::RedisTarget,
    model::{Queues, Timestamp},
    probe::{ArrivalError, ArrivalWatch, KeptJobsWatch, QueueSpec, Recorded, server_time},
    queue_kind::{Delivery, JobTimes},
};

/// Maximum queues of one worker type found by patterns that are recorded.
const MAX_FOUND: usize = 1_000;

/// Queues that are watched together.
pub(super) struct Source {
    /// Worker type of each queue.
    pub(super) names: Vec<String>,
    watch: Watch,
}

enum Watch {
    Streams(ArrivalWatch),
    Framework(KeptJobsWatch),
}

/// How to watch.
#[derive(Clone, Copy)]
pub(super) struct Manner {
    /// How long ago the first job may have arrived; `None` for the default.
    pub(super) since: Option<Duration>,
    /// Interval between two observations, if there are several.
    pub(super) interval: Option<Duration>,
}

impl Source {
    /// Makes one observation.
    pub(super) async fn look(&mut self, recorded: &mut Vec<Recorded>) -> Result<(), ArrivalError> {
        match &mut self.watch {
            Watch::Streams(watch) => watch.look(recorded).await,
            Watch::Framework(watch) => watch.look(recorded).await,
        }
    }

    /// Returns the names of the worker types, and the jobs that are not known to have ended.
    pub(super) fn rest(self) -> (Vec<String>, Vec<Recorded>) {
        let rest = match self.watch {
            Watch::Streams(watch) => watch.rest(),
            Watch::Framework(watch) => watch.rest(),
        };
        (self.names, rest)
    }
}

impl Manner {
    async fn since(self, target: &Arc<RedisTarget>) -> Result<Timestamp, ArrivalError> {
        if self.since.is_none() && self.interval.is_none() {
            return Ok(Timestamp(0));
        }
        let now = server_time(target.clone()).await?;
        let ago = self.since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
        Ok(Timestamp(now.0.saturating_sub(ago)))
    }
}

/// Returns what to watch for the worker types with these names; without names, for all that can be recorded.
///
/// # Errors
/// If a worker type does not exist or can't be recorded, or Redis can't be asked.
pub(super) async fn sources(settings: &Settings, wanted: &[String], manner: Manner) -> anyhow::Result<Vec<Source>> {
    let mut chosen = Vec::new();
    if wanted.is_empty() {
        let all = settings.worker_types.iter().map(|(name, of)| (name.as_str(), of));
        chosen.extend(all.filter(|(name, of)| is_stream(of) || job_times(name, of).is_some()));
    }
    for name in wanted.iter().collect::<BTreeSet<_>>() {
        chosen.push((name.as_str(), settings_of(settings, name)?));
    }
    if chosen.is_empty() {
        bail!("the configuration has no worker type that can be recorded; add a [worker_types.NAME] with a stream")
    }
    let (streams, others): (Vec<_>, Vec<_>) = chosen.into_iter().partition(|(_, of)| is_stream(of));
    let mut sources = Vec::new();
    if !streams.is_empty() {
        sources.push(of_streams(settings, &streams, manner).await?);
    }
    for (name, of) in others {
        let Some(queues) = job_times(name, of) else {
            bail!(
                "the queue of `{name}` ({}) keeps no times; only streams and the queues of rq, bullmq and bull can be \
                 recorded",
                of.queue_kind().name()
            )
        };
        let url = settings.queue_redis_url(of);
        let target = Arc::new(RedisTarget::new(url, settings.scaler.redis_timeout())?);
        let since = manner.since(&target).await?;
        let names = vec![name.to_owned(); queues.len()];
        let watch = Watch::Framework(KeptJobsWatch::new(target, queues, since, manner.interval));
        sources.push(Source { names, watch });
    }
    Ok(sources)
}

fn is_stream(of: &WorkerTypeSettings) -> bool {
    of.queue_kind().delivery() == Delivery::ConsumerGroup
}

/// Returns where a framework keeps the times of the jobs of each queue; `None` if it does not, or there is none.
fn job_times(name: &str, of: &WorkerTypeSettings) -> Option<Vec<JobTimes>> {
    let spec = of.queue_spec(name).framework?;
    spec.queues.iter().map(|queue| spec.framework.profile().job_times(&spec, queue)).collect()
}

/// Returns the settings of a worker type.
fn settings_of<'a>(settings: &'a Settings, name: &str) -> anyhow::Result<&'a WorkerTypeSettings> {
    let Some(found) = settings.worker_types.get(name) else {
        let known: Vec<_> = settings.worker_types.keys().map(String::as_str).collect();
        bail!("no worker type `{name}` in the configuration; there are: {}", known.join(", "))
    };
    Ok(found)
}

async fn of_streams(
    settings: &Settings,
    types: &[(&str, &WorkerTypeSettings)],
    manner: Manner,
) -> anyhow::Result<Source> {
    let target = Arc::new(RedisTarget::new(&settings.redis_url, settings.scaler.redis_timeout())?);
    let queues: Vec<Queues> = types.iter().map(|(name, of)| of.queues(name)).collect();
    let found = if queues.iter().all(|queues| queues.patterns.is_empty()) {
        vec![BTreeSet::new(); queues.len()]
    } else {
        find_queues(&target.connect().await?, &queues.iter().collect::<Vec<_>>(), MAX_FOUND).await?
    };
    let (mut names, mut specs) = (Vec::with_capacity(types.len()), Vec::with_capacity(types.len()));
    for (((name, of), queues), found) in types.iter().zip(&queues).zip(found) {
        for key in queues.named().map(str::to_owned).chain(found) {
            names.push((*name).to_owned());
            specs.push(QueueSpec { key: key.into(), ..of.queue_spec(name) });
        }
    }
    let since = manner.since(&target).await?;
    Ok(Source { names, watch: Watch::Streams(ArrivalWatch::new(target, specs, since, manner.interval)) })
}

//! Tells a job's life: where it is, what happened to it, and why it has no result. Only reads.

use redis::streams::StreamPendingCountReply;

use super::{
    BrokerError, CallError, Client, Job, JobResult, Place, Subject,
    dead::DeadEntry,
    delivery::earlier_deliveries,
    exact, explain,
    locate::{ahead, dead_letter},
    place::permitted,
    progress::progress_of,
    search::{Found, find},
};
use crate::{
    config::{JobSettings, Settings},
    connection::Connection,
    model::{
        StreamId,
        job::{JobReport, JobState},
        keys,
        progress::ReportedProgress,
    },
};

/// Looks at a job that is each time no longer where it was found.
const MAX_LOOKS: usize = 100;

/// Result of one look at one place.
enum Seen {
    Here(Box<JobReport>),
    /// The job was at this entry when it was looked for, and no longer: it moved or ended.
    Left(String),
    Nothing,
}

impl Client {
    /// Returns what is known about a job; `None` if there is no such job any more. Looks at the jobs of all queues that
    /// are not finished.
    ///
    /// # Errors
    /// If Redis can't be asked.
    pub async fn job(&self, id: &str) -> Result<Option<JobReport>, CallError> {
        self.ask(|mut connection| async move {
            let places = self.places(&connection).await?;
            let mut left = Vec::new();
            for _ in 0..MAX_LOOKS {
                let mut left_since = Vec::new();
                for place in &places {
                    let seen = unfinished(&mut connection, self.settings(), place, id).await;
                    match permitted(place, seen)? {
                        Some(Seen::Here(report)) => return Ok(Some(*report)),
                        Some(Seen::Left(entry)) => left_since.push(entry),
                        Some(Seen::Nothing) | None => {}
                    }
                }
                // A job that is retried all the time has a new entry each time; one that ended has the same.
                if left_since == left {
                    break;
                }
                left = left_since;
            }
            ended(&mut connection, self.settings(), &places, id).await
        })
        .await
    }
}

async fn unfinished(
    connection: &mut Connection,
    settings: &Settings,
    place: &Place,
    id: &str,
) -> Result<Seen, BrokerError> {
    let mut seen = Seen::Nothing;
    for found in find(connection, place, id).await?.into_iter().rev() {
        let mut report = match &found {
            Found::Delayed { job, due, .. } => {
                let state = JobState::Delayed { due: *due };
                JobReport { state, ..report(job, settings, place) }
            }
            Found::Entry { job, entry } => {
                let Some((state, deliveries)) = on_stream(connection, place, id, entry).await? else {
                    if matches!(seen, Seen::Nothing) {
                        seen = Seen::Left(entry.clone());
                    }
                    continue;
                };
                let (deaths, interruption) = earlier_deliveries(deliveries);
                let of_job = report(job, settings, place);
                JobReport {
                    entry: Some(entry.clone()),
                    failed_attempts: of_job.failed_attempts.saturating_add(deaths),
                    interruptions: of_job.interruptions.saturating_add(interruption),
                    deliveries,
                    state,
                    ..of_job
                }
            }
        };
        let due = match &report.state {
            JobState::Delayed { due } => Some(*due),
            _ => None,
        };
        let subject = Subject { id: id.to_owned(), entry: report.entry.clone(), due };
        let why = explain(connection, place, &subject).await;
        report.progress = reported(connection, place, &report).await;
        report.why = why.lines().map(|line| line.trim_start_matches("  - ").to_owned()).collect();
        return Ok(Seen::Here(Box::new(report)));
    }
    Ok(seen)
}

/// Returns the progress of a running job, if the worker that runs it has reported any. Without the right to read it,
/// the job is told without.
async fn reported(connection: &mut Connection, place: &Place, report: &JobReport) -> Option<ReportedProgress> {
    let JobState::Running { worker, .. } = &report.state else { return None };
    match progress_of(connection, &place.stream, &report.id).await {
        Ok(reported) => reported.filter(|reported| reported.worker == *worker),
        Err(error) => {
            tracing::debug!(%error, "a job is told without its progress");
            None
        }
    }
}

/// Returns where the entry is, and how many times it was delivered; `None` if the group has finished it.
async fn on_stream(
    connection: &mut Connection,
    place: &Place,
    id: &str,
    entry: &str,
) -> Result<Option<(JobState, u32)>, BrokerError> {
    let failed = |cause| BrokerError::new(format!("look at a job of `{}`", place.stream), cause);
    let group = explain::groups(connection, place).await.map_err(failed)?;
    let last = group.as_ref().map_or("0-0", |group| group.last_delivered_id.as_str());
    if StreamId::parse(entry) > StreamId::parse(last) {
        let mut marked = redis::cmd("HEXISTS");
        marked.arg(connection.layout().cancelled(&place.stream)).arg(id);
        if marked.query_async(connection).await.map_err(failed)? {
            return Ok(Some((JobState::Cancelled, 0)));
        }
        let ahead = ahead(connection, place, entry, last).await.map_err(failed)?;
        return Ok(Some((JobState::Waiting { ahead }, 0)));
    }
    let mut pending = redis::cmd("XPENDING");
    pending.arg(&place.stream).arg(&place.group).arg(entry).arg(entry).arg(1);
    let reply: StreamPendingCountReply = pending.query_async(connection).await.map_err(failed)?;
    let Some(held) = reply.ids.into_iter().next() else { return Ok(None) };
    let mut state = redis::cmd("HGET");
    state.arg(place.heartbeat(&held.consumer)).arg("state");
    let (worker, state): (_, Option<String>) = (held.consumer, state.query_async(connection).await.map_err(failed)?);
    let deliveries = u32::try_from(held.times_delivered).unwrap_or(u32::MAX);
    Ok(Some(match state {
        Some(worker_state) => (JobState::Running { worker, worker_state }, deliveries),
        None => (JobState::Lost { worker }, deliveries),
    }))
}

async fn ended(
    connection: &mut Connection,
    settings: &Settings,
    places: &[Place],
    id: &str,
) -> Result<Option<JobReport>, BrokerError> {
    for place in places {
        if let Some(DeadEntry { letter, job }) = dead_letter(connection, place, id).await {
            let key = connection.layout().dead_letters(&place.stream);
            let (attempts, interruptions) = (letter.attempts, letter.interruptions);
            let of_job = job.map(|job| report(&job, settings, place));
            let (at, reason) = (letter.at, letter.reason);
            let state = JobState::Dead { key, letter: letter.entry, at, reason, error: letter.error };
            return Ok(of_job.map(|of_job| JobReport {
                entry: Some(letter.source_entry),
                failed_attempts: attempts,
                interruptions,
                state,
                ..of_job
            }));
        }
    }
    let mut first = redis::cmd("LINDEX");
    first.arg(keys::result(id)).arg(0);
    let reply = first.query_async(connection).await;
    let result: Option<Vec<u8>> = reply.map_err(|cause| BrokerError::new("look for a result", cause))?;
    let result = result.and_then(|json| exact::from_slice::<JobResult>(&json).ok());
    Ok(result.map(|result| JobReport {
        id: id.to_owned(),
        job_type: None,
        stream: None,
        entry: None,
        published: None,
        deadline: None,
        reply_by: None,
        failed_attempts: 0,
        max_attempts: None,
        interruptions: 0,
        deliveries: 0,
        state: JobState::Finished { ok: result.ok, error: result.error },
        progress: None,
        why: Vec::new(),
    }))
}

/// Returns what the job itself says.
fn report(job: &Job, settings: &Settings, place: &Place) -> JobReport {
    let of_type = place.worker_type.as_ref().and_then(|name| settings.worker_types.get(name));
    let jobs = of_type.map_or_else(JobSettings::default, |of| JobSettings::clone(&of.jobs));
    JobReport {
        id: job.id.clone(),
        job_type: Some(job.job_type.clone()),
        stream: Some(place.stream.clone()),
        entry: None,
        published: job.created_ts.map(super::envelope::timestamp),
        deadline: job.deadline(),
        reply_by: job.reply_by_ts.map(super::envelope::timestamp),
        failed_attempts: job.attempt,
        max_attempts: Some(job.attempts_allowed(&jobs)),
        interruptions: job.interruptions,
        deliveries: 0,
        state: JobState::Waiting { ahead: 0 },
        progress: None,
        why: Vec::new(),
    }
}

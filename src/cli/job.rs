//! `swarm job`: a job's life.

use std::{process::ExitCode, sync::Arc};

use super::{
    ConfigFlags, output,
    view::words::{date_time, duration, printable},
};
use crate::{
    broker::Client,
    config::Settings,
    connection::RedisTarget,
    model::{
        Timestamp,
        job::{JobReport, JobState},
    },
};

/// Show a job: where it is, what happened to it, and why it has no result
///
/// Looks for the job on the queues of all configured worker types and on the stream of the other job types, among the
/// newest dead letters, and for its result. Exits with 1 if there is no such job any more.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  swarm job 0199f1c2-7d3e-7c61-9f7a-0d5f3a1b2c3d
  swarm job order-4711 --json")]
pub struct JobArgs {
    /// The configuration.
    #[command(flatten)]
    pub config: ConfigFlags,
    /// Id of the job
    #[arg(value_name = "ID")]
    pub id: String,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Runs `swarm job`.
pub async fn run(args: JobArgs, settings: Arc<Settings>) -> anyhow::Result<ExitCode> {
    let target = RedisTarget::new(&settings.redis_url, settings.scaler.redis_timeout())?;
    let client = Client::new(settings, target);
    let Some(report) = client.job(&args.id).await? else {
        output::error_line(&format!(
            "error: there is no job {}: it has ended and its result was fetched, or its queue is not in this configuration",
            printable(&args.id)
        ))?;
        return Ok(ExitCode::FAILURE);
    };
    if args.json {
        output::json(&report)?;
    } else {
        output::line(&text(&report, Timestamp::wall()))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn text(report: &JobReport, now: Timestamp) -> String {
    let job_type = report.job_type.as_deref().map(printable).unwrap_or_default();
    let mut lines = vec![format!("{} {job_type}", printable(&report.id)).trim_end().to_owned()];
    let mut row = |name: &str, value: String| lines.push(format!("  {name:<14}{value}"));
    row("state", state(&report.state, now));
    if let Some(at) = report.published {
        row("published", format!("{}, {} ago", date_time(at), duration(now.since(at))));
    }
    if let Some(stream) = &report.stream {
        let entry = report.entry.as_ref().map(|entry| format!(", entry {}", printable(entry))).unwrap_or_default();
        row("stream", format!("{}{entry}", printable(stream)));
    }
    if report.deliveries > 0 {
        row("deliveries", report.deliveries.to_string());
    }
    if let Some(max) = report.max_attempts {
        row("attempts", format!("{} of {max} failed; {} interruptions", report.failed_attempts, report.interruptions));
    }
    if let Some(reported) = &report.progress {
        row(
            "progress",
            format!("{}, {} ago", printable(&reported.progress.to_string()), duration(now.since(reported.at))),
        );
    }
    if let Some(at) = report.deadline {
        row("deadline", date_time(at));
    }
    if let Some(at) = report.reply_by {
        row("waited for", format!("until {}", date_time(at)));
    }
    for (number, why) in report.why.iter().enumerate() {
        row(if number == 0 { "why" } else { "" }, printable(why));
    }
    lines.join("\n")
}

fn state(state: &JobState, now: Timestamp) -> String {
    match state {
        JobState::Delayed { due } if *due > now => format!("delayed, due in {}", duration(due.since(now))),
        JobState::Delayed { .. } => "delayed, due now".to_owned(),
        JobState::Waiting { ahead } => format!("waiting, {ahead} jobs ahead"),
        JobState::Running { worker, worker_state } => {
            format!("running on {} ({})", printable(worker), printable(worker_state))
        }
        JobState::Lost { worker } => format!("lost by {}, which died; another worker takes it over", printable(worker)),
        JobState::Cancelled => "cancelled; the worker that takes it drops it".to_owned(),
        JobState::Dead { key, letter, at, reason, error } => format!(
            "dead letter {} in {} since {}: {}, {}",
            printable(letter),
            printable(key),
            date_time(*at),
            printable(reason),
            printable(error)
        ),
        JobState::Finished { ok: true, .. } => "done; its result waits to be fetched".to_owned(),
        JobState::Finished { error, .. } => {
            format!("failed: {}", printable(error.as_deref().unwrap_or("without an error")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::progress::{Progress, ReportedProgress};

    #[test]
    fn a_job_is_told_with_all_that_is_known() {
        let report = waiting();
        let text = text(&report, Timestamp(65_005));
        for line in [
            "a t.work",
            "  state         waiting, 3 jobs ahead",
            "  stream        t:jobs, entry 5-0",
            "  attempts      1 of 5 failed; 2 interruptions",
            "  why           no worker",
            "                no autoscaler",
        ] {
            assert!(text.lines().any(|found| found == line), "no {line:?} in:\n{text}");
        }
    }

    #[test]
    fn progress_is_told_with_its_age_and_without_control_characters() {
        let progress = Progress::new("page\u{1b}[2J 2 of 5").with_fraction(0.4);
        let reported = ReportedProgress { worker: "w1".to_owned(), at: Timestamp(60_000), progress };
        let text = text(&JobReport { progress: Some(reported), ..waiting() }, Timestamp(65_005));
        assert!(text.contains("\n  progress      40 %: page\u{fffd}[2J 2 of 5, 5 s ago\n"), "{text}");
    }

    fn waiting() -> JobReport {
        JobReport {
            id: "a".to_owned(),
            job_type: Some("t.work".to_owned()),
            stream: Some("t:jobs".to_owned()),
            entry: Some("5-0".to_owned()),
            published: Some(Timestamp(5)),
            deadline: None,
            reply_by: None,
            failed_attempts: 1,
            max_attempts: Some(5),
            interruptions: 2,
            deliveries: 0,
            state: JobState::Waiting { ahead: 3 },
            progress: None,
            why: vec!["no worker".to_owned(), "no autoscaler".to_owned()],
        }
    }
}

//! Progress of running jobs on Redis: one hash with a TTL for each job that reports any, beside the job's stream. The
//! worker that holds the job writes it and removes it; whoever waits for the job, or asks about it, reads it.

use std::time::Duration;

use super::{BrokerError, CallError, Client, Consumer};
use crate::{
    connection::Connection,
    model::{
        Timestamp,
        progress::{Progress, ReportedProgress},
    },
};

const PROGRESS: &str = include_str!("lua/progress.lua");
const END: &str = include_str!("lua/progress_end.lua");
/// TTL of the progress, after which that of a dead worker's job is gone. The worker writes it again before.
pub const PROGRESS_TTL: Duration = Duration::from_secs(60);

impl Consumer {
    /// Writes the progress of the job `id`, whose claim is `entry` with the number of its delivery. Returns `false` if
    /// this consumer does not hold the job any more; then nothing is written.
    ///
    /// # Errors
    /// If Redis did not carry it out.
    pub async fn report_progress(
        &self,
        connection: &mut Connection,
        id: &str,
        (entry, number): (&str, u32),
        (progress, at): (&Progress, Timestamp),
    ) -> Result<bool, BrokerError> {
        let fraction = progress.fraction.map(|fraction| fraction.to_string()).unwrap_or_default();
        let mut command = redis::cmd("EVAL");
        command.arg(PROGRESS).arg(2).arg(&self.stream).arg(connection.layout().progress(&self.stream, id));
        command.arg(&self.group).arg(&self.name).arg(entry).arg(number).arg(PROGRESS_TTL.as_millis().to_string());
        command.arg("worker").arg(&self.name).arg("at").arg(at.0);
        command.arg("text").arg(&progress.text).arg("fraction").arg(fraction);
        command.query_async(connection).await.map_err(|cause| self.failed("report the progress of a job", cause))
    }

    /// Removes the progress of the job `id`, which does not run here any more, unless another worker has written it.
    ///
    /// # Errors
    /// If Redis did not carry it out. The progress expires by itself.
    pub async fn end_progress(&self, connection: &mut Connection, id: &str) -> Result<(), BrokerError> {
        let mut command = redis::cmd("EVAL");
        command.arg(END).arg(1).arg(connection.layout().progress(&self.stream, id)).arg(&self.name);
        command.exec_async(connection).await.map_err(|cause| self.failed("remove the progress of a job", cause))
    }
}

/// Returns the progress of the job `id` of `stream`; `None` if it has reported none, or does not run.
///
/// # Errors
/// If Redis can't be asked.
pub async fn progress_of(
    connection: &mut Connection,
    stream: &str,
    id: &str,
) -> Result<Option<ReportedProgress>, BrokerError> {
    let mut command = redis::cmd("HMGET");
    command.arg(connection.layout().progress(stream, id)).arg(&["worker", "at", "text", "fraction"]);
    let fields: Vec<Option<String>> = command
        .query_async(connection)
        .await
        .map_err(|cause| BrokerError::new(format!("read the progress of a job of `{stream}`"), cause))?;
    Ok(parse(fields))
}

/// Reads the fields of the hash, which workers in other languages write too.
fn parse(fields: Vec<Option<String>>) -> Option<ReportedProgress> {
    let mut fields = fields.into_iter().map(Option::unwrap_or_default);
    let (worker, at, text, fraction) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    let progress = Progress { text, fraction: fraction.parse().ok() }.bounded();
    let is_some = !progress.text.is_empty() || progress.fraction.is_some();
    is_some.then(|| ReportedProgress { worker, at: Timestamp(at.parse().unwrap_or_default()), progress })
}

impl Client {
    /// Returns the progress of the job `id`, which is on the stream of its type; `None` without the right to read it.
    pub(super) async fn progress(&self, job_type: &str, id: &str) -> Result<Option<ReportedProgress>, CallError> {
        let stream = self.stream(job_type)?;
        self.ask(|mut connection| async move {
            match progress_of(&mut connection, stream, id).await {
                Err(error) if error.is_denied() => Ok(None),
                read => read,
            }
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(fields: [&str; 4]) -> Option<ReportedProgress> {
        parse(fields.map(|field| (!field.is_empty()).then(|| field.to_owned())).to_vec())
    }

    #[test]
    fn what_other_workers_write_is_read_within_the_bounds() {
        let read = parsed(["w1", "5", "half\nway", "0.5"]).unwrap();
        assert_eq!((read.worker.as_str(), read.at), ("w1", Timestamp(5)));
        assert_eq!(read.progress, Progress::new("half way").with_fraction(0.5));
        assert_eq!(parsed(["w1", "x", "", "7"]).unwrap().progress, Progress::default().with_fraction(1.0));
        assert_eq!(parsed(["w1", "5", "a", "b"]).unwrap().progress, Progress::new("a"));
        assert_eq!((parsed(["", "", "", ""]), parsed(["w1", "5", "", ""]), parse(Vec::new())), (None, None, None));
    }
}

//! The dead letters of several streams as one list: read in pages, retried and dropped one by one.

use std::collections::BTreeSet;

use super::{Beside, BrokerError, DeadLetters, Routes, find_beside};
use crate::{
    config::Settings,
    connection::Connection,
    model::{
        QueuePattern, Queues, StreamId,
        dead_letter::{DeadFilter, DeadLetter, DeadLetterAction, DeadLetterDone, DeadLetterOutcome},
    },
};

/// Maximum queues of one worker type found by patterns whose dead letters are read.
const MAX_FOUND: usize = 100_000;
/// Dead letters that are acted on before more are read.
const PAGE: usize = 100;

/// The dead letters of some streams.
#[derive(Clone, Debug)]
pub struct DeadLetterStreams {
    streams: BTreeSet<String>,
    job_max_bytes: usize,
    /// Channel on which a retried job is announced.
    channel: String,
}

impl DeadLetterStreams {
    /// Returns the dead letters of one stream.
    pub fn of_stream(settings: &Settings, stream: &str) -> Self {
        Self {
            streams: [stream.to_owned()].into(),
            job_max_bytes: settings.broker.job_max_bytes(),
            channel: settings.signals.channel.clone(),
        }
    }

    /// Returns the dead letters of a worker type's queues, those that its patterns find included. `None` if it is not
    /// configured, or its jobs are a framework's.
    ///
    /// # Errors
    /// If queues can't be searched for.
    pub async fn of_type(
        connection: &Connection,
        settings: &Settings,
        worker_type: &str,
    ) -> Result<Option<Self>, BrokerError> {
        let of = settings.worker_types.get(worker_type).filter(|of| of.queue_kind().is_native());
        let Some(of) = of else { return Ok(None) };
        let streams = streams(connection, &[of.queues(worker_type)]).await?;
        Ok(Some(Self { streams: streams.into_iter().flatten().collect(), ..Self::of_stream(settings, "") }))
    }

    /// Returns the dead letters of all configured worker types, and those of the stream of other jobs.
    ///
    /// # Errors
    /// If queues can't be searched for.
    pub async fn all(connection: &Connection, settings: &Settings) -> Result<Self, BrokerError> {
        let native = settings.worker_types.iter().filter(|(_, of)| of.queue_kind().is_native());
        let queues: Vec<Queues> = native.map(|(name, of)| of.queues(name)).collect();
        let mut streams: BTreeSet<String> = streams(connection, &queues).await?.into_iter().flatten().collect();
        streams.insert(Routes::from_env(settings).default_stream().to_owned());
        Ok(Self { streams, ..Self::of_stream(settings, "") })
    }

    /// Returns the oldest `limit` dead letters that match, and those that share the last one's id: the next page begins
    /// after that id.
    ///
    /// # Errors
    /// If Redis can't be asked.
    pub async fn list(
        &self,
        connection: &mut Connection,
        filter: &DeadFilter,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, BrokerError> {
        let mut found = Vec::new();
        for stream in &self.streams {
            found.extend(self.on(stream).list(connection, filter, limit).await?);
        }
        let id = |letter: &DeadLetter| StreamId::parse(&letter.entry);
        found.sort_by_cached_key(id);
        if let Some(last) = limit.checked_sub(1).and_then(|last| found.get(last)) {
            let last = id(last);
            found.truncate(found.partition_point(|letter| id(letter) <= last));
        } else if limit == 0 {
            found.clear();
        }
        Ok(found)
    }

    /// Returns the number of all dead letters.
    ///
    /// # Errors
    /// If Redis can't be asked.
    pub async fn count(&self, connection: &mut Connection) -> Result<u64, BrokerError> {
        let mut total = 0;
        for stream in &self.streams {
            total += self.on(stream).count(connection).await?;
        }
        Ok(total)
    }

    /// Retries or drops the present dead letters that match, at most `limit` of them, and tells of each. A job that
    /// fails again meanwhile becomes a new dead letter, which is left alone.
    ///
    /// # Errors
    /// If Redis did not carry it out, or `tell` fails. Those that were told of are done.
    pub async fn act<E: From<BrokerError>>(
        &self,
        connection: &mut Connection,
        filter: &DeadFilter,
        action: DeadLetterAction,
        limit: usize,
        mut tell: impl FnMut(&DeadLetter, DeadLetterDone) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut left = limit;
        for stream in &self.streams {
            let letters = self.on(stream);
            let Some(newest) = letters.newest(connection, 1).await?.pop() else { continue };
            let mut filter = DeadFilter { until: Some(newest.letter.entry), ..filter.clone() };
            loop {
                let page = letters.entries(connection, &filter, PAGE.min(left)).await?;
                let Some(last) = page.last() else { break };
                filter.after = Some(last.letter.entry.clone());
                left -= page.len();
                for entry in &page {
                    let letter = &entry.letter;
                    let outcome = match action {
                        DeadLetterAction::Drop => letters.remove(connection, letter).await?,
                        DeadLetterAction::Retry => letters.retry(connection, entry, &self.channel).await?,
                    };
                    tell(letter, done(letter, outcome))?;
                }
            }
        }
        Ok(())
    }

    fn on(&self, stream: &str) -> DeadLetters {
        DeadLetters::of(stream, self.job_max_bytes)
    }
}

fn done(DeadLetter { stream, entry, id, .. }: &DeadLetter, outcome: DeadLetterOutcome) -> DeadLetterDone {
    DeadLetterDone { stream: stream.clone(), entry: entry.clone(), id: id.clone(), outcome }
}

/// Returns for each of these worker types its named streams, and those that its patterns find now because they have
/// dead letters.
///
/// # Errors
/// If not every primary can be asked, and there are patterns.
pub(super) async fn streams(connection: &Connection, queues: &[Queues]) -> Result<Vec<BTreeSet<String>>, BrokerError> {
    let patterns: Vec<&[QueuePattern]> = queues.iter().map(|queues| queues.patterns.as_slice()).collect();
    let mut streams = find_beside(connection, &patterns, Beside::Dead, MAX_FOUND).await?;
    for (streams, queues) in streams.iter_mut().zip(queues) {
        streams.extend(queues.named().map(str::to_owned));
    }
    Ok(streams)
}

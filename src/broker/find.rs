//! Finds keys by their names: the queues that match patterns, and the keys that belong to such queues. Scans all keys
//! of every primary, in steps that do not block the server; returns at most the requested number.

use std::{collections::BTreeSet, io, time::Duration};

use redis::RedisResult;
use serde::{Deserialize, Serialize};

use super::BrokerError;
use crate::{
    connection::{Connection, Primaries, Scan},
    model::{Layout, QueuePattern, Queues, WorkerType, keys},
};

/// Keys that the server examines in one step.
const SCANNED: usize = 1_000;

/// Keys that belong to a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beside {
    /// Dead letters of the queue.
    Dead,
    /// Delayed jobs of the queue.
    Delayed,
}

/// Returns the streams that match the patterns of `queues` now, at most `limit` of them.
///
/// # Errors
/// If not every primary can be asked.
pub async fn find_queues(
    connection: &Connection,
    queues: &Queues,
    limit: usize,
) -> Result<BTreeSet<String>, BrokerError> {
    let mut found = BTreeSet::new();
    for pattern in &queues.patterns {
        let take = |key: String| queues.finds(&key).then_some(key);
        look(connection, pattern.as_str(), pattern, "stream", (&mut found, limit), take).await?;
    }
    Ok(found)
}

/// What one worker has found, for others of its type.
#[derive(Serialize, Deserialize)]
struct Found {
    /// Patterns of the search. Other workers may have been started with other settings.
    patterns: Vec<String>,
    queues: BTreeSet<String>,
}

/// Returns the streams that a worker of that type has [published](tell_found) recently; `None` if none has.
///
/// # Errors
/// If Redis can't be asked.
pub async fn found_lately(
    connection: &mut Connection,
    worker_type: &WorkerType,
    queues: &Queues,
) -> Result<Option<BTreeSet<String>>, BrokerError> {
    let told: RedisResult<Option<Vec<u8>>> =
        redis::cmd("GET").arg(keys::found_queues(worker_type)).query_async(connection).await;
    let told = told.map_err(|cause| BrokerError::new(format!("read the queues found for `{worker_type}`"), cause))?;
    let found: Option<Found> = told.and_then(|json| serde_json::from_slice(&json).ok());
    Ok(found.filter(|found| found.patterns.iter().eq(texts(queues))).map(|found| found.queues))
}

/// Publishes the existing streams to other workers of that type, so that they need not search for `ttl`.
///
/// # Errors
/// If Redis did not carry it out.
pub async fn tell_found(
    connection: &mut Connection,
    worker_type: &WorkerType,
    queues: &Queues,
    found: BTreeSet<String>,
    ttl: Duration,
) -> Result<(), BrokerError> {
    let found = Found { patterns: texts(queues).map(str::to_owned).collect(), queues: found };
    let json = serde_json::json!(found).to_string();
    let mut tell = redis::cmd("SET");
    tell.arg(keys::found_queues(worker_type)).arg(json).arg("PX").arg(ttl.as_millis().max(1).to_string());
    let told = tell.exec_async(connection).await;
    told.map_err(|cause| BrokerError::new(format!("tell the queues found for `{worker_type}`"), cause))
}

fn texts(queues: &Queues) -> impl Iterator<Item = &str> {
    queues.patterns.iter().map(QueuePattern::as_str)
}

/// Returns the queues, among those that match these patterns, that have dead letters or delayed jobs now, at most
/// `limit` of them. The queue itself need not exist.
///
/// # Errors
/// If not every primary can be asked.
pub async fn find_beside(
    connection: &Connection,
    patterns: &[QueuePattern],
    beside: Beside,
    limit: usize,
) -> Result<BTreeSet<String>, BrokerError> {
    let layout = connection.layout();
    let (ending, kind) = match beside {
        Beside::Dead => (":dead", "stream"),
        Beside::Delayed => (":delayed", "zset"),
    };
    let mut found = BTreeSet::new();
    for pattern in patterns {
        let take = |key: String| owner(&key, ending, layout).filter(|stream| pattern.takes(stream)).map(str::to_owned);
        let mut texts = vec![format!("{}{ending}", pattern.as_str())];
        if layout == Layout::Cluster {
            texts.push(format!("{{{}}}{ending}", pattern.as_str()));
        }
        for text in texts {
            look(connection, &text, pattern, kind, (&mut found, limit), take).await?;
        }
    }
    Ok(found)
}

/// Returns the stream to which a key with that suffix belongs.
fn owner<'a>(key: &'a str, ending: &str, layout: Layout) -> Option<&'a str> {
    let stream = key.strip_suffix(ending)?;
    let bare = stream.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
    match bare.filter(|bare| layout == Layout::Cluster && !Layout::has_hash_tag(bare)) {
        Some(bare) => Some(bare),
        None => Some(stream),
    }
}

async fn look(
    connection: &Connection,
    text: &str,
    pattern: &QueuePattern,
    kind: &str,
    (found, limit): (&mut BTreeSet<String>, usize),
    take: impl Fn(String) -> Option<String>,
) -> Result<(), BrokerError> {
    if found.len() >= limit {
        return Ok(());
    }
    let keep = |key| {
        found.extend(take(key));
        found.len() < limit
    };
    let scanned = scan(connection, text, Some(kind), keep).await;
    scanned.map_err(|cause| BrokerError::new(format!("look for queues by `{}`", pattern.as_str()), cause))
}

/// Passes all matching keys of every primary to `keep` until `keep` returns `false`.
///
/// # Errors
/// If not every primary can be asked.
pub(super) async fn scan(
    connection: &Connection,
    pattern: &str,
    kind: Option<&str>,
    mut keep: impl FnMut(String) -> bool,
) -> RedisResult<()> {
    let Primaries { open, missing } = connection.primaries().await?;
    if !missing.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotConnected, missing.join(", ")).into());
    }
    let wanted = Scan { pattern, kind, count: SCANNED };
    for mut server in open {
        if !wanted.all(&mut server, &mut keep).await? {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_dead_letters_they_are() {
        for (key, layout, stream) in [
            ("tenant-a:jobs:dead", Layout::Single, Some("tenant-a:jobs")),
            ("{tenant-a:jobs}:dead", Layout::Cluster, Some("tenant-a:jobs")),
            ("{tenant}:a:dead", Layout::Cluster, Some("{tenant}:a")),
            ("{tenant-a:jobs}:dead", Layout::Single, Some("{tenant-a:jobs}")),
            ("tenant-a:jobs", Layout::Single, None),
        ] {
            assert_eq!(owner(key, ":dead", layout), stream, "{key}");
            if let Some(stream) = stream {
                assert_eq!(layout.dead_letters(stream), key, "{stream}");
            }
        }
    }
}

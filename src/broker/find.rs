//! Finds keys by their names: the queues that match patterns, and the keys that belong to such queues. A search scans
//! the keys of every primary once, however many patterns there are, in steps that do not block the server. It returns
//! at most the requested number.

use std::{collections::BTreeSet, io, time::Duration};

use redis::RedisResult;
use serde::{Deserialize, Serialize};

use super::BrokerError;
use crate::{
    connection::{Connection, Primaries, Scan},
    model::{Layout, QueuePattern, Queues, WorkerType, covering_pattern, keys},
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

/// Returns for each of the worker types with these queues the streams that match its patterns now, at most `limit`
/// streams. Does not ask Redis if there are no patterns.
///
/// # Errors
/// If not every primary can be asked.
pub async fn find_queues(
    connection: &Connection,
    queues: &[&Queues],
    limit: usize,
) -> Result<Vec<BTreeSet<String>>, BrokerError> {
    let patterns: Vec<&[QueuePattern]> = queues.iter().map(|queues| queues.patterns.as_slice()).collect();
    let take = |place: usize, key: &str| queues[place].finds(key).then(|| key.to_owned());
    search(connection, &patterns, |text| vec![text.to_owned()], "stream", limit, take).await
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

/// Returns for each of the worker types with these patterns the queues that match and have dead letters or delayed jobs
/// now, at most `limit` queues. The queue itself need not exist. Does not ask Redis if there are no patterns.
///
/// # Errors
/// If not every primary can be asked.
pub async fn find_beside(
    connection: &Connection,
    patterns: &[&[QueuePattern]],
    beside: Beside,
    limit: usize,
) -> Result<Vec<BTreeSet<String>>, BrokerError> {
    let layout = connection.layout();
    let (ending, kind) = match beside {
        Beside::Dead => (":dead", "stream"),
        Beside::Delayed => (":delayed", "zset"),
    };
    let take = |place: usize, key: &str| {
        let stream = owner(key, ending, layout)?;
        patterns[place].iter().any(|pattern| pattern.takes(stream)).then(|| stream.to_owned())
    };
    let forms = |text: &str| match layout {
        Layout::Single => vec![format!("{text}{ending}")],
        Layout::Cluster => vec![format!("{text}{ending}"), format!("{{{text}}}{ending}")],
    };
    search(connection, patterns, forms, kind, limit, take).await
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

/// Searches once for all worker types. `forms` makes of a pattern the patterns of the keys to scan for; `take` tells
/// which queue of the worker type at that place a key stands for.
async fn search(
    connection: &Connection,
    patterns: &[&[QueuePattern]],
    forms: impl Fn(&str) -> Vec<String>,
    kind: &str,
    limit: usize,
    take: impl Fn(usize, &str) -> Option<String>,
) -> Result<Vec<BTreeSet<String>>, BrokerError> {
    let mut found = vec![BTreeSet::new(); patterns.len()];
    let texts: Vec<&str> = patterns.iter().copied().flatten().map(QueuePattern::as_str).collect();
    let Some(first) = texts.first() else { return Ok(found) };
    let scanned: Vec<String> = texts.iter().flat_map(|text| forms(text)).collect();
    let keep = |key: String| {
        let mut is_room_left = false;
        for (place, found) in found.iter_mut().enumerate().filter(|(place, _)| !patterns[*place].is_empty()) {
            if found.len() < limit {
                found.extend(take(place, &key));
            }
            is_room_left |= found.len() < limit;
        }
        is_room_left
    };
    let scan = scan(connection, &covering_pattern(&scanned), Some(kind), keep).await;
    scan.map_err(|cause| {
        let more = texts.len() - 1;
        let others = if more == 0 { String::new() } else { format!(" and {more} more patterns") };
        BrokerError::new(format!("look for queues by `{first}`{others}"), cause)
    })?;
    Ok(found)
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

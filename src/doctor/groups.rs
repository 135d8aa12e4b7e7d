//! Finds consumer groups that no consumer reads any more. Trimming waits for the slowest group, so they pin finished
//! entries.

use std::{collections::HashMap, time::Duration};

use redis::{FromRedisValue, RedisResult, Value};

use super::{Area, Finding, finding::some, memory::bytes};
use crate::{
    connection::Connection,
    model::{StreamId, Timestamp},
};

/// A group whose consumers have all been silent for this long counts as abandoned. A reader that is only behind reads
/// more often.
const SILENT: Duration = Duration::from_secs(600);

/// Consumer group of a stream.
struct Group {
    name: String,
    consumers: u64,
    /// Id of the entry that the group read last.
    last: StreamId,
    lag: Option<u64>,
}

/// Finds the groups of the stream `key` that pin entries which the workers' own group has read. `own` is the workers'
/// group; `known` are the groups of all configured worker types.
pub(super) async fn look(
    connection: &mut Connection,
    key: &str,
    own: &str,
    known: &[String],
    groups: &Value,
) -> RedisResult<Vec<Finding>> {
    let groups: Vec<Group> = read(groups);
    let Some(ours) = groups.iter().find(|group| group.name == own) else { return Ok(Vec::new()) };
    let mut findings = Vec::new();
    for group in groups.iter().filter(|group| group.last < ours.last && !known.contains(&group.name)) {
        let silent = match group.consumers {
            0 => Some("has no consumer".to_owned()),
            _ => silence(connection, key, &group.name).await?,
        };
        if let Some(silent) = silent {
            let pinned = pinned(group, ours);
            let cost = cost(connection, key, pinned).await;
            findings.push(finding(key, group, &silent, pinned, cost));
        }
    }
    Ok(findings)
}

fn read(groups: &Value) -> Vec<Group> {
    let groups: Vec<HashMap<String, Value>> = FromRedisValue::from_redis_value_ref(groups).unwrap_or_default();
    let group = |fields: HashMap<String, Value>| {
        let text = |field: &str| String::from_redis_value_ref(fields.get(field)?).ok();
        let number = |field: &str| u64::from_redis_value_ref(fields.get(field)?).ok();
        Some(Group {
            name: text("name")?,
            consumers: number("consumers")?,
            last: StreamId::parse(&text("last-delivered-id")?)?,
            // Redis 6.2 reports no lag, and neither does a group that was created at an id in the middle of the stream.
            lag: number("lag"),
        })
    };
    groups.into_iter().filter_map(group).collect()
}

/// Returns how long all consumers of a group have been silent, in words; `None` if one of them read lately.
async fn silence(connection: &mut Connection, key: &str, group: &str) -> RedisResult<Option<String>> {
    let mut info = redis::cmd("XINFO");
    let consumers: RedisResult<Vec<HashMap<String, Value>>> =
        info.arg("CONSUMERS").arg(key).arg(group).query_async(connection).await;
    // Without the right to ask, the check claims nothing.
    let Ok(consumers) = consumers else { return Ok(None) };
    let idle = |consumer: &HashMap<String, Value>| u64::from_redis_value_ref(consumer.get("idle")?).ok();
    let quietest = consumers.iter().filter_map(idle).min().map(Duration::from_millis);
    Ok(quietest.filter(|idle| *idle >= SILENT).map(|idle| format!("has read nothing for {} min", idle.as_secs() / 60)))
}

/// Returns the number of entries that the workers' group has read and this group has not.
fn pinned(group: &Group, ours: &Group) -> Option<u64> {
    Some(group.lag?.saturating_sub(ours.lag?)).filter(|entries| *entries > 0)
}

/// Returns the approximate size of `entries` entries of a stream, in bytes; `None` if the server refuses to tell.
async fn cost(connection: &mut Connection, key: &str, entries: Option<u64>) -> Option<u64> {
    let mut both = redis::pipe();
    both.cmd("XLEN").arg(key).cmd("MEMORY").arg("USAGE").arg(key);
    let replies = connection.each(&both).await.ok()?;
    let [length, usage] = [replies.first()?, replies.get(1)?].map(|reply| u64::from_redis_value_ref(reply).ok());
    let (length, usage) = (length.filter(|length| *length > 0)?, usage?);
    u64::try_from(u128::from(usage) * u128::from(entries?) / u128::from(length)).ok()
}

fn finding(key: &str, group: &Group, silent: &str, pinned: Option<u64>, cost: Option<u64>) -> Finding {
    let lag = group.lag.map_or_else(|| "an unknown number of entries".to_owned(), |lag| some(lag, "entry"));
    let lag = lag.replace("entrys", "entries");
    let since = if group.last.ms() == 0 { String::new() } else { format!(", the last one {} min ago", age(group)) };
    let pinned = pinned.map_or_else(
        || "entries that are done".to_owned(),
        |entries| {
            if entries == 1 { "1 entry that is done".to_owned() } else { format!("{entries} entries that are done") }
        },
    );
    let cost = cost.map_or_else(String::new, |cost| format!(" (about {})", bytes(cost)));
    let (name, found) = (
        &group.name,
        format!(
            "group `{}` of `{key}` {silent}{since}: it lags by {lag}, and {pinned}{cost} can't be trimmed",
            group.name
        ),
    );
    Finding::warning(Area::Queues, found).cure(format!("if nobody needs the group: XGROUP DESTROY {key} {name}"))
}

/// Returns the minutes since the entry that the group read last was published.
fn age(group: &Group) -> u64 {
    Timestamp::wall().since(Timestamp(group.last.ms())).as_secs() / 60
}

//! Sends Redis commands, written as for `redis-cli`, through `fred`; adds jobs and reads records for tests.

use std::collections::HashMap;

use fred::{
    interfaces::TransactionInterface,
    prelude::{Client, ClientLike, FromValue},
    types::{ClusterHash, CustomCommand},
};

/// Sends a command whose words are separated by blanks.
///
/// # Panics
/// If the server refuses it.
pub(crate) async fn redis<R: FromValue>(client: &Client, command: &str) -> R {
    let mut words = command.split_whitespace();
    let name = words.next().expect("a command has a name").to_owned();
    let arguments: Vec<String> = words.map(str::to_owned).collect();
    let custom = CustomCommand::new(name, ClusterHash::FirstKey, false);
    client.custom(custom, arguments).await.unwrap_or_else(|error| panic!("{command}: {error}"))
}

/// Returns how often the server has executed the command of this name in lower case, within scripts included.
pub(crate) async fn calls(client: &Client, command: &str) -> u64 {
    let stats: String = redis(client, "INFO commandstats").await;
    let line = stats.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
    line.map_or(0, |rest| rest.split(',').next().and_then(|calls| calls.parse().ok()).expect("it is a number"))
}

/// Adds jobs to a stream in one transaction, so that nobody sees some of them, and publishes no message.
pub(crate) async fn add_jobs(client: &Client, stream: &str, count: usize) -> Vec<String> {
    let transaction = client.multi();
    for number in 0..count {
        let job = format!(r#"{{"id":"{stream}-{number}","type":"test.echo","args":[{number}],"kwargs":{{}}}}"#);
        let add = CustomCommand::new_static("XADD", ClusterHash::FirstKey, false);
        let () = transaction.custom(add, vec![stream, "*", "json", &job]).await.expect("a transaction takes jobs");
    }
    transaction.exec(true).await.expect("the server takes jobs")
}

/// Delivers every waiting job of a group to a consumer and acknowledges it.
pub(crate) async fn work_off(client: &Client, stream: &str, group: &str) {
    let read = format!("XREADGROUP GROUP {group} by-hand COUNT 100000 STREAMS {stream} >");
    let _: fred::types::Value = redis(client, &read).await;
    let pending: Vec<(String, String, u64, u64)> =
        redis(client, &format!("XPENDING {stream} {group} - + 100000")).await;
    let ids: Vec<String> = pending.into_iter().map(|(id, ..)| id).collect();
    let _: u64 = redis(client, &format!("XACK {stream} {group} {}", ids.join(" "))).await;
}

/// Entry of `scaling:events`.
pub(crate) type ScalingRecord = HashMap<String, String>;

/// Returns the records of a worker type, oldest first.
pub(crate) async fn records(client: &Client, worker_type: &str) -> Vec<ScalingRecord> {
    let entries: Vec<(String, ScalingRecord)> = redis(client, "XRANGE scaling:events - +").await;
    let all = entries.into_iter().map(|(_, record)| record);
    all.filter(|record| record["worker_type"] == worker_type).collect()
}

/// Adds a job that sleeps for `seconds` and then answers.
pub(crate) async fn add_sleep(client: &Client, worker_type: &str, id: &str, seconds: f64) {
    let job = format!(
        r#"{{"id":"{id}","type":"{worker_type}.sleep","args":[{seconds}],"kwargs":{{}},"reply_to":"result:{id}"}}"#
    );
    let _: String = redis(client, &format!("XADD {worker_type}:jobs * json {job}")).await;
}

/// Adds a job of this method that answers.
pub(crate) async fn add_job(client: &Client, worker_type: &str, method: &str, id: &str) {
    let job =
        format!(r#"{{"id":"{id}","type":"{worker_type}.{method}","args":[],"kwargs":{{}},"reply_to":"result:{id}"}}"#);
    let _: String = redis(client, &format!("XADD {worker_type}:jobs * json {job}")).await;
}

/// Returns the answers to a job so far.
pub(crate) async fn answers(client: &Client, id: &str) -> Vec<serde_json::Value> {
    let answers: Vec<String> = redis(client, &format!("LRANGE result:{id} 0 -1")).await;
    answers.iter().map(|answer| serde_json::from_str(answer).expect("an answer is JSON")).collect()
}

/// Returns how many jobs of a stream with one group wait, and how many are delivered and not acknowledged. `None` while
/// no worker has made the group, or its lag is unknown.
///
/// A worker that says IDLE may not have made its group yet: it does at its first read.
pub(crate) async fn waiting_and_pending(client: &Client, stream: &str) -> Option<(u64, u64)> {
    let groups: Vec<HashMap<String, fred::types::Value>> = redis(client, &format!("XINFO GROUPS {stream}")).await;
    let number = |field: &str| groups.first()?.get(field)?.as_u64();
    number("lag").zip(number("pending"))
}

/// Returns the pending entries of a stream: pairs of consumer and entry. None while no worker has made the group.
pub(crate) async fn pending(client: &Client, stream: &str, group: &str) -> Vec<(String, String)> {
    let command = CustomCommand::new_static("XPENDING", ClusterHash::FirstKey, false);
    let entries: Vec<(String, String, u64, u64)> =
        match client.custom(command, vec![stream, group, "-", "+", "100000"]).await {
            Err(error) if error.details().starts_with("NOGROUP") => Vec::new(),
            answer => answer.unwrap_or_else(|error| panic!("XPENDING {stream} {group}: {error}")),
        };
    entries.into_iter().map(|(entry, consumer, ..)| (consumer, entry)).collect()
}

//! What this Redis user may do, found out by trying: each command of the list in `docs/redis.md`, in a form that changes
//! nothing. The server looks at rights before it looks at arguments, so a command that writes is sent with an argument that
//! it must refuse.

use std::collections::BTreeMap;

use redis::{Pipeline, RedisResult, Value, aio::MultiplexedConnection};
use secrecy::ExposeSecret;

use super::{Area, Finding};
use crate::{
    config::{Orchestrator, QueueKind, Settings, Switch},
    connection::RedisTarget,
    model::{WorkerId, WorkerType, keys},
};

/// Commands in one round trip.
const BATCH: usize = 500;

/// Keys, commands and channels that a message names.
const NAMED: usize = 6;

/// What no id, number or option is: whatever is asked to take it refuses.
const NONSENSE: &str = "swarm-doctor";

/// What a right is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    /// Nothing works without.
    Core,
    /// Delayed jobs are moved by the autoscaler.
    Delayed,
    /// The newest entries of the history are shown, and looked for after a failure.
    History,
    /// Orders are given over HTTP.
    Orders,
    /// Pods are asked to drain.
    Draining,
}

impl Part {
    fn finding(self, found: String) -> Finding {
        match self {
            Self::Core => Finding::problem(Area::Rights, found),
            Self::Orders => Finding::problem(Area::Rights, format!("orders over http fail: {found}")),
            Self::Draining => Finding::problem(Area::Rights, format!("pods can't be asked to drain: {found}")),
            Self::Delayed => Finding::warning(Area::Rights, format!("delayed jobs are left to the workers: {found}")),
            Self::History => Finding::warning(Area::Rights, format!("the history is not shown: {found}")),
        }
    }
}

/// One command that is tried.
struct Attempt {
    part: Part,
    /// As ACLs name it.
    command: &'static str,
    words: Vec<String>,
    /// What it is about, for people.
    on: String,
}

fn attempt(part: Part, command: &'static str, key: &str, arguments: &[&str]) -> Attempt {
    let mut words: Vec<String> = command.split('|').map(str::to_owned).collect();
    if !key.is_empty() {
        words.push(key.to_owned());
    }
    words.extend(arguments.iter().map(|&argument| argument.to_owned()));
    Attempt { part, command, words, on: key.to_owned() }
}

pub(super) async fn look(
    connection: &mut MultiplexedConnection,
    target: &RedisTarget,
    settings: &Settings,
) -> Vec<Finding> {
    let attempts = attempts(settings);
    let mut lacking: BTreeMap<Part, Vec<(&str, String)>> = BTreeMap::new();
    for batch in attempts.chunks(BATCH) {
        let mut pipeline = Pipeline::with_capacity(batch.len());
        for attempt in batch {
            pipeline.cmd(&attempt.words[0]).arg(&attempt.words[1..]);
        }
        let replies = match connection.send_packed_commands(&pipeline, 0, batch.len()).await {
            Ok(replies) => replies,
            Err(error) => return vec![Finding::problem(Area::Rights, format!("they can't be tried: {error}"))],
        };
        for (attempt, reply) in batch.iter().zip(&replies) {
            if is_forbidden(reply) {
                lacking.entry(attempt.part).or_default().push((attempt.command, attempt.on.clone()));
            }
        }
    }
    let channels = channels(settings);
    for (part, channel) in closed_channels(target, &channels).await {
        lacking.entry(part).or_default().push(("subscribe", channel));
    }
    let publishing = if settings.http.token.is_some() { transaction(target, &mut lacking).await } else { None };
    let tried = attempts.len() + channels.len();
    if lacking.is_empty() {
        let found = format!("user `{}` has all that were tried, {tried} in number", user(settings));
        return std::iter::once(Finding::ok(Area::Rights, found)).chain(publishing).collect();
    }
    let told = |(part, of): (Part, Vec<(&str, String)>)| part.finding(lack(&of)).cure(grant(settings, &of));
    lacking.into_iter().map(told).chain(publishing).collect()
}

fn is_forbidden(reply: &Value) -> bool {
    matches!(reply, Value::ServerError(error) if error.code() == "NOPERM")
}

/// `no right to `xadd` on `scaling:events`, …`
fn lack(of: &[(&str, String)]) -> String {
    let named = of.iter().take(NAMED).map(|(command, on)| match on.as_str() {
        "" => format!("`{command}`"),
        on => format!("`{command}` on `{on}`"),
    });
    let more = of.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(", and {more} more") } else { String::new() };
    format!("no right to {}{more}", named.collect::<Vec<_>>().join(", "))
}

fn grant(settings: &Settings, of: &[(&str, String)]) -> String {
    let mut rules: Vec<String> = Vec::new();
    for (command, on) in of {
        let rule = if *command == "subscribe" { format!("&{on}") } else { format!("~{on}") };
        for rule in [format!("+{command}"), rule] {
            if rule.len() > 1 && !rules.contains(&rule) {
                rules.push(rule);
            }
        }
    }
    rules.truncate(2 * NAMED);
    format!("ACL SETUSER {} {}; docs/redis.md has the whole list", user(settings), rules.join(" "))
}

fn user(settings: &Settings) -> String {
    let url = url::Url::parse(settings.redis_url.expose_secret());
    let name = url.map(|url| url.username().to_owned()).unwrap_or_default();
    if name.is_empty() { "default".to_owned() } else { name }
}

/// Everything that is tried, for every worker type that is enabled.
fn attempts(settings: &Settings) -> Vec<Attempt> {
    let mut all = Vec::new();
    all.extend(of_everybody(settings));
    for (name, of) in settings.worker_types.iter().filter(|(_, of)| of.enabled) {
        let queue = of.queue(name);
        match of.kind {
            QueueKind::List => all.push(attempt(Part::Core, "llen", &queue, &[])),
            QueueKind::Stream => all.extend(of_stream(&queue, &of.group(name))),
        }
        all.extend(of_type(&WorkerType::new(name.as_str()), settings.orchestrator));
    }
    all
}

/// What does not depend on a worker type. `del` and others are for keys that are not there.
fn of_everybody(settings: &Settings) -> Vec<Attempt> {
    let core = |command, key: &str, arguments: &[&str]| attempt(Part::Core, command, key, arguments);
    let nobody = keys::scaler_report(&WorkerType::new(NONSENSE));
    let mut all = vec![
        core("ping", "", &[]),
        core("client|id", "", &[]),
        core("client|setname", "", &[NONSENSE]),
        core("get", keys::SCALER_ALIVE, &[]),
        core("set", keys::SCALER_ALIVE, &[NONSENSE, NONSENSE]),
        core("exists", &nobody, &[]),
        core("del", &nobody, &[]),
        core("pexpire", &nobody, &[NONSENSE]),
        core("pttl", &nobody, &[]),
        core("eval", "", &["return 1", "0"]),
        core("xadd", keys::SCALING_EVENTS, &[NONSENSE, "field", "value"]),
        attempt(Part::History, "xrevrange", keys::SCALING_EVENTS, &["+", "-", "COUNT", "1"]),
    ];
    let mut read = attempt(Part::History, "xread", "", &["COUNT", "1", "STREAMS", keys::SCALING_EVENTS, "0-0"]);
    keys::SCALING_EVENTS.clone_into(&mut read.on);
    all.push(read);
    if settings.signals.tracking != Switch::Off {
        all.push(core("client|tracking", "", &["OFF"]));
        all.push(core("client|caching", "", &[NONSENSE]));
    }
    if settings.scaler.leader_lease_seconds > 0 {
        all.push(core("hget", keys::LEADER, &["holder"]));
        all.push(core("hset", keys::LEADER, &["field", "value", "odd"]));
        all.push(core("get", keys::LEADER_TOKEN, &[]));
    }
    all.push(attempt(Part::Delayed, "time", "", &[]));
    all
}

fn of_stream(queue: &str, group: &str) -> Vec<Attempt> {
    let delayed = keys::delayed(queue);
    vec![
        attempt(Part::Core, "xinfo|groups", queue, &[]),
        attempt(Part::Core, "xinfo|stream", queue, &[]),
        attempt(Part::Core, "xpending", queue, &[group]),
        attempt(Part::Core, "xrange", queue, &["-", "+", "COUNT", "1"]),
        attempt(Part::Delayed, "xadd", queue, &[NONSENSE, "field", "value"]),
        attempt(Part::Delayed, "zcard", &delayed, &[]),
        attempt(Part::Delayed, "zrange", &delayed, &["0", "0"]),
        attempt(Part::Delayed, "zrangebyscore", &delayed, &["-inf", "-inf"]),
        attempt(Part::Delayed, "zrem", &delayed, &[NONSENSE]),
    ]
}

fn of_type(worker_type: &WorkerType, orchestrator: Orchestrator) -> Vec<Attempt> {
    let nobody = WorkerId::new(NONSENSE);
    let state = keys::scaler_state(worker_type);
    let mut all = vec![
        attempt(Part::Core, "hmget", &keys::heartbeat(worker_type, &nobody), &["state"]),
        attempt(Part::Core, "hmget", &keys::scaler_override(worker_type), &["mode"]),
        attempt(Part::Core, "hmget", &state, &["from"]),
        attempt(Part::Core, "hset", &state, &["field", "value", "odd"]),
    ];
    if orchestrator == Orchestrator::Kubernetes {
        let control = keys::control(worker_type, &nobody);
        all.push(attempt(Part::Draining, "set", &control, &[NONSENSE, NONSENSE]));
        all.push(attempt(Part::Draining, "del", &control, &[]));
    }
    all
}

/// The channels that are listened on.
fn channels(settings: &Settings) -> Vec<(Part, String)> {
    let mut channels = vec![
        (Part::Core, keys::WORKER_EVENTS_CHANNEL.to_owned()),
        (Part::Core, keys::CONTROL_CHANNEL.to_owned()),
        (Part::Delayed, keys::DELAYED_CHANNEL.to_owned()),
    ];
    if !settings.signals.channel.is_empty() {
        channels.push((Part::Core, settings.signals.channel.clone()));
    }
    if settings.scaler.leader_lease_seconds > 0 {
        channels.push((Part::Core, keys::LEADER.to_owned()));
    }
    channels
}

/// Those that this user may not listen on.
async fn closed_channels(target: &RedisTarget, channels: &[(Part, String)]) -> Vec<(Part, String)> {
    let Ok(mut connection) = target.connect_with_push(|_| Ok::<(), std::convert::Infallible>(())).await else {
        return Vec::new();
    };
    let mut closed = Vec::new();
    for (part, channel) in channels {
        if let Err(error) = connection.subscribe(channel).await
            && error.code() == Some("NOPERM")
        {
            closed.push((*part, channel.clone()));
        }
    }
    closed
}

/// Whether orders can be written: what is queued in a transaction has its rights looked at, and is dropped with the connection.
async fn transaction(
    target: &RedisTarget,
    lacking: &mut BTreeMap<Part, Vec<(&'static str, String)>>,
) -> Option<Finding> {
    let mut connection = match target.connect().await {
        Ok(connection) => connection,
        Err(error) => return Some(Finding::problem(Area::Rights, error.to_string())),
    };
    let begun: RedisResult<Value> = redis::cmd("MULTI").query_async(&mut connection).await;
    if let Err(error) = begun {
        if error.code() == Some("NOPERM") {
            lacking.entry(Part::Orders).or_default().push(("multi", String::new()));
        }
        return None;
    }
    let order = keys::scaler_override(&WorkerType::new(NONSENSE));
    for (command, on) in [("hset", order.as_str()), ("pexpire", &order), ("publish", keys::CONTROL_CHANNEL)] {
        let mut queued = redis::cmd(command);
        queued.arg(on).arg(if command == "pexpire" { "1" } else { NONSENSE });
        if command == "hset" {
            queued.arg(NONSENSE);
        }
        let queued: RedisResult<Value> = queued.query_async(&mut connection).await;
        if queued.is_err_and(|error| error.code() == Some("NOPERM")) {
            lacking.entry(Part::Orders).or_default().push((command, on.to_owned()));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::config::WorkerTypeSettings;

    /// Said by connecting, by listening, or in ways that would be heard by others: `docs/redis.md` names them, and no attempt
    /// is made of its own.
    const OTHERWISE: [&str; 6] = ["hello", "auth", "select", "subscribe", "unsubscribe", "publish"];

    #[test]
    fn every_command_of_the_documents_list_is_tried_and_no_other() {
        let text = include_str!("../../docs/redis.md");
        let list = text.split("ACL SETUSER scaler").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
        let documented: BTreeSet<&str> = list.split_whitespace().filter_map(|word| word.strip_prefix('+')).collect();
        let worker_type = |kind| WorkerTypeSettings { kind, ..WorkerTypeSettings::default() };
        let types = [("a", QueueKind::Stream), ("b", QueueKind::List)];
        let settings = Settings {
            worker_types: types.map(|(name, kind)| (name.to_owned(), worker_type(kind))).into(),
            ..Settings::default()
        };
        let tried: BTreeSet<&str> =
            attempts(&settings).iter().map(|attempt| attempt.command).chain(OTHERWISE).collect();
        assert_eq!(tried, documented);
    }

    #[test]
    fn the_cure_names_what_is_missing_once() {
        let lacking =
            [("xadd", "a:jobs".to_owned()), ("xadd", "b:jobs".to_owned()), ("subscribe", "scaler:control".to_owned())];
        let settings = Settings { redis_url: "redis://bot:x@h".into(), ..Settings::default() };
        assert_eq!(
            grant(&settings, &lacking),
            "ACL SETUSER bot +xadd ~a:jobs ~b:jobs +subscribe &scaler:control; docs/redis.md has the whole list"
        );
        assert_eq!(lack(&lacking[..1]), "no right to `xadd` on `a:jobs`");
    }
}

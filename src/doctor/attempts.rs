//! The commands that an autoscaler needs, as `docs/redis.md` lists them, each in a form that changes nothing. The
//! server checks rights before it checks arguments, so a command that writes gets an argument that the server must
//! refuse.

use crate::{
    config::{Orchestrator, Settings, Switch},
    model::{Layout, WorkerId, WorkerType, keys},
    queue_kind::{Framework, QueueSpec, Scripts},
};

/// A word that is not a valid id, number or option, so that a command with this argument is refused.
pub(super) const NONSENSE: &str = "swarm-doctor";

/// Feature that needs a right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    /// Every autoscaler needs the right.
    Core,
    /// The autoscaler moves delayed jobs when they are due.
    Delayed,
    /// The autoscaler counts dead letters.
    DeadLetters,
    /// The autoscaler shows the newest entries of the history, and searches them after a failure.
    History,
    /// Overrides are set over HTTP.
    Orders,
    /// The autoscaler asks pods to drain.
    Draining,
    /// Keyspace notifications announce queues that patterns find.
    Patterns,
}

/// One command to try.
pub(super) struct Attempt {
    pub(super) part: Part,
    /// Name of the command in ACLs.
    pub(super) command: &'static str,
    pub(super) words: Vec<String>,
    /// Key or channel of the command, for people; empty without one.
    pub(super) on: String,
}

fn attempt(part: Part, command: &'static str, key: &str, arguments: &[&str]) -> Attempt {
    let mut words: Vec<String> = command.split('|').map(str::to_owned).collect();
    if !key.is_empty() {
        words.push(key.to_owned());
    }
    words.extend(arguments.iter().map(|&argument| argument.to_owned()));
    Attempt { part, command, words, on: key.to_owned() }
}

/// Returns all commands to try on the top-level server: for all enabled worker types, and for the queues of those in
/// `top_level`.
pub(super) fn attempts(settings: &Settings, top_level: &Settings, layout: Layout) -> Vec<Attempt> {
    let mut all = of_everybody(settings, layout);
    all.extend(of_queues(top_level, layout));
    for (name, _) in settings.enabled() {
        all.extend(of_type(&WorkerType::new(name), settings.orchestrator, layout));
    }
    all
}

/// Returns the commands for a server that has the queues of these worker types, and nothing of swarm's own.
pub(super) fn on_queue_server(settings: &Settings, layout: Layout) -> Vec<Attempt> {
    let core = |command, arguments: &[&str]| attempt(Part::Core, command, "", arguments);
    let mut all = vec![core("ping", &[])];
    if settings.signals.tracking != Switch::Off {
        all.push(core("client|tracking", &["OFF"]));
        all.push(core("client|caching", &[NONSENSE]));
    }
    all.extend(of_queues(settings, layout));
    all
}

/// Returns the commands that read queues.
fn of_queues(settings: &Settings, layout: Layout) -> Vec<Attempt> {
    let mut all = Vec::new();
    for (name, of) in settings.enabled() {
        let queues = of.queues(name);
        if let Some(framework) = of.framework {
            all.extend(of_framework(framework, &of.queue_spec(name)));
        }
        for queue in queues.named() {
            for (command, arguments) in of.queue_kind().rights(&of.group(name)) {
                let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
                all.push(attempt(Part::Core, command, queue, &arguments));
            }
            if of.queue_kind().is_native() {
                all.extend(of_delayed(queue, layout));
                all.push(attempt(Part::DeadLetters, "xlen", &layout.dead_letters(queue), &[]));
                if settings.orchestrator == Orchestrator::Keda {
                    all.push(attempt(Part::Core, "xinfo|consumers", queue, &[&of.group(name)]));
                }
            }
        }
        if !queues.patterns.is_empty() {
            all.push(attempt(Part::Core, "scan", "", &["0", "COUNT", "1"]));
        }
    }
    all
}

/// Returns the commands that do not depend on a worker type. `del` and others use keys that do not exist.
fn of_everybody(settings: &Settings, layout: Layout) -> Vec<Attempt> {
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
        core("eval_ro", "", &["return 1", "0"]),
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
        if settings.lease_object().is_none() {
            all.push(core("hget", &layout.leader(), &["holder"]));
            all.push(core("hset", &layout.leader(), &["field", "value", "odd"]));
        }
        all.push(core("get", &layout.leader_token(), &[]));
    }
    all.push(attempt(Part::Delayed, "time", "", &[]));
    all
}

/// Returns the commands of the first reading of a framework's queues, which is a transaction.
fn of_framework(framework: Framework, spec: &QueueSpec) -> Vec<Attempt> {
    let mut all = vec![attempt(Part::Core, "multi", "", &[]), attempt(Part::Core, "exec", "", &[])];
    for command in spec.kind.reader(spec).commands(spec, Scripts::ReadOnly) {
        let word = |arg| match arg {
            redis::Arg::Simple(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            redis::Arg::Cursor => "0".to_owned(),
            _ => String::new(),
        };
        let words: Vec<String> = command.args_iter().map(word).collect();
        let known = framework.profile().commands().iter();
        let named = known.copied().find(|known| words.first().is_some_and(|word| word.eq_ignore_ascii_case(known)));
        if let Some(command) = named {
            all.push(Attempt { part: Part::Core, command, on: words.get(1).cloned().unwrap_or_default(), words });
        }
    }
    all
}

/// Returns the commands that move delayed jobs to their queue.
fn of_delayed(queue: &str, layout: Layout) -> Vec<Attempt> {
    let delayed = layout.delayed(queue);
    vec![
        attempt(Part::Delayed, "xadd", queue, &[NONSENSE, "field", "value"]),
        attempt(Part::Delayed, "zcard", &delayed, &[]),
        attempt(Part::Delayed, "zrange", &delayed, &["0", "0"]),
        attempt(Part::Delayed, "zrangebyscore", &delayed, &["-inf", "-inf"]),
        attempt(Part::Delayed, "zrem", &delayed, &[NONSENSE]),
    ]
}

fn of_type(worker_type: &WorkerType, orchestrator: Orchestrator, layout: Layout) -> Vec<Attempt> {
    let nobody = WorkerId::new(NONSENSE);
    let state = layout.scaler_state(worker_type);
    let mut all = vec![
        attempt(Part::Core, "hmget", &keys::heartbeat(worker_type, &nobody), &["state"]),
        attempt(Part::Core, "hmget", &layout.scaler_override(worker_type), &["mode"]),
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

/// Returns the patterns of channels that the autoscaler subscribes to.
pub(super) fn channel_patterns(settings: &Settings, database: i64) -> Vec<String> {
    if settings.signals.keyspace == Switch::Off {
        return Vec::new();
    }
    let queues = settings.enabled().flat_map(|(name, of)| of.queues(name).patterns);
    queues.map(|pattern| format!("__keyspace@{database}__:{}", pattern.as_str())).collect()
}

/// Returns the channels that the autoscaler subscribes to.
pub(super) fn channels(settings: &Settings, layout: Layout) -> Vec<(Part, String)> {
    let mut channels = vec![
        (Part::Core, keys::WORKER_EVENTS_CHANNEL.to_owned()),
        (Part::Core, keys::CONTROL_CHANNEL.to_owned()),
        (Part::Delayed, keys::DELAYED_CHANNEL.to_owned()),
    ];
    if !settings.signals.channel.is_empty() {
        channels.push((Part::Core, settings.signals.channel.clone()));
    }
    if settings.scaler.leader_lease_seconds > 0 {
        channels.push((Part::Core, layout.leader()));
    }
    channels
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::config::{QueueKind, WorkerTypeSettings};

    /// Commands of `docs/redis.md` that no attempt tries: connecting or subscribing shows the right, or other clients
    /// would receive the attempt.
    const OTHERWISE: [&str; 8] =
        ["hello", "auth", "select", "subscribe", "unsubscribe", "psubscribe", "punsubscribe", "publish"];

    #[test]
    fn every_command_of_the_documents_list_is_tried_and_no_other() {
        let text = include_str!("../../docs/redis.md");
        let list = text.split("ACL SETUSER scaler").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
        let documented: BTreeSet<&str> = list.split_whitespace().filter_map(|word| word.strip_prefix('+')).collect();
        let extra_queues = vec!["tenant-*".to_owned()];
        let worker_type =
            |kind| WorkerTypeSettings { kind, extra_queues: extra_queues.clone(), ..WorkerTypeSettings::default() };
        let types = [("a", QueueKind::Stream), ("b", QueueKind::List)];
        let settings = Settings {
            worker_types: types.map(|(name, kind)| (name.to_owned(), worker_type(kind))).into(),
            ..Settings::default()
        };
        let tried: BTreeSet<&str> = attempts(&settings, &settings, Layout::Single)
            .iter()
            .map(|attempt| attempt.command)
            .chain(OTHERWISE)
            .collect();
        assert_eq!(tried, documented);
        let keda = Settings { orchestrator: Orchestrator::Keda, ..settings };
        let tried: BTreeSet<&str> =
            attempts(&keda, &keda, Layout::Single).iter().map(|attempt| attempt.command).chain(OTHERWISE).collect();
        assert_eq!(tried.difference(&documented).copied().collect::<Vec<_>>(), ["xinfo|consumers"]);
    }
}

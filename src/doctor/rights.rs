//! Finds the rights of this Redis user by trying the commands of `attempts`, and names the missing ACL rule.

use std::collections::BTreeMap;

use redis::{Pipeline, RedisResult, Value};
use secrecy::ExposeSecret;

use super::{
    Area, Finding,
    attempts::{Attempt, NONSENSE, Part, attempts, channel_patterns, channels, on_queue_server},
};
use crate::{
    config::{RedisUrl, Settings},
    connection::{Connection, RedisTarget},
    model::{WorkerType, keys},
};

/// Commands in one round trip.
const BATCH: usize = 500;

/// Maximum keys, commands and channels that a message names.
const NAMED: usize = 6;

impl Part {
    fn finding(self, found: String) -> Finding {
        match self {
            Self::Core => Finding::problem(Area::Rights, found),
            Self::Orders => Finding::problem(Area::Rights, format!("orders over http fail: {found}")),
            Self::Draining => Finding::problem(Area::Rights, format!("pods can't be asked to drain: {found}")),
            Self::Delayed => Finding::warning(Area::Rights, format!("delayed jobs are left to the workers: {found}")),
            Self::DeadLetters => Finding::warning(Area::Rights, format!("dead letters are not counted: {found}")),
            Self::Patterns => Finding::warning(
                Area::Rights,
                format!("keyspace notifications are unavailable, because patterns are refused: {found}"),
            ),
            Self::History => Finding::warning(Area::Rights, format!("the history is not shown: {found}")),
        }
    }
}

/// What to try.
struct Wanted<'a> {
    attempts: Vec<Attempt>,
    channels: Vec<(Part, String)>,
    patterns: Vec<String>,
    /// Settings that name the user, for people.
    settings: &'a Settings,
}

/// Tries the rights on the top-level server. `top_level` has only the worker types with queues there.
pub(super) async fn look(
    connection: &mut Connection,
    target: &RedisTarget,
    settings: &Settings,
    top_level: &Settings,
) -> Vec<Finding> {
    let mut lacking = BTreeMap::new();
    let publishing = if settings.http.token.is_some() { transaction(target, &mut lacking).await } else { None };
    let wanted = Wanted {
        attempts: attempts(settings, top_level, target.layout()),
        channels: channels(settings, target.layout()),
        patterns: channel_patterns(top_level, target.database()),
        settings,
    };
    look_at(connection, target, wanted, lacking).await.into_iter().chain(publishing).collect()
}

/// Tries the rights on a server that has the queues of the worker types in `settings`, and nothing of swarm's own.
pub(super) async fn look_at_queues(
    connection: &mut Connection,
    target: &RedisTarget,
    settings: &Settings,
) -> Vec<Finding> {
    let wanted = Wanted {
        attempts: on_queue_server(settings, target.layout()),
        channels: Vec::new(),
        patterns: channel_patterns(settings, target.database()),
        settings,
    };
    look_at(connection, target, wanted, BTreeMap::new()).await
}

/// Missing rights by feature: commands, and what they are for.
type Lacking = BTreeMap<Part, Vec<(&'static str, String)>>;

async fn look_at(
    connection: &mut Connection,
    target: &RedisTarget,
    wanted: Wanted<'_>,
    mut lacking: Lacking,
) -> Vec<Finding> {
    let Wanted { attempts, channels, patterns, settings } = wanted;
    for batch in attempts.chunks(BATCH) {
        let mut pipeline = Pipeline::with_capacity(batch.len());
        for attempt in batch {
            pipeline.cmd(&attempt.words[0]).arg(&attempt.words[1..]);
        }
        let replies = match connection.each(&pipeline).await {
            Ok(replies) => replies,
            Err(error) => return vec![Finding::problem(Area::Rights, format!("rights can't be tried: {error}"))],
        };
        for (attempt, reply) in batch.iter().zip(&replies) {
            if is_forbidden(reply) {
                lacking.entry(attempt.part).or_default().push((attempt.command, attempt.on.clone()));
            }
        }
    }
    for (part, command, channel) in closed_channels(target, &channels, &patterns).await {
        lacking.entry(part).or_default().push((command, channel));
    }
    let tried = attempts.len() + channels.len() + patterns.len();
    if lacking.is_empty() {
        let found = format!("user `{}` has all {tried} rights that were tried", user(settings));
        return vec![Finding::ok(Area::Rights, found)];
    }
    let told = |(part, of): (Part, Vec<(&str, String)>)| part.finding(lack(&of)).cure(grant(settings, &of));
    lacking.into_iter().map(told).collect()
}

fn is_forbidden(reply: &Value) -> bool {
    matches!(reply, Value::ServerError(error) if error.code() == "NOPERM")
}

/// Returns `no right to `xadd` on `scaling:events`, …`
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
        let rule = if command.ends_with("subscribe") { format!("&{on}") } else { format!("~{on}") };
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
    let url = RedisUrl::parse(settings.redis_url.expose_secret()).ok();
    let url = url.and_then(|url| url::Url::parse(url.credentials()?.expose_secret()).ok());
    let name = url.map(|url| url.username().to_owned()).unwrap_or_default();
    if name.is_empty() { "default".to_owned() } else { name }
}

/// Returns the channels and patterns to which this user may not subscribe.
async fn closed_channels(
    target: &RedisTarget,
    channels: &[(Part, String)],
    patterns: &[String],
) -> Vec<(Part, &'static str, String)> {
    let Ok(mut connection) = target.connect_with_push(|_| Ok::<(), std::convert::Infallible>(())).await else {
        return Vec::new();
    };
    let mut closed = Vec::new();
    for (part, channel) in channels {
        if let Err(error) = connection.subscribe(channel).await
            && error.code() == Some("NOPERM")
        {
            closed.push((*part, "subscribe", channel.clone()));
        }
    }
    for pattern in patterns {
        if let Err(error) = connection.psubscribe_everywhere(std::slice::from_ref(pattern)).await
            && error.code() == Some("NOPERM")
        {
            closed.push((Part::Patterns, "psubscribe", pattern.clone()));
        }
    }
    closed
}

/// Checks whether overrides can be written. The server checks the rights of commands that a transaction queues, and
/// drops the transaction when the connection closes.
async fn transaction(target: &RedisTarget, lacking: &mut Lacking) -> Option<Finding> {
    let order = target.layout().scaler_override(&WorkerType::new(NONSENSE));
    let connection = match target.connect().await {
        Ok(connection) => connection,
        Err(error) => return Some(Finding::problem(Area::Rights, error.to_string())),
    };
    let mut connection = match connection.at(&order).await {
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
    use super::*;

    #[test]
    fn the_cure_names_what_is_missing_once() {
        let lacking =
            [("xadd", "a:jobs".to_owned()), ("xadd", "b:jobs".to_owned()), ("subscribe", "scaler:control".to_owned())];
        for url in ["redis://bot:x@h", "redis+sentinel://bot:x@h/main", "redis+cluster://bot:x@h:1,h:2"] {
            let settings = Settings { redis_url: url.into(), ..Settings::default() };
            assert_eq!(
                grant(&settings, &lacking),
                "ACL SETUSER bot +xadd ~a:jobs ~b:jobs +subscribe &scaler:control; docs/redis.md has the whole list"
            );
        }
        assert_eq!(lack(&lacking[..1]), "no right to `xadd` on `a:jobs`");
    }
}

//! The server's side of keyspace notifications: finds out which flags `notify-keyspace-events` needs, and adds them
//! without removing any. Source: redis.io, "Redis keyspace notifications".

use std::collections::HashMap;

use redis::Value;

use crate::{
    connection::{Connection, Primaries, is_lost},
    queue_kind::QueueKind,
};

/// Whether the server sends keyspace notifications for the configured queues.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Availability {
    /// The server sends them already.
    Enabled(String),
    /// The server sends them after flags were added.
    Extended {
        /// Flags before.
        from: String,
        /// Flags now.
        to: String,
    },
    /// The server does not send them, and refused the change with this error.
    Refused(String),
}

/// Returns the flags needed for queues of these kinds: `K` (keyspace channel), and that of each kind's events.
pub fn needed_flags(kinds: impl IntoIterator<Item = QueueKind>) -> String {
    let mut used: Vec<QueueKind> = Vec::new();
    for kind in kinds {
        if !used.contains(&kind) {
            used.push(kind);
        }
    }
    // The order of the flags is independent of the input, so that the settings of two servers can be compared.
    used.sort_unstable();
    let mut needed = "K".to_owned();
    for flag in used.iter().flat_map(|kind| kind.event_flags().chars()) {
        if !needed.contains(flag) {
            needed.push(flag);
        }
    }
    needed
}

/// Adds the flags to `flags` that `needed` has in addition; `None` if nothing is missing. `A` stands for all types.
fn merged(flags: &str, needed: &str) -> Option<String> {
    let has = |flag: char| flags.contains(flag) || (flag != 'K' && flags.contains('A'));
    let missing: String = needed.chars().filter(|flag| !has(*flag)).collect();
    (!missing.is_empty()).then(|| format!("{flags}{missing}"))
}

/// Returns the flags with which the server would send the events of `needed`; `None` if `flags` already suffice.
pub fn wanted_flags(flags: &str, needed: &str) -> Option<String> {
    merged(flags, needed)
}

/// Checks whether the server sends the needed events, and extends its setting if `may_extend` and the server permit
/// that. On a cluster, every primary is asked, and the worst answer counts. Also returns the primaries that could not
/// be asked.
pub(super) async fn ensure(
    connection: &Connection,
    needed: &str,
    may_extend: bool,
) -> Result<(Availability, Vec<String>), redis::RedisError> {
    let Primaries { open, mut missing } = connection.primaries().await?;
    let mut worst = None;
    for mut server in open {
        match ensure_one(&mut server, needed, may_extend).await {
            Ok(found) => worst = worst.max(Some(found)),
            Err(error) if connection.is_cluster() => missing.push(error.to_string()),
            Err(error) => return Err(error),
        }
    }
    let worst = worst.unwrap_or_else(|| Availability::Refused("no primary can be reached".to_owned()));
    Ok((worst, missing))
}

async fn ensure_one(
    connection: &mut Connection,
    needed: &str,
    may_extend: bool,
) -> Result<Availability, redis::RedisError> {
    let mut get = redis::cmd("CONFIG");
    get.arg("GET").arg("notify-keyspace-events");
    let flags = match refusal(get.query_async::<HashMap<String, String>>(connection).await)? {
        Ok(settings) => settings.into_values().next().unwrap_or_default(),
        Err(why) => return Ok(Availability::Refused(format!("CONFIG GET notify-keyspace-events: {why}"))),
    };
    let Some(wanted) = merged(&flags, needed) else { return Ok(Availability::Enabled(flags)) };
    if !may_extend {
        let why =
            format!("notify-keyspace-events is \"{flags}\", which needs {wanted}, and swarm changes no setting there");
        return Ok(Availability::Refused(why));
    }
    let mut set = redis::cmd("CONFIG");
    set.arg("SET").arg("notify-keyspace-events").arg(&wanted);
    Ok(match refusal(set.query_async::<Value>(connection).await)? {
        Ok(_) => Availability::Extended { from: flags, to: wanted },
        Err(why) => {
            Availability::Refused(format!("notify-keyspace-events is \"{flags}\" and CONFIG SET is refused: {why}"))
        }
    })
}

/// Separates a refusal of the server (inner error, in its words) from a broken connection (outer error).
fn refusal<T>(result: redis::RedisResult<T>) -> Result<Result<T, String>, redis::RedisError> {
    match result {
        Ok(value) => Ok(Ok(value)),
        Err(error) if is_lost(&error) => Err(error),
        Err(error) => Ok(Err(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_in_use_needs_its_flag() {
        assert_eq!(needed_flags([QueueKind::Stream, QueueKind::Stream]), "Kt");
        assert_eq!(needed_flags([QueueKind::List, QueueKind::Stream]), "Ktl");
        let frameworks = [QueueKind::Framework(crate::queue_kind::Framework::Rq), QueueKind::List];
        assert_eq!(needed_flags(frameworks), "Klzh$g");
    }

    #[test]
    fn flags_are_added_and_never_removed() {
        assert_eq!(merged("", "Kt").as_deref(), Some("Kt"));
        assert_eq!(merged("Ex", "Kt").as_deref(), Some("ExKt"));
        assert_eq!(merged("AK", "Kt"), None);
        assert_eq!(merged("AE", "Ktl").as_deref(), Some("AEK"));
        assert_eq!(merged("tK", "Ktl").as_deref(), Some("tKl"));
    }
}

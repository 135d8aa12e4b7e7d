//! Errors of connecting, in words that name the server and the cure and contain no secret.

use redis::{ErrorKind, RedisError, ServerErrorKind};

/// Error codes with which the server refuses a user. In RESP3, HELLO names the user, and the client passes on the
/// refusal of HELLO unchanged.
const REFUSALS: [&str; 2] = ["WRONGPASS", "NOAUTH"];

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// The URL is invalid. The URL itself is left out, because it may contain a password.
    #[error(
        "the redis url can't be used: {reason}; write redis://[user:password@]host[:port][/database], or rediss:// for tls"
    )]
    Url {
        /// What is wrong with the URL.
        reason: String,
    },
    /// The server refused the user or password.
    #[error("redis at {target} refused the user or password ({cause}); check them in the redis url")]
    Refused {
        /// `host:port/database`.
        target: String,
        /// The server's error.
        cause: RedisError,
    },
    /// The server can't be reached.
    #[error("can't connect to redis at {target} ({cause}); check that it runs there and can be reached")]
    Unreachable {
        /// `host:port/database`.
        target: String,
        /// Error of the connection.
        cause: RedisError,
    },
    /// No sentinel names a server that is the primary.
    #[error("no primary for {target}: {reason}")]
    NoPrimary {
        /// The name and the sentinels.
        target: String,
        /// What each sentinel said, and the cure.
        reason: String,
    },
    /// No node of a cluster returns the slots.
    #[error(
        "none of the nodes of the redis {target} tells its slots ({cause}); check that they run there in cluster mode, can be \
         reached, and grant +cluster|slots"
    )]
    NoTopology {
        /// Nodes that were asked.
        target: String,
        /// Error of one of the nodes.
        cause: RedisError,
    },
}

impl ConnectionError {
    pub(super) fn url(error: &RedisError) -> Self {
        Self::Url { reason: error.to_string() }
    }

    pub(super) fn of_server(target: String, cause: RedisError) -> Self {
        if is_refusal(&cause) { Self::Refused { target, cause } } else { Self::Unreachable { target, cause } }
    }
}

/// Returns whether the server refuses this user.
pub(super) fn is_refusal(cause: &RedisError) -> bool {
    cause.kind() == ErrorKind::AuthenticationFailed || cause.code().is_some_and(|code| REFUSALS.contains(&code))
}

/// Returns whether the connection on which the error occurred is, or may be, unusable, so that the caller must open
/// another one. That includes a primary that became a replica and a node that gave its slot away: another connection
/// leads to the new primary.
pub fn is_lost(error: &RedisError) -> bool {
    error.is_io_error() || error.is_timeout() || error.is_unrecoverable_error() || has_moved_on(error)
}

fn has_moved_on(error: &RedisError) -> bool {
    const KINDS: [ServerErrorKind; 2] = [ServerErrorKind::ReadOnly, ServerErrorKind::Moved];
    // Before Redis 7 the refusal of a script's write is quoted in an error of the script.
    KINDS.map(ErrorKind::Server).contains(&error.kind())
        || error.detail().is_some_and(|detail| detail.contains("-READONLY "))
        || error.clone().into_server_errors().is_some_and(|errors| {
            errors.iter().any(|(_, error)| error.kind().is_some_and(|kind| KINDS.contains(&kind)))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_is_no_longer_the_one_to_ask_counts_as_a_lost_connection() {
        let lost = |reply: &str| {
            let value = redis::parse_redis_value(format!("-{reply}\r\n").as_bytes());
            is_lost(&value.and_then(redis::Value::extract_error).unwrap_err())
        };
        assert!(lost("READONLY You can't write against a read only replica."));
        assert!(lost("MOVED 3999 127.0.0.1:6381"));
        assert!(lost("ERR Error running script (call to f_1): @user_script:1: -READONLY You can't write"));
        for reply in ["WRONGTYPE it is a list", "ASK 3999 127.0.0.1:6381", "NOPERM no", "ERR no such key"] {
            assert!(!lost(reply), "{reply}");
        }
    }
}

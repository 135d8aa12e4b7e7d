//! Jobs on Redis streams: their format and routing, and how they are taken, completed, retried and buried. The wire
//! format and keys are a contract with programs in any language (`docs/protocol.md`). Must not run jobs, and never
//! reconnects: every call gets the connection to use, so that its owner decides about retries. The scheduler of delayed
//! jobs, a task of the autoscaler, is the exception.
//!
//! Delivery is at least once: a job is acknowledged after the work, and a job whose worker is gone is done again.

mod beside;
mod call;
mod cancel_marks;
mod canceller;
mod client;
mod complete;
mod consume;
mod control;
mod dead;
mod dead_counts;
mod dead_streams;
mod delayed;
mod delayed_scheduler;
mod delivery;
mod drain;
mod envelope;
mod exact;
mod explain;
mod find;
#[cfg(feature = "keda")]
mod group_workers;
mod inspect;
mod locate;
mod mask;
mod multi_stream;
mod options;
mod place;
mod policy;
mod progress;
mod publish;
mod recover;
mod result;
mod routing;
mod search;
mod session;
mod session_admission;
mod settle;
mod tidy;
mod trim;
mod validate;

pub use call::Call;
pub use cancel_marks::CANCELLED;
pub use client::{CallError, Client};
pub use complete::{Done, Refused, Unsettled};
pub use consume::{Consumer, Read};
pub use control::{DRAIN, cancel_drain, request_drain};
pub use dead::{DeadEntry, DeadLetters};
pub use dead_counts::DeadLetterCounter;
pub use dead_streams::DeadLetterStreams;
pub use delayed::Delayed;
pub use delayed_scheduler::DelayedScheduler;
pub use delivery::{Delivery, RawEntry, Refusal, is_suspect};
pub use drain::{DrainRequestError, DrainRequests, Progress};
pub use envelope::{EnvelopeError, Job};
pub use exact::{digits, from_slice, to_string};
pub use explain::{Outlook, ScalerWord, explain, unread};
pub use find::{Beside, find_beside, find_queues, found_lately, tell_found};
#[cfg(feature = "keda")]
pub use group_workers::GroupWorkers;
pub use locate::Subject;
pub use multi_stream::Take;
pub use place::Place;
pub use policy::JobPolicy;
pub use progress::{PROGRESS_TTL, progress_of};
pub use publish::{PublishError, Published, Publisher};
pub use recover::{Begun, Recovered};
pub use result::{JobResult, wait_for_any, wait_shared};
pub use routing::{Routes, RoutingError, method_of};
pub use session::{HANDED_OVER, MAX_SESSION_NAME, Route, SessionClaims, SessionState, Silence, session_of};
pub use session_admission::{AdmittedSession, SessionAdmission, SessionOpening};
pub use settle::{Failed, Retry};
pub use tidy::Tidied;

use redis::RedisError;

use crate::connection::is_lost;

/// Redis did not do what the broker asked.
#[derive(Debug, thiserror::Error)]
#[error("can't {doing} ({cause}){}", cure(.cause))]
pub struct BrokerError {
    doing: String,
    cause: RedisError,
}

impl BrokerError {
    fn new(doing: impl Into<String>, cause: RedisError) -> Self {
        Self { doing: doing.into(), cause }
    }

    /// Returns whether the stream or its group is missing: [`Consumer::ensure_group`] creates it.
    pub fn is_missing_group(&self) -> bool {
        // A reader that is blocked while the key is deleted gets UNBLOCKED from Redis before 7.2, NOGROUP from then on.
        // From a script, Redis before 7 gives the code in the text only.
        matches!(code(&self.cause).as_deref(), Some("NOGROUP" | "UNBLOCKED"))
            || self.cause.detail().is_some_and(|text| text.contains(": NOGROUP "))
    }

    /// Returns whether the key holds another type than the command needs.
    pub fn is_wrong_type(&self) -> bool {
        code(&self.cause).as_deref() == Some("WRONGTYPE")
    }

    /// Returns whether this user has no right to do so.
    pub fn is_denied(&self) -> bool {
        code(&self.cause).as_deref() == Some("NOPERM")
    }

    /// Returns whether the connection is, or may be, unusable: connect again.
    pub fn is_connection_lost(&self) -> bool {
        is_lost(&self.cause)
    }
}

/// Returns whether Redis refuses to write: it is out of memory, can't save, has too few replicas, or is a replica
/// itself. It answers reads and, if it is out of memory, commands that need no memory.
pub fn refuses_writes(cause: &RedisError) -> bool {
    const CODES: [&str; 4] = ["OOM", "MISCONF", "NOREPLICAS", "READONLY"];
    let (text, code) = (cause.to_string(), code(cause));
    let is_aborted = code.as_deref() == Some("EXECABORT") || text.contains("EXECABORT");
    code.is_some_and(|code| CODES.contains(&code.as_str()))
        // A refused transaction gives the reason in its text only.
        || is_aborted && CODES.iter().any(|code| text.contains(code))
        // Before Redis 7 the refusal of a script's write is quoted in an error of the script.
        || CODES.iter().any(|code| text.contains(&format!(": -{code} ")))
}

fn cure(cause: &RedisError) -> &'static str {
    match code(cause).as_deref() {
        Some("WRONGTYPE") => {
            "; the key holds something that is not a stream: rename it or configure another `job_queue`"
        }
        Some("NOPERM") => "; grant the rights in docs/protocol.md to this user",
        _ => "",
    }
}

/// Returns the error's first word as Redis sent it. For a pipeline or transaction, that of the first command that
/// failed.
fn code(cause: &RedisError) -> Option<String> {
    let of_pipeline = || {
        let errors = cause.clone().into_server_errors()?;
        errors.first().map(|(_, error)| error.code().to_owned())
    };
    of_pipeline().or_else(|| cause.code().map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_write_is_known_alone_in_a_transaction_and_in_a_script() {
        let refused = |reply: &str| {
            let value = redis::parse_redis_value(format!("-{reply}\r\n").as_bytes());
            refuses_writes(&value.and_then(redis::Value::extract_error).unwrap_err())
        };
        assert!(refused("OOM command not allowed when used memory > 'maxmemory'."));
        assert!(refused("EXECABORT Transaction discarded because of: MISCONF Redis is configured to save"));
        assert!(refused("ERR Error running script (call to f_1): @user_script:9: @user_script: 9: -OOM command not"));
        for reply in ["NOPERM no", "WRONGTYPE it is a list", "ERR Error running script: @user_script: 9: -NOPERM OOM"] {
            assert!(!refused(reply), "{reply}");
        }
    }
}

//! What can go wrong with a request to the Machines API, what that means, and what to do about it in words. Retries
//! nothing.

use std::time::Duration;

use serde::Deserialize;

use crate::backend::{BackendError, ErrorKind, http_client, leader_guard::NOT_LEADING};

/// Why a request brought nothing.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum Failure {
    /// No answer, or one that was cut off: whether it was carried out is not known.
    #[error("no answer: {0}")]
    NoAnswer(String),
    /// Not asked.
    #[error("{NOT_LEADING}")]
    NotLeading,
    /// An answer that can't be understood.
    #[error("an answer that can't be read: {0}")]
    Garbled(String),
    /// A refusal.
    #[error("{status} {message}")]
    Refused {
        /// The status of HTTP.
        status: u16,
        /// Fly.io's own code, such as `insufficient_capacity`; empty if there is none.
        code: String,
        /// What it says.
        message: String,
        /// When to try again, if it says so.
        retry_after: Option<Duration>,
    },
}

/// The body of a refusal.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Refusal {
    error: String,
    message: String,
    status: String,
}

/// How much of what the API says is passed on.
const SHOWN: usize = 300;

impl Failure {
    /// Reads a refusal.
    pub(super) fn refused(status: u16, retry_after: Option<Duration>, body: &str) -> Self {
        let Refusal { error, message, status: code } = serde_json::from_str(body).unwrap_or_default();
        let said =
            [error, message, body.trim().to_owned()].into_iter().find(|text| !text.is_empty()).unwrap_or_default();
        Self::Refused { status, code, message: said.chars().take(SHOWN).collect(), retry_after }
    }

    pub(super) fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// Whether it may have been carried out all the same.
    pub(super) fn is_ambiguous(&self) -> bool {
        !matches!(self, Self::NotLeading) && self.status().is_none_or(|status| status == 408 || status >= 500)
    }

    /// Whether the thing does not exist.
    pub(super) fn is_gone(&self) -> bool {
        matches!(self.status(), Some(404 | 410))
    }

    /// Whether somebody else is changing the thing, or its state does not allow this now.
    pub(super) fn is_conflict(&self) -> bool {
        matches!(self.status(), Some(409 | 412 | 423))
    }

    /// Whether there is no room for a machine where it was to be.
    pub(super) fn is_capacity(&self) -> bool {
        match self {
            Self::Refused { status, code, message, .. } => {
                matches!(code.as_str(), "insufficient_capacity" | "volume_placement_capacity")
                    || (*status == 409 && ["insufficient ", "no capacity"].iter().any(|text| message.contains(text)))
            }
            _ => false,
        }
    }

    /// Whether a machine of that name exists.
    pub(super) fn is_name_taken(&self) -> bool {
        matches!(self, Self::Refused { status: 409 | 422, message, .. } if message.contains("already exists with name"))
    }

    /// Whether there were too many requests.
    pub(super) fn is_throttled(&self) -> bool {
        self.status() == Some(429)
    }

    /// When to try again, if the API said so.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// For the caller of the backend: what failed, why, and the cure.
    pub(super) fn into_error(self, doing: &str, app: &str) -> BackendError {
        let (kind, cure) = self.verdict(app);
        BackendError::new(kind, format!("fly.io app `{app}`: {doing}: {self}; {cure}")).caused_by(self)
    }

    fn verdict(&self, app: &str) -> (ErrorKind, String) {
        use ErrorKind::{Permanent, Retryable};
        if matches!(self, Self::NotLeading) {
            return (Retryable, "its own decisions follow".into());
        }
        if self.is_capacity() {
            return (
                Retryable,
                "there is no room for such a machine; add other `regions` or choose another size".into(),
            );
        }
        match self.status() {
            Some(401) => (
                Permanent,
                format!("the token is missing, wrong or expired; put one of `fly tokens create deploy -a {app}` into FLY_API_TOKEN"),
            ),
            Some(403) => (
                Permanent,
                format!("the token is for something else or may only read; `fly tokens create deploy -a {app}` makes one that may scale"),
            ),
            Some(404) => (
                Permanent,
                format!("the app does not exist or the token can't see it; `fly apps create {app}`, or set `worker_types.NAME.fly.app`"),
            ),
            Some(400 | 422) => (
                Permanent,
                "the machine's configuration is refused; check `image`, `size`, `guest` and `regions` in `worker_types.NAME.fly`".into(),
            ),
            Some(409 | 412 | 423) => (
                Retryable,
                "somebody else is changing it, perhaps a deployment; it is tried again (`fly machine leases view`)".into(),
            ),
            Some(429) => (Retryable, "Fly.io asks for fewer requests; it is tried again".into()),
            _ => (Retryable, "it is tried again; see https://status.flyio.net and `fly.base_url`".into()),
        }
    }
}

impl From<reqwest::Error> for Failure {
    fn from(error: reqwest::Error) -> Self {
        Self::NoAnswer(http_client::why(&error.without_url()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_app_and_the_cure() {
        for (status, kind, cure) in [
            (401, ErrorKind::Permanent, "fly tokens create deploy -a shop"),
            (403, ErrorKind::Permanent, "fly tokens create deploy -a shop"),
            (404, ErrorKind::Permanent, "fly apps create shop"),
            (422, ErrorKind::Permanent, "`image`"),
            (409, ErrorKind::Retryable, "leases"),
            (429, ErrorKind::Retryable, "fewer requests"),
            (503, ErrorKind::Retryable, "status.flyio.net"),
        ] {
            let error = Failure::refused(status, None, r#"{"error":"because"}"#).into_error("listing machines", "shop");
            assert_eq!(error.kind, kind, "{status}");
            let head = format!("fly.io app `shop`: listing machines: {status} because; ");
            assert!(error.message.starts_with(&head) && error.message.contains(cure), "{}", error.message);
        }
    }

    #[test]
    fn refusals_are_told_apart() {
        let refused = |status, body: &str| Failure::refused(status, None, body);
        assert!(refused(422, r#"{"error":"x","status":"insufficient_capacity"}"#).is_capacity());
        assert!(refused(409, r#"{"error":"aborted: insufficient memory available to fulfill request"}"#).is_capacity());
        let taken =
            r#"{"error":"already_exists: unique machine name violation, machine ID 1 already exists with name \"x\""}"#;
        assert!(refused(409, taken).is_name_taken() && !refused(409, "{}").is_name_taken());
        assert!(refused(408, "").is_ambiguous() && refused(502, "<html>").is_ambiguous());
        assert!(!refused(422, "").is_ambiguous() && !refused(429, "").is_ambiguous());
        assert!(Failure::NoAnswer(String::new()).is_ambiguous() && !Failure::NotLeading.is_ambiguous());
    }
}

//! Errors of calls to an engine, classified by what to do about them.

use std::{io, time::Duration};

use bollard::errors::Error;

use super::endpoint::Endpoint;
use crate::backend::{BackendError, ErrorKind, leader_guard::NOT_LEADING};

/// A call to the engine failed.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum EngineError {
    /// No connection, or it broke.
    #[error("the docker engine at {engine} can't be reached: {why}; {cure}")]
    Unreachable {
        /// Where it should be.
        engine: String,
        /// The system's message.
        why: String,
        /// How to fix it.
        cure: &'static str,
        /// Whether the engine may have got the request.
        sent: bool,
    },
    /// It was not asked.
    #[error("{NOT_LEADING}")]
    NotLeading,
    /// No answer in time. The request may still be carried out.
    #[error(
        "the docker engine at {engine} did not answer `{call}` within {} s; if that lasts, look at its log and restart it",
        .after.as_secs()
    )]
    TimedOut {
        /// Where it is.
        engine: String,
        /// The call.
        call: &'static str,
        /// How long it had.
        after: Duration,
    },
    /// It answered no.
    #[error("the docker engine refused `{call}`: {message} (status {status})")]
    Refused {
        /// The call.
        call: &'static str,
        /// HTTP status.
        status: u16,
        /// Its own words.
        message: String,
    },
    /// An answer that can't be parsed, or a client that can't be set up.
    #[error("`{call}` at the docker engine at {engine}: {why}")]
    Other {
        /// Where it is.
        engine: String,
        /// The call.
        call: &'static str,
        /// In the client's words.
        why: String,
    },
}

impl EngineError {
    /// Classifies the client's error.
    pub(super) fn of(error: Error, call: &'static str, endpoint: &Endpoint) -> Self {
        let engine = endpoint.to_string();
        match error {
            Error::DockerResponseServerError { status_code: status, message } => {
                Self::Refused { call, status, message: message.trim().to_owned() }
            }
            Error::SocketNotFoundError(_) => {
                let why = "there is no such socket".to_owned();
                Self::Unreachable {
                    engine,
                    why,
                    cure: "start the engine, or mount its socket; DOCKER_HOST names another",
                    sent: false,
                }
            }
            Error::CertPathError { path } | Error::CertParseError { path } | Error::CertMultipleKeys { path, .. } => {
                let why = format!(
                    "`{}` can't be used; set DOCKER_CERT_PATH to the directory of ca.pem, cert.pem and key.pem",
                    path.display()
                );
                Self::Other { engine, call, why }
            }
            error => {
                let causes = causes(&error);
                let denied = io_kind(&error) == Some(io::ErrorKind::PermissionDenied);
                let broken = matches!(
                    error,
                    Error::HyperLegacyError { .. } | Error::HyperResponseError { .. } | Error::IOError { .. }
                );
                match (denied, broken) {
                    (true, _) => Self::Unreachable {
                        engine,
                        why: causes,
                        cure: "add this user to the socket's group (in a container: `group_add`), or go through a socket proxy",
                        sent: false,
                    },
                    (false, true) => Self::Unreachable {
                        engine,
                        why: causes,
                        cure: "is it running, and is DOCKER_HOST right?",
                        sent: !matches!(&error, Error::HyperLegacyError { err } if err.is_connect()),
                    },
                    (false, false) => Self::Other { engine, call, why: causes },
                }
            }
        }
    }

    /// The thing asked about does not exist.
    pub(super) fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { status: 404, .. })
    }

    /// Something is in the way: a name in use, a removal under way.
    pub(super) fn is_conflict(&self) -> bool {
        matches!(self, Self::Refused { status: 409, .. })
    }

    /// Whether it may have been done all the same.
    pub(super) fn is_ambiguous(&self) -> bool {
        !self.was_never_asked() && !matches!(self, Self::Refused { .. } | Self::NotLeading)
    }

    /// The same for a request that changes nothing, so that nothing may have been done.
    pub(super) fn unsent(self) -> Self {
        match self {
            Self::Unreachable { engine, why, cure, .. } => Self::Unreachable { engine, why, cure, sent: false },
            Self::TimedOut { engine, call, after } => {
                let why = format!("no answer to `{call}` within {} s", after.as_secs());
                Self::Unreachable { engine, why, cure: "look at its log", sent: false }
            }
            Self::Other { engine, call, why } => {
                let why = format!("`{call}`: {why}");
                Self::Unreachable { engine, why, cure: "look at its log", sent: false }
            }
            other => other,
        }
    }

    /// Whether the engine can't have got the request.
    pub(super) fn was_never_asked(&self) -> bool {
        matches!(self, Self::Unreachable { sent: false, .. })
    }

    /// Whether a retry may help. A request that the engine rejects stays wrong.
    pub(super) fn kind(&self) -> ErrorKind {
        match self {
            Self::Refused { status: 400..=404, .. } | Self::Refused { status: 405, .. } => ErrorKind::Permanent,
            _ => ErrorKind::Retryable,
        }
    }

    /// As a backend's error, with nothing done.
    pub(super) fn into_backend(self) -> BackendError {
        BackendError::new(self.kind(), self.to_string()).caused_by(self)
    }
}

/// The error and its causes: the outer ones say only that something failed.
fn causes(error: &Error) -> String {
    let mut words = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let text = cause.to_string();
        if !words.contains(&text) {
            words = format!("{words}: {text}");
        }
        source = cause.source();
    }
    words
}

fn io_kind(error: &Error) -> Option<io::ErrorKind> {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(cause) = source {
        if let Some(error) = cause.downcast_ref::<io::Error>() {
            return Some(error.kind());
        }
        source = cause.source();
    }
    None
}

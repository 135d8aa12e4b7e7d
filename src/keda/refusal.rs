//! Why a request gets no answer, as gRPC says it.

use tonic::{Code, Status};

/// Why a request gets no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The trigger's metadata, or the name of a metric, is wrong.
    Invalid(String),
    /// There is no such worker type.
    UnknownType(String),
    /// The number is not known now. Neither 0 nor inactive, which would stop workers.
    Unavailable(String),
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Invalid(message) => Self::invalid_argument(message),
            Refusal::UnknownType(message) => Self::not_found(message),
            Refusal::Unavailable(message) => Self::unavailable(message),
        }
    }
}

/// Returns the name of a status code that this server sends, in metric labels.
pub(super) fn code_label(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::NotFound => "NOT_FOUND",
        Code::Unavailable => "UNAVAILABLE",
        _ => "OTHER",
    }
}

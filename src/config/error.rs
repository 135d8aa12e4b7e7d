//! Errors of a configuration, in words: each names its place and the cure. Never contain a secret.

use std::fmt;

use serde::{Serialize, Serializer};

use super::origin::Origin;

/// One error of a configuration.
#[derive(Clone, Debug, Serialize)]
pub struct ConfigError {
    /// Where the value was set.
    #[serde(serialize_with = "as_text")]
    pub origin: Origin,
    /// What is wrong and what to do about it.
    pub message: String,
}

impl ConfigError {
    pub(super) fn new(origin: Origin, message: impl Into<String>) -> Self {
        Self { origin, message: message.into() }
    }
}

fn as_text<S: Serializer>(origin: &Origin, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(origin)
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.origin, self.message)
    }
}

/// All errors, in the order of the file, then the environment, then the flags. Never empty.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}", self.lines())]
pub struct ConfigErrors(Vec<ConfigError>);

impl ConfigErrors {
    /// Returns `errors` in order.
    pub(super) fn new(mut errors: Vec<ConfigError>) -> Self {
        errors.sort_by_key(|error| error.origin.report_order());
        Self(errors)
    }

    /// Returns a single error.
    pub(super) fn one(error: ConfigError) -> Self {
        Self(vec![error])
    }

    /// Returns the errors, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &ConfigError> {
        self.0.iter()
    }

    fn lines(&self) -> String {
        self.0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    }
}

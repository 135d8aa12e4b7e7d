//! What a backend has tried of what it will need: the one shape in which all of them say it, for `swarm doctor`. Trying
//! changes nothing.

use super::BackendError;

/// One thing that was tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What was tried: `fly.io app \`shop\`: list machines`.
    pub what: String,
    /// What came of it.
    pub outcome: CheckOutcome,
}

/// What came of it, in words for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckOutcome {
    /// It works, and what was found.
    Fine(String),
    /// It can't be told, or may fail later, and why.
    Doubtful(String),
    /// It does not work; names the cure.
    Wrong(String),
}

impl Check {
    /// It works, or it does not.
    pub fn new(what: impl Into<String>, result: Result<String, BackendError>) -> Self {
        let outcome = result.map_or_else(|error| CheckOutcome::Wrong(error.message), CheckOutcome::Fine);
        Self { what: what.into(), outcome }
    }

    /// It can't be told.
    pub fn doubtful(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self { what: what.into(), outcome: CheckOutcome::Doubtful(why.into()) }
    }

    /// Whether it works for certain.
    pub fn is_fine(&self) -> bool {
        matches!(self.outcome, CheckOutcome::Fine(_))
    }
}

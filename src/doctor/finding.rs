//! The findings of the checks, and how serious they are.

use std::fmt;

use serde::Serialize;

/// Maximum findings of one kind that are reported one by one; the rest is a number. Good findings get less room.
const TOLD: usize = 20;
const TOLD_OK: usize = 5;

/// Area of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Area {
    /// Configuration file, environment and flags.
    Configuration,
    /// Redis server.
    Redis,
    /// Signal sources.
    Signals,
    /// Rights of this Redis user.
    Rights,
    /// The autoscaler itself.
    Autoscaler,
    /// Backend that runs the workers.
    Backend,
    /// Queues and their jobs.
    Queues,
    /// Health of the workers.
    Workers,
    /// What keeps a pool at its size.
    Scaling,
}

impl fmt::Display for Area {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Configuration => "configuration",
            Self::Redis => "redis",
            Self::Signals => "signals",
            Self::Rights => "rights",
            Self::Autoscaler => "autoscaler",
            Self::Backend => "backend",
            Self::Queues => "queues",
            Self::Workers => "workers",
            Self::Scaling => "scaling",
        })
    }
}

/// Severity of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Works as it should.
    Ok,
    /// Works, and somebody should know about it.
    Warning,
    /// Does not work.
    Problem,
}

impl Level {
    /// Returns the name in the report.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Problem => "problem",
        }
    }
}

/// Result of one check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Area of the check.
    pub area: Area,
    /// Severity of the result.
    pub level: Level,
    /// Description of the result.
    pub found: String,
    /// What to do; `None` if there is nothing to do, or if `found` says it.
    pub cure: Option<String>,
}

impl Finding {
    /// Returns a finding of something that works as it should.
    pub fn ok(area: Area, found: impl Into<String>) -> Self {
        Self { area, level: Level::Ok, found: found.into(), cure: None }
    }

    /// Returns a finding that somebody should know about.
    pub fn warning(area: Area, found: impl Into<String>) -> Self {
        Self { level: Level::Warning, ..Self::ok(area, found) }
    }

    /// Returns a finding of something that does not work.
    pub fn problem(area: Area, found: impl Into<String>) -> Self {
        Self { level: Level::Problem, ..Self::ok(area, found) }
    }

    /// Says which server the result is about.
    #[must_use]
    pub fn at(self, server: &str) -> Self {
        Self { found: format!("{server}: {}", self.found), ..self }
    }

    /// Adds what to do.
    #[must_use]
    pub fn cure(self, cure: impl Into<String>) -> Self {
        Self { cure: Some(cure.into()), ..self }
    }
}

/// Returns a count with its noun: `1 job`, `2 jobs`.
pub(super) fn some(count: impl Into<u64>, thing: &str) -> String {
    let count = count.into();
    format!("{count} {thing}{}", if count == 1 { "" } else { "s" })
}

/// Returns the most serious findings, and a last one with the number of the others.
pub(super) fn bounded(mut findings: Vec<Finding>) -> Vec<Finding> {
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.level));
    let bad = findings.iter().filter(|finding| finding.level > Level::Ok).count();
    let told = if bad > TOLD { TOLD } else { bad + TOLD_OK };
    if findings.len() > told {
        let rest = findings.split_off(told);
        let worst = rest.iter().map(|finding| finding.level).max().unwrap_or(Level::Ok);
        let more = Finding { level: worst, ..Finding::ok(rest[0].area, format!("and {} more like these", rest.len())) };
        findings.push(more);
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_findings_the_worst_are_told() {
        let many = (0..50).map(|n| Finding::warning(Area::Queues, n.to_string()));
        let all: Vec<_> = many.chain([Finding::problem(Area::Queues, "worst")]).collect();
        let told = bounded(all);
        assert_eq!((told.len(), told[0].found.as_str()), (TOLD + 1, "worst"));
        assert_eq!(told[TOLD], Finding::warning(Area::Queues, "and 31 more like these"));
        let fine = bounded((0..9).map(|n| Finding::ok(Area::Queues, n.to_string())).collect());
        assert_eq!((fine.len(), fine[5].found.as_str()), (6, "and 4 more like these"));
    }
}

//! What was found, and how bad it is.

use std::fmt;

use serde::Serialize;

/// Findings of one kind that are told one by one; of the rest, how many there are. What is as it should be is told of in fewer words.
const TOLD: usize = 20;
const TOLD_OK: usize = 5;

/// Where to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Area {
    /// The configuration file, environment and flags.
    Configuration,
    /// The Redis server.
    Redis,
    /// How it is noticed that a job has come.
    Signals,
    /// What this Redis user may do.
    Rights,
    /// The autoscaler itself.
    Autoscaler,
    /// Who runs the workers.
    Backend,
    /// Queues and what is on them.
    Queues,
    /// Workers.
    Workers,
    /// What holds the number of workers.
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

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// As it should be.
    Ok,
    /// It works, and somebody should know.
    Warning,
    /// It does not work.
    Problem,
}

impl Level {
    /// The name in the report.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Problem => "problem",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Where.
    pub area: Area,
    /// How bad.
    pub level: Level,
    /// What was found.
    pub found: String,
    /// What to do about it; `None` if nothing, or if `found` says so already.
    pub cure: Option<String>,
}

impl Finding {
    /// As it should be.
    pub fn ok(area: Area, found: impl Into<String>) -> Self {
        Self { area, level: Level::Ok, found: found.into(), cure: None }
    }

    /// Somebody should know.
    pub fn warning(area: Area, found: impl Into<String>) -> Self {
        Self { level: Level::Warning, ..Self::ok(area, found) }
    }

    /// It does not work.
    pub fn problem(area: Area, found: impl Into<String>) -> Self {
        Self { level: Level::Problem, ..Self::ok(area, found) }
    }

    /// With what to do about it.
    #[must_use]
    pub fn cure(self, cure: impl Into<String>) -> Self {
        Self { cure: Some(cure.into()), ..self }
    }
}

/// `1 job`, `2 jobs`.
pub(super) fn some(count: impl Into<u64>, thing: &str) -> String {
    let count = count.into();
    format!("{count} {thing}{}", if count == 1 { "" } else { "s" })
}

/// Of many findings the worst ones, and how many more there are.
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

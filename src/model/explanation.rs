//! The last decision about a worker type as arithmetic: the output of `swarm why --json` and
//! `/v1/worker_types/{name}/why`.

use schemars::JsonSchema;
use serde::Serialize;

use super::snapshot::{FleetSnapshot, LeadershipSnapshot, TypeSnapshot};

/// Placeholder for a decision before the first one.
const NONE: &str = "-";

/// The last decision, for programs. The snapshot's fields hold what was observed.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Explanation<'a> {
    /// Headline of the decision: `held at 3: …`
    pub decision: &'a str,
    /// Rules that changed the outcome, in order; the last one decided.
    pub rules: &'a [String],
    /// Whether this autoscaler leads, and so carries out its decisions.
    pub leadership: &'a LeadershipSnapshot,
    /// Whether this autoscaler only decides and never acts.
    pub dry_run: bool,
    /// The worker type at the time of the decision.
    #[serde(flatten)]
    pub seen: &'a TypeSnapshot,
}

impl<'a> Explanation<'a> {
    /// Returns the explanation for one worker type of a fleet.
    pub fn of(seen: &'a TypeSnapshot, fleet: &'a FleetSnapshot) -> Self {
        // The first reason is the headline, which contains all the others.
        let (decision, rules) =
            seen.reasons.split_first().map_or((NONE, [].as_slice()), |(headline, rules)| (headline.as_str(), rules));
        Self { decision, rules, leadership: &fleet.leadership, dry_run: fleet.dry_run, seen }
    }
}

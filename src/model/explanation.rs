//! The last decision about a worker type as arithmetic: what `swarm why --json` and `/v1/worker_types/{name}/why` give.

use schemars::JsonSchema;
use serde::Serialize;

use super::snapshot::{FleetSnapshot, LeadershipSnapshot, TypeSnapshot};

/// Stands for a decision before the first one.
const NONE: &str = "-";

/// The last decision for programs. What was seen is in the fields of the snapshot.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Explanation<'a> {
    /// `held at 3: …`
    pub decision: &'a str,
    /// The rules that changed the outcome, in order: the last one decided.
    pub rules: &'a [String],
    /// Whether this autoscaler carries out what it decides.
    pub leadership: &'a LeadershipSnapshot,
    /// Whether it only decides and never acts.
    pub dry_run: bool,
    /// The worker type as of then.
    #[serde(flatten)]
    pub seen: &'a TypeSnapshot,
}

impl<'a> Explanation<'a> {
    /// Of one worker type of a fleet.
    pub fn of(seen: &'a TypeSnapshot, fleet: &'a FleetSnapshot) -> Self {
        // The first of the reasons is the headline, which holds all of them.
        let (decision, rules) =
            seen.reasons.split_first().map_or((NONE, [].as_slice()), |(headline, rules)| (headline.as_str(), rules));
        Self { decision, rules, leadership: &fleet.leadership, dry_run: fleet.dry_run, seen }
    }
}

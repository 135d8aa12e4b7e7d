//! Whether the workers of each type could be started here. Starts nothing.

use std::collections::BTreeMap;

use super::{ProcessSpec, Surroundings};
use crate::{
    backend::Check,
    model::{WorkerId, WorkerType},
};

/// Looks for each worker type's program and directory.
pub fn check(types: &BTreeMap<WorkerType, ProcessSpec>, surroundings: &Surroundings) -> Vec<Check> {
    let of_type = |(worker_type, spec): (&WorkerType, &ProcessSpec)| {
        let made = surroundings.command(spec, worker_type, &WorkerId::new("check"));
        let program = spec.command.first().map(String::as_str).unwrap_or_default();
        Check::new(format!("worker type `{worker_type}`: its program"), made.map(|_| format!("`{program}` can be run")))
    };
    types.iter().map(of_type).collect()
}

//! Events of configuration reloads.
#![expect(clippy::disallowed_macros, reason = "`telemetry` is where metrics are emitted")]

use metrics::{counter, gauge};
use tracing::{error, info, warn};

use crate::{
    model::snapshot::{ReloadOutcome, ReloadSnapshot},
    telemetry::metric,
};

/// The configuration with which the program started is in force.
#[derive(Clone, Copy, Debug)]
pub struct ConfigLoaded;

impl ConfigLoaded {
    /// Sets `swarm_config_last_reload_success`.
    pub fn emit(self) {
        gauge!(metric::LAST_RELOAD_SUCCESS).set(1.0);
    }
}

/// A budget of all worker types is in force, or none.
#[derive(Clone, Copy, Debug)]
pub struct BudgetConfigured {
    /// `max_total_workers`.
    pub total: Option<u32>,
}

impl BudgetConfigured {
    /// Sets `swarm_workers_budget`.
    pub fn emit(self) {
        gauge!(metric::WORKERS_BUDGET).set(self.total.map_or(f64::NAN, f64::from));
    }
}

/// The configuration was reloaded, whatever the result.
#[derive(Clone, Copy, Debug)]
pub struct ConfigReloaded<'a> {
    /// What caused the reload: `signal`, `file`.
    pub trigger: &'static str,
    /// Result of the reload.
    pub reload: &'a ReloadSnapshot,
}

impl ConfigReloaded<'_> {
    /// Counts and logs the reload: one line for the result, one more for settings that need a restart.
    pub fn emit(self) {
        let Self { trigger, reload } = self;
        counter!(metric::RELOADS, "outcome" => reload.outcome.as_str()).increment(1);
        gauge!(metric::LAST_RELOAD_SUCCESS).set(if reload.outcome == ReloadOutcome::Refused { 0.0 } else { 1.0 });
        match reload.outcome {
            ReloadOutcome::Applied => info!(trigger, "configuration loaded again: {}", reload.changes),
            ReloadOutcome::Unchanged => info!(trigger, "configuration loaded again: nothing that it changes"),
            ReloadOutcome::Refused => {
                let errors = reload.errors.join("; ");
                error!(trigger, "the new configuration is refused, the one before goes on: {errors}");
            }
        }
        if !reload.need_restart.is_empty() {
            let settings = reload.need_restart.join(", ");
            warn!(trigger, "settings that take effect only after a restart have changed: {settings}");
        }
    }
}

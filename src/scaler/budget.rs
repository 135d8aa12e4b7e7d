//! The claims of all pools on the budget `max_total_workers`. A pool decides and claims in one step, so that two pools
//! never take the same place. Wakes a pool when its part changes. How places are shared is decided in `policy`.

mod claims;
#[cfg(test)]
mod fixtures;

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use self::claims::Claims;
use crate::{
    config::{ScalingSettings, Settings},
    model::{Allowance, PoolCounts, Reading, Source, WorkerType},
    policy::Decision,
    signal::CurrentDirectory,
    telemetry::{BudgetConfigured, SignalsReceived},
};

/// How a pool takes part in the budget.
#[derive(Clone, Copy, Debug)]
pub struct Participation {
    /// Whether the decision is carried out.
    pub acts: bool,
    /// Whether the pool may get more workers; otherwise no place is kept free for it.
    pub grows: bool,
}

/// The budget that all actors share. Without `max_total_workers` it limits nothing.
#[derive(Debug, Default)]
pub struct Budget {
    /// Whether there is a budget, so that evaluations without one take no lock.
    limits: AtomicBool,
    claims: Mutex<Option<Claims>>,
    /// Where pools are woken; `None` if there is one pool only.
    directory: Option<Arc<CurrentDirectory>>,
}

impl Budget {
    /// Returns a budget that limits nothing yet, and wakes pools through their mailboxes.
    pub fn new(directory: Arc<CurrentDirectory>) -> Self {
        Self { directory: Some(directory), ..Self::default() }
    }

    /// Takes over the settings of a configuration.
    pub fn configure(&self, settings: &Settings) {
        let types = settings.enabled().map(|(name, of)| (WorkerType::new(name), &of.scaling));
        let total = settings.scaler.max_total_workers;
        self.share(types, total);
        BudgetConfigured { total }.emit();
    }

    /// Shares `total` workers among these worker types, and wakes all of them if that changes anything. Pools that stay
    /// keep their claims. A pool that nobody has observed yet counts with its `max_workers`: unknown is not zero.
    pub fn share<'a>(&self, types: impl IntoIterator<Item = (WorkerType, &'a ScalingSettings)>, total: Option<u32>) {
        let mut claims = self.claims.lock().unwrap_or_else(PoisonError::into_inner);
        let new = total.map(|total| Claims::new(total, types, claims.as_ref()));
        let changed = match (&*claims, &new) {
            (None, None) => false,
            (Some(before), Some(new)) => !before.has_same_settings(new),
            _ => true,
        };
        if changed {
            *claims = new;
        }
        self.limits.store(claims.is_some(), Ordering::Release);
        drop(claims);
        if let Some(directory) = self.directory.as_ref().filter(|_| changed) {
            directory.get().post_all(Source::Budget);
        }
    }

    /// Decides within the budget, and records the pool's claim. `decide` is asked first without the budget, and again
    /// if the budget leaves less.
    pub fn decide(
        &self,
        worker_type: &WorkerType,
        pool: &Reading<PoolCounts>,
        participation: Participation,
        decide: impl Fn(Option<Allowance>) -> Decision,
    ) -> Decision {
        if !self.limits.load(Ordering::Acquire) {
            return decide(None);
        }
        let mut claims = self.claims.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((claims_in_force, index)) =
            claims.as_mut().and_then(|claims| claims.index_of(worker_type).map(|index| (claims, index)))
        else {
            drop(claims);
            return decide(None);
        };
        let (decision, woken) = claims_in_force.decide(index, pool, participation, decide);
        drop(claims);
        if let Some(directory) = self.directory.as_ref().filter(|_| !woken.is_empty()) {
            let directories = directory.get();
            let posted = woken.iter().filter(|worker_type| directories.post(worker_type, Source::Budget)).count();
            SignalsReceived { source: Source::Budget, count: posted as u64 }.emit();
        }
        decision
    }
}

#[cfg(test)]
mod tests;

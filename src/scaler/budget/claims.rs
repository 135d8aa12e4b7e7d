//! All claims on the budget, and whom a changed claim concerns. No lock and no signal.

use std::collections::BTreeMap;

use super::Participation;
use crate::{
    config::ScalingSettings,
    model::{Allowance, PoolCounts, Reading, WorkerType, snapshot::Action},
    policy::{Claim, Decision, Reason, allowances},
};

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Claims {
    total: u32,
    by_type: BTreeMap<WorkerType, usize>,
    /// Sorted by falling priority, then by name.
    pools: Vec<Claim>,
    names: Vec<WorkerType>,
    /// Allowance that held the pool back when it was evaluated last, or to which it was woken since.
    limits: Vec<Option<u32>>,
    /// Number of limits.
    limited: usize,
    /// Places that satisfy all claims.
    full: u64,
}

impl Claims {
    /// Returns the claims of these worker types, as far as they are known from `before`.
    pub(super) fn new<'a>(
        total: u32,
        types: impl IntoIterator<Item = (WorkerType, &'a ScalingSettings)>,
        before: Option<&Self>,
    ) -> Self {
        let mut types: Vec<(WorkerType, &ScalingSettings)> = types.into_iter().collect();
        types.sort_by(|(name, one), (other_name, other)| (-one.priority, name).cmp(&(-other.priority, other_name)));
        let pools: Vec<Claim> = types
            .iter()
            .map(|(name, scaling)| claim(scaling, before.and_then(|before| before.claim_of(name))))
            .collect();
        let names: Vec<WorkerType> = types.into_iter().map(|(name, _)| name).collect();
        Self {
            total,
            by_type: names.iter().cloned().zip(0..).collect(),
            limits: vec![None; names.len()],
            limited: 0,
            full: pools.iter().map(|claim| u64::from(claim.full())).sum(),
            pools,
            names,
        }
    }

    fn claim_of(&self, worker_type: &WorkerType) -> Option<&Claim> {
        self.index_of(worker_type).map(|index| &self.pools[index])
    }

    pub(super) fn index_of(&self, worker_type: &WorkerType) -> Option<usize> {
        self.by_type.get(worker_type).copied()
    }

    /// Returns whether the budget, the worker types, their priorities and their minimums are the same.
    pub(super) fn has_same_settings(&self, other: &Self) -> bool {
        let settings = |of: &Self| of.pools.iter().map(|claim| (claim.priority, claim.min)).collect::<Vec<_>>();
        self.total == other.total && self.names == other.names && settings(self) == settings(other)
    }

    /// Decides for a pool and records its claim. Returns the other pools that have to be evaluated for that, too.
    pub(super) fn decide(
        &mut self,
        index: usize,
        pool: &Reading<PoolCounts>,
        participation: Participation,
        decide: impl Fn(Option<Allowance>) -> Decision,
    ) -> (Decision, Vec<WorkerType>) {
        let free = decide(None);
        let before = self.pools[index];
        let Some(counts) = pool.known() else {
            // The claim stays: unknown is not zero. No place is kept free for more.
            return (free, self.record(index, Claim { wanted: before.held, ..before }, None));
        };
        let existing = Existing::of(counts);
        let own = Claim { held: existing.all(), leaving: existing.leaving, ..before };
        let others = self.full - u64::from(before.full());
        let asked = existing.with(free.target).max(own.held).max(own.min);
        if others + u64::from(asked) <= u64::from(self.total) {
            let claim = existing.claim(own, participation, &free, &free);
            return (free, self.record(index, claim, None));
        }
        let allowance = self.allowance(index, own, existing);
        let decision = decide(Some(allowance));
        let is_felt = decision.reasons.iter().any(|reason| matches!(reason, Reason::Budget(_)));
        let limit = is_felt.then(|| existing.with(allowance.workers));
        let claim = existing.claim(own, participation, &free, &decision);
        (decision, self.record(index, claim, limit))
    }

    /// Returns what the budget leaves to a pool, however much it wants.
    fn allowance(&mut self, index: usize, own: Claim, existing: Existing) -> Allowance {
        let before = std::mem::replace(&mut self.pools[index], Claim { wanted: self.total, ..own });
        let places = allowances(self.total, &self.pools)[index];
        self.pools[index] = before;
        let others = self.pools.iter().map(|claim| u64::from(claim.held)).sum::<u64>() - u64::from(before.held);
        let others = u32::try_from(others).unwrap_or(u32::MAX);
        Allowance {
            workers: places.saturating_sub(existing.extra),
            total: self.total,
            others,
            reserved: self.total.saturating_sub(others).saturating_sub(places),
            unusable: existing.extra,
        }
    }

    /// Records the claim of a pool, and the limit that held it back. Returns the other pools whose part has changed:
    /// those that are held back and may have more now, and those that are to let idle workers go.
    fn record(&mut self, index: usize, claim: Claim, limit: Option<u32>) -> Vec<WorkerType> {
        let before = std::mem::replace(&mut self.pools[index], claim);
        self.set_limit(index, limit);
        if before == claim {
            return Vec::new();
        }
        self.full = self.full - u64::from(before.full()) + u64::from(claim.full());
        let suffices = self.full <= u64::from(self.total);
        if suffices && self.limited == 0 {
            return Vec::new();
        }
        let places = allowances(self.total, &self.pools);
        let mut woken = Vec::new();
        for (other, places) in places.into_iter().enumerate().filter(|(other, _)| *other != index) {
            let claim = self.pools[other];
            let more = self.limits[other].is_some_and(|limit| places > limit);
            let fewer = places < claim.held && self.limits[other].is_none_or(|limit| places < limit);
            if more || fewer {
                self.set_limit(other, Some(places));
                woken.push(self.names[other].clone());
            }
        }
        woken
    }

    fn set_limit(&mut self, index: usize, limit: Option<u32>) {
        let before = std::mem::replace(&mut self.limits[index], limit);
        self.limited = self.limited + usize::from(limit.is_some()) - usize::from(before.is_some());
    }
}

/// The workers of a pool, as the budget counts them.
#[derive(Clone, Copy)]
struct Existing {
    /// Workers that count as capacity.
    current: u32,
    /// Workers that leave or never became ready: they exist, too.
    extra: u32,
    /// Workers that are about to be gone.
    leaving: u32,
}

impl Existing {
    fn of(counts: &PoolCounts) -> Self {
        Self {
            current: counts.current(),
            extra: counts.stalled.saturating_add(counts.draining),
            leaving: counts.draining.saturating_sub(counts.lingering),
        }
    }

    fn all(self) -> u32 {
        self.with(self.current)
    }

    /// Returns the places that this many workers need, beside those that are not capacity.
    fn with(self, workers: u32) -> u32 {
        workers.saturating_add(self.extra)
    }

    /// Returns the claim of a pool with the decision `decided`, which would have been `free` without a budget.
    fn claim(self, own: Claim, participation: Participation, free: &Decision, decided: &Decision) -> Claim {
        let Participation { acts, grows } = participation;
        let wanted = if grows && free.action != Action::Hold { self.with(free.target) } else { own.held };
        match decided.action {
            Action::ScaleUp if acts => Claim { held: own.held.max(self.with(decided.target)), wanted, ..own },
            Action::ScaleDown if acts => {
                let asked = self.current.saturating_sub(decided.target);
                Claim { leaving: self.leaving.saturating_add(asked), wanted, ..own }
            }
            _ => Claim { wanted, ..own },
        }
    }
}

fn claim(scaling: &ScalingSettings, before: Option<&Claim>) -> Claim {
    let (priority, min, max) = (scaling.priority, scaling.min_workers, scaling.max_workers);
    let unknown = Claim { priority, min, held: max, leaving: 0, wanted: min };
    before.map_or(unknown, |before| Claim { priority, min, ..*before })
}

#[cfg(test)]
mod tests;

//! The budget `max_total_workers`: how many workers each pool may have beside the others. Pure; the scaler keeps the
//! claims of all pools.

use std::ops::Range;

/// What one pool has of the budget, and what it wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Claim {
    /// `priority`: a pool with a higher one is served first.
    pub priority: i32,
    /// `min_workers`, which no other pool may take.
    pub min: u32,
    /// Workers that exist, or that the pool has been allowed to start.
    pub held: u32,
    /// Those among `held` that are about to be gone.
    pub leaving: u32,
    /// Workers that the pool would have without a budget.
    pub wanted: u32,
}

impl Claim {
    /// Returns the workers that the pool has or is to have, if the budget suffices.
    pub fn full(&self) -> u32 {
        self.held.max(self.min).max(self.wanted)
    }
}

/// Returns the maximum workers of each pool. The claims are sorted by falling priority.
///
/// Free places go to minimums first, then to the higher priority. Pools of equal priority get equal shares: the place
/// goes to the pool that has the fewest workers. A pool may start workers up to its number: together, the pools never
/// exceed the budget by that.
///
/// A pool that has more than its share gets a lower number than it has while another pool lacks a place, or while there
/// are more workers than the budget, as after a reload that lowered it. It then lets idle workers go, as many as are
/// lacking or too many. Its busy workers stay.
pub fn allowances(total: u32, claims: &[Claim]) -> Vec<u32> {
    debug_assert!(claims.is_sorted_by_key(|claim| -claim.priority), "{claims:?}");
    // What each pool can have now, beside the workers that exist; and what it would have if nobody had any yet.
    let reachable = share_out(total, claims, |claim| claim.held);
    let due = share_out(total, claims, |_| 0);
    let lacking: u64 = due.iter().zip(&reachable).map(|(due, has)| u64::from(due.saturating_sub(*has))).sum();
    let held: u64 = claims.iter().map(|claim| u64::from(claim.held)).sum();
    let leaving: u64 = claims.iter().map(|claim| u64::from(claim.leaving)).sum();
    let surplus = held.saturating_sub(u64::from(total));
    let lacking = u32::try_from((lacking + surplus).saturating_sub(leaving)).unwrap_or(u32::MAX);
    let allowed = |((claim, reachable), due): ((&Claim, u32), u32)| {
        if lacking > 0 && claim.held > due { due.max(claim.held.saturating_sub(lacking)) } else { reachable }
    };
    claims.iter().zip(reachable).zip(due).map(allowed).collect()
}

/// Hands out the places of the budget that are not taken.
fn share_out(total: u32, claims: &[Claim], taken: impl Fn(&Claim) -> u32) -> Vec<u32> {
    let mut shares: Vec<u32> = claims.iter().map(taken).collect();
    let all: u64 = shares.iter().map(|share| u64::from(*share)).sum();
    let mut free = u32::try_from(u64::from(total).saturating_sub(all)).unwrap_or(0);
    for group in groups(claims) {
        fill(&mut shares[group.clone()], &claims[group], &mut free, |claim| claim.min);
    }
    for group in groups(claims) {
        fill(&mut shares[group.clone()], &claims[group], &mut free, |claim| claim.wanted);
    }
    shares
}

/// Returns the ranges of claims of the same priority.
fn groups(claims: &[Claim]) -> impl Iterator<Item = Range<usize>> {
    let mut begin = 0;
    claims.chunk_by(|one, other| one.priority == other.priority).map(move |group| {
        let range = begin..begin + group.len();
        begin = range.end;
        range
    })
}

/// Raises shares up to `goal` with the free places, the lowest share first. Of equal shares, a pool that has more
/// workers comes first, because nobody has to move then.
fn fill(shares: &mut [u32], claims: &[Claim], free: &mut u32, goal: impl Fn(&Claim) -> u32) {
    let raised = |share: u32, claim: &Claim, level: u32| share.max(goal(claim).min(level));
    let cost = |shares: &[u32], level: u32| -> u64 {
        shares.iter().zip(claims).map(|(share, claim)| u64::from(raised(*share, claim, level) - share)).sum()
    };
    let top = claims.iter().map(&goal).max().unwrap_or(0);
    // The highest level that all can be raised to. Most often everybody gets all.
    let (mut level, mut above) = if cost(shares, top) <= u64::from(*free) { (top, top) } else { (0, top) };
    while above - level > 1 {
        let middle = level + (above - level) / 2;
        if cost(shares, middle) <= u64::from(*free) { level = middle } else { above = middle }
    }
    *free -= u32::try_from(cost(shares, level)).unwrap_or(*free);
    shares.iter_mut().zip(claims).for_each(|(share, claim)| *share = raised(*share, claim, level));
    for has_more in [true, false] {
        for (share, claim) in shares.iter_mut().zip(claims) {
            if *free > 0 && *share == level && goal(claim) > level && (claim.held > level) == has_more {
                *share += 1;
                *free -= 1;
            }
        }
    }
}

#[cfg(test)]
mod tests;

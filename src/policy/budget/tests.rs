use proptest::prelude::*;

use super::*;

fn claim(priority: i32, min: u32, held: u32, wanted: u32) -> Claim {
    Claim { priority, min, held, leaving: 0, wanted }
}

#[test]
fn each_pool_gets_its_part() {
    for (what, total, claims, expected) in [
        ("all have room", 10, vec![claim(0, 0, 2, 4), claim(0, 0, 1, 1)], vec![4, 1]),
        ("a minimum is kept", 10, vec![claim(1, 0, 0, 30), claim(0, 3, 1, 1)], vec![7, 3]),
        ("a higher priority comes first", 10, vec![claim(1, 0, 4, 9), claim(0, 0, 0, 9)], vec![9, 1]),
        ("equal shares", 10, vec![claim(0, 0, 0, 9), claim(0, 0, 0, 9), claim(0, 0, 0, 2)], vec![4, 4, 2]),
        ("the free place goes to who has fewer", 5, vec![claim(0, 0, 3, 9), claim(0, 0, 1, 9)], vec![3, 2]),
        ("the odd place stays where it is", 3, vec![claim(0, 0, 1, 9), claim(0, 0, 2, 9)], vec![1, 2]),
        ("nobody lacks a place", 3, vec![claim(0, 0, 3, 3), claim(0, 0, 0, 0)], vec![3, 0]),
        ("more than the budget", 3, vec![claim(0, 0, 5, 5), claim(0, 0, 0, 0)], vec![3, 0]),
        ("a pool over its share makes room", 4, vec![claim(1, 0, 0, 2), claim(0, 0, 4, 4)], vec![0, 2]),
        ("no more room than is lacking", 4, vec![claim(1, 0, 0, 1), claim(0, 0, 4, 4)], vec![0, 3]),
        ("minimums of both before all else", 4, vec![claim(1, 1, 0, 9), claim(0, 2, 0, 9)], vec![2, 2]),
        (
            "a minimum takes the free places, and a lower priority makes room for the higher one",
            10,
            vec![claim(1, 0, 6, 30), claim(0, 2, 0, 2), claim(0, 0, 2, 2)],
            vec![6, 2, 0],
        ),
    ] {
        assert_eq!(allowances(total, &claims), expected, "{what}");
    }
}

#[test]
fn workers_that_leave_make_room_already() {
    let (high, low) = (claim(1, 0, 0, 2), claim(0, 0, 4, 4));
    assert_eq!(allowances(4, &[high, Claim { leaving: 1, ..low }]), [0, 3]);
    assert_eq!(allowances(4, &[high, Claim { leaving: 2, ..low }]), [0, 4], "these two, and no more");
}

/// A step of one pool: what it wants, and how many of its workers are idle then.
#[derive(Clone, Copy, Debug)]
struct Step {
    pool: usize,
    wanted: u32,
    idle: u32,
}

fn sum(pools: &[Claim], of: impl Fn(&Claim) -> u32) -> u32 {
    pools.iter().map(of).sum()
}

/// Lets the pool act as the actor does: it starts workers up to its allowance, and lets only idle ones go. Returns the
/// allowance.
fn act(pools: &mut [Claim], total: u32, Step { pool, wanted, idle }: Step) -> u32 {
    let index = pool % pools.len();
    let mut claims = pools.to_vec();
    claims[index].wanted = total;
    let allowed = allowances(total, &claims)[index];
    let pool = &mut pools[index];
    let busy = pool.held.saturating_sub(idle);
    pool.wanted = wanted.max(pool.min);
    pool.held = pool.wanted.min(allowed).max(busy);
    allowed
}

prop_compose! {
    fn pools()(mut pools in prop::collection::vec((-2_i32..3, 0_u32..4), 1..6)) -> Vec<Claim> {
        pools.sort_by_key(|(priority, _)| -priority);
        pools.into_iter().map(|(priority, min)| claim(priority, min, 0, 0)).collect()
    }
}

fn step() -> impl Strategy<Value = Step> {
    (0_usize..6, 0_u32..30, 0_u32..5).prop_map(|(pool, wanted, idle)| Step { pool, wanted, idle })
}

proptest! {
    #[test]
    fn starts_never_exceed_the_budget_and_every_minimum_is_reached(
        pools in pools(), more in 0_u32..20, steps in prop::collection::vec(step(), 0..60),
    ) {
        let (mut pools, total) = (pools.clone(), sum(&pools, |pool| pool.min) + more);
        for step in steps {
            act(&mut pools, total, step);
            prop_assert!(sum(&pools, |pool| pool.held) <= total, "{pools:?}");
        }
        // Whatever was before, all workers become idle once, and each pool wants its minimum only.
        for pool in (0..pools.len()).chain(0..pools.len()) {
            act(&mut pools, total, Step { pool, wanted: 0, idle: u32::MAX });
        }
        prop_assert!(pools.iter().all(|pool| pool.held == pool.min), "{pools:?}");
    }

    #[test]
    fn no_place_stays_empty_while_a_pool_wants_it(
        pools in pools(), more in 0_u32..20, wants in prop::collection::vec(0_u32..30, 6),
    ) {
        let (mut pools, total) = (pools.clone(), sum(&pools, |pool| pool.min) + more);
        for pool in (0..pools.len()).chain(0..pools.len()) {
            act(&mut pools, total, Step { pool, wanted: wants[pool], idle: 0 });
        }
        let wanted = sum(&pools, |pool| pool.wanted);
        prop_assert_eq!(sum(&pools, |pool| pool.held), wanted.min(total), "{:?}", pools);
    }

    #[test]
    fn equal_pools_come_to_equal_shares_as_workers_become_idle(
        held in prop::collection::vec(0_u32..12, 2..6), more in 0_u32..12,
        order in prop::collection::vec((0_usize..6, 0_u32..3), 0..40),
    ) {
        let mut pools: Vec<_> = held.iter().map(|held| claim(0, 0, *held, *held)).collect();
        let (total, count) = (held.iter().sum::<u32>() + more, u32::try_from(held.len()).unwrap());
        for (pool, idle) in order {
            act(&mut pools, total, Step { pool, wanted: u32::MAX, idle });
        }
        // Each worker becomes idle at some time.
        for pool in (0..pools.len()).cycle().take(pools.len() * 3) {
            act(&mut pools, total, Step { pool, wanted: u32::MAX, idle: u32::MAX });
        }
        prop_assert!(pools.iter().all(|pool| pool.held >= total / count), "{total} {pools:?}");
        prop_assert!(sum(&pools, |pool| pool.held) <= total, "{total} {pools:?}");
        // And then nothing moves any more.
        let settled = pools.clone();
        for pool in 0..pools.len() {
            act(&mut pools, total, Step { pool, wanted: u32::MAX, idle: u32::MAX });
        }
        prop_assert_eq!(pools, settled);
    }

    #[test]
    fn a_higher_priority_gets_the_next_free_place(
        held in 0_u32..10, wanted in 0_u32..30, low_held in 0_u32..10, more in 0_u32..20,
    ) {
        let total = held + low_held + more;
        let pools = [claim(1, 0, held, wanted.max(held)), claim(0, 0, low_held, 30)];
        let allowed = allowances(total, &pools);
        prop_assert_eq!(allowed[0], pools[0].wanted.min(held + more));
        prop_assert!(allowed[1] <= low_held.max(total - allowed[0]), "{allowed:?}");
        if pools[0].wanted >= total {
            prop_assert_eq!(allowed[1], 0, "its idle workers go");
        }
    }

    #[test]
    fn a_budget_that_suffices_is_not_felt(pools in pools(), wants in prop::collection::vec(0_u32..30, 6)) {
        let mut pools = pools;
        pools.iter_mut().zip(wants).for_each(|(pool, wanted)| pool.wanted = wanted);
        let total = sum(&pools, Claim::full);
        let full: Vec<u32> = pools.iter().map(Claim::full).collect();
        prop_assert_eq!(allowances(total, &pools), full);
    }
}

//! Laws that hold for any queues, and cases worked out by hand.

use proptest::prelude::*;

use super::*;

fn queue(name: &str, lag: Reading<u64>, pending: Reading<u64>, oldest: Reading<Option<Timestamp>>) -> QueueDemand {
    QueueDemand { queue: name.into(), demand: Demand { lag, pending, oldest } }
}

fn known(name: &str, lag: u64, pending: u64, oldest: u64) -> QueueDemand {
    let oldest = (lag + pending > 0).then_some(Timestamp(oldest));
    queue(name, Reading::Known(lag), Reading::Known(pending), Reading::Known(oldest))
}

fn failed(name: &str, why: &str) -> QueueDemand {
    QueueDemand { queue: name.into(), demand: Demand::failed(why) }
}

fn all(queues: &[QueueDemand]) -> (Demand, QueueDemands) {
    combine(Combine::Sum, queues.to_vec(), queues.len(), &Reading::Known(()))
}

#[test]
fn what_waits_and_what_is_worked_on_adds_up_and_the_oldest_is_the_oldest_of_all() {
    let queues = [known("a", 3, 1, 500), known("b", 9, 0, 200), known("c", 0, 0, 0)];
    for (rule, sized_by) in [(Combine::Sum, 13), (Combine::Max, 9)] {
        let (total, parts) = combine(rule, queues.to_vec(), 3, &Reading::Known(()));
        assert_eq!((&total.lag, &total.pending), (&Reading::Known(12), &Reading::Known(1)));
        assert_eq!(total.oldest, Reading::Known(Some(Timestamp(200))));
        assert_eq!((parts.sized_by(), parts.unfinished, parts.waiting), (Some(sized_by), Some(13), 12));
        assert_eq!(parts.longest, Some(LongestQueue { queue: "b".into(), jobs: 9 }));
        assert_eq!((parts.shown.as_slice(), parts.left_out()), (queues.as_slice(), 0));
    }
}

#[test]
fn a_queue_that_cannot_be_read_is_named_and_the_others_still_count() {
    let (total, parts) = all(&[known("a", 3, 1, 500), failed("b", "WRONGTYPE"), failed("c", "key `c`: no")]);
    assert_eq!(total.lag, Reading::Failed("key `b`: WRONGTYPE (and 1 more of its queues)".to_owned()));
    assert_eq!((parts.unfinished, parts.waiting), (Some(4), 3));
    let (total, parts) = all(&[failed("a", "redis is away"), failed("b", "redis is away")]);
    assert_eq!(total, Demand::failed("redis is away"), "that is not about a queue");
    assert_eq!((parts.unfinished, parts.sized_by()), (None, None));
}

#[test]
fn queues_that_may_not_have_been_found_make_the_total_unknown() {
    let looking = Reading::Unknown("still looking".to_owned());
    let (total, parts) = combine(Combine::Sum, vec![known("a", 3, 1, 500)], 1, &looking);
    assert_eq!(total.depth(), Reading::Unknown("still looking".to_owned()));
    assert_eq!(parts.unfinished, Some(4));
    let refused = Reading::Failed("SCAN is refused".to_owned());
    let (total, _) = combine(Combine::Sum, vec![known("a", 3, 1, 500)], 1, &refused);
    assert_eq!(total, Demand::failed("SCAN is refused"));
}

#[test]
fn of_many_found_queues_those_that_matter_are_shown() {
    let mut queues = vec![known("own", 0, 0, 0)];
    queues.extend((0..1_000).map(|number| known(&format!("t-{number}"), number, 0, 1)));
    queues.push(failed("t-bad", "no"));
    let (_, parts) = combine(Combine::Sum, queues, 1, &Reading::Known(()));
    let names: Vec<&str> = parts.shown.iter().take(4).map(|of| &*of.queue).collect();
    assert_eq!(names, ["own", "t-bad", "t-999", "t-998"]);
    assert_eq!((parts.shown.len(), parts.left_out()), (1 + MAX_SHOWN, 1_002 - 1 - MAX_SHOWN));
}

#[test]
fn a_worker_that_holds_jobs_of_several_queues_holds_all_of_them() {
    let held = |name: &str, jobs| ConsumerPending { name: name.to_owned(), jobs };
    let parts = vec![Reading::Known(vec![held("w1", 1), held("w2", 0)]), Reading::Known(vec![held("w1", 2)])];
    assert_eq!(consumers(parts), Reading::Known(vec![held("w1", 3), held("w2", 0)]));
    let unread = Reading::Failed("no".to_owned());
    assert_eq!(consumers(vec![Reading::Known(vec![held("w1", 1)]), unread.clone()]), unread);
}

/// Notes readings of all queues there are, and returns the sum.
fn sum(totals: &mut CounterTotals, queues: &[QueueDemand], counters: &[Counters]) -> Counters {
    let gone: Vec<_> = totals.queues.keys().filter(|key| queues.iter().all(|of| of.queue != **key)).cloned().collect();
    for key in gone {
        totals.forget(&key);
    }
    for (of, counters) in queues.iter().zip(counters) {
        totals.note(&of.queue, &of.demand, *counters);
    }
    totals.sum()
}

fn counted(added: u64, read: Option<u64>) -> Counters {
    Counters { added: Some(added), read, ..Counters::default() }
}

#[test]
fn a_queue_that_comes_or_goes_looks_neither_like_jobs_that_were_done_nor_like_some_that_came() {
    let mut totals = CounterTotals::default();
    // 100 jobs were added to `a`, of which 96 had finished before the first observation.
    let first = sum(&mut totals, &[known("a", 1, 3, 1)], &[counted(100, Some(99))]);
    assert_eq!(first, counted(4, Some(3)), "what is unfinished");
    // One more job of `a` finished. `b` is new, with many finished jobs, two waiting and one in progress.
    let queues = [known("a", 0, 3, 1), known("b", 2, 1, 1)];
    let both = sum(&mut totals, &queues, &[counted(100, Some(100)), counted(5_000, Some(4_998))]);
    let (lag, pending) = (2, 4);
    let done = |counters: Counters, pending: u64| counters.read.map(|read| read - pending);
    assert_eq!(done(both, pending), done(first, 3).map(|done| done + 1));
    assert_eq!(both.added.map(|added| added - lag - pending), Some(1), "by depth it is the same");
    // `b` is gone: the counters went back, so nothing is learned from this observation.
    let without = sum(&mut totals, &[known("a", 0, 2, 1)], &[counted(100, Some(100))]);
    assert!(without.added < both.added, "{without:?}");
    assert_eq!(done(without, 2), Some(2));
}

#[test]
fn a_stream_made_again_and_one_that_does_not_count_are_told_apart() {
    let mut totals = CounterTotals::default();
    sum(&mut totals, &[known("a", 0, 0, 1)], &[counted(100, Some(100))]);
    assert_eq!(sum(&mut totals, &[known("a", 2, 0, 1)], &[counted(2, Some(0))]), counted(2, Some(0)));
    assert_eq!(sum(&mut totals, &[known("a", 2, 0, 1)], &[counted(2, None)]), counted(2, None));
    assert_eq!(sum(&mut totals, &[known("a", 2, 0, 1)], &[Counters::default()]), Counters::default());
    assert_eq!(sum(&mut totals, &[failed("a", "no")], &[counted(2, Some(0))]), Counters::default());
}

fn jobs() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 0_u64..50, 1 => any::<u64>()]
}

fn reading<T: std::fmt::Debug + Clone + 'static>(value: impl Strategy<Value = T>) -> impl Strategy<Value = Reading<T>> {
    prop_oneof![
        6 => value.prop_map(Reading::Known),
        1 => Just(Reading::Unknown("cannot tell".to_owned())),
        1 => Just(Reading::Failed("timed out".to_owned())),
    ]
}

fn any_queues() -> impl Strategy<Value = Vec<QueueDemand>> {
    let oldest = prop::option::of((0_u64..1_000).prop_map(Timestamp));
    let of = (reading(jobs()), reading(jobs()), reading(oldest));
    prop::collection::vec(of, 1..6).prop_map(|parts| {
        let named = |(number, (lag, pending, oldest)): (usize, _)| queue(&format!("q{number}"), lag, pending, oldest);
        parts.into_iter().enumerate().map(named).collect()
    })
}

fn any_rule() -> impl Strategy<Value = Combine> {
    prop_oneof![Just(Combine::Sum), Just(Combine::Max)]
}

/// Compares readings without their words, which name the first queue.
fn is_same<T: PartialEq>(one: &Reading<T>, other: &Reading<T>) -> bool {
    one.known() == other.known() && std::mem::discriminant(one) == std::mem::discriminant(other)
}

proptest! {
    #[test]
    fn one_queue_is_what_it_is(rule in any_rule(), mut queues in any_queues()) {
        queues.truncate(1);
        let (total, parts) = combine(rule, queues.clone(), 1, &Reading::Known(()));
        prop_assert_eq!(&total, &queues[0].demand);
        prop_assert_eq!(parts.sized_by(), total.at_least());
        prop_assert_eq!(parts.waiting, total.lag.known().copied().unwrap_or(0));
    }

    #[test]
    fn the_order_does_not_matter(rule in any_rule(), queues in any_queues(), turn in 0_usize..6) {
        let mut turned = queues.clone();
        turned.rotate_left(turn % queues.len());
        let [(total, parts), (other, others)] =
            [queues, turned].map(|queues| combine(rule, queues, 0, &Reading::Known(())));
        prop_assert!(is_same(&total.lag, &other.lag) && is_same(&total.pending, &other.pending));
        prop_assert!(is_same(&total.oldest, &other.oldest));
        prop_assert_eq!(parts, others);
    }

    #[test]
    fn more_jobs_in_any_queue_are_never_fewer_in_all(
        rule in any_rule(),
        queues in any_queues(),
        place in 0_usize..6,
        more in jobs(),
    ) {
        let mut longer = queues.clone();
        let place = place % queues.len();
        longer[place].demand.lag = longer[place].demand.lag.clone().map(|lag| lag.saturating_add(more));
        let [(total, parts), (longer, longer_parts)] =
            [queues, longer].map(|queues| combine(rule, queues, 0, &Reading::Known(())));
        prop_assert!(parts.sized_by() <= longer_parts.sized_by());
        prop_assert!(parts.unfinished <= longer_parts.unfinished && parts.waiting <= longer_parts.waiting);
        prop_assert!(total.depth().known() <= longer.depth().known());
    }

    #[test]
    fn a_queue_that_fails_hides_its_own_jobs_and_no_others(
        rule in any_rule(),
        queues in any_queues(),
        place in 0_usize..6,
    ) {
        let mut lost = queues.clone();
        let place = place % queues.len();
        lost[place].demand = Demand::failed("timed out");
        let (total, parts) = combine(rule, lost, 0, &Reading::Known(()));
        prop_assert!(matches!(total.lag, Reading::Failed(_)) && matches!(total.pending, Reading::Failed(_)));
        let mut others = queues.clone();
        others.remove(place);
        let (_, rest) = combine(rule, others, 0, &Reading::Known(()));
        prop_assert_eq!((parts.sized_by(), parts.unfinished), (rest.sized_by(), rest.unfinished));
    }
}

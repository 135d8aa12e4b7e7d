use super::*;

/// Milliseconds that count as a time.
const BASE: u64 = 1_700_000_000_000;

fn id(ms: u64) -> StreamId {
    StreamId::at(BASE + ms)
}

fn at(ms: u64) -> Reading<Option<Timestamp>> {
    Reading::Known(Some(Timestamp(BASE + ms)))
}

fn stream(length: u64, first: Option<u64>, last: u64, added: u64) -> StreamInfo {
    let last_entry = first.map(|_| id(last));
    StreamInfo {
        length,
        last_generated: id(last),
        first_entry: first.map(id),
        last_entry,
        added: Some(added),
        max_deleted: Some(StreamId::default()),
        first_bytes: 10,
        last_bytes: Some(10),
    }
}

fn group(delivered: u64, lag: Option<u64>) -> Group {
    Group { pending: 0, last_delivered: id(delivered), lag, read: None }
}

fn see(stream: StreamInfo, group: Group, memory: &mut StreamMemory) -> Sight {
    look(RawStream { stream: Ok(Some(stream)), group: Ok(Some(group)), consumers: Ok((None, Vec::new())) }, "q", memory)
}

fn sight(stream: StreamInfo, delivered: u64, lag: Option<u64>, memory: &mut StreamMemory) -> Sight {
    see(stream, group(delivered, lag), memory)
}

/// Returns the lag; `None` if it has to be counted.
fn lag_of(sight: Sight) -> Option<u64> {
    let (Sight::Clear(observed) | Sight::Count(_, observed)) = sight;
    observed.demand.lag.known().copied()
}

fn bounds(reported: Option<u64>, length: u64) -> Bounds {
    Bounds { reported, length, stood: (id(0), None, None), ..Bounds::default() }
}

#[expect(clippy::unnecessary_wraps, reason = "a count may fail, and these did not")]
fn counted(entries: u64, oldest: u64, is_all: bool) -> Result<Backlog, String> {
    Ok(Backlog { entries, oldest: Some(id(oldest)), last: Some(id(oldest + entries - 1)), bytes: entries * 10, is_all })
}

fn unknown() -> Observed {
    let gap = || Reading::Unknown("x".to_owned());
    let demand = Demand { lag: gap(), pending: Reading::Known(0), oldest: Reading::Unknown("x".to_owned()) };
    Observed::of(demand, Reading::Known(Vec::new()))
}

#[test]
fn an_untrimmed_stream_is_believed() {
    assert_eq!(lag_of(sight(stream(10, Some(1), 10, 10), 4, Some(6), &mut StreamMemory::default())), Some(6));
}

#[test]
fn phantom_lag_on_an_empty_stream_is_nothing() {
    assert_eq!(lag_of(sight(stream(0, None, 3, 3), 0, Some(3), &mut StreamMemory::default())), Some(0));
}

#[test]
fn phantom_lag_is_subtracted_while_the_group_stands() {
    let mut memory = StreamMemory::default();
    // Three of four entries were trimmed unread, and one is left: Redis reports 4.
    assert_eq!(lag_of(sight(stream(1, Some(4), 4, 4), 0, Some(4), &mut memory)), Some(1));
    // The entry was read and stays, and another one was added: Redis reports 4 again, but the surplus has to be
    // counted.
    let Sight::Count(count, observed) = sight(stream(2, Some(4), 5, 5), 4, Some(4), &mut memory) else { panic!() };
    let observed = complete(counted(1, 5, true), count.bounds, observed, &mut memory);
    assert_eq!(observed.demand.lag, Reading::Known(1));
    // More entries were added, and none was read.
    assert_eq!(lag_of(sight(stream(4, Some(4), 7, 7), 4, Some(6), &mut memory)), Some(3));
}

/// Unread entries were trimmed, and then the counter was repaired with `XGROUP SETID … ENTRIESREAD`.
#[test]
fn a_counter_that_was_repaired_has_no_surplus_any_more() {
    let mut memory = StreamMemory::default();
    let empty = Group { read: Some(2), ..group(5, Some(3)) };
    assert_eq!(lag_of(see(stream(1, Some(5), 5, 5), empty, &mut memory)), Some(0));
    let repaired = Group { read: Some(5), ..group(5, Some(3)) };
    let Sight::Count(count, observed) = see(stream(4, Some(5), 8, 8), repaired, &mut memory) else { panic!() };
    let observed = complete(counted(3, 6, true), count.bounds, observed, &mut memory);
    assert_eq!(observed.demand.lag, Reading::Known(3));
    // Now the reported lag is right: the surplus is 0.
    let later = Group { read: Some(6), ..group(6, Some(2)) };
    assert_eq!(lag_of(see(stream(4, Some(5), 8, 8), later, &mut memory)), Some(2));
}

#[test]
fn lag_that_cannot_be_trusted_is_counted() {
    let mut memory = StreamMemory::default();
    assert_eq!(lag_of(sight(stream(5, Some(1), 9, 9), 4, None, &mut memory)), None, "nil lag");
    assert_eq!(lag_of(sight(stream(5, Some(4), 9, 9), 4, Some(8), &mut memory)), None, "trimmed, never seen");
}

#[test]
fn a_count_at_its_limit_errs_to_more() {
    let mut memory = StreamMemory::default();
    let observed = complete(counted(1_000, 5, false), bounds(None, 4_000), unknown(), &mut memory);
    assert_eq!((observed.demand.lag, observed.demand.oldest), (Reading::Known(4_000), at(5)));
    let observed = complete(counted(3, 5, false), bounds(Some(900), 1_000), unknown(), &mut memory);
    assert_eq!(observed.demand.lag, Reading::Known(900), "its bytes were the limit");
    assert_eq!(memory.surplus, None);
}

#[test]
fn a_count_that_failed_leaves_only_this_lag_unknown() {
    let observed = complete(Err("late".to_owned()), bounds(None, 9), unknown(), &mut StreamMemory::default());
    assert_eq!(observed.demand.lag, Reading::Failed("late".to_owned()));
    assert_eq!(observed.demand.pending, Reading::Known(0));
}

#[test]
fn a_group_made_again_forgets_the_surplus() {
    let surplus = Surplus { jobs: 3, last_delivered: id(9), read: None, added: None, length: 10 };
    let mut memory = StreamMemory { surplus: Some(surplus), ..StreamMemory::default() };
    assert_eq!(lag_of(sight(stream(10, Some(1), 10, 10), 4, Some(6), &mut memory)), Some(6));
}

#[test]
fn a_missing_stream_is_empty_and_a_missing_group_is_all_demand() {
    let of = |stream| {
        let raw = RawStream { stream: Ok(stream), group: Ok(None), consumers: Ok((None, Vec::new())) };
        lag_of(look(raw, "q", &mut StreamMemory::default()))
    };
    assert_eq!((of(None), of(Some(stream(7, Some(1), 7, 7)))), (Some(0), Some(7)));
}

/// Entries 1 to 9, of which 1 to 4 were delivered and 7 was deleted.
#[test]
fn entries_that_were_counted_are_not_counted_again() {
    let mut memory = StreamMemory::default();
    let deleted = |length, last, added| StreamInfo { max_deleted: Some(id(7)), ..stream(length, Some(1), last, added) };
    let Sight::Count(count, observed) = sight(deleted(8, 9, 9), 4, None, &mut memory) else { panic!("nil lag") };
    assert_eq!(count.after, id(4));
    let two = Ok(Backlog { entries: 2, oldest: Some(id(5)), last: Some(id(6)), bytes: 20, is_all: false });
    let observed = complete(two, count.bounds, observed, &mut memory);
    assert_eq!(observed.demand.lag, Reading::Known(8), "at most, as long as not all are counted");

    let Sight::Count(count, observed) = sight(deleted(8, 9, 9), 4, None, &mut memory) else { panic!("8 is left") };
    assert_eq!(count.after, id(6));
    let observed = complete(counted(2, 8, true), count.bounds, observed, &mut memory);
    assert_eq!((observed.demand.lag, observed.demand.oldest), (Reading::Known(4), at(5)));

    let Sight::Clear(again) = sight(deleted(8, 9, 9), 4, None, &mut memory) else { panic!("all are counted") };
    assert_eq!((again.demand.lag, again.demand.oldest), (Reading::Known(4), at(5)));
    let Sight::Count(count, observed) = sight(deleted(9, 10, 10), 4, None, &mut memory) else { panic!("10 is new") };
    assert_eq!(count.after, id(9));
    let observed = complete(counted(1, 10, true), count.bounds, observed, &mut memory);
    assert_eq!((observed.demand.lag, observed.demand.oldest), (Reading::Known(5), at(5)));

    let Sight::Count(count, _) = sight(deleted(8, 10, 10), 4, None, &mut memory) else { panic!("5 may be gone") };
    assert_eq!(count.after, id(4), "from the beginning");
}

#[test]
fn a_count_that_costs_too_much_is_given_up_while_the_group_stands() {
    let mut memory = StreamMemory::default();
    let stream = || StreamInfo { max_deleted: Some(id(2_000)), ..stream(2_999, Some(1), 3_000, 3_000) };
    let Sight::Count(count, observed) = sight(stream(), 4, None, &mut memory) else { panic!("nil lag") };
    complete(counted(count.limit, 5, false), count.bounds, observed, &mut memory);
    let Sight::Clear(given_up) = sight(stream(), 4, None, &mut memory) else { panic!("it is given up") };
    assert_eq!((given_up.demand.lag, given_up.demand.oldest), (Reading::Known(2_999), at(5)));
    assert!(matches!(sight(stream(), 5, None, &mut memory), Sight::Count(..)), "the group moved");
}

/// All that the group has not read is deleted.
#[test]
fn nothing_waits_behind_the_last_entry() {
    let last_entry = Some(id(4));
    let stream = StreamInfo { last_entry, max_deleted: Some(id(9)), ..stream(4, Some(1), 9, 9) };
    assert_eq!(lag_of(sight(stream, 4, None, &mut StreamMemory::default())), Some(0));
}

/// One finished entry is left in the stream, and then jobs arrive that no worker takes.
#[test]
fn the_oldest_waiting_job_has_an_age_behind_a_finished_entry() {
    let mut memory = StreamMemory::default();
    let Sight::Clear(one) = sight(stream(2, Some(1), 5, 2), 1, Some(1), &mut memory) else {
        panic!("the last entry is the one that waits")
    };
    assert_eq!(one.demand.oldest, at(5));
    let Sight::Clear(more) = sight(stream(3, Some(1), 9, 3), 1, Some(2), &mut memory) else { panic!("remembered") };
    assert_eq!(more.demand.oldest, at(5));

    let mut memory = StreamMemory::default();
    let Sight::Count(count, observed) = sight(stream(3, Some(1), 9, 3), 1, Some(2), &mut memory) else { panic!() };
    assert_eq!((count.limit, lag_of(Sight::Count(count, observed.clone()))), (1, Some(2)));
    let observed = complete(counted(1, 5, false), count.bounds, observed, &mut memory);
    assert_eq!((observed.demand.lag, observed.demand.oldest), (Reading::Known(2), at(5)));
    let Sight::Clear(again) = sight(stream(3, Some(1), 9, 3), 1, Some(2), &mut memory) else { panic!("remembered") };
    assert_eq!(again.demand.oldest, at(5));
}

#[test]
fn ids_that_are_not_times_tell_no_age() {
    let odd = |ms| Some(StreamId::at(ms));
    let info = StreamInfo {
        first_entry: odd(7),
        last_entry: odd(7),
        last_generated: StreamId::at(7),
        ..stream(1, None, 0, 1)
    };
    let demand = untouched(&info);
    assert_eq!((demand.lag.known(), demand.oldest.why_not()), (Some(&1), Some(NO_TIMES)));
    let group = Group { last_delivered: StreamId::at(3), ..group(0, Some(1)) };
    let Sight::Clear(observed) = see(info, group, &mut StreamMemory::default()) else { panic!() };
    assert_eq!(observed.demand.oldest.why_not(), Some(NO_TIMES));
}

#[test]
fn counters_are_told_as_far_as_redis_counts() {
    let counters = |stream, group| {
        let counters = RawStream { stream, group, consumers: Ok((None, Vec::new())) }.counters();
        (counters.added, counters.read)
    };
    let group = |read| Ok(Some(Group { pending: 1, last_delivered: id(4), lag: None, read }));
    let before_7 = StreamInfo { added: None, ..stream(7, Some(1), 7, 0) };
    assert_eq!(counters(Ok(Some(stream(7, Some(1), 7, 9))), group(Some(6))), (Some(9), Some(6)));
    assert_eq!(counters(Ok(Some(stream(7, Some(1), 7, 9))), group(None)), (Some(9), None));
    assert_eq!(counters(Ok(Some(before_7)), group(None)), (None, None));
    assert_eq!(counters(Ok(None), Ok(None)), (Some(0), Some(0)), "nothing was ever added");
    assert_eq!(counters(Err("NOPERM".to_owned()), Ok(None)), (None, None));
}

/// Redis counts an entry that is removed unread as waiting, also when the group has read beyond it.
#[test]
fn a_right_counter_is_doubted_after_an_entry_was_removed_unread() {
    let read = |delivered, read, lag| Group { read: Some(read), ..group(delivered, Some(lag)) };
    let begun = || {
        let mut memory = StreamMemory::default();
        assert_eq!(lag_of(see(stream(8, Some(1), 8, 8), read(0, 0, 8), &mut memory)), Some(8));
        assert_eq!(lag_of(see(stream(8, Some(1), 8, 8), read(2, 2, 6), &mut memory)), Some(6));
        memory
    };
    // Entry 3 was deleted, and 4 was read.
    let deleted = StreamInfo { max_deleted: Some(id(3)), ..stream(7, Some(1), 8, 8) };
    assert_eq!(lag_of(see(deleted, read(4, 3, 5), &mut begun())), None);
    // 1 to 3 were trimmed, and 4 was read.
    assert_eq!(lag_of(see(stream(5, Some(4), 8, 8), read(4, 3, 5), &mut begun())), None);
    // 1 was deleted or trimmed, which had been read before.
    let deleted = StreamInfo { max_deleted: Some(id(1)), ..stream(7, Some(2), 8, 8) };
    assert_eq!(lag_of(see(deleted, read(3, 3, 5), &mut begun())), Some(5));
    assert_eq!(lag_of(see(stream(7, Some(2), 8, 8), read(3, 3, 5), &mut begun())), Some(5));
}

/// An entry that is added between the commands of one reading does not count as surplus: otherwise it would never be
/// seen.
#[test]
fn replies_of_two_moments_teach_no_surplus() {
    let mut memory = StreamMemory::default();
    let later = Group { read: Some(1), ..group(1, Some(1)) };
    see(stream(1, Some(1), 1, 1), later.clone(), &mut memory);
    assert_eq!(memory.surplus, None);
    assert_eq!(lag_of(see(stream(2, Some(1), 2, 2), later, &mut memory)), Some(1));
}

use super::*;

fn id(number: u64) -> StreamId {
    StreamId::at(number)
}

/// Returns the state of a stream of entries up to 20, of which `removed` were removed, and of a group at entry 5.
fn stream(first: u64, removed: u64, max_deleted: u64) -> StreamState {
    StreamState {
        position: id(5),
        length: 20 - removed,
        last_generated: id(20),
        first_entry: Some(id(first)),
        added: Some(20),
        max_deleted: Some(id(max_deleted)),
    }
}

fn found(entries: u64, oldest: u64, last: u64, bytes: u64) -> Backlog {
    Backlog { entries, oldest: Some(id(oldest)), last: Some(id(last)), bytes, is_all: false }
}

/// Returns a count of the entries 6 to 10 after position 5, of a stream of which 2 and 15 were deleted.
fn counted() -> CountedEntries {
    CountedEntries::none(stream(1, 2, 15)).with(&found(5, 6, 10, 10))
}

#[test]
fn entries_that_are_added_leave_a_count_valid() {
    let counted = counted();
    assert_eq!(counted.at(stream(1, 2, 15)), Some(counted));
    let longer = StreamState { length: 19, added: Some(21), last_generated: id(21), ..stream(1, 2, 15) };
    let later = counted.at(longer).expect("nothing was removed");
    assert_eq!((later.entries, later.last, later.oldest), (5, id(10), Some(id(6))));
    let all = later.with(&found(9, 11, 21, 18));
    assert_eq!((all.entries, all.last, all.oldest), (14, id(21), Some(id(6))));
}

#[test]
fn only_removals_of_entries_that_were_not_counted_leave_it_valid() {
    for (why, stream, is_valid) in [
        ("20 was deleted", stream(1, 3, 20), true),
        ("8 may have been deleted", stream(1, 3, 15), false),
        ("20 was deleted, and another one", stream(1, 4, 20), false),
        ("1 to 3 were trimmed, or 8 was deleted", stream(4, 4, 15), false),
    ] {
        assert_eq!(counted().at(stream).is_some(), is_valid, "{why}");
    }
    // Only 2 was deleted before.
    let counted = CountedEntries::none(stream(1, 1, 2)).with(&found(5, 6, 10, 10));
    for (why, stream, is_valid) in [
        ("4 was deleted", stream(1, 2, 4), true),
        ("1 and 3 were trimmed", stream(4, 3, 2), true),
        ("1 and 3 were trimmed, and 4 deleted", stream(5, 4, 4), true),
        ("8 was deleted", stream(1, 2, 8), false),
        ("all up to 6 were trimmed", stream(7, 6, 2), false),
    ] {
        assert_eq!(counted.at(stream).is_some(), is_valid, "{why}");
    }
    // What was removed is known again after the next reading.
    let later = counted.at(stream(1, 2, 4)).expect("4 was not counted");
    assert!(later.at(stream(1, 2, 4)).is_some());
}

#[test]
fn a_group_that_moved_and_a_server_that_counts_no_removals_leave_nothing() {
    assert_eq!(counted().at(StreamState { position: id(6), ..stream(1, 2, 15) }), None);
    assert_eq!(counted().at(StreamState { position: id(4), ..stream(1, 2, 15) }), None);
    let before_7 = StreamState { added: None, max_deleted: None, ..stream(1, 2, 15) };
    let counted = CountedEntries::none(before_7).with(&found(5, 6, 10, 10));
    assert_eq!(counted.at(before_7), None);
    let made_again = StreamState { added: Some(7), length: 5, last_generated: id(7), ..stream(1, 2, 15) };
    assert_eq!(self::counted().at(made_again), None);
}

#[test]
fn a_count_ends_at_its_limits() {
    assert_eq!(counted().left(), Some(COUNT_LIMIT - 5));
    assert_eq!(counted().with(&found(COUNT_LIMIT - 5, 11, 20, 1)).left(), None);
    assert_eq!(counted().with(&found(1, 11, 11, TOTAL_BYTES)).left(), None);
}

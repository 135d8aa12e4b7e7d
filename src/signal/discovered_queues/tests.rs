//! Queues that come, go and are shared, without a server.

use super::*;
use crate::{model::QueuePattern, signal::Several};

fn watched(name: &str, group: &str, kind: QueueKind, pattern: &str) -> WatchedType {
    let mut queues = Queues::one(format!("{name}:jobs"));
    queues.patterns.push(QueuePattern::parse(pattern).expect("it is one"));
    let several = Some(Box::new(Several { queues, group: group.into() }));
    WatchedType {
        worker_type: WorkerType::new(name),
        queue: format!("{name}:jobs").into(),
        kind,
        several,
        signals: None,
    }
}

fn fed(found: &QueueDiscovery, key: &str, event: KeyEvent<'_>) -> Vec<u32> {
    let mut fed = Vec::new();
    found.each(key.as_bytes(), event, |index| fed.push(index));
    fed
}

fn keys(found: &QueueDiscovery, index: u32) -> Vec<String> {
    let place = found.place_of(index).expect("it has patterns");
    found.read().of_types[place].keys.iter().map(ToString::to_string).collect()
}

fn all(found: &QueueDiscovery) -> Reading<()> {
    found.take_changes(0).all
}

#[test]
fn a_key_is_a_queue_once_a_signal_says_so_and_then_every_change_of_it_counts() {
    let found = QueueDiscovery::new(&[watched("a", "g", QueueKind::Stream, "t-*")]);
    assert_eq!(fed(&found, "t-1", KeyEvent::Named(b"expire")), [0; 0]);
    assert_eq!(fed(&found, "t-1", KeyEvent::Named(b"lpush")), [0; 0], "a list is none of its queues");
    assert_eq!(fed(&found, "t-1", KeyEvent::Named(b"xadd")), [0]);
    assert_eq!(fed(&found, "t-1", KeyEvent::Named(b"expire")), [0]);
    assert_eq!(fed(&found, "t-1:dead", KeyEvent::Queue), [0; 0]);
    assert_eq!(fed(&found, "a:jobs", KeyEvent::Queue), [0; 0], "it is named, and known by that");
    assert_eq!(keys(&found, 0), ["t-1"]);
}

#[test]
fn what_a_search_does_not_see_is_gone_unless_it_came_meanwhile() {
    let found = QueueDiscovery::new(&[watched("a", "g", QueueKind::Stream, "t-*")]);
    assert!(all(&found).known().is_none(), "nobody has looked yet");
    fed(&found, "t-old", KeyEvent::OfType("stream"));
    fed(&found, "t-stays", KeyEvent::OfType("stream"));
    found.begin_search();
    fed(&found, "t-stays", KeyEvent::OfType("stream"));
    fed(&found, "t-new", KeyEvent::Queue);
    assert!(found.finish_search(0));
    assert_eq!((keys(&found, 0), all(&found)), (vec!["t-new".to_owned(), "t-stays".to_owned()], Reading::Known(())));
    assert_eq!(fed(&found, "t-old", KeyEvent::Change), [0; 0]);
    found.begin_search();
    fed(&found, "t-new", KeyEvent::Change);
    fed(&found, "t-stays", KeyEvent::Change);
    assert!(!found.finish_search(0), "nothing is different");
}

#[test]
fn a_search_that_fails_drops_nothing_and_says_that_there_may_be_more() {
    let found = QueueDiscovery::new(&[watched("a", "g", QueueKind::Stream, "t-*")]);
    fed(&found, "t-1", KeyEvent::OfType("stream"));
    found.begin_search();
    assert!(found.fail_search(0, "SCAN is refused"));
    assert!(!found.fail_search(0, "SCAN is refused"), "no news");
    assert_eq!((keys(&found, 0), all(&found).why_not()), (vec!["t-1".to_owned()], Some("SCAN is refused")));
}

#[test]
fn of_those_who_would_take_the_same_jobs_the_first_keeps_a_queue() {
    let types = [
        watched("a", "g", QueueKind::Stream, "t-*"),
        watched("b", "g", QueueKind::Stream, "*-1"),
        watched("c", "h", QueueKind::Stream, "t-*"),
        watched("d", "g", QueueKind::List, "t-*"),
    ];
    let found = QueueDiscovery::new(&types);
    assert_eq!(fed(&found, "t-1", KeyEvent::OfType("stream")), [0, 2], "b would take a's jobs, c has its own group");
    assert_eq!(fed(&found, "t-2", KeyEvent::OfType("list")), [3]);
    found.forget(0, "t-1");
    assert_eq!(fed(&found, "t-1", KeyEvent::Change), [2]);
    assert!(keys(&found, 0).is_empty());
}

#[test]
fn no_more_are_kept_than_can_be_looked_at() {
    let found = QueueDiscovery::new(&[watched("a", "g", QueueKind::Stream, "t-*")]);
    for number in 0..=MAX_DISCOVERED {
        fed(&found, &format!("t-{number}"), KeyEvent::OfType("stream"));
    }
    found.begin_search();
    (0..=MAX_DISCOVERED).for_each(|number| drop(fed(&found, &format!("t-{number}"), KeyEvent::OfType("stream"))));
    found.finish_search(0);
    let of = found.take_changes(0);
    assert_eq!((of.came.len(), keys(&found, 0).len()), (MAX_DISCOVERED, MAX_DISCOVERED));
    assert!(of.all.why_not().is_some_and(|why| why.contains("more than 10000")));
    found.begin_search();
    fed(&found, "t-1", KeyEvent::OfType("stream"));
    found.finish_search(0);
    assert_eq!((keys(&found, 0), all(&found)), (vec!["t-1".to_owned()], Reading::Known(())));
}

#[test]
fn what_came_or_went_is_taken_once_and_what_did_both_is_not() {
    let found = QueueDiscovery::new(&[watched("a", "g", QueueKind::Stream, "t-*")]);
    let taken = || {
        let DiscoveredChanges { came, went, .. } = found.take_changes(0);
        [came, went].map(|keys| keys.iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    let none = [const { Vec::<String>::new() }; 2];
    for key in ["t-3", "t-1", "t-2"] {
        fed(&found, key, KeyEvent::Queue);
    }
    found.forget(0, "t-2");
    assert_eq!(taken(), [vec!["t-1".to_owned(), "t-3".to_owned()], vec![]]);
    assert_eq!(taken(), none);
    found.forget(0, "t-1");
    fed(&found, "t-1", KeyEvent::Queue);
    fed(&found, "t-3", KeyEvent::Change);
    assert_eq!(taken(), none, "they are there as before");
    found.begin_search();
    fed(&found, "t-2", KeyEvent::Queue);
    fed(&found, "t-3", KeyEvent::Change);
    found.finish_search(0);
    assert_eq!(taken(), [vec!["t-2".to_owned()], vec!["t-1".to_owned()]]);
}

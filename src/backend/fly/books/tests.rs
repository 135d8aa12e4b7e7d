use serde_json::json;

use super::*;

/// When nothing that is asked for matters any more.
const LATER: Timestamp = Timestamp(10_000_000);

fn machine(id: &str, state: &str) -> Arc<Machine> {
    Arc::new(Machine::made_up(id, state, "g"))
}

fn of(value: serde_json::Value) -> Arc<Machine> {
    Arc::new(serde_json::from_value(value).unwrap())
}

fn ended_machine(id: &str, at: u64, event: &serde_json::Value) -> Arc<Machine> {
    let events = json!([{ "type": "exit", "timestamp": at, "request": { "exit_event": event } }]);
    of(json!({ "id": id, "state": "stopped", "events": events, "config": {} }))
}

fn list(books: &Books, at: u64, machines: &[Arc<Machine>]) -> Merged {
    books.merge(machines, Timestamp(at), Timestamp(at))
}

fn workers(books: &Books) -> Vec<(String, Phase)> {
    books.pool().instances.iter().map(|one| (one.id.to_string(), one.phase)).collect()
}

fn running(ids: &[&str]) -> Vec<(String, Phase)> {
    ids.iter().map(|id| ((*id).to_owned(), Phase::Running)).collect()
}

fn manual(books: &Books) -> Vec<(u32, u32)> {
    books.pool().manual.iter().map(|change| (change.from, change.to)).collect()
}

fn wake(books: &Books, at: u64) -> Option<String> {
    books.wake(&HashSet::new(), Timestamp(at)).map(|machine| machine.id.clone())
}

#[test]
fn the_first_list_is_how_things_are() {
    let books = Books::default();
    let all = [machine("a", "started"), machine("b", "stopped"), machine("c", "stopping"), machine("d", "destroyed")];
    assert!(list(&books, 1, &all).changed);
    assert_eq!(workers(&books), [("a".to_owned(), Phase::Running), ("c".to_owned(), Phase::Draining)]);
    assert_eq!(manual(&books), []);
    assert_eq!(list(&books, 2, &all), Merged::default());
}

#[test]
fn what_others_start_stop_and_destroy_is_told_once() {
    let books = Books::default();
    list(&books, 1, &[machine("a", "started")]);
    list(&books, 2, &[machine("a", "started"), machine("b", "started"), machine("c", "starting")]);
    list(&books, 3, &[machine("a", "started"), machine("b", "started"), machine("c", "started")]);
    assert_eq!(manual(&books), [(1, 3)], "fly scale count 3");
    let stopped = ended_machine("b", 4, &json!({ "requested_stop": true, "exit_code": 0 }));
    list(&books, 5, &[machine("a", "started"), stopped.clone(), machine("c", "started")]);
    assert_eq!(manual(&books), [(1, 3), (3, 2)], "fly machine stop");
    list(&books, 6, &[stopped.clone(), machine("c", "started")]);
    list(&books, 7, &[stopped, machine("c", "started")]);
    assert_eq!(manual(&books), [(1, 3), (3, 2), (2, 1)], "fly machine destroy");
    assert!(books.pool().exits.is_empty());
}

#[test]
fn a_worker_that_ends_by_itself_is_an_exit() {
    let books = Books::default();
    list(&books, 1, &[machine("a", "started"), machine("b", "started")]);
    let crashed = ended_machine("a", 5_000, &json!({ "exit_code": 3 }));
    list(&books, 6_000, &[crashed, machine("b", "failed")]);
    let exits = books.pool().exits;
    let told: Vec<_> = exits.iter().map(|exit| (exit.seq, exit.success, exit.detail.as_str())).collect();
    assert_eq!(told[0], (1, false, "exit code 3"));
    assert!(told[1].2.contains("machine b failed"), "{told:?}");
    assert_eq!(manual(&books), []);
}

#[test]
fn one_list_without_a_machine_is_a_doubt_and_two_are_certainty() {
    let books = Books::default();
    list(&books, 1, &[machine("a", "started")]);
    assert_eq!(list(&books, 2, &[]), Merged { changed: false, doubtful: true });
    list(&books, 3, &[machine("a", "started")]);
    assert!(list(&books, 4, &[]).doubtful, "counted anew");
    assert_eq!(list(&books, 5, &[]), Merged { changed: true, doubtful: false });
    list(&books, 6, &[machine("a", "started")]);
    assert_eq!(workers(&books), [], "an old list does not bring it back");
}

#[test]
fn lists_from_before_a_request_do_not_undo_it() {
    let books = Books::default();
    list(&books, 1, &[machine("a", "stopped"), machine("b", "started")]);
    assert_eq!(wake(&books, 10).as_deref(), Some("a"));
    books.retire(&[WorkerId::new("b")], Duration::from_secs(5), Timestamp(10));
    let expected = [("a".to_owned(), Phase::Running), ("b".to_owned(), Phase::Draining)];
    assert_eq!(workers(&books), expected);
    books.merge(&[machine("a", "stopped"), machine("b", "started")], Timestamp(9), Timestamp(11));
    assert_eq!(workers(&books), expected, "asked for before");
    list(&books, 12, &[machine("a", "stopped"), machine("b", "started")]);
    assert_eq!(workers(&books), expected, "asked for afterwards, and stale");
    list(&books, 13, &[machine("a", "started"), machine("b", "stopped")]);
    assert_eq!(workers(&books), running(&["a"]));
    assert_eq!((manual(&books), books.pool().exits.len()), (vec![], 0));
}

#[test]
fn of_two_accounts_of_a_machine_the_later_change_holds() {
    let books = Books::default();
    let at = |state: &str, updated: &str| of(json!({ "id": "a", "state": state, "updated_at": updated, "config": {} }));
    list(&books, 1, &[at("started", "2026-01-01T00:00:10Z")]);
    list(&books, 2, &[at("stopped", "2026-01-01T00:00:09Z")]);
    assert_eq!(workers(&books), running(&["a"]));
}

#[test]
fn a_start_that_comes_to_nothing_is_an_exit_and_counts_until_then() {
    let books = Books::default();
    list(&books, 1, &[machine("a", "stopped")]);
    wake(&books, 1_000);
    assert_eq!(workers(&books), running(&["a"]));
    books.merge(&[machine("a", "stopped")], LATER, LATER);
    assert_eq!(workers(&books), []);
    assert_eq!(books.pool().exits.len(), 1);

    assert_eq!(wake(&books, LATER.0 + 1), None);
    let again = LATER.after(Duration::from_secs(60));
    assert_eq!(wake(&books, again.0).as_deref(), Some("a"));
    books.vanished("a", again.after(Duration::from_secs(1)));
    assert_eq!((workers(&books), books.pool().exits.len()), (vec![], 2));
    assert_eq!(manual(&books), []);
}

#[test]
fn a_launch_counts_until_it_is_seen_or_its_time_is_up() {
    let books = Books::default();
    list(&books, 1, &[]);
    let launch = |id: &str| Launch { id: id.to_owned(), name: format!("g-{id}"), region: None, asked: Timestamp(10) };
    books.launching(launch("l1"));
    books.launching(launch("l2"));
    assert_eq!((books.live(), workers(&books)), (2, running(&["g-l1", "g-l2"])));
    list(&books, 20, &[of(json!({ "id": "m1", "name": "g-l1", "state": "started", "config": {} }))]);
    assert_eq!(workers(&books), running(&["m1", "g-l2"]));
    assert_eq!(manual(&books), [], "ours, though its answer was lost");
    books.merge(&[of(json!({ "id": "m1", "name": "g-l1", "state": "started", "config": {} }))], LATER, LATER);
    assert_eq!(workers(&books), running(&["m1"]), "the other one never came");
}

#[test]
fn a_machine_under_a_lease_counts_as_before_and_is_not_touched() {
    let books = Books::default();
    let leased = |id: &str, state: &str| of(json!({ "id": id, "state": state, "nonce": "x", "config": {} }));
    list(&books, 1, &[machine("a", "started"), machine("b", "stopped")]);
    list(&books, 2, &[leased("a", "stopped"), leased("b", "stopped")]);
    assert_eq!(workers(&books), running(&["a"]), "being deployed");
    assert_eq!(wake(&books, 3), None);
    list(&books, 4, &[machine("a", "started"), machine("b", "stopped")]);
    assert_eq!((workers(&books), manual(&books)), (running(&["a"]), vec![]));
    assert_eq!(wake(&books, 5).as_deref(), Some("b"));
}

#[test]
fn machines_whose_host_does_not_answer_are_neither_capacity_nor_news() {
    let books = Books::default();
    list(&books, 1, &[machine("a", "started"), machine("b", "started")]);
    let lost = of(json!({ "id": "a", "state": "started", "host_status": "unreachable" }));
    list(&books, 2, &[lost, machine("b", "started")]);
    assert_eq!(workers(&books), running(&["b"]));
    list(&books, 3, &[machine("a", "started"), machine("b", "started")]);
    assert_eq!(workers(&books), running(&["a", "b"]));
    assert_eq!((manual(&books), books.pool().exits.len()), (vec![], 0));
}

#[test]
fn only_what_we_made_or_stopped_may_be_destroyed() {
    let books = Books::default();
    let ours = of(json!({
        "id": "c", "state": "stopped", "config": { "metadata": { "swarm_launch": "l" } },
    }));
    list(&books, 1, &[machine("a", "started"), machine("b", "stopped"), ours.clone()]);
    books.retire(&[WorkerId::new("a")], Duration::from_secs(1), Timestamp(2));
    list(&books, 3, &[machine("a", "stopped"), machine("b", "stopped"), ours]);
    let asleep: Vec<_> = books.asleep(LATER).into_iter().map(|(machine, may)| (machine.id.clone(), may)).collect();
    assert_eq!(asleep, [("a".to_owned(), true), ("b".to_owned(), false), ("c".to_owned(), true)]);
}

#[test]
fn the_emptiest_region_is_woken_first_and_suspended_machines_last() {
    let books = Books::default();
    let at =
        |id: &str, state: &str, region: &str| of(json!({ "id": id, "state": state, "region": region, "config": {} }));
    list(
        &books,
        1,
        &[at("a", "started", "fra"), at("b", "stopped", "fra"), at("c", "suspended", "ams"), at("d", "stopped", "ams")],
    );
    let woken: Vec<_> = std::iter::from_fn(|| wake(&books, 2)).collect();
    assert_eq!(woken, ["d", "b", "c"]);
}

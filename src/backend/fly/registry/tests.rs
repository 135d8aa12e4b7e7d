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

fn list(registry: &MachineRegistry, at: u64, machines: &[Arc<Machine>]) -> Merged {
    registry.merge(machines, Timestamp(at), Timestamp(at))
}

fn workers(registry: &MachineRegistry) -> Vec<(String, Phase)> {
    registry.pool().instances.iter().map(|one| (one.id.to_string(), one.phase)).collect()
}

fn running(ids: &[&str]) -> Vec<(String, Phase)> {
    ids.iter().map(|id| ((*id).to_owned(), Phase::Running)).collect()
}

fn manual(registry: &MachineRegistry) -> Vec<(u32, u32)> {
    registry.pool().manual.iter().map(|change| (change.from, change.to)).collect()
}

fn wake(registry: &MachineRegistry, at: u64) -> Option<String> {
    registry.wake(&HashSet::new(), Timestamp(at)).map(|machine| machine.id.clone())
}

#[test]
fn the_first_list_is_how_things_are() {
    let registry = MachineRegistry::default();
    let all = [machine("a", "started"), machine("b", "stopped"), machine("c", "stopping"), machine("d", "destroyed")];
    assert!(list(&registry, 1, &all).changed);
    assert_eq!(workers(&registry), [("a".to_owned(), Phase::Running), ("c".to_owned(), Phase::Draining)]);
    assert_eq!(manual(&registry), []);
    assert_eq!(list(&registry, 2, &all), Merged::default());
}

#[test]
fn what_others_start_stop_and_destroy_is_told_once() {
    let registry = MachineRegistry::default();
    list(&registry, 1, &[machine("a", "started")]);
    list(&registry, 2, &[machine("a", "started"), machine("b", "started"), machine("c", "starting")]);
    list(&registry, 3, &[machine("a", "started"), machine("b", "started"), machine("c", "started")]);
    assert_eq!(manual(&registry), [(1, 3)], "fly scale count 3");
    let stopped = ended_machine("b", 4, &json!({ "requested_stop": true, "exit_code": 0 }));
    list(&registry, 5, &[machine("a", "started"), stopped.clone(), machine("c", "started")]);
    assert_eq!(manual(&registry), [(1, 3), (3, 2)], "fly machine stop");
    list(&registry, 6, &[stopped.clone(), machine("c", "started")]);
    list(&registry, 7, &[stopped, machine("c", "started")]);
    assert_eq!(manual(&registry), [(1, 3), (3, 2), (2, 1)], "fly machine destroy");
    assert!(registry.pool().exits.is_empty());
}

#[test]
fn a_worker_that_ends_by_itself_is_an_exit() {
    let registry = MachineRegistry::default();
    list(&registry, 1, &[machine("a", "started"), machine("b", "started")]);
    let crashed = ended_machine("a", 5_000, &json!({ "exit_code": 3 }));
    list(&registry, 6_000, &[crashed, machine("b", "failed")]);
    let exits = registry.pool().exits;
    let told: Vec<_> = exits.iter().map(|exit| (exit.seq, exit.success, exit.detail.as_str())).collect();
    assert_eq!(told[0], (1, false, "exit code 3"));
    assert!(told[1].2.contains("machine b failed"), "{told:?}");
    assert_eq!(manual(&registry), []);
}

#[test]
fn one_list_without_a_machine_is_a_doubt_and_two_are_certainty() {
    let registry = MachineRegistry::default();
    list(&registry, 1, &[machine("a", "started")]);
    assert_eq!(list(&registry, 2, &[]), Merged { changed: false, doubtful: true });
    list(&registry, 3, &[machine("a", "started")]);
    assert!(list(&registry, 4, &[]).doubtful, "counted again from 1");
    assert_eq!(list(&registry, 5, &[]), Merged { changed: true, doubtful: false });
    list(&registry, 6, &[machine("a", "started")]);
    assert_eq!(workers(&registry), [], "an old list does not bring it back");
}

#[test]
fn lists_from_before_a_request_do_not_undo_it() {
    let registry = MachineRegistry::default();
    list(&registry, 1, &[machine("a", "stopped"), machine("b", "started")]);
    assert_eq!(wake(&registry, 10).as_deref(), Some("a"));
    registry.retire(&[WorkerId::new("b")], Duration::from_secs(5), Timestamp(10));
    let expected = [("a".to_owned(), Phase::Running), ("b".to_owned(), Phase::Draining)];
    assert_eq!(workers(&registry), expected);
    registry.merge(&[machine("a", "stopped"), machine("b", "started")], Timestamp(9), Timestamp(11));
    assert_eq!(workers(&registry), expected, "asked for before");
    list(&registry, 12, &[machine("a", "stopped"), machine("b", "started")]);
    assert_eq!(workers(&registry), expected, "asked for afterwards, and stale");
    list(&registry, 13, &[machine("a", "started"), machine("b", "stopped")]);
    assert_eq!(workers(&registry), running(&["a"]));
    assert_eq!((manual(&registry), registry.pool().exits.len()), (vec![], 0));
}

#[test]
fn of_two_accounts_of_a_machine_the_later_change_holds() {
    let registry = MachineRegistry::default();
    let at = |state: &str, updated: &str| of(json!({ "id": "a", "state": state, "updated_at": updated, "config": {} }));
    list(&registry, 1, &[at("started", "2026-01-01T00:00:10Z")]);
    list(&registry, 2, &[at("stopped", "2026-01-01T00:00:09Z")]);
    assert_eq!(workers(&registry), running(&["a"]));
}

#[test]
fn a_start_that_comes_to_nothing_is_an_exit_and_counts_until_then() {
    let registry = MachineRegistry::default();
    list(&registry, 1, &[machine("a", "stopped")]);
    wake(&registry, 1_000);
    assert_eq!(workers(&registry), running(&["a"]));
    registry.merge(&[machine("a", "stopped")], LATER, LATER);
    assert_eq!(workers(&registry), []);
    assert_eq!(registry.pool().exits.len(), 1);

    assert_eq!(wake(&registry, LATER.0 + 1), None);
    let again = LATER.after(Duration::from_secs(60));
    assert_eq!(wake(&registry, again.0).as_deref(), Some("a"));
    registry.vanished("a", again.after(Duration::from_secs(1)));
    assert_eq!((workers(&registry), registry.pool().exits.len()), (vec![], 2));
    assert_eq!(manual(&registry), []);
}

#[test]
fn a_launch_counts_until_it_is_seen_or_its_time_is_up() {
    let registry = MachineRegistry::default();
    list(&registry, 1, &[]);
    let launch = |id: &str| Launch { id: id.to_owned(), name: format!("g-{id}"), region: None, asked: Timestamp(10) };
    registry.launching(launch("l1"));
    registry.launching(launch("l2"));
    assert_eq!((registry.live(), workers(&registry)), (2, running(&["g-l1", "g-l2"])));
    list(&registry, 20, &[of(json!({ "id": "m1", "name": "g-l1", "state": "started", "config": {} }))]);
    assert_eq!(workers(&registry), running(&["m1", "g-l2"]));
    assert_eq!(manual(&registry), [], "ours, though its answer was lost");
    registry.merge(&[of(json!({ "id": "m1", "name": "g-l1", "state": "started", "config": {} }))], LATER, LATER);
    assert_eq!(workers(&registry), running(&["m1"]), "the other one never came");
}

#[test]
fn a_machine_under_a_lease_counts_as_before_and_is_not_touched() {
    let registry = MachineRegistry::default();
    let leased = |id: &str, state: &str| {
        of(json!({ "id": id, "state": state, "lease": { "expires_at": u32::MAX }, "config": {} }))
    };
    list(&registry, 1, &[machine("a", "started"), machine("b", "stopped")]);
    list(&registry, 2, &[leased("a", "stopped"), leased("b", "stopped")]);
    assert_eq!(workers(&registry), running(&["a"]), "being deployed");
    assert_eq!(wake(&registry, 3), None);
    list(&registry, 4, &[machine("a", "started"), machine("b", "stopped")]);
    assert_eq!((workers(&registry), manual(&registry)), (running(&["a"]), vec![]));
    assert_eq!(wake(&registry, 5).as_deref(), Some("b"));
}

#[test]
fn machines_whose_host_does_not_answer_are_neither_capacity_nor_news() {
    let registry = MachineRegistry::default();
    list(&registry, 1, &[machine("a", "started"), machine("b", "started")]);
    let lost = of(json!({ "id": "a", "state": "started", "host_status": "unreachable" }));
    list(&registry, 2, &[lost, machine("b", "started")]);
    assert_eq!(workers(&registry), running(&["b"]));
    list(&registry, 3, &[machine("a", "started"), machine("b", "started")]);
    assert_eq!(workers(&registry), running(&["a", "b"]));
    assert_eq!((manual(&registry), registry.pool().exits.len()), (vec![], 0));
}

#[test]
fn only_what_we_made_or_stopped_may_be_destroyed() {
    let registry = MachineRegistry::default();
    let ours = of(json!({
        "id": "c", "state": "stopped", "config": { "metadata": { "swarm_launch": "l" } },
    }));
    list(&registry, 1, &[machine("a", "started"), machine("b", "stopped"), ours.clone()]);
    registry.retire(&[WorkerId::new("a")], Duration::from_secs(1), Timestamp(2));
    list(&registry, 3, &[machine("a", "stopped"), machine("b", "stopped"), ours]);
    let asleep: Vec<_> = registry.asleep(LATER).into_iter().map(|(machine, may)| (machine.id.clone(), may)).collect();
    assert_eq!(asleep, [("a".to_owned(), true), ("b".to_owned(), false), ("c".to_owned(), true)]);
}

#[test]
fn the_emptiest_region_is_woken_first_and_suspended_machines_last() {
    let registry = MachineRegistry::default();
    let at =
        |id: &str, state: &str, region: &str| of(json!({ "id": id, "state": state, "region": region, "config": {} }));
    list(
        &registry,
        1,
        &[at("a", "started", "fra"), at("b", "stopped", "fra"), at("c", "suspended", "ams"), at("d", "stopped", "ams")],
    );
    let woken: Vec<_> = std::iter::from_fn(|| wake(&registry, 2)).collect();
    assert_eq!(woken, ["d", "b", "c"]);
}

#[test]
fn a_machine_whose_worker_does_not_run_says_why() {
    let reason = |state: &str, events: serde_json::Value| {
        let registry = MachineRegistry::default();
        list(&registry, 10, &[of(json!({ "id": "a", "state": state, "config": {}, "events": events }))]);
        registry.pool().instances[0].reason.clone()
    };
    let launched = json!({ "type": "launch", "status": "created", "source": "user", "timestamp": 1 });
    assert_eq!(reason("started", json!([launched])), None);
    assert_eq!(reason("starting", json!([launched])).as_deref(), Some("machine is starting"));
    let failed = json!({ "type": "start", "status": "failed", "source": "flyd", "timestamp": 3 });
    assert_eq!(
        reason("starting", json!([failed, launched])).as_deref(),
        Some("machine is starting; event `start` failed (flyd)")
    );
    let exit = json!({ "oom_killed": true, "restarting": true });
    let exited = json!({ "type": "exit", "status": "stopped", "timestamp": 4, "request": { "exit_event": exit } });
    assert_eq!(
        reason("restarting", json!([exited, launched])).as_deref(),
        Some("restarting: out of memory; raise `fly.guest.memory_mb` or `fly.size`")
    );
}

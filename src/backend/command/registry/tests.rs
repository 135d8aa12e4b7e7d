use super::*;
use crate::config::{CommandSettings, Removes};

const NOW: Timestamp = Timestamp(1_000_000);

fn kind() -> WorkerType {
    WorkerType::new("mail")
}

fn spec(scale: bool) -> CommandSpec {
    let scale = if scale { vec!["p".to_owned()] } else { Vec::new() };
    CommandSpec {
        settings: CommandSettings { scale, removes: Removes::Newest, ..CommandSettings::default() },
        drains: true,
        drain_timeout: Duration::from_secs(1),
    }
}

fn line(id: &WorkerId, state: State) -> Listed {
    let handle = format!("handle-of-{id}");
    Listed { handle, id: id.clone(), state, reason: None, started_at: None, success: false }
}

fn running(ids: &[WorkerId]) -> Vec<Listed> {
    ids.iter().map(|id| line(id, State::Running)).collect()
}

fn at(seconds: u64) -> Timestamp {
    NOW.after(Duration::from_secs(seconds))
}

fn merge(registry: &Registry, listed: Vec<Listed>, seconds: u64) -> Merged {
    registry.merge(listed, at(seconds), at(seconds), false)
}

fn pool(registry: &Registry) -> Pool {
    registry.pool(&spec(false))
}

/// A registry with workers that were started here and are listed.
fn started(count: u32) -> (Registry, Vec<WorkerId>) {
    let registry = Registry::default();
    merge(&registry, Vec::new(), 0);
    let ids = registry.reserve(&kind(), count, usize::MAX, false, NOW);
    assert_eq!(ids.len(), count as usize);
    assert!(merge(&registry, running(&ids), 1).changed);
    (registry, ids)
}

#[test]
fn what_was_asked_for_counts_before_it_is_listed() {
    let (registry, ids) = started(2);
    assert_eq!(registry.reserve(&kind(), 2, usize::MAX, false, NOW), []);
    assert_eq!(registry.reserve(&kind(), 9, 4, false, NOW).len(), 4);
    assert_eq!(merge(&registry, running(&ids), 2), Merged::default(), "nothing has changed");
    assert_eq!((pool(&registry).instances.len(), pool(&registry).manual), (6, Vec::new()));
    assert_eq!(registry.listed(), 2);
}

#[test]
fn a_start_that_is_never_listed_is_a_failed_one() {
    let registry = Registry::default();
    merge(&registry, Vec::new(), 0);
    let ids = registry.reserve(&kind(), 1, 1, false, NOW);
    merge(&registry, Vec::new(), 59);
    assert_eq!(pool(&registry).instances.len(), 1);
    assert!(merge(&registry, Vec::new(), 60).changed);
    let pool = pool(&registry);
    assert_eq!((pool.instances.len(), &pool.exits[0].id), (0, &ids[0]));
    assert_eq!(pool.exits[0].detail, "not listed within 60 s of its start");
}

#[test]
fn a_worker_that_one_list_lacks_is_doubtful_and_gone_with_the_second() {
    let (registry, ids) = started(2);
    assert_eq!(merge(&registry, running(&ids[1..]), 2), Merged { changed: false, doubtful: true });
    assert_eq!(pool(&registry).instances.len(), 2);
    assert_eq!(merge(&registry, running(&ids), 3), Merged::default(), "it was an oversight");
    merge(&registry, running(&ids[1..]), 4);
    assert!(merge(&registry, running(&ids[1..]), 5).changed);
    let pool = pool(&registry);
    assert_eq!((pool.instances.len(), pool.exits.len()), (1, 1));
    assert_eq!((&pool.exits[0].id, pool.exits[0].success), (&ids[0], false));
}

#[test]
fn an_end_that_is_listed_is_believed_at_once_and_one_that_was_asked_for_is_no_exit() {
    let (registry, ids) = started(2);
    assert_eq!(registry.retire(&[ids[1].clone(), WorkerId::new("nobody")]), ids[1..]);
    assert_eq!(registry.retire(&ids[1..]), [], "asked before");
    let ended = ids.iter().map(|id| Listed { success: true, ..line(id, State::Exited) });
    merge(&registry, ended.collect(), 2);
    let pool = pool(&registry);
    assert_eq!((pool.instances.len(), pool.exits.len(), pool.manual.len()), (0, 1, 0));
    assert_eq!((&pool.exits[0].id, pool.exits[0].success), (&ids[0], true));
}

#[test]
fn a_worker_is_stopped_by_the_platforms_name_and_again_if_it_stays() {
    let (registry, ids) = started(2);
    let unlisted = registry.reserve(&kind(), 3, 1, false, at(1));
    registry.retire(&[ids[0].clone(), unlisted[0].clone()]);
    let leaving = [ids[0].clone(), unlisted[0].clone()];
    let first = ToStop { id: ids[0].clone(), handle: format!("handle-of-{}", ids[0]) };
    assert_eq!(
        registry.to_stop(&leaving, at(2)),
        std::slice::from_ref(&first),
        "the platform has no name for the other one yet"
    );
    registry.stopped(&ids[..1], at(2));
    assert_eq!(registry.to_stop(&leaving, at(61)), []);
    assert_eq!(registry.to_stop(&leaving, at(62)), [first]);
    merge(&registry, running(&ids[1..]), 63);
    assert_eq!((registry.still_leaving(&leaving), pool(&registry).exits.len()), (Vec::new(), 0));
}

#[test]
fn workers_that_somebody_else_started_count_and_are_told_once() {
    let (registry, ids) = started(1);
    let mut listed = running(&ids);
    listed.push(line(&WorkerId::new("stranger"), State::Running));
    merge(&registry, listed.clone(), 2);
    merge(&registry, listed, 3);
    let pool = pool(&registry);
    assert_eq!(pool.instances.len(), 2);
    assert_eq!(pool.manual.iter().map(|change| (change.from, change.to)).collect::<Vec<_>>(), [(1, 2)]);
}

#[test]
fn ids_that_the_platform_makes_up_take_the_place_of_those_that_were_asked_for() {
    let registry = Registry::default();
    merge(&registry, Vec::new(), 0);
    registry.reserve(&kind(), 2, usize::MAX, true, NOW);
    merge(&registry, running(&[WorkerId::new("a")]), 1);
    let ids = |registry: &Registry| pool(registry).instances.iter().map(|one| one.id.clone()).collect::<Vec<_>>();
    assert!(ids(&registry).contains(&WorkerId::new("a")) && ids(&registry).len() == 2);
    merge(&registry, running(&[WorkerId::new("a"), WorkerId::new("b")]), 2);
    assert_eq!(ids(&registry), [WorkerId::new("a"), WorkerId::new("b")]);
    assert_eq!((pool(&registry).manual, pool(&registry).exits), (Vec::new(), Vec::new()));
}

#[test]
fn states_show_as_phases_with_the_platforms_own_words() {
    let registry = Registry::default();
    let names = ["blocked", "draining", "running", "starting", "unknown"].map(WorkerId::new);
    let unknown = State::Unknown("PROVISIONING".to_owned());
    let states = [State::Blocked, State::Draining, State::Running, State::Starting, unknown];
    merge(&registry, names.iter().zip(states).map(|(id, state)| line(id, state)).collect(), 1);
    let pool = pool(&registry);
    let shown: Vec<_> = pool.instances.iter().map(|one| (one.phase, one.began_at.is_some())).collect();
    let running = |began| (Phase::Running, began);
    let expected = [(Phase::Blocked, false), (Phase::Draining, true), running(true), running(false), running(true)];
    assert_eq!(shown, expected);
    assert_eq!(pool.instances[0].reason.as_deref(), Some("the platform says `blocked`"));
    assert_eq!(pool.instances[4].reason.as_deref(), Some("the platform says `PROVISIONING`"));
    assert_eq!(pool.manual, [], "those that were there before count as they are");
    assert_eq!(registry.live().len(), 4);
}

#[test]
fn a_platform_with_a_number_keeps_its_order_and_may_keep_a_worker_that_was_given_up() {
    let registry = Registry::default();
    let aged = |id: &str, seconds| Listed { started_at: Some(at(seconds)), ..line(&WorkerId::new(id), State::Running) };
    let listed = vec![aged("old", 1), aged("new", 2)];
    registry.merge(listed.clone(), at(3), at(3), true);
    let groups = |registry: &Registry| match registry.removal(&spec(true)) {
        Removal::ByOrder(groups) => groups.concat().iter().map(ToString::to_string).collect::<Vec<_>>(),
        Removal::Chosen => panic!("the platform chooses"),
    };
    assert_eq!(groups(&registry), ["new", "old"]);
    registry.stopped(&[WorkerId::new("new")], at(4));
    assert_eq!((groups(&registry), registry.live().len()), (vec!["old".to_owned()], 1));
    registry.merge(listed.clone(), at(5), at(5), true);
    assert_eq!(registry.live().len(), 1);
    registry.merge(listed, at(64), at(64), true);
    assert_eq!(registry.live().len(), 2, "the platform has removed another one, or none");
}

//! Whose change of a count it was, and what counts, as events come in.

use std::time::Duration;

use super::*;
use crate::{
    backend::{Instance, Phase},
    config::KubernetesSettings,
};

fn browser() -> WorkerType {
    WorkerType::new("browser")
}

/// A store that has listed a target with this number of replicas, and no pod.
fn listed(replicas: u32) -> Store {
    let target = TargetSpec {
        name: "web".to_owned(),
        kind: TargetKind::Deployment,
        drains: true,
        drain_timeout: Duration::from_secs(1),
    };
    let spec = KubernetesSpec { cluster: KubernetesSettings::default(), types: BTreeMap::from([(browser(), target)]) };
    let store = Store::new(&spec, Arc::new(|_| {}), Clock::start());
    store.replace_targets(TargetKind::Deployment, vec![("web".to_owned(), target_at("10", replicas))]);
    store.replace_pods(Vec::new());
    store
}

fn target_at(version: &str, replicas: u32) -> Target {
    Target { uid: "u".to_owned(), resource_version: version.to_owned(), replicas, ..Target::default() }
}

fn see(store: &Store, version: &str, replicas: u32) {
    store.apply_target(TargetKind::Deployment, "web", Some(target_at(version, replicas)));
}

fn manual(store: &Store) -> Vec<(u32, u32)> {
    store.pool(&browser()).unwrap().manual.iter().map(|one| (one.from, one.to)).collect()
}

#[test]
fn until_everything_is_listed_nothing_is_known() {
    let spec = KubernetesSpec { cluster: KubernetesSettings::default(), types: listed(0).lock().specs.clone() };
    let store = Store::new(&spec, Arc::new(|_| {}), Clock::start());
    assert_eq!(store.pool(&browser()).unwrap_err().message, "not listed yet");
    store.replace_pods(Vec::new());
    assert!(store.pool(&browser()).is_err(), "the targets are not listed");
    store.replace_targets(TargetKind::Deployment, vec![("web".to_owned(), target_at("1", 0))]);
    assert_eq!(store.pool(&browser()).unwrap(), Pool::default());
    store.broken(Watched::Pods, "watching pods: gone");
    assert_eq!(store.pool(&browser()).unwrap_err().message, "watching pods: gone");
}

#[test]
fn our_own_count_is_no_manual_change_whichever_comes_first_event_or_answer() {
    let store = listed(1);
    store.will_write(&browser(), Some(3));
    see(&store, "11", 3);
    store.wrote(&browser(), "11", 3);
    store.will_write(&browser(), Some(5));
    store.wrote(&browser(), "12", 5);
    see(&store, "12", 5);
    assert_eq!(manual(&store), []);
}

#[test]
fn an_event_from_before_our_write_is_passed_over() {
    let store = listed(1);
    store.will_write(&browser(), Some(3));
    store.wrote(&browser(), "12", 3);
    see(&store, "11", 1);
    assert_eq!(manual(&store), []);
    assert_eq!(store.view(&browser()).unwrap().target.replicas, 3);
}

#[test]
fn a_count_that_nobody_here_wrote_is_somebody_elses() {
    let store = listed(1);
    see(&store, "11", 4);
    store.will_write(&browser(), Some(6));
    store.wrote(&browser(), "12", 6);
    see(&store, "13", 2);
    assert_eq!(manual(&store), [(1, 4), (6, 2)]);
}

#[test]
fn pods_beyond_the_count_are_leaving_and_missing_ones_are_starting() {
    let store = listed(2);
    let pod = |name: &str, ready| Pod {
        name: name.to_owned(),
        ready,
        node: Some("n".to_owned()),
        owner: Some(("ReplicaSet".to_owned(), "web-6d4cf56db6".to_owned())),
        ..Pod::default()
    };
    let phases = |store: &Store| -> Vec<(String, Phase)> {
        let instances = store.pool(&browser()).unwrap().instances;
        instances.into_iter().map(|Instance { id, phase, .. }| (id.to_string(), phase)).collect()
    };
    store.apply_pod(&browser(), pod("a", true));
    assert_eq!(phases(&store), [("a".to_owned(), Phase::Ready), ("web#1".to_owned(), Phase::Running)]);
    store.apply_pod(&browser(), pod("b", false));
    store.apply_pod(&browser(), pod("c", true));
    let expected = [("a", Phase::Ready), ("b", Phase::Draining), ("c", Phase::Ready)];
    assert_eq!(phases(&store), expected.map(|(name, phase)| (name.to_owned(), phase)));
    store.set_draining(&browser(), BTreeSet::from([WorkerId::new("a")]), BTreeSet::new());
    let expected = [("a", Phase::Draining), ("b", Phase::Draining), ("c", Phase::Ready)];
    assert_eq!(phases(&store), expected.map(|(name, phase)| (name.to_owned(), phase)));
}

#[test]
fn pods_of_another_owner_are_not_the_targets() {
    let store = listed(1);
    let owned = |name: &str, owner: Option<(&str, &str)>| Pod {
        name: name.to_owned(),
        ready: true,
        owner: owner.map(|(kind, name)| (kind.to_owned(), name.to_owned())),
        ..Pod::default()
    };
    for (name, owner) in [
        ("green", Some(("ReplicaSet", "web-green-6d4cf56db6"))),
        ("stateful", Some(("StatefulSet", "web"))),
        ("job", Some(("Job", "web-1"))),
        ("bare", None),
    ] {
        store.apply_pod(&browser(), owned(name, owner));
    }
    assert_eq!(store.view(&browser()).unwrap().pods, []);
    let instances = store.pool(&browser()).unwrap().instances;
    assert!(instances.len() == 1 && instances[0].id.as_str() == "web#0", "its replica has no pod yet: {instances:?}");
    store.apply_pod(&browser(), owned("own", Some(("ReplicaSet", "web-6d4cf56db6"))));
    assert_eq!(store.view(&browser()).unwrap().pods.len(), 1);
}

//! Predicts which pods a controller removes first when `spec.replicas` goes down, as documented for ReplicaSets
//! (<https://kubernetes.io/docs/concepts/workloads/controllers/replicaset/#scaling-down-a-replicaset> and, in more
//! detail, `ActivePodsWithRanks` in its source) and StatefulSets. Pure.

use std::{cmp::Ordering, collections::HashMap};

use super::view::Pod;
use crate::{config::TargetKind, model::Timestamp};

/// The active pods in the order in which they go; `marked` ones as if they had the lowest deletion cost.
pub(super) fn deletion_order<'a>(
    kind: TargetKind,
    pods: impl IntoIterator<Item = &'a Pod>,
    marked: impl Fn(&Pod) -> bool,
) -> Vec<&'a Pod> {
    let mut pods: Vec<&Pod> = pods.into_iter().filter(|pod| pod.is_active()).collect();
    match kind {
        TargetKind::StatefulSet => pods.sort_by(|a, b| b.ordinal().cmp(&a.ordinal()).then_with(|| b.name.cmp(&a.name))),
        // Of Jobs, nobody but us removes any.
        TargetKind::Deployment | TargetKind::Job => {
            let mut on_node = HashMap::<&str, usize>::new();
            for node in pods.iter().filter_map(|pod| pod.node.as_deref()) {
                *on_node.entry(node).or_default() += 1;
            }
            let crowd = |pod: &Pod| pod.node.as_deref().map_or(0, |node| on_node[node]);
            let cost = |pod: &Pod| if marked(pod) { i32::MIN } else { pod.deletion_cost };
            pods.sort_by(|a, b| {
                (a.node.is_some(), a.phase, a.ready)
                    .cmp(&(b.node.is_some(), b.phase, b.ready))
                    .then_with(|| cost(a).cmp(&cost(b)))
                    .then_with(|| crowd(b).cmp(&crowd(a)))
                    .then_with(|| newer_first(a.ready_since, b.ready_since))
                    .then_with(|| b.restarts.cmp(&a.restarts))
                    .then_with(|| newer_first(Some(a.created_at), Some(b.created_at)))
                    .then_with(|| a.name.cmp(&b.name))
            });
        }
    }
    pods
}

/// Unknown goes first, then the newer. (Kubernetes compares ages by their logarithm: within a power of two it is
/// chance.)
fn newer_first(a: Option<Timestamp>, b: Option<Timestamp>) -> Ordering {
    match (a, b) {
        (Some(a), Some(b)) => b.cmp(&a),
        (a, b) => a.is_some().cmp(&b.is_some()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::kubernetes::view::PodPhase;

    fn pod(name: &str, change: impl FnOnce(&mut Pod)) -> Pod {
        let mut pod = Pod {
            name: name.to_owned(),
            node: Some(format!("node-of-{name}")),
            phase: PodPhase::Running,
            ready: true,
            ready_since: Some(Timestamp(1_000)),
            ..Pod::default()
        };
        change(&mut pod);
        pod
    }

    fn order(kind: TargetKind, pods: &[Pod], marked: &str) -> Vec<String> {
        deletion_order(kind, pods, |pod| pod.name == marked).iter().map(|pod| pod.name.clone()).collect()
    }

    #[test]
    fn a_deployment_gives_up_pods_in_the_documented_order() {
        let pods = [
            pod("oldest", |_| {}),
            pod("restarted", |pod| pod.restarts = 1),
            pod("newer-ready", |pod| pod.ready_since = Some(Timestamp(2_000))),
            pod("cheap", |pod| pod.deletion_cost = -1),
            pod("not-ready", |pod| pod.ready = false),
            pod("pending", |pod| (pod.phase, pod.ready) = (PodPhase::Pending, false)),
            pod("unassigned", |pod| (pod.node, pod.phase, pod.ready) = (None, PodPhase::Pending, false)),
        ];
        let expected = ["unassigned", "pending", "not-ready", "cheap", "newer-ready", "restarted", "oldest"];
        assert_eq!(order(TargetKind::Deployment, &pods, ""), expected);
    }

    #[test]
    fn the_mark_beats_every_cost_but_not_readiness() {
        let pods =
            [pod("cheap", |pod| pod.deletion_cost = -100), pod("marked", |_| {}), pod("sick", |pod| pod.ready = false)];
        assert_eq!(order(TargetKind::Deployment, &pods, "marked"), ["sick", "marked", "cheap"]);
    }

    #[test]
    fn of_equal_pods_the_one_on_the_crowded_node_goes_first() {
        let on = |name: &str, node: &str| pod(name, |pod| pod.node = Some(node.to_owned()));
        let pods = [on("alone", "a"), on("pair-1", "b"), on("pair-2", "b")];
        assert_eq!(order(TargetKind::Deployment, &pods, ""), ["pair-1", "pair-2", "alone"]);
    }

    #[test]
    fn a_stateful_set_gives_up_its_highest_ordinal_whatever_it_costs() {
        let pods = [pod("w-0", |_| {}), pod("w-10", |_| {}), pod("w-9", |pod| pod.deletion_cost = -100)];
        assert_eq!(order(TargetKind::StatefulSet, &pods, "w-0"), ["w-10", "w-9", "w-0"]);
    }

    #[test]
    fn those_that_leave_already_are_no_choice() {
        let pods = [pod("leaving", |pod| pod.terminating = true), pod("done", |pod| pod.phase = PodPhase::Finished)];
        assert!(order(TargetKind::Deployment, &pods, "").is_empty());
    }
}

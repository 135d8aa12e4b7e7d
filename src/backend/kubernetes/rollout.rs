//! How many pods can go while a Deployment has pods of several ReplicaSets. Its controller decides which ReplicaSet
//! loses how many; what it can't do is leave fewer pods than its strategy says. Pure.
//!
//! Source: `scale` in `pkg/controller/deployment/sync.go` and `rolling.go` of Kubernetes. After `spec.replicas` fell,
//! the controller first keeps that number and the surge, in proportion to the sizes of the ReplicaSets; then it removes
//! old pods until just `spec.replicas` less `maxUnavailable` are available.

use std::collections::BTreeSet;

use super::{deletion_order::deletion_order, strategy::Rollout, view::Pod};
use crate::config::TargetKind;

impl Rollout {
    /// Returns how many of at most `most` the count can fall so that whichever pods the controller takes are free: have
    /// finished, or never started.
    pub(super) fn releasable(
        &self,
        pods: &[Pod],
        replicas: usize,
        most: usize,
        is_free: impl Fn(&Pod) -> bool,
    ) -> usize {
        // Free pods at the front of the order in which each ReplicaSet gives its pods up, and whether there are others.
        let revisions: BTreeSet<_> = pods.iter().map(|pod| pod.revision.as_deref()).collect();
        let fronts: Vec<(usize, bool)> = revisions
            .into_iter()
            .map(|revision| {
                let of_one = pods.iter().filter(|pod| pod.revision.as_deref() == revision);
                let order = deletion_order(TargetKind::Deployment, of_one, &is_free);
                let free = order.iter().take_while(|pod| is_free(pod)).count();
                (free, free < order.len())
            })
            .collect();
        let available = pods.iter().filter(|pod| pod.ready).count();
        let is_safe = |released: &usize| {
            let left = replicas.saturating_sub(*released);
            let (surge, unavailable) = self.limits(left);
            let in_proportion = pods.len().saturating_sub(left + surge);
            let old = available.saturating_sub(left.saturating_sub(unavailable));
            fronts.iter().all(|(free, others)| !others || *free >= in_proportion.max(old))
        };
        (1..=most).rev().find(is_safe).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::kubernetes::view::PodPhase;

    fn pod(name: &str, revision: &str, starts: bool) -> Pod {
        Pod {
            name: name.to_owned(),
            revision: Some(revision.to_owned()),
            node: Some("n".to_owned()),
            phase: if starts { PodPhase::Running } else { PodPhase::Pending },
            ready: starts,
            started: starts,
            ..Pod::default()
        }
    }

    /// Old pods, the first of which are idle, and new ones that do not start.
    fn stuck(old: usize, new: usize) -> Vec<Pod> {
        let old = (0..old).map(|number| pod(&format!("old-{number}"), "1", true));
        old.chain((0..new).map(|number| pod(&format!("new-{number}"), "2", false))).collect()
    }

    fn releasable(pods: &[Pod], replicas: usize, idle: &[&str]) -> usize {
        let is_free = |pod: &Pod| !pod.started || idle.contains(&pod.name.as_str());
        Rollout::default().releasable(pods, replicas, replicas, is_free)
    }

    #[test]
    fn idle_pods_go_and_the_busy_one_stays_while_new_ones_do_not_start() {
        // Four replicas: one old pod is gone, and two new ones can't start.
        assert_eq!(releasable(&stuck(3, 2), 4, &["old-0", "old-1"]), 2);
        assert_eq!(releasable(&stuck(2, 1), 2, &["old-0"]), 1);
        assert_eq!(releasable(&stuck(1, 1), 1, &[]), 0);
    }

    #[test]
    fn all_go_when_all_are_free() {
        assert_eq!(releasable(&stuck(3, 2), 4, &["old-0", "old-1", "old-2"]), 4);
    }

    #[test]
    fn nobody_goes_whose_place_a_busy_pod_of_another_revision_might_take() {
        let mut pods = stuck(2, 0);
        pods.push(pod("new-0", "2", true));
        // The count is 2, and three are ready. The controller may take one or two from either ReplicaSet.
        assert_eq!(releasable(&pods, 2, &["old-0"]), 0);
        assert_eq!(releasable(&pods, 2, &["old-0", "new-0"]), 0);
        assert_eq!(releasable(&pods, 2, &["old-0", "old-1", "new-0"]), 2);
    }
}

//! State of one worker type, and how events change it. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tokio::sync::Notify;

use super::{
    batch_job::Jobs,
    rejections::{Episode, Rejections},
};
use crate::{
    backend::{
        Exit, ManualScale,
        kubernetes::{
            spec::kind_name,
            view::{Pod, Target},
        },
    },
    config::TargetKind,
    model::{Timestamp, WorkerId, WorkerType},
    telemetry::{PodRejected, PodRejectionsEnded},
};

/// Exits and manual changes kept for each worker type: more than happen between two looks.
const KEPT: usize = 32;

/// One worker type.
#[derive(Debug, Default)]
pub(super) struct TypeState {
    pub(super) target: Option<Target>,
    /// All pods with the label, also those of other owners.
    pub(super) pods: BTreeMap<String, Pod>,
    /// All Jobs with the label, and requested ones.
    pub(super) jobs: Jobs,
    /// Kind and name of the target, which owns the pods that count.
    pub(super) owner: Option<(TargetKind, String)>,
    /// Asked to drain, and still counted by `spec.replicas`, or with a Job.
    pub(super) draining: BTreeSet<WorkerId>,
    /// No longer counted by `spec.replicas`, or with a deleted Job, and not gone yet.
    pub(super) released: BTreeSet<WorkerId>,
    /// Since when there are fewer pods than replicas.
    pub(super) short_since: Option<Timestamp>,
    /// The count that is being written, or was written without an answer: not a change by somebody else.
    pub(super) writing: Option<u32>,
    pub(super) exits: Vec<Exit>,
    pub(super) manual: Vec<ManualScale>,
    pub(super) rejections: Rejections,
    /// Of the last exit or manual change.
    seq: u64,
    pub(super) changed: Arc<Notify>,
}

impl TypeState {
    /// The pods of the target, leaving and finished ones included. Those with the label that another object owns (the
    /// other half of a blue/green pair, a Job) are not its pods: no change of its count can add or remove one.
    pub(super) fn own_pods(&self) -> impl Iterator<Item = &Pod> {
        let owner = self.owner.as_ref();
        self.pods.values().filter(move |pod| owner.is_some_and(|(kind, name)| pod.belongs_to(*kind, name)))
    }

    pub(super) fn see_target(&mut self, kind: TargetKind, name: &str, target: Target, now: Timestamp) -> bool {
        let Some(known) = &self.target else {
            self.target = Some(target);
            return true;
        };
        if known.uid == target.uid && is_older(&target.resource_version, &known.resource_version) {
            return false;
        }
        let (from, to) = (known.replicas, target.replicas);
        if from != to && self.writing != Some(to) {
            let by = target.scaled_by.as_deref().map(|who| format!(" by `{who}`")).unwrap_or_default();
            let detail = format!("{} `{name}` was scaled from {from} to {to}{by}", kind_name(kind));
            self.seq += 1;
            keep(&mut self.manual, ManualScale { seq: self.seq, from, to, at: now, detail });
        }
        if self.writing == Some(to) {
            self.writing = None;
        }
        let news = from != to || known.failure != target.failure || known.uid != target.uid;
        self.target = Some(target);
        news
    }

    /// Takes in a pod. `true` if it changes what others see.
    pub(super) fn see_pod(&mut self, pod: Pod, worker_type: &WorkerType, now: Timestamp) -> bool {
        let before = self.pods.get(&pod.name);
        let same = before.filter(|before| before.uid == pod.uid);
        let own = self.owner.as_ref().is_some_and(|(kind, name)| pod.belongs_to(*kind, name));
        let ended = own && same.is_some_and(|before| before.last_end != pod.last_end && !pod.terminating);
        if let (true, Some(end)) = (ended, &pod.last_end) {
            self.seq += 1;
            let exit = Exit {
                seq: self.seq,
                id: pod.worker_id(),
                at: end.at,
                lived: end.at.since(end.started_at),
                success: end.success,
                detail: end.detail.clone(),
            };
            keep(&mut self.exits, exit);
        }
        if let (None, Some(reason)) = (same.and_then(|same| same.rejected.as_ref()), &pod.rejected)
            && own
            && self.rejections.note(reason, now)
        {
            PodRejected { worker_type, pod: &pod.name, reason }.emit();
        }
        let news = before != Some(&pod);
        self.pods.insert(pod.name.clone(), pod);
        news
    }

    /// Releases the type: returns its target and forgets changes under way.
    pub(super) fn leave_alone(&mut self) -> Option<Target> {
        (self.writing, self.short_since) = (None, None);
        self.draining.clear();
        self.released.clear();
        self.target.take()
    }

    /// Ends what has lasted long enough.
    pub(super) fn settle(&mut self, worker_type: &WorkerType, now: Timestamp) {
        if let Some(Episode { reason, pods, .. }) = self.rejections.ended(now) {
            PodRejectionsEnded { worker_type, pods, reason: &reason }.emit();
        }
    }

    pub(super) fn note_shortage(&mut self, now: Timestamp) {
        let active = self.own_pods().filter(|pod| pod.is_active()).count();
        let short = self.target.as_ref().is_some_and(|target| (target.replicas as usize) > active);
        self.short_since = short.then(|| self.short_since.unwrap_or(now));
    }
}

fn keep<T>(all: &mut Vec<T>, one: T) {
    if all.len() == KEPT {
        all.remove(0);
    }
    all.push(one);
}

/// Whether one resourceVersion of an object is from before another. Where they are no numbers, nothing is: they are
/// compared only to pass over an event that was sent before our own write.
pub(super) fn is_older(one: &str, other: &str) -> bool {
    matches!((one.parse::<u128>(), other.parse::<u128>()), (Ok(one), Ok(other)) if one < other)
}

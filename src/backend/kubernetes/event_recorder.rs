//! Kubernetes Events on the targets, for people with `kubectl describe`. Written in the background:
//! nothing waits for them, and a failure to write one has no other effect.

use std::time::Duration;

use k8s_openapi::{
    api::{core::v1::ObjectReference, events::v1::Event},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::Timestamp,
};
use kube::{Api, api::PostParams};
use tokio::{sync::mpsc, time::Instant};

use super::{
    cluster::{Cluster, FIELD_MANAGER},
    failure::Right,
    spec::{TargetSpec, api_kind, api_version},
};
use crate::telemetry::NoticeFailed;

/// The right to write them.
pub(super) const CREATE_EVENT: Right = Right::new("events.k8s.io", "events", "create");

/// Events waiting to be written. Beyond this they are dropped: the log has them all.
const MAX_QUEUED: usize = 256;

/// The longest note that the API takes, in bytes.
const MAX_NOTE_BYTES: usize = 1_024;

/// How often the same failure of a target is written.
const REPEAT_INTERVAL: Duration = Duration::from_secs(300);

/// Why an event is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EventReason {
    ScaledUp,
    ScaledDown,
    Failed,
    Refused,
}

impl EventReason {
    /// The event's reason and type.
    fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::ScaledUp => ("ScaledUp", "Normal"),
            Self::ScaledDown => ("ScaledDown", "Normal"),
            Self::Failed => ("ScalingFailed", "Warning"),
            Self::Refused => ("ScalingRefused", "Warning"),
        }
    }
}

/// One event.
#[derive(Clone, Debug)]
pub(super) struct TargetEvent {
    pub(super) target: TargetSpec,
    pub(super) uid: String,
    pub(super) reason: EventReason,
    pub(super) note: String,
}

/// Hands events to the writer.
#[derive(Clone)]
pub(super) struct EventRecorder {
    waiting: mpsc::Sender<TargetEvent>,
}

/// One reconciler's events: does not repeat itself.
pub(super) struct TargetRecorder {
    events: EventRecorder,
    last: Option<(EventReason, String, Instant)>,
}

impl EventRecorder {
    pub(super) fn new() -> (Self, mpsc::Receiver<TargetEvent>) {
        let (waiting, events) = mpsc::channel(MAX_QUEUED);
        (Self { waiting }, events)
    }

    pub(super) fn for_target(&self) -> TargetRecorder {
        TargetRecorder { events: self.clone(), last: None }
    }
}

impl TargetRecorder {
    /// Queues an event, unless it repeats a failure within the last [`REPEAT_INTERVAL`].
    pub(super) fn record(&mut self, event: TargetEvent) {
        let now = Instant::now();
        let again = self.last.as_ref().is_some_and(|(reason, note, at)| {
            (*reason, note) == (event.reason, &event.note) && now - *at < REPEAT_INTERVAL
        });
        if again && matches!(event.reason, EventReason::Failed | EventReason::Refused) {
            return;
        }
        self.last = Some((event.reason, event.note.clone(), now));
        // Full: the log and scaling:events tell the same.
        let _ = self.events.waiting.try_send(event);
    }
}

/// Writes events until there is nobody left to make one.
pub(super) async fn write(cluster: Cluster, mut events: mpsc::Receiver<TargetEvent>) {
    let api: Api<Event> = cluster.api();
    let instance = rustix::system::uname().nodename().to_string_lossy().into_owned();
    while let Some(event) = events.recv().await {
        let body = body(&event, &cluster.namespace, &instance);
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        let written = cluster.call("writing an event", CREATE_EVENT, api.create(&params, &body)).await;
        if let Err(failed) = written {
            NoticeFailed { error: &failed.error.message }.emit();
        }
    }
}

fn body(event: &TargetEvent, namespace: &str, instance: &str) -> Event {
    let now = Timestamp::now();
    let (reason, type_) = event.reason.words();
    let name = format!("{}.{:x}", event.target.name, now.as_nanosecond());
    Event {
        metadata: ObjectMeta { name: Some(name), namespace: Some(namespace.to_owned()), ..ObjectMeta::default() },
        action: Some("Scale".to_owned()),
        reason: Some(reason.to_owned()),
        type_: Some(type_.to_owned()),
        note: Some(shortened(&event.note)),
        event_time: Some(MicroTime(now)),
        reporting_controller: Some(FIELD_MANAGER.to_owned()),
        reporting_instance: Some(instance.to_owned()),
        regarding: Some(ObjectReference {
            api_version: Some(api_version(event.target.kind)),
            kind: Some(api_kind(event.target.kind).to_owned()),
            name: Some(event.target.name.clone()),
            namespace: Some(namespace.to_owned()),
            uid: Some(event.uid.clone()).filter(|uid| !uid.is_empty()),
            ..ObjectReference::default()
        }),
        ..Event::default()
    }
}

fn shortened(note: &str) -> String {
    let fits = note.char_indices().take_while(|(at, letter)| at + letter.len_utf8() <= MAX_NOTE_BYTES);
    fits.map(|(_, letter)| letter).collect()
}

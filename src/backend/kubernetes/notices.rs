//! Kubernetes Events on the targets, for people with `kubectl describe`. Written in the background: nobody waits for them, and a
//! cluster that refuses them loses nothing but them.

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
    spec::{TargetSpec, api_kind},
};
use crate::telemetry::NoticeFailed;

/// The right to write them.
pub(super) const CREATE_EVENT: Right = Right::new("events.k8s.io", "events", "create");

/// Notices that wait for the server. With more than that at once, the log tells of the others.
const WAITING: usize = 256;

/// The longest note that the API takes, in bytes.
const LONGEST: usize = 1_024;

/// The same trouble is told of no more often.
const REPEAT: Duration = Duration::from_secs(300);

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Happened {
    ScaledUp,
    ScaledDown,
    Failed,
    Refused,
}

impl Happened {
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

/// One notice.
#[derive(Clone, Debug)]
pub(super) struct Notice {
    pub(super) target: TargetSpec,
    pub(super) uid: String,
    pub(super) happened: Happened,
    pub(super) note: String,
}

/// Hands notices to the writer.
#[derive(Clone)]
pub(super) struct Notices {
    waiting: mpsc::Sender<Notice>,
}

/// One keeper's notices: does not repeat itself.
pub(super) struct Teller {
    notices: Notices,
    told: Option<(Happened, String, Instant)>,
}

impl Notices {
    pub(super) fn new() -> (Self, mpsc::Receiver<Notice>) {
        let (waiting, notices) = mpsc::channel(WAITING);
        (Self { waiting }, notices)
    }

    pub(super) fn teller(&self) -> Teller {
        Teller { notices: self.clone(), told: None }
    }
}

impl Teller {
    /// Tells, unless it is trouble that was told of just now.
    pub(super) fn tell(&mut self, notice: Notice) {
        let now = Instant::now();
        let again = self.told.as_ref().is_some_and(|(happened, note, at)| {
            (*happened, note) == (notice.happened, &notice.note) && now - *at < REPEAT
        });
        if again && matches!(notice.happened, Happened::Failed | Happened::Refused) {
            return;
        }
        self.told = Some((notice.happened, notice.note.clone(), now));
        // Full: the log and scaling:events tell the same.
        let _ = self.notices.waiting.try_send(notice);
    }
}

/// Writes notices until there is nobody left to make one.
pub(super) async fn write(cluster: Cluster, mut notices: mpsc::Receiver<Notice>) {
    let events: Api<Event> = cluster.api();
    let instance = rustix::system::uname().nodename().to_string_lossy().into_owned();
    while let Some(notice) = notices.recv().await {
        let event = event(&notice, &cluster.namespace, &instance);
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        let written = cluster.call("writing an event", CREATE_EVENT, events.create(&params, &event)).await;
        if let Err(failed) = written {
            NoticeFailed { error: &failed.error.message }.emit();
        }
    }
}

fn event(notice: &Notice, namespace: &str, instance: &str) -> Event {
    let now = Timestamp::now();
    let (reason, type_) = notice.happened.words();
    let name = format!("{}.{:x}", notice.target.name, now.as_nanosecond());
    Event {
        metadata: ObjectMeta { name: Some(name), namespace: Some(namespace.to_owned()), ..ObjectMeta::default() },
        action: Some("Scale".to_owned()),
        reason: Some(reason.to_owned()),
        type_: Some(type_.to_owned()),
        note: Some(shortened(&notice.note)),
        event_time: Some(MicroTime(now)),
        reporting_controller: Some(FIELD_MANAGER.to_owned()),
        reporting_instance: Some(instance.to_owned()),
        regarding: Some(ObjectReference {
            api_version: Some("apps/v1".to_owned()),
            kind: Some(api_kind(notice.target.kind).to_owned()),
            name: Some(notice.target.name.clone()),
            namespace: Some(namespace.to_owned()),
            uid: Some(notice.uid.clone()).filter(|uid| !uid.is_empty()),
            ..ObjectReference::default()
        }),
        ..Event::default()
    }
}

fn shortened(note: &str) -> String {
    let fits = note.char_indices().take_while(|(at, letter)| at + letter.len_utf8() <= LONGEST);
    fits.map(|(_, letter)| letter).collect()
}

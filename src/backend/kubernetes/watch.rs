//! The watches: one for the pods of all worker types, one for their targets of each kind, and one for Jobs where there
//! are some. They keep the store up to date, and mark it as unknown while a watch is broken.

use std::{fmt::Debug, time::Duration};

use backon::BackoffBuilder;
use futures_util::StreamExt;
use k8s_openapi::api::{
    apps::v1::{Deployment, StatefulSet},
    batch::v1::{CronJob, Job as ApiJob},
    core::v1::Pod as ApiPod,
};
use kube::{
    Api, ResourceExt,
    runtime::{watcher, watcher::Event},
};
use serde::de::DeserializeOwned;

use super::{
    batch_job::Job,
    cluster::Cluster,
    failure::explain,
    store::{Store, Watched},
    view::{Pod, Target},
};
use crate::{backend::BackendError, config::TargetKind, model::WorkerType, telemetry::WatchBroken};

/// Seconds after which the server ends a watch; 5 s later it counts as dead. This bounds how long a silently lost
/// connection goes unnoticed.
const WATCH_SECONDS: u32 = 60;

/// Consumer of a watch's events.
trait Sink<K> {
    /// The complete list.
    fn replace(&self, all: Vec<K>);
    /// One is new or changed.
    fn apply(&self, one: K);
    /// One is gone.
    fn remove(&self, one: &K);
}

/// Follows until dropped.
pub(super) async fn follow(cluster: Cluster, store: &Store, label: &str, watched: Watched) {
    match watched {
        Watched::Targets(kind @ TargetKind::Deployment) => {
            follow_all::<Deployment>(&cluster, store, label, watched, &Targets { store, kind }).await;
        }
        Watched::Targets(kind @ TargetKind::StatefulSet) => {
            follow_all::<StatefulSet>(&cluster, store, label, watched, &Targets { store, kind }).await;
        }
        Watched::Targets(kind @ TargetKind::Job) => {
            follow_all::<CronJob>(&cluster, store, label, watched, &Targets { store, kind }).await;
        }
        Watched::Jobs => follow_all::<ApiJob>(&cluster, store, label, watched, &Labelled { store, label }).await,
        Watched::Pods => follow_all::<ApiPod>(&cluster, store, label, watched, &Labelled { store, label }).await,
    }
}

async fn follow_all<K>(cluster: &Cluster, store: &Store, label: &str, watched: Watched, sink: &impl Sink<K>)
where
    K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
        + Clone
        + Debug
        + DeserializeOwned
        + Send
        + 'static,
{
    let api: Api<K> = cluster.api();
    let config = watcher::Config::default().labels(label).timeout(WATCH_SECONDS);
    let mut pauses = backoff();
    loop {
        let mut news = Box::pin(watcher(api.clone(), config.clone()));
        let mut listed = Vec::new();
        while let Some(event) = news.next().await {
            match event {
                Ok(Event::Init) => listed.clear(),
                Ok(Event::InitApply(one)) => listed.push(one),
                Ok(Event::InitDone) => {
                    sink.replace(std::mem::take(&mut listed));
                    pauses = backoff();
                }
                Ok(Event::Apply(one)) => sink.apply(one),
                Ok(Event::Delete(one)) => sink.remove(&one),
                // The server has forgotten where we were. The watcher lists again by itself; until then nothing is
                // wrong.
                Err(watcher::Error::WatchError(status)) if status.code == 410 => {}
                Err(error) => {
                    let why = explained(watched, &cluster.namespace, error);
                    WatchBroken { watched: watched.as_str(), error: &why.message }.emit();
                    store.broken(watched, &why.message);
                    break;
                }
            }
        }
        // With a new watcher, which lists first: the old one would go on without a word that it works again.
        tokio::time::sleep(pauses.next().unwrap_or_default()).await;
    }
}

/// Pauses between attempts: at once, so that a cut connection costs no time, then up to 10 s apart.
fn backoff() -> impl Iterator<Item = Duration> {
    let growing = backon::ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(200))
        .with_max_delay(Duration::from_secs(10))
        .without_max_times()
        .with_jitter()
        .build();
    std::iter::once(Duration::ZERO).chain(growing)
}

fn explained(watched: Watched, namespace: &str, error: watcher::Error) -> BackendError {
    let what = watched.as_str();
    let (verb, cause) = match error {
        watcher::Error::InitialListFailed(cause) => ("list", cause),
        watcher::Error::WatchStartFailed(cause) | watcher::Error::WatchFailed(cause) => ("watch", cause),
        watcher::Error::WatchError(status) => ("watch", kube::Error::Api(status)),
        error @ watcher::Error::NoResourceVersion => {
            return BackendError::retryable(format!("watching {what}: {error}"));
        }
    };
    explain(&format!("{verb}ing {what}"), watched.right(verb), namespace, cause)
}

struct Targets<'a> {
    store: &'a Store,
    kind: TargetKind,
}

impl<K: ResourceExt> Sink<K> for Targets<'_>
where
    for<'k> Target: From<&'k K>,
{
    fn replace(&self, all: Vec<K>) {
        let all = all.iter().map(|one| (one.name_any(), Target::from(one))).collect();
        self.store.replace_targets(self.kind, all);
    }

    fn apply(&self, one: K) {
        self.store.apply_target(self.kind, &one.name_any(), Some(Target::from(&one)));
    }

    fn remove(&self, one: &K) {
        self.store.apply_target(self.kind, &one.name_any(), None);
    }
}

/// Pods and Jobs, whose label says to which worker type they belong.
struct Labelled<'a> {
    store: &'a Store,
    label: &'a str,
}

impl Labelled<'_> {
    fn type_of(&self, one: &impl ResourceExt) -> Option<WorkerType> {
        one.labels().get(self.label).map(|name| WorkerType::new(name.as_str()))
    }
}

impl Sink<ApiJob> for Labelled<'_> {
    fn replace(&self, all: Vec<ApiJob>) {
        let all = all.iter().filter_map(|job| Some((self.type_of(job)?, Job::from(job)))).collect();
        self.store.replace_jobs(all);
    }

    fn apply(&self, one: ApiJob) {
        if let Some(worker_type) = self.type_of(&one) {
            self.store.apply_job(&worker_type, Job::from(&one));
        }
    }

    fn remove(&self, one: &ApiJob) {
        if let Some(worker_type) = self.type_of(one) {
            self.store.remove_job(&worker_type, &one.name_any());
        }
    }
}

impl Sink<ApiPod> for Labelled<'_> {
    fn replace(&self, all: Vec<ApiPod>) {
        let all = all.iter().filter_map(|pod| Some((self.type_of(pod)?, Pod::from(pod)))).collect();
        self.store.replace_pods(all);
    }

    fn apply(&self, one: ApiPod) {
        if let Some(worker_type) = self.type_of(&one) {
            self.store.apply_pod(&worker_type, Pod::from(&one));
        }
    }

    fn remove(&self, one: &ApiPod) {
        if let Some(worker_type) = self.type_of(one) {
            self.store.remove_pod(&worker_type, &one.name_any());
        }
    }
}

//! A cluster to test against, and how tests look at it and change it: over the API only, so that the same tests hold
//! on a real API server.
//!
//! - By default: the fake API server, with the controllers played here.
//! - `SWARM_TEST_CLUSTER=1` and `KUBECONFIG`: that cluster, with its own controllers, in a namespace of its own. `make
//!   test-kubernetes` starts one.

use std::path::PathBuf;

use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        apps::v1::{Deployment, StatefulSet},
        batch::v1::{CronJob, Job},
        core::v1::{Namespace, Pod},
        events::v1::Event,
    },
};
use kube::{
    Api, Client, Config, Resource, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{
    controller::{Behaviour, Players, ended},
    kubelet::Processes,
};
use crate::{
    fake_kubernetes::{self, FakeKubernetes, api::PLAYER_HEADER},
    support::wait::{DEADLINE, eventually},
};

/// The label of targets and pods.
pub(super) const LABEL: &str = "swarm/worker-type";

/// See the [module](self).
pub(super) struct Bed {
    pub(super) client: Client,
    pub(super) namespace: String,
    fake: Option<FakeKubernetes>,
    players: Option<Players>,
    /// Where the kubeconfig lies.
    directory: TempDir,
    /// Deleted at the end: the cluster outlives the test.
    is_lent: bool,
}

impl Bed {
    /// The cluster that the environment asks for.
    pub(super) async fn start() -> Self {
        Self::start_with(Behaviour::default()).await
    }

    /// As [`Bed::start`], with this behaviour of the played controllers.
    pub(super) async fn start_with(behaviour: Behaviour) -> Self {
        if std::env::var_os("SWARM_TEST_CLUSTER").is_some() {
            return Self::start_real().await;
        }
        Self::start_fake(behaviour).await
    }

    /// The cluster that `KUBECONFIG` names.
    ///
    /// # Panics
    /// Unless `SWARM_TEST_CLUSTER` says that it is one to test on.
    pub(super) async fn start_real() -> Self {
        assert!(std::env::var_os("SWARM_TEST_CLUSTER").is_some(), "this test needs a cluster: make test-kubernetes");
        let kubeconfig = Kubeconfig::read().expect("SWARM_TEST_CLUSTER needs a usable KUBECONFIG");
        let kubeconfig = serde_json::to_string(&kubeconfig).expect("a kubeconfig is data");
        Self::on(&kubeconfig, None, None).await
    }

    /// The fake, whatever the environment asks for: for tests of faults.
    pub(super) async fn start_fake(behaviour: Behaviour) -> Self {
        let fake = FakeKubernetes::start().await;
        let kubeconfig = fake.kubeconfig();
        Self::on(&kubeconfig, Some(fake), Some(behaviour)).await
    }

    async fn on(kubeconfig: &str, fake: Option<FakeKubernetes>, behaviour: Option<Behaviour>) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let mut parsed: Kubeconfig = serde_json::from_str(kubeconfig).expect("a kubeconfig");
        let namespace = match &fake {
            Some(_) => fake_kubernetes::NAMESPACE.to_owned(),
            None => format!("swarm-test-{}", uuid::Uuid::now_v7().simple()),
        };
        for context in parsed.contexts.iter_mut().filter_map(|named| named.context.as_mut()) {
            context.namespace = Some(namespace.clone());
        }
        let text = serde_json::to_string(&parsed).expect("a kubeconfig is data");
        std::fs::write(directory.path().join("kubeconfig"), text).expect("the temporary directory is ours");
        let options = KubeConfigOptions::default();
        let mut config = Config::from_custom_kubeconfig(parsed, &options).await.expect("the kubeconfig is usable");
        config.headers.push((PLAYER_HEADER.parse().expect("a header"), "test".parse().expect("a value")));
        let client = Client::try_from(config).expect("the kubeconfig is usable");
        let metadata = json!({ "metadata": { "name": namespace } });
        let space: Namespace = serde_json::from_value(metadata).expect("a namespace");
        Api::all(client.clone()).create(&PostParams::default(), &space).await.expect("a namespace can be made");
        let players = behaviour.map(|behaviour| Players::start(client.clone(), &namespace, behaviour));
        let is_lent = fake.is_none();
        Self { client, namespace, fake, players, directory, is_lent }
    }

    /// The fake API server.
    pub(super) fn fake(&self) -> &FakeKubernetes {
        self.fake.as_ref().expect("this test was started on the fake")
    }

    /// The played controllers.
    pub(super) fn players(&self) -> &Players {
        self.players.as_ref().expect("this test plays the controllers itself")
    }

    /// Plays kubelets with real workers, beside the controllers of a real cluster.
    pub(super) fn kubelets(&self, workers: Processes) -> Players {
        Players::kubelets(self.client.clone(), &self.namespace, workers)
    }

    /// For `KUBECONFIG`.
    pub(super) fn kubeconfig(&self) -> PathBuf {
        self.directory.path().join("kubeconfig")
    }

    /// Objects of a kind in the namespace.
    pub(super) fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Makes an object out of JSON.
    pub(super) async fn create<K>(&self, object: Value) -> K
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + DeserializeOwned
            + serde::Serialize
            + std::fmt::Debug,
    {
        let object: K = serde_json::from_value(object).expect("the API's type takes it");
        self.api::<K>().create(&PostParams::default(), &object).await.expect("it can be made")
    }

    /// Makes the Deployment of a worker type, named as by default.
    pub(super) async fn deployment(&self, worker_type: &str, replicas: u32) {
        self.create::<Deployment>(workload(worker_type, replicas)).await;
    }

    /// Makes the StatefulSet of a worker type, named as by default.
    pub(super) async fn stateful_set(&self, worker_type: &str, replicas: u32) {
        let mut object = workload(worker_type, replicas);
        object["spec"]["serviceName"] = json!("workers");
        self.create::<StatefulSet>(object).await;
    }

    /// Makes the CronJob of a worker type, named as by default.
    pub(super) async fn cron_job(&self, worker_type: &str, suspend: bool) {
        let mut object = workload(worker_type, 0);
        let mut template = object["spec"]["template"].take();
        // As people write it who forget that the pods of a Job must not restart by themselves.
        template["spec"]["restartPolicy"] = json!("OnFailure");
        let job = json!({ "spec": { "backoffLimit": 6, "template": template } });
        object["spec"] = json!({ "schedule": "0 0 31 2 *", "suspend": suspend, "jobTemplate": job });
        self.create::<CronJob>(object).await;
    }

    /// The Jobs of a worker type.
    pub(super) async fn jobs(&self, worker_type: &str) -> Vec<Job> {
        let all = ListParams::default().labels(&format!("{LABEL}={worker_type}"));
        self.api::<Job>().list(&all).await.expect("jobs can be listed").items
    }

    /// Their names.
    pub(super) async fn job_names(&self, worker_type: &str) -> Vec<String> {
        let mut names: Vec<_> = self.jobs(worker_type).await.iter().map(ResourceExt::name_any).collect();
        names.sort();
        names
    }

    /// The pod of a Job.
    pub(super) async fn pod_of_job(&self, worker_type: &str, job: &str) -> String {
        let of_job = |pod: &&Pod| pod.owner_references().iter().any(|owner| owner.name == job);
        self.pods(worker_type).await.iter().find(of_job).expect("the job has a pod").name_any()
    }

    /// `spec.replicas` of a Deployment.
    pub(super) async fn replicas(&self, worker_type: &str) -> i32 {
        let object = self.api::<Deployment>().get(&name_of(worker_type)).await.expect("the deployment is there");
        object.spec.and_then(|spec| spec.replicas).unwrap_or(1)
    }

    /// Sets `spec.replicas` as `kubectl scale` would.
    pub(super) async fn scale_by_hand(&self, worker_type: &str, replicas: u32) {
        let params = PatchParams { field_manager: Some("kubectl".to_owned()), ..PatchParams::default() };
        let patch = Patch::Merge(json!({ "spec": { "replicas": replicas } }));
        self.api::<Deployment>().patch_scale(&name_of(worker_type), &params, &patch).await.expect("it scales");
    }

    /// The pods of a worker type that are not leaving.
    pub(super) async fn pods(&self, worker_type: &str) -> Vec<Pod> {
        let all = ListParams::default().labels(&format!("{LABEL}={worker_type}"));
        let all = self.api::<Pod>().list(&all).await.expect("pods can be listed");
        all.items.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).collect()
    }

    /// Their names.
    pub(super) async fn pod_names(&self, worker_type: &str) -> Vec<String> {
        let mut names: Vec<_> = self.pods(worker_type).await.iter().map(ResourceExt::name_any).collect();
        names.sort();
        names
    }

    /// Ends a pod that does not restart, with an exit code.
    pub(super) async fn end_pod(&self, name: &str, exit_code: i32) {
        let patch = Patch::Merge(json!({ "status": ended(exit_code) }));
        self.api::<Pod>().patch_status(name, &PatchParams::default(), &patch).await.expect("the pod is there");
    }

    /// The Events with this reason, by their notes.
    pub(super) async fn notes(&self, reason: &str) -> Vec<String> {
        let all = self.api::<Event>().list(&ListParams::default()).await.expect("events can be listed");
        let with_reason = all.items.into_iter().filter(|event| event.reason.as_deref() == Some(reason));
        with_reason.filter_map(|event| event.note).collect()
    }

    /// Waits for a condition.
    pub(super) async fn until(&self, what: &str, condition: impl AsyncFnMut() -> bool) {
        if eventually(DEADLINE, condition).await {
            return;
        }
        let pods = self.api::<Pod>().list(&ListParams::default()).await.map(|list| list.items);
        let requests = self.fake.as_ref().map(FakeKubernetes::requests);
        panic!("not within {DEADLINE:?}: {what}\n{pods:#?}\n{requests:?}");
    }

    /// Waits until a worker type has `count` pods that are not leaving.
    pub(super) async fn until_pods(&self, worker_type: &str, count: usize) -> Vec<String> {
        self.until(&format!("{count} pods"), async || self.pods(worker_type).await.len() == count).await;
        self.pod_names(worker_type).await
    }

    /// Removes what a lent cluster would keep.
    pub(super) async fn end(self) {
        if self.is_lent {
            let spaces: Api<Namespace> = Api::all(self.client.clone());
            let _ = spaces.delete(&self.namespace, &DeleteParams::default()).await;
        }
    }
}

/// The default name of a worker type's target.
pub(super) fn name_of(worker_type: &str) -> String {
    format!("discord-worker-{worker_type}")
}

fn workload(worker_type: &str, replicas: u32) -> Value {
    let labels = json!({ LABEL: worker_type });
    json!({
        "metadata": { "name": name_of(worker_type), "labels": labels },
        "spec": {
            "replicas": replicas,
            "selector": { "matchLabels": labels },
            "template": {
                "metadata": { "labels": labels },
                "spec": {
                    "terminationGracePeriodSeconds": 1,
                    "containers": [{ "name": "worker", "image": "registry.k8s.io/pause:3.10" }],
                },
            },
        },
    })
}

//! What is shipped, applied to a real control plane: the kustomize base, the Helm chart, and the rights that they
//! grant. Nodes are KWOK's, so the pods run nothing; an autoscaler of this build stands beside them, with the service
//! account of the manifests.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Command, Output},
};

use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, Config, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::bed::Bed;
use crate::support::{
    autoscaler::{Autoscaler, FAST_SWEEP},
    command::add_sleep,
    needs::repository,
    redis::RedisServer,
};

pub(super) const RESTRICTED: &str = "pod-security.kubernetes.io/enforce=restricted";

pub(super) fn run(variable: &str, arguments: &[&str]) -> Output {
    let program = std::env::var(variable).unwrap_or_else(|_| panic!("{variable} is not set: make test-kubernetes"));
    Command::new(program).args(arguments).output().expect("the program was built")
}

/// What a program prints.
///
/// # Panics
/// If it fails.
fn text(output: &Output, arguments: &[&str]) -> String {
    let (said, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{arguments:?}: {said}{error}");
    said.into_owned()
}

pub(super) fn kubectl(arguments: &[&str]) -> String {
    text(&run("SWARM_TEST_KUBECTL", arguments), arguments)
}

pub(super) fn helm(arguments: &[&str]) -> String {
    text(&run("SWARM_TEST_HELM", arguments), arguments)
}

pub(super) fn path(relative: &str) -> String {
    repository(relative).display().to_string()
}

/// The base with another namespace, as an overlay would have it.
pub(super) fn base_in(namespace: &str) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for file in fs::read_dir(repository("config/kubernetes")).unwrap().map(Result::unwrap) {
        if file.path().is_file() {
            let text = fs::read_to_string(file.path()).unwrap();
            let text = text.replace("\nnamespace: jobs\n", &format!("\nnamespace: {namespace}\n"));
            fs::write(copy.path().join(file.file_name()), text).unwrap();
        }
    }
    copy
}

/// A kubeconfig of a service account.
pub(super) fn kubeconfig_of(bed: &Bed, account: &str, directory: &Path) -> String {
    let token = kubectl(&["-n", &bed.namespace, "create", "token", account]);
    let mut config: Value = serde_saphyr::from_str(&fs::read_to_string(bed.kubeconfig()).unwrap()).unwrap();
    config["users"][0]["user"] = json!({ "token": token.trim() });
    let file = directory.join("service-account");
    fs::write(&file, config.to_string()).unwrap();
    file.display().to_string()
}

/// A client with the rights of a service account.
pub(super) async fn client_of(bed: &Bed, account: &str) -> Client {
    let directory = tempfile::tempdir().unwrap();
    let kubeconfig = Kubeconfig::read_from(kubeconfig_of(bed, account, directory.path())).unwrap();
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    Client::try_from(config).unwrap()
}

/// Publishes a job, and waits until the workload of `browser` has a pod.
async fn a_job_makes_a_pod(bed: &Bed, account: &str, target: &str) {
    let server = RedisServer::start();
    let client = server.client().await;
    let directory = tempfile::tempdir().unwrap();
    let kubeconfig = kubeconfig_of(bed, account, directory.path());
    let settings = format!(
        "[kubernetes]\nkubeconfig = \"{kubeconfig}\"\n{FAST_SWEEP}[worker_types.browser]\n\
         kubernetes = {{ name = \"{target}\" }}\nscaling = {{ min_workers = 0, max_workers = 2 }}\n"
    );
    let scaler = Autoscaler::start_with(&server.url(), &settings, &["--orchestrator", "kubernetes"]).await;
    scaler.until("it is ready", async || scaler.readyz().await.0).await;
    // A new Deployment has one replica, and there is no job: swarm lets it go. Its worker can't be asked, because there
    // is no container, so it is asked again until its drain timeout is over; a job comes first.
    add_sleep(&client, "browser", "one", 0.1).await;
    add_sleep(&client, "browser", "two", 0.1).await;
    bed.until("a pod is there", async || !bed.pods("browser").await.is_empty()).await;
    let note = "worker type `browser`: 1 → 2 replicas".to_owned();
    for number in 0..20 {
        add_sleep(&client, "browser", &number.to_string(), 0.1).await;
    }
    bed.until("it is scaled with the shipped rights", async || bed.notes("ScaledUp").await.contains(&note)).await;
    let log = scaler.log();
    assert!(!log.contains("no right"), "{log}");
}

#[tokio::test]
#[ignore = "run by make test-kubernetes"]
async fn the_kustomize_base_is_applied_and_its_rights_are_enough() {
    let bed = Bed::start_real().await;
    kubectl(&["label", "namespace", &bed.namespace, RESTRICTED]);
    let base = base_in(&bed.namespace);
    let applied = kubectl(&["apply", "--validate=strict", "-k", &base.path().display().to_string()]);
    assert!(applied.contains("deployment.apps/swarm-autoscaler created"), "{applied}");
    let ready = ["-n", &bed.namespace, "rollout", "status", "deployment", "--timeout=60s"];
    kubectl(&ready);
    a_job_makes_a_pod(&bed, "swarm-autoscaler", "discord-worker-browser").await;
    // Applied again, the count stays.
    let again = kubectl(&["apply", "-k", &base.path().display().to_string()]);
    assert!(again.contains("deployment.apps/discord-worker-browser unchanged"), "{again}");
    bed.end().await;
}

/// Objects by kind and name, with `swarm.toml` as data.
pub(super) fn objects(yaml: &str) -> BTreeMap<String, Value> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(yaml).unwrap_or_else(|error| panic!("{error}: {yaml}"));
    let named = documents.into_iter().filter(Value::is_object).map(|mut object| {
        if let Some(settings) = object.pointer("/data/swarm.toml").and_then(Value::as_str) {
            let settings: Value = toml::from_str(settings).unwrap_or_else(|error| panic!("{error}: {settings}"));
            object["data"]["swarm.toml"] = settings;
        }
        (format!("{} {}", object["kind"], object["metadata"]["name"]), object)
    });
    named.collect()
}

#[tokio::test]
#[ignore = "run by make test-kubernetes"]
async fn the_chart_renders_the_kustomize_base() {
    let (chart, values) = (path("config/helm/swarm"), path("config/helm/kustomize-values.yaml"));
    helm(&["lint", "--strict", &chart, "--values", &values]);
    let rendered = objects(&helm(&["template", "swarm", &chart, "--namespace", "jobs", "--values", &values]));
    let base = objects(&kubectl(&["kustomize", &path("config/kubernetes")]));
    assert_eq!(rendered.keys().collect::<Vec<_>>(), base.keys().collect::<Vec<_>>());
    for (name, object) in &base {
        assert_eq!(&rendered[name], object, "{name}");
    }
}

#[test]
#[ignore = "run by make test-kubernetes"]
fn the_chart_refuses_what_it_can_not_render() {
    let chart = path("config/helm/swarm");
    let registry = "image.registry=registry.example.com";
    for (arguments, why) in [
        (&["--set", "workerTypes.mail.repository=mail"][..], "set image.registry"),
        (&["--set", registry], "set workerTypes"),
        (&["--set", registry, "--set", "workerTypes.mail.replicas=3"], "replicas"),
        (&["--set", registry, "--set", "workerTypes.mail.kind=cron-job"], "kind"),
        (
            &["--set", registry, "--set", "workerTypes.mail.kind=job,workerTypes.mail.maxUnavailable=1"],
            "maxUnavailable",
        ),
        (&["--set", registry, "--set", "workerTypes.mail.ttlSecondsAfterFinished=60"], "ttlSecondsAfterFinished"),
        (
            &[
                "--set",
                registry,
                "--set",
                "workerTypes.mail.kind=job,fullnameOverride=a-long-name-of-a-release-as-some-people-have-it",
            ],
            "set workerTypes.mail.name",
        ),
    ] {
        let output = run("SWARM_TEST_HELM", &[&["template", "swarm", &chart], arguments].concat());
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(why), "{arguments:?}: {said}");
    }
}

#[tokio::test]
#[ignore = "run by make test-kubernetes"]
async fn the_chart_is_installed_and_upgraded_and_the_count_stays() {
    let bed = Bed::start_real().await;
    kubectl(&["label", "namespace", &bed.namespace, RESTRICTED]);
    let (chart, values) = (path("config/helm/swarm"), path("config/helm/kustomize-values.yaml"));
    let namespace = bed.namespace.clone();
    let upgrade = |more: &[&str]| {
        let install = ["upgrade", "--install", "swarm", &chart, "--namespace", &namespace, "--values", &values];
        helm(&[&install[..], more].concat())
    };
    let all = ["--set", "autoscaler.replicas=2", "--set", "lease=true", "--set", "monitoring.dashboards.enabled=true"];
    let policy = ["--set", "admissionPolicy.enabled=true"];
    upgrade(&[&all[..], &policy].concat());
    kubectl(&["-n", &namespace, "rollout", "status", "deployment/swarm-autoscaler", "--timeout=60s"]);
    a_job_makes_a_pod(&bed, "swarm-autoscaler", "discord-worker-browser").await;
    let count = bed.replicas("browser").await;
    upgrade(&[&all[..], &policy, &["--set", "workerTypes.browser.podAnnotations.team=web"]].concat());
    assert_eq!(bed.replicas("browser").await, count, "an upgrade must not reset the count");
    the_policy_holds(&bed).await;
    helm(&["uninstall", "swarm", "--namespace", &namespace]);
    bed.end().await;
}

/// What the ValidatingAdmissionPolicy lets the autoscaler do. `kubectl patch` reads the object first, which the shipped
/// rights do not allow, so the requests are the client library's.
async fn the_policy_holds(bed: &Bed) {
    let pods: Api<Pod> = Api::namespaced(client_of(bed, "swarm-autoscaler").await, &bed.namespace);
    let first = async |selector: &str| {
        let all = bed.api::<Pod>().list(&ListParams::default().labels(selector)).await.unwrap();
        all.items.first().unwrap_or_else(|| panic!("no pod {selector}")).name_any()
    };
    let worker = first("swarm/worker-type=browser").await;
    let own = first("app.kubernetes.io/component=autoscaler").await;
    let annotate = async |pod: &str, annotation: &str| {
        let patch = Patch::Merge(json!({ "metadata": { "annotations": { annotation: "-1" } } }));
        pods.patch(pod, &PatchParams::default(), &patch).await.map(drop)
    };
    let delete = async |pod: &str| pods.delete(pod, &DeleteParams::default()).await.map(drop);
    let cost = "controller.kubernetes.io/pod-deletion-cost";
    let only_labelled = "the autoscaler may change and delete only pods with the worker label";
    for (refused, why) in [
        (annotate(&worker, "team").await, "the autoscaler may change only its own annotations of pods"),
        (annotate(&own, cost).await, only_labelled),
        (delete(&own).await, only_labelled),
    ] {
        let error = refused.unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
    annotate(&worker, cost).await.unwrap();
    delete(&worker).await.unwrap();
}

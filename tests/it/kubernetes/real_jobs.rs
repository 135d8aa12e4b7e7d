//! `kind = "job"` on a real control plane: the shipped Role, template and settings, and the chart's. An autoscaler of
//! this build has the shipped service account; real workers stand in the pods, whose kubelets the test plays.

use std::{fs, path::Path};

use k8s_openapi::api::{
    batch::v1::{CronJob, Job},
    core::v1::{Pod, ResourceQuota},
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use swarm::{
    backend::{ErrorKind, Phase},
    config::TargetKind,
    model::snapshot::WorkerStatus,
};
use tempfile::TempDir;

use super::{
    Started, TYPE,
    bed::{Bed, name_of},
    kubelet::Processes,
    real_manifests::{RESTRICTED, base_in, client_of, helm, kubeconfig_of, kubectl, objects, path, run},
};
use crate::support::{
    autoscaler::{Autoscaler, FAST_SWEEP},
    command::{add_job, answers},
    gate::Gate,
    redis::RedisServer,
};

/// The worker type of the shipped example.
const REPORT: &str = "report";

/// The base with what `kind = "job"` needs: the files that `kustomization.yaml` names in comments, and the settings.
fn base_with_jobs(namespace: &str) -> TempDir {
    let base = base_in(namespace);
    let uncomment = |file: &str, from: &str, mark: &str, without: &str| {
        let file = base.path().join(file);
        let text = fs::read_to_string(&file).unwrap();
        let (before, after) = text.split_at(text.find(from).unwrap_or_else(|| panic!("`{from}` is not in {text}")));
        fs::write(file, format!("{before}{}", after.replace(mark, without))).unwrap();
    };
    uncomment("kustomization.yaml", "  # - jobs.yaml", "# - ", "- ");
    uncomment("swarm.toml", "# [worker_types.report]", "# ", "");
    base
}

/// Has the test play the kubelets of a template's pods.
async fn let_the_test_play(bed: &Bed, cron_job: &str) {
    let template = json!({ "metadata": { "labels": { "plays": "worker" } } });
    let patch = json!({ "spec": { "jobTemplate": { "spec": { "template": template } } } });
    bed.api::<CronJob>().patch(cron_job, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
}

/// Settings of an autoscaler with the shipped service account.
fn settings(bed: &Bed, cron_job: &str, min_workers: u32, worker: &str, directory: &Path) -> String {
    let kubeconfig = kubeconfig_of(bed, "swarm-autoscaler", directory);
    format!(
        "[kubernetes]\nkubeconfig = \"{kubeconfig}\"\n{FAST_SWEEP}[worker_types.{REPORT}]\n\
         kubernetes = {{ kind = \"job\", name = \"{cron_job}\" }}\n\
         scaling = {{ strategy = \"backlog\", jobs_per_worker = 1, min_workers = {min_workers}, max_workers = 3, \
         cooldown_seconds = 1, stabilization_window_seconds = 0 }}\n{worker}"
    )
}

async fn condition(bed: &Bed, name: &str) -> Option<String> {
    let jobs = bed.jobs(REPORT).await;
    let job = jobs.iter().find(|job| job.name_any() == name)?;
    let conditions = job.status.iter().filter_map(|status| status.conditions.as_ref()).flatten();
    let last = conditions.filter(|one| one.status == "True" && ["Complete", "Failed"].contains(&one.type_.as_str()));
    last.map(|one| one.type_.clone()).next()
}

/// Publishes two jobs and waits until each was done in a pod of its own; then lets an idle worker go.
async fn each_job_gets_a_pod(bed: &Bed, cron_job: &str) {
    let server = RedisServer::start();
    let client = server.client().await;
    let gate = Gate::new();
    let worker = format!("[worker_types.{REPORT}.worker]\nheartbeat_seconds = 1\nmax_jobs = 1\n{}\n", gate.exec());
    let _kubelets = bed.kubelets(Processes::new(&server.url(), &worker));
    let_the_test_play(bed, cron_job).await;
    let directory = tempfile::tempdir().unwrap();
    let with_minimum = |minimum| settings(bed, cron_job, minimum, &worker, directory.path());
    let scaler = Autoscaler::start_with(&server.url(), &with_minimum(0), &["--orchestrator", "kubernetes"]).await;
    scaler.until("it is ready", async || scaler.readyz().await.0).await;
    let ids = ["a", "b"];
    for id in ids {
        add_job(&client, REPORT, "wait", id).await;
    }
    let busy = async || scaler.of(REPORT).await.workers.iter().filter(|worker| worker.busy).count();
    scaler.until("both jobs run", async || busy().await == 2).await;
    let names = bed.job_names(REPORT).await;
    assert_eq!(names.len(), 2, "one for each job");
    assert!(names.iter().all(|name| name.starts_with(&format!("{cron_job}-"))), "{names:?}");
    gate.open();
    for id in ids {
        scaler.until("it is answered", async || answers(&client, id).await.len() == 1).await;
    }
    for name in &names {
        bed.until("its Job is complete", async || condition(bed, name).await.as_deref() == Some("Complete")).await;
    }
    scaler.until("no worker is left", async || scaler.of(REPORT).await.workers.is_empty()).await;
    assert_eq!(bed.job_names(REPORT).await, names, "finished Jobs stay until their TTL is over, and no other came");

    scaler.rewrite(&server.url(), &with_minimum(1));
    let idle =
        async || scaler.of(REPORT).await.workers.iter().filter(|worker| worker.status == WorkerStatus::Idle).count();
    scaler.until("one waits for a job", async || idle().await == 1).await;
    assert_eq!(bed.job_names(REPORT).await.len(), 3);
    scaler.rewrite(&server.url(), &with_minimum(0));
    bed.until("its Job is deleted", async || bed.job_names(REPORT).await == names).await;
    bed.until("its pod goes with it", async || bed.pods(REPORT).await.len() == 2).await;
    scaler.until("no worker is left", async || scaler.of(REPORT).await.workers.is_empty()).await;
    let log = scaler.log();
    assert!(!log.contains("no right") && scaler.of(REPORT).await.start_failures.is_none(), "{log}");
}

#[tokio::test]
#[ignore = "run by make test-kubernetes"]
async fn the_shipped_template_and_rights_are_enough_for_jobs() {
    let bed = Bed::start_real().await;
    kubectl(&["label", "namespace", &bed.namespace, RESTRICTED]);
    let base = base_with_jobs(&bed.namespace);
    let applied = kubectl(&["apply", "--validate=strict", "-k", &base.path().display().to_string()]);
    assert!(applied.contains("cronjob.batch/discord-worker-report created"), "{applied}");
    each_job_gets_a_pod(&bed, "discord-worker-report").await;
    bed.end().await;
}

#[tokio::test]
#[ignore = "run by make test-kubernetes"]
async fn the_chart_installs_what_jobs_need() {
    let bed = Bed::start_real().await;
    kubectl(&["label", "namespace", &bed.namespace, RESTRICTED]);
    let (chart, values) = (path("config/helm/swarm"), path("config/helm/kustomize-values.yaml"));
    let type_of_jobs = path("config/helm/kustomize-jobs-values.yaml");
    let install = ["upgrade", "--install", "swarm", &chart, "--namespace", &bed.namespace, "--values", &values];
    let with_policy = ["--values", &type_of_jobs, "--set", "admissionPolicy.enabled=true"];
    helm(&[&install[..], &with_policy].concat());
    each_job_gets_a_pod(&bed, "discord-worker-report").await;
    only_jobs_of_the_template_are_admitted(&bed, "discord-worker-report").await;
    let may_create = || {
        let account = format!("system:serviceaccount:{}:swarm-autoscaler", bed.namespace);
        let ask = ["-n", &bed.namespace, "auth", "can-i", "create", "jobs", "--as", &account];
        String::from_utf8(run("SWARM_TEST_KUBECTL", &ask).stdout).unwrap().trim().to_owned()
    };
    assert_eq!(may_create(), "yes");
    helm(&install);
    assert_eq!(may_create(), "no", "without a worker type of that kind the right is gone");
    helm(&["uninstall", "swarm", "--namespace", &bed.namespace]);
    bed.end().await;
}

/// What the ValidatingAdmissionPolicy lets the autoscaler create: whoever may create Jobs may otherwise run any pod.
async fn only_jobs_of_the_template_are_admitted(bed: &Bed, cron_job: &str) {
    let jobs: Api<Job> = Api::namespaced(client_of(bed, "swarm-autoscaler").await, &bed.namespace);
    let template = bed.api::<CronJob>().get(cron_job).await.unwrap().spec.unwrap().job_template;
    let labels = json!({ "swarm/cron-job": cron_job });
    let of_template = json!({ "metadata": { "name": "of-template", "labels": labels }, "spec": template.spec });
    let create = async |object: &Value| {
        let job: Job = serde_json::from_value(object.clone()).unwrap();
        jobs.create(&PostParams::default(), &job).await.map(drop)
    };
    let pod = "/spec/template/spec";
    let secret = json!({ "name": "tmp", "secret": { "secretName": "of-another" } });
    let other_labels = json!({ "swarm/cron-job": "another" });
    for (change, at, value, why) in [
        ("label", "/metadata/labels".to_owned(), other_labels, "only Jobs of a worker type"),
        ("image", format!("{pod}/containers/0/image"), json!("evil"), "containers of the Job's pod"),
        ("command", format!("{pod}/containers/0/args"), json!(["evil"]), "containers of the Job's pod"),
        ("variable", format!("{pod}/containers/0/env/0/name"), json!("LD_PRELOAD"), "containers of the Job's pod"),
        ("account", format!("{pod}/serviceAccountName"), json!("admin"), "serviceAccountName of the Job's pod"),
        ("volume", format!("{pod}/volumes/1"), secret, "volumes of the Job's pod"),
    ] {
        let mut changed = of_template.clone();
        *changed.pointer_mut(&at).unwrap_or_else(|| panic!("{at} is not in {of_template}")) = value;
        let error = create(&changed).await.expect_err(change).to_string();
        assert!(error.contains(why), "{change}: {error}");
    }
    create(&of_template).await.unwrap();
    jobs.delete("of-template", &DeleteParams::background()).await.unwrap();
    // A Job of another program.
    let foreign = json!({ "metadata": { "name": "foreign" }, "spec": of_template["spec"] });
    bed.create::<Job>(foreign).await;
    let error = jobs.delete("foreign", &DeleteParams::background()).await.unwrap_err().to_string();
    assert!(error.contains("only Jobs of a worker type"), "{error}");
}

#[test]
#[ignore = "run by make test-kubernetes"]
fn the_chart_renders_the_kustomize_base_with_jobs() {
    let (chart, values) = (path("config/helm/swarm"), path("config/helm/kustomize-values.yaml"));
    let (with_jobs, base) = (path("config/helm/kustomize-jobs-values.yaml"), base_with_jobs("jobs"));
    helm(&["lint", "--strict", &chart, "--values", &values, "--values", &with_jobs]);
    let template = ["template", "swarm", &chart, "--namespace", "jobs", "--values", &values, "--values", &with_jobs];
    let (rendered, base) =
        (objects(&helm(&template)), objects(&kubectl(&["kustomize", &base.path().display().to_string()])));
    assert_eq!(rendered.keys().collect::<Vec<_>>(), base.keys().collect::<Vec<_>>());
    for (name, object) in &base {
        assert_eq!(&rendered[name], object, "{name}");
    }
}

/// Three pods fit; the controller of Jobs says nothing in the status of the others.
#[tokio::test]
#[ignore = "run by make test-kubernetes"]
async fn jobs_without_a_pod_are_workers_that_wait() {
    let bed = Bed::start_real().await;
    bed.create::<ResourceQuota>(json!({ "metadata": { "name": "one" }, "spec": { "hard": { "pods": "1" } } })).await;
    bed.cron_job(TYPE, true).await;
    let started = Started::with(&bed, TargetKind::Job).await;
    let ids = started.scale(2, &[]).await.unwrap().started;
    bed.until("one is ready", async || started.in_phase(Phase::Ready).await.len() == 1).await;
    assert_eq!((started.live().await, started.scale(2, &[]).await.unwrap().started.len()), (2, 0));
    // The quota is for the other one as soon as the first has ended.
    let ready = started.in_phase(Phase::Ready).await.remove(0);
    bed.end_pod(&bed.pod_of_job(TYPE, &ready).await, 0).await;
    let other = ids.iter().map(ToString::to_string).find(|id| *id != ready).unwrap();
    bed.until("the other is ready", async || started.in_phase(Phase::Ready).await == [other.clone()]).await;
    assert_eq!(started.pool().await.unwrap().exits.len(), 1);
    started.end(bed).await;
}

/// As `kubectl delete pod`, an eviction or a lost node does.
#[tokio::test]
#[ignore = "run by make test-kubernetes"]
async fn a_worker_whose_pod_is_deleted_is_gone_and_gets_no_second_pod() {
    let bed = Bed::start_real().await;
    bed.cron_job(TYPE, true).await;
    let started = Started::with(&bed, TargetKind::Job).await;
    let id = started.scale(1, &[]).await.unwrap().started[0].to_string();
    bed.until("it is ready", async || started.in_phase(Phase::Ready).await.len() == 1).await;
    let pod = bed.pod_of_job(TYPE, &id).await;
    bed.api::<Pod>().delete(&pod, &DeleteParams::default()).await.unwrap();
    bed.until("the worker is gone", async || started.pool().await.unwrap().instances.is_empty()).await;
    assert_eq!(bed.job_names(TYPE).await, [id], "its Job stays, as a failed one");
    let next = started.scale(1, &[]).await.unwrap().started;
    bed.until("another is ready", async || started.in_phase(Phase::Ready).await == [next[0].to_string()]).await;
    started.end(bed).await;
}

#[tokio::test]
#[ignore = "run by make test-kubernetes"]
async fn after_pods_that_nodes_reject_no_more_jobs_are_made_for_a_while() {
    let bed = Bed::start_real().await;
    bed.cron_job(TYPE, true).await;
    let template = json!({ "metadata": { "labels": { "plays": "rejected" } } });
    let patch = Patch::Merge(json!({ "spec": { "jobTemplate": { "spec": { "template": template } } } }));
    let cron_jobs: Api<CronJob> = bed.api();
    cron_jobs.patch(&name_of(TYPE), &PatchParams::default(), &patch).await.unwrap();
    let started = Started::with(&bed, TargetKind::Job).await;
    started.scale(5, &[]).await.unwrap();
    bed.until("more are refused, with the reason", async || {
        let refused = started.scale(1, &[]).await;
        refused.is_err_and(|error| error.message.contains("OutOfcpu") && error.kind == ErrorKind::Retryable)
    })
    .await;
    let made = bed.job_names(TYPE).await.len();
    assert!((5..20).contains(&made), "{made} Jobs");
    started.end(bed).await;
}

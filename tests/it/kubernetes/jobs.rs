//! `kind = "job"`: each worker is a Job, made of a suspended CronJob's template. Against the fake API server and, where
//! a test needs no fault and no played controller, against a real one.

use std::time::Duration;

use k8s_openapi::api::{
    batch::v1::{CronJob, Job},
    core::v1::Pod,
};
use kube::{
    ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};
use swarm::{
    backend::{ErrorKind, Phase, ScalingBackend},
    config::TargetKind,
};

use super::{
    Started, TYPE,
    bed::{Bed, LABEL, name_of},
    controller::Behaviour,
    kubelet::Processes,
};
use crate::{
    fake_kubernetes::Fault,
    support::{
        autoscaler::{Autoscaler, FAST_SWEEP},
        command::{add_job, answers},
        gate::Gate,
        redis::RedisServer,
    },
};

async fn start() -> (Bed, Started) {
    start_on(Bed::start().await).await
}

/// For tests of faults, and of controllers that do what no cluster does.
async fn start_fake(behaviour: Behaviour) -> (Bed, Started) {
    start_on(Bed::start_fake(behaviour).await).await
}

async fn start_on(bed: Bed) -> (Bed, Started) {
    bed.cron_job(TYPE, true).await;
    let started = Started::with(&bed, TargetKind::Job).await;
    (bed, started)
}

/// Starts workers and waits until their pods are ready. Returns their ids.
async fn grow(bed: &Bed, started: &Started, target: u32) -> Vec<String> {
    let ids = started.scale(target, &[]).await.unwrap().started;
    bed.until("all are ready", async || started.in_phase(Phase::Ready).await.len() == target as usize).await;
    ids.iter().map(ToString::to_string).collect()
}

fn text<T: serde::Serialize>(object: &T) -> Value {
    serde_json::to_value(object).unwrap()
}

#[tokio::test]
async fn each_worker_is_a_job_of_one_pod_that_knows_its_id() {
    let (bed, started) = start().await;
    let ids = grow(&bed, &started, 2).await;
    let mut sorted = ids.clone();
    sorted.sort();
    assert_eq!(bed.job_names(TYPE).await, sorted);
    for job in bed.jobs(TYPE).await {
        let (id, job) = (job.name_any(), text(&job));
        assert!(id.starts_with(&format!("{}-", name_of(TYPE))), "{id}");
        for labels in [&job["metadata"]["labels"], &job["spec"]["template"]["metadata"]["labels"]] {
            assert_eq!((&labels[LABEL], &labels["swarm/worker-id"]), (&json!(TYPE), &json!(id)));
        }
        let spec = &job["spec"];
        assert_eq!((&spec["backoffLimit"], &spec["template"]["spec"]["restartPolicy"]), (&json!(0), &json!("Never")));
        let variables = &spec["template"]["spec"]["containers"][0]["env"];
        assert_eq!(*variables, json!([{ "name": "SWARM_WORKER_ID", "value": id }]));
    }
    bed.until("it is told", async || bed.notes("ScaledUp").await == ["worker type `browser`: 2 workers started"]).await;
    started.end(bed).await;
}

#[tokio::test]
async fn a_job_that_is_over_is_a_worker_less_and_stays_to_be_read() {
    let (bed, started) = start().await;
    let ids = grow(&bed, &started, 2).await;
    bed.end_pod(&bed.pod_of_job(TYPE, &ids[0]).await, 0).await;
    bed.until("one is left", async || started.pool().await.unwrap().instances.len() == 1).await;
    let pool = started.pool().await.unwrap();
    assert_eq!((pool.exits.len(), pool.exits[0].id.as_str(), pool.exits[0].success), (1, ids[0].as_str(), true));
    assert_eq!(started.scale(1, &[]).await.unwrap().started, []);
    assert_eq!(bed.job_names(TYPE).await.len(), 2, "swarm deletes no Job that is over");
    started.end(bed).await;
}

#[tokio::test]
async fn a_request_without_an_answer_makes_no_second_job() {
    for fault in [Fault::LoseAnswer, Fault::Cut] {
        let (bed, started) = start_fake(Behaviour::default()).await;
        bed.fake().disturb("create", "jobs", fault.clone());
        // A watch that tells of the Job would be an answer, too.
        bed.fake().hold_watches();
        let error = started.scale(2, &[]).await.unwrap_err();
        assert_eq!((error.kind, error.done.started.len()), (ErrorKind::Retryable, 0), "{error}");
        bed.until("the request is repeated", async || bed.fake().count("create", "jobs") == 2).await;
        bed.until("it is there", async || bed.job_names(TYPE).await.len() == 1).await;
        bed.fake().release_watches();
        assert_eq!(started.live().await, 1);
        assert_eq!(started.scale(2, &[]).await.unwrap().started.len(), 1);
        bed.until("both are ready", async || started.in_phase(Phase::Ready).await.len() == 2).await;
        let creations =
            bed.fake().requests().into_iter().filter(|one| (&*one.verb, &*one.resource) == ("create", "jobs"));
        let names: Vec<String> = creations.map(|one| one.name).collect();
        assert!(names[0] == names[1] && names[1] != names[2], "{fault:?}: {names:?}");
        assert_eq!(bed.job_names(TYPE).await.len(), 2, "{fault:?}");
        started.end(bed).await;
    }
}

#[tokio::test]
async fn a_requested_job_counts_before_the_watch_tells_of_it() {
    let (bed, started) = start_fake(Behaviour::default()).await;
    bed.fake().hold_watches();
    assert_eq!(started.scale(2, &[]).await.unwrap().started.len(), 2);
    assert_eq!((started.live().await, started.scale(2, &[]).await.unwrap().started.len()), (2, 0));
    bed.fake().release_watches();
    bed.until("both are ready", async || started.in_phase(Phase::Ready).await.len() == 2).await;
    assert_eq!(bed.job_names(TYPE).await.len(), 2);
    started.end(bed).await;
}

#[tokio::test]
async fn the_job_of_a_busy_worker_is_never_deleted_however_long_it_takes() {
    let (bed, started) = start().await;
    let ids = grow(&bed, &started, 2).await;
    let drain_timeout = Duration::from_millis(1);
    let report = started.scale_within(1, &[&ids[0]], drain_timeout).await.unwrap();
    assert_eq!(report.retired.len(), 1);
    // Its drain timeout has passed several times.
    bed.until("it is asked again", async || started.drains.asked().len() >= 3).await;
    assert!(started.drains.asked().iter().all(|id| *id == ids[0]));
    assert_eq!(bed.job_names(TYPE).await.len(), 2);
    started.drains.finish(&ids[0]);
    bed.until("it is gone", async || bed.job_names(TYPE).await == [ids[1].clone()]).await;
    bed.until("its pod too", async || started.pool().await.unwrap().instances.len() == 1).await;
    assert_eq!(started.pool().await.unwrap().exits, [], "it left because it was asked to");
    bed.until("it is told", async || bed.notes("ScaledDown").await.len() == 1).await;
    started.end(bed).await;
}

#[tokio::test]
async fn a_worker_that_is_to_leave_and_has_no_pod_is_asked_first() {
    let (bed, started) = start_fake(Behaviour { reconcile: false, ..Behaviour::default() }).await;
    let ids = started.scale(1, &[]).await.unwrap().started;
    bed.until("the watch tells of it", async || bed.job_names(TYPE).await.len() == 1).await;
    started.scale(0, &[ids[0].as_str()]).await.unwrap();
    assert_eq!(started.drains.asked(), [ids[0].to_string()], "a pod that comes meanwhile takes no job");
    started.drains.finish(ids[0].as_str());
    bed.until("it is gone", async || bed.job_names(TYPE).await.is_empty()).await;
    bed.until("nobody is left", async || started.pool().await.unwrap().instances.is_empty()).await;
    started.end(bed).await;
}

#[tokio::test]
async fn one_that_drains_returns_before_another_is_started() {
    let (bed, started) = start().await;
    let ids = grow(&bed, &started, 2).await;
    started.scale(1, &[&ids[0]]).await.unwrap();
    let report = started.scale(3, &[]).await.unwrap();
    assert_eq!((report.started.len(), report.started[0].as_str()), (2, ids[0].as_str()));
    assert_eq!(started.drains.cancelled(), [ids[0].clone()]);
    bed.until("three are ready", async || started.in_phase(Phase::Ready).await.len() == 3).await;
    // One that is replaced does not return.
    let report = started.scale(3, &[&ids[1]]).await.unwrap();
    assert_eq!((report.retired.len(), report.started.len()), (1, 1));
    assert_eq!(started.drains.cancelled().len(), 1);
    started.end(bed).await;
}

#[tokio::test]
async fn the_template_has_to_be_there_and_suspended() {
    let bed = Bed::start().await;
    let started = Started::with(&bed, TargetKind::Job).await;
    let missing = started.pool().await.unwrap_err();
    assert!(missing.message.starts_with("no cronjob `discord-worker-browser` carries the worker label"), "{missing}");
    bed.cron_job(TYPE, false).await;
    bed.until("it is seen", async || started.pool().await.is_ok()).await;
    let error = started.scale(1, &[]).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Permanent);
    assert!(error.message.contains("is not suspended") && error.message.contains("`spec.suspend: true`"), "{error}");
    assert!(bed.job_names(TYPE).await.is_empty() && started.pool().await.unwrap().instances.is_empty());
    let patch = Patch::Merge(json!({ "spec": { "suspend": true } }));
    bed.api::<CronJob>().patch(&name_of(TYPE), &PatchParams::default(), &patch).await.unwrap();
    assert_eq!(started.scale(1, &[]).await.unwrap().started.len(), 1);
    started.end(bed).await;
}

#[tokio::test]
async fn lacking_rights_are_named_with_their_role() {
    let bed = Bed::start_fake(Behaviour::default()).await;
    bed.cron_job(TYPE, true).await;
    bed.fake().deny("create", "jobs");
    let Err(error) = Started::try_on(&bed, TargetKind::Job).await else { panic!("it starts") };
    for part in ["`create` `jobs`", "config/kubernetes/jobs.yaml", "{apiGroups: [\"batch\"], resources: [\"jobs\"]"] {
        assert!(error.message.contains(part), "{error}");
    }
    bed.fake().allow_all();
    let started = Started::with(&bed, TargetKind::Job).await;
    bed.fake().deny("create", "jobs");
    let error = started.scale(1, &[]).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Permanent);
    assert!(error.message.contains("(config/kubernetes/jobs.yaml)"), "{error}");
    assert!(started.pool().await.unwrap().instances.is_empty(), "nobody is on the way");
    started.end(bed).await;
}

#[tokio::test]
async fn jobs_that_others_make_of_the_template_are_left_alone() {
    let (bed, started) = start().await;
    let template = bed.api::<CronJob>().get(&name_of(TYPE)).await.unwrap().spec.unwrap().job_template;
    // As `kubectl create job --from=cronjob/…`.
    let by_hand = json!({ "metadata": { "name": "by-hand", "labels": { LABEL: TYPE } }, "spec": template.spec });
    bed.create::<Job>(by_hand).await;
    bed.until_pods(TYPE, 1).await;
    assert_eq!(grow(&bed, &started, 1).await.len(), 1);
    assert_eq!(started.pool().await.unwrap().instances.len(), 1);
    for id in started.in_phase(Phase::Ready).await {
        started.drains.finish(&id);
    }
    started.backend.shutdown(true).await;
    assert_eq!(bed.job_names(TYPE).await, ["by-hand"]);
    bed.end().await;
}

#[tokio::test]
async fn after_rejected_pods_no_more_jobs_are_made_for_a_while() {
    let stuck =
        json!({ "phase": "Failed", "reason": "OutOfcpu", "message": "Pod was rejected: Node didn't have enough cpu" });
    let (bed, started) = start_fake(Behaviour { stuck: Some(stuck), ..Behaviour::default() }).await;
    started.scale(5, &[]).await.unwrap();
    let refused = async || {
        started
            .scale(1, &[])
            .await
            .is_err_and(|error| error.message.contains("OutOfcpu") && error.kind == ErrorKind::Retryable)
    };
    bed.until("more are refused, with the reason", refused).await;
    assert!(started.pool().await.unwrap().exits.is_empty(), "no worker has begun");
    started.end(bed).await;
}

#[tokio::test]
async fn a_new_leader_goes_on_with_the_jobs_that_are_there() {
    let (bed, started) = start().await;
    let ids = grow(&bed, &started, 2).await;
    started.backend.shutdown(false).await;
    let next = Started::with(&bed, TargetKind::Job).await;
    bed.until("both are seen", async || next.in_phase(Phase::Ready).await.len() == 2).await;
    assert_eq!(next.scale(2, &[]).await.unwrap().started.len(), 0);
    assert_eq!(bed.job_names(TYPE).await.len(), ids.len());
    next.end(bed).await;
}

/// The whole way: `swarm autoscaler` on a real Redis, with `swarm worker` processes that stand for the pods.
#[tokio::test]
async fn each_job_of_the_queue_gets_a_pod_of_its_own() {
    let server = RedisServer::start();
    let client = server.client().await;
    let gate = Gate::new();
    let worker = format!("[worker_types.{TYPE}.worker]\nheartbeat_seconds = 1\nmax_jobs = 1\n");
    let workers = Some(Processes::new(&server.url(), &format!("{worker}{}\n", gate.exec())));
    let bed = Bed::start_fake(Behaviour { workers, ..Behaviour::default() }).await;
    bed.cron_job(TYPE, true).await;
    let settings = format!(
        "[kubernetes]\nkubeconfig = \"{}\"\n{FAST_SWEEP}[worker_types.{TYPE}]\nkubernetes = {{ kind = \"job\" }}\n\
         scaling = {{ strategy = \"backlog\", jobs_per_worker = 1, max_workers = 3, cooldown_seconds = 1, \
         drain_timeout_seconds = 1 }}\n{worker}",
        bed.kubeconfig().display()
    );
    let scaler = Autoscaler::start_with(&server.url(), &settings, &["--orchestrator", "kubernetes"]).await;
    scaler.until("it is ready", async || scaler.readyz().await.0).await;
    let ids = ["a", "b"];
    for id in ids {
        add_job(&client, TYPE, "wait", id).await;
    }
    let busy = async || scaler.of(TYPE).await.workers.iter().filter(|worker| worker.busy).count();
    scaler.until("both jobs run", async || busy().await == 2).await;
    scaler.until_evaluated(TYPE, 3).await;
    assert_eq!(bed.job_names(TYPE).await.len(), 2, "nobody is started for jobs that run");
    gate.open();
    for id in ids {
        scaler.until("it is answered", async || answers(&client, id).await.len() == 1).await;
    }
    let completed = async || {
        let jobs = bed.jobs(TYPE).await;
        jobs.iter().all(|job| text(job)["status"]["conditions"][0]["type"] == "Complete")
    };
    bed.until("their Jobs are complete", completed).await;
    scaler.until("no worker is left", async || scaler.of(TYPE).await.workers.is_empty()).await;
    assert_eq!((bed.fake().count("delete", "jobs"), scaler.of(TYPE).await.start_failures.is_none()), (0, true));
    let pods: Vec<Pod> = bed.pods(TYPE).await;
    assert!(pods.iter().all(|pod| pod.status.as_ref().unwrap().phase.as_deref() == Some("Succeeded")), "{pods:#?}");
}

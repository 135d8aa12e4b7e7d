//! The whole way: the real `swarm autoscaler --orchestrator kubernetes` on a real Redis, with `swarm worker` processes
//! that stand for the pods.

use std::{process::Stdio, time::Duration};

use fred::prelude::Client;

use super::{TYPE, bed::Bed, controller::Behaviour, kubelet::Processes};
use crate::{
    fake_kubernetes::Fault,
    support::{
        autoscaler::{Autoscaler, FAST_SWEEP, swarm},
        command::{add_sleep, answers, records, redis},
        redis::RedisServer,
    },
};

/// Settings of the autoscaler and its workers. Three jobs are a worker; with none waiting, all but the busy may go.
fn settings(bed: &Bed) -> String {
    format!(
        "[kubernetes]\nkubeconfig = \"{}\"\n{FAST_SWEEP}[worker_types.{TYPE}]\n\
         worker = {{ heartbeat_seconds = 1 }}\n\
         scaling = {{ min_workers = 0, max_workers = 3, scale_up_threshold = 2, scale_down_threshold = 1, \
         activation_threshold = 2, cooldown_seconds = 1, drain_timeout_seconds = 3 }}\n",
        bed.kubeconfig().display()
    )
}

async fn all_answered(client: &Client, ids: &[String]) -> bool {
    for id in ids {
        if answers(client, id).await.len() != 1 {
            return false;
        }
    }
    true
}

#[tokio::test]
async fn jobs_make_pods_and_no_job_is_lost_when_they_leave() {
    let server = RedisServer::start();
    let client = server.client().await;
    let directory = tempfile::tempdir().unwrap();
    let end = directory.path().join("end");
    let program = serde_json::json!(format!("while [ ! -e {} ]; do sleep 0.05; done", end.display()));
    let worker = format!("[worker_types.{TYPE}.worker]\nheartbeat_seconds = 1\nexec = [\"sh\", \"-c\", {program}]\n");
    let workers = Some(Processes::new(&server.url(), &worker));
    let bed = Bed::start_fake(Behaviour { workers, ..Behaviour::default() }).await;
    bed.deployment(TYPE, 0).await;
    let scaler = Autoscaler::start_with(&server.url(), &settings(&bed), &["--orchestrator", "kubernetes"]).await;
    scaler.until("it is ready", async || scaler.readyz().await.0).await;

    // As long as the test says.
    let long = format!(r#"{{"id":"long","type":"{TYPE}.wait","args":[],"kwargs":{{}},"reply_to":"result:long"}}"#);
    let _: String = redis(&client, &format!("XADD {TYPE}:jobs * json {long}")).await;
    let short: Vec<String> = (0..5).map(|number| format!("short-{number}")).collect();
    for id in &short {
        add_sleep(&client, TYPE, id, 0.2).await;
    }
    bed.until("there are three pods", async || bed.pods(TYPE).await.len() == 3).await;
    scaler.until("the short jobs are answered", async || all_answered(&client, &short).await).await;
    bed.until("the idle ones have left", async || bed.pods(TYPE).await.len() == 1).await;
    assert_eq!(answers(&client, "long").await.len(), 0, "the busy one works on");
    std::fs::write(&end, "").unwrap();
    scaler.until("the long job is answered", async || answers(&client, "long").await.len() == 1).await;
    bed.until("nobody is left", async || bed.replicas(TYPE).await == 0 && bed.pods(TYPE).await.is_empty()).await;
    assert_eq!(answers(&client, "long").await.len(), 1, "it was done once");
    scaler
        .until("every change is recorded", async || {
            let records = records(&client, TYPE).await;
            let downs = records.iter().filter(|record| record["decision"] == "scale_down").count();
            downs >= 2 && records.iter().all(|record| record["outcome"] == "done")
        })
        .await;
    bed.until("events tell of it", async || bed.notes("ScaledDown").await.len() >= 2).await;
}

#[tokio::test]
async fn a_refusal_counts_and_shows() {
    let server = RedisServer::start();
    let client = server.client().await;
    let bed = Bed::start_fake(Behaviour::default()).await;
    bed.deployment(TYPE, 0).await;
    bed.fake().install_keda();
    bed.fake().put(
        "keda.sh",
        "scaledobjects",
        &serde_json::json!({
            "apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": { "name": "by-queue" },
            "spec": { "scaleTargetRef": { "name": super::bed::name_of(TYPE) } },
        }),
    );
    let scaler = Autoscaler::start_with(&server.url(), &settings(&bed), &["--orchestrator", "kubernetes"]).await;
    for number in 0..4 {
        add_sleep(&client, TYPE, &number.to_string(), 0.1).await;
    }
    let series = format!("swarm_backend_refusals_total{{worker_type=\"{TYPE}\",rival=\"scaled_object\"}}");
    scaler.until("it is counted", async || scaler.metric(&series).await >= 1.0).await;
    scaler
        .until("it is shown", async || {
            let shown = scaler.of(TYPE).await;
            shown.backend_error.as_ref().is_some_and(|error| error.contains("KEDA ScaledObject `by-queue`"))
        })
        .await;
    assert_eq!(bed.replicas(TYPE).await, 0);
}

#[tokio::test]
async fn pods_that_can_not_start_are_shown_with_their_reason_and_left_alone() {
    let server = RedisServer::start();
    let client = server.client().await;
    let message = "pull access denied, repository does not exist";
    let waiting = serde_json::json!({ "waiting": { "reason": "ErrImagePull", "message": message } });
    let stuck = serde_json::json!({ "phase": "Pending", "containerStatuses": [{
        "name": "worker", "ready": false, "restartCount": 0, "image": "web:2", "imageID": "", "state": waiting,
    }] });
    let bed = Bed::start_fake(Behaviour { stuck: Some(stuck), ..Behaviour::default() }).await;
    bed.deployment(TYPE, 0).await;
    let settings = settings(&bed).replace("cooldown_seconds = 1", "cooldown_seconds = 1, start_grace_seconds = 1");
    let scaler = Autoscaler::start_with(&server.url(), &settings, &["--orchestrator", "kubernetes"]).await;
    for number in 0..4 {
        add_sleep(&client, TYPE, &number.to_string(), 0.1).await;
    }
    let pods = bed.until_pods(TYPE, 2).await;
    let shown = format!("2 blocked: ErrImagePull: {message}");
    scaler
        .until("the reason is shown", async || {
            scaler.of(TYPE).await.reasons.iter().any(|reason| reason.contains(&shown))
        })
        .await;
    let ups = async || records(&client, TYPE).await.iter().filter(|record| record["decision"] == "scale_up").count();
    // A record may come later than what it tells of is shown.
    let recorded = async || records(&client, TYPE).await.last().is_some_and(|record| record["to_count"] == "2");
    scaler.until("the start is recorded", recorded).await;
    let before = ups().await;
    let started = std::time::Instant::now();
    scaler.until("their grace is over thrice", async || started.elapsed() >= Duration::from_secs(3)).await;
    assert_eq!(bed.pod_names(TYPE).await, pods, "nobody was deleted to be made again");
    assert_eq!(bed.fake().count("delete", "pods"), 0);
    assert_eq!(ups().await, before, "nothing is decided again");
    assert!(scaler.of(TYPE).await.reasons.iter().any(|reason| reason.contains(&shown)), "it is shown still");
}

#[tokio::test]
async fn an_outage_of_the_api_server_is_logged_at_its_beginning_and_at_its_end() {
    let server = RedisServer::start();
    let client = server.client().await;
    let bed = Bed::start_fake(Behaviour::default()).await;
    bed.deployment(TYPE, 0).await;
    let scaler = Autoscaler::start_with(&server.url(), &settings(&bed), &["--orchestrator", "kubernetes"]).await;
    scaler.until("it is ready", async || scaler.readyz().await.0).await;
    let failures = async || {
        let all =
            ["pods", "deployments"].map(|what| format!("swarm_kubernetes_watch_failures_total{{watched=\"{what}\"}}"));
        scaler.metric(&all[0]).await + scaler.metric(&all[1]).await
    };
    let before = failures().await;
    bed.fake().set_down(true);
    // Work arrives meanwhile: it makes the autoscaler look, again and again.
    add_sleep(&client, TYPE, "job", 0.1).await;
    scaler.until("both watches have failed several times", async || failures().await >= before + 6.0).await;
    bed.fake().set_down(false);
    scaler.until_logged("backend answers again").await;

    let log = scaler.log();
    let shown = |line: &&str| !line.contains(" DEBUG ");
    let lines = |text: &str| log.lines().filter(shown).filter(|line| line.contains(text)).count();
    let unknown = |line: &&str| line.contains("backend failed") && line.contains("observe");
    assert_eq!((log.lines().filter(unknown).count(), lines("backend answers again")), (1, 1), "{log}");
    assert_eq!((lines("failed with error"), lines("watch broke"), lines("kube_client")), (0, 0, 0), "{log}");
}

#[tokio::test]
async fn a_decision_that_can_not_be_carried_out_is_logged_once() {
    let server = RedisServer::start();
    let client = server.client().await;
    let bed = Bed::start_fake(Behaviour::default()).await;
    bed.deployment(TYPE, 0).await;
    for _ in 0..3 {
        let fault = Fault::Status { code: 500, message: "etcdserver: request timed out", retry_after: None };
        bed.fake().disturb("patch", "deployments/scale", fault);
    }
    // Before the start, so that they are one decision.
    for number in 0..4 {
        add_sleep(&client, TYPE, &number.to_string(), 0.1).await;
    }
    let scaler = Autoscaler::start_with(&server.url(), &settings(&bed), &["--orchestrator", "kubernetes"]).await;
    bed.until("the fourth attempt succeeds", async || bed.replicas(TYPE).await == 2).await;
    scaler
        .until("the failures are recorded", async || {
            let records = records(&client, TYPE).await;
            records.iter().filter(|record| record["outcome"] == "failed").count() >= 3
        })
        .await;
    let log = scaler.log();
    let lines = |text: &str| log.lines().filter(|line| !line.contains(" DEBUG ") && line.contains(text)).count();
    assert_eq!((lines("scale up 0 → 2"), lines("backend failed")), (1, 1), "{log}");
}

#[tokio::test]
async fn a_scaler_without_rights_says_which_and_ends() {
    let server = RedisServer::start();
    let bed = Bed::start_fake(Behaviour::default()).await;
    bed.fake().deny("patch", "deployments/scale");
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("swarm.toml");
    std::fs::write(&file, format!("redis_url = \"{}\"\n{}", server.url(), settings(&bed))).unwrap();
    let mut command = swarm(directory.path());
    command.args(["autoscaler", "--orchestrator", "kubernetes", "--config"]).arg(&file).stdin(Stdio::null());
    let ended = tokio::process::Command::from(command).output();
    let output = tokio::time::timeout(crate::support::wait::DEADLINE, ended).await.expect("it ends").unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success());
    assert!(said.contains("no right in namespace `jobs` to `patch` `deployments/scale`"), "{said}");
    let rule = "{apiGroups: [\"apps\"], resources: [\"deployments/scale\"], verbs: [\"patch\"]}";
    assert!(said.contains(rule), "{said}");
}

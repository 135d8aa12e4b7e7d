//! `config/kubernetes/`: what `kind = "job"` needs besides the base: the rights to make Jobs, which are a Role of their
//! own, and an example worker type.

use std::{collections::BTreeSet, fs};

use k8s_openapi::api::{
    batch::v1::CronJob,
    rbac::v1::{Role, RoleBinding},
};
use serde_json::json;
use swarm::{
    backend::{
        Phase,
        kubernetes::{Right, needed},
    },
    config::{KubernetesSettings, TargetKind},
};

use super::{
    Started, TYPE,
    bed::Bed,
    controller::Behaviour,
    manifests::{Rights, documents, dropped, granted, object},
};
use crate::support::needs::repository;

#[test]
fn the_rights_for_jobs_are_a_role_of_their_own() {
    let [role, binding] = &documents("jobs.yaml")[..] else { panic!("a role and its binding") };
    assert_eq!((dropped::<Role>(role), dropped::<RoleBinding>(binding)), (Vec::new(), Vec::new()));
    assert_eq!(binding["roleRef"]["name"], role["metadata"]["name"]);
    assert_eq!(binding["subjects"], object("RoleBinding", "swarm-autoscaler")["subjects"]);
    let rights = |kinds: &[TargetKind]| -> Rights {
        let named = |right: &Right| (right.group.to_owned(), right.resource.to_owned(), right.verb.to_owned());
        let kinds: BTreeSet<TargetKind> = kinds.iter().copied().collect();
        needed(&kinds, false).iter().map(named).collect()
    };
    let (of_base, of_jobs) = (granted(&object("Role", "swarm-autoscaler")), granted(role));
    assert!(of_base.is_disjoint(&of_jobs));
    let all = rights(&[TargetKind::Deployment, TargetKind::StatefulSet, TargetKind::Job]);
    assert_eq!(of_base.union(&of_jobs).cloned().collect::<Rights>(), all);
    let may = |resource: &str, verb: &str| {
        rights(&[TargetKind::Job]).iter().any(|(_, of, what)| of == resource && what == verb)
    };
    assert!(!may("pods", "delete") && !may("pods", "patch"), "with Jobs alone, no pod is touched");
}

/// Does everything that the backend ever does with Jobs, and compares the rights that it took.
#[tokio::test]
async fn the_rights_granted_for_jobs_are_those_used() {
    let bed = Bed::start_fake(Behaviour::default()).await;
    bed.cron_job(TYPE, true).await;
    let started = Started::with(&bed, TargetKind::Job).await;
    let ids = started.scale(2, &[]).await.unwrap().started;
    bed.until("both are ready", async || started.in_phase(Phase::Ready).await.len() == 2).await;
    started.scale(1, &[ids[0].as_str()]).await.unwrap();
    started.drains.finish(ids[0].as_str());
    bed.until("one is left", async || bed.job_names(TYPE).await == [ids[1].to_string()]).await;
    bed.until("events are written", async || bed.fake().count("create", "events") == 2).await;
    let requests = bed.fake().requests();
    started.end(bed).await;
    let of_batch = requests.into_iter().filter(|request| request.group == "batch");
    let used: Rights = of_batch.map(|request| (request.group, request.resource, request.verb)).collect();
    assert_eq!(granted(&documents("jobs.yaml")[0]), used);
}

#[test]
fn the_example_is_a_suspended_cron_job_whose_settings_are_in_the_configuration() {
    let [example] = &documents("worker-report.yaml")[..] else { panic!("one object") };
    assert_eq!(dropped::<CronJob>(example), Vec::<String>::new());
    assert_eq!(example["spec"]["suspend"], true);
    let label = KubernetesSettings::default().label;
    assert_eq!(example["metadata"]["labels"][&label], "report");
    let pod = &example["spec"]["jobTemplate"]["spec"]["template"]["spec"];
    assert_eq!((&pod["restartPolicy"], &pod["automountServiceAccountToken"]), (&json!("Never"), &json!(false)));
    assert_eq!(pod["serviceAccountName"], "swarm-worker");
    // The settings are comments, like the files in the base.
    let settings = fs::read_to_string(repository("config/kubernetes/swarm.toml")).unwrap();
    let commented = settings.lines().skip_while(|line| !line.starts_with("# [worker_types.report]"));
    let uncommented = commented.map(|line| line.trim_start_matches("# ")).collect::<Vec<_>>().join("\n");
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("swarm.toml");
    fs::write(&file, format!("orchestrator = \"kubernetes\"\n{uncommented}")).unwrap();
    let flags = swarm::config::Flags { config: Some(file), ..swarm::config::Flags::default() };
    let loaded = swarm::config::load(&flags, &|_| None).expect("the settings are valid");
    assert_eq!(loaded.warnings, Vec::<String>::new());
    let of = &loaded.settings.worker_types["report"];
    assert_eq!((of.kubernetes.kind, of.worker.max_jobs), (TargetKind::Job, Some(1)));
    assert_eq!(example["metadata"]["name"], of.kubernetes.name("report"));
    let base = fs::read_to_string(repository("config/kubernetes/kustomization.yaml")).unwrap();
    assert!(base.contains("# - jobs.yaml") && base.contains("# - worker-report.yaml"), "{base}");
}

//! Makes a Job of the CronJob that is its template. Pure.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        batch::v1::{CronJob, Job},
        core::v1::{Container, EnvVar},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use crate::{
    backend::{BackendError, kubernetes::spec::TargetSpec},
    model::{WorkerId, WorkerType},
};

/// Label of our Jobs and their pods whose value is the name of the CronJob.
pub(in crate::backend::kubernetes) const CRON_JOB_LABEL: &str = "swarm/cron-job";

/// Label of our Jobs and their pods whose value is the worker's id.
const WORKER_ID_LABEL: &str = "swarm/worker-id";

/// Variable in which a worker gets its id.
const WORKER_ID_VARIABLE: &str = "SWARM_WORKER_ID";

/// How long a finished Job stays if the template does not say: long enough to read its log.
const FINISHED_TTL_SECONDS: i32 = 600;

/// Letters and digits of a worker's id after the name of the CronJob. That name has at most 52 characters, and a Job's
/// at most 63.
const ID_DIGITS: usize = 10;

/// Returns an id that no worker of the CronJob has had.
pub(in crate::backend::kubernetes) fn new_id(cron_job: &str) -> WorkerId {
    let uuid = uuid::Uuid::now_v7().simple().to_string();
    WorkerId::new(format!("{cron_job}-{}", &uuid[uuid.len() - ID_DIGITS..]))
}

/// Returns why no Job may be made of this CronJob; `None` if one may.
pub(in crate::backend::kubernetes) fn refusal(spec: &TargetSpec, cron_job: &CronJob) -> Option<BackendError> {
    let is_suspended = cron_job.spec.as_ref().is_some_and(|spec| spec.suspend == Some(true));
    (!is_suspended).then(|| {
        BackendError::permanent(format!(
            "{} is not suspended, so Kubernetes would start pods of it on its schedule, which are no workers of swarm; set \
             `spec.suspend: true`",
            spec.shown()
        ))
    })
}

/// Returns the Job of one worker: the template, with the labels and the id of the worker. The Job has one pod, and that
/// pod one try. A second one would be another process with the same worker id; swarm starts another worker instead.
pub(in crate::backend::kubernetes) fn job(
    cron_job: &CronJob,
    worker_type: &WorkerType,
    label: &str,
    id: &WorkerId,
) -> Job {
    let template = cron_job.spec.as_ref().map(|spec| spec.job_template.clone()).unwrap_or_default();
    let cron_job = cron_job.metadata.name.clone().unwrap_or_default();
    let own = [
        (label.to_owned(), worker_type.to_string()),
        (CRON_JOB_LABEL.to_owned(), cron_job),
        (WORKER_ID_LABEL.to_owned(), id.to_string()),
    ];
    let labelled = |labels: Option<BTreeMap<String, String>>| {
        let mut labels = labels.unwrap_or_default();
        labels.extend(own.iter().cloned());
        Some(labels)
    };
    let metadata = template.metadata.unwrap_or_default();
    let mut spec = template.spec.unwrap_or_default();
    (spec.parallelism, spec.completions, spec.backoff_limit) = (Some(1), Some(1), Some(0));
    (spec.backoff_limit_per_index, spec.max_failed_indexes) = (None, None);
    (spec.selector, spec.manual_selector) = (None, None);
    spec.ttl_seconds_after_finished.get_or_insert(FINISHED_TTL_SECONDS);
    let of_pod = spec.template.metadata.get_or_insert_default();
    of_pod.labels = labelled(of_pod.labels.take());
    let pod = spec.template.spec.get_or_insert_default();
    pod.restart_policy = Some("Never".to_owned());
    pod.containers.iter_mut().for_each(|container| name_worker(container, id));
    Job {
        metadata: ObjectMeta {
            name: Some(id.to_string()),
            labels: labelled(metadata.labels),
            annotations: metadata.annotations,
            ..ObjectMeta::default()
        },
        spec: Some(spec),
        status: None,
    }
}

/// Sets the variable with the worker's id, before those that may refer to it.
fn name_worker(container: &mut Container, id: &WorkerId) {
    let variables = container.env.get_or_insert_default();
    variables.retain(|variable| variable.name != WORKER_ID_VARIABLE);
    let variable = EnvVar { name: WORKER_ID_VARIABLE.to_owned(), value: Some(id.to_string()), value_from: None };
    variables.insert(0, variable);
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::config::TargetKind;

    fn cron_job(suspend: bool, job: &Value) -> CronJob {
        let mut template = json!({ "spec": { "template": { "spec": { "containers": [{ "name": "worker" }] } } } });
        for (key, value) in job.as_object().expect("fields of a Job") {
            template["spec"][key] = value.clone();
        }
        template["metadata"] = json!({ "labels": { "team": "video" }, "annotations": { "a": "b" } });
        let spec = json!({ "schedule": "0 0 1 1 *", "suspend": suspend, "jobTemplate": template });
        serde_json::from_value(json!({ "metadata": { "name": "video" }, "spec": spec }))
            .expect("the API's type takes it")
    }

    fn made(job: &Value) -> Value {
        let id = WorkerId::new("video-1");
        let job = super::job(&cron_job(true, job), &WorkerType::new("video"), "swarm/worker-type", &id);
        serde_json::to_value(job).expect("it is data")
    }

    #[test]
    fn a_job_has_the_labels_and_the_id_of_its_worker_and_the_rest_of_the_template() {
        let containers = json!([
            { "name": "worker", "env": [{ "name": "A", "value": "1" }, { "name": "SWARM_WORKER_ID", "value": "x" }] },
            { "name": "sidecar" },
        ]);
        let job = made(
            &json!({ "template": { "metadata": { "labels": { "x": "y" } }, "spec": { "containers": containers } } }),
        );
        let own = json!({ "swarm/worker-type": "video", "swarm/cron-job": "video", "swarm/worker-id": "video-1" });
        for (labels, other) in [
            (&job["metadata"]["labels"], json!({ "team": "video" })),
            (&job["spec"]["template"]["metadata"]["labels"], json!({ "x": "y" })),
        ] {
            let mut expected = own.clone();
            expected.as_object_mut().unwrap().extend(other.as_object().unwrap().clone());
            assert_eq!(*labels, expected);
        }
        assert_eq!(job["metadata"]["annotations"], json!({ "a": "b" }));
        let id = json!({ "name": "SWARM_WORKER_ID", "value": "video-1" });
        let pod = &job["spec"]["template"]["spec"];
        assert_eq!(pod["containers"][0]["env"], json!([id, { "name": "A", "value": "1" }]));
        assert_eq!(pod["containers"][1]["env"], json!([id]));
    }

    #[test]
    fn a_job_is_one_try_of_one_pod_and_goes_when_it_is_over() {
        let job = made(&json!({ "backoffLimit": 6, "parallelism": 3, "completions": 3, "manualSelector": true }));
        let spec = &job["spec"];
        assert_eq!(
            (&spec["parallelism"], &spec["completions"], &spec["backoffLimit"]),
            (&json!(1), &json!(1), &json!(0))
        );
        assert_eq!(
            (&spec["manualSelector"], &spec["template"]["spec"]["restartPolicy"]),
            (&Value::Null, &json!("Never"))
        );
        assert_eq!(spec["ttlSecondsAfterFinished"], FINISHED_TTL_SECONDS);
        assert_eq!(made(&json!({ "ttlSecondsAfterFinished": 5 }))["spec"]["ttlSecondsAfterFinished"], 5);
    }

    #[test]
    fn the_name_of_a_job_fits_and_is_new_each_time() {
        let longest = "c".repeat(52);
        let [one, other] = [new_id(&longest), new_id(&longest)];
        assert!(one != other && one.as_str().len() == 63, "{one}");
    }

    #[test]
    fn a_template_that_starts_pods_by_itself_is_refused() {
        let spec = TargetSpec {
            name: "video".to_owned(),
            kind: TargetKind::Job,
            drains: true,
            drain_timeout: std::time::Duration::ZERO,
        };
        assert!(refusal(&spec, &cron_job(true, &json!({}))).is_none());
        let error = refusal(&spec, &cron_job(false, &json!({}))).unwrap();
        assert!(error.message.starts_with("cronjob `video` is not suspended"), "{error}");
    }
}

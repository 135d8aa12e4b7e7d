//! Whether the API server takes a new Job, as `pkg/apis/batch/validation` and `pkg/apis/core/validation` of Kubernetes
//! say: the parts that a scaler can get wrong.

use k8s_openapi::api::batch::v1::Job;
use serde_json::Value;

use super::world::Refusal;

/// Maximum length of a Job's name, which becomes a label of its pods, and of any label's value.
const MAX_LABEL: usize = 63;

/// Refuses an invalid Job.
pub(super) fn admit(object: &Value) -> Result<(), Refusal> {
    let job: Job = serde_json::from_value(object.clone()).map_err(|error| {
        Refusal::new(400, "BadRequest", format!("Job in version \"v1\" cannot be handled: {error}"))
    })?;
    let name = job.metadata.name.as_deref().unwrap_or_default();
    let invalid = |field: &str, why: &str| {
        Err(Refusal::new(422, "Invalid", format!("Job.batch \"{name}\" is invalid: {field}: {why}")))
    };
    if !(1..=MAX_LABEL).contains(&name.len()) {
        return invalid("metadata.name", "must be no more than 63 characters");
    }
    let Some(spec) = &job.spec else { return invalid("spec", "Required value") };
    if spec.selector.is_some() && spec.manual_selector != Some(true) {
        return invalid("spec.selector", "`selector` not auto-generated");
    }
    let of_pod = spec.template.metadata.as_ref();
    let labels = [job.metadata.labels.as_ref(), of_pod.and_then(|metadata| metadata.labels.as_ref())];
    if let Some((key, _)) = labels.into_iter().flatten().flatten().find(|(_, value)| value.len() > MAX_LABEL) {
        return invalid("metadata.labels", &format!("{key}: must be no more than 63 characters"));
    }
    let Some(pod) = &spec.template.spec else { return invalid("spec.template.spec", "Required value") };
    if pod.containers.is_empty() {
        return invalid("spec.template.spec.containers", "Required value");
    }
    // A pod's own default, `Always`, is none of a Job.
    match pod.restart_policy.as_deref() {
        Some("OnFailure" | "Never") => Ok(()),
        _ => invalid("spec.template.spec.restartPolicy", "Required value: valid values: \"OnFailure\", \"Never\""),
    }
}

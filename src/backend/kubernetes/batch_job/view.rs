//! The fields of Jobs that scaling needs, extracted from the API's objects. Pure.

use k8s_openapi::api::batch::v1::Job as ApiJob;

use super::template::CRON_JOB_LABEL;
use crate::{backend::kubernetes::units::timestamp, model::Timestamp};

/// Conditions that a Job has for good once it is over.
const FINISHED: [&str; 2] = ["Complete", "Failed"];

/// A Job.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::backend::kubernetes) struct Job {
    /// Also the id of its worker.
    pub(in crate::backend::kubernetes) name: String,
    pub(in crate::backend::kubernetes) uid: String,
    pub(in crate::backend::kubernetes) created_at: Timestamp,
    /// The CronJob that it was made of, if swarm made it.
    pub(in crate::backend::kubernetes) template: Option<String>,
    /// It has succeeded or failed.
    pub(in crate::backend::kubernetes) finished: bool,
    /// It is being deleted.
    pub(in crate::backend::kubernetes) terminating: bool,
    /// Somebody holds it back: it gets no pod.
    pub(in crate::backend::kubernetes) suspended: bool,
}

impl From<&ApiJob> for Job {
    fn from(object: &ApiJob) -> Self {
        let metadata = &object.metadata;
        let conditions = object.status.iter().filter_map(|status| status.conditions.as_deref()).flatten();
        let mut over = conditions.filter(|one| one.status == "True" && FINISHED.contains(&one.type_.as_str()));
        Self {
            name: metadata.name.clone().unwrap_or_default(),
            uid: metadata.uid.clone().unwrap_or_default(),
            created_at: metadata.creation_timestamp.as_ref().map(timestamp).unwrap_or_default(),
            template: metadata.labels.as_ref().and_then(|labels| labels.get(CRON_JOB_LABEL).cloned()),
            finished: over.next().is_some(),
            terminating: metadata.deletion_timestamp.is_some(),
            suspended: object.spec.as_ref().is_some_and(|spec| spec.suspend == Some(true)),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_job_is_over_when_a_final_condition_says_so() {
        let job = |condition: &str, status: &str| {
            let conditions = json!([{ "type": condition, "status": status }]);
            let object = json!({ "metadata": { "name": "j" }, "status": { "conditions": conditions } });
            Job::from(&serde_json::from_value::<ApiJob>(object).expect("the API's type takes it"))
        };
        assert!(job("Complete", "True").finished && job("Failed", "True").finished);
        for (condition, status) in [("Complete", "False"), ("Suspended", "True"), ("FailureTarget", "True")] {
            assert!(!job(condition, status).finished, "{condition} {status}: its pod may still run");
        }
    }
}

//! What a trigger asks for: the metadata of a ScaledObject.

use std::collections::HashMap;

use super::refusal::Refusal;
use crate::model::WorkerType;

const WORKER_TYPE: &str = "workerType";
const METRIC: &str = "metric";
const TARGET_SIZE: &str = "targetSize";

/// What the HPA follows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Metric {
    /// The recommended number of workers; the target is 1 for each worker.
    Workers,
    /// The unfinished jobs.
    Depth {
        /// Jobs for each worker.
        target: f64,
    },
}

/// One trigger of a ScaledObject.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Trigger {
    pub(super) worker_type: WorkerType,
    pub(super) metric: Metric,
}

impl Trigger {
    /// Parses the metadata. Keys that belong to KEDA, such as `scalerAddress`, are among them, so unknown ones are
    /// ignored.
    pub(super) fn parse(metadata: &HashMap<String, String>) -> Result<Self, Refusal> {
        let value = |key: &str| metadata.get(key).map(|value| value.trim()).filter(|value| !value.is_empty());
        let Some(worker_type) = value(WORKER_TYPE) else {
            let message =
                "the trigger's metadata has no `workerType`; set it to a worker type of swarm's configuration";
            return Err(Refusal::Invalid(message.to_owned()));
        };
        let target = value(TARGET_SIZE).map(parse_target).transpose()?;
        let metric = match (value(METRIC), target) {
            (None | Some("workers"), None) => Metric::Workers,
            (None | Some("workers"), Some(_)) => {
                let message = "`targetSize` is for `metric: depth`; the target of the recommended workers is 1";
                return Err(Refusal::Invalid(message.to_owned()));
            }
            (Some("depth"), Some(target)) => Metric::Depth { target },
            (Some("depth"), None) => {
                let message = "`metric: depth` needs `targetSize`, the number of unfinished jobs for each worker";
                return Err(Refusal::Invalid(message.to_owned()));
            }
            (Some(other), _) => {
                return Err(Refusal::Invalid(format!("`metric` is `workers` or `depth`, not `{other}`")));
            }
        };
        Ok(Self { worker_type: WorkerType::new(worker_type), metric })
    }

    /// Returns the name of the metric: letters, digits and `-`, since it becomes part of a Kubernetes name.
    pub(super) fn metric_name(&self) -> String {
        let clean = |letter: char| if letter.is_ascii_alphanumeric() { letter } else { '-' };
        let of: String = self.worker_type.as_str().chars().map(clean).collect();
        match self.metric {
            Metric::Workers => format!("swarm-{of}-workers"),
            Metric::Depth { .. } => format!("swarm-{of}-depth"),
        }
    }
}

fn parse_target(text: &str) -> Result<f64, Refusal> {
    let target = text.parse::<f64>().ok().filter(|target| target.is_finite() && *target > 0.0);
    target.ok_or_else(|| Refusal::Invalid(format!("`targetSize` is a number above 0, not `{text}`")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(pairs: &[(&str, &str)]) -> Result<Trigger, Refusal> {
        let pairs = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        Trigger::parse(&pairs.chain([("scalerAddress".to_owned(), "swarm:9001".to_owned())]).collect())
    }

    #[test]
    fn workers_are_the_default_and_a_depth_has_a_target() {
        let trigger = parse(&[("workerType", "a_b.c")]).unwrap();
        assert_eq!((trigger.metric, trigger.metric_name()), (Metric::Workers, "swarm-a-b-c-workers".to_owned()));
        assert_eq!(parse(&[("workerType", "a"), ("metric", "workers")]).unwrap().metric, Metric::Workers);
        let trigger = parse(&[("workerType", "a"), ("metric", "depth"), ("targetSize", "2.5")]).unwrap();
        assert_eq!(
            (trigger.metric, trigger.metric_name()),
            (Metric::Depth { target: 2.5 }, "swarm-a-depth".to_owned())
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (pairs, told) in [
            (&[][..], "no `workerType`"),
            (&[("workerType", " ")], "no `workerType`"),
            (&[("workerType", "a"), ("metric", "lag")], "not `lag`"),
            (&[("workerType", "a"), ("metric", "depth")], "needs `targetSize`"),
            (&[("workerType", "a"), ("targetSize", "5")], "is for `metric: depth`"),
            (&[("workerType", "a"), ("metric", "depth"), ("targetSize", "0")], "above 0, not `0`"),
            (&[("workerType", "a"), ("metric", "depth"), ("targetSize", "NaN")], "above 0, not `NaN`"),
        ] {
            match parse(pairs) {
                Err(Refusal::Invalid(message)) => assert!(message.contains(told), "{pairs:?}: {message}"),
                other => panic!("{pairs:?}: {other:?}"),
            }
        }
    }
}

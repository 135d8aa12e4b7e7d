//! Translates refusals of the API server into errors that name the object and the cure.

use std::time::Duration;

use kube::error::Status;

use super::throttle::Throttled;
use crate::{backend::BackendError, model::WorkerType};

/// The worker type is not configured here.
pub(super) fn unknown_type(worker_type: &WorkerType) -> BackendError {
    BackendError::permanent(format!("worker type `{worker_type}` is unknown here; add `[worker_types.{worker_type}]`"))
}

/// A right: a verb on a resource of an API group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Right {
    /// `""` is the core group.
    pub group: &'static str,
    /// `deployments/scale` is the subresource `scale`.
    pub resource: &'static str,
    /// `list`, `patch`, …
    pub verb: &'static str,
}

impl Right {
    pub(super) const fn new(group: &'static str, resource: &'static str, verb: &'static str) -> Self {
        Self { group, resource, verb }
    }

    /// The rule that a Role needs for it.
    pub fn rule(&self) -> String {
        let Self { group, resource, verb } = self;
        format!("{{apiGroups: [\"{group}\"], resources: [\"{resource}\"], verbs: [\"{verb}\"]}}")
    }

    /// Whether only workers that are Jobs need it: a Role of its own grants it.
    pub(super) fn is_for_jobs(&self) -> bool {
        self.group == "batch"
    }

    /// Describes the missing right and the rule that grants it.
    pub(super) fn lacking(&self, namespace: &str) -> String {
        format!(
            "no right to `{}` `{}` in namespace `{namespace}`; add this rule to the scaler's Role{}: {}",
            self.verb,
            self.resource,
            if self.is_for_jobs() { " (config/kubernetes/jobs.yaml)" } else { "" },
            self.rule()
        )
    }
}

/// A failed call: what was being done (``scaling deployment `x` ``), the right that it takes, and what came of it.
pub(super) fn explain(doing: &str, right: Right, namespace: &str, error: kube::Error) -> BackendError {
    let explained = match &error {
        kube::Error::Api(status) => refused(doing, right, namespace, status),
        kube::Error::Service(cause) if cause.downcast_ref::<Throttled>().is_some() => {
            BackendError::retryable(format!("{doing}: {cause}"))
        }
        kube::Error::SerdeError(cause) => {
            BackendError::retryable(format!("{doing}: the API server's answer can't be understood: {cause}"))
        }
        other => BackendError::retryable(format!("{doing}: the API server can't be reached: {}", chain(other))),
    };
    explained.caused_by(error)
}

/// A call that took too long.
pub(super) fn timed_out(doing: &str, patience: Duration) -> BackendError {
    BackendError::retryable(format!("{doing}: the API server has not answered for {} s", patience.as_secs()))
}

fn refused(doing: &str, right: Right, namespace: &str, status: &Status) -> BackendError {
    let said = if status.message.is_empty() { status.reason.as_str() } else { status.message.trim() };
    match status.code {
        401 => BackendError::permanent(format!(
            "{doing}: the API server does not accept these credentials ({said}); renew the kubeconfig or the service \
             account's token"
        )),
        403 if said.contains("quota") => BackendError::retryable(format!("{doing}: {said}")),
        403 => BackendError::permanent(format!("{doing}: {} ({said})", right.lacking(namespace))),
        404 => BackendError::permanent(format!("{doing}: not found in namespace `{namespace}` ({said})")),
        409 => BackendError::retryable(format!("{doing}: changed by somebody else meanwhile; deciding again")),
        422 | 400 => BackendError::permanent(format!("{doing}: refused as invalid: {said}")),
        429 => BackendError::retryable(format!("{doing}: the API server is busy and asks to come back later")),
        code => BackendError::retryable(format!("{doing}: the API server answers {code}: {said}")),
    }
}

/// An error with its causes: the outermost alone says too little.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let said = next.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = next.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::ErrorKind;

    const SCALE: Right = Right::new("apps", "deployments/scale", "patch");

    fn explained(code: u16, message: &str) -> BackendError {
        let status = Status::failure(message, "Some").with_code(code);
        explain("scaling deployment `x`", SCALE, "jobs", kube::Error::Api(Box::new(status)))
    }

    #[test]
    fn a_missing_right_is_named_with_the_rule_that_grants_it() {
        let error = explained(403, "deployments \"x\" is forbidden");
        assert_eq!(error.kind, ErrorKind::Permanent);
        assert_eq!(
            error.message,
            "scaling deployment `x`: no right to `patch` `deployments/scale` in namespace `jobs`; add this rule to the \
             scaler's Role: {apiGroups: [\"apps\"], resources: [\"deployments/scale\"], verbs: [\"patch\"]} (deployments \
             \"x\" is forbidden)"
        );
    }

    #[test]
    fn what_may_go_away_by_itself_is_tried_again() {
        for code in [409, 429, 500, 503] {
            assert_eq!(explained(code, "x").kind, ErrorKind::Retryable, "{code}");
        }
        for code in [400, 401, 404, 422] {
            assert_eq!(explained(code, "x").kind, ErrorKind::Permanent, "{code}");
        }
    }
}

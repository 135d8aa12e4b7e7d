//! The rights that the scaler needs, as one list: asked for at the start, named in errors, granted by
//! `config/kubernetes/`.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use kube::{Api, api::PostParams};

use super::{
    cluster::{CREATE_JOB, Cluster, DELETE_JOB, DELETE_POD, PATCH_POD, target_right},
    conflicts::{LIST_HPAS, LIST_SCALED_OBJECTS},
    event_recorder::CREATE_EVENT,
    failure::Right,
    lease,
    store::Watched,
};
use crate::{backend::BackendError, config::TargetKind};

/// Everything that is done with targets of these kinds, and with a Lease if there is one, and nothing else.
pub fn needed(kinds: &BTreeSet<TargetKind>, with_lease: bool) -> Vec<Right> {
    let mut rights = Vec::new();
    for kind in kinds {
        rights.extend(["list", "watch"].map(|verb| Watched::Targets(*kind).right(verb)));
        rights.push(target_right(*kind, "get"));
        if *kind == TargetKind::Job {
            rights.extend(["list", "watch"].map(|verb| Watched::Jobs.right(verb)));
            rights.extend([CREATE_JOB, DELETE_JOB]);
        } else {
            rights.push(target_right(*kind, "patch"));
        }
    }
    rights.extend(["list", "watch"].map(|verb| Watched::Pods.right(verb)));
    if kinds.iter().any(|kind| *kind != TargetKind::Job) {
        rights.extend([PATCH_POD, DELETE_POD]);
    }
    rights.extend([LIST_HPAS, LIST_SCALED_OBJECTS, CREATE_EVENT]);
    if with_lease {
        rights.extend(lease::RIGHTS);
    }
    rights
}

/// Asks the server for each right.
///
/// # Errors
/// If some are lacking: names all of them and the rules that grant them. If the server can't be asked: why.
pub(super) async fn check(
    cluster: &Cluster,
    kinds: &BTreeSet<TargetKind>,
    lease: Option<&str>,
) -> Result<(), BackendError> {
    let needed = needed(kinds, lease.is_some());
    let answers = join_all(needed.iter().map(|right| is_granted(cluster, *right, object(*right, lease)))).await;
    let mut lacking = Vec::new();
    for (right, granted) in needed.iter().zip(answers) {
        if !granted? {
            lacking.push(format!("`{}` `{}`", right.verb, right.resource));
        }
    }
    if lacking.is_empty() {
        return Ok(());
    }
    let rules = needed.iter().filter(|right| lacking.contains(&format!("`{}` `{}`", right.verb, right.resource)));
    let is_for_jobs = rules.clone().all(Right::is_for_jobs);
    let rules: Vec<String> = rules.map(|right| format!("\n  - {}", right.rule())).collect();
    Err(BackendError::permanent(format!(
        "no right in namespace `{}` to {}; add these rules to the scaler's Role ({} has a complete one):{}",
        cluster.namespace,
        lacking.join(", "),
        if is_for_jobs { "config/kubernetes/jobs.yaml" } else { "config/kubernetes" },
        rules.concat()
    )))
}

/// The one object that a right is needed for, if it is one: a Role may grant it by name.
fn object(right: Right, lease: Option<&str>) -> Option<String> {
    lease.filter(|_| lease::OF_ONE.contains(&right)).map(str::to_owned)
}

async fn is_granted(cluster: &Cluster, right: Right, name: Option<String>) -> Result<bool, BackendError> {
    let (resource, subresource) = match right.resource.split_once('/') {
        Some((resource, subresource)) => (resource, Some(subresource.to_owned())),
        None => (right.resource, None),
    };
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(ResourceAttributes {
                group: Some(right.group.to_owned()),
                resource: Some(resource.to_owned()),
                subresource,
                name,
                verb: Some(right.verb.to_owned()),
                namespace: Some(cluster.namespace.clone()),
                ..ResourceAttributes::default()
            }),
            ..SelfSubjectAccessReviewSpec::default()
        },
        ..SelfSubjectAccessReview::default()
    };
    let reviews: Api<SelfSubjectAccessReview> = Api::all(cluster.client.clone());
    let ask = Right::new("authorization.k8s.io", "selfsubjectaccessreviews", "create");
    let answer = cluster.call("asking for our rights", ask, reviews.create(&PostParams::default(), &review)).await?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}

//! The Lease by which autoscalers elect who leads, if `kubernetes.lease` names one. Translates only: who may write it,
//! and when, is for whoever stands for election.

use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff,
};
use kube::api::{Patch, PostParams};

use super::{
    cluster::{Cluster, FIELD_MANAGER, ours},
    failure::Right,
};
use crate::{
    backend::{BackendError, LeaseObject, LeaseRecord},
    config::KubernetesSettings,
    model::Timestamp,
};

const GET: Right = Right::new("coordination.k8s.io", "leases", "get");
const CREATE: Right = Right::new("coordination.k8s.io", "leases", "create");
const PATCH: Right = Right::new("coordination.k8s.io", "leases", "patch");

/// What is done with it.
pub(super) const RIGHTS: [Right; 3] = [GET, CREATE, PATCH];
/// Of these, what is done with this one object; a right to create can't be given by name.
pub(super) const OF_ONE: [Right; 2] = [GET, PATCH];

/// A Lease of the namespace.
pub struct KubernetesLease {
    cluster: Cluster,
    name: String,
}

impl KubernetesLease {
    /// The one that the settings name, if they do. Connects to nothing yet; with a connection of its own, so that what
    /// the backend is asked to wait for does not hold up a renewal.
    ///
    /// # Errors
    /// If the cluster can't be told from the settings.
    pub async fn configure(settings: &KubernetesSettings) -> Result<Option<Self>, BackendError> {
        let Some(name) = &settings.lease else { return Ok(None) };
        Ok(Some(Self::on(Cluster::configure(settings).await?, name)))
    }

    /// The one of that name, through this connection.
    pub(super) fn on(cluster: Cluster, name: &str) -> Self {
        Self { cluster, name: name.to_owned() }
    }

    fn doing(&self, what: &str) -> String {
        format!("{what} lease `{}`", self.name)
    }
}

#[async_trait]
impl LeaseObject for KubernetesLease {
    async fn read(&self) -> Result<Option<LeaseRecord>, BackendError> {
        let api = self.cluster.api::<Lease>();
        let read = self.cluster.call(&self.doing("reading"), GET, api.get_opt(&self.name)).await?;
        Ok(read.map(|lease| record(&lease)))
    }

    async fn write(&self, wanted: &LeaseRecord) -> Result<Option<LeaseRecord>, BackendError> {
        let api = self.cluster.api::<Lease>();
        let lease = lease(&self.name, wanted)?;
        let written = if wanted.version.is_some() {
            // What else is in it, such as labels of others, stays.
            let patched = async { api.patch(&self.name, &ours(), &Patch::Merge(&lease)).await };
            self.cluster.call(&self.doing("writing"), PATCH, patched).await
        } else {
            let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
            self.cluster.call(&self.doing("making"), CREATE, api.create(&params, &lease)).await
        };
        match written {
            Ok(lease) => Ok(Some(record(&lease))),
            Err(failed) if failed.conflict || failed.not_found => Ok(None),
            Err(failed) => Err(failed.error),
        }
    }
}

fn record(lease: &Lease) -> LeaseRecord {
    let spec = lease.spec.clone().unwrap_or_default();
    let number = |number: Option<i32>| u64::try_from(number.unwrap_or(0)).unwrap_or(0);
    let time = |time: Option<MicroTime>| {
        let ms = time.map_or(0, |time| time.0.as_millisecond());
        Timestamp(u64::try_from(ms).unwrap_or(0))
    };
    LeaseRecord {
        holder: spec.holder_identity.unwrap_or_default(),
        transitions: number(spec.lease_transitions),
        length: Duration::from_secs(number(spec.lease_duration_seconds)),
        acquired: time(spec.acquire_time),
        renewed: time(spec.renew_time),
        version: lease.metadata.resource_version.clone(),
    }
}

fn lease(name: &str, record: &LeaseRecord) -> Result<Lease, BackendError> {
    let number = |what: &str, number: u64| {
        i32::try_from(number)
            .map_err(|_| BackendError::permanent(format!("lease `{name}`: {what} {number} is more than it can hold")))
    };
    let time = |time: Timestamp| {
        let ms = i64::try_from(time.0).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
        ms.map(MicroTime)
    };
    Ok(Lease {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            resource_version: record.version.clone(),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(record.holder.clone()),
            lease_transitions: Some(number("transition", record.transitions)?),
            lease_duration_seconds: Some(number("a duration of", record.length.as_secs())?),
            acquire_time: time(record.acquired),
            renew_time: time(record.renewed),
            ..LeaseSpec::default()
        }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_what_is_read() {
        let said = LeaseRecord {
            holder: "host-1_x".to_owned(),
            transitions: 7,
            length: Duration::from_secs(10),
            acquired: Timestamp(1_700_000_000_123),
            renewed: Timestamp(1_700_000_001_456),
            version: Some("42".to_owned()),
        };
        assert_eq!(record(&lease("swarm", &said).unwrap()), said);
        let text = serde_json::to_value(lease("swarm", &said).unwrap()).unwrap();
        assert_eq!(text["spec"]["renewTime"], "2023-11-14T22:13:21.456000Z", "the API wants microseconds");
    }

    #[test]
    fn an_object_that_somebody_made_by_hand_is_nobodys() {
        let read = record(&Lease::default());
        assert_eq!((read.holder.as_str(), read.transitions, read.length), ("", 0, Duration::ZERO));
        let beyond = LeaseRecord { transitions: u64::MAX, ..read };
        assert!(lease("swarm", &beyond).unwrap_err().message.contains("more than it can hold"));
    }
}

//! Stands in for `service` in a build without the feature `command-url`: every call returns an error that names it.
//! An autoscaler with a service does not start in such a build; `swarm doctor` shows the error.
#![expect(clippy::unused_async, reason = "the calls that it stands in for wait")]

use super::{
    call::{CallError, Change},
    listing::Listed,
};
use crate::{
    backend::BackendError,
    config::CommandSettings,
    model::{MissingFeature, WorkerType},
};

/// What all calls of this backend share: nothing.
#[derive(Default)]
pub(super) struct Client;

/// The service of a worker type.
#[derive(Clone, Copy)]
#[expect(dead_code, reason = "nothing is asked")]
pub(super) struct Service<'a> {
    pub(super) worker_type: &'a WorkerType,
    pub(super) settings: &'a CommandSettings,
    pub(super) url: &'a str,
    pub(super) client: &'a Client,
}

impl Service<'_> {
    pub(super) async fn list(self) -> Result<Vec<Listed>, BackendError> {
        Err(self.missing())
    }

    pub(super) async fn change(self, _: Change<'_>) -> Result<(), CallError> {
        Err(self.missing().into())
    }

    pub(super) async fn watch(self, _: impl FnMut()) -> Result<(), BackendError> {
        Err(self.missing())
    }

    fn missing(self) -> BackendError {
        BackendError::permanent(MissingFeature::of_service(self.worker_type).to_string())
    }
}

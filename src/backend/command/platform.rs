//! The two forms of a platform, which are asked the same: programs, and an HTTP service.

use super::{
    call::{CallError, Change},
    listing::Listed,
    programs::Programs,
    service::Service,
};
use crate::backend::BackendError;

/// Who lists, starts and stops the workers of a type.
#[derive(Clone, Copy)]
pub(super) enum Platform<'a> {
    Programs(Programs<'a>),
    Service(Service<'a>),
}

impl Platform<'_> {
    /// Returns the workers that exist.
    pub(super) async fn list(self) -> Result<Vec<Listed>, BackendError> {
        match self {
            Self::Programs(programs) => programs.list().await,
            Self::Service(service) => service.list().await,
        }
    }

    /// Changes the workers.
    pub(super) async fn change(self, change: Change<'_>) -> Result<(), CallError> {
        match self {
            Self::Programs(programs) => programs.change(change).await,
            Self::Service(service) => service.change(change).await,
        }
    }

    /// Calls `on_line` for each change that the platform reports, until it ends that.
    pub(super) async fn watch(self, on_line: impl FnMut()) -> Result<(), BackendError> {
        match self {
            Self::Programs(programs) => programs.watch(on_line).await,
            Self::Service(service) => service.watch(on_line).await,
        }
    }
}

//! A lease that is an object of a cluster, as whoever elects a leader sees it: read, and written only if nobody else
//! has written meanwhile. What it means, and when it is over, is not for a backend.

use std::time::Duration;

use async_trait::async_trait;

use super::BackendError;
use crate::model::Timestamp;

/// What such an object says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseRecord {
    /// Who holds it; empty for nobody.
    pub holder: String,
    /// How often it has changed hands.
    pub transitions: u64,
    /// How long it lasts from each renewal.
    pub length: Duration,
    /// Since when its holder has it, by that one's wall clock. For people.
    pub acquired: Timestamp,
    /// When it was renewed, by its holder's wall clock. For people.
    pub renewed: Timestamp,
    /// As of when it was read; `None`: there was none.
    pub version: Option<String>,
}

/// The object.
#[async_trait]
pub trait LeaseObject: Send + Sync {
    /// As it is now; `None`: there is none.
    ///
    /// # Errors
    /// If it can't be read. Errors name the right that is missing.
    async fn read(&self) -> Result<Option<LeaseRecord>, BackendError>;

    /// Writes it if it still is as of `record.version`, or makes it if that is `None`; answers it as written. `None`:
    /// somebody else has written it, made it or removed it.
    ///
    /// # Errors
    /// If it can't be written, or it is not known whether it was.
    async fn write(&self, record: &LeaseRecord) -> Result<Option<LeaseRecord>, BackendError>;
}

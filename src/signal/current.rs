//! The current directories, for tasks that outlive a reload of the configuration.

use std::sync::{Arc, PoisonError, RwLock};

use super::Directories;

/// Holds the current directories. A task that outlives a reload asks here each time and caches nothing.
#[derive(Debug)]
pub struct CurrentDirectory(RwLock<Arc<Directories>>);

impl CurrentDirectory {
    /// Starts with these directories.
    pub fn new(directories: Arc<Directories>) -> Arc<Self> {
        Arc::new(Self(RwLock::new(directories)))
    }

    /// Returns the current directories.
    pub fn get(&self) -> Arc<Directories> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces the directories.
    pub fn replace(&self, directories: Arc<Directories>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = directories;
    }
}

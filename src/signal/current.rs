//! The current directory, for tasks that outlive a reload of the configuration.

use std::sync::{Arc, PoisonError, RwLock};

use super::Directory;

/// Holds the current directory. A task that outlives a reload asks here each time and caches nothing.
#[derive(Debug)]
pub struct CurrentDirectory(RwLock<Arc<Directory>>);

impl CurrentDirectory {
    /// Starts with this directory.
    pub fn new(directory: Arc<Directory>) -> Arc<Self> {
        Arc::new(Self(RwLock::new(directory)))
    }

    /// Returns the current directory.
    pub fn get(&self) -> Arc<Directory> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces the directory.
    pub fn replace(&self, directory: Arc<Directory>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = directory;
    }
}

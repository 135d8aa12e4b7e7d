//! The directory in force, for those who outlive a change of the worker types.

use std::sync::{Arc, PoisonError, RwLock};

use super::Directory;

/// Hands out the directory in force. Whoever lives longer than one asks here each time and keeps none.
#[derive(Debug)]
pub struct CurrentDirectory(RwLock<Arc<Directory>>);

impl CurrentDirectory {
    /// Beginning with this one.
    pub fn new(directory: Arc<Directory>) -> Arc<Self> {
        Arc::new(Self(RwLock::new(directory)))
    }

    /// The one in force.
    pub fn get(&self) -> Arc<Directory> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on it is another one.
    pub fn replace(&self, directory: Arc<Directory>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = directory;
    }
}

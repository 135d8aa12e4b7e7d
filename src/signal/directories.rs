//! The directories of all Redis servers that have queues. Each server's own sources post to that server's directory
//! only, so that one server says nothing about the worker types of another.

use std::sync::Arc;

use super::Directory;
use crate::model::{Source, WorkerType};

/// The directories, one for each server.
#[derive(Debug)]
pub struct Directories(Vec<Arc<Directory>>);

impl Directories {
    /// Returns the collection of these directories. Each worker type is in one of them.
    pub fn new(directories: Vec<Arc<Directory>>) -> Arc<Self> {
        Arc::new(Self(directories))
    }

    /// Returns the directories, in their order.
    pub fn all(&self) -> &[Arc<Directory>] {
        &self.0
    }

    /// Returns the names of all worker types.
    pub fn worker_types(&self) -> impl Iterator<Item = &WorkerType> {
        self.0.iter().flat_map(|directory| directory.watched()).map(|watched| &watched.worker_type)
    }

    /// Posts to one worker type. Returns whether it exists.
    pub fn post(&self, worker_type: &WorkerType, source: Source) -> bool {
        let found = self.0.iter().find_map(|directory| Some((directory, directory.index_of(worker_type)?)));
        if let Some((directory, index)) = found {
            directory.post(index, source);
        }
        found.is_some()
    }

    /// Posts to every worker type.
    pub fn post_all(&self, source: Source) {
        self.0.iter().for_each(|directory| directory.post_all(source));
    }
}

//! Executes jobs that were taken, several at the same time. Takes none and completes none.

mod batch;
mod executor;
mod place;
mod tasks;

pub(super) use batch::spawn as spawn_batches;
pub(super) use executor::{Executor, Taken};
pub(super) use tasks::Tasks;

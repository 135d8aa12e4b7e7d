//! Serves people through the command line or Discord. Fetches the status of an autoscaler and the history of its
//! changes, writes overrides to Redis, and formats snapshots and events as text. Decides nothing.

pub mod order;
pub mod status_client;
pub(crate) mod view;

pub use crate::scaler::{OverrideService, recent_events};

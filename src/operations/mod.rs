//! What people ask of a running swarm and are told, whoever they talk through: the command line or Discord. Fetches the
//! status that an autoscaler shows and the history of what it changed, gives orders through Redis, and puts snapshots and events
//! into words. Decides nothing.

pub mod order;
pub mod status_client;
pub(crate) mod view;

pub use crate::scaler::{OverrideService, recent_events};

//! What people ask of a running swarm and are told, whoever they talk through: the command line or Discord. Fetches the
//! status that an autoscaler shows, gives orders through Redis, and puts snapshots and events into words. Decides nothing.

pub mod order;
pub mod status_client;
pub(crate) mod view;

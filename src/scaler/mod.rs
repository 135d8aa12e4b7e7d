//! One actor per worker type: it observes (probe and backend), lets the policy decide, asks the backend, and records.
//! The actor itself ([`Actor`]) is a synchronous state machine without clock or I/O; [`run_actor`] runs it.

mod actor;
mod budget;
mod canary;
mod controls;
mod event_buffer;
mod fleet;
mod history;
mod leadership;
mod outages;
mod override_service;
mod recorder;
mod remembered_heartbeats;
mod report;
mod signs_of_life;
mod snapshot_cell;
mod task;
mod updates;
mod worker_tracker;

pub use actor::{Actor, Consequence, Effect, Input, Observed, Scaled, ScalingRecord, Tuning};
pub use budget::Budget;
pub use canary::CanaryState;
pub use controls::{ControlError, ControlWatch, Controls};
pub use event_buffer::EventBuffer;
pub use fleet::{Fleet, FleetInfo, FleetParts, QueueServerParts};
pub use history::{EventTail, HistoryError, Recent, ScalingEvent, recent_events};
pub use leadership::{Candidate, Election, Leadership, Permit};
pub use outages::Outages;
pub use override_service::{OverrideService, WorkerTypeIndex};
pub use recorder::{LoadError, Recorder, RecorderHandle, load_changes};
pub use report::Reporter;
pub use signs_of_life::{Leads, SignWriter, SignsOfLife};
pub use snapshot_cell::SnapshotCell;
pub use task::{ActorContext, Shared, SuspendedActor, run_actor};
pub use updates::Updates;
pub use worker_tracker::{Expected, FailedStart, Heard, Held, PoolView, WorkerTracker};

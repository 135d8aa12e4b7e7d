//! One actor per worker type: it observes (probe and backend), lets the policy decide, asks the backend, and records.
//! The actor itself ([`Actor`]) is a synchronous state machine without clock or I/O; [`run_actor`] is its shell.

mod actor;
mod controls;
mod fleet;
mod history;
mod leadership;
mod orders;
mod recorder;
mod report;
mod ring;
mod roster;
mod shown;
mod task;

pub use actor::{Actor, Effect, Input, Observed, Scaled, ScalingRecord, Tuning};
pub use controls::{ControlError, ControlWatch, Controls};
pub use fleet::{Fleet, FleetInfo, FleetParts};
pub use history::{EventTail, HistoryError, Recent, ScalingEvent, recent_events};
pub use leadership::{Candidate, Election, Leadership, Permit};
pub use orders::{Desk, Roll};
pub use recorder::{LoadError, Recorder, RecorderHandle, load_changes};
pub use report::Reporter;
pub use ring::EventRing;
pub use roster::{Census, Expected, Roster};
pub use shown::Shown;
pub use task::{ActorContext, Parked, Shared, run_actor};

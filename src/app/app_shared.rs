//! The parts that live as long as the autoscaler, whatever a reload changes.

use std::sync::{Arc, atomic::AtomicBool};

use super::quiet_watch::FrameworkQuietWatch;
use crate::{
    backend::ScalingBackend,
    connection::RedisTarget,
    model::Clock,
    scaler::{Budget, CanaryState, Controls, Leadership, RecorderHandle, Updates},
    signal::{CurrentDirectory, SourceStatus},
};

/// Parts that live as long as the autoscaler.
#[derive(Clone)]
pub(super) struct AppShared {
    pub(super) target: Arc<RedisTarget>,
    pub(super) clock: Clock,
    pub(super) source_status: Arc<SourceStatus>,
    pub(super) directory: Arc<CurrentDirectory>,
    pub(super) controls: Arc<Controls>,
    pub(super) budget: Arc<Budget>,
    pub(super) updates: Arc<Updates>,
    pub(super) canary: Arc<CanaryState>,
    pub(super) backend: Arc<dyn ScalingBackend>,
    pub(super) quiet_watch: Arc<FrameworkQuietWatch>,
    pub(super) recorder: RecorderHandle,
    pub(super) leadership: Arc<Leadership>,
    pub(super) trouble: Arc<AtomicBool>,
}

//! A framework as a kind of queue: answers what the signals, the prober, the checks and the doctor ask of every kind.

use std::sync::Arc;

use redis::Cmd;

use super::{Framework, FrameworkProfile};
use crate::queue_kind::{Delivery, Profile, QueueReader, QueueSpec};

/// See the [module](self).
#[derive(Debug)]
pub(in crate::queue_kind) struct FrameworkKind(pub(super) Framework);

impl FrameworkKind {
    /// All frameworks, as kinds of queues.
    pub(super) const ALL: [Self; Framework::ALL.len()] = {
        let mut all = [const { Self(Framework::ALL[0]) }; Framework::ALL.len()];
        let mut index = 0;
        while index < all.len() {
            all[index] = Self(Framework::ALL[index]);
            index += 1;
        }
        all
    };

    fn profile(&self) -> &'static dyn FrameworkProfile {
        self.0.profile()
    }
}

impl Profile for FrameworkKind {
    fn name(&self) -> &'static str {
        self.profile().name()
    }

    /// No pattern finds queues of frameworks.
    fn redis_type(&self) -> &'static str {
        "none"
    }

    fn event_flags(&self) -> &'static str {
        self.profile().event_flags()
    }

    fn arrival_events(&self) -> &'static [&'static str] {
        &[]
    }

    fn delivery(&self) -> Delivery {
        Delivery::Removal
    }

    fn is_native(&self) -> bool {
        false
    }

    fn content(&self, key: &str) -> Cmd {
        self.profile().content(key)
    }

    fn reader(&self, spec: &QueueSpec) -> Box<dyn QueueReader> {
        let framework = spec.framework.as_ref().expect("a queue of a framework is made with its spec");
        self.profile().reader(&Arc::clone(framework))
    }

    fn rights(&self, _: &str) -> Vec<(&'static str, Vec<String>)> {
        Vec::new()
    }

    fn is_one_transaction(&self) -> bool {
        true
    }
}

//! Time within a simulation.

use std::time::Duration;

use crate::model::Timestamp;

/// Microseconds since the simulation began. Finer than [`Timestamp`], so that short service times add up exactly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SimTime(pub u64);

impl SimTime {
    /// Beginning of a simulation.
    pub const START: Self = Self(0);

    /// Returns `self + by`, saturating.
    #[must_use]
    pub fn after(self, by: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(by.as_micros()).unwrap_or(u64::MAX)))
    }

    /// Returns the time from `earlier` to `self`; zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }

    /// Returns the time on the actor's clock, in a simulation that begins at `begins`.
    pub fn on_clock(self, begins: Timestamp) -> Timestamp {
        Timestamp(begins.0.saturating_add(self.0 / 1_000))
    }

    /// Returns the time at which the actor's clock shows `at`.
    pub fn of_clock(at: Timestamp, begins: Timestamp) -> Self {
        Self(at.0.saturating_sub(begins.0).saturating_mul(1_000))
    }

    /// Returns the seconds since the beginning.
    #[expect(clippy::cast_precision_loss, reason = "exact for more than 200 years")]
    pub fn seconds(self) -> f64 {
        self.0 as f64 / 1e6
    }
}

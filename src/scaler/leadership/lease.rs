//! The arithmetic of a lease. Pure except for [`since_boot`].

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// A point in time, as the time since this machine's boot.
pub(super) type SinceBoot = Duration;

/// Returns the current time. It continues while the process is stopped and while the machine sleeps, and setting the
/// wall clock does not move it.
pub(super) fn since_boot() -> SinceBoot {
    let now = clock_gettime(ClockId::Boottime);
    Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// Length of a lease, and the times that follow from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lease {
    length: Duration,
}

impl Lease {
    pub(super) fn of(length: Duration) -> Self {
        Self { length }
    }

    /// Returns how long the lease lasts in Redis.
    pub(super) fn length(self) -> Duration {
        self.length
    }

    /// Returns the time between two renewals, and between two looks of a standby. Two consecutive renewals may fail
    /// before the leader stops acting.
    pub(super) fn renew_every(self) -> Duration {
        self.length / 5
    }

    /// Returns the timeout of one attempt, including connecting.
    pub(super) fn patience(self) -> Duration {
        self.length / 5
    }

    /// Returns until when the holder may act, if the renewal was sent at `sent_at`. Redis keeps the lease for two
    /// fifths of its length longer: time for a write that began just before to end before another leader may begin one.
    ///
    /// This holds even if Redis loses the lease. A standby that last saw it with `left` remaining waits for `left`. As
    /// long as the leader renews in time, that is at least four fifths from the standby's look on. The leader renewed
    /// for the last time at most a fifth after that look, and acts for three fifths more.
    pub(super) fn usable_until(self, sent_at: SinceBoot) -> SinceBoot {
        sent_at + self.length * 3 / 5
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_stops_acting_well_before_redis_lets_go() {
        let lease = Lease::of(Duration::from_secs(10));
        let sent_at = Duration::from_secs(100);
        assert_eq!(lease.usable_until(sent_at), Duration::from_secs(106));
        assert!(sent_at + lease.renew_every() * 2 + lease.patience() <= lease.usable_until(sent_at));
    }

    #[test]
    fn a_lease_that_redis_loses_is_not_taken_while_its_holder_may_act() {
        let lease = Lease::of(Duration::from_secs(10));
        let looked_at = Duration::from_secs(100);
        let last_renewal = looked_at + lease.renew_every();
        assert!(lease.usable_until(last_renewal) + lease.renew_every() <= looked_at + lease.length());
    }

    #[test]
    fn the_clock_runs() {
        let before = since_boot();
        assert!(before > Duration::ZERO);
        assert!(since_boot() >= before);
    }
}

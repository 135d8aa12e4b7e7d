//! The worker's own evidence: whether the silence of another worker proves anything. A worker that could not write its
//! own heartbeats, or has just connected, can't tell dead workers from silent ones. Pure.

use std::time::Duration;

use tokio::time::Instant;

/// Since when this worker's own heartbeats have been written without a gap. They are its canary: they take the same
/// path to the same server as those of every other worker.
#[derive(Clone, Copy, Debug)]
pub(super) struct OwnEvidence {
    /// Longest time between two heartbeats that is not a gap: a lapse less one interval. After a longer time, as when
    /// the whole machine stood still, the heartbeat of a worker that lives may have expired too.
    max_gap: Duration,
    /// How long heartbeats must have been written before silence counts: in that time every living worker renews its
    /// own.
    settle: Duration,
    unbroken: Option<Unbroken>,
}

#[derive(Clone, Copy, Debug)]
struct Unbroken {
    since: Instant,
    last: Instant,
}

impl OwnEvidence {
    /// Returns the evidence for workers that write a heartbeat every `interval` and count as gone after a silence of
    /// `lapse`. `timeout` bounds an attempt to write a heartbeat.
    pub(super) fn new(interval: Duration, lapse: Duration, timeout: Duration) -> Self {
        Self { max_gap: lapse.saturating_sub(interval), settle: lapse + timeout, unbroken: None }
    }

    /// Records that a heartbeat was written. `renewed` says whether Redis still had the previous one: if not, Redis was
    /// away or was flushed, or this worker stood still.
    pub(super) fn written(&mut self, now: Instant, renewed: bool) {
        let since = self.unbroken.filter(|before| renewed && now - before.last <= self.max_gap);
        self.unbroken = Some(Unbroken { since: since.map_or(now, |before| before.since), last: now });
    }

    /// Records a new connection, or a command that Redis did not carry out.
    pub(super) fn broken(&mut self) {
        self.unbroken = None;
    }

    /// Returns for how long heartbeats have been written without a gap.
    pub(super) fn unbroken_for(&self, now: Instant) -> Duration {
        let unbroken = self.unbroken.filter(|unbroken| now - unbroken.last <= self.max_gap);
        unbroken.map_or(Duration::ZERO, |unbroken| now - unbroken.since)
    }

    /// Returns whether a worker that is silent now, and has been for its lapse, is gone.
    pub(super) fn suffices(&self, now: Instant) -> bool {
        self.unbroken_for(now) >= self.settle
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const INTERVAL: Duration = Duration::from_secs(5);
    const LAPSE: Duration = Duration::from_secs(15);
    const TIMEOUT: Duration = Duration::from_secs(1);

    fn evidence() -> OwnEvidence {
        OwnEvidence::new(INTERVAL, LAPSE, TIMEOUT)
    }

    #[test]
    fn silence_counts_after_a_lapse_of_own_heartbeats() {
        let (mut evidence, start) = (evidence(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        assert!(!evidence.suffices(start));
        for beat in [0, 5, 10, 15] {
            evidence.written(after(beat), beat > 0);
        }
        assert!(!evidence.suffices(after(15)) && evidence.suffices(after(16)));
        // A worker that stood still does not judge before it has written heartbeats for a lapse again.
        assert!(!evidence.suffices(after(60)));
        evidence.written(after(60), true);
        assert!(!evidence.suffices(after(60)));
    }

    #[test]
    fn a_heartbeat_that_redis_no_longer_had_is_a_gap() {
        let (mut evidence, start) = (evidence(), Instant::now());
        for beat in 0..12 {
            evidence.written(start + INTERVAL * beat, beat != 8);
        }
        assert!(!evidence.suffices(start + INTERVAL * 11) && evidence.suffices(start + INTERVAL * 11 + TIMEOUT));
    }

    /// A worker that stood still for longer judges nobody: who wrote one interval before it has no heartbeat any more.
    #[test]
    fn a_lapse_less_one_interval_is_trusted_whatever_the_timeout_is() {
        for timeout in [TIMEOUT, LAPSE] {
            let (mut evidence, start) = (OwnEvidence::new(INTERVAL, LAPSE, timeout), Instant::now());
            for beat in 0..12 {
                evidence.written(start + INTERVAL * beat, true);
            }
            let last = start + INTERVAL * 11;
            assert!(evidence.suffices(last + INTERVAL * 2));
            assert!(!evidence.suffices(last + INTERVAL * 2 + Duration::from_millis(1)));
        }
    }

    proptest! {
        /// Whatever happened before: when silence counts, every heartbeat of the last lapse was written, and none was
        /// new.
        #[test]
        fn silence_never_counts_within_a_lapse_of_trouble(events in proptest::collection::vec((0..20_u64, 0..8_u8), 1..60)) {
            let (mut evidence, mut now) = (evidence(), Instant::now());
            let mut trouble = now;
            let mut last: Option<Instant> = None;
            for (seconds, what) in events {
                now += Duration::from_secs(seconds);
                if last.is_none_or(|last| now - last > evidence.max_gap) {
                    trouble = now;
                }
                match what {
                    0 => {
                        evidence.broken();
                        trouble = now;
                        last = None;
                    }
                    what => {
                        evidence.written(now, what > 1);
                        if what == 1 {
                            trouble = now;
                        }
                        last = Some(now);
                    }
                }
                prop_assert!(!evidence.suffices(now) || now - trouble >= LAPSE);
            }
        }
    }
}

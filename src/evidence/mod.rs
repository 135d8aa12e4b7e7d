//! The rule that tells when the silence of a worker counts. The absence of a heartbeat says nothing about a worker
//! unless heartbeats could be written: Redis may be away, full or refuse writes, or nobody may be connected to it.
//!
//! Owns the rule ([`Channel::silence`]), what is known of the canary ([`Canary`]) and the guard against mass
//! replacement ([`MassSilence`]). Pure: times and outcomes come in. Must not do I/O, read a clock, or know what a
//! worker is asked to do.
//!
//! The canary is a key that an observer writes in the same way as workers write heartbeats. While its writes succeed
//! one after another, a heartbeat could be written as well.

use std::time::Duration;

use crate::model::Timestamp;

/// Between two writes of a canary.
pub const CANARY_INTERVAL: Duration = Duration::from_secs(2);

/// After this long without a write the canary counts as broken: whoever writes it was stopped or cut off. Three missed
/// writes.
pub const CANARY_LAPSE: Duration = Duration::from_secs(6);

/// What a worker may need to write again after an outage, beyond its heartbeat's interval: the longest pause between
/// attempts to connect, and the attempt.
pub const RECONNECT: Duration = Duration::from_secs(10);

/// How long a mass silence holds back every replacement.
const MASS_HOLD: Duration = Duration::from_secs(300);

/// How long it does when no worker is heard at all: somebody has to do the work.
const MASS_HOLD_UNHEARD: Duration = Duration::from_secs(60);

/// What is known of the way that heartbeats take to their reader.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Channel {
    /// Since when heartbeats could be written without a gap, as the reader's canary shows. `None`: they can't be
    /// written, or it is not known.
    pub writable_since: Option<Timestamp>,
    /// Since when the reader has been connected without a gap; `None` if nothing is known of it.
    pub connected_since: Option<Timestamp>,
}

impl Channel {
    /// A channel that has always worked: for places where nothing can be lost, as in a simulation.
    pub const FLAWLESS: Self = Self { writable_since: Some(Timestamp(0)), connected_since: Some(Timestamp(0)) };

    /// Returns how long a worker has been silent by evidence, at `now`: from the latest of its last heartbeat, the
    /// moment since which heartbeats could be written, and the reader's own connect. `None` means unknown: its silence
    /// says nothing.
    pub fn silence(&self, last_heard: Option<Timestamp>, now: Timestamp) -> Option<Duration> {
        self.counts_from(last_heard).map(|from| now.since(from))
    }

    /// Returns when the silence of a worker will have lasted for `limit`; `None` if that can't be told now.
    pub fn silent_for_at(&self, last_heard: Option<Timestamp>, limit: Duration) -> Option<Timestamp> {
        self.counts_from(last_heard).map(|from| from.after(limit))
    }

    fn counts_from(&self, last_heard: Option<Timestamp>) -> Option<Timestamp> {
        let writable = self.writable_since?;
        [Some(writable), self.connected_since, last_heard].into_iter().flatten().max()
    }
}

/// What the writes of a canary have shown so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Canary {
    unbroken_since: Option<Timestamp>,
    last_write: Option<Timestamp>,
}

impl Canary {
    /// A canary that has been written for ever.
    #[cfg(test)]
    pub(crate) fn flawless() -> Self {
        Self { unbroken_since: Some(Timestamp(0)), last_write: Some(Timestamp(u64::MAX)) }
    }

    /// Notes a write that succeeded at `now`. `kept` tells whether the server still had the write before it: if not, it
    /// has lost its data, and with it every heartbeat.
    pub fn written(&mut self, kept: bool, now: Timestamp) {
        let unbroken = kept && self.unbroken_since(now).is_some();
        if !unbroken {
            self.unbroken_since = Some(now);
        }
        self.last_write = Some(now);
    }

    /// Notes a write that failed, or whose outcome is not known.
    pub fn failed(&mut self) {
        *self = Self::default();
    }

    /// Returns since when writes have succeeded one after another, at `now`; `None` if the last one failed or is too
    /// long ago.
    pub fn unbroken_since(&self, now: Timestamp) -> Option<Timestamp> {
        self.last_write.filter(|last| now.since(*last) < CANARY_LAPSE).and(self.unbroken_since)
    }
}

/// Many workers that fall silent at once are news about the store or the network, not about the workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MassSilence {
    since: Option<Timestamp>,
}

impl MassSilence {
    /// Takes in how many of a pool of `pool` are `silent` at `now`, and how many of the others are `heard` or starting.
    /// Returns until when nobody may be replaced; `None` if replacing is allowed.
    pub fn hold(&mut self, silent: usize, heard: usize, pool: usize, now: Timestamp) -> Option<Timestamp> {
        if silent < 2 || silent * 3 <= pool {
            self.since = None;
            return None;
        }
        let since = *self.since.get_or_insert(now);
        let until = since.after(if heard == 0 { MASS_HOLD_UNHEARD } else { MASS_HOLD });
        (now < until).then_some(until)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp(seconds * 1_000)
    }

    #[expect(clippy::unnecessary_wraps, reason = "compared with what may be unknown")]
    fn seconds(seconds: u64) -> Option<Duration> {
        Some(Duration::from_secs(seconds))
    }

    #[test]
    fn silence_counts_from_the_latest_of_what_could_explain_it() {
        let channel = |writable, connected| Channel {
            writable_since: Option::map(writable, at),
            connected_since: Option::map(connected, at),
        };
        for (of, heard, silence) in [
            (channel(Some(10), Some(10)), Some(70), seconds(30)),
            (channel(Some(80), Some(10)), Some(70), seconds(20)),
            (channel(Some(80), Some(90)), Some(70), seconds(10)),
            (channel(Some(80), None), None, seconds(20)),
            (channel(None, Some(10)), Some(70), None),
            (Channel::default(), None, None),
            (Channel::FLAWLESS, Some(40), seconds(60)),
        ] {
            assert_eq!(of.silence(heard.map(at), at(100)), silence, "{of:?}, heard at {heard:?}");
        }
    }

    #[test]
    fn a_canary_is_unbroken_from_its_first_write_to_its_first_failure() {
        let mut canary = Canary::default();
        assert_eq!(canary.unbroken_since(at(1)), None);
        canary.written(false, at(1));
        canary.written(true, at(3));
        assert_eq!(canary.unbroken_since(at(4)), Some(at(1)));
        canary.failed();
        assert_eq!(canary.unbroken_since(at(4)), None);
        canary.written(true, at(9));
        assert_eq!(canary.unbroken_since(at(10)), Some(at(9)));
    }

    #[test]
    fn a_server_that_lost_the_canary_and_a_writer_that_was_stopped_begin_anew() {
        let mut canary = Canary::default();
        canary.written(false, at(1));
        canary.written(false, at(3));
        assert_eq!(canary.unbroken_since(at(3)), Some(at(3)), "flushed, or a new primary without it");
        assert_eq!(canary.unbroken_since(at(9)), None, "nothing was written for too long");
        canary.written(true, at(30));
        assert_eq!(canary.unbroken_since(at(31)), Some(at(30)));
    }

    #[test]
    fn a_mass_holds_for_a_while_and_less_long_if_nobody_is_heard() {
        let mut guard = MassSilence::default();
        assert_eq!(guard.hold(1, 0, 1, at(0)), None, "one alone is no mass");
        assert_eq!(guard.hold(3, 6, 9, at(0)), None, "a third is not more than a third");
        assert_eq!(guard.hold(4, 5, 9, at(10)), Some(at(310)));
        assert_eq!(guard.hold(9, 0, 9, at(20)), Some(at(70)));
        assert_eq!(guard.hold(9, 0, 9, at(70)), None);
        assert_eq!(guard.hold(0, 9, 9, at(80)), None);
        assert_eq!(guard.hold(4, 5, 9, at(90)), Some(at(390)), "another mass");
    }

    proptest! {
        #[test]
        fn more_evidence_of_an_outage_never_lengthens_a_silence(
            writable in prop::option::of(0_u64..100), connected in prop::option::of(0_u64..100),
            heard in prop::option::of(0_u64..100), later in 0_u64..50,
        ) {
            let channel = Channel { writable_since: writable.map(at), connected_since: connected.map(at) };
            let silence = channel.silence(heard.map(at), at(150));
            let cut = Channel { writable_since: writable.map(|since| at(since + later)), ..channel };
            let after_cut = cut.silence(heard.map(at), at(150));
            prop_assert!(after_cut <= silence);
            prop_assert_eq!(Channel { writable_since: None, ..channel }.silence(heard.map(at), at(150)), None);
        }

        #[test]
        fn no_more_than_a_third_is_replaced_at_once(silent in 0_usize..40, heard in 0_usize..40) {
            let allowed = MassSilence::default().hold(silent, heard, silent + heard, at(1)).is_none();
            prop_assert!(!allowed || silent < 2 || silent * 3 <= silent + heard);
        }
    }
}

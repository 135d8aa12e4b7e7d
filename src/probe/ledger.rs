//! What became of jobs, from looks at their stream now and then: when each was given to a worker, and how long that
//! took. Pure.
//!
//! Redis does not say when a job was acknowledged. But at each look it says which jobs are in hand and since when, and
//! up to where the group has read; a job that was read and is not in hand is done. So a start is known to the
//! millisecond if the job was seen in hand, and an end to the time between two looks.

use std::collections::BTreeMap;

use crate::queue_kind::StreamId;

/// Of a long job's time so much may be wrong, however late a look comes.
const MAX_RELATIVE_ERROR: f64 = 0.05;

/// A job in hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct InHand {
    pub(super) id: StreamId,
    /// Since it was delivered, or last claimed, in milliseconds.
    pub(super) idle_ms: u64,
    /// How often it was delivered.
    pub(super) deliveries: u64,
}

/// One look at a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct GroupReading {
    /// By the server's clock, in milliseconds.
    pub(super) now_ms: u64,
    /// Up to where it had read when the look began; `None` if there is no group yet.
    pub(super) read_to: Option<StreamId>,
    /// What was in hand right after.
    pub(super) in_hand: Vec<InHand>,
}

/// A job that is done.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Finished {
    pub(super) id: StreamId,
    /// How long a worker took, if it was seen well enough.
    pub(super) service_ms: Option<f64>,
}

/// What is known of a job that is not done.
#[derive(Clone, Copy, Debug, Default)]
struct Open {
    /// The last look at which nobody had begun it.
    waiting_at: Option<u64>,
    begun_at: Option<u64>,
    /// The last look at which it was in hand.
    in_hand_at: Option<u64>,
    /// Its start was missed, or it was begun more than once.
    unclear: bool,
}

/// The jobs of one stream that are not known to be done.
#[derive(Debug)]
pub(super) struct Ledger {
    open: BTreeMap<StreamId, Open>,
    /// Longer between two looks, and what happened between them is not known well enough.
    longest_gap_ms: u64,
}

impl Ledger {
    pub(super) fn new(longest_gap_ms: u64) -> Self {
        Self { open: BTreeMap::new(), longest_gap_ms }
    }

    /// A job has come.
    pub(super) fn came(&mut self, id: StreamId) {
        self.open.insert(id, Open::default());
    }

    /// Takes a look into account; answers what it shows to be done.
    pub(super) fn looked(&mut self, look: &GroupReading) -> Vec<Finished> {
        for job in &look.in_hand {
            self.in_hand(job, look.now_ms);
        }
        let Some(read_to) = look.read_to else { return Vec::new() };
        let read = self.open.range(..=read_to).filter(|(_, open)| open.in_hand_at != Some(look.now_ms));
        let done: Vec<Finished> = read.map(|(id, open)| self.finished(*id, *open, look.now_ms)).collect();
        for job in &done {
            self.open.remove(&job.id);
        }
        for (_, open) in self.open.range_mut(read_to..).filter(|(id, _)| **id > read_to) {
            open.waiting_at = Some(look.now_ms);
        }
        done
    }

    fn in_hand(&mut self, job: &InHand, now_ms: u64) {
        let gap = self.longest_gap_ms;
        let Some(open) = self.open.get_mut(&job.id) else { return };
        if open.begun_at.is_none() {
            // Claims that are renewed begin anew: only soon after its start it is known since when it is in hand.
            let since = open.waiting_at.unwrap_or_default().max(job.id.ms());
            open.unclear = now_ms.saturating_sub(since) > gap;
            open.begun_at = Some(now_ms.saturating_sub(job.idle_ms).max(since));
        }
        open.unclear |= job.deliveries > 1;
        open.in_hand_at = Some(now_ms);
    }

    #[expect(clippy::cast_precision_loss, reason = "milliseconds between two looks")]
    fn finished(&self, id: StreamId, open: Open, now_ms: u64) -> Finished {
        // Seen in hand: it began then, and ended after the last time it was seen. Never seen: both between two looks.
        let (begun, before_end) = match (open.begun_at, open.in_hand_at) {
            (Some(begun), Some(seen)) => (Some(begun), seen),
            _ => (None, open.waiting_at.unwrap_or_default().max(id.ms())),
        };
        let gap = now_ms.saturating_sub(before_end);
        let half = gap as f64 / 2.0;
        let service = begun.map_or(half, |begun| before_end.saturating_sub(begun) as f64 + half);
        let exact = gap <= self.longest_gap_ms || half <= service * MAX_RELATIVE_ERROR;
        Finished { id, service_ms: (exact && !open.unclear).then_some(service) }
    }

    /// What is not known to be done, in order.
    pub(super) fn rest(self) -> impl Iterator<Item = StreamId> {
        self.open.into_keys()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: u64 = 1_700_000_000_000;

    fn id(ms: u64) -> StreamId {
        StreamId::at(BASE + ms)
    }

    fn held(ms: u64, idle_ms: u64) -> InHand {
        InHand { id: id(ms), idle_ms, deliveries: 1 }
    }

    fn look(ms: u64, read_to: Option<u64>, in_hand: &[InHand]) -> GroupReading {
        GroupReading { now_ms: BASE + ms, read_to: read_to.map(id), in_hand: in_hand.to_vec() }
    }

    /// Service times, by arrival.
    fn services(ledger: &mut Ledger, looks: &[GroupReading]) -> Vec<(u64, Option<f64>)> {
        let done = looks.iter().flat_map(|look| ledger.looked(look)).collect::<Vec<_>>();
        done.iter().map(|job| (job.id.ms() - BASE, job.service_ms)).collect()
    }

    fn ledger(arrivals: &[u64]) -> Ledger {
        let mut ledger = Ledger::new(400);
        for ms in arrivals {
            ledger.came(id(*ms));
        }
        ledger
    }

    #[test]
    fn a_job_that_was_seen_in_hand_took_from_its_delivery_to_between_two_looks() {
        let looks = [
            look(100, None, &[]),
            look(200, Some(90), &[held(90, 40)]),
            look(300, Some(90), &[held(90, 140)]),
            look(400, Some(90), &[]),
        ];
        // From 160 to about 350.
        assert_eq!(services(&mut ledger(&[90]), &looks), [(90, Some(190.0))]);
    }

    #[test]
    fn a_job_that_was_never_seen_in_hand_took_half_of_the_time_in_question() {
        let looks = [look(100, Some(0), &[]), look(200, Some(170), &[])];
        assert_eq!(services(&mut ledger(&[50, 170]), &looks), [(50, Some(50.0)), (170, Some(15.0))]);
    }

    #[test]
    fn one_that_waits_stays_open_and_one_that_was_done_before_is_not_known() {
        let mut ledger = ledger(&[50, 60_000]);
        let done = services(&mut ledger, &[look(50_000, Some(50), &[]), look(60_100, Some(50), &[])]);
        assert_eq!(done, [(50, None)]);
        assert_eq!(ledger.rest().collect::<Vec<_>>(), [id(60_000)]);
    }

    #[test]
    fn renewed_claims_change_no_start_and_a_second_delivery_makes_it_unclear() {
        let again = InHand { deliveries: 2, ..held(90, 0) };
        let renewed =
            [look(100, Some(90), &[held(90, 10)]), look(300, Some(90), &[held(90, 5)]), look(400, Some(90), &[])];
        assert_eq!(services(&mut ledger(&[90]), &renewed), [(90, Some(260.0))]);
        let taken_over =
            [look(100, Some(90), &[held(90, 10)]), look(300, Some(90), &[again]), look(400, Some(90), &[])];
        assert_eq!(services(&mut ledger(&[90]), &taken_over), [(90, None)]);
    }

    #[test]
    fn what_happened_in_too_long_a_gap_is_not_known() {
        let missed_end = [look(100, Some(90), &[held(90, 10)]), look(900, Some(90), &[])];
        assert_eq!(services(&mut ledger(&[90]), &missed_end), [(90, None)]);
        let but_little = [
            look(100, Some(90), &[held(90, 10)]),
            look(9_100, Some(90), &[held(90, 9_000)]),
            look(9_900, Some(90), &[]),
        ];
        assert_eq!(services(&mut ledger(&[90]), &but_little), [(90, Some(9_410.0))]);
        let missed_start = [look(100, None, &[]), look(900, Some(90), &[held(90, 20)]), look(1_000, Some(90), &[])];
        assert_eq!(services(&mut ledger(&[90]), &missed_start), [(90, None)]);
    }
}

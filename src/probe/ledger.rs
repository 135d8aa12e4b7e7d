//! Follows jobs through observations of their stream: when each was delivered to a worker, and how long it took. Pure.
//!
//! Redis does not record when a job was acknowledged. But each observation shows which jobs are pending and since when,
//! and up to which entry the group has read; a job that was read and is not pending is finished. So the start of a job
//! is known to the millisecond if the job was seen pending, and its end to the time between two observations.

use std::collections::BTreeMap;

use crate::model::StreamId;

/// Accepted error of a job's time, as a share of it, if an observation comes late.
const MAX_RELATIVE_ERROR: f64 = 0.05;

/// A pending job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct InHand {
    pub(super) id: StreamId,
    /// Time since the job was delivered, or last claimed, in milliseconds.
    pub(super) idle_ms: u64,
    /// Number of deliveries.
    pub(super) deliveries: u64,
}

/// One observation of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct GroupReading {
    /// Time of the server's clock, in milliseconds.
    pub(super) now_ms: u64,
    /// Last entry that the group had read when the observation began; `None` if the group does not exist.
    pub(super) read_to: Option<StreamId>,
    /// Pending jobs right after that.
    pub(super) in_hand: Vec<InHand>,
}

/// A finished job.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Finished {
    pub(super) id: StreamId,
    /// Time that a worker took, if it was observed well enough.
    pub(super) service_ms: Option<f64>,
}

/// What is known about an unfinished job.
#[derive(Clone, Copy, Debug, Default)]
struct Open {
    /// Last observation at which no worker had started it.
    waiting_at: Option<u64>,
    begun_at: Option<u64>,
    /// Last observation at which it was pending.
    in_hand_at: Option<u64>,
    /// Whether its start was missed, or it was started more than once.
    unclear: bool,
}

/// The jobs of one stream that are not known to be finished.
#[derive(Debug)]
pub(super) struct Ledger {
    open: BTreeMap<StreamId, Open>,
    /// Longest gap between two observations after which the times in between are known well enough.
    longest_gap_ms: u64,
}

impl Ledger {
    pub(super) fn new(longest_gap_ms: u64) -> Self {
        Self { open: BTreeMap::new(), longest_gap_ms }
    }

    /// Adds a job that arrived.
    pub(super) fn came(&mut self, id: StreamId) {
        self.open.insert(id, Open::default());
    }

    /// Applies an observation. Returns the jobs that it shows to be finished.
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
            // A renewed claim restarts the idle time, so only an observation soon after the start gives the time of the
            // start.
            let since = open.waiting_at.unwrap_or_default().max(job.id.ms());
            open.unclear = now_ms.saturating_sub(since) > gap;
            open.begun_at = Some(now_ms.saturating_sub(job.idle_ms).max(since));
        }
        open.unclear |= job.deliveries > 1;
        open.in_hand_at = Some(now_ms);
    }

    #[expect(clippy::cast_precision_loss, reason = "milliseconds between two looks")]
    fn finished(&self, id: StreamId, open: Open, now_ms: u64) -> Finished {
        // If the job was seen pending, it started at a known time and ended after the last observation of it. Otherwise
        // both were between two observations.
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

    /// Returns the jobs that are not known to be finished, in order.
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

    /// Returns the service times, by arrival.
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

//! Classifies the workers of one type. Combines the backend's list, the heartbeats, the holders of delivered jobs, and
//! whether heartbeats could be written at all. Remembers about each worker what the next observation needs. Pure.

mod job_holders;
mod starts;
mod status;

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

pub(super) use self::job_holders::JobHolders;
pub use self::starts::FailedStart;
use self::status::{Memory, Seen};
use crate::{
    backend::{Exit, Instance, ManualScale, Phase, Pool, Removal},
    evidence::{Channel, MassSilence, RECONNECT},
    model::{
        PoolCounts, Reading, Timestamp, WorkerId,
        snapshot::{WorkerSnapshot, WorkerStatus},
    },
    probe::{ConsumerPending, Heartbeat, Heartbeats, Occupation},
};

/// The pool as of one observation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PoolView {
    /// Number of workers by status.
    pub counts: PoolCounts,
    /// All workers.
    pub workers: Vec<WorkerSnapshot>,
    /// Workers that never became ready; they are replaced.
    pub stalled: Vec<WorkerId>,
    /// Workers whose silence has lasted long enough, by evidence, to replace them, the longest silent first. They still
    /// count.
    pub overdue: Vec<WorkerId>,
    /// Workers that may be let go, in order: blocked and starting ones, which hold nothing, then idle ones, longest
    /// idle first.
    pub idle: Vec<WorkerId>,
    /// Workers that may hold work, followed by workers that hold work. They are let go only when there are more workers
    /// than allowed.
    pub busy: Vec<WorkerId>,
    /// Workers that leave although the backend has not asked them to.
    pub leaving: Vec<WorkerId>,
    /// Workers that take no more jobs and have none, although the backend has not asked them to: they are let go.
    pub spent: Vec<WorkerId>,
    /// Workers that were asked to leave, have been idle since and are still there: they may have missed the signal.
    pub unmoved: Vec<WorkerId>,
    /// Workers that ended by themselves since the last observation.
    pub exits: Vec<Exit>,
    /// Those exits that count as failed starts, and workers that have just stalled.
    pub failed_starts: Vec<FailedStart>,
    /// Changes that somebody else has made since the last observation.
    pub manual: Vec<ManualScale>,
    /// Why silent workers are not replaced; `None` if they are.
    pub held: Option<Held>,
    /// When a worker's status changes by time alone.
    pub look_at: Option<Timestamp>,
}

/// Why silent workers are not replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// Heartbeats can't be written, or it is unknown whether they can.
    Unwritable {
        /// Workers without a heartbeat.
        silent: u32,
    },
    /// Too many workers fell silent at the same time.
    Mass {
        /// Workers without a heartbeat.
        silent: u32,
        /// Workers in total.
        of: u32,
        /// Time until which no worker is replaced.
        until: Timestamp,
    },
}

/// Expected behaviour of a worker type's workers.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts of a worker type")]
pub struct Expected {
    /// Longest time until a worker is ready.
    pub start_grace: Duration,
    /// Whether workers write heartbeats; if not, a running worker counts as ready.
    pub heartbeats: bool,
    /// Whether its workers are those of a framework, which states by itself who is busy.
    pub is_foreign: bool,
    /// Whether workers end by themselves when they have done their jobs.
    pub ends_when_done: bool,
    /// Whether a worker can miss the signal that asks it to leave.
    pub may_miss_stop_signal: bool,
    /// Time without a new heartbeat after which a heartbeat has lapsed.
    pub heartbeat_lapse: Duration,
    /// How long a worker's claim on its jobs is valid without renewal.
    pub claim: Duration,
}

impl Expected {
    /// Returns how long a heartbeat that was just read can't have lapsed: a worker renews it at each of the three
    /// intervals in which it lapses, so at least two of them were left.
    pub(super) fn heartbeat_lifetime(&self) -> Duration {
        self.heartbeat_lapse * 2 / 3
    }

    /// Returns how long a worker that has had a heartbeat may be silent.
    fn silence_limit(&self, holds_jobs: Option<bool>) -> Duration {
        let limit = self.start_grace.max(self.heartbeat_lapse) + RECONNECT;
        if holds_jobs == Some(false) { limit } else { limit.max(self.claim) }
    }
}

/// Signs of life of the workers.
#[derive(Clone, Copy, Debug)]
pub struct Heard<'a> {
    /// Heartbeats, in the order of the pool's instances.
    pub heartbeats: &'a Heartbeats,
    /// Consumers that hold delivered jobs.
    pub consumers: &'a Reading<Vec<ConsumerPending>>,
    /// What their framework says of them, if they have one.
    pub occupation: Option<&'a Occupation>,
    /// Whether heartbeats could be written.
    pub channel: Channel,
}

impl Heard<'_> {
    fn job_holders(&self) -> JobHolders<'_> {
        self.occupation.map_or_else(|| JobHolders::of_group(self.consumers), JobHolders::stated)
    }

    fn of(&self, position: usize, id: &WorkerId, holders: &JobHolders<'_>) -> Seen {
        let unasked = &Reading::Known(None);
        let heartbeat = self.heartbeats.known().and_then(|all| all.get(position).unwrap_or(unasked).known());
        Seen {
            heartbeat: heartbeat.copied().flatten(),
            readable: heartbeat.is_some(),
            holds_jobs: holders.holds_jobs(id.as_str()),
            is_quiet: holders.is_quiet(id.as_str()),
        }
    }
}

/// Keeps what is remembered from one observation to the next.
#[derive(Clone, Debug, Default)]
pub struct WorkerTracker {
    memories: HashMap<WorkerId, Memory>,
    mass: MassSilence,
    exits_seen: u64,
    manual_seen: u64,
}

/// Lists that are put in order at the end.
#[derive(Default)]
struct Sorted {
    blocked: Vec<WorkerId>,
    starting: Vec<WorkerId>,
    idle: Vec<(Option<Timestamp>, WorkerId)>,
    possibly_busy: Vec<WorkerId>,
    busy: Vec<WorkerId>,
    overdue: Vec<(Option<Timestamp>, WorkerId)>,
    silent: u32,
}

impl WorkerTracker {
    /// Classifies the workers of a pool at `now`.
    pub fn classify(&mut self, pool: Pool, heard: &Heard<'_>, expected: Expected, now: Timestamp) -> PoolView {
        let mut view = PoolView::default();
        self.note_news(pool.exits, pool.manual, expected, &mut view);
        let (removal, known_by_heartbeat) = (pool.removal, pool.known_by_heartbeat);
        let mut remembered = HashMap::with_capacity(pool.instances.len());
        let mut sorted = Sorted::default();
        let holders = heard.job_holders();
        for (position, instance) in pool.instances.into_iter().enumerate() {
            let seen = heard.of(position, &instance.id, &holders);
            if known_by_heartbeat && seen.readable && seen.heartbeat.is_none() {
                // It left between the backend's look and this one. Silence would make it possibly busy.
                continue;
            }
            let mut memory = self.memories.remove(&instance.id).unwrap_or_default();
            let status = status::of(&instance, seen, memory, expected, heard.channel, now);
            if status == WorkerStatus::Stalled && !memory.noted_stalled {
                memory.noted_stalled = true;
                view.failed_starts.push(FailedStart::stalled(&instance, now));
            }
            memory.note(status, seen, &instance, expected, now);
            if memory.is_unmoved(expected, now) {
                view.unmoved.push(instance.id.clone());
                memory.unmoved_since = Some(now);
            }
            let change_at = status::change_at(status, &instance, seen, memory, expected, heard.channel);
            view.look_at = [view.look_at, change_at.filter(|at| *at > now)].into_iter().flatten().min();
            if status == WorkerStatus::Unheard && heard.channel.writable_since.is_some() {
                sorted.silent += 1;
                if change_at.is_some_and(|at| at <= now) {
                    sorted.overdue.push((memory.heard_at, instance.id.clone()));
                }
            }
            count(&mut view, &mut sorted, &instance, status, seen, memory, expected);
            let busy = status == WorkerStatus::Busy;
            let draining = status == WorkerStatus::Draining;
            view.workers.push(WorkerSnapshot {
                id: instance.id.clone(),
                state: seen.heartbeat.map(|heartbeat| heartbeat.state),
                status,
                busy,
                draining,
                reason: instance.reason,
                started_at: instance.started_at,
            });
            remembered.insert(instance.id, memory);
        }
        self.memories = remembered;
        let view = self.finish(view, sorted, heard.channel, now);
        match removal {
            Removal::Chosen => view,
            Removal::ByOrder(groups) => in_order(view, &groups),
        }
    }

    /// Puts the lists in order, and holds back replacements during a mass silence.
    fn finish(&mut self, mut view: PoolView, mut sorted: Sorted, channel: Channel, now: Timestamp) -> PoolView {
        sorted.idle.sort();
        sorted.overdue.sort();
        let PoolCounts { ready, starting, possibly_busy, .. } = view.counts;
        let heard = ready - possibly_busy + starting;
        let of = ready + starting;
        let silent = sorted.silent;
        let until = self.mass.hold(silent as usize, heard as usize, of as usize, now);
        view.idle = sorted.blocked;
        view.idle.append(&mut sorted.starting);
        view.idle.extend(sorted.idle.into_iter().map(|(_, id)| id));
        view.busy = sorted.possibly_busy;
        view.busy.append(&mut sorted.busy);
        let unheard = view.workers.iter().filter(|worker| worker.status == WorkerStatus::Unheard).count();
        view.held = match until {
            Some(until) => {
                view.look_at = [view.look_at, Some(until)].into_iter().flatten().min();
                Some(Held::Mass { silent, of, until })
            }
            None if channel.writable_since.is_none() && unheard > 0 => {
                Some(Held::Unwritable { silent: u32::try_from(unheard).unwrap_or(u32::MAX) })
            }
            None => {
                view.overdue = sorted.overdue.into_iter().map(|(_, id)| id).collect();
                None
            }
        };
        view
    }

    /// Takes note of the exits and changes since the last observation.
    fn note_news(&mut self, exits: Vec<Exit>, manual: Vec<ManualScale>, expected: Expected, view: &mut PoolView) {
        view.exits = exits.into_iter().filter(|exit| exit.seq > self.exits_seen).collect();
        self.exits_seen = view.exits.iter().map(|exit| exit.seq).max().unwrap_or(self.exits_seen);
        let failed = |exit: &Exit| FailedStart::of_exit(exit, self.memories.get(&exit.id), expected);
        view.failed_starts = view.exits.iter().filter_map(failed).collect();
        view.manual = manual.into_iter().filter(|change| change.seq > self.manual_seen).collect();
        self.manual_seen = view.manual.iter().map(|change| change.seq).max().unwrap_or(self.manual_seen);
    }
}

/// Adjusts the view where the platform chooses the workers that it removes: those it would remove first may leave if
/// all of them are idle. No worker can be replaced: a stalled worker counts, or each observation would ask for one
/// more.
fn in_order(mut view: PoolView, groups: &[Vec<WorkerId>]) -> PoolView {
    let stalled = std::mem::take(&mut view.stalled);
    view.counts.starting += u32::try_from(stalled.len()).unwrap_or(u32::MAX);
    view.counts.stalled = view.counts.stalled.saturating_sub(u32::try_from(stalled.len()).unwrap_or(u32::MAX));
    view.overdue.clear();
    view.leaving.append(&mut view.spent);
    let idle: HashSet<&WorkerId> = view.idle.iter().chain(&stalled).collect();
    let free = groups.iter().take_while(|group| group.iter().all(|id| idle.contains(id)));
    let first: Vec<WorkerId> = free.flatten().cloned().collect();
    view.counts.must_stay = view.counts.current().saturating_sub(u32::try_from(first.len()).unwrap_or(u32::MAX));
    view.idle = first;
    view
}

/// Counts one worker, and adds it to the lists of its status.
fn count(
    view: &mut PoolView,
    sorted: &mut Sorted,
    instance: &Instance,
    status: WorkerStatus,
    seen: Seen,
    memory: Memory,
    expected: Expected,
) {
    let counts = &mut view.counts;
    let id = || instance.id.clone();
    match status {
        WorkerStatus::Blocked => {
            counts.blocked += 1;
            sorted.blocked.push(id());
        }
        WorkerStatus::Starting => {
            counts.starting += 1;
            sorted.starting.push(id());
        }
        WorkerStatus::Stalled => {
            counts.stalled += 1;
            view.stalled.push(id());
        }
        WorkerStatus::Idle => {
            counts.ready += 1;
            count_places(counts, seen);
            sorted.idle.push((memory.idle_since, id()));
        }
        WorkerStatus::Busy => {
            counts.ready += 1;
            counts.busy += 1;
            count_places(counts, seen);
            sorted.busy.push(id());
        }
        WorkerStatus::PossiblyBusy | WorkerStatus::Unheard => {
            counts.ready += 1;
            counts.possibly_busy += 1;
            sorted.possibly_busy.push(id());
        }
        WorkerStatus::Draining => {
            counts.draining += 1;
            // A worker with work says so. A silent worker that holds nothing ignores the request to leave, or is about
            // to be gone.
            let has_work = seen.heartbeat.is_some() || seen.holds_jobs != Some(false) || !seen.readable;
            counts.lingering += u32::from(expected.heartbeats && !has_work);
            if instance.phase != Phase::Draining {
                let is_spent = seen.is_quiet && seen.holds_jobs == Some(false);
                if is_spent { &mut view.spent } else { &mut view.leaving }.push(id());
            }
        }
        WorkerStatus::Suspended => counts.stalled += 1,
    }
}

/// Counts what a ready worker says that it has room for.
fn count_places(counts: &mut PoolCounts, seen: Seen) {
    let Some(Heartbeat { sessions, places: Some(places), .. }) = seen.heartbeat else { return };
    let small = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    counts.places = counts.places.saturating_add(small(places.all));
    counts.places_taken = counts.places_taken.saturating_add(small(sessions.min(places.all)));
    counts.waiting_for_place = counts.waiting_for_place.saturating_add(small(places.waiting));
    counts.full += u32::from(sessions >= places.all || places.free_slots == Some(0));
}

#[cfg(test)]
mod tests;

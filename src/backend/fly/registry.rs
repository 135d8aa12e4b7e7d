//! Registry of one worker type's machines: the last list, overlaid with requests that no list may show yet. Does no
//! I/O; every method is a short critical section.
//!
//! Changes that were not requested here are recorded: a worker that ended by itself is an
//! [`Exit`](crate::backend::Exit), everything else is a [`ManualScale`](crate::backend::ManualScale). A machine under a
//! lease is being changed, for example by a deployment: it keeps its status until the lease is gone.

mod changes;
mod entry;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use self::{
    changes::Changes,
    entry::{DesiredState, Entry, MISSING, MachineStatus, ended},
};
use super::machine::{Condition, Machine};
use crate::{
    backend::{Instance, Phase, Pool, change_log::ChangeLog},
    model::{Timestamp, WorkerId},
};

/// How long a machine that was asked to start counts as starting, whatever lists say. The slowest documented starts,
/// with an image that must be fetched, are well below.
pub(super) const SETTLE: Duration = Duration::from_secs(90);
/// How long a machine whose worker crashed, or whose host had no room, is not started again: the heartbeat of that
/// worker may still vouch for it, and another machine tells a broken worker from a broken host.
const QUARANTINE: Duration = Duration::from_secs(60);
/// How long deleted machines are remembered, because an older list may still contain them.
const TOMBSTONE: Duration = Duration::from_secs(600);

/// One worker type's registry.
#[derive(Debug, Default)]
pub(super) struct MachineRegistry {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Whether a list has been seen: what the first one shows is how things are, not a change.
    known: bool,
    entries: BTreeMap<String, Entry>,
    launches: Vec<Launch>,
    gone: HashMap<String, Timestamp>,
    change_log: ChangeLog,
}

/// A machine that is being made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Launch {
    /// Unique; in the machine's metadata.
    pub(super) id: String,
    /// Unique within the app.
    pub(super) name: String,
    pub(super) region: Option<String>,
    pub(super) asked: Timestamp,
}

/// Result of merging a list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Merged {
    /// The pool is another one now.
    pub(super) changed: bool,
    /// Something is missing that was there: look again soon.
    pub(super) doubtful: bool,
}

impl MachineRegistry {
    /// Nothing panics halfway through a change, so the registry of a poisoned lock is right.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in all machines of the group, as of a list that was asked for at `begun`.
    pub(super) fn merge(&self, listed: &[Arc<Machine>], begun: Timestamp, now: Timestamp) -> Merged {
        let mut inner = self.lock();
        let before = inner.visible();
        for machine in listed {
            inner.account(machine, begun, now);
        }
        let listed: HashSet<&str> = listed.iter().map(|machine| machine.id.as_str()).collect();
        let mut doubtful = false;
        for (id, entry) in &mut inner.entries {
            let expected_later = entry.desired == DesiredState::Up && now.since(entry.asked) < SETTLE;
            let absent = !listed.contains(id.as_str()) && !expected_later && entry.asked < begun;
            entry.missing = if absent { entry.missing + 1 } else { 0 };
            doubtful |= absent && entry.missing < MISSING;
        }
        inner.launches.retain(|launch| now.since(launch.asked) < SETTLE);
        inner.gone.retain(|_, at| now.since(*at) < TOMBSTONE);
        inner.settle(now);
        inner.known = true;
        Merged { changed: inner.visible() != before, doubtful }
    }

    /// Whether a list has been seen, so that what it does not show is not there.
    pub(super) fn is_known(&self) -> bool {
        self.lock().known
    }

    /// Stops following the lists: changes until the next list are not attributed to anybody.
    pub(super) fn lose_sight(&self) {
        self.lock().known = false;
    }

    /// Takes in one machine, as it said itself just now.
    pub(super) fn account(&self, machine: &Arc<Machine>, now: Timestamp) {
        let mut inner = self.lock();
        inner.account(machine, now, now);
        let settled = !matches!(machine.condition(now), Condition::Up);
        if let Some(entry) =
            inner.entries.get_mut(&machine.id).filter(|entry| settled && entry.desired == DesiredState::Up)
        {
            (entry.desired, entry.start_failed) = (DesiredState::None, true);
        }
        inner.settle(now);
    }

    /// A machine that was asked to start says that it does not exist.
    pub(super) fn vanished(&self, id: &str, now: Timestamp) {
        let mut inner = self.lock();
        if let Some(entry) = inner.entries.get_mut(id) {
            (entry.start_failed, entry.desired, entry.missing) =
                (entry.desired == DesiredState::Up, DesiredState::None, MISSING);
        }
        inner.settle(now);
    }

    /// A machine is gone, which we know from its own answer or have done ourselves.
    pub(super) fn forget(&self, id: &str, now: Timestamp) {
        let mut inner = self.lock();
        inner.entries.remove(id);
        inner.gone.insert(id.to_owned(), now);
    }

    /// Workers that are there or asked for, those that leave not counted.
    pub(super) fn live(&self) -> usize {
        let inner = self.lock();
        inner.launches.len() + inner.entries.values().filter(|entry| entry.status == MachineStatus::Up).count()
    }

    /// Takes a machine that stands still and that nobody else is changing, to be started now. Those whose host had no
    /// room when it was last asked come last, suspended ones before them; regions with few workers first.
    pub(super) fn wake(&self, except: &HashSet<String>, now: Timestamp) -> Option<Arc<Machine>> {
        let mut inner = self.lock();
        let regions = inner.regions();
        let startable = inner.entries.values_mut().filter(|entry| {
            entry.status == MachineStatus::Down
                && entry.machine.condition(now) == Condition::Stopped
                && !entry.machine.leased(now)
                && entry.crashed.is_none_or(|at| now.since(at) >= QUARANTINE)
                && entry.no_room.is_none_or(|at| now.since(at) >= QUARANTINE)
                && !except.contains(&entry.machine.id)
        });
        let crowd = |entry: &Entry| regions.get(&entry.machine.region).copied().unwrap_or(0);
        let chosen = startable.min_by_key(|entry| (entry.no_room, entry.machine.state == "suspended", crowd(entry)))?;
        chosen.ask(DesiredState::Up, now);
        (chosen.status, chosen.since, chosen.stop_sent) = (MachineStatus::Up, now, false);
        Some(chosen.machine.clone())
    }

    /// A machine that was to be started certainly has not been.
    pub(super) fn sleeps_on(&self, id: &str) {
        if let Some(entry) = self.lock().entries.get_mut(id) {
            (entry.desired, entry.status) = (DesiredState::None, MachineStatus::Down);
        }
    }

    /// The host of a machine has no room for it: it is not asked again for a while, and then after the others.
    pub(super) fn note_no_room(&self, id: &str, now: Timestamp) {
        if let Some(entry) = self.lock().entries.get_mut(id) {
            entry.no_room = Some(now);
        }
    }

    /// Notes a machine that is about to be made.
    pub(super) fn launching(&self, launch: Launch) {
        self.lock().launches.push(launch);
    }

    /// It has been made, and this is it.
    pub(super) fn launched(&self, launch: &Launch, machine: &Arc<Machine>, now: Timestamp) {
        let mut inner = self.lock();
        inner.launches.retain(|other| other.id != launch.id);
        inner.adopt(machine, launch.asked.max(now));
    }

    /// It has certainly not been made.
    pub(super) fn not_launched(&self, launch: &Launch) {
        self.lock().launches.retain(|other| other.id != launch.id);
    }

    /// Notes that those of `ids` that are up are being asked to leave; returns them, in the order of `ids`.
    pub(super) fn retire(&self, ids: &[WorkerId], within: Duration, now: Timestamp) -> Vec<Arc<Machine>> {
        let mut inner = self.lock();
        inner.launches.retain(|launch| !ids.iter().any(|id| id.as_str() == launch.name));
        let mut retired = Vec::new();
        for id in ids {
            let up = inner.entries.get_mut(id.as_str()).filter(|entry| entry.status == MachineStatus::Up);
            if let Some(entry) = up {
                entry.ask(DesiredState::Down(now.after(within + SETTLE)), now);
                (entry.status, entry.stop_sent) = (MachineStatus::Leaving, true);
                retired.push(entry.machine.clone());
            }
        }
        retired
    }

    /// A machine could not be asked to leave: it stays. If it leaves all the same, that was us.
    pub(super) fn stays(&self, id: &str) {
        if let Some(entry) = self.lock().entries.get_mut(id).filter(|entry| entry.status == MachineStatus::Leaving) {
            (entry.desired, entry.status) = (DesiredState::None, MachineStatus::Up);
        }
    }

    /// The machine to copy: the newest whose configuration is known, running ones first.
    pub(super) fn template(&self) -> Option<Arc<Machine>> {
        let inner = self.lock();
        let whole = inner.entries.values().filter(|entry| entry.machine.config.is_some());
        let whole = whole.filter(|entry| !matches!(entry.status, MachineStatus::Lost | MachineStatus::Gone));
        let best = whole.max_by_key(|entry| (entry.status == MachineStatus::Up, entry.machine.updated()));
        best.map(|entry| entry.machine.clone())
    }

    /// Workers in each region, those being made included.
    pub(super) fn regions(&self) -> HashMap<String, usize> {
        self.lock().regions()
    }

    /// Machines that stand still, each with whether it may be destroyed: we stopped or made it, and nobody holds it.
    pub(super) fn asleep(&self, now: Timestamp) -> Vec<(Arc<Machine>, bool)> {
        let inner = self.lock();
        let asleep = inner.entries.values().filter(|entry| {
            entry.status == MachineStatus::Down
                && matches!(entry.machine.condition(now), Condition::Stopped | Condition::Broken)
        });
        let may_go =
            |entry: &Entry| (entry.stop_sent || entry.machine.launch().is_some()) && !entry.machine.leased(now);
        asleep.map(|entry| (entry.machine.clone(), may_go(entry))).collect()
    }

    /// Workers that are up, and how many are leaving.
    pub(super) fn status(&self) -> (Vec<WorkerId>, usize) {
        let inner = self.lock();
        let of = |status| inner.entries.iter().filter(move |(_, entry)| entry.status == status);
        (of(MachineStatus::Up).map(|(id, _)| WorkerId::new(id.as_str())).collect(), of(MachineStatus::Leaving).count())
    }

    /// Returns the pool as the scaler sees it.
    pub(super) fn pool(&self) -> Pool {
        let inner = self.lock();
        let machines = inner.entries.iter().filter_map(|(id, entry)| {
            let phase = match entry.status {
                MachineStatus::Up => Phase::Running,
                MachineStatus::Leaving => Phase::Draining,
                MachineStatus::Down | MachineStatus::Lost | MachineStatus::Gone => return None,
            };
            let known = Instance::new(WorkerId::new(id.as_str()), phase, entry.since);
            Some(Instance { reason: entry.reason(), ..known })
        });
        let launches = inner.launches.iter().map(|launch| Instance {
            reason: Some("the machine is being made".to_owned()),
            ..Instance::new(WorkerId::new(launch.name.as_str()), Phase::Running, launch.asked)
        });
        Pool {
            instances: machines.chain(launches).collect(),
            exits: inner.change_log.exits(),
            manual: inner.change_log.manual_changes(),
            ..Pool::default()
        }
    }
}

impl Inner {
    /// The machines as the scaler sees them.
    fn visible(&self) -> Vec<(String, MachineStatus)> {
        let seen =
            self.entries.iter().filter(|(_, entry)| matches!(entry.status, MachineStatus::Up | MachineStatus::Leaving));
        seen.map(|(id, entry)| (id.clone(), entry.status)).collect()
    }

    fn regions(&self) -> HashMap<String, usize> {
        let mut regions = HashMap::new();
        let up = self.entries.values().filter(|entry| entry.status == MachineStatus::Up);
        let launching = self.launches.iter().filter_map(|launch| launch.region.as_ref());
        for region in up.map(|entry| &entry.machine.region).chain(launching) {
            *regions.entry(region.clone()).or_default() += 1;
        }
        regions
    }

    /// A machine that we asked for.
    fn adopt(&mut self, machine: &Arc<Machine>, asked: Timestamp) {
        let entry = Entry::new(machine, MachineStatus::Up, asked);
        self.entries.insert(machine.id.clone(), Entry { desired: DesiredState::Up, asked, ..entry });
    }

    /// Notes what is said of one machine, by whom was asked at `begun`.
    fn account(&mut self, machine: &Arc<Machine>, begun: Timestamp, now: Timestamp) {
        if self.gone.contains_key(&machine.id) {
            return;
        }
        let Some(entry) = self.entries.get_mut(&machine.id) else {
            let launch = self.launches.iter().position(|launch| launch.name == machine.name);
            if let Some(launch) = launch.map(|index| self.launches.remove(index)) {
                self.adopt(machine, launch.asked);
            } else if machine.condition(now) != Condition::Gone {
                let since = machine.asked_at().unwrap_or(now).min(now);
                self.entries.insert(machine.id.clone(), Entry::new(machine, MachineStatus::Gone, since));
            }
            return;
        };
        if begun < entry.asked || machine.updated() < entry.machine.updated() {
            return;
        }
        let was_seen_up = entry.machine.started();
        entry.machine = machine.clone();
        if machine.started() {
            entry.no_room = None;
        }
        // Up as asked; or it has been up in the meantime and is not any more.
        let ended_since = machine.exited().is_some_and(|(at, _)| at > entry.asked) && !machine.started();
        if entry.desired == DesiredState::Up && (machine.started() || (ended_since && was_seen_up)) {
            entry.desired = DesiredState::None;
        }
    }

    /// Brings every machine to the status that it has now, and accounts for each change.
    fn settle(&mut self, now: Timestamp) {
        let up_before = self.entries.values().filter(|entry| entry.status == MachineStatus::Up).count();
        let mut changes = Changes::default();
        let mut gone = Vec::new();
        for (id, entry) in &mut self.entries {
            let gave_up = entry.desired == DesiredState::Up;
            let (was, is) = (entry.status, entry.judged(now));
            entry.status = is;
            match (was, is) {
                (MachineStatus::Up, MachineStatus::Leaving | MachineStatus::Down | MachineStatus::Gone)
                    if !entry.stop_sent =>
                {
                    entry.start_failed |= gave_up && entry.desired == DesiredState::None;
                    match ended(entry, is) {
                        Some((success, detail)) => {
                            entry.crashed = (!success).then_some(now);
                            self.change_log.exit(WorkerId::new(id.as_str()), entry.since, now, success, detail);
                        }
                        None => changes.fewer += 1,
                    }
                }
                (MachineStatus::Gone | MachineStatus::Down, MachineStatus::Up) => {
                    let by_itself = entry.machine.exited().is_some_and(|(_, exited)| exited.restarting);
                    if self.known && !by_itself {
                        changes.more += 1;
                    }
                    (entry.since, entry.stop_sent) = (entry.machine.asked_at().unwrap_or(now).min(now), false);
                }
                _ => {}
            }
            if is == MachineStatus::Gone {
                gone.push(id.clone());
            }
        }
        for id in gone {
            self.entries.remove(&id);
            self.gone.insert(id, now);
        }
        let before = u32::try_from(up_before).unwrap_or(u32::MAX);
        self.change_log.manual(before, changes.applied_to(before), now, changes.to_string());
    }
}

#[cfg(test)]
mod tests;

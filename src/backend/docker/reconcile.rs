//! Brings the registry of a worker type in line with what the engine lists, and says what follows from the difference.
//! Pure: lists and times come in.

use std::collections::{HashMap, HashSet};

use super::{
    changes::{ByHand, ContainerExit},
    container_template::Identity,
    view::{Health, Seen, State},
    worker_registry::{Ended, Inner, Spare, Worker, WorkerRegistry},
};
use crate::model::{Timestamp, WorkerId};

/// Facts about a container that the list lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Known {
    /// The worker in it.
    pub(super) worker: WorkerId,
    /// When it was started.
    pub(super) started_at: Timestamp,
}

/// Facts that the list lacks, by container.
#[derive(Debug, Default)]
pub(super) struct Facts {
    /// Of those that are not in the registry.
    pub(super) strangers: HashMap<String, Known>,
    /// How those ended that did, also those that run again.
    pub(super) endings: HashMap<String, ContainerExit>,
    /// Last output of health checks that began to fail.
    pub(super) health_outputs: HashMap<String, String>,
    /// Those that were started again after that.
    pub(super) restarted: HashSet<String>,
    /// Those that somebody sent a signal to stop.
    pub(super) signalled: HashSet<String>,
    /// Those that were told to stop, or ended, while the engine was away: it does that itself when it starts again.
    pub(super) in_outage: HashSet<String>,
    /// Those that a list showed as ended before an event told of it.
    pub(super) untold: HashSet<String>,
    /// Whether the engine was away since the last list: what ended meanwhile ended with it.
    pub(super) was_away: bool,
}

impl Facts {
    /// Whether a container that was said to have ended has, by the state that a list gives. Engines tell of an end a
    /// little before their lists do.
    pub(super) fn has_ended(&self, container: &str, state: Option<State>) -> bool {
        self.endings.contains_key(container) && (!state.is_some_and(runs) || self.restarted.contains(container))
    }

    /// Returns whether a list must be asked for again, because it shows workers as ended of which no event has told. A
    /// list may be ahead of the events: the signal that somebody sent to the container is still to be read then, and
    /// without it the end looks like one of the worker's own. Waits once for each container.
    pub(super) fn is_ahead(&mut self, ended: Vec<String>) -> bool {
        if self.was_away {
            return false;
        }
        let untold: Vec<String> = ended.into_iter().filter(|container| !self.endings.contains_key(container)).collect();
        let waited_for = self.untold.len();
        self.untold.extend(untold);
        self.untold.len() > waited_for
    }

    /// Forgets what has been taken over with a list. `true` if something is left that the list did not know yet.
    pub(super) fn settle(&mut self, seen: &[Seen]) -> bool {
        let states: HashMap<&str, State> = seen.iter().map(|seen| (seen.id.as_str(), seen.state)).collect();
        let Self { mut endings, restarted, .. } = std::mem::take(self);
        let is_open =
            |container: &str| !restarted.contains(container) && states.get(container).copied().is_some_and(runs);
        endings.retain(|container, _| is_open(container));
        self.endings = endings;
        !self.endings.is_empty()
    }
}

impl WorkerRegistry {
    /// Numbers a list that is about to be asked for.
    pub(super) fn begin_list(&self) -> u64 {
        let mut inner = self.lock();
        inner.lists_begun += 1;
        inner.lists_begun
    }

    /// Running containers that are not in the registry and whose worker is not known.
    pub(super) fn strangers(&self, list: u64, seen: &[Seen]) -> Vec<String> {
        let inner = self.lock();
        let strange = seen.iter().filter(|seen| seen.state.is_alive() && inner.is_stranger(list, seen));
        strange.map(|seen| seen.id.clone()).collect()
    }

    /// Workers that have ended since the last list, and were not asked to.
    pub(super) fn newly_ended(&self, seen: &[Seen]) -> Vec<String> {
        let inner = self.lock();
        let ended = seen.iter().filter(|seen| seen.state == State::Ended);
        let worked = |seen: &&Seen| inner.worker_in(&seen.id).is_some_and(|worker| !worker.leaving);
        ended.filter(worked).map(|seen| seen.id.clone()).collect()
    }

    /// Workers whose health check fails and has not been asked what it says.
    pub(super) fn newly_unhealthy(&self, seen: &[Seen]) -> Vec<String> {
        let inner = self.lock();
        let unhealthy = seen.iter().filter(|seen| seen.state == State::Running(Health::Unhealthy));
        let unasked = |seen: &&Seen| inner.worker_in(&seen.id).is_none_or(|worker| worker.health_output.is_none());
        unhealthy.filter(unasked).map(|seen| seen.id.clone()).collect()
    }

    /// Takes over a list. `true` if a scaler would see a difference.
    pub(super) fn reconcile(&self, list: u64, seen: &[Seen], facts: &Facts, now: Timestamp) -> bool {
        let mut inner = self.lock();
        let before = (inner.seen && inner.unknown.is_none()).then(|| inner.pool(now));
        let mut by_hand = ByHand::default();
        inner.note_signalled(facts, &mut by_hand);
        inner.check_workers(list, seen, facts, now, &mut by_hand);
        inner.check_containers(list, seen, facts, now, &mut by_hand);
        let live = inner.live();
        inner.change_log.manual(by_hand.before(live), live, now, by_hand.to_string());
        inner.gone.retain(|_, last| *last >= list);
        inner.seen = true;
        inner.unknown = None;
        before.is_none_or(|before| before != inner.pool(now))
    }

    /// Ended containers that have lain around since before `since` and are not needed any more.
    pub(super) fn to_clean(&self, since: Timestamp, keep_last: bool) -> Vec<String> {
        let inner = self.lock();
        let due = inner.ended.iter().filter(|ended| ended.since <= since);
        due.filter(|ended| !keep_last || !inner.is_last(&ended.container))
            .map(|ended| ended.container.clone())
            .collect()
    }

    /// Whether a container is the last one of its service: the next one has to be made after its example.
    pub(super) fn is_last(&self, container: &str) -> bool {
        self.lock().is_last(container)
    }

    /// Containers created in advance that are no longer needed: of another template, or surplus and older
    /// than `since`.
    pub(super) fn useless_spares(&self, fingerprint: &str, wanted: u32, since: Timestamp) -> Vec<String> {
        let mut inner = self.lock();
        let mut fitting = 0;
        let (kept, useless): (Vec<Spare>, Vec<Spare>) =
            std::mem::take(&mut inner.spares).into_iter().partition(|spare| {
                let fits = spare.template == fingerprint;
                fitting += u32::from(fits);
                fits && (fitting <= wanted || spare.created_at > since)
            });
        inner.spares = kept;
        useless.into_iter().map(|spare| spare.container).collect()
    }
}

impl Inner {
    fn worker_in(&self, container: &str) -> Option<&Worker> {
        self.workers.iter().find(|worker| worker.container.as_deref() == Some(container))
    }

    fn is_stranger(&self, list: u64, seen: &Seen) -> bool {
        let left = self.gone.get(&seen.id).is_some_and(|last| *last >= list);
        let being_made = self.making.contains(&seen.name)
            || self.workers.iter().any(|worker| worker.container.is_none() && worker.name == seen.name);
        !left && !being_made && self.worker_in(&seen.id).is_none()
    }

    fn is_last(&self, container: &str) -> bool {
        let Some(this) = self.ended.iter().find(|ended| ended.container == container) else {
            let others =
                self.workers.iter().any(|worker| worker.container.as_deref() != Some(container) && !worker.leaving);
            return !others && self.spares.is_empty() && self.waiting == 0 && self.ended.is_empty();
        };
        let others = self.workers.iter().any(|worker| !worker.leaving);
        let newer = |ended: &Ended| (ended.created_at, &ended.container) > (this.created_at, &this.container);
        !others && self.spares.is_empty() && self.waiting == 0 && !self.ended.iter().any(newer)
    }

    /// Somebody else stopped workers: they are no longer capacity.
    fn note_signalled(&mut self, facts: &Facts, by_hand: &mut ByHand) {
        for worker in self.workers.iter_mut().filter(|worker| !worker.leaving) {
            let Some(container) = &worker.container else { continue };
            if facts.in_outage.contains(container) {
                worker.leaving = true;
            } else if facts.signalled.contains(container) {
                worker.leaving = true;
                by_hand.ended.push(worker.name.clone());
            }
        }
    }

    /// Updates the workers in the registry.
    fn check_workers(&mut self, list: u64, seen: &[Seen], facts: &Facts, now: Timestamp, by_hand: &mut ByHand) {
        let listed: HashMap<&str, &Seen> = seen.iter().map(|seen| (seen.id.as_str(), seen)).collect();
        for mut worker in std::mem::take(&mut self.workers) {
            let Some(container) = worker.container.clone().filter(|_| worker.since < list) else {
                self.workers.push(worker);
                continue;
            };
            let state = listed.get(container.as_str()).map(|seen| seen.state);
            let ending =
                facts.endings.get(&container).filter(|_| !worker.leaving && facts.has_ended(&container, state));
            if let Some(ending) = ending.filter(|_| !facts.was_away) {
                let ContainerExit { success, detail } = ending.clone();
                self.change_log.exit(worker.id.clone(), worker.started_at, now, success, detail);
                worker.died_at = Some(now);
                worker.last_end = Some(ending.detail.clone());
            }
            match state {
                Some(state) if state.is_alive() => {
                    worker.state = state;
                    match facts.health_outputs.get(&container) {
                        _ if state != State::Running(Health::Unhealthy) => worker.health_output = None,
                        Some(output) => worker.health_output = Some(output.clone()),
                        None => {}
                    }
                    self.workers.push(worker);
                }
                None if !worker.leaving && ending.is_none() && !facts.was_away => by_hand.ended.push(worker.name),
                _ => {}
            }
        }
    }

    /// Updates all other containers.
    fn check_containers(&mut self, list: u64, seen: &[Seen], facts: &Facts, now: Timestamp, by_hand: &mut ByHand) {
        let spares: HashSet<String> =
            std::mem::take(&mut self.spares).into_iter().map(|spare| spare.container).collect();
        let ended: HashMap<String, Timestamp> =
            std::mem::take(&mut self.ended).into_iter().map(|ended| (ended.container, ended.since)).collect();
        self.waiting = 0;
        for seen in seen {
            self.highest = self.highest.max(seen.number.unwrap_or_default());
            if !self.is_stranger(list, seen) {
                continue;
            }
            match seen.state {
                State::Created => match spare(seen) {
                    Some(spare) => self.spares.push(spare),
                    None => self.waiting += 1,
                },
                State::Ended => {
                    let since = ended.get(&seen.id).copied().unwrap_or(now);
                    self.ended.push(Ended { container: seen.id.clone(), created_at: seen.created_at, since });
                }
                State::Removing => {}
                State::Running(_) | State::Paused | State::Restarting => {
                    let ours = seen
                        .launch
                        .as_ref()
                        .is_some_and(|launch| self.launches.contains(launch) || !spares.contains(&seen.id));
                    if self.seen && !ours {
                        by_hand.made.push(seen.name.clone());
                    }
                    self.adopt(list, seen, facts.strangers.get(&seen.id), now);
                }
            }
        }
    }

    fn adopt(&mut self, list: u64, seen: &Seen, known: Option<&Known>, now: Timestamp) {
        let Some(id) = seen.worker.clone().or_else(|| known.map(|known| known.worker.clone())) else { return };
        self.workers.push(Worker {
            id,
            name: seen.name.clone(),
            container: Some(seen.id.clone()),
            state: seen.state,
            started_at: known.map_or(now, |known| known.started_at.min(now)),
            leaving: false,
            died_at: None,
            last_end: None,
            health_output: None,
            since: list - 1,
        });
    }
}

/// Whether the state is that of a container in which nothing has ended yet.
fn runs(state: State) -> bool {
    matches!(state, State::Running(_) | State::Paused)
}

/// A container of ours that was never started.
fn spare(seen: &Seen) -> Option<Spare> {
    let identity = Identity {
        name: seen.name.clone(),
        number: seen.number?,
        worker: seen.worker.clone()?,
        launch: seen.launch.clone()?,
    };
    let (container, template) = (seen.id.clone(), seen.template.clone()?);
    Some(Spare { container, identity, template, created_at: seen.created_at })
}

#[cfg(test)]
mod tests;

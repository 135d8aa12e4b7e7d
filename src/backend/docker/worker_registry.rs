//! Registry of one worker type's containers: running, starting, draining, and created in advance. Every method is a
//! short critical section, so observing never waits for the engine. Does no I/O: [`reconcile`](super::reconcile) brings
//! in what the engine lists.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use uuid::Uuid;

use super::{
    container_template::{ContainerTemplate, Identity, Owner},
    view::{Health, State},
};
use crate::{
    backend::{BackendError, Instance, Phase, Pool, change_log::ChangeLog},
    model::{Timestamp, WorkerId},
};

/// How long a container that ended by itself and was restarted by the engine counts as failing.
const PROBATION: Duration = Duration::from_secs(60);

/// Launches remembered: more than an engine has under way when it stops answering.
const LAUNCHES_KEPT: usize = 1_024;

/// One worker type's registry.
#[derive(Debug, Default)]
pub(super) struct WorkerRegistry {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
pub(super) struct Inner {
    pub(super) workers: Vec<Worker>,
    /// Ours, made and never started: made in advance, or left over from a start that failed halfway.
    pub(super) spares: Vec<Spare>,
    /// Being made in advance.
    pub(super) making: Vec<String>,
    /// Containers that ended and still exist.
    pub(super) ended: Vec<Ended>,
    /// Containers that were made by somebody else and not started yet.
    pub(super) waiting: u32,
    /// Containers that left the registry, with the number of the last list begun before: an older list still shows
    /// them.
    pub(super) gone: HashMap<String, u64>,
    /// Our latest launches: what appears under one of them was not made by hand, however late it comes.
    pub(super) launches: VecDeque<String>,
    pub(super) change_log: ChangeLog,
    /// The highest number that any container ever had. None is used twice: a name would bring back its old heartbeat.
    pub(super) highest: u32,
    pub(super) lists_begun: u64,
    /// Whether the engine has been seen at all.
    pub(super) seen: bool,
    pub(super) unknown: Option<BackendError>,
    closed: bool,
}

/// One worker.
#[derive(Clone, Debug)]
pub(super) struct Worker {
    pub(super) id: WorkerId,
    pub(super) name: String,
    /// None while it is being started.
    pub(super) container: Option<String>,
    pub(super) state: State,
    pub(super) started_at: Timestamp,
    /// Asked to leave, by us or somebody else.
    pub(super) leaving: bool,
    /// When it last ended by itself and was restarted.
    pub(super) died_at: Option<Timestamp>,
    /// How it last ended by itself.
    pub(super) last_end: Option<String>,
    /// What its health check last said, while that fails.
    pub(super) health_output: Option<String>,
    /// The last list begun before it got its container: only a later one can miss it.
    pub(super) since: u64,
}

/// A container that lies ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Spare {
    pub(super) container: String,
    pub(super) identity: Identity,
    pub(super) template: String,
    pub(super) created_at: Timestamp,
}

/// A container that ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) container: String,
    pub(super) created_at: Timestamp,
    /// When that was noticed.
    pub(super) since: Timestamp,
}

/// Leave to start one worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ticket {
    pub(super) identity: Identity,
    /// The container, if one lies ready.
    pub(super) spare: Option<String>,
}

impl Worker {
    fn phase(&self, now: Timestamp) -> Phase {
        match self.state {
            _ if self.leaving => Phase::Draining,
            State::Paused => Phase::Suspended,
            State::Running(Health::Healthy) => Phase::Ready,
            State::Restarting | State::Running(Health::Unhealthy) => Phase::Failing,
            _ if self.died_at.is_some_and(|at| now.since(at) < PROBATION) => Phase::Failing,
            _ => Phase::Running,
        }
    }

    /// Why it does not work, in the words of the engine and of its health check.
    fn reason(&self, now: Timestamp) -> Option<String> {
        let ended = self.last_end.as_deref().unwrap_or("it ended");
        match self.state {
            _ if self.leaving => None,
            State::Running(Health::Unhealthy) => Some(match &self.health_output {
                Some(output) => format!("unhealthy: {output}"),
                None => "unhealthy".to_owned(),
            }),
            State::Restarting => Some(format!("restarting: {ended}")),
            _ if self.died_at.is_some_and(|at| now.since(at) < PROBATION) => Some(format!("restarted: {ended}")),
            _ => None,
        }
    }

    /// Whether it counts towards a target.
    pub(super) fn counts(&self) -> bool {
        !self.leaving && self.state != State::Paused
    }
}

impl Inner {
    pub(super) fn live(&self) -> u32 {
        u32::try_from(self.workers.iter().filter(|worker| worker.counts()).count()).unwrap_or(u32::MAX)
    }

    fn identity(&mut self, template: &ContainerTemplate, owner: Owner<'_>) -> Identity {
        self.highest += 1;
        let name = template.name(owner, self.highest);
        let launch = Uuid::now_v7();
        let [.., a, b] = launch.into_bytes();
        let worker = WorkerId::new(format!("{name}-{a:02x}{b:02x}"));
        Identity { name, number: self.highest, worker, launch: launch.to_string() }
    }

    fn note_launch(&mut self, identity: &Identity) {
        if self.launches.len() == LAUNCHES_KEPT {
            self.launches.pop_front();
        }
        self.launches.push_back(identity.launch.clone());
    }

    /// Takes a container off, so that a list from before does not bring it back.
    pub(super) fn forget(&mut self, container: &str) {
        self.workers.retain(|worker| worker.container.as_deref() != Some(container));
        self.spares.retain(|spare| spare.container != container);
        self.ended.retain(|ended| ended.container != container);
        self.gone.insert(container.to_owned(), self.lists_begun);
    }
}

impl WorkerRegistry {
    /// Nothing panics halfway through a change, so the registry of a poisoned lock is right.
    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Workers that count towards a target.
    pub(super) fn live(&self) -> u32 {
        self.lock().live()
    }

    /// Puts as many workers in the registry as are missing to `target`; those that lie ready come first. `None` once
    /// closed.
    pub(super) fn reserve(
        &self,
        template: &ContainerTemplate,
        owner: Owner<'_>,
        target: u32,
        now: Timestamp,
    ) -> Option<Vec<Ticket>> {
        let mut inner = self.lock();
        if inner.closed {
            return None;
        }
        let missing = target.saturating_sub(inner.live());
        let tickets = (0..missing).map(|_| {
            let ready = inner.spares.iter().position(|spare| spare.template == template.fingerprint);
            let ticket = if let Some(index) = ready {
                let spare = inner.spares.remove(index);
                Ticket { identity: spare.identity, spare: Some(spare.container) }
            } else {
                Ticket { identity: inner.identity(template, owner), spare: None }
            };
            inner.note_launch(&ticket.identity);
            inner.workers.push(Worker {
                id: ticket.identity.worker.clone(),
                name: ticket.identity.name.clone(),
                container: None,
                state: State::Created,
                started_at: now,
                leaving: false,
                died_at: None,
                last_end: None,
                health_output: None,
                since: 0,
            });
            ticket
        });
        Some(tickets.collect())
    }

    /// Another name for a worker whose name turned out to be in use.
    pub(super) fn rename(&self, ticket: &Ticket, template: &ContainerTemplate, owner: Owner<'_>) -> Ticket {
        let mut inner = self.lock();
        let identity = inner.identity(template, owner);
        inner.note_launch(&identity);
        if let Some(worker) = inner.workers.iter_mut().find(|worker| worker.id == ticket.identity.worker) {
            worker.id = identity.worker.clone();
            worker.name.clone_from(&identity.name);
        }
        for name in inner.making.iter_mut().filter(|name| **name == ticket.identity.name) {
            name.clone_from(&identity.name);
        }
        Ticket { identity, spare: None }
    }

    /// A reserved worker runs. `true` if it was asked to leave meanwhile.
    pub(super) fn started(&self, ticket: &Ticket, container: &str) -> bool {
        let mut inner = self.lock();
        let since = inner.lists_begun;
        let Some(worker) = inner.workers.iter_mut().find(|worker| worker.id == ticket.identity.worker) else {
            return false;
        };
        worker.container = Some(container.to_owned());
        worker.state = State::Running(Health::Unchecked);
        worker.since = since;
        worker.leaving
    }

    /// A reserved worker could not be started.
    pub(super) fn cancel(&self, ticket: &Ticket) {
        self.lock().workers.retain(|worker| worker.id != ticket.identity.worker);
    }

    /// Asks those of `ids` that work and were not asked before to leave; returns them in the order of `ids`, with their
    /// containers. One that is still being started has none yet.
    pub(super) fn retire(&self, ids: &[WorkerId]) -> Vec<(WorkerId, Option<String>)> {
        let mut inner = self.lock();
        let mut retired = Vec::new();
        for id in ids {
            if let Some(worker) = inner.workers.iter_mut().find(|worker| worker.id == *id && !worker.leaving) {
                worker.leaving = true;
                retired.push((id.clone(), worker.container.clone()));
            }
        }
        retired
    }

    /// Returns the containers of those of `ids` that were asked to leave and run.
    pub(super) fn draining(&self, ids: &[WorkerId]) -> Vec<String> {
        let inner = self.lock();
        let asked = inner.workers.iter().filter(|worker| worker.leaving && ids.contains(&worker.id));
        asked.filter_map(|worker| worker.container.clone()).collect()
    }

    /// Everybody who works.
    pub(super) fn everybody(&self) -> Vec<WorkerId> {
        self.lock().workers.iter().map(|worker| worker.id.clone()).collect()
    }

    /// A worker has left, and its container stays for now.
    pub(super) fn rest(&self, container: &str, now: Timestamp) {
        let mut inner = self.lock();
        inner.workers.retain(|worker| worker.container.as_deref() != Some(container));
        if inner.ended.iter().all(|ended| ended.container != container) {
            let container = container.to_owned();
            inner.ended.push(Ended { container, created_at: now, since: now });
        }
    }

    /// A container is gone for good.
    pub(super) fn forget(&self, container: &str) {
        self.lock().forget(container);
    }

    /// Refuses reservations from now on; returns the containers created in advance.
    pub(super) fn close(&self) -> Vec<Spare> {
        let mut inner = self.lock();
        inner.closed = true;
        std::mem::take(&mut inner.spares)
    }

    /// Leave to make containers in advance until there are `wanted`, no more than could ever be started.
    pub(super) fn reserve_spares(
        &self,
        template: &ContainerTemplate,
        owner: Owner<'_>,
        wanted: u32,
        max: u32,
    ) -> Vec<Ticket> {
        let mut inner = self.lock();
        // Starting somebody is more urgent than being ready for the next one.
        if inner.closed || !inner.seen || inner.workers.iter().any(|worker| worker.container.is_none()) {
            return Vec::new();
        }
        let wanted = wanted.min(max.saturating_sub(inner.live())) as usize;
        let fitting = inner.spares.iter().filter(|spare| spare.template == template.fingerprint).count();
        let missing = wanted.saturating_sub(fitting + inner.making.len());
        (0..missing)
            .map(|_| {
                let identity = inner.identity(template, owner);
                // No launch yet: whoever starts it before we do is somebody else.
                inner.making.push(identity.name.clone());
                Ticket { identity, spare: None }
            })
            .collect()
    }

    /// Records the outcome of creating a container in advance. `false` if it is no longer needed.
    pub(super) fn made(&self, ticket: &Ticket, made: Option<(String, &ContainerTemplate)>, now: Timestamp) -> bool {
        let mut inner = self.lock();
        inner.making.retain(|name| *name != ticket.identity.name);
        let Some((container, template)) = made else { return true };
        if inner.closed {
            return false;
        }
        if inner.spares.iter().all(|spare| spare.container != container) {
            let (identity, template) = (ticket.identity.clone(), template.fingerprint.clone());
            inner.spares.push(Spare { container, identity, template, created_at: now });
        }
        true
    }

    /// Nothing can be told about the workers until the next list. `true` if it could before.
    pub(super) fn lose_sight(&self, why: BackendError) -> bool {
        self.lock().unknown.replace(why).is_none()
    }

    /// Whether the engine was never asked: neither a list has come nor the failure of one.
    pub(super) fn is_blank(&self) -> bool {
        let inner = self.lock();
        inner.unknown.is_none() && !inner.seen
    }

    /// Whether the engine has ever been listed.
    pub(super) fn has_seen(&self) -> bool {
        self.lock().seen
    }

    /// Returns the pool as the scaler sees it; an error while it is unknown.
    pub(super) fn pool(&self, now: Timestamp) -> Result<Pool, BackendError> {
        let inner = self.lock();
        match &inner.unknown {
            Some(why) => Err(why.clone()),
            None if !inner.seen => Err(BackendError::retryable("the docker engine has not been asked yet")),
            None => Ok(inner.pool(now)),
        }
    }
}

impl Inner {
    pub(super) fn pool(&self, now: Timestamp) -> Pool {
        let instance = |worker: &Worker| Instance {
            reason: worker.reason(now),
            ..Instance::new(worker.id.clone(), worker.phase(now), worker.started_at)
        };
        Pool {
            instances: self.workers.iter().map(instance).collect(),
            exits: self.change_log.exits(),
            manual: self.change_log.manual_changes(),
            ..Pool::default()
        }
    }
}

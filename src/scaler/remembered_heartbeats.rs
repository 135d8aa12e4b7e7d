//! The heartbeats that an evaluation need not read again, so that it costs by what changes and not by how many workers
//! exist. Pure: times and readings come in.
//!
//! Only heartbeats of idle workers are remembered, of those that don't limit their sessions and hold no job as far as
//! the queue tells. A job that such a worker takes is seen in the queue by the same observation. All others are read
//! each time: busy workers, workers without a heartbeat, and all workers of a queue that does not tell who holds its
//! jobs. An absent heartbeat and a failed reading are never remembered.
//!
//! When a heartbeat could have lapsed, it is enough to know that its key still exists, because workers tell when they
//! change. That costs one command for many workers. From time to time each is read all the same.
//!
//! Must not serve to let a worker go: before that, the actor asks for an observation in full
//! (`docs/adr/0070-idle-heartbeats-are-remembered.md`).

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;

use super::worker_tracker::JobHolders;
use crate::{
    backend::{Instance, Phase},
    model::{Reading, Source, Timestamp, WorkerId, WorkerState},
    probe::{Answer, Heartbeat},
    signal::WorkerNews,
};

/// A heartbeat is read again at the latest after this multiple of the time in which it can't lapse, even if it exists:
/// not everything that changes on a worker is news.
const LIFETIMES: u32 = 3;

/// The remembered heartbeats of one worker type. Takes a pointer while there are none, because there may be ten
/// thousand worker types.
#[derive(Debug, Default)]
pub(super) struct RememberedHeartbeats(Option<Box<ByWorker>>);

#[derive(Debug, Default)]
struct ByWorker {
    heartbeats: HashMap<WorkerId, Remembered>,
}

#[derive(Clone, Copy, Debug)]
struct Remembered {
    heartbeat: Heartbeat,
    /// When it was asked for.
    read_at: Instant,
    /// When it or its existence was last asked for.
    seen_at: Instant,
    /// What the backend said of the worker then.
    listed: Listed,
}

/// The part of the backend's list whose change is news of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Listed {
    phase: Phase,
    started_at: Timestamp,
    began_at: Option<Timestamp>,
}

impl Listed {
    fn of(instance: &Instance) -> Self {
        Self { phase: instance.phase, started_at: instance.started_at, began_at: instance.began_at }
    }
}

/// What an observation must ask about a worker's heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Recalled {
    /// All of it.
    Nothing,
    /// Whether it still exists.
    IfItExists(Heartbeat),
    /// Nothing at all: it is remembered.
    All(Heartbeat),
}

impl Recalled {
    /// Returns what to ask instead if not all of the heartbeats exist whose existence was asked.
    pub(super) fn without_existence(self) -> Self {
        match self {
            Self::IfItExists(_) => Self::Nothing,
            other => other,
        }
    }
}

/// Returns whether a signal may stand for news of workers that were missed, so that all heartbeats are read. The others
/// tell of queues or of time, or the news name the workers.
pub(super) fn may_hide_news(source: Source) -> bool {
    match source {
        Source::Keyspace | Source::Channel | Source::Tracking | Source::Backend | Source::Recheck | Source::Budget => {
            false
        }
        Source::Resync | Source::Sweep | Source::Manual | Source::Leadership | Source::Control | Source::Reload => true,
    }
}

impl RememberedHeartbeats {
    /// Forgets all heartbeats: the next look reads each of them.
    pub(super) fn forget(&mut self) {
        self.0 = None;
    }

    /// Forgets the heartbeats that there is news of.
    pub(super) fn note_news(&mut self, news: &WorkerNews) {
        match (news, &mut self.0) {
            (WorkerNews::OfAny, _) => self.forget(),
            (WorkerNews::Of(workers), Some(known)) => {
                for worker in workers {
                    known.heartbeats.remove(worker);
                }
            }
            (WorkerNews::Of(_), None) => {}
        }
    }

    /// Returns what is remembered at `now` of the heartbeat of each instance, in their order. A heartbeat is valid for
    /// `lifetime`, unless the backend's list says something new about its worker, and for some more lifetimes while it
    /// exists. Forgets the workers that are not listed any more.
    pub(super) fn recall(&mut self, instances: &[Instance], lifetime: Duration, now: Instant) -> Vec<Recalled> {
        let Some(ByWorker { heartbeats }) = self.0.as_deref_mut() else {
            return vec![Recalled::Nothing; instances.len()];
        };
        let mut listed = 0;
        let mut recall = |instance: &Instance| {
            let Some(remembered) = heartbeats.get(&instance.id) else { return Recalled::Nothing };
            listed += 1;
            if now >= remembered.read_at + lifetime * LIFETIMES || remembered.listed != Listed::of(instance) {
                Recalled::Nothing
            } else if now >= remembered.seen_at + lifetime {
                Recalled::IfItExists(remembered.heartbeat)
            } else {
                Recalled::All(remembered.heartbeat)
            }
        };
        let recalled = instances.iter().map(&mut recall).collect();
        if listed < heartbeats.len() {
            let mut before = std::mem::take(heartbeats);
            let still_there = |instance: &Instance| before.remove_entry(&instance.id);
            heartbeats.extend(instances.iter().filter_map(still_there));
        }
        recalled
    }

    /// Completes an answer, whose heartbeats are those of the instances of which [`recall`](Self::recall) remembered
    /// nothing. They were asked for at `asked_at`, and those whose existence was asked exist. Remembers those of idle
    /// workers. Returns whether the answer now contains remembered heartbeats.
    pub(super) fn complete(
        &mut self,
        answer: &mut Answer,
        instances: &[Instance],
        recalled: Vec<Recalled>,
        asked_at: Instant,
    ) -> bool {
        let Reading::Known(read) = &mut answer.heartbeats else {
            self.forget();
            return false;
        };
        let mut read = std::mem::take(read).into_iter();
        let holders = JobHolders::of_group(&answer.consumers);
        let mut heartbeats = self.0.take().unwrap_or_default().heartbeats;
        let mut is_partial = false;
        let mut all = Vec::with_capacity(instances.len());
        for (instance, recalled) in instances.iter().zip(recalled) {
            is_partial |= recalled != Recalled::Nothing;
            let heartbeat = match recalled {
                Recalled::All(heartbeat) | Recalled::IfItExists(heartbeat) => Reading::Known(Some(heartbeat)),
                Recalled::Nothing => read.next().unwrap_or(Reading::Known(None)),
            };
            let holds_none = holders.holds_jobs(instance.id.as_str()) == Some(false);
            let kept = heartbeat.known().copied().flatten().filter(|heartbeat| holds_none && is_idle(heartbeat));
            match (kept, recalled) {
                (None, _) => drop(heartbeats.remove(&instance.id)),
                (Some(_), Recalled::All(_)) => {}
                (Some(_), Recalled::IfItExists(_)) => {
                    if let Some(remembered) = heartbeats.get_mut(&instance.id) {
                        remembered.seen_at = asked_at;
                    }
                }
                (Some(heartbeat), Recalled::Nothing) => {
                    let listed = Listed::of(instance);
                    let remembered = Remembered { heartbeat, read_at: asked_at, seen_at: asked_at, listed };
                    heartbeats.insert(instance.id.clone(), remembered);
                }
            }
            all.push(heartbeat);
        }
        self.0 = (!heartbeats.is_empty()).then(|| Box::new(ByWorker { heartbeats }));
        answer.heartbeats = Reading::Known(all);
        is_partial
    }
}

/// Returns whether nothing is open on the worker of a heartbeat, and nothing but a job could change that.
fn is_idle(heartbeat: &Heartbeat) -> bool {
    matches!(heartbeat, Heartbeat { state: WorkerState::Idle, sessions: 0, places: None })
}

#[cfg(test)]
mod tests;

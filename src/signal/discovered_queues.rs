//! Queues discovered by patterns, and the worker types that each of them feeds. Every push looks up its key here, so a
//! known key costs one lookup under a read lock. A signal or a search registers a key; the next search that misses it
//! removes it. The prober, the only reader of a worker type's keys, takes what came and went. Must not talk to Redis:
//! [`QueueFinder`](super::QueueFinder) does.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::Notify;

use super::WatchedType;
use crate::{
    model::{Queues, Reading, WorkerType},
    queue_kind::{Delivery, QueueKind},
};

/// Maximum queues discovered for one worker type. Reading one takes three commands, so a sweep of this many keeps Redis
/// busy for a few tenths of a second. A pattern that matches more is more likely a mistake than a fleet.
const MAX_DISCOVERED: usize = 10_000;

/// What a signal says about its key, in case the key is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyEvent<'a> {
    /// The key changed; this alone does not make it a queue.
    Change,
    /// The key is a queue of an unspecified kind.
    Queue,
    /// A keyspace event of this name.
    Named(&'a [u8]),
    /// A search for keys of this type returned the key.
    OfType(&'a str),
}

impl KeyEvent<'_> {
    fn may_be(self, kind: QueueKind) -> bool {
        match self {
            Self::Change => false,
            Self::Queue => true,
            Self::Named(event) => kind.arrival_events().iter().any(|arrival| arrival.as_bytes() == event),
            Self::OfType(redis_type) => kind.redis_type() == redis_type,
        }
    }
}

/// Changes of the discovered queues of one worker type, so that its reader need not go through all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiscoveredChanges {
    /// New keys, in order.
    pub came: Vec<Arc<str>>,
    /// Keys that are gone, in order.
    pub went: Vec<Arc<str>>,
    /// Known if the discovered queues are all queues; otherwise why more may exist.
    pub all: Reading<()>,
}

/// A worker type with patterns.
#[derive(Debug)]
pub(super) struct PatternedType {
    pub(super) index: u32,
    pub(super) kind: QueueKind,
    pub(super) queues: Queues,
    worker_type: WorkerType,
    group: Box<str>,
}

/// A discovered key.
#[derive(Debug)]
struct Key {
    /// Positions in the list of worker types with patterns; never empty.
    feeds: Vec<usize>,
    /// The last search that saw the key.
    seen: AtomicU64,
}

/// The keys of one worker type.
#[derive(Debug)]
struct OfType {
    keys: BTreeSet<Arc<str>>,
    /// Keys that came or went since the changes were last taken. A key that did both is not among them.
    untaken: BTreeSet<Arc<str>>,
    /// The result of the last search.
    searched: Reading<()>,
    /// The last search that skipped a key because of the limit.
    too_many: Option<u64>,
}

impl OfType {
    fn insert(&mut self, key: Arc<str>) {
        if self.keys.insert(key.clone()) {
            self.note_change(key);
        }
    }

    /// Returns whether the key was there.
    fn remove(&mut self, key: &str) -> bool {
        let Some(key) = self.keys.take(key) else { return false };
        self.note_change(key);
        true
    }

    fn note_change(&mut self, key: Arc<str>) {
        if !self.untaken.remove(&key) {
            self.untaken.insert(key);
        }
    }

    /// Known if the keys are all queues.
    fn all(&self) -> Reading<()> {
        match &self.searched {
            Reading::Known(()) if self.too_many.is_some() => {
                let why =
                    format!("its patterns match more than {MAX_DISCOVERED} queues, and those beyond are not looked at");
                Reading::Unknown(why)
            }
            searched => searched.clone(),
        }
    }
}

#[derive(Debug, Default)]
struct State {
    keys: HashMap<Arc<str>, Key>,
    of_types: Vec<OfType>,
    /// Pairs of worker types with a warning about a shared queue.
    told: BTreeSet<(usize, usize)>,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct QueueDiscovery {
    types: Vec<PatternedType>,
    state: RwLock<State>,
    /// Number of the running or last search.
    search: AtomicU64,
    /// Notified when keys may have come or gone without a signal.
    pub(super) wanted: Notify,
}

impl QueueDiscovery {
    pub(super) fn new(watched: &[WatchedType]) -> Self {
        let patterned = |(index, of): (u32, &WatchedType)| {
            let several = of.several.as_ref().filter(|several| !several.queues.patterns.is_empty())?;
            Some(PatternedType {
                index,
                kind: of.kind,
                queues: several.queues.clone(),
                worker_type: of.worker_type.clone(),
                group: several.group.clone(),
            })
        };
        let types: Vec<PatternedType> = (0..).zip(watched).filter_map(patterned).collect();
        let unsearched = || OfType {
            keys: BTreeSet::new(),
            untaken: BTreeSet::new(),
            searched: Reading::Unknown("its queues are still being looked for".to_owned()),
            too_many: None,
        };
        let state = State { of_types: types.iter().map(|_| unsearched()).collect(), ..State::default() };
        Self { types, state: RwLock::new(state), search: AtomicU64::new(0), wanted: Notify::new() }
    }

    /// Returns the worker types with patterns.
    pub(super) fn types(&self) -> &[PatternedType] {
        &self.types
    }

    /// Returns the position of a worker type. The list is sorted by index.
    fn place_of(&self, index: u32) -> Option<usize> {
        self.types.binary_search_by_key(&index, |of| of.index).ok()
    }

    /// Takes the changes since they were last taken; none for a type without patterns. Usually there are none, and no
    /// push has to wait for the lock.
    pub(super) fn take_changes(&self, index: u32) -> DiscoveredChanges {
        let unchanged = |all| DiscoveredChanges { came: Vec::new(), went: Vec::new(), all };
        let Some(place) = self.place_of(index) else { return unchanged(Reading::Known(())) };
        let state = self.read();
        if state.of_types[place].untaken.is_empty() {
            return unchanged(state.of_types[place].all());
        }
        drop(state);
        let of = &mut self.write().of_types[place];
        let changed = std::mem::take(&mut of.untaken);
        let (came, went) = changed.into_iter().partition(|key| of.keys.contains(key));
        DiscoveredChanges { came, went, all: of.all() }
    }

    /// Calls `feeds` with each worker type that the key feeds by a pattern. An unknown key is registered if the event
    /// says that it is a queue. Must be fast: every push calls it.
    pub(super) fn each(&self, key: &[u8], event: KeyEvent<'_>, mut feeds: impl FnMut(u32)) {
        if self.types.is_empty() {
            return;
        }
        let Ok(key) = std::str::from_utf8(key) else { return };
        if !self.see_known(key, &mut feeds) {
            self.register(key, event).into_iter().for_each(|place| feeds(self.types[place].index));
        }
    }

    /// Registers a key that a search returned. Returns the worker types for which it is new.
    pub(super) fn see(&self, key: &str, event: KeyEvent<'_>) -> Vec<u32> {
        if self.see_known(key, &mut |_| ()) {
            return Vec::new();
        }
        self.register(key, event).into_iter().map(|place| self.types[place].index).collect()
    }

    /// Returns whether the key is known, and calls `feeds` with each worker type that it feeds.
    fn see_known(&self, key: &str, feeds: &mut impl FnMut(u32)) -> bool {
        let state = self.read();
        let Some(known) = state.keys.get(key) else { return false };
        known.seen.store(self.search.load(Ordering::Acquire), Ordering::Release);
        known.feeds.iter().for_each(|place| feeds(self.types[*place].index));
        true
    }

    /// Begins a search: keys seen from now on exist.
    pub(super) fn begin_search(&self) {
        self.search.fetch_add(1, Ordering::AcqRel);
    }

    /// Ends a search for a worker type and removes the keys that it did not see. Returns whether anything changed.
    pub(super) fn finish_search(&self, place: usize) -> bool {
        let search = self.search.load(Ordering::Acquire);
        let mut state = self.write();
        let State { keys, of_types, .. } = &mut *state;
        let of = &mut of_types[place];
        let is_seen = |key: &str| keys.get(key).is_some_and(|known| known.seen.load(Ordering::Acquire) >= search);
        let gone: Vec<Arc<str>> = of.keys.iter().filter(|key| !is_seen(key)).cloned().collect();
        for key in &gone {
            of.remove(key);
            unlink(keys, key, place);
        }
        of.too_many = of.too_many.filter(|last| *last >= search);
        let was = std::mem::replace(&mut of.searched, Reading::Known(()));
        was.known().is_none() || !gone.is_empty()
    }

    /// Records that a search failed. Returns whether that is new.
    pub(super) fn fail_search(&self, place: usize, why: &str) -> bool {
        let searched = &mut self.write().of_types[place].searched;
        let failed = Reading::Failed(why.to_owned());
        std::mem::replace(searched, failed.clone()) != failed
    }

    /// Removes a key that is not a queue of this worker type.
    pub(super) fn forget(&self, index: u32, key: &str) {
        let Some(place) = self.place_of(index) else { return };
        let mut state = self.write();
        let State { keys, of_types, .. } = &mut *state;
        if of_types[place].remove(key) {
            unlink(keys, key, place);
        }
    }

    /// Registers an unknown key. Returns the positions of the worker types that take it.
    fn register(&self, key: &str, event: KeyEvent<'_>) -> Vec<usize> {
        let takers = self.types.iter().enumerate().filter(|(_, of)| event.may_be(of.kind) && of.queues.finds(key));
        let takers: Vec<usize> = takers.map(|(place, _)| place).collect();
        if takers.is_empty() {
            return takers;
        }
        let name: Arc<str> = key.into();
        let search = self.search.load(Ordering::Acquire);
        let mut state = self.write();
        let State { keys, of_types, told } = &mut *state;
        let mut feeds: Vec<usize> = Vec::with_capacity(takers.len());
        for place in takers {
            let keeper = feeds.iter().copied().find(|keeper| self.types[*keeper].takes_jobs_of(&self.types[place]));
            if let Some(keeper) = keeper {
                if told.insert((keeper, place)) {
                    self.warn_shared_queue(key, keeper, place);
                }
            } else if of_types[place].keys.len() < MAX_DISCOVERED {
                of_types[place].insert(name.clone());
                feeds.push(place);
            } else if of_types[place].too_many.replace(search).is_none() {
                let worker_type = &self.types[place].worker_type;
                tracing::warn!(%worker_type, "its patterns match more than {MAX_DISCOVERED} queues; those beyond are not looked at");
            }
        }
        if !feeds.is_empty() {
            keys.insert(name, Key { feeds: feeds.clone(), seen: AtomicU64::new(search) });
        }
        feeds
    }

    fn warn_shared_queue(&self, queue: &str, keeper: usize, other: usize) {
        let [keeper, worker_type] = [keeper, other].map(|place| &self.types[place].worker_type);
        tracing::warn!(
            %worker_type, %queue,
            "its patterns match a queue that `{keeper}` has by its own and reads in the same group; it is left to that one"
        );
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PatternedType {
    /// Returns whether both would take the same jobs from a queue; with consumer groups, if the group is the same.
    fn takes_jobs_of(&self, other: &Self) -> bool {
        self.kind == other.kind && (self.kind.delivery() == Delivery::Removal || self.group == other.group)
    }
}

fn unlink(keys: &mut HashMap<Arc<str>, Key>, key: &str, place: usize) {
    if let Some(known) = keys.get_mut(key) {
        known.feeds.retain(|feeds| *feeds != place);
        if known.feeds.is_empty() {
            keys.remove(key);
        }
    }
}

#[cfg(test)]
mod tests;

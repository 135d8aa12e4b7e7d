//! Watches the engine: every event is a hint to list, a list is the truth. Subscribes first and lists then, so nothing
//! falls between; what an event says beyond the list (how a container ended, that somebody stopped it) is kept until
//! the next list has come.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bollard::models::EventMessage;
use futures_util::StreamExt;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tracing::{debug, info};

use super::{
    DockerShared, TypePool, changes::ContainerExit, container_template::ContainerTemplate, error::EngineError,
    housekeeping, inspection, labels, reconcile::Facts, self_container::SelfContainer, view::Seen,
};
use crate::model::Timestamp;

/// Between two lists: a burst of events, such as many starts, costs one list per interval.
const LIST_GAP: Duration = Duration::from_millis(20);

/// How often a list is repeated that does not know yet of an end that an event told of.
const REPEATS: u32 = 100;

/// How far back to look for events that a broken stream may have swallowed, and for clocks that differ.
const OVERLAP: Duration = Duration::from_secs(2);

/// The first pause before an engine is tried again, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Between two rounds of housekeeping.
const HOUSEKEEPING_INTERVAL: Duration = Duration::from_secs(5);

/// Signals that mean the end of a container.
const FATAL_SIGNALS: [&str; 4] = ["2", "3", "9", "15"];

/// The task that watches.
pub(super) struct Watcher {
    shared: Arc<DockerShared>,
    project: Option<String>,
    /// Of the engine's clock, in nanoseconds.
    last_event: i64,
    /// The last event of the stream before: one stream tells no event twice, though not always in the order of time.
    told_until: i64,
    /// The end of the last outage, likewise. Containers that the engine stopped during the outage are not manual
    /// changes.
    back_since: i64,
    facts: Facts,
    out_of_memory: BTreeSet<String>,
}

impl Watcher {
    pub(super) fn new(shared: Arc<DockerShared>, project: Option<String>) -> Self {
        let (facts, out_of_memory) = Default::default();
        let (last_event, back_since) = (nanoseconds(shared.clock.now()), 0);
        Self { shared, project, last_event, told_until: last_event, back_since, facts, out_of_memory }
    }

    /// Until the backend stops.
    pub(super) async fn run(mut self) {
        let stop = self.shared.stop.clone();
        stop.run_until_cancelled(self.watch()).await;
        // Nobody waits for a list that will not come.
        self.shared.resync.end(u64::MAX);
    }

    async fn watch(&mut self) {
        let mut pause = PAUSES.0;
        loop {
            let began = Instant::now();
            if let Err(error) = self.follow().await {
                self.lose_sight(error);
            }
            pause = if began.elapsed() > PAUSES.1 { PAUSES.0 } else { (pause * 2).min(PAUSES.1) };
            tokio::time::sleep(pause).await;
        }
    }

    /// Follows the engine. `Ok` when only its event stream has ended.
    async fn follow(&mut self) -> Result<(), EngineError> {
        let version = self.shared.engine.negotiate().await?;
        if self.facts.was_away {
            self.back_since = nanoseconds(self.shared.clock.now());
        }
        self.find_home().await?;
        self.told_until = self.last_event;
        let since = self.last_event.saturating_sub(i64::try_from(OVERLAP.as_nanos()).unwrap_or_default()).max(0);
        let mut events =
            self.shared.engine.events(&format!("{}.{:09}", since / 1_000_000_000, since % 1_000_000_000))?;
        if !self.seen_before() {
            info!("docker engine at {version} answers");
        }
        let mut housekeeping = interval(HOUSEKEEPING_INTERVAL);
        housekeeping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut wanted = true;
        let mut repeats = 0;
        let mut next_list = Instant::now();
        let mut next_sweep = Instant::now() + self.shared.sweep_interval();
        loop {
            tokio::select! {
                biased;
                () = sleep_until(next_list), if wanted => {
                    let behind = self.list().await?;
                    repeats = if behind { repeats + 1 } else { 0 };
                    wanted = behind && repeats < REPEATS;
                    next_list = Instant::now() + LIST_GAP;
                }
                event = events.next() => match event {
                    Some(event) => wanted |= self.note(&event?),
                    None => return Ok(()),
                },
                () = self.shared.resync.asked_for() => wanted = true,
                () = sleep_until(next_sweep) => {
                    wanted = true;
                    next_sweep = Instant::now() + self.shared.sweep_interval();
                }
                _ = housekeeping.tick() => self.shared.pools().values().for_each(|pool| housekeeping::run(&self.shared, pool)),
            }
        }
    }

    fn seen_before(&self) -> bool {
        self.shared.pools().values().any(|pool| pool.registry.has_seen())
    }

    /// Where the scaler lives decides about projects and networks; the engine has to be asked for it once.
    async fn find_home(&mut self) -> Result<(), EngineError> {
        if self.shared.self_container.get().is_none() {
            let self_container = SelfContainer::find(&self.shared.engine, self.project.as_deref()).await?;
            // This task alone sets it.
            let _ = self.shared.self_container.set(self_container);
        }
        Ok(())
    }

    /// The worker types, each with its place settled.
    fn pools(&self) -> Vec<Arc<TypePool>> {
        let pools: Vec<_> = self.shared.pools().values().cloned().collect();
        if let Some(self_container) = self.shared.self_container.get() {
            for pool in &pools {
                pool.settle(self_container);
            }
        }
        pools
    }

    /// The engine can't be asked: nothing is known of any worker until it can.
    fn lose_sight(&mut self, error: EngineError) {
        debug!("nothing is known of the workers until the engine answers: {error}");
        self.facts.was_away = true;
        let begun = self.shared.resync.begin();
        let error = error.into_backend();
        for pool in self.shared.pools().values() {
            let news = pool.registry.lose_sight(error.clone());
            if news {
                (self.shared.on_change)(&pool.worker_type);
            }
        }
        self.shared.resync.end(begun);
    }

    /// Lists the containers and reconciles the registry. Facts from events are kept if that fails. `true` if the list
    /// lags behind the events, or is ahead of them.
    async fn list(&mut self) -> Result<bool, EngineError> {
        // In this order: a request after a worker type was added gets a list with it.
        let begun = self.shared.resync.begin();
        let pools = self.pools();
        let lists: Vec<u64> = pools.iter().map(|pool| pool.registry.begin_list()).collect();
        let projects: BTreeSet<&str> = pools.iter().map(|pool| pool.owner().project).collect();
        let mut seen = Vec::new();
        for project in projects {
            let listed = self.shared.engine.list(&[format!("{}={project}", labels::PROJECT)]).await?;
            seen.extend(listed.iter().filter_map(Seen::of));
        }
        let of_pools: Vec<Vec<Seen>> = pools.iter().map(|pool| of_pool(pool, &seen)).collect();
        let ended = pools.iter().zip(&of_pools).flat_map(|(pool, of_pool)| pool.registry.newly_ended(of_pool));
        if self.facts.is_ahead(ended.collect()) {
            return Ok(true);
        }
        for ((pool, list), of_pool) in pools.iter().zip(lists).zip(of_pools) {
            follow_example(&self.shared, pool, &of_pool).await?;
            inspection::complete(&self.shared, pool, list, &of_pool, &mut self.facts).await?;
            if pool.registry.reconcile(list, &of_pool, &self.facts, self.shared.clock.now()) {
                (self.shared.on_change)(&pool.worker_type);
            }
            housekeeping::run(&self.shared, pool);
        }
        let behind = self.facts.settle(&seen);
        self.out_of_memory.clear();
        self.shared.resync.end(begun);
        Ok(behind)
    }

    /// Keeps what a list can't tell. `true` if the event is a reason to list.
    fn note(&mut self, event: &EventMessage) -> bool {
        let (Some(action), Some(actor)) = (event.action.as_deref(), event.actor.as_ref()) else { return false };
        let attributes = actor.attributes.as_ref();
        let attribute = |name: &str| attributes.and_then(|all| all.get(name)).map_or("", String::as_str);
        let ours = |pool: &Arc<TypePool>| {
            let owner = pool.owner();
            owner.project == attribute(labels::PROJECT) && owner.service == attribute(labels::SERVICE)
        };
        if !self.shared.pools().values().any(ours) {
            return false;
        }
        let at = event.time_nano.unwrap_or_default();
        let told_before = at <= self.told_until;
        self.last_event = self.last_event.max(at);
        let container = actor.id.clone().unwrap_or_default();
        let is_fatal = action == "kill" && FATAL_SIGNALS.contains(&attribute("signal"));
        if !told_before && at <= self.back_since && (is_fatal || matches!(action, "stop" | "die")) {
            self.facts.in_outage.insert(container.clone());
        }
        match action {
            _ if told_before => {}
            "die" => {
                self.facts.restarted.remove(&container);
                let code = attribute("exitCode").parse().unwrap_or_default();
                self.facts
                    .endings
                    .insert(container.clone(), ContainerExit::of(code, self.out_of_memory.contains(&container)));
            }
            "start" if self.facts.endings.contains_key(&container) => drop(self.facts.restarted.insert(container)),
            "oom" => drop(self.out_of_memory.insert(container)),
            "stop" => drop(self.facts.signalled.insert(container)),
            _ if is_fatal => drop(self.facts.signalled.insert(container)),
            _ => {}
        }
        // Events inside a container, such as those of its health check, change nothing.
        !action.starts_with("exec_") && !matches!(action, "attach" | "detach" | "top" | "resize")
    }
}

/// Returns the listed containers that belong to a pool.
fn of_pool(pool: &TypePool, seen: &[Seen]) -> Vec<Seen> {
    let owner = pool.owner();
    let of_pool = |seen: &&Seen| seen.project == owner.project && seen.service == owner.service;
    seen.iter().filter(of_pool).cloned().collect()
}

/// As the engine's events tell time.
fn nanoseconds(at: Timestamp) -> i64 {
    i64::try_from(at.0).unwrap_or_default().saturating_mul(1_000_000)
}

/// Reads the container that the next ones are to be made after, if it is another one than before: the newest that
/// Compose made, else the newest copy of one.
async fn follow_example(shared: &DockerShared, pool: &TypePool, seen: &[Seen]) -> Result<(), EngineError> {
    let candidates = seen.iter().filter(|seen| !seen.from_settings);
    let Some(best) = candidates.max_by_key(|seen| (seen.launch.is_none(), seen.created_at, seen.number)) else {
        return Ok(());
    };
    if pool.knows(&best.id, best.template.as_deref()) {
        return Ok(());
    }
    match shared.engine.inspect(&best.id).await {
        Ok(found) => {
            let template = ContainerTemplate::of_container(found, pool.owner());
            info!(%pool.worker_type, "workers are made after {}", template.origin);
            pool.follow(&best.id, template);
            Ok(())
        }
        Err(error) if error.is_not_found() => Ok(()),
        Err(error) => Err(error),
    }
}

//! Reloads the configuration while the autoscaler runs: on SIGHUP, and when the file has changed
//! (`docs/adr/0021-reload.md`). A reload is all-or-nothing: an invalid configuration is refused with all its errors,
//! and the previous one stays in force.

use std::{collections::HashMap, io, sync::Arc, time::Duration};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    task::spawn_blocking,
    time::MissedTickBehavior,
};
use tokio_util::sync::CancellationToken;

use super::{
    Autoscaler,
    actor_set::{ActorSet, Past},
    queue_servers, remembered_changes,
    wiring::{self, Wiring},
};
use crate::{
    config::{Changes, ConfigSource, FileWatch, Settings},
    model::{
        WorkerType,
        snapshot::{Change, ReloadOutcome, ReloadSnapshot},
    },
    telemetry::{ConfigReloaded, QueueServerLeft},
};

/// Interval between two checks of the file. A check is one `stat`; a change is loaded after the second check that sees
/// it.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Source of the configuration, and what requests a reload.
#[derive(Debug)]
pub struct Reload {
    source: ConfigSource,
    watch: FileWatch,
    hangups: Signal,
}

/// What requested a reload.
#[derive(Clone, Copy, Debug)]
pub(super) enum Trigger {
    Signal,
    File,
}

impl Trigger {
    fn as_str(self) -> &'static str {
        match self {
            Self::Signal => "signal",
            Self::File => "file",
        }
    }
}

/// Requests for a reload, and the source to load from.
pub(super) struct Requests {
    source: Option<ConfigSource>,
    asked: mpsc::Receiver<Trigger>,
}

impl Reload {
    /// Makes SIGHUP request a reload of `source` instead of ending the process. `watch` was made before `source` was
    /// loaded.
    ///
    /// # Errors
    /// If the signal can't be listened for.
    pub fn listen(source: ConfigSource, watch: FileWatch) -> io::Result<Self> {
        Ok(Self { source, watch, hangups: signal(SignalKind::hangup())? })
    }

    /// Splits into the task that notices requests, the source, and the receiver of requests.
    pub(super) fn split(self) -> (impl Future<Output = ()> + Send, ConfigSource, mpsc::Receiver<Trigger>) {
        let Self { source, watch, hangups } = self;
        // One waiting request stands for all, because a reload reads the state at its own time.
        let (ask, asked) = mpsc::channel(1);
        (notice(watch, hangups, ask), source, asked)
    }
}

impl Requests {
    pub(super) fn new(source: Option<ConfigSource>, asked: mpsc::Receiver<Trigger>) -> Self {
        Self { source, asked }
    }

    /// Waits for the next request; `None` if there can't be one.
    pub(super) async fn next(&mut self) -> Option<Trigger> {
        self.asked.recv().await
    }
}

async fn notice(mut watch: FileWatch, mut hangups: Signal, ask: mpsc::Sender<Trigger>) {
    let mut looks = tokio::time::interval(POLL_INTERVAL);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let is_asked = tokio::select! {
            _ = hangups.recv() => true,
            _ = looks.tick() => false,
        };
        // A file system that hangs must not block a thread that reacts to signals.
        let looked = spawn_blocking(move || {
            if is_asked {
                watch.take();
            }
            let changed = watch.has_changed();
            (watch, changed)
        });
        let Ok((same, changed)) = looked.await else { return };
        watch = same;
        if is_asked || changed {
            let _ = ask.try_send(if is_asked { Trigger::Signal } else { Trigger::File });
        }
    }
}

/// A valid configuration, with what it needs already running.
struct Prepared {
    settings: Arc<Settings>,
    changes: Changes,
    /// New wiring; `None` if the present one fits.
    wiring: Option<Wiring>,
    remembered: HashMap<WorkerType, Change>,
}

/// Result of loading.
enum Loaded {
    Usable(Box<Prepared>),
    Same { need_restart: Vec<String> },
    Wrong { errors: Vec<String> },
}

impl Autoscaler {
    /// Reloads the configuration and puts it in force. Gives up if `cancel` comes before the configuration is known to
    /// be valid.
    ///
    /// # Errors
    /// If an actor has failed.
    pub(super) async fn reload(&mut self, trigger: Trigger, cancel: &CancellationToken) -> anyhow::Result<()> {
        let Some(loaded) = cancel.run_until_cancelled(self.prepare()).await else { return Ok(()) };
        let at = self.app_shared.clock.now();
        let told = |outcome| ReloadSnapshot {
            at,
            outcome,
            changes: String::new(),
            errors: Vec::new(),
            need_restart: Vec::new(),
        };
        let reload = match loaded {
            Loaded::Wrong { errors } => ReloadSnapshot { errors, ..told(ReloadOutcome::Refused) },
            Loaded::Same { need_restart } => ReloadSnapshot { need_restart, ..told(ReloadOutcome::Unchanged) },
            Loaded::Usable(prepared) => {
                let changes = prepared.changes.to_string();
                let need_restart = prepared.changes.need_restart.clone();
                self.take_over(*prepared).await?;
                ReloadSnapshot { changes, need_restart, ..told(ReloadOutcome::Applied) }
            }
        };
        ConfigReloaded { trigger: trigger.as_str(), reload: &reload }.emit();
        self.fleet.note_reload(reload);
        Ok(())
    }

    /// Does everything that can fail or take time while the old configuration is in force. A new wiring receives
    /// signals before the old one is stopped, so that no signal is lost.
    async fn prepare(&self) -> Loaded {
        let wrong = |error: String| Loaded::Wrong { errors: vec![error] };
        let Some(source) = self.requests.source.clone() else { return Loaded::Same { need_restart: Vec::new() } };
        let running = self.settings.clone();
        let load = move || {
            let loaded = source.load()?;
            let (changes, settings) = Changes::between(&running, &loaded.settings);
            Ok((changes, settings, loaded.warnings))
        };
        let (changes, settings, warnings) = match spawn_blocking(load).await {
            Ok(Ok(loaded)) => loaded,
            Ok(Err(errors)) => return all_of(&errors),
            Err(error) => return wrong(format!("the configuration could not be loaded: {error}")),
        };
        if let Err(error) = super::check_settings(&settings) {
            return wrong(error.to_string());
        }
        for warning in warnings {
            tracing::warn!("{warning}");
        }
        if changes.is_nothing() {
            return Loaded::Same { need_restart: changes.need_restart };
        }
        if let Err(error) = self.app_shared.backend.reconfigure(&settings).await {
            return wrong(error.message);
        }
        self.app_shared.quiet_watch.reconfigure(&settings);
        let (settings, mut wiring) = (Arc::new(settings), None);
        if !wiring::is_same(&self.settings, &settings) {
            let directories = queue_servers::directories(&settings);
            let new = match Wiring::start(&self.app_shared, &settings, directories).await {
                Ok(new) => new,
                Err(error) => return wrong(error.to_string()),
            };
            new.until_connected().await;
            wiring = Some(new);
        }
        let added = changes.added.iter().map(|name| WorkerType::new(name.as_str())).collect();
        let remembered = remembered_changes(&self.app_shared.target, added).await;
        Loaded::Usable(Box::new(Prepared { settings, changes, wiring, remembered }))
    }

    /// Switches to the new configuration: suspends the actors and resumes them with the new wiring.
    async fn take_over(&mut self, prepared: Prepared) -> anyhow::Result<()> {
        let Prepared { settings, changes, wiring, remembered } = prepared;
        let before = wiring.map(|new| {
            self.app_shared.directory.replace(new.directories().clone());
            std::mem::replace(&mut self.wiring, new)
        });
        let resting = self.actors.rest().await?;
        let shared = self.wiring.shared(&self.app_shared, &settings);
        let changed = |name: &str| {
            changes.changed.contains_key(name)
                || changes.added.binary_search_by(|added| added.as_str().cmp(name)).is_ok()
        };
        let past = Past { resting, remembered, changed: Some(&changed) };
        self.actors = ActorSet::start(&settings, &shared, &self.app_shared, past);
        self.fleet.replace(self.wiring.parts(&settings, self.actors.shown()));
        self.app_shared.recorder.keep(settings.scaler.events_max_len);
        self.settings = settings;
        self.jobs.reload(&self.settings);
        self.notifications.reload(&self.settings);
        if let Some(mut before) = before {
            // Stopping may wait for a Redis that does not answer, and nothing else waits for it.
            let left: Vec<String> = before.server_names().difference(&self.wiring.server_names()).cloned().collect();
            self.leaving.spawn(async move {
                before.stop().await;
                for server in &left {
                    QueueServerLeft { server }.emit();
                }
            });
        }
        while self.leaving.try_join_next().is_some() {}
        Ok(())
    }
}

fn all_of(errors: &crate::config::ConfigErrors) -> Loaded {
    Loaded::Wrong { errors: errors.iter().map(ToString::to_string).collect() }
}

//! The subscriber's connection to Redis: keyspace notifications of exactly the configured queues, the `jobs:published`
//! channel and the workers' own announcements. Reconnects forever, and after each connect posts a resync to every
//! worker type, because messages sent in between are lost.
//!
//! The connection's driver handles pushes directly, without a queue in between. A queue whose notifications flood in is
//! muted: unsubscribed until just before its next probe. The listener subscribes again first and the prober reads
//! second, so no change is missed in between.
//!
//! On a Redis Cluster, a primary sends notifications of its own keys only. The listener subscribes on every primary, so
//! it receives the notifications of a moving slot at all times. The cluster forwards ordinary channels, so one primary
//! is enough for those.

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use redis::{PushInfo, PushKind, Value};
use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    Directory, KeyEvent, SourceStatus,
    flood_suppression::{Channels, muted_with, sharing},
    keyspace,
};
use crate::{
    config::Switch,
    connection::{Connection, RedisTarget, Session, is_lost, keep_connected},
    model::{Source, keys, snapshot::SourceState},
    telemetry::SignalsReceived,
};

/// Capacity for flood reports and unmute requests. A worker type has at most one of each.
const COMMAND_CAPACITY: usize = 1_024;

/// Which sources to use.
#[derive(Clone, Debug)]
pub struct ListenerSettings {
    /// Keyspace notifications.
    pub keyspace: Switch,
    /// Channel that publishers name their stream on; empty for none.
    pub channel: String,
    /// Client-side-caching invalidations; armed by the prober, planned here.
    pub tracking: Switch,
    /// Whether the server is a worker type's own: none of swarm's channels are there, and its settings stay as they
    /// are.
    pub is_own: bool,
}

/// What the listener agreed on with the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Subscriptions {
    /// Keyspace notifications are active.
    pub keyspace: bool,
    /// The prober is to arm invalidations.
    pub tracking: bool,
}

/// State of a source, and its details in words.
type State = (SourceState, String);

/// A running check.
type Checking = Option<BoxFuture<'static, redis::RedisResult<Checked>>>;

/// Result of a check.
enum Checked {
    /// The servers answer; see [`Connection::check`].
    Answers(u64),
    /// The server answers, and this is its setting.
    Keyspace(keyspace::Availability),
}

/// Waits for the result of the running check; forever without one.
async fn outcome(checking: &mut Checking) -> redis::RedisResult<Checked> {
    match checking {
        Some(check) => check.await,
        None => std::future::pending().await,
    }
}

/// Checks a connection. With the flags that are `needed` of a single server, reading its setting replaces the PING;
/// `may_extend` as for [`keyspace::ensure`].
async fn check(mut connection: Connection, needed: Option<String>, may_extend: bool) -> redis::RedisResult<Checked> {
    match needed.filter(|_| !connection.is_cluster()) {
        Some(needed) => {
            connection.confirm_primary().await?;
            Ok(Checked::Keyspace(keyspace::ensure(&connection, &needed, may_extend).await?.0))
        }
        None => Ok(Checked::Answers(connection.check().await?)),
    }
}

impl Session for Listener {
    type Error = SessionError;

    async fn run_session(&mut self) -> Result<std::convert::Infallible, SessionError> {
        self.listen_until_lost().await
    }

    async fn failed(&mut self, error: SessionError, pause: Duration) {
        self.report_down(&error.to_string());
        tokio::time::sleep(pause).await;
    }
}

enum Command {
    Mute(u32),
    Unmute(u32, oneshot::Sender<()>),
}

/// Sends requests to a running [`Listener`].
#[derive(Clone, Debug)]
pub struct ListenerHandle {
    directory: Arc<Directory>,
    commands: mpsc::Sender<Command>,
}

impl ListenerHandle {
    /// Returns when the queue's notifications are active again; immediately if they were not muted. If Redis can't be
    /// reached, it gives up after `patience`: the probe that follows fails in the same way.
    pub async fn unmute(&self, index: u32, patience: Duration) {
        if self.directory.mailbox(index).is_muted() {
            // Boxed, because it is rare, and would enlarge every worker type's observation in progress.
            Box::pin(self.ask_to_unmute(index, patience)).await;
        }
    }

    async fn ask_to_unmute(&self, index: u32, patience: Duration) {
        let (done, unmuted) = oneshot::channel();
        let request = async {
            if self.commands.send(Command::Unmute(index, done)).await.is_ok() {
                let _ = unmuted.await;
            }
        };
        let _ = tokio::time::timeout(patience, request).await;
    }
}

/// Owns the subscriber's connection.
#[derive(Debug)]
pub struct Listener {
    target: Arc<RedisTarget>,
    settings: ListenerSettings,
    directory: Arc<Directory>,
    source_status: Arc<SourceStatus>,
    commands: mpsc::Receiver<Command>,
    flooded: mpsc::Sender<Command>,
    plan: watch::Sender<Option<Subscriptions>>,
}

impl std::fmt::Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Mute(index) => write!(f, "Mute({index})"),
            Self::Unmute(index, _) => write!(f, "Unmute({index})"),
        }
    }
}

impl Listener {
    /// Creates a listener, its handle, and a watch of what it agrees on at each connect.
    pub fn new(
        target: Arc<RedisTarget>,
        settings: ListenerSettings,
        directory: Arc<Directory>,
        source_status: Arc<SourceStatus>,
    ) -> (Self, ListenerHandle, watch::Receiver<Option<Subscriptions>>) {
        let (sender, commands) = mpsc::channel(COMMAND_CAPACITY);
        let (plan, planned) = watch::channel(None);
        let handle = ListenerHandle { directory: directory.clone(), commands: sender.clone() };
        (Self { target, settings, directory, source_status, commands, flooded: sender, plan }, handle, planned)
    }

    /// Runs until cancelled.
    pub async fn run(mut self, cancel: CancellationToken) {
        keep_connected(&mut self, &cancel).await;
    }

    fn report_down(&self, error: &str) {
        if self.settings.keyspace != Switch::Off {
            self.source_status.lost(Source::Keyspace, error);
        }
        if !self.settings.channel.is_empty() && !self.settings.is_own {
            self.source_status.lost(Source::Channel, error);
        }
    }

    async fn listen_until_lost(&mut self) -> Result<std::convert::Infallible, SessionError> {
        let disconnected = Arc::new(Notify::new());
        let mut connection = self.target.connect_with_push(self.push_handler(disconnected.clone())).await?;
        let mut seen = connection.check().await?;
        let mut subscriptions = self.subscribe_all(&mut connection).await?;

        // A silent failure of a source (a frozen server, a setting taken away) goes unnoticed for no longer than this;
        // the sweep covers that time.
        let interval = self.target.check_interval();
        let mut ticks = tokio::time::interval_at(Instant::now() + interval, interval);
        let mut doubts = self.target.doubts();
        let mut checking = Checking::default();
        loop {
            tokio::select! {
                () = disconnected.notified() => {
                    if !connection.is_cluster() {
                        return Err(SessionError::Disconnected);
                    }
                    ticks.reset_immediately();
                }
                Ok(()) = doubts.changed() => ticks.reset_immediately(),
                Some(command) = self.commands.recv() => self.obey(&mut connection, command).await?,
                _ = ticks.tick(), if checking.is_none() => {
                    let needed = subscriptions.keyspace.then(|| self.needed_flags());
                    checking = Some(Box::pin(check(connection.clone(), needed, !self.settings.is_own)));
                }
                checked = outcome(&mut checking) => {
                    checking = None;
                    match checked? {
                        Checked::Keyspace(found) => self.heed(found)?,
                        Checked::Answers(now) if now == seen => {
                            if subscriptions.keyspace {
                                self.heed(self.ensure_notifications(&connection).await?.0)?;
                            }
                        }
                        Checked::Answers(_) => {
                            // Checks again before it subscribes, so that a change meanwhile is not missed.
                            seen = connection.check().await?;
                            subscriptions = self.subscribe_all(&mut connection).await?;
                        }
                    }
                }
            }
        }
    }

    /// Subscribes to everything that the settings and the server allow, posts a resync, and reports the states of the
    /// sources last: from the moment that one is up, no change is missed.
    async fn subscribe_all(&self, connection: &mut Connection) -> Result<Subscriptions, SessionError> {
        let (keyspace, of_keyspace) = self.subscribe_keyspace(connection).await?;
        let tracking = match self.settings.tracking {
            Switch::On => true,
            Switch::Off => false,
            Switch::Auto => !keyspace,
        };
        let of_channel = self.subscribe_channels(connection).await?;
        let subscriptions = Subscriptions { keyspace, tracking };
        self.plan.send_replace(Some(subscriptions));
        self.directory.post_all(Source::Resync);
        for (source, (state, detail)) in [(Source::Keyspace, of_keyspace), (Source::Channel, of_channel)] {
            self.source_status.set(source, state, detail);
        }
        Ok(subscriptions)
    }

    /// Returns whether keyspace notifications are active, and the state of their source.
    async fn subscribe_keyspace(&self, connection: &mut Connection) -> Result<(bool, State), SessionError> {
        if self.settings.keyspace == Switch::Off {
            return Ok((false, (SourceState::Off, "turned off by signals.keyspace".to_owned())));
        }
        if self.directory.watched().is_empty() {
            return Ok((false, (SourceState::Off, "no worker type has its queues here".to_owned())));
        }
        let (available, missing) = self.ensure_notifications(connection).await?;
        let detail = match available {
            keyspace::Availability::Enabled(flags) => format!("notify-keyspace-events is \"{flags}\""),
            keyspace::Availability::Extended { from, to } => {
                format!("notify-keyspace-events was \"{from}\", extended to \"{to}\"")
            }
            keyspace::Availability::Refused(why) => {
                let (state, cure) = match self.settings.keyspace {
                    Switch::On => (SourceState::Down, "set it on the server, or signals.keyspace = \"auto\""),
                    _ => (SourceState::Off, "using client-side-caching invalidations instead"),
                };
                return Ok((false, (state, format!("{why}; {cure}"))));
            }
        };
        let channels = self.channels_of(0..self.directory.watched().len());
        if let Err((command, error)) = self.listen(connection, &channels).await {
            refused(&error)?;
            let cure = match channels.patterns.first() {
                Some(pattern) if command == "PSUBSCRIBE" => format!("each pattern by itself: &{pattern}"),
                _ => "the channels".to_owned(),
            };
            let why = format!("{command} refused: {error}; allow the ACL user {cure}");
            return Ok((false, (SourceState::Down, why)));
        }
        for index in 0..self.directory.watched().len() {
            self.directory.mailbox(u32::try_from(index).unwrap_or(u32::MAX)).unmute();
        }
        let state = if missing.is_empty() {
            (SourceState::Up, detail)
        } else {
            let why = format!("no notifications from primaries that can't be reached: {}", missing.join(", "));
            (SourceState::Down, why)
        };
        Ok((true, state))
    }

    /// Returns the state of the channel's source.
    async fn subscribe_channels(&self, connection: &mut Connection) -> Result<State, SessionError> {
        if self.settings.is_own {
            self.subscribe_frameworks(connection).await?;
            return Ok((SourceState::Off, "used on the top-level redis_url only".to_owned()));
        }
        let channel = &self.settings.channel;
        let state = if channel.is_empty() {
            (SourceState::Off, "turned off by signals.channel".to_owned())
        } else {
            match connection.subscribe(channel).await {
                Ok(()) => (SourceState::Up, format!("subscribed to {channel}")),
                Err(error) => {
                    refused(&error)?;
                    (SourceState::Down, format!("SUBSCRIBE {channel}: {error}; allow the channel to the ACL user"))
                }
            }
        };
        self.subscribe_frameworks(connection).await?;
        // The workers' announcements only speed up reactions. Without the right to subscribe to them, the backend and
        // the sweep deliver the same information.
        if let Err(error) = connection.subscribe(keys::WORKER_EVENTS_CHANNEL).await {
            refused(&error)?;
        }
        Ok(state)
    }

    /// Subscribes to the channels on which workers of frameworks report their state. Without that right, no worker is
    /// ever known to be idle.
    async fn subscribe_frameworks(&self, connection: &mut Connection) -> Result<(), SessionError> {
        let database = self.target.database();
        let patterns: Vec<String> = self.directory.watched().iter().flat_map(|of| of.channels(database)).collect();
        for pattern in patterns {
            if let Err(error) = connection.psubscribe_everywhere(std::slice::from_ref(&pattern)).await {
                refused(&error)?;
                tracing::warn!(
                    %pattern, %error,
                    "workers of a framework can't be heard, so none is seen idle; allow the ACL user the channel"
                );
            }
        }
        Ok(())
    }

    async fn ensure_notifications(
        &self,
        connection: &Connection,
    ) -> Result<(keyspace::Availability, Vec<String>), redis::RedisError> {
        keyspace::ensure(connection, &self.needed_flags(), !self.settings.is_own).await
    }

    fn needed_flags(&self) -> String {
        keyspace::needed_flags(self.directory.watched().iter().map(|watched| watched.kind))
    }

    fn keyspace_prefix(&self) -> String {
        format!("__keyspace@{}__:", self.target.database())
    }

    async fn obey(&self, connection: &mut Connection, command: Command) -> Result<(), SessionError> {
        match command {
            Command::Mute(index) if self.directory.mailbox(index).is_muted() => {
                for other in sharing(&self.directory, index) {
                    self.directory.mailbox(other).mute();
                }
                let Channels { names, patterns } = self.channels_of([index as usize]);
                connection.unsubscribe_everywhere(&names).await?;
                connection.punsubscribe_everywhere(&patterns).await?;
            }
            Command::Mute(_) => {}
            Command::Unmute(index, done) => {
                let muted = muted_with(&self.directory, index);
                let channels = self.channels_of(muted.iter().map(|of| *of as usize));
                self.listen(connection, &channels).await.map_err(|(_, error)| error)?;
                for of in muted {
                    self.directory.mark_all(of);
                    let mailbox = self.directory.mailbox(of);
                    mailbox.unmute();
                    // Worker types that share the queue were muted as well, and this probe does not read for them.
                    if of != index {
                        mailbox.post(Source::Keyspace, Instant::now());
                    }
                }
                let _ = done.send(());
            }
        }
        Ok(())
    }

    /// Subscribes to channels. An error names the command that failed.
    async fn listen(
        &self,
        connection: &mut Connection,
        channels: &Channels,
    ) -> Result<(), (&'static str, redis::RedisError)> {
        connection.subscribe_everywhere(&channels.names).await.map_err(|error| ("SUBSCRIBE", error))?;
        connection.psubscribe_everywhere(&channels.patterns).await.map_err(|error| ("PSUBSCRIBE", error))
    }

    /// Returns the channels of the worker types with these indices.
    fn channels_of(&self, indices: impl IntoIterator<Item = usize>) -> Channels {
        let (mut channels, prefix) = (Channels::default(), self.keyspace_prefix());
        indices.into_iter().for_each(|index| channels.add(&prefix, &self.directory.watched()[index]));
        channels
    }

    /// Handles a check of whether the server still sends what was agreed on: the setting was extended again if it was
    /// changed back; if the server refuses that, a new session falls back.
    fn heed(&self, found: keyspace::Availability) -> Result<(), SessionError> {
        match found {
            keyspace::Availability::Enabled(_) => Ok(()),
            keyspace::Availability::Extended { from, to } => {
                let detail = format!("notify-keyspace-events had become \"{from}\", extended to \"{to}\" again");
                self.directory.post_all(Source::Resync);
                self.source_status.set(Source::Keyspace, SourceState::Up, detail);
                Ok(())
            }
            keyspace::Availability::Refused(why) => Err(SessionError::KeyspaceLost(why)),
        }
    }

    /// Returns the handler that the connection's driver calls for each push. It must be fast: it delays everything
    /// else.
    fn push_handler(
        &self,
        disconnected: Arc<Notify>,
    ) -> impl Fn(PushInfo) -> Result<(), std::convert::Infallible> + Send + Sync + 'static {
        let prefix = self.keyspace_prefix().into_bytes();
        let published = self.settings.channel.clone().into_bytes();
        let directory = self.directory.clone();
        let flooded = self.flooded.clone();
        let database = self.target.database();
        let of_frameworks = (0_u32..).zip(directory.watched());
        let of_frameworks = of_frameworks.flat_map(|(index, of)| of.channels(database).map(move |one| (one, index)));
        let of_frameworks: Vec<(String, u32)> = of_frameworks.collect();
        move |push| {
            match push.kind {
                PushKind::Message => {
                    if let [Value::BulkString(channel), Value::BulkString(payload), ..] = push.data.as_slice() {
                        if let Some(queue) = channel.strip_prefix(prefix.as_slice()) {
                            keyspace_event(&directory, &flooded, queue, payload);
                        } else if *channel == published {
                            published_event(&directory, payload);
                        } else if channel == keys::WORKER_EVENTS_CHANNEL.as_bytes() {
                            worker_event(&directory, payload);
                        }
                    }
                }
                PushKind::PMessage => {
                    if let [Value::BulkString(pattern), Value::BulkString(channel), Value::BulkString(payload), ..] =
                        push.data.as_slice()
                    {
                        if let Some(queue) = channel.strip_prefix(prefix.as_slice()) {
                            keyspace_event(&directory, &flooded, queue, payload);
                        } else {
                            let listening = of_frameworks.iter().filter(|(one, _)| one.as_bytes() == pattern);
                            listening.for_each(|(_, index)| statement_event(&directory, *index, payload));
                        }
                    }
                }
                PushKind::Disconnection => disconnected.notify_one(),
                _ => {}
            }
            Ok(())
        }
    }
}

fn keyspace_event(directory: &Directory, flooded: &mpsc::Sender<Command>, queue: &[u8], event: &[u8]) {
    let now = Instant::now();
    directory.fed_by(queue, KeyEvent::Named(event), |index| {
        let mailbox = directory.mailbox(index);
        if mailbox.post_counted(Source::Keyspace, now) && flooded.try_send(Command::Mute(index)).is_err() {
            // The command channel is full: the listener keeps receiving every event, and requests the mute again with
            // the next one.
            mailbox.unmute();
        }
    });
    SignalsReceived { source: Source::Keyspace, count: 1 }.emit();
}

fn statement_event(directory: &Directory, index: u32, payload: &[u8]) {
    if directory.hear(index, payload) {
        directory.post(index, Source::Backend);
        SignalsReceived { source: Source::Backend, count: 1 }.emit();
    }
}

fn published_event(directory: &Directory, queue: &[u8]) {
    directory.fed_by(queue, KeyEvent::Queue, |index| directory.post(index, Source::Channel));
    SignalsReceived { source: Source::Channel, count: 1 }.emit();
}

fn worker_event(directory: &Directory, payload: &[u8]) {
    let Ok(message) = std::str::from_utf8(payload) else { return };
    if directory.worker_event(message) {
        SignalsReceived { source: Source::Backend, count: 1 }.emit();
    }
}

/// Why a session of the listener ended.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    #[error(transparent)]
    Connect(#[from] crate::connection::ConnectionError),
    #[error("redis: {0}")]
    Redis(#[from] redis::RedisError),
    #[error("redis closed the connection")]
    Disconnected,
    #[error("keyspace notifications were turned off on the server: {0}")]
    KeyspaceLost(String),
}

/// Ignores the server's refusal of one command; returns an error of the connection.
fn refused(error: &redis::RedisError) -> Result<(), SessionError> {
    if is_lost(error) { Err(SessionError::Redis(error.clone())) } else { Ok(()) }
}

//! A fake of Discord, since the real one can't be had on a developer's machine: its REST API and its gateway, as
//! <https://discord.com/developers/docs> says, version 10. It keeps sessions with their events, interactions with their
//! deadlines, replies and attachments, and rate limits; and it misbehaves on request.

mod gateway;
mod interaction;
mod rest;
mod upload;
mod world;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
};

use serde_json::Value;
use tokio::{net::TcpListener, sync::watch};
use tokio_util::sync::{CancellationToken, DropGuard};

pub(crate) use self::{
    interaction::{Member, Message, flag, number, text},
    world::{Fault, Refusal, World},
};

/// The token that it knows.
pub(crate) const TOKEN: &str = "MTA0.Gsecret.of-the-tests-0123456789";
/// The application that the token belongs to.
pub(crate) const APPLICATION: u64 = 4_242;
/// A server that it has.
pub(crate) const GUILD: u64 = 81_384_788_765_712_384;

/// A running fake; stopped when dropped.
pub(crate) struct FakeDiscord {
    address: SocketAddr,
    shared: Arc<Shared>,
    _stop: DropGuard,
}

/// What its connections share.
pub(crate) struct Shared {
    world: Mutex<World>,
    changed: watch::Sender<u64>,
}

impl Shared {
    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    /// Changes something, and says so.
    fn change<T>(&self, change: impl FnOnce(&mut World) -> T) -> T {
        let result = change(&mut self.world());
        self.changed.send_modify(|version| *version += 1);
        result
    }
}

impl FakeDiscord {
    pub(crate) async fn start() -> Self {
        let rest = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let gateway = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = rest.local_addr().unwrap();
        let world = World::new(format!("ws://{}", gateway.local_addr().unwrap()));
        let shared = Arc::new(Shared { world: Mutex::new(world), changed: watch::Sender::new(0) });
        let stop = CancellationToken::new();
        tokio::spawn(stop.clone().run_until_cancelled_owned(rest::serve(rest, Arc::clone(&shared))));
        tokio::spawn(stop.clone().run_until_cancelled_owned(gateway::serve(gateway, Arc::clone(&shared))));
        Self { address, shared, _stop: stop.drop_guard() }
    }

    /// Where its REST API is.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Looks at something.
    pub(crate) fn see<T>(&self, look: impl FnOnce(&World) -> T) -> T {
        look(&self.shared.world())
    }

    /// Changes something: what Discord and people do.
    pub(crate) fn act<T>(&self, change: impl FnOnce(&mut World) -> T) -> T {
        self.shared.change(change)
    }

    /// The next request whose method and path begin and end so goes wrong.
    pub(crate) fn fail(&self, method: &str, path_end: &str, fault: Fault) {
        self.act(|world| world.faults.push((method.to_owned(), path_end.to_owned(), fault)));
    }

    /// Somebody gives a command; the number of the interaction.
    pub(crate) fn command(&self, member: &Member, command: &str, subcommand: &str, options: Value) -> usize {
        self.act(|world| world.command(member, command, subcommand, options))
    }

    /// Waits until something is as wanted.
    pub(crate) async fn until(&self, what: &str, wanted: impl Fn(&World) -> bool) {
        let mut changed = self.shared.changed.subscribe();
        let wait = async {
            while !self.see(&wanted) {
                changed.changed().await.unwrap();
            }
        };
        let there = tokio::time::timeout(crate::support::wait::DEADLINE, wait).await;
        assert!(there.is_ok(), "never: {what}\n{:#?}", self.see(World::summary));
    }

    /// Waits until the reply to an interaction is, or has been, as wanted, and gives it as it was then.
    pub(crate) async fn reply(&self, interaction: usize, what: &str, wanted: impl Fn(&Message) -> bool) -> Message {
        let shown =
            |world: &World| world.interactions[interaction].history.iter().rev().find(|one| wanted(one)).cloned();
        self.until(what, |world| shown(world).is_some()).await;
        self.see(shown).unwrap()
    }

    /// Waits until a shard has a session.
    pub(crate) async fn until_ready(&self, shards: usize) {
        self.until("every shard has a session", |world| world.connected() == shards).await;
    }
}

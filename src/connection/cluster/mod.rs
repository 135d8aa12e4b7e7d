//! A connection to a Redis Cluster: one to each of its primaries, and each command to the one that has its key. Follows
//! redirections, reads the slots again when something does not fit them, and splits pipelines. Never repeats a command
//! whose outcome is not known. See `docs/adr/0023-redis-cluster.md`.
//!
//! A transaction whose keys lie in several slots can't be one: it is carried out slot by slot, the slot of its last
//! command at the end and only if all others went well. Whoever writes one puts what must not be lost first, and what
//! says that it is done last.

mod node;
mod pipeline;
mod route;
mod topology;

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use redis::{Cmd, ErrorKind, PushInfo, RedisError, ServerErrorKind, Value, aio::MultiplexedConnection};
use tokio::time::{sleep, timeout};

pub(super) use self::topology::Topology;
use self::{
    node::{Manner, Node, OnPush},
    route::{Route, route},
    topology::{NodeAddress, SlotMap, slot},
};
use super::is_lost;

/// Redirections followed for one command: one is usual, two can happen while slots move.
const HOPS: usize = 5;
/// Between two attempts at a command whose keys are just being moved.
const TRY_AGAIN: Duration = Duration::from_millis(100);

/// A connection to all primaries. Clones share it.
#[derive(Clone)]
pub(super) struct ClusterConnection(Arc<Inner>);

struct Inner {
    topology: Arc<Topology>,
    manner: Manner,
    nodes: Mutex<HashMap<NodeAddress, Arc<Node>>>,
    /// Rises with each connection that was opened or lost and each change of the slots.
    generation: Arc<AtomicU64>,
    seen: Mutex<Arc<SlotMap>>,
}

/// What a server's error says about where to go instead.
enum Redirect {
    Moved(NodeAddress),
    Ask(NodeAddress),
    TryAgain,
}

impl ClusterConnection {
    /// Reads the slots if they are not known; connects to nodes when needed.
    ///
    /// # Errors
    /// If no node tells the slots.
    pub(super) async fn open(
        topology: Arc<Topology>,
        connect_timeout: Duration,
        response_timeout: Option<Duration>,
        push: Option<Arc<dyn Fn(PushInfo) + Send + Sync>>,
    ) -> Result<Self, RedisError> {
        let seen = Mutex::new(topology.current().await?);
        let manner = Manner { connect_timeout, response_timeout, push: push.map(|push| push as OnPush) };
        Ok(Self(Arc::new(Inner { topology, manner, nodes: Mutex::default(), generation: Arc::default(), seen })))
    }

    /// Sends one command to where its key is.
    pub(super) async fn command(&self, command: &Cmd) -> Result<Value, RedisError> {
        let place = match route(command) {
            Route::Slot(slot) | Route::Any(Some(slot)) => Some(slot),
            Route::Any(None) | Route::WithNext => None,
        };
        let node = self.node_for(place).await?;
        self.command_at(node, command, false).await
    }

    /// Sends one command to a node, and then wherever that one says.
    async fn command_at(&self, mut to: NodeAddress, command: &Cmd, mut asking: bool) -> Result<Value, RedisError> {
        let mut hops = 0..HOPS;
        loop {
            let error = match self.attempt(&to, command, asking).await {
                Ok(Value::ServerError(error)) => RedisError::from(error),
                outcome => return outcome,
            };
            let redirect = redirect(&error, &to).filter(|_| hops.next().is_some());
            (to, asking) = match redirect {
                Some(Redirect::Moved(node)) => {
                    self.0.topology.doubt();
                    (node, false)
                }
                Some(Redirect::Ask(node)) => (node, true),
                Some(Redirect::TryAgain) => {
                    sleep(TRY_AGAIN).await;
                    (to, asking)
                }
                None => {
                    self.learn(&error);
                    return Err(error);
                }
            };
        }
    }

    /// One attempt at one node; an error of the connection is noted.
    async fn attempt(&self, to: &NodeAddress, command: &Cmd, asking: bool) -> Result<Value, RedisError> {
        let node = self.node(to);
        let sent = async {
            let mut connection = node.get().await?;
            if asking {
                let pipeline = pipeline::asking(command);
                let mut replies = connection.send_packed_commands(&pipeline, 1, 1).await?;
                return Ok(replies.pop().unwrap_or(Value::Nil));
            }
            match connection.send_packed_command(command).await {
                // Whether the client hands a refusal over as a value or as an error is its own affair.
                Err(error) if redirect(&error, to).is_some() => Ok(refusal(&error)),
                outcome => outcome,
            }
        };
        sent.await.inspect_err(|error| self.failed(to, &node, error))
    }

    /// The connection of one node is of no more use.
    fn failed(&self, to: &NodeAddress, node: &Node, error: &RedisError) {
        if is_lost(error) {
            node.lose();
            self.0.topology.doubt();
            self.0.topology.note(to, Err(error));
        }
    }

    /// What an error that is handed on says about the slots.
    fn learn(&self, error: &RedisError) {
        let told = [ServerErrorKind::Moved, ServerErrorKind::ReadOnly, ServerErrorKind::ClusterDown];
        if told.map(ErrorKind::Server).contains(&error.kind()) {
            self.0.topology.doubt();
        }
    }

    /// The node that has that slot, or any.
    async fn node_for(&self, slot: Option<u16>) -> Result<NodeAddress, RedisError> {
        let map = self.0.topology.current().await?;
        let found = match slot {
            Some(slot) => map.owner(slot).cloned(),
            None => map.primaries().into_iter().next().cloned(),
        };
        found
            .ok_or_else(|| RedisError::from((ErrorKind::Server(ServerErrorKind::ClusterDown), "no node has this slot")))
    }

    fn node(&self, at: &NodeAddress) -> Arc<Node> {
        let mut nodes = self.0.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        let make = || {
            let info = self.0.topology.info(at);
            Arc::new(Node::new(info, self.0.manner.clone(), self.0.generation.clone()))
        };
        nodes.entry(at.clone()).or_insert_with(make).clone()
    }

    /// A connection to the node that has this key, and to no other.
    pub(super) async fn at(&self, key: &str) -> Result<MultiplexedConnection, RedisError> {
        let to = self.node_for(Some(slot(key.as_bytes()))).await?;
        let node = self.node(&to);
        node.get().await.inspect_err(|error| self.failed(&to, &node, error))
    }

    /// Names the node that has this key as long as the slots stay as they are.
    pub(super) fn place(&self, key: &str) -> Option<String> {
        self.0.topology.map().owner(slot(key.as_bytes())).map(ToString::to_string)
    }

    /// The primaries that can be reached, and those that can't with the reason.
    pub(super) async fn primaries(&self) -> Result<(Vec<MultiplexedConnection>, Vec<String>), RedisError> {
        let map = self.0.topology.current().await?;
        let each = map.primaries().into_iter().map(async |at| {
            let node = self.node(at);
            let outcome = node.get().await.inspect_err(|error| self.failed(at, &node, error));
            outcome.map_err(|error| format!("{at}: {error}"))
        });
        let (mut open, mut missing) = (Vec::new(), Vec::new());
        for outcome in join_all(each).await {
            match outcome {
                Ok(connection) => open.push(connection),
                Err(problem) => missing.push(problem),
            }
        }
        Ok((open, missing))
    }

    /// Listens on the node that has the slot of the channel's name, or on another one if that can't be reached: a
    /// message is passed on to all nodes.
    pub(super) async fn subscribe(&self, channel: &str) -> Result<(), RedisError> {
        match self.at(channel).await {
            Ok(mut home) => home.subscribe(channel).await,
            Err(error) => match self.primaries().await?.0.first_mut() {
                Some(other) => other.subscribe(channel).await,
                None => Err(error),
            },
        }
    }

    /// Reads the slots, opens what is missing, and asks every primary for an answer. Answers a number that is another
    /// one than before if slots have moved or connections were made since.
    ///
    /// # Errors
    /// If no node tells the slots, or no primary can be reached.
    pub(super) async fn check(&self) -> Result<u64, RedisError> {
        let map = self.0.topology.refresh().await?;
        self.forget_others(&map);
        let patience = self.0.manner.connect_timeout;
        let each = map.primaries().into_iter().map(async |at| {
            let node = self.node(at);
            let outcome = async {
                let mut connection = node.get().await?;
                let ping = redis::cmd("PING");
                match timeout(patience, connection.send_packed_command(&ping)).await {
                    Ok(outcome) => outcome.map(drop),
                    Err(_) => Err(RedisError::from((ErrorKind::Io, "it does not answer in time"))),
                }
            };
            let outcome = outcome.await;
            self.0.topology.note(at, outcome.as_ref().copied());
            outcome.inspect_err(|error| self.failed(at, &node, error))
        });
        let outcomes = join_all(each).await;
        if outcomes.iter().all(Result::is_err)
            && let Some(Err(error)) = outcomes.into_iter().next()
        {
            return Err(error);
        }
        Ok(self.0.generation.load(Ordering::Acquire))
    }

    /// Closes connections to nodes that are no primaries any more.
    fn forget_others(&self, map: &Arc<SlotMap>) {
        let mut seen = self.0.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if **seen != **map {
            seen.clone_from(map);
            self.0.generation.fetch_add(1, Ordering::AcqRel);
            let primaries: BTreeSet<_> = map.primaries();
            let mut nodes = self.0.nodes.lock().unwrap_or_else(PoisonError::into_inner);
            nodes.retain(|at, _| primaries.contains(at));
        }
    }
}

/// Where the server says that the command belongs.
fn redirect(error: &RedisError, from: &NodeAddress) -> Option<Redirect> {
    let ErrorKind::Server(kind) = error.kind() else { return None };
    let node = || NodeAddress::redirected(error.redirect_node()?.0, from);
    match kind {
        ServerErrorKind::Moved => node().map(Redirect::Moved),
        ServerErrorKind::Ask => node().map(Redirect::Ask),
        ServerErrorKind::TryAgain => Some(Redirect::TryAgain),
        _ => None,
    }
}

/// An error as the reply of a server, for whoever takes many replies apart and must not lose them all to one.
fn refusal(error: &RedisError) -> Value {
    let text: String = match error.code() {
        Some(code) => format!("{code} {}", error.detail().unwrap_or_default()),
        None => format!("ERR {error}"),
    };
    let line = text.replace(['\r', '\n'], " ");
    redis::parse_redis_value(format!("-{line}\r\n").as_bytes()).unwrap_or(Value::Nil)
}

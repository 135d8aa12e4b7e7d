//! A connection to a Redis Cluster: one connection to each primary. Each command goes to the primary that has its key.
//! Follows redirections, reads the slots again when a reply contradicts them, and splits pipelines. Never repeats a
//! command whose outcome is unknown. See `docs/adr/0023-redis-cluster.md`.
//!
//! A transaction whose keys lie in several slots can't be atomic. It is carried out slot by slot; the slot of its last
//! command comes last, and only if all others succeeded. The author of such a transaction puts what must not be lost
//! first, and what marks the whole as done last.

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

/// Maximum redirections followed for one command: one is usual, two can happen while slots move.
const HOPS: usize = 5;
/// Pause between two attempts at a command whose keys are being moved (TRYAGAIN).
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

/// Where a server's error says the command must go instead.
enum Redirect {
    Moved(NodeAddress),
    Ask(NodeAddress),
    TryAgain,
}

impl ClusterConnection {
    /// Reads the slots if they are not known. Connections to nodes are opened when needed.
    ///
    /// # Errors
    /// If no node returns the slots.
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

    /// Sends one command to the node that has its key.
    pub(super) async fn command(&self, command: &Cmd) -> Result<Value, RedisError> {
        let place = match route(command) {
            Route::Slot(slot) | Route::Any(Some(slot)) => Some(slot),
            Route::Any(None) | Route::WithNext => None,
        };
        let node = self.node_for(place).await?;
        self.command_at(node, command, false).await
    }

    /// Sends one command to a node, and follows that node's redirections.
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

    /// Makes one attempt at one node; records an error of the connection.
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
                // The client reports a refusal either as a value or as an error; both are handled alike.
                Err(error) if redirect(&error, to).is_some() => Ok(refusal(&error)),
                outcome => outcome,
            }
        };
        sent.await.inspect_err(|error| self.failed(to, &node, error))
    }

    /// Discards the connection to a node if the error means that it is unusable.
    fn failed(&self, to: &NodeAddress, node: &Node, error: &RedisError) {
        if is_lost(error) {
            node.lose();
            self.0.topology.doubt();
            self.0.topology.note(to, Err(error));
        }
    }

    /// Marks the slots as out of date if an error that is returned to the caller says so.
    fn learn(&self, error: &RedisError) {
        let told = [ServerErrorKind::Moved, ServerErrorKind::ReadOnly, ServerErrorKind::ClusterDown];
        if told.map(ErrorKind::Server).contains(&error.kind()) {
            self.0.topology.doubt();
        }
    }

    /// Returns the node that has the slot; any primary without a slot.
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

    /// Returns a connection to the one node that has this key.
    pub(super) async fn at(&self, key: &str) -> Result<MultiplexedConnection, RedisError> {
        let to = self.node_for(Some(slot(key.as_bytes()))).await?;
        let node = self.node(&to);
        node.get().await.inspect_err(|error| self.failed(&to, &node, error))
    }

    /// Returns a name for the node that has this key. It is the same while the slots stay as they are.
    pub(super) fn place(&self, key: &str) -> Option<String> {
        self.0.topology.map().owner(slot(key.as_bytes())).map(ToString::to_string)
    }

    /// Returns connections to the reachable primaries, and for each unreachable one the reason.
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

    /// Subscribes on the node that has the slot of the channel's name, or on another node if that one is unreachable:
    /// the cluster passes messages to all nodes.
    pub(super) async fn subscribe(&self, channel: &str) -> Result<(), RedisError> {
        match self.at(channel).await {
            Ok(mut home) => home.subscribe(channel).await,
            Err(error) => match self.primaries().await?.0.first_mut() {
                Some(other) => other.subscribe(channel).await,
                None => Err(error),
            },
        }
    }

    /// Reads the slots, opens missing connections, and pings every primary. Returns a number that changes when slots
    /// have moved or connections were made.
    ///
    /// # Errors
    /// If no node returns the slots, or no primary can be reached.
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
                    Err(_) => Err(RedisError::from((ErrorKind::Io, "the node did not answer in time"))),
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

    /// Closes connections to nodes that are no longer primaries.
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

/// Returns where a server says that the command belongs; `None` if the error is not a redirection.
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

/// Returns an error in the form of a server's reply, so that a caller with many replies does not lose them all to one
/// error.
fn refusal(error: &RedisError) -> Value {
    let text: String = match error.code() {
        Some(code) => format!("{code} {}", error.detail().unwrap_or_default()),
        None => format!("ERR {error}"),
    };
    let line = text.replace(['\r', '\n'], " ");
    redis::parse_redis_value(format!("-{line}\r\n").as_bytes()).unwrap_or(Value::Nil)
}

//! The map from slots to primaries of a cluster. It is read from any node that answers, kept until a caller marks it as
//! out of date, and shared by all connections of a target.

use std::{
    collections::BTreeSet,
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::future::select_ok;
use redis::{AsyncConnectionConfig, Client, ConnectionInfo, ErrorKind, RedisError, Value, aio::MultiplexedConnection};
use tokio::time::Instant;

use crate::connection::{address, sentinel::at};

/// Number of slots of a Redis Cluster.
const SLOTS: u16 = 16_384;

/// Address of a node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct NodeAddress {
    pub(super) host: String,
    pub(super) port: u16,
}

impl fmt::Display for NodeAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (open, close) = if self.host.contains(':') { ("[", "]") } else { ("", "") };
        write!(f, "{open}{}{close}:{}", self.host, self.port)
    }
}

impl NodeAddress {
    /// Parses the `HOST:PORT` of a redirection. An empty host means the host of the node that sent it.
    pub(super) fn redirected(text: &str, from: &Self) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let host = if host.is_empty() { &from.host } else { host.trim_matches(['[', ']']) };
        Some(Self { host: host.to_owned(), port: port.parse().ok()? })
    }
}

/// The primaries and their slots.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SlotMap {
    /// First slot, last slot and their primary, sorted by slot.
    ranges: Vec<(u16, u16, NodeAddress)>,
    /// All nodes, including replicas: they can be asked when primaries are gone.
    nodes: BTreeSet<NodeAddress>,
}

impl SlotMap {
    /// Parses the reply to CLUSTER SLOTS. A node that does not know its own address sends an empty one; its address is
    /// the one under which it was asked.
    fn read(reply: Value, asked: &NodeAddress) -> Option<Self> {
        let Value::Array(entries) = reply else { return None };
        let mut map = Self::default();
        for entry in entries {
            let Value::Array(parts) = entry else { return None };
            let [Value::Int(first), Value::Int(last), nodes @ ..] = parts.as_slice() else { return None };
            let mut nodes = nodes.iter().filter_map(|node| node_address(node, asked));
            let Some(primary) = nodes.next() else { continue };
            map.nodes.insert(primary.clone());
            map.nodes.extend(nodes);
            map.ranges.push((u16::try_from(*first).ok()?, u16::try_from(*last).ok()?, primary));
        }
        map.ranges.sort();
        (!map.ranges.is_empty()).then_some(map)
    }

    pub(super) fn owner(&self, slot: u16) -> Option<&NodeAddress> {
        let behind = self.ranges.partition_point(|(first, ..)| *first <= slot);
        let (_, last, owner) = self.ranges.get(behind.checked_sub(1)?)?;
        (slot <= *last).then_some(owner)
    }

    pub(super) fn primaries(&self) -> BTreeSet<&NodeAddress> {
        self.ranges.iter().map(|(_, _, owner)| owner).collect()
    }
}

fn node_address(node: &Value, asked: &NodeAddress) -> Option<NodeAddress> {
    let Value::Array(parts) = node else { return None };
    let [host, Value::Int(port), ..] = parts.as_slice() else { return None };
    let host = match host {
        Value::BulkString(host) => std::str::from_utf8(host).ok()?,
        Value::SimpleString(host) => host,
        Value::Nil => "",
        _ => return None,
    };
    // "?" stands for a node whose address is unknown.
    let host = match host {
        "?" => return None,
        "" | "0.0.0.0" | "::" => &asked.host,
        host => host,
    };
    Some(NodeAddress { host: host.to_owned(), port: u16::try_from(*port).ok()? })
}

/// Returns the slot of a key: CRC16 of the text in its first braces if that is not empty, else of the whole key
/// (redis.io, "Redis cluster specification").
pub(super) fn slot(key: &[u8]) -> u16 {
    let tag = key.iter().position(|byte| *byte == b'{').and_then(|open| {
        let behind = &key[open + 1..];
        behind.iter().position(|byte| *byte == b'}').map(|close| &behind[..close])
    });
    crc16::State::<crc16::XMODEM>::calculate(tag.filter(|tag| !tag.is_empty()).unwrap_or(key)) % SLOTS
}

/// Connection that reads the map.
#[derive(Default)]
struct Asker {
    /// Node that is asked first, while it answers.
    node: Option<(NodeAddress, MultiplexedConnection)>,
    read_at: Option<Instant>,
}

/// What the program knows about the cluster.
pub(in crate::connection) struct Topology {
    seeds: Vec<ConnectionInfo>,
    patience: Duration,
    map: Mutex<Arc<SlotMap>>,
    /// Whether a reply has contradicted the map.
    stale: AtomicBool,
    asker: tokio::sync::Mutex<Asker>,
    /// Primaries that are unreachable. Each outage is logged once.
    missing: Mutex<BTreeSet<NodeAddress>>,
}

impl Topology {
    /// Returns an empty map of the cluster with the nodes `seeds`, at least one. `patience` bounds each attempt to
    /// connect and each reply.
    pub(in crate::connection) fn new(seeds: Vec<ConnectionInfo>, patience: Duration) -> Self {
        let (map, stale) = (Mutex::default(), AtomicBool::new(true));
        Self { seeds, patience, map, stale, asker: tokio::sync::Mutex::default(), missing: Mutex::default() }
    }

    /// Returns the cluster's name for logs.
    pub(in crate::connection) fn display(&self) -> String {
        let seeds: Vec<_> = self.seeds.iter().map(|seed| address(seed.addr())).collect();
        format!("cluster {}", seeds.join(","))
    }

    /// Returns the map that was read last; empty before the first read.
    pub(super) fn map(&self) -> Arc<SlotMap> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the settings of a connection to a node.
    pub(super) fn info(&self, node: &NodeAddress) -> ConnectionInfo {
        at(&self.seeds[0], &node.host, node.port)
    }

    /// Makes the next [`Topology::current`] read the map again.
    pub(super) fn doubt(&self) {
        self.stale.store(true, Ordering::Release);
    }

    /// Returns the map, after reading it again if it may be out of date.
    ///
    /// # Errors
    /// If no node returns the map and none is known.
    pub(super) async fn current(self: &Arc<Self>) -> Result<Arc<SlotMap>, RedisError> {
        if self.stale.load(Ordering::Acquire) {
            match self.refresh().await {
                Err(error) if self.map().ranges.is_empty() => return Err(error),
                // The known map may still be right for most keys.
                outcome => outcome.map(drop).unwrap_or_default(),
            }
        }
        Ok(self.map())
    }

    /// Reads the map now. Concurrent callers share one read.
    ///
    /// A separate task does the reading, because the lock must never wait for a caller: a caller that has begun and is
    /// not polled for a while (a check that runs beside other work of the same task) would block all other callers, and
    /// itself if it calls this a second time meanwhile. Each step of the task has a time limit.
    ///
    /// # Errors
    /// If no node returns the map.
    pub(super) async fn refresh(self: &Arc<Self>) -> Result<Arc<SlotMap>, RedisError> {
        let (topology, asked_at) = (self.clone(), Instant::now());
        let read = tokio::spawn(async move { topology.read_unless_since(asked_at).await });
        read.await.unwrap_or_else(|_| Err(ended_early()))
    }

    /// Reads the map, unless somebody has read it since.
    async fn read_unless_since(&self, asked_at: Instant) -> Result<Arc<SlotMap>, RedisError> {
        let mut asker = self.asker.lock().await;
        if asker.read_at.is_some_and(|read_at| read_at >= asked_at) {
            return Ok(self.map());
        }
        self.stale.store(false, Ordering::Release);
        if let Some((node, connection)) = asker.node.as_mut() {
            match read(node, connection).await {
                Ok(map) => {
                    asker.read_at = Some(Instant::now());
                    return Ok(self.keep(map));
                }
                Err(error) => tracing::debug!(%node, %error, "a node of the cluster does not tell its slots"),
            }
        }
        asker.node = None;
        let known = self.map();
        let known = known.nodes.iter().map(|node| self.info(node));
        let attempts = known.chain(self.seeds.iter().cloned()).map(|info| Box::pin(self.ask(info)));
        match select_ok(attempts).await {
            Ok(((node, connection, map), _)) => {
                *asker = Asker { node: Some((node, connection)), read_at: Some(Instant::now()) };
                Ok(self.keep(map))
            }
            Err(error) => {
                self.doubt();
                Err(error)
            }
        }
    }

    async fn ask(&self, info: ConnectionInfo) -> Result<(NodeAddress, MultiplexedConnection, SlotMap), RedisError> {
        let node = match info.addr() {
            redis::ConnectionAddr::Tcp(host, port) | redis::ConnectionAddr::TcpTls { host, port, .. } => {
                NodeAddress { host: host.clone(), port: *port }
            }
            _ => return Err(unexpected()),
        };
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.patience))
            .set_response_timeout(Some(self.patience));
        let mut connection = Client::open(info)?.get_multiplexed_async_connection_with_config(&config).await?;
        let map = read(&node, &mut connection).await?;
        Ok((node, connection, map))
    }

    fn keep(&self, map: SlotMap) -> Arc<SlotMap> {
        let mut kept = self.map.lock().unwrap_or_else(PoisonError::into_inner);
        if **kept != map {
            tracing::debug!(primaries = map.primaries().len(), "slots of the cluster read");
            *kept = Arc::new(map);
        }
        kept.clone()
    }

    /// Records whether a primary can be reached; logs a change.
    pub(super) fn note(&self, node: &NodeAddress, outcome: Result<(), &RedisError>) {
        let mut missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            Ok(()) if missing.remove(node) => tracing::info!(%node, "primary of the cluster can be reached again"),
            Err(error) if missing.insert(node.clone()) => {
                tracing::warn!(%node, %error, "primary of the cluster can't be reached: its keys can't until it is back or replaced");
            }
            _ => {}
        }
    }
}

async fn read(node: &NodeAddress, connection: &mut MultiplexedConnection) -> Result<SlotMap, RedisError> {
    let reply: Value = redis::cmd("CLUSTER").arg("SLOTS").query_async(connection).await?;
    SlotMap::read(reply, node).ok_or_else(unexpected)
}

/// The runtime shuts down.
pub(super) fn ended_early() -> RedisError {
    RedisError::from((ErrorKind::Io, "the attempt to connect ended early"))
}

fn unexpected() -> RedisError {
    RedisError::from((
        ErrorKind::UnexpectedReturnType,
        "no slots are served, or CLUSTER SLOTS tells them in another form",
    ))
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn a_caller_that_is_not_polled_any_more_holds_up_nobody() {
        let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let seed = Client::open(format!("redis://{}", mute.local_addr().unwrap())).unwrap();
        let seeds = vec![seed.get_connection_info().clone()];
        let topology = Arc::new(Topology::new(seeds, Duration::from_millis(50)));
        let mut begun = Box::pin(topology.refresh());
        assert!((&mut begun).now_or_never().is_none());
        let other = timeout(Duration::from_secs(30), topology.refresh()).await;
        assert!(other.expect("an answer, though the first caller is not polled").is_err());
        assert!(begun.await.is_err());
    }

    fn node(host: &str, port: u16) -> Value {
        Value::Array(vec![Value::BulkString(host.into()), Value::Int(port.into()), Value::BulkString("id".into())])
    }

    fn address_of(host: &str, port: u16) -> NodeAddress {
        NodeAddress { host: host.to_owned(), port }
    }

    #[test]
    fn slots_are_those_of_the_specification() {
        // Replies of CLUSTER KEYSLOT on Redis 7.0.15.
        for (key, expected) in [("foo", 12_182), ("{user1000}.following", 3_443), ("user1000", 3_443), ("a{}b", 13_694)]
        {
            assert_eq!(slot(key.as_bytes()), expected, "{key}");
        }
        assert_eq!(slot(b"{browser:jobs}:dead"), slot(b"browser:jobs"));
        assert_eq!(slot(b"scaler:leader{scaling:events}"), slot(b"scaling:events"));
    }

    #[test]
    fn the_owner_of_each_slot_is_found() {
        let range = |first, last, node: Value| Value::Array(vec![Value::Int(first), Value::Int(last), node]);
        let replicated =
            Value::Array(vec![Value::Int(0), Value::Int(99), node("", 7000), node("b", 7003), node("?", 7004)]);
        let reply = Value::Array(vec![range(200, 16_383, node("c", 7002)), replicated]);
        let map = SlotMap::read(reply, &address_of("asked", 1)).unwrap();
        assert_eq!(map.owner(0), Some(&address_of("asked", 7000)));
        assert_eq!((map.owner(99).is_some(), map.owner(100), map.owner(199)), (true, None, None));
        assert_eq!(map.owner(16_383), Some(&address_of("c", 7002)));
        assert_eq!((map.primaries().len(), map.nodes.len()), (2, 3));
        assert_eq!(SlotMap::read(Value::Array(Vec::new()), &address_of("asked", 1)), None);
    }

    #[test]
    fn a_redirection_names_a_node() {
        let from = address_of("h", 1);
        assert_eq!(NodeAddress::redirected("10.0.0.1:7001", &from), Some(address_of("10.0.0.1", 7001)));
        assert_eq!(NodeAddress::redirected(":7001", &from), Some(address_of("h", 7001)));
        assert_eq!(
            NodeAddress::redirected("[::1]:7001", &from).map(|node| node.to_string()).as_deref(),
            Some("[::1]:7001")
        );
    }
}

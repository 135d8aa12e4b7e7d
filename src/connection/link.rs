//! One connection to the target, which is a server or all primaries of a cluster. The rest of the program uses this
//! type.

use futures_util::future::{join_all, ready};
use redis::{
    Cmd, Pipeline, RedisError, RedisFuture, RedisResult, Value,
    aio::{ConnectionLike, MultiplexedConnection},
};

use super::{cluster::ClusterConnection, sentinel::NamedPrimary};
use crate::model::Layout;

/// Maximum channels in one SUBSCRIBE; bounds the size of the command with many worker types.
const SUBSCRIBE_BATCH: usize = 1_000;

/// An open connection. Clones share it.
///
/// On a cluster each command goes to the primary that has its key. A pipeline is split by primary; the commands for one
/// primary stay in order, and a command without a key follows the one before it. A transaction over several slots is
/// carried out slot by slot; the slot of its last command comes last, and only if the others succeeded.
#[derive(Clone)]
pub struct Connection {
    kind: Kind,
    /// The answer of sentinels that led to the server.
    named: Option<NamedPrimary>,
}

#[derive(Clone)]
enum Kind {
    Server(MultiplexedConnection),
    Cluster(ClusterConnection),
}

/// Subscription command that every server of a target gets, because each server publishes only its own events there.
#[derive(Clone, Copy, Debug)]
enum Listening {
    Subscribe,
    SubscribePatterns,
    Unsubscribe,
    UnsubscribePatterns,
}

/// The primaries of a target, one by one.
pub struct Primaries {
    /// Connections to the reachable primaries; on a single server, the server.
    pub open: Vec<Connection>,
    /// Why the other primaries can't be reached.
    pub missing: Vec<String>,
}

impl Connection {
    pub(super) fn server(connection: MultiplexedConnection) -> Self {
        Self { kind: Kind::Server(connection), named: None }
    }

    /// Returns a connection to the server that sentinels named as the primary.
    pub(super) fn of_sentinels(connection: MultiplexedConnection, named: NamedPrimary) -> Self {
        Self { named: Some(named), ..Self::server(connection) }
    }

    pub(super) fn cluster(connection: ClusterConnection) -> Self {
        Self { kind: Kind::Cluster(connection), named: None }
    }

    /// Returns whether this is a connection to the primaries of a cluster.
    pub fn is_cluster(&self) -> bool {
        matches!(self.kind, Kind::Cluster(_))
    }

    /// Returns how keys that one command uses together are named here.
    pub fn layout(&self) -> Layout {
        if self.is_cluster() { Layout::Cluster } else { Layout::Single }
    }

    /// Returns a connection to the one server that has `key`, for commands about that server and for blocking reads. It
    /// counts as lost ([`is_lost`](super::is_lost)) when the key moves to another server.
    ///
    /// # Errors
    /// If that server can't be reached.
    pub async fn at(&self, key: &str) -> RedisResult<Self> {
        Ok(match &self.kind {
            Kind::Server(_) => self.clone(),
            Kind::Cluster(cluster) => Self::server(cluster.at(key).await?),
        })
    }

    /// Returns a name for the server that has `key`: keys with the same name depend on the same server. `None` on a
    /// single server.
    pub fn place(&self, key: &str) -> Option<String> {
        match &self.kind {
            Kind::Server(_) => None,
            Kind::Cluster(cluster) => cluster.place(key),
        }
    }

    /// Returns all primaries.
    ///
    /// # Errors
    /// If the primaries are unknown.
    pub async fn primaries(&self) -> RedisResult<Primaries> {
        Ok(match &self.kind {
            Kind::Server(_) => Primaries { open: vec![self.clone()], missing: Vec::new() },
            Kind::Cluster(cluster) => {
                let (open, missing) = cluster.primaries().await?;
                Primaries { open: open.into_iter().map(Self::server).collect(), missing }
            }
        })
    }

    /// Returns whether sentinels named the server.
    pub fn is_of_sentinels(&self) -> bool {
        self.named.is_some()
    }

    /// Returns an error that counts as a lost connection ([`is_lost`](super::is_lost)) if most of the sentinels name
    /// another primary. Then all connections to this server in this process fail so. Asks nobody without sentinels.
    /// Without a majority nothing is known, and the server counts as what it was.
    ///
    /// # Errors
    /// If another server is the primary.
    pub async fn confirm_primary(&self) -> RedisResult<()> {
        match &self.named {
            Some(named) => named.confirm().await,
            None => Ok(()),
        }
    }

    /// Returns an error if the sentinels are known to name another primary. Asks nobody.
    fn check_primary(&self) -> RedisResult<()> {
        self.named.as_ref().map_or(Ok(()), NamedPrimary::check)
    }

    /// Pings the server, on a cluster every primary, and opens missing connections; asks sentinels whether the server
    /// is still the primary. The returned number changes if keys may have moved or connections were reopened: the
    /// caller then has to repeat what it asked of a server before (tracking, notifications).
    ///
    /// # Errors
    /// If no server answers, or the sentinels name another primary.
    pub async fn check(&mut self) -> RedisResult<u64> {
        match &mut self.kind {
            Kind::Server(server) => {
                redis::cmd("PING").exec_async(server).await?;
                self.confirm_primary().await?;
                Ok(0)
            }
            Kind::Cluster(cluster) => cluster.check().await,
        }
    }

    /// Subscribes to a channel. On a cluster, one primary is enough, because messages are passed to all.
    ///
    /// # Errors
    /// If the server refuses the subscription.
    pub async fn subscribe(&mut self, channel: impl AsRef<str>) -> RedisResult<()> {
        match &mut self.kind {
            Kind::Server(server) => server.subscribe(channel.as_ref()).await,
            Kind::Cluster(cluster) => cluster.subscribe(channel.as_ref()).await,
        }
    }

    /// Subscribes to channels on which each server publishes only its own events. On a cluster, subscribes on every
    /// reachable primary, so that events of a key are received also while it moves between primaries.
    ///
    /// # Errors
    /// If a server refuses the subscription. On a cluster, a lost server is not an error.
    pub async fn subscribe_everywhere(&mut self, channels: &[String]) -> RedisResult<()> {
        self.everywhere(channels, Listening::Subscribe).await
    }

    /// Like [`subscribe_everywhere`](Self::subscribe_everywhere), for all channels that match patterns.
    ///
    /// # Errors
    /// As for [`subscribe_everywhere`](Self::subscribe_everywhere).
    pub async fn psubscribe_everywhere(&mut self, patterns: &[String]) -> RedisResult<()> {
        self.everywhere(patterns, Listening::SubscribePatterns).await
    }

    /// Ends [`subscribe_everywhere`](Self::subscribe_everywhere).
    ///
    /// # Errors
    /// As for [`subscribe_everywhere`](Self::subscribe_everywhere).
    pub async fn unsubscribe_everywhere(&mut self, channels: &[String]) -> RedisResult<()> {
        self.everywhere(channels, Listening::Unsubscribe).await
    }

    /// Ends [`psubscribe_everywhere`](Self::psubscribe_everywhere).
    ///
    /// # Errors
    /// As for [`subscribe_everywhere`](Self::subscribe_everywhere).
    pub async fn punsubscribe_everywhere(&mut self, patterns: &[String]) -> RedisResult<()> {
        self.everywhere(patterns, Listening::UnsubscribePatterns).await
    }

    async fn everywhere(&self, channels: &[String], listening: Listening) -> RedisResult<()> {
        for batch in channels.chunks(SUBSCRIBE_BATCH) {
            let mut servers = self.servers().await?;
            let asked = servers.iter_mut().map(async |server| match listening {
                Listening::Subscribe => server.subscribe(batch).await,
                Listening::SubscribePatterns => server.psubscribe(batch).await,
                Listening::Unsubscribe => server.unsubscribe(batch).await,
                Listening::UnsubscribePatterns => server.punsubscribe(batch).await,
            });
            self.unless_gone(join_all(asked).await)?;
        }
        Ok(())
    }

    async fn servers(&self) -> RedisResult<Vec<MultiplexedConnection>> {
        match &self.kind {
            Kind::Server(server) => Ok(vec![server.clone()]),
            Kind::Cluster(cluster) => Ok(cluster.primaries().await?.0),
        }
    }

    /// Ignores lost servers of a cluster: the next check reopens their connections and returns another number.
    fn unless_gone(&self, outcomes: Vec<RedisResult<()>>) -> RedisResult<()> {
        let gone = |outcome: &RedisResult<()>| self.is_cluster() && outcome.as_ref().is_err_and(super::is_lost);
        outcomes.into_iter().filter(|outcome| !gone(outcome)).collect()
    }

    /// Returns the number of subscribers of a channel, on a cluster those of all primaries.
    ///
    /// # Errors
    /// If a server can't be asked.
    pub async fn listeners(&mut self, channel: &str) -> RedisResult<u64> {
        let mut sum = 0;
        for mut server in self.primaries().await?.open {
            let (_, count): (String, u64) =
                redis::cmd("PUBSUB").arg("NUMSUB").arg(channel).query_async(&mut server).await?;
            sum += count;
        }
        Ok(sum)
    }

    /// Returns the replies to a pipeline. On a cluster, a command that could not be sent has an error in the place of
    /// its reply, so that a lost primary does not hide the replies of the others.
    ///
    /// # Errors
    /// If no server can be asked.
    pub async fn each(&mut self, pipeline: &Pipeline) -> RedisResult<Vec<Value>> {
        self.check_primary()?;
        match &mut self.kind {
            Kind::Server(server) => server.send_packed_commands(pipeline, 0, pipeline.len()).await,
            Kind::Cluster(cluster) => cluster.each(pipeline).await,
        }
    }
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        if let Err(error) = self.check_primary() {
            return Box::pin(ready(Err(error)));
        }
        match &mut self.kind {
            Kind::Server(server) => server.req_packed_command(cmd),
            Kind::Cluster(cluster) => Box::pin(cluster.command(cmd)),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        if let Err(error) = self.check_primary() {
            return Box::pin(ready(Err(error)));
        }
        match &mut self.kind {
            Kind::Server(server) => server.req_packed_commands(pipeline, offset, count),
            Kind::Cluster(cluster) => Box::pin(async {
                if pipeline.is_transaction() {
                    cluster.transaction(pipeline).await
                } else {
                    cluster.pipeline(pipeline).await
                }
            }),
        }
    }

    fn get_db(&self) -> i64 {
        match &self.kind {
            Kind::Server(server) => server.get_db(),
            Kind::Cluster(_) => 0,
        }
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.is_cluster() { "Connection(cluster)" } else { "Connection" })
    }
}

/// Returns whether any of these keys exists: one command and one number for hundreds of keys, most of which never
/// exist. Returns `true` on an error, so that the caller reads the keys and meets the error itself.
pub async fn any_exists(connection: &mut Connection, keys: impl IntoIterator<Item = String>) -> bool {
    let found: Result<u64, RedisError> = if connection.is_cluster() {
        let mut pipeline = redis::pipe();
        for key in keys {
            pipeline.cmd("EXISTS").arg(key);
        }
        pipeline.query_async::<Vec<u64>>(connection).await.map(|found| found.into_iter().sum())
    } else {
        let mut command = redis::cmd("EXISTS");
        for key in keys {
            command.arg(key);
        }
        command.query_async(connection).await
    };
    found.map_or(true, |found| found > 0)
}

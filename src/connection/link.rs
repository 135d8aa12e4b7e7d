//! One connection, to whatever the target is: a server, or all primaries of a cluster. What the rest of the program
//! talks to.

use futures_util::future::join_all;
use redis::{
    Cmd, Pipeline, RedisError, RedisFuture, RedisResult, Value,
    aio::{ConnectionLike, MultiplexedConnection},
};

use super::cluster::ClusterConnection;
use crate::model::Layout;

/// Channels named in one SUBSCRIBE: bounds the size of a command with many worker types.
const SUBSCRIBE_BATCH: usize = 1_000;

/// An open connection. Clones share it.
///
/// On a cluster each command goes to the primary that has its key. A pipeline is split by primary, and what goes to one
/// stays in order: a command without a key follows the one before it. A transaction over several slots is carried out
/// slot by slot, that of its last command at the end, and only if the others were done.
#[derive(Clone)]
pub struct Connection(Kind);

#[derive(Clone)]
enum Kind {
    Server(MultiplexedConnection),
    Cluster(ClusterConnection),
}

/// What is asked of every server that speaks for itself.
#[derive(Clone, Copy, Debug)]
enum Listening {
    Subscribe,
    SubscribePatterns,
    Unsubscribe,
    UnsubscribePatterns,
}

/// The primaries of a target, each by itself.
pub struct Primaries {
    /// Those that can be reached; the server, if it is one.
    pub open: Vec<Connection>,
    /// Why others can't.
    pub missing: Vec<String>,
}

impl Connection {
    pub(super) fn server(connection: MultiplexedConnection) -> Self {
        Self(Kind::Server(connection))
    }

    pub(super) fn cluster(connection: ClusterConnection) -> Self {
        Self(Kind::Cluster(connection))
    }

    /// Whether it is one to the primaries of a cluster.
    pub fn is_cluster(&self) -> bool {
        matches!(self.0, Kind::Cluster(_))
    }

    /// How keys that are used together are named here.
    pub fn layout(&self) -> Layout {
        if self.is_cluster() { Layout::Cluster } else { Layout::Single }
    }

    /// A connection to the one server that has `key`: for what a server says about itself, and for blocking reads. It
    /// counts as lost ([`is_lost`](super::is_lost)) when the key goes elsewhere.
    ///
    /// # Errors
    /// If that server can't be reached.
    pub async fn at(&self, key: &str) -> RedisResult<Self> {
        Ok(match &self.0 {
            Kind::Server(_) => self.clone(),
            Kind::Cluster(cluster) => Self::server(cluster.at(key).await?),
        })
    }

    /// Names the server that has `key`: what has the same name depends on the same server. `None` where all have.
    pub fn place(&self, key: &str) -> Option<String> {
        match &self.0 {
            Kind::Server(_) => None,
            Kind::Cluster(cluster) => cluster.place(key),
        }
    }

    /// Every primary.
    ///
    /// # Errors
    /// If it isn't known which those are.
    pub async fn primaries(&self) -> RedisResult<Primaries> {
        Ok(match &self.0 {
            Kind::Server(_) => Primaries { open: vec![self.clone()], missing: Vec::new() },
            Kind::Cluster(cluster) => {
                let (open, missing) = cluster.primaries().await?;
                Primaries { open: open.into_iter().map(Self::server).collect(), missing }
            }
        })
    }

    /// Asks for a sign of life, on a cluster of every primary, and opens what is missing. The answer is another one
    /// than before if keys may have gone elsewhere or connections were made anew since: then what was asked of a server
    /// before (to track, to notify) has to be asked again.
    ///
    /// # Errors
    /// If nobody answers.
    pub async fn check(&mut self) -> RedisResult<u64> {
        match &mut self.0 {
            Kind::Server(server) => {
                redis::cmd("PING").exec_async(server).await?;
                Ok(0)
            }
            Kind::Cluster(cluster) => cluster.check().await,
        }
    }

    /// Listens on a channel. On a cluster, on one primary: a message is passed on to all.
    ///
    /// # Errors
    /// If the server refuses it.
    pub async fn subscribe(&mut self, channel: impl AsRef<str>) -> RedisResult<()> {
        match &mut self.0 {
            Kind::Server(server) => server.subscribe(channel.as_ref()).await,
            Kind::Cluster(cluster) => cluster.subscribe(channel.as_ref()).await,
        }
    }

    /// Listens on channels on which each server speaks for itself. On a cluster, on every primary that can be reached:
    /// so a key that goes from one to another is heard of all the time.
    ///
    /// # Errors
    /// If a server refuses it; one that went away is no error on a cluster.
    pub async fn subscribe_everywhere(&mut self, channels: &[String]) -> RedisResult<()> {
        self.everywhere(channels, Listening::Subscribe).await
    }

    /// As [`subscribe_everywhere`](Self::subscribe_everywhere), on all channels that match patterns.
    ///
    /// # Errors
    /// As there.
    pub async fn psubscribe_everywhere(&mut self, patterns: &[String]) -> RedisResult<()> {
        self.everywhere(patterns, Listening::SubscribePatterns).await
    }

    /// Ends [`subscribe_everywhere`](Self::subscribe_everywhere).
    ///
    /// # Errors
    /// As there.
    pub async fn unsubscribe_everywhere(&mut self, channels: &[String]) -> RedisResult<()> {
        self.everywhere(channels, Listening::Unsubscribe).await
    }

    /// Ends [`psubscribe_everywhere`](Self::psubscribe_everywhere).
    ///
    /// # Errors
    /// As there.
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
        match &self.0 {
            Kind::Server(server) => Ok(vec![server.clone()]),
            Kind::Cluster(cluster) => Ok(cluster.primaries().await?.0),
        }
    }

    /// Of a cluster, one that went away is no error: the next check opens it again, and its answer then is another one.
    fn unless_gone(&self, outcomes: Vec<RedisResult<()>>) -> RedisResult<()> {
        let gone = |outcome: &RedisResult<()>| self.is_cluster() && outcome.as_ref().is_err_and(super::is_lost);
        outcomes.into_iter().filter(|outcome| !gone(outcome)).collect()
    }

    /// How many listen on a channel, wherever in a cluster they do.
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

    /// The replies to a pipeline of commands. Of a cluster, what could not be asked is an error in the place of its
    /// reply, so that one primary which is gone hides nothing of the others.
    ///
    /// # Errors
    /// If nobody can be asked.
    pub async fn each(&mut self, pipeline: &Pipeline) -> RedisResult<Vec<Value>> {
        match &mut self.0 {
            Kind::Server(server) => server.send_packed_commands(pipeline, 0, pipeline.len()).await,
            Kind::Cluster(cluster) => cluster.each(pipeline).await,
        }
    }
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        match &mut self.0 {
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
        match &mut self.0 {
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
        match &self.0 {
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

/// Whether any of these keys is there: one command and one number for hundreds of keys, most of which never are. `true`
/// if that can't be told, so that whoever asks looks, and meets the error, himself.
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

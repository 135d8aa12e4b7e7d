//! Opens connections to Redis: URL, TLS, timeouts, backoff between attempts; finds the primary through sentinels, and
//! the nodes of a cluster. The only module that knows the URL's secrets. Must not know what the connections are used
//! for, and never repeats a command whose outcome is unknown.

mod cluster;
mod error;
mod link;
mod reconnect;
mod scan;
mod sentinel;

use std::{
    convert::Infallible,
    fmt,
    sync::{Arc, Once},
    time::Duration,
};

use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, ProtocolVersion, PushInfo,
    aio::{AsyncPushSender, MultiplexedConnection},
};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::watch;

use self::{
    cluster::{ClusterConnection, Topology},
    sentinel::Sentinels,
};
pub use self::{
    error::{ConnectionError, is_lost},
    link::{Connection, Primaries, any_exists},
    reconnect::{Backoff, Session, backoff, keep_connected},
    scan::Scan,
};
use crate::{
    config::{RedisUrl, RedisUrlError},
    model::Layout,
};

/// Interval between checks of an idle connection: bounds how long a dead connection goes unnoticed between sweeps. A
/// dead server is noticed earlier, by the first connection that does not get a reply ([`RedisTarget::doubt`]).
const CHECK_SERVER: Duration = Duration::from_secs(10);
/// The same for a cluster, where it also bounds how long a replica's promotion and moved slots go unnoticed.
const CHECK_CLUSTER: Duration = Duration::from_secs(1);

/// A Redis database to connect to, with the timeouts of its connections.
///
/// `Debug` and [`RedisTarget::display`] show no secrets.
#[derive(Clone)]
pub struct RedisTarget {
    place: Place,
    connect_timeout: Duration,
    response_timeout: Duration,
    /// Changes when a connection of any owner failed.
    doubts: watch::Sender<()>,
}

#[derive(Clone)]
enum Place {
    Server(Arc<Client>),
    Sentinel(Arc<Sentinels>),
    Cluster(Arc<Topology>),
}

impl RedisTarget {
    /// Parses `url`; does not connect. `timeout` bounds each attempt to connect and each reply.
    pub fn new(url: &SecretString, timeout: Duration) -> Result<Self, ConnectionError> {
        install_crypto_provider();
        let problem = |error: RedisUrlError| ConnectionError::Url { reason: error.to_string() };
        let open = |url: &SecretString| Client::open(url.expose_secret()).map_err(|error| ConnectionError::url(&error));
        let place = match RedisUrl::parse(url.expose_secret()).map_err(problem)? {
            RedisUrl::Single(url) => Place::Server(Arc::new(open(&url)?)),
            RedisUrl::Sentinel(url) => Place::Sentinel(Arc::new(Sentinels::new(&url)?)),
            RedisUrl::Cluster(nodes) => {
                let seeds = nodes.iter().map(|node| Ok(open(node)?.get_connection_info().clone()));
                Place::Cluster(Arc::new(Topology::new(seeds.collect::<Result<_, ConnectionError>>()?, timeout)))
            }
        };
        Ok(Self { place, connect_timeout: timeout, response_timeout: timeout, doubts: watch::Sender::default() })
    }

    /// Returns the database number.
    pub fn database(&self) -> i64 {
        match &self.place {
            Place::Server(client) => client.get_connection_info().redis_settings().db(),
            Place::Sentinel(sentinels) => sentinels.database(),
            Place::Cluster(_) => 0,
        }
    }

    /// Returns how keys that one command uses together are named there.
    pub fn layout(&self) -> Layout {
        if matches!(self.place, Place::Cluster(_)) { Layout::Cluster } else { Layout::Single }
    }

    /// Returns the timeout of replies on connections of [`RedisTarget::connect`].
    pub fn response_timeout(&self) -> Duration {
        self.response_timeout
    }

    /// Returns the interval at which the owner of an open connection must [check](Connection::check) it.
    pub fn check_interval(&self) -> Duration {
        if matches!(self.place, Place::Cluster(_)) { CHECK_CLUSTER } else { CHECK_SERVER }
    }

    /// Makes the owners of all other connections check them now, because one did not get a reply.
    pub fn doubt(&self) {
        self.doubts.send_replace(());
    }

    /// Returns a receiver that changes with each [doubt](Self::doubt).
    pub fn doubts(&self) -> watch::Receiver<()> {
        self.doubts.subscribe()
    }

    /// Returns `host:port/database`, or the sentinels and the name, or the nodes of the cluster, for logs.
    pub fn display(&self) -> String {
        match &self.place {
            Place::Server(client) => match client.get_connection_info().addr() {
                ConnectionAddr::Unix(path) => format!("{}#{}", path.display(), self.database()),
                addr => format!("{}/{}", address(addr), self.database()),
            },
            Place::Sentinel(sentinels) => sentinels.display(),
            Place::Cluster(topology) => topology.display(),
        }
    }

    /// Connects for commands that do not block.
    pub async fn connect(&self) -> Result<Connection, ConnectionError> {
        self.open(Some(self.response_timeout), None).await
    }

    /// Connects for commands that block in the server (`XREADGROUP … BLOCK`, `BLPOP`). Replies have no timeout, so the
    /// caller bounds each one itself. A blocking command delays all other commands on its connection.
    pub async fn connect_without_timeout(&self) -> Result<Connection, ConnectionError> {
        self.open(None, None).await
    }

    /// Connects with RESP3. The connection's driver task calls `push` for every push message of the server, and with
    /// `PushKind::Disconnection` when the connection is lost; on a cluster, the connection to any node. `push` must not
    /// block.
    pub async fn connect_with_push(
        &self,
        push: impl Fn(PushInfo) -> Result<(), Infallible> + Send + Sync + 'static,
    ) -> Result<Connection, ConnectionError> {
        let push: OnPush = Arc::new(move |info| {
            let Ok(()) = push(info);
        });
        self.open(Some(self.response_timeout), Some(push)).await
    }

    async fn open(
        &self,
        response_timeout: Option<Duration>,
        push: Option<OnPush>,
    ) -> Result<Connection, ConnectionError> {
        let resp3_wanted = push.is_some();
        let config = |push: Option<OnPush>| {
            let config = AsyncConnectionConfig::new()
                .set_connection_timeout(Some(self.connect_timeout))
                .set_response_timeout(response_timeout);
            match push {
                Some(push) => config.set_push_sender(pushes(push)),
                None => config,
            }
        };
        match &self.place {
            Place::Server(client) => {
                let connection = connect_server(client, &config(push), resp3_wanted).await;
                let connection = connection.map_err(|cause| ConnectionError::of_server(self.display(), cause))?;
                Ok(Connection::server(connection))
            }
            Place::Sentinel(sentinels) => {
                let (connection, named) = sentinels.connect(&config(push), resp3_wanted, self.connect_timeout).await?;
                Ok(Connection::of_sentinels(connection, named))
            }
            Place::Cluster(topology) => {
                let opened =
                    ClusterConnection::open(topology.clone(), self.connect_timeout, response_timeout, push).await;
                opened.map(Connection::cluster).map_err(|cause| {
                    let target = self.display();
                    if error::is_refusal(&cause) {
                        ConnectionError::Refused { target, cause }
                    } else {
                        ConnectionError::NoTopology { target, cause }
                    }
                })
            }
        }
    }
}

/// Callback for every push message of a server.
type OnPush = Arc<dyn Fn(PushInfo) + Send + Sync>;

fn pushes(push: OnPush) -> impl AsyncPushSender {
    move |info: PushInfo| {
        push(info);
        Ok::<(), Infallible>(())
    }
}

async fn connect_server(
    client: &Client,
    config: &AsyncConnectionConfig,
    with_resp3: bool,
) -> Result<MultiplexedConnection, redis::RedisError> {
    if !with_resp3 {
        return client.get_multiplexed_async_connection_with_config(config).await;
    }
    let client = Client::open(resp3(client.get_connection_info().clone()))?;
    client.get_multiplexed_async_connection_with_config(config).await
}

/// Returns the same server settings with RESP3.
fn resp3(info: ConnectionInfo) -> ConnectionInfo {
    let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
    info.set_redis_settings(settings)
}

/// Returns `host:port`.
fn address(addr: &ConnectionAddr) -> String {
    match addr {
        ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } if host.contains(':') => {
            format!("[{host}]:{port}")
        }
        ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => format!("{host}:{port}"),
        other => other.to_string(),
    }
}

impl fmt::Debug for RedisTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisTarget").field("at", &self.display()).finish_non_exhaustive()
    }
}

/// Chooses the cryptography provider of rustls, once for the whole process. A provider chosen earlier stays.
fn install_crypto_provider() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(url: &str) -> Result<RedisTarget, ConnectionError> {
        RedisTarget::new(&SecretString::from(url), Duration::from_millis(200))
    }

    #[test]
    fn display_names_host_port_and_database_but_no_secrets() {
        for (url, shown) in [
            ("redis://localhost", "localhost:6379/0"),
            ("redis://bot:hunter2@redis.example:7000/3", "redis.example:7000/3"),
            ("rediss://:hunter2@redis.example/1", "redis.example:6379/1"),
            ("redis://[::1]:6380/2", "[::1]:6380/2"),
            (
                "redis+sentinel://u:hunter2@a,b:5/main/1?sentinel_password=hunter2",
                "`main`/1 of the sentinels a:26379,b:5",
            ),
            ("rediss+cluster://u:hunter2@a,b:7000", "cluster a:6379,b:7000"),
        ] {
            let target = target(url).unwrap();
            assert_eq!(target.display(), shown);
            assert!(!format!("{target:?}").contains("hunter2"));
        }
        assert_eq!(target("redis://localhost/7").unwrap().database(), 7);
        assert_eq!(target("redis://localhost?db=7").unwrap().database(), 7);
    }

    #[test]
    fn a_bad_url_is_an_error_that_shows_the_form_and_no_secret() {
        for url in ["", "localhost:6379", "http://x:hunter2@localhost", "redis://x:hunter2@localhost/notanumber"] {
            let message = target(url).unwrap_err().to_string();
            assert!(message.contains("redis://[user:password@]host"), "{message}");
            assert!(!message.contains("hunter2"), "{message}");
        }
    }

    #[tokio::test]
    async fn nobody_listening_is_unreachable_and_names_the_target() {
        let error = target("redis://127.0.0.1:1/0").unwrap().connect().await.unwrap_err();
        assert!(matches!(error, ConnectionError::Unreachable { .. }), "{error}");
        assert!(error.to_string().contains("127.0.0.1:1/0"), "{error}");
    }
}

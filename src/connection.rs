//! Opens connections to Redis: URL, TLS, time-outs, backoff between attempts. The one place that knows the URL's secrets.
//! Must not know what the connections are used for, and never retries by itself.

use std::{fmt, sync::Once, time::Duration};

use backon::{BackoffBuilder, ExponentialBuilder};
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, ErrorKind, ProtocolVersion, RedisError,
    aio::{AsyncPushSender, MultiplexedConnection},
};
use secrecy::{ExposeSecret, SecretString};

/// The first wait between attempts: a Redis that restarts is back within a few of these.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
/// Before jitter, which at most doubles a wait: no wait is longer than 5 s.
const BACKOFF_MAX: Duration = Duration::from_millis(2_500);

/// What the server's refusals of a user begin with. In RESP3 the user is named in HELLO, whose refusal the client passes on
/// as it is.
const REFUSALS: [&str; 2] = ["WRONGPASS", "NOAUTH"];

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// The URL can't be used. The URL itself is left out: it may hold a password.
    #[error(
        "the redis url can't be used: {reason}; write redis://[user:password@]host[:port][/database], or rediss:// for tls"
    )]
    Url {
        /// What is wrong with it.
        reason: String,
    },
    /// The server refused the user or password.
    #[error("redis at {target} refused the user or password ({cause}); check them in the redis url")]
    Refused {
        /// `host:port/database`.
        target: String,
        /// What the server said.
        cause: RedisError,
    },
    /// No connection.
    #[error("can't connect to redis at {target} ({cause}); check that it runs there and can be reached")]
    Unreachable {
        /// `host:port/database`.
        target: String,
        /// What went wrong.
        cause: RedisError,
    },
}

/// A Redis database to connect to, and how long its answers may take.
///
/// `Debug` and [`RedisTarget::display`] show no secrets.
#[derive(Clone)]
pub struct RedisTarget {
    client: Client,
    connect_timeout: Duration,
    response_timeout: Duration,
}

impl RedisTarget {
    /// Reads `url`; connects to nothing yet. `timeout` bounds each attempt to connect and each reply.
    pub fn new(url: &SecretString, timeout: Duration) -> Result<Self, ConnectionError> {
        install_crypto_provider();
        let client = Client::open(url.expose_secret()).map_err(|error| url_error(&error))?;
        Ok(Self { client, connect_timeout: timeout, response_timeout: timeout })
    }

    /// The database number.
    pub fn database(&self) -> i64 {
        self.info().redis_settings().db()
    }

    /// How long a reply may take on connections of [`RedisTarget::connect`].
    pub fn response_timeout(&self) -> Duration {
        self.response_timeout
    }

    /// `host:port/database`, for logs.
    pub fn display(&self) -> String {
        match self.info().addr() {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } if host.contains(':') => {
                format!("[{host}]:{port}/{}", self.database())
            }
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
                format!("{host}:{port}/{}", self.database())
            }
            ConnectionAddr::Unix(path) => format!("{}#{}", path.display(), self.database()),
            other => format!("{other}/{}", self.database()),
        }
    }

    /// Connects for commands that answer at once.
    pub async fn connect(&self) -> Result<MultiplexedConnection, ConnectionError> {
        self.open(&self.client, &self.config().set_response_timeout(Some(self.response_timeout))).await
    }

    /// Connects for commands that block in the server (`XREADGROUP … BLOCK`, `BLPOP`): replies have no time-out, so the
    /// caller bounds each one itself. A blocking command holds up every other one on its connection.
    pub async fn connect_without_timeout(&self) -> Result<MultiplexedConnection, ConnectionError> {
        self.open(&self.client, &self.config().set_response_timeout(None)).await
    }

    /// Connects with RESP3. `push` is called in the connection's driver task for every message that the server sends by
    /// itself, and with `PushKind::Disconnection` when the connection is lost; it must not block.
    pub async fn connect_with_push(
        &self,
        push: impl AsyncPushSender,
    ) -> Result<MultiplexedConnection, ConnectionError> {
        let info = self.info().clone();
        let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        let client = Client::open(info.set_redis_settings(settings)).map_err(|error| url_error(&error))?;
        let config = self.config().set_response_timeout(Some(self.response_timeout)).set_push_sender(push);
        self.open(&client, &config).await
    }

    fn info(&self) -> &ConnectionInfo {
        self.client.get_connection_info()
    }

    fn config(&self) -> AsyncConnectionConfig {
        AsyncConnectionConfig::new().set_connection_timeout(Some(self.connect_timeout))
    }

    async fn open(
        &self,
        client: &Client,
        config: &AsyncConnectionConfig,
    ) -> Result<MultiplexedConnection, ConnectionError> {
        client.get_multiplexed_async_connection_with_config(config).await.map_err(|cause| {
            let target = self.display();
            if cause.kind() == ErrorKind::AuthenticationFailed
                || cause.code().is_some_and(|code| REFUSALS.contains(&code))
            {
                ConnectionError::Refused { target, cause }
            } else {
                ConnectionError::Unreachable { target, cause }
            }
        })
    }
}

impl fmt::Debug for RedisTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisTarget").field("at", &self.display()).finish_non_exhaustive()
    }
}

/// Waits between attempts to reach Redis: growing, jittered, never more than 5 s, without end.
pub fn backoff() -> impl Iterator<Item = Duration> + Send {
    ExponentialBuilder::default()
        .with_min_delay(BACKOFF_MIN)
        .with_max_delay(BACKOFF_MAX)
        .without_max_times()
        .with_jitter()
        .build()
}

fn url_error(error: &RedisError) -> ConnectionError {
    ConnectionError::Url { reason: error.to_string() }
}

/// rustls wants its cryptography chosen once for the whole process. A provider chosen before stays.
fn install_crypto_provider() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}

/// Whether any of these keys is there: one command and one number for hundreds of keys, most of which never are. `true` if
/// that can't be told, so that whoever asks looks, and meets the error, himself.
pub async fn any_exists(connection: &mut MultiplexedConnection, keys: impl IntoIterator<Item = String>) -> bool {
    let mut command = redis::cmd("EXISTS");
    for key in keys {
        command.arg(key);
    }
    command.query_async::<u64>(connection).await.map_or(true, |found| found > 0)
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
        ] {
            let target = target(url).unwrap();
            assert_eq!(target.display(), shown);
            assert!(!format!("{target:?}").contains("hunter2"));
        }
        assert_eq!(target("redis://localhost/7").unwrap().database(), 7);
    }

    #[test]
    fn a_bad_url_is_an_error_that_shows_the_form_and_no_secret() {
        for url in ["", "localhost:6379", "http://x:hunter2@localhost", "redis://x:hunter2@localhost/notanumber"] {
            let message = target(url).unwrap_err().to_string();
            assert!(message.contains("redis://[user:password@]host"), "{message}");
            assert!(!message.contains("hunter2"), "{message}");
        }
    }

    #[test]
    fn backoff_grows_and_is_capped() {
        let waits: Vec<_> = backoff().take(50).collect();
        assert_eq!(waits.len(), 50);
        assert!(waits[0] <= Duration::from_millis(100));
        assert!(waits.iter().all(|wait| *wait <= Duration::from_secs(5)));
        assert!(waits[49] >= BACKOFF_MAX);
    }

    #[tokio::test]
    async fn nobody_listening_is_unreachable_and_names_the_target() {
        let error = target("redis://127.0.0.1:1/0").unwrap().connect().await.unwrap_err();
        assert!(matches!(error, ConnectionError::Unreachable { .. }), "{error}");
        assert!(error.to_string().contains("127.0.0.1:1/0"), "{error}");
    }
}

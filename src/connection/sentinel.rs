//! Finds the primary that sentinels watch. Each connection asks the sentinels again, so that a reconnect after a
//! failover leads to the new primary. Source: redis.io, "Sentinel client spec": ask sentinels, then check the role.

use std::time::Duration;

use futures_util::{StreamExt, stream::FuturesUnordered};
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, ErrorKind, RedisError, ServerErrorKind, Value,
    aio::MultiplexedConnection,
};
use secrecy::ExposeSecret;

use super::{ConnectionError, address, error::is_refusal, resp3};
use crate::config::SentinelUrl;

/// Sentinels, and the name under which they watch the primary.
#[derive(Clone)]
pub(super) struct Sentinels {
    each: Vec<Client>,
    name: String,
    /// Settings of the primary except for its address, which the sentinels give.
    primary: ConnectionInfo,
}

impl Sentinels {
    pub(super) fn new(url: &SentinelUrl) -> Result<Self, ConnectionError> {
        let open = |url: &secrecy::SecretString| {
            Client::open(url.expose_secret()).map_err(|error| ConnectionError::url(&error))
        };
        let each = url.sentinels.iter().map(open).collect::<Result<_, _>>()?;
        let primary = open(&url.primary)?.get_connection_info().clone();
        Ok(Self { each, name: url.name.clone(), primary })
    }

    pub(super) fn database(&self) -> i64 {
        self.primary.redis_settings().db()
    }

    /// Returns the name of the target for logs.
    pub(super) fn display(&self) -> String {
        let sentinels: Vec<_> =
            self.each.iter().map(|sentinel| address(sentinel.get_connection_info().addr())).collect();
        format!("`{}`/{} of the sentinels {}", self.name, self.database(), sentinels.join(","))
    }

    /// Connects to the primary, with `config` and, if `push`, in RESP3. `patience` bounds each attempt to connect and
    /// each reply of a sentinel.
    pub(super) async fn connect(
        &self,
        config: &AsyncConnectionConfig,
        push: bool,
        patience: Duration,
    ) -> Result<MultiplexedConnection, ConnectionError> {
        let mut asked: FuturesUnordered<_> = self.each.iter().map(|sentinel| self.ask(sentinel, patience)).collect();
        let (mut tried, mut said) = (Vec::new(), Vec::new());
        while let Some((sentinel, answer)) = asked.next().await {
            let server = match answer {
                Ok(server) => server,
                Err(problem) => {
                    said.push(format!("{sentinel} says {problem}"));
                    continue;
                }
            };
            if tried.contains(&server) {
                continue;
            }
            tried.push(server.clone());
            match self.open(&server, config, push).await {
                Ok(connection) => return Ok(connection),
                Err(cause) if is_refusal(&cause) => {
                    return Err(ConnectionError::Refused { target: format!("{}:{}", server.0, server.1), cause });
                }
                Err(cause) => said.push(format!("{sentinel} names {}:{} ({cause})", server.0, server.1)),
            }
        }
        let reason = format!("{}; a failover may be under way, else check the name and the sentinels", said.join(", "));
        Err(ConnectionError::NoPrimary { target: self.display(), reason })
    }

    /// Asks one sentinel for the address of the primary.
    async fn ask(&self, sentinel: &Client, patience: Duration) -> (String, Result<(String, u16), String>) {
        let config =
            AsyncConnectionConfig::new().set_connection_timeout(Some(patience)).set_response_timeout(Some(patience));
        let asked = async {
            let mut connection = sentinel.get_multiplexed_async_connection_with_config(&config).await?;
            let mut command = redis::cmd("SENTINEL");
            command.arg("GET-MASTER-ADDR-BY-NAME").arg(&self.name);
            command.query_async::<Option<(String, u16)>>(&mut connection).await
        };
        let answer = match asked.await {
            Ok(Some(server)) => Ok(server),
            Ok(None) => Err(format!("that it watches no `{}`", self.name)),
            Err(error) => Err(error.to_string()),
        };
        (address(sentinel.get_connection_info().addr()), answer)
    }

    /// Connects to the server at that address, which has to be a primary.
    async fn open(
        &self,
        (host, port): &(String, u16),
        config: &AsyncConnectionConfig,
        push: bool,
    ) -> Result<MultiplexedConnection, RedisError> {
        let info = at(&self.primary, host, *port);
        let client = Client::open(if push { resp3(info) } else { info })?;
        let mut connection = client.get_multiplexed_async_connection_with_config(config).await?;
        match redis::cmd("ROLE").query_async::<Value>(&mut connection).await {
            Ok(Value::Array(role)) => match role.first() {
                Some(Value::BulkString(role)) if role != b"master" => {
                    let error = (ErrorKind::Server(ServerErrorKind::ReadOnly), "it is a replica");
                    Err(RedisError::from(error))
                }
                _ => Ok(connection),
            },
            // Without the right to ask for the role, the sentinel's answer counts.
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoPerm) => Ok(connection),
            Err(error) => Err(error),
            Ok(_) => Ok(connection),
        }
    }
}

/// Returns the same settings with another address; with TLS if `info` has it.
pub(super) fn at(info: &ConnectionInfo, host: &str, port: u16) -> ConnectionInfo {
    let host = host.to_owned();
    let addr = match info.addr() {
        ConnectionAddr::TcpTls { insecure, tls_params, .. } => {
            ConnectionAddr::TcpTls { host, port, insecure: *insecure, tls_params: tls_params.clone() }
        }
        _ => ConnectionAddr::Tcp(host, port),
    };
    info.clone().set_addr(addr)
}

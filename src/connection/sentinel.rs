//! Finds the primary that sentinels watch. Each connection asks the sentinels again, so that a reconnect after a
//! failover leads to the new primary. Source: redis.io, "Sentinel client spec": ask sentinels, then check the role.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, ErrorKind, RedisError, RedisResult, ServerErrorKind,
    Value, aio::MultiplexedConnection,
};
use secrecy::ExposeSecret;

use super::{ConnectionError, address, error::is_refusal, resp3};
use crate::config::SentinelUrl;

/// Host and port, as sentinels name them.
type Server = (String, u16);

/// A sentinel, and the server that it names, or what it says instead.
type Answer = (String, Result<Server, String>);

/// Sentinels, and the name under which they watch the primary.
pub(super) struct Sentinels {
    each: Vec<Client>,
    name: String,
    /// Settings of the primary except for its address, which the sentinels give.
    primary: ConnectionInfo,
    /// The server that was connected to last, with what its connections share.
    current: Mutex<Option<(Server, Deposed)>>,
}

/// Whether most sentinels named another server after a connection was opened.
type Deposed = Arc<AtomicBool>;

impl Sentinels {
    pub(super) fn new(url: &SentinelUrl) -> Result<Self, ConnectionError> {
        let open = |url: &secrecy::SecretString| {
            Client::open(url.expose_secret()).map_err(|error| ConnectionError::url(&error))
        };
        let each = url.sentinels.iter().map(open).collect::<Result<_, _>>()?;
        let primary = open(&url.primary)?.get_connection_info().clone();
        Ok(Self { each, name: url.name.clone(), primary, current: Mutex::default() })
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

    /// Connects to the primary, with `config` and, if `push`, in RESP3: to the server that most sentinels name, and if
    /// there is none or it is no primary, to any other that one of them names. In a partition, those on the side of the
    /// old primary go on to name it. `patience` bounds each attempt to connect and each reply of a sentinel.
    pub(super) async fn connect(
        self: &Arc<Self>,
        config: &AsyncConnectionConfig,
        push: bool,
        patience: Duration,
    ) -> Result<(MultiplexedConnection, NamedPrimary), ConnectionError> {
        let mut asked = self.ask_all(patience);
        let (mut votes, mut tried, mut said) = (Votes::of(asked.len()), Vec::new(), Vec::new());
        loop {
            let answer = asked.next().await;
            let is_complete = answer.is_none();
            match answer {
                Some((sentinel, Ok(server))) => votes.add(server, sentinel),
                Some((sentinel, Err(problem))) => said.push(format!("{sentinel} says {problem}")),
                None => {}
            }
            let named = if is_complete { votes.most_first() } else { votes.majority().into_iter().collect() };
            for (server, sentinel) in named {
                if tried.contains(&server) {
                    continue;
                }
                tried.push(server.clone());
                match self.open(&server, config, push).await {
                    Ok(connection) => return Ok((connection, self.named(server, patience))),
                    Err(cause) if is_refusal(&cause) => {
                        return Err(ConnectionError::Refused { target: format!("{}:{}", server.0, server.1), cause });
                    }
                    Err(cause) => said.push(format!("{sentinel} names {}:{} ({cause})", server.0, server.1)),
                }
            }
            if is_complete {
                let reason =
                    format!("{}; a failover may be under way, else check the name and the sentinels", said.join(", "));
                return Err(ConnectionError::NoPrimary { target: self.display(), reason });
            }
        }
    }

    /// Returns what a new connection to this server knows. Open ones share the mark of being deposed with it.
    fn named(self: &Arc<Self>, server: Server, patience: Duration) -> NamedPrimary {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = current.as_ref().filter(|(of, deposed)| *of == server && !deposed.load(Ordering::Acquire));
        let deposed = shared.map_or_else(Deposed::default, |(_, deposed)| deposed.clone());
        *current = Some((server.clone(), deposed.clone()));
        NamedPrimary { sentinels: self.clone(), server, patience, deposed }
    }

    /// Asks all sentinels simultaneously for the address of the primary.
    fn ask_all(&self, patience: Duration) -> FuturesUnordered<impl Future<Output = Answer>> {
        self.each.iter().map(|sentinel| self.ask(sentinel, patience)).collect()
    }

    /// Asks one sentinel for the address of the primary.
    async fn ask(&self, sentinel: &Client, patience: Duration) -> Answer {
        let config =
            AsyncConnectionConfig::new().set_connection_timeout(Some(patience)).set_response_timeout(Some(patience));
        let asked = async {
            let mut connection = sentinel.get_multiplexed_async_connection_with_config(&config).await?;
            let mut command = redis::cmd("SENTINEL");
            command.arg("GET-MASTER-ADDR-BY-NAME").arg(&self.name);
            command.query_async::<Option<Server>>(&mut connection).await
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
        (host, port): &Server,
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

/// A server that was connected to because sentinels named it.
#[derive(Clone)]
pub(super) struct NamedPrimary {
    sentinels: Arc<Sentinels>,
    server: Server,
    patience: Duration,
    deposed: Deposed,
}

impl NamedPrimary {
    /// Returns an error, which counts as a lost connection, if the sentinels are known to name another server.
    pub(super) fn check(&self) -> RedisResult<()> {
        if self.deposed.load(Ordering::Acquire) {
            return Err((ErrorKind::Server(ServerErrorKind::ReadOnly), "the sentinels name another primary").into());
        }
        Ok(())
    }

    /// Returns the same error if most sentinels name another server now, and from then on for all connections to this
    /// one. Ends as soon as a majority has answered.
    pub(super) async fn confirm(&self) -> RedisResult<()> {
        let mut asked = self.sentinels.ask_all(self.patience);
        let mut votes = Votes::of(asked.len());
        while let Some((sentinel, answer)) = asked.next().await {
            let Ok(server) = answer else { continue };
            votes.add(server, sentinel);
            match votes.majority() {
                Some((server, _)) if server == self.server => return Ok(()),
                Some(_) => {
                    self.deposed.store(true, Ordering::Release);
                    break;
                }
                None => {}
            }
        }
        self.check()
    }
}

/// The servers that sentinels named, each with those who named it.
struct Votes {
    voters: usize,
    named: Vec<(Server, Vec<String>)>,
}

impl Votes {
    fn of(voters: usize) -> Self {
        Self { voters, named: Vec::new() }
    }

    fn add(&mut self, server: Server, sentinel: String) {
        match self.named.iter_mut().find(|(named, _)| *named == server) {
            Some((_, by)) => by.push(sentinel),
            None => self.named.push((server, vec![sentinel])),
        }
    }

    /// Returns the server that more than half of all sentinels name, and one of them.
    fn majority(&self) -> Option<(Server, String)> {
        let has_most = |(_, by): &&(Server, Vec<String>)| 2 * by.len() > self.voters;
        self.named.iter().find(has_most).map(|(server, by)| (server.clone(), by[0].clone()))
    }

    /// Returns all servers, those that most sentinels name first, each with one of them.
    fn most_first(&self) -> Vec<(Server, String)> {
        let mut named: Vec<_> = self.named.iter().collect();
        named.sort_by_key(|(_, by)| std::cmp::Reverse(by.len()));
        named.into_iter().map(|(server, by)| (server.clone(), by[0].clone())).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn server(port: u16) -> Server {
        ("10.0.0.1".to_owned(), port)
    }

    #[test]
    fn a_majority_is_more_than_half_of_all_sentinels_and_not_of_those_that_answered() {
        let mut votes = Votes::of(4);
        for (named, by, majority) in [(1, "a", None), (2, "b", None), (2, "c", None), (2, "d", Some(2))] {
            votes.add(server(named), by.to_owned());
            assert_eq!(votes.majority().map(|(server, _)| server.1), majority, "after {by}");
        }
        let order: Vec<_> = votes.most_first().into_iter().map(|(server, by)| (server.1, by)).collect();
        assert_eq!(order, [(2, "b".to_owned()), (1, "a".to_owned())]);
    }

    #[test]
    fn a_single_sentinel_is_a_majority() {
        let mut votes = Votes::of(1);
        votes.add(server(1), "a".to_owned());
        assert_eq!(votes.majority(), Some((server(1), "a".to_owned())));
    }
}

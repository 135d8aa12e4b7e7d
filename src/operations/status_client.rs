//! Asks a running autoscaler for its status over HTTP.

use std::{
    error::Error,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, StatusCode, Uri, body::Bytes, header::AUTHORIZATION};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, de::DeserializeOwned};

use crate::{
    config::HttpSettings,
    model::{history::ScalingEvent, snapshot::FleetSnapshot},
};

/// Timeout of a request. The server answers from memory, so a slower one hangs.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Largest accepted response: far above the status of ten thousand worker types. Another program on the port must not
/// fill the memory.
const MAX_BODY: usize = 64 * 1024 * 1024;

/// Reason why there is no status.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// The address does not parse.
    #[error("`{url}` is no address of an autoscaler ({reason}); write for example `http://127.0.0.1:9000`")]
    Address {
        /// The given address.
        url: String,
        /// Error of the parser.
        reason: String,
    },
    /// Nothing listens there.
    #[error(
        "no autoscaler is running at {url}; start one with `swarm autoscaler`, or give the address that its \
         `[http] listen` names"
    )]
    NotRunning {
        /// Base URL of the request.
        url: String,
    },
    /// The connection failed or broke.
    #[error("{url} can't be reached: {reason}")]
    Unreachable {
        /// Base URL of the request.
        url: String,
        /// Chain of causes.
        reason: String,
    },
    /// Another program answers there.
    #[error("{url} answers, but not as swarm does ({reason}); give the address that `[http] listen` names")]
    NotSwarm {
        /// Base URL of the request.
        url: String,
        /// Unexpected part of the response.
        reason: String,
    },
    /// The autoscaler wants a token, or another one.
    #[error(
        "{url} requires {}; set `read_token_file` in `[http]` of this configuration to a file with the token of that \
         autoscaler",
        if *.sent { "another token than that of this configuration" } else { "a token from readers" }
    )]
    Unauthorized {
        /// Base URL of the request.
        url: String,
        /// Whether a token was sent.
        sent: bool,
    },
    /// The autoscaler does not answer under the name in the URL.
    #[error(
        "the autoscaler at {url} does not answer under this name; add the name to `hosts` in `[http]` of its \
         configuration, or use its IP address"
    )]
    OtherName {
        /// Base URL of the request.
        url: String,
    },
    /// No answer in time.
    #[error("{url} did not answer within {} s; its process may be stopped or overloaded", TIMEOUT.as_secs())]
    Timeout {
        /// Base URL of the request.
        url: String,
    },
}

/// Number of history entries that a live view requests.
const EVENTS: usize = 20;
/// Reason why the settings do not tell the address of an autoscaler's HTTP server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoAddress {
    /// The server is turned off.
    #[error("the configuration turns the HTTP server off; set `listen` in `[http]`, or name one with --url")]
    Off,
    /// The server picks a free port.
    #[error("`listen` in `[http]` takes any free port; give the one in the autoscaler's log with --url")]
    AnyPort,
    /// The setting is not an address.
    #[error("`listen` in `[http]` is no ADDRESS:PORT")]
    Invalid,
}

/// Returns the base URL of a server that listens on `listen`. For an address of all interfaces, that is this machine.
///
/// # Errors
/// If the setting does not tell the address.
pub fn url_of(listen: &str) -> Result<String, NoAddress> {
    if listen.is_empty() {
        return Err(NoAddress::Off);
    }
    let mut address: SocketAddr = listen.parse().map_err(|_| NoAddress::Invalid)?;
    if address.port() == 0 {
        return Err(NoAddress::AnyPort);
    }
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    Ok(format!("http://{address}"))
}

/// An autoscaler's HTTP server, as its readers address it.
#[derive(Clone, Debug)]
pub struct StatusServer {
    url: String,
    token: Option<SecretString>,
}

impl StatusServer {
    /// The server at this base URL, for example `http://127.0.0.1:9000`, which wants this token from readers, if any.
    pub fn new(url: impl Into<String>, token: Option<SecretString>) -> Self {
        Self { url: url.into(), token }
    }

    /// The server of these settings, or the one at `url` with the token of these settings.
    ///
    /// # Errors
    /// If the settings do not tell the address.
    pub fn of(settings: &HttpSettings, url: Option<&str>) -> Result<Self, NoAddress> {
        let url = url.map_or_else(|| url_of(&settings.listen), |url| Ok(url.to_owned()))?;
        // Whoever may scale may read.
        let token = settings.read_token.as_ref().or(settings.token.as_ref());
        Ok(Self::new(url, token.cloned()))
    }

    /// Its base URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Fetches the status.
    ///
    /// # Errors
    /// If there is none.
    pub async fn status(&self) -> Result<FleetSnapshot, StatusError> {
        self.fetch("/status").await
    }

    /// Fetches the newest entries of the history, oldest first.
    ///
    /// # Errors
    /// If there is none.
    pub async fn events(&self) -> Result<Vec<ScalingEvent>, StatusError> {
        #[derive(Deserialize)]
        struct Events {
            events: Vec<ScalingEvent>,
        }
        self.fetch::<Events>(&format!("/v1/events?count={EVENTS}")).await.map(|answer| answer.events)
    }

    async fn fetch<T: DeserializeOwned>(&self, path: &str) -> Result<T, StatusError> {
        let uri = uri(&self.url, path)?;
        let answer = tokio::time::timeout(TIMEOUT, self.get(path, uri)).await;
        let body = answer.map_err(|_| StatusError::Timeout { url: self.url.clone() })??;
        serde_json::from_slice(&body)
            .map_err(|error| not_swarm(&self.url, format!("{path} is not as in this version: {error}")))
    }

    async fn get(&self, path: &str, uri: Uri) -> Result<Bytes, StatusError> {
        let mut request = Request::get(uri);
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {}", token.expose_secret()));
        }
        let request = request
            .body(Empty::new())
            .map_err(|error| StatusError::Address { url: self.url.clone(), reason: error.to_string() })?;
        let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
        let response = client.request(request).await.map_err(|error| classify(&self.url, &error))?;
        if response.status() == StatusCode::UNAUTHORIZED {
            return Err(StatusError::Unauthorized { url: self.url.clone(), sent: self.token.is_some() });
        }
        if response.status() == StatusCode::MISDIRECTED_REQUEST {
            return Err(StatusError::OtherName { url: self.url.clone() });
        }
        if !response.status().is_success() {
            return Err(not_swarm(&self.url, format!("{path} gives {}", response.status())));
        }
        let body = Limited::new(response.into_body(), MAX_BODY).collect().await;
        body.map(http_body_util::Collected::to_bytes).map_err(|error| not_swarm(&self.url, error.to_string()))
    }
}

fn uri(base_url: &str, path: &str) -> Result<Uri, StatusError> {
    let invalid = |reason: String| StatusError::Address { url: base_url.to_owned(), reason };
    let uri: Uri = format!("{}{path}", base_url.trim_end_matches('/'))
        .parse()
        .map_err(|error: hyper::http::uri::InvalidUri| invalid(error.to_string()))?;
    match (uri.scheme_str(), uri.host()) {
        (Some("http"), Some(_)) => Ok(uri),
        _ => Err(invalid("it must start with http:// and name a host".to_owned())),
    }
}

fn classify(base_url: &str, error: &hyper_util::client::legacy::Error) -> StatusError {
    let url = base_url.to_owned();
    let refused = |cause: &(dyn Error + 'static)| {
        cause.downcast_ref::<io::Error>().is_some_and(|io| io.kind() == io::ErrorKind::ConnectionRefused)
    };
    match causes(error) {
        causes if causes.iter().any(|cause| refused(*cause)) => StatusError::NotRunning { url },
        causes => {
            let reason = causes.last().map_or_else(|| error.to_string(), ToString::to_string);
            if error.is_connect() {
                StatusError::Unreachable { url, reason }
            } else {
                StatusError::NotSwarm { url, reason }
            }
        }
    }
}

/// Returns the chain of causes of `error`, the deepest last.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> Vec<&'a (dyn Error + 'static)> {
    std::iter::successors(error.source(), |&cause| cause.source()).collect()
}

fn not_swarm(base_url: &str, reason: String) -> StatusError {
    StatusError::NotSwarm { url: base_url.to_owned(), reason }
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncWriteExt, net::TcpListener};

    use super::*;
    use crate::{
        http::tests::{MadeUpFleet, serve},
        model::snapshot::StatusSource,
    };

    async fn status(url: &str) -> Result<FleetSnapshot, StatusError> {
        StatusServer::new(url, None).status().await
    }

    #[test]
    fn the_url_is_where_a_server_that_listens_there_can_be_asked() {
        assert_eq!(url_of("127.0.0.1:9000").unwrap(), "http://127.0.0.1:9000");
        assert_eq!(url_of("0.0.0.0:80").unwrap(), "http://127.0.0.1:80");
        assert_eq!(url_of("[::]:80").unwrap(), "http://[::1]:80");
        assert!(url_of("").unwrap_err().to_string().contains("--url"));
        assert!(url_of("127.0.0.1:0").unwrap_err().to_string().contains("--url"));
    }

    #[tokio::test]
    async fn a_running_autoscaler_gives_its_snapshot() {
        let server = serve(&[]).await;
        let fleet = status(&format!("http://{}/", server.addr)).await.unwrap();
        assert_eq!(fleet, MadeUpFleet { not_ready: Vec::new() }.fleet());
    }

    #[tokio::test]
    async fn a_free_port_means_not_running() {
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let error = status(&format!("http://{free}")).await.unwrap_err();
        assert!(matches!(error, StatusError::NotRunning { .. }), "{error:?}");
        assert!(error.to_string().contains("swarm autoscaler"), "{error}");
    }

    #[tokio::test]
    async fn another_server_is_told_from_swarm() {
        for answer in ["HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", "HTTP/1.1 404 No\r\n\r\n", "-ERR no\r\n"] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("http://{}", listener.local_addr().unwrap());
            let stranger = async {
                let (mut peer, _) = listener.accept().await.unwrap();
                peer.write_all(answer.as_bytes()).await.unwrap();
                peer.shutdown().await.unwrap();
                peer
            };
            let (asked, _peer) = tokio::join!(status(&url), stranger);
            assert!(matches!(asked, Err(StatusError::NotSwarm { .. })), "{answer:?}: {asked:?}");
        }
    }

    #[tokio::test]
    async fn a_server_that_hangs_times_out() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let error = status(&url).await.unwrap_err();
        assert!(matches!(error, StatusError::Timeout { .. }), "{error:?}");
    }

    #[tokio::test]
    async fn addresses_that_are_none_are_refused() {
        for url in ["", "localhost", "https://localhost:9000", "redis://localhost", "http://"] {
            let error = status(url).await.unwrap_err();
            assert!(matches!(error, StatusError::Address { .. }), "{url}: {error:?}");
        }
    }
}

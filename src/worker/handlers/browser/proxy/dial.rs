//! Connects to the hosts that pages ask for. The name is resolved, each address is checked, and the connection goes to
//! a checked address, so that a second look-up can't return another one (DNS rebinding). Knows no HTTP except the
//! CONNECT to an upstream proxy.

use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use base64::{Engine, prelude::BASE64_STANDARD};
use http_body_util::Empty;
use hyper::{
    Method, Request,
    body::Bytes,
    header::{HOST, HeaderValue, PROXY_AUTHORIZATION},
};
use hyper_util::rt::TokioIo;
use secrecy::ExposeSecret;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, lookup_host},
    time::timeout,
};

use crate::{config::UpstreamProxy, egress::AddressRule};

/// Timeout of resolving a name, and of connecting to one address. Chromium gives a page's connection minutes.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum addresses of one name that are tried.
const ADDRESSES_TRIED: usize = 3;

/// Resolves names to addresses.
#[async_trait]
pub(in super::super) trait Resolve: Send + Sync + 'static {
    /// Returns all addresses of `host`.
    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>>;

    /// Returns whether `address` belongs to this machine. Even a public address of the machine leads to its own
    /// services, past every firewall.
    fn is_own(&self, address: IpAddr) -> bool {
        can_be_bound(address) && !can_be_bound(FOREIGN)
    }
}

/// An address that belongs to no machine (RFC 5737). If it can be bound, every address can, and binding proves nothing.
const FOREIGN: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1));

/// Returns whether an address can be bound, which is possible only for the address of an interface. Checked each time,
/// because interfaces can change.
fn can_be_bound(address: IpAddr) -> bool {
    UdpSocket::bind((address, 0)).is_ok()
}

/// The system's resolver.
pub(in super::super) struct SystemResolver;

#[async_trait]
impl Resolve for SystemResolver {
    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        Ok(lookup_host((host, port)).await?.collect())
    }
}

/// A host and a port, the host without brackets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Place {
    pub(in super::super) host: String,
    pub(in super::super) port: u16,
}

impl Place {
    /// Returns the place of a URL's host, which has brackets if it is an IPv6 address.
    pub(in super::super) fn new(host: &str, port: u16) -> Self {
        Self { host: host.trim_start_matches('[').trim_end_matches(']').to_owned(), port }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(in super::super) enum DialError {
    /// Pages may not connect to this address.
    #[error(
        "{place} is refused: {address} is a {kind} address; if pages may go there, add \"{place}\" to `allow_private`"
    )]
    Refused { place: Place, address: IpAddr, kind: &'static str },
    /// The name has no address.
    #[error("{place} can't be resolved: {cause}")]
    Unresolved { place: Place, cause: io::Error },
    /// The host does not accept the connection.
    #[error("{place} can't be reached: {cause}")]
    Unreachable { place: Place, cause: io::Error },
    /// The upstream proxy refused.
    #[error("{place} can't be reached through the configured proxy: {cause}")]
    Upstream { place: Place, cause: String },
}

/// An open connection.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Makes connections for pages.
#[derive(Clone)]
pub(in super::super) struct Dialer {
    rule: AddressRule,
    resolver: Arc<dyn Resolve>,
    upstream: Option<UpstreamProxy>,
}

impl Dialer {
    pub(in super::super) fn new(
        rule: AddressRule,
        resolver: Arc<dyn Resolve>,
        upstream: Option<UpstreamProxy>,
    ) -> Self {
        Self { rule, resolver, upstream }
    }

    /// Returns the addresses of `place` that pages may connect to; an error if there is none.
    pub(in super::super) async fn check(&self, place: &Place) -> Result<Vec<SocketAddr>, DialError> {
        let unresolved = |cause| DialError::Unresolved { place: place.clone(), cause };
        let found = match place.host.parse::<IpAddr>() {
            Ok(address) => vec![SocketAddr::new(address, place.port)],
            Err(_) => timeout(CONNECT_TIMEOUT, self.resolver.resolve(&place.host, place.port))
                .await
                .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
                .map_err(unresolved)?,
        };
        let mut refused = None;
        let mut fine = Vec::new();
        for address in found {
            let (ip, port) = (address.ip(), place.port);
            let public = self.rule.check(&place.host, ip, port);
            match public {
                Ok(()) if !self.rule.allows(&place.host, ip, port) && self.resolver.is_own(ip) => {
                    let kind = "local (of this machine)";
                    refused = Some(DialError::Refused { place: place.clone(), address: ip, kind });
                }
                Ok(()) => fine.push(address),
                Err(kind) => refused = Some(DialError::Refused { place: place.clone(), address: address.ip(), kind }),
            }
        }
        match refused {
            _ if !fine.is_empty() => Ok(fine),
            Some(refused) => Err(refused),
            None => Err(unresolved(io::Error::other("the name has no address"))),
        }
    }

    /// Returns a connection whose bytes all go to `place` itself.
    pub(super) async fn tunnel(&self, place: &Place) -> Result<Box<dyn Stream>, DialError> {
        let addresses = self.check(place).await?;
        match &self.upstream {
            None => Ok(Box::new(connect(place, &addresses).await?)),
            // The checked address, not the name: the upstream must not resolve the name again.
            Some(upstream) => through(upstream, place, addresses[0]).await,
        }
    }

    /// Returns a connection for one plain HTTP request to `place`. If it leads to the upstream proxy, also returns what
    /// the request needs for that.
    pub(super) async fn for_request(&self, place: &Place) -> Result<(TcpStream, Option<Via>), DialError> {
        let addresses = self.check(place).await?;
        match &self.upstream {
            None => Ok((connect(place, &addresses).await?, None)),
            Some(upstream) => {
                let via = Via { authorization: authorization(upstream) };
                Ok((connect_upstream(upstream, place).await?, Some(via)))
            }
        }
    }
}

/// What a request to an upstream proxy needs, besides its absolute URL.
pub(super) struct Via {
    pub(super) authorization: Option<HeaderValue>,
}

async fn connect(place: &Place, addresses: &[SocketAddr]) -> Result<TcpStream, DialError> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in addresses.iter().take(ADDRESSES_TRIED) {
        match timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // A failure only costs latency.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Ok(Err(error)) => last = error,
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(DialError::Unreachable { place: place.clone(), cause: last })
}

/// Connects to the upstream. It is configured, so it may have any address.
async fn connect_upstream(upstream: &UpstreamProxy, place: &Place) -> Result<TcpStream, DialError> {
    let connecting = TcpStream::connect((upstream.host.as_str(), upstream.port));
    let connected = timeout(CONNECT_TIMEOUT, connecting).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    connected.map_err(|error| failed(place, &error))
}

fn failed(place: &Place, cause: &dyn fmt::Display) -> DialError {
    DialError::Upstream { place: place.clone(), cause: cause.to_string() }
}

/// Opens a tunnel through the upstream with CONNECT.
async fn through(upstream: &UpstreamProxy, place: &Place, address: SocketAddr) -> Result<Box<dyn Stream>, DialError> {
    let stream = connect_upstream(upstream, place).await?;
    let asking = async {
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|error| failed(place, &error))?;
        let mut request = Request::new(Empty::<Bytes>::new());
        *request.method_mut() = Method::CONNECT;
        *request.uri_mut() = address.to_string().parse().expect("a socket address is an authority");
        let host = HeaderValue::from_str(&address.to_string()).expect("a socket address is ASCII");
        request.headers_mut().insert(HOST, host);
        if let Some(value) = authorization(upstream) {
            request.headers_mut().insert(PROXY_AUTHORIZATION, value);
        }
        let connection = connection.with_upgrades();
        let answer = async {
            let response = sender.send_request(request).await.map_err(|error| failed(place, &error))?;
            if !response.status().is_success() {
                return Err(failed(place, &response.status()));
            }
            hyper::upgrade::on(response).await.map_err(|error| failed(place, &error))
        };
        // The connection's own future does the reading, and ends when it hands over the stream.
        let (answer, _) = tokio::join!(answer, connection);
        answer
    };
    let upgraded =
        timeout(CONNECT_TIMEOUT, asking).await.map_err(|_| failed(place, &"it did not answer in time"))??;
    Ok(Box::new(TokioIo::new(upgraded)))
}

fn authorization(upstream: &UpstreamProxy) -> Option<HeaderValue> {
    let (user, password) = upstream.credentials.as_ref()?;
    let encoded = BASE64_STANDARD.encode(format!("{user}:{}", password.expose_secret()));
    let mut value = HeaderValue::from_str(&format!("Basic {encoded}")).expect("base64 is ASCII");
    value.set_sensitive(true);
    Some(value)
}

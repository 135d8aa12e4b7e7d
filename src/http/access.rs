//! Access rules over HTTP. A request must name this server by its address, or by a name that the settings list. If
//! there is a read token, a read must carry a token. An override must carry the token for overrides; without such a
//! token there are no overrides.

use std::net::{IpAddr, Ipv6Addr};

use axum::{
    extract::{FromRequestParts, Request, State},
    http::{HeaderMap, Method, StatusCode, header, request::Parts, uri::Authority},
    middleware::Next,
    response::{IntoResponse, Response},
};
use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;

use super::{Served, error::refusal};

/// Paths for probes: they are answered for every client, under any name.
const PROBES: [&str; 2] = ["/healthz", "/readyz"];

/// Proof that the request carries the token for overrides.
pub(super) struct Allowed;

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Denied {
    Off,
    Missing,
    Wrong,
}

impl Denied {
    fn code(self) -> StatusCode {
        match self {
            Self::Off => StatusCode::FORBIDDEN,
            Self::Missing | Self::Wrong => StatusCode::UNAUTHORIZED,
        }
    }

    fn message(self) -> &'static str {
        match self {
            Self::Off => {
                "control over http is off; set `token` or `token_file` in `[http]` of the autoscaler's configuration, or use \
                 `swarm pause`, `swarm resume` and `swarm scale`"
            }
            Self::Missing => {
                "no token was sent; send the one of `[http] token` or `token_file` as `Authorization: Bearer TOKEN`"
            }
            Self::Wrong => "the token is wrong; send the one of `[http] token` or `token_file`",
        }
    }
}

impl FromRequestParts<Served> for Allowed {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, served: &Served) -> Result<Self, Response> {
        check(served.control.as_ref().map(|control| &control.token), &parts.headers).map_err(|denied| {
            if denied == Denied::Off {
                return refusal(denied.code(), denied.message());
            }
            unauthorized(denied.message())
        })?;
        Ok(Self)
    }
}

/// Middleware for every route: refuses a request under an unknown name, and a read without its token.
pub(super) async fn guard(State(served): State<Served>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    if PROBES.contains(&path) {
        return next.run(request).await;
    }
    if let Some(host) = foreign_host(&request, &served.access.hosts) {
        let error = format!(
            "this server is not known as {host:?}; use its address, or add the name to `hosts` in `[http]` of its \
             configuration"
        );
        return refusal(StatusCode::MISDIRECTED_REQUEST, &error);
    }
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    if is_read && !is_public(path) && !may_read(&served, request.headers()) {
        return unauthorized(
            "reading needs a token; send the one of `[http] read_token` or `read_token_file` as `Authorization: Bearer \
             TOKEN`",
        );
    }
    next.run(request).await
}

/// Returns whether a request with these headers may read: always, unless there is a read token. The token for overrides
/// permits reads too.
pub(super) fn may_read(served: &Served, headers: &HeaderMap) -> bool {
    let Some(read_token) = &served.access.read_token else { return true };
    let control = served.control.as_ref().map(|control| &control.token);
    check(Some(read_token), headers).is_ok() || check(control, headers).is_ok()
}

/// Returns whether the path is one of the pages' own files, which contain no data.
fn is_public(path: &str) -> bool {
    path == "/" || path.starts_with("/page/") || path.starts_with("/types/")
}

fn unauthorized(message: &str) -> Response {
    ([(header::WWW_AUTHENTICATE, "Bearer")], refusal(StatusCode::UNAUTHORIZED, message)).into_response()
}

/// Returns the name under which a request addresses this server, if it is not one of its names. A malicious web page
/// can make a browser resolve the page's name to this address (DNS rebinding) and would then read the answers; the name
/// in the request reveals that.
fn foreign_host<'a>(request: &'a Request, hosts: &[String]) -> Option<&'a str> {
    let named = request.headers().get_all(header::HOST).iter().map(|host| host.to_str().unwrap_or("?"));
    let mut named = request.uri().authority().map(Authority::as_str).into_iter().chain(named);
    named.find(|authority| match authority.parse::<Authority>() {
        Ok(parsed) => !is_own_name(parsed.host(), hosts),
        Err(_) => true,
    })
}

/// Returns whether `host` is a name of this server: addresses and names of this machine always, others according to the
/// settings.
fn is_own_name(host: &str, hosts: &[String]) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let bracketed = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let is_address = match bracketed {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => host.parse::<IpAddr>().is_ok(),
    };
    is_address
        || host == "localhost"
        || host.ends_with(".localhost")
        || hosts.iter().any(|pattern| match pattern.to_ascii_lowercase().strip_prefix('*') {
            // "*" stands for any name, "*.example.com" for the names below example.com.
            Some(end) => host.ends_with(end) && host.len() > end.len(),
            None => pattern.eq_ignore_ascii_case(&host),
        })
}

/// Checks the token of a request. The duration of the comparison reveals only the token's length.
fn check(token: Option<&SecretString>, headers: &HeaderMap) -> Result<(), Denied> {
    let token = token.ok_or(Denied::Off)?.expose_secret().as_bytes();
    let sent = headers.get(header::AUTHORIZATION).ok_or(Denied::Missing)?.as_bytes();
    let (scheme, sent) = sent.split_at_checked(BEARER.len()).ok_or(Denied::Missing)?;
    if !scheme.eq_ignore_ascii_case(BEARER) {
        return Err(Denied::Missing);
    }
    if bool::from(sent.trim_ascii().ct_eq(token)) { Ok(()) } else { Err(Denied::Wrong) }
}

/// The scheme, compared without regard to case, and a space.
const BEARER: &[u8] = b"bearer ";

#[cfg(test)]
mod tests {
    use axum::{body::Body, http::HeaderValue};

    use super::*;

    #[test]
    fn only_the_token_itself_is_let_in() {
        let token = SecretString::from("0123456789abcdef");
        let sent = |value: &str| {
            let value = HeaderValue::from_str(value).unwrap();
            check(Some(&token), &HeaderMap::from_iter([(header::AUTHORIZATION, value)]))
        };
        assert_eq!(sent("Bearer 0123456789abcdef"), Ok(()));
        assert_eq!(sent("bearer  0123456789abcdef "), Ok(()));
        for wrong in ["Bearer 0123456789abcdeF", "Bearer 0123456789abcde", "Bearer 0123456789abcdefg", "Bearer "] {
            assert_eq!(sent(wrong), Err(Denied::Wrong), "{wrong}");
        }
        for none in ["Basic 0123456789abcdef", "0123456789abcdef", "Bearer", ""] {
            assert_eq!(sent(none), Err(Denied::Missing), "{none}");
        }
        assert_eq!(check(Some(&token), &HeaderMap::new()), Err(Denied::Missing));
        assert_eq!(check(None, &HeaderMap::new()), Err(Denied::Off));
    }

    fn foreign(uri: &str, host: Option<&str>, hosts: &[&str]) -> Option<String> {
        let mut request = Request::builder().uri(uri);
        if let Some(host) = host {
            request = request.header(header::HOST, host);
        }
        let hosts: Vec<_> = hosts.iter().map(ToString::to_string).collect();
        foreign_host(&request.body(Body::empty()).unwrap(), &hosts).map(str::to_owned)
    }

    #[test]
    fn addresses_and_this_machine_are_always_its_names() {
        let own =
            ["127.0.0.1", "10.1.2.3:9000", "[::1]:9000", "[fdaa::3]", "localhost:9000", "LOCALHOST", "a.localhost."];
        for host in own {
            assert_eq!(foreign("/status", Some(host), &[]), None, "{host}");
        }
        assert_eq!(foreign("/status", None, &[]), None, "no browser leaves it out");
    }

    #[test]
    fn other_names_are_those_of_the_settings() {
        for host in ["evil.example", "localhost.evil.example:9000", "127.0.0.1.nip.io", "127.1", "::1", "", "a b"] {
            assert_eq!(foreign("/status", Some(host), &[]).as_deref(), Some(host));
        }
        let hosts = ["autoscaler", "*.Internal"];
        for host in ["autoscaler:9000", "AutoScaler", "my.internal", "a.b.internal:1"] {
            assert_eq!(foreign("/status", Some(host), &hosts), None, "{host}");
        }
        for host in ["autoscaler.evil.example", "internal", ".internal", "eviltinternal", "xautoscaler"] {
            assert!(foreign("/status", Some(host), &hosts).is_some(), "{host}");
        }
        assert_eq!(foreign("/status", Some("any.thing"), &["*"]), None);
        assert!(foreign("http://evil.example/status", Some("127.0.0.1"), &[]).is_some(), "the URI may name it too");
    }
}

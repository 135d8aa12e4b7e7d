//! Settings of browser workers: the browser, the addresses that pages may connect to, and resource limits.

use std::{net::IpAddr, path::PathBuf, str::FromStr, time::Duration};

use ipnet::IpNet;
use percent_encoding::percent_decode_str;
use schemars::JsonSchema;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use url::Url;

/// `[worker_types.NAME.browser]`
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BrowserSettings {
    /// Path or name of the browser. Default: the first of `chromium`, `chromium-browser`, `google-chrome` and
    /// `google-chrome-stable` in PATH.
    pub executable: Option<PathBuf>,
    /// Whether Chromium runs without its own sandbox, because something else isolates the worker. Without this setting
    /// a worker opens no browser where there is no sandbox: as root, or without user namespaces.
    pub no_sandbox: bool,
    /// Private addresses that pages may connect to: `HOST`, `ADDRESS` or `NETWORK/BITS`, each with `:PORT` for that
    /// port only (`[…]:PORT` for IPv6).
    pub allow_private: Vec<String>,
    /// HTTP proxy for all traffic: `http://[USER:PASSWORD@]HOST:PORT`.
    #[serde(serialize_with = "redacted")]
    #[schemars(with = "String")]
    pub proxy: Option<SecretString>,
    /// User agent of Chromium. Default: Chromium's own.
    pub user_agent: Option<String>,
    /// Whether each session has a Chromium of its own, or all sessions of a worker share one.
    pub isolation: BrowserIsolation,
    /// Whether a worker that has had a session starts the Chromium of its next session in advance, if it has a place.
    /// Only with `isolation = "session"`.
    pub spare_browser: bool,
    /// Maximum open sessions of one worker, each with one page: its places. Jobs that open further sessions wait for a
    /// place, and cause another worker to start. With `isolation = "session"` there are fewer places if the memory of
    /// the worker's container or machine does not suffice for `max_memory_mib` for each.
    #[schemars(range(min = 1, max = 1_000))]
    pub max_pages: usize,
    /// Maximum MiB that the processes of one Chromium may hold together; above it, Chromium is stopped and its sessions
    /// are lost. With `isolation = "shared"` there are no more places from four fifths of it on.
    #[schemars(range(min = 256, max = 1_048_576))]
    pub max_memory_mib: u64,
    /// Maximum seconds for which a session stays open, whatever it does; then it is lost.
    #[schemars(range(min = 1, max = 604_800))]
    pub session_max_seconds: u64,
    /// Whether `browser.evaluate` may run expressions of a job in its page.
    pub evaluate: bool,
    /// Maximum seconds for one action: loading a page, waiting for an element, a screenshot.
    #[schemars(range(min = 1, max = 30))]
    pub action_timeout_seconds: u64,
    /// Width of a page's window in pixels.
    #[schemars(range(min = 64, max = 8_192))]
    pub width: u32,
    /// Height of a page's window in pixels.
    #[schemars(range(min = 64, max = 8_192))]
    pub height: u32,
}

/// Which sessions of a worker have a Chromium in common.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BrowserIsolation {
    /// None: each session has processes and a profile of its own.
    #[default]
    Session,
    /// All: they have cookies and storage of their own, and end together if their Chromium ends.
    Shared,
}

super::section::defaults!(BrowserSettings);

/// Compares all serialized fields and, because it is masked, the proxy's password.
impl PartialEq for BrowserSettings {
    fn eq(&self, other: &Self) -> bool {
        let proxy = |of: &Self| of.proxy.as_ref().map(|proxy| proxy.expose_secret().to_owned());
        proxy(self) == proxy(other) && serde_json::json!(self) == serde_json::json!(other)
    }
}

impl Default for BrowserSettings {
    fn default() -> Self {
        Self {
            executable: None,
            no_sandbox: false,
            allow_private: Vec::new(),
            proxy: None,
            user_agent: None,
            isolation: BrowserIsolation::Session,
            spare_browser: true,
            max_pages: 4,
            max_memory_mib: 1_024,
            session_max_seconds: 14_400,
            evaluate: false,
            action_timeout_seconds: 30,
            width: 1_280,
            height: 800,
        }
    }
}

/// Serializes a proxy's URL with its password masked.
#[expect(clippy::ref_option, reason = "serde calls it so")]
fn redacted<S: serde::Serializer>(url: &Option<SecretString>, serializer: S) -> Result<S::Ok, S::Error> {
    match url {
        Some(url) => serializer.serialize_some(&super::redact::masked_url(url.expose_secret())),
        None => serializer.serialize_none(),
    }
}

impl BrowserSettings {
    /// Returns `action_timeout_seconds` as a duration.
    pub fn action_timeout(&self) -> Duration {
        Duration::from_secs(self.action_timeout_seconds)
    }

    /// Returns `session_max_seconds` as a duration.
    pub fn session_max(&self) -> Duration {
        Duration::from_secs(self.session_max_seconds)
    }

    /// Returns `max_memory_mib` in bytes.
    pub fn max_memory_bytes(&self) -> u64 {
        self.max_memory_mib.saturating_mul(1 << 20)
    }

    /// Parses `allow_private`.
    pub fn allowed(&self) -> Result<Vec<Allowed>, NotAllowed> {
        self.allow_private.iter().map(|entry| entry.parse()).collect()
    }

    /// Parses `proxy`.
    pub fn upstream(&self) -> Result<Option<UpstreamProxy>, NoProxy> {
        self.proxy.as_ref().map(|url| UpstreamProxy::parse(url.expose_secret())).transpose()
    }

    /// Returns the problems that a schema can't express, each with its key.
    pub(super) fn problems(&self) -> Vec<(&'static str, String)> {
        let allowed = self.allowed().err().map(|problem| ("allow_private", problem.to_string()));
        let proxy = self.upstream().err().map(|problem| ("proxy", problem.to_string()));
        allowed.into_iter().chain(proxy).collect()
    }
}

/// A proxy through which another proxy sends all traffic.
#[derive(Clone, Debug)]
pub struct UpstreamProxy {
    /// Host of the proxy.
    pub host: String,
    /// Port of the proxy.
    pub port: u16,
    /// User and password.
    pub credentials: Option<(String, SecretString)>,
}

/// An invalid `proxy`. The message never quotes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "not the URL of an HTTP proxy (not shown, it may hold a password); write http://[USER:PASSWORD@]HOST:PORT and percent-encode special characters of the password"
)]
pub struct NoProxy;

impl UpstreamProxy {
    fn parse(text: &str) -> Result<Self, NoProxy> {
        let url = Url::parse(text).map_err(|_| NoProxy)?;
        let plain = url.scheme() == "http" && url.path() == "/" && url.query().is_none();
        let host = url.host_str().filter(|_| plain).ok_or(NoProxy)?;
        let decode = |word: &str| percent_decode_str(word).decode_utf8().map(String::from).map_err(|_| NoProxy);
        let credentials = match (url.username(), url.password()) {
            ("", None) => None,
            (user, password) => Some((decode(user)?, SecretString::from(decode(password.unwrap_or_default())?))),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Self { host, port: url.port_or_known_default().ok_or(NoProxy)?, credentials })
    }
}

/// One entry of `allow_private`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowed {
    /// Host or network of the entry.
    pub place: Place,
    /// Port of the entry; `None`: all ports.
    pub port: Option<u16>,
}

/// Host or network of an [`Allowed`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Addresses, whichever hosts have them.
    Network(IpNet),
    /// A host in lower case, whatever addresses it has.
    Host(String),
}

/// An invalid entry of `allow_private`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` allows nothing; write HOST, ADDRESS or NETWORK/BITS, and :PORT behind it for one port, such as \"127.0.0.1:8080\", \"10.0.0.0/8\" or \"[fd00::1]:80\""
)]
pub struct NotAllowed(String);

impl Allowed {
    /// Returns whether the entry allows `address`, to which `host` was resolved, at `port`.
    pub fn covers(&self, host: &str, address: IpAddr, port: u16) -> bool {
        let place = match &self.place {
            Place::Network(network) => network.contains(&address),
            Place::Host(name) => name.eq_ignore_ascii_case(host),
        };
        place && self.port.is_none_or(|only| only == port)
    }
}

impl FromStr for Allowed {
    type Err = NotAllowed;

    fn from_str(entry: &str) -> Result<Self, NotAllowed> {
        let (place, port) = split_port(entry).ok_or_else(|| NotAllowed(entry.to_owned()))?;
        let place = match place.parse::<IpNet>().or_else(|_| place.parse::<IpAddr>().map(IpNet::from)) {
            Ok(network) => Place::Network(network),
            Err(_) if is_host(place) => Place::Host(place.to_ascii_lowercase()),
            Err(_) => return Err(NotAllowed(entry.to_owned())),
        };
        Ok(Self { place, port })
    }
}

/// Splits `10.0.0.0/8:80`, `[::1]:80`, `::1` and `host:80` into place and port.
fn split_port(entry: &str) -> Option<(&str, Option<u16>)> {
    if let Some(rest) = entry.strip_prefix('[') {
        let (place, port) = rest.split_once(']')?;
        return match port.strip_prefix(':') {
            Some(port) => Some((place, Some(port.parse().ok()?))),
            None => port.is_empty().then_some((place, None)),
        };
    }
    match entry.split_once(':') {
        Some((place, port)) if !port.contains(':') => Some((place, Some(port.parse().ok()?))),
        _ => Some((entry, None)),
    }
}

fn is_host(place: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    // Digits and dots that are not an address, such as 10.0.0.256, are a mistake.
    !place.is_empty() && place.bytes().all(fits) && place.bytes().any(|byte| byte.is_ascii_alphabetic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_allows_what_it_says_and_no_more() {
        for (entry, host, address, port, covered) in [
            ("127.0.0.1:8080", "127.0.0.1", "127.0.0.1", 8080, true),
            ("127.0.0.1:8080", "127.0.0.1", "127.0.0.1", 8081, false),
            ("127.0.0.1:8080", "localhost", "127.0.0.1", 8080, true),
            ("10.0.0.0/8", "db", "10.1.2.3", 5432, true),
            ("10.0.0.0/8", "db", "11.1.2.3", 5432, false),
            ("10.0.0.0/8:80", "db", "10.1.2.3", 81, false),
            ("::1", "::1", "::1", 1, true),
            ("[::1]:80", "::1", "::1", 81, false),
            ("fd00::/8", "x", "fd12::1", 1, true),
            ("Intranet:80", "intranet", "192.168.0.1", 80, true),
            ("intranet", "intranet.example", "192.168.0.1", 80, false),
        ] {
            let allowed: Allowed = entry.parse().unwrap();
            assert_eq!(
                allowed.covers(host, address.parse().unwrap(), port),
                covered,
                "{entry} {host} {address} {port}"
            );
        }
    }

    #[test]
    fn a_proxy_is_read_and_a_wrong_one_is_not_quoted() {
        let proxy = UpstreamProxy::parse("http://user:p%40ss@proxy.example:3128").unwrap();
        let (user, password) = proxy.credentials.unwrap();
        assert_eq!((proxy.host.as_str(), proxy.port, user.as_str()), ("proxy.example", 3128, "user"));
        assert_eq!(password.expose_secret(), "p@ss");
        assert_eq!(
            UpstreamProxy::parse("http://[::1]").map(|proxy| (proxy.host, proxy.port)).ok(),
            Some(("::1".into(), 80))
        );
        for wrong in ["socks5://h:1", "h:3128", "http://h/x", "https://h", ""] {
            assert!(UpstreamProxy::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_means_nothing_is_refused() {
        for entry in ["", ":80", "10.0.0.256", "10.0.0.0/33", "host:99999", "http://host", "[::1", "[::1]x", "a b", "*"]
        {
            assert_eq!(entry.parse::<Allowed>(), Err(NotAllowed(entry.to_owned())), "{entry}");
        }
    }
}

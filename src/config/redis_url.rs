//! Parses the Redis URL: one server, a primary behind sentinels, or a cluster. Parses the two forms with several hosts,
//! which no URL library supports, and leaves the rest to the client. Must never quote a URL, which may contain a
//! password.

mod error;

use secrecy::{ExposeSecret, SecretString};
use url::Url;

pub use self::error::RedisUrlError;

/// Separator between the scheme and the rest.
const SEPARATOR: &str = "://";
/// Default port of sentinels.
const SENTINEL_PORT: u16 = 26_379;

/// What a Redis URL names.
#[derive(Clone, Debug)]
pub enum RedisUrl {
    /// One server, in the form that the client accepts.
    Single(SecretString),
    /// The primary that these sentinels name.
    Sentinel(SentinelUrl),
    /// A cluster with these known nodes, each in the form that the client accepts.
    Cluster(Vec<SecretString>),
}

/// Sentinels, and what to ask them for.
#[derive(Clone, Debug)]
pub struct SentinelUrl {
    /// Each sentinel, in the form that the client accepts.
    pub sentinels: Vec<SecretString>,
    /// Name under which the sentinels watch the primary.
    pub name: String,
    /// Settings of the primary: a URL with a placeholder for its host.
    pub primary: SecretString,
}

/// The parts of a URL with several hosts.
struct Parts<'a> {
    tls: bool,
    /// `USER:PASSWORD@`, or empty.
    credentials: &'a str,
    hosts: Vec<&'a str>,
    path: &'a str,
    query: &'a str,
}

impl RedisUrl {
    /// Parses a URL. Text that is not a URL is left for the client to refuse.
    ///
    /// # Errors
    /// What is wrong with the URL, in words that contain none of its secrets.
    pub fn parse(text: &str) -> Result<Self, RedisUrlError> {
        let Some((scheme, rest)) = text.split_once(SEPARATOR) else { return Ok(Self::Single(text.into())) };
        match scheme {
            "redis+sentinel" | "rediss+sentinel" => {
                Ok(Self::Sentinel(sentinel(&Parts::of(scheme.starts_with("rediss"), rest)?)?))
            }
            "redis+cluster" | "rediss+cluster" => {
                Ok(Self::Cluster(cluster(&Parts::of(scheme.starts_with("rediss"), rest)?)?))
            }
            _ => single(text).map(Self::Single),
        }
    }

    /// Returns the servers to connect to first: the server, the sentinels, or nodes of the cluster.
    pub fn seeds(&self) -> &[SecretString] {
        match self {
            Self::Single(url) => std::slice::from_ref(url),
            Self::Sentinel(url) => &url.sentinels,
            Self::Cluster(nodes) => nodes,
        }
    }

    /// Returns a URL with the user and the password for the servers that hold the data; `None` if it names no server.
    pub fn credentials(&self) -> Option<&SecretString> {
        match self {
            Self::Single(url) => Some(url),
            Self::Sentinel(url) => Some(&url.primary),
            Self::Cluster(nodes) => nodes.first(),
        }
    }
}

/// Checks a Redis URL more strictly than [`RedisUrl::parse`]: text that is not a URL is refused, too.
pub(super) fn check_redis_url(text: &str) -> Result<(), RedisUrlError> {
    if text.contains(char::is_whitespace) {
        return Err(RedisUrlError::WhiteSpace);
    }
    if has_several_hosts(text) {
        return RedisUrl::parse(text).map(drop);
    }
    let url = Url::parse(text).map_err(|_| RedisUrlError::NotAUrl)?;
    match url.scheme() {
        "redis" | "rediss" if url.host_str().is_none_or(str::is_empty) => Err(RedisUrlError::NoHost),
        "unix" | "redis+unix" if url.path().trim_matches('/').is_empty() => Err(RedisUrlError::NoSocket),
        "redis" | "rediss" | "unix" | "redis+unix" => RedisUrl::parse(text).map(drop),
        _ => Err(RedisUrlError::Scheme),
    }
}

fn check_database(number: &str) -> Result<(), RedisUrlError> {
    if number.is_empty() || number.parse::<u32>().is_ok() {
        return Ok(());
    }
    Err(RedisUrlError::DatabaseNumber)
}

/// Returns the URL of one server, in the form that the client accepts. The database may be in the query, as in
/// redis-py.
fn single(text: &str) -> Result<SecretString, RedisUrlError> {
    let Ok(mut url) = Url::parse(text) else { return Ok(text.into()) };
    let (form, known): (&'static str, &'static [&'static str]) = match url.scheme() {
        "redis" | "rediss" => ("redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE]", &["db", "protocol"]),
        "unix" | "redis+unix" => ("unix:///PATH[?db=DATABASE]", &["db", "user", "pass", "protocol"]),
        _ => return Ok(text.into()),
    };
    let (mut database, mut others) = (None, Vec::new());
    for (name, value) in url.query_pairs() {
        if !known.contains(&&*name) {
            return Err(RedisUrlError::ServerParameter { name: quotable(&name), form, known });
        }
        if name == "db" {
            database = Some(value.into_owned());
        } else {
            others.push(format!("{name}={value}"));
        }
    }
    if let Some(database) = &database {
        check_database(database)?;
    }
    if form.starts_with("unix") {
        return Ok(text.into());
    }
    let in_path = url.path().trim_matches('/').to_owned();
    check_database(&in_path)?;
    let Some(database) = database.filter(|number| !number.is_empty()) else { return Ok(text.into()) };
    if !in_path.is_empty() && in_path.parse::<u32>() != database.parse::<u32>() {
        return Err(RedisUrlError::TwoDatabases { path: in_path, query: database });
    }
    url.set_path(&database);
    url.set_query(Some(others.join("&").as_str()).filter(|query| !query.is_empty()));
    Ok(SecretString::from(String::from(url)))
}

/// Returns a parameter's name for a message, unless it may be part of a secret that was not percent-encoded.
fn quotable(name: &str) -> Option<String> {
    let is_name = (1..=32).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    is_name.then(|| name.to_owned())
}

/// Returns the same URL with each secret masked; `None` for a URL of a single server.
pub(super) fn masked(text: &str, mask: &str) -> Option<String> {
    let (scheme, rest) = text.split_once(SEPARATOR)?;
    if !matches!(scheme, "redis+sentinel" | "rediss+sentinel" | "redis+cluster" | "rediss+cluster") {
        return None;
    }
    let (authority, behind) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let (credentials, hosts) = authority.rsplit_once('@').map_or((None, authority), |(who, hosts)| (Some(who), hosts));
    let who = credentials.map_or_else(String::new, |who| match who.split_once(':') {
        Some((user, _)) => format!("{user}:{mask}@"),
        None => format!("{who}@"),
    });
    let (path, query) = behind.split_once('?').map_or((behind, None), |(path, query)| (path, Some(query)));
    let pairs = query.map_or_else(String::new, |query| {
        let shown = query.split('&').map(|pair| match pair.split_once('=') {
            Some((name, _)) if name.contains("pass") => format!("{name}={mask}"),
            _ => pair.to_owned(),
        });
        format!("?{}", shown.collect::<Vec<_>>().join("&"))
    });
    Some(format!("{scheme}{SEPARATOR}{who}{hosts}{path}{pairs}"))
}

/// Returns whether the URL may contain a password that only [`masked`] finds.
pub(super) fn has_several_hosts(text: &str) -> bool {
    masked(text, "").is_some()
}

impl<'a> Parts<'a> {
    fn of(tls: bool, rest: &'a str) -> Result<Self, RedisUrlError> {
        let (authority, behind) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let at = authority.rfind('@').map_or(0, |at| at + 1);
        let (credentials, hosts) = authority.split_at(at);
        let (path, query) = behind.split_once('?').unwrap_or((behind, ""));
        let hosts: Vec<_> = hosts.split(',').collect();
        if hosts.iter().all(|host| host.is_empty()) {
            return Err(RedisUrlError::NoHosts);
        }
        Ok(Self { tls, credentials, hosts, path: path.trim_matches('/'), query })
    }

    /// Returns the URL of one server.
    fn single(
        &self,
        credentials: &str,
        host: &str,
        port: Option<u16>,
        database: &str,
    ) -> Result<SecretString, RedisUrlError> {
        let scheme = if self.tls { "rediss" } else { "redis" };
        let mut url = Url::parse(&format!("{scheme}{SEPARATOR}{credentials}{host}/{database}"))
            .map_err(|_| RedisUrlError::HostForm)?;
        if url.host_str().is_none_or(str::is_empty) {
            return Err(RedisUrlError::HostForm);
        }
        if let (None, Some(port)) = (url.port(), port) {
            url.set_port(Some(port)).map_err(|()| RedisUrlError::HostForm)?;
        }
        Ok(SecretString::from(String::from(url)))
    }
}

fn sentinel(parts: &Parts<'_>) -> Result<SentinelUrl, RedisUrlError> {
    let (name, database) = parts.path.split_once('/').unwrap_or((parts.path, "0"));
    if name.is_empty() {
        return Err(RedisUrlError::NoPrimary);
    }
    check_database(database)?;
    let name =
        percent_encoding::percent_decode_str(name).decode_utf8().map_err(|_| RedisUrlError::NoPrimary)?.into_owned();
    let (mut user, mut password) = (None, None);
    for (key, value) in parts.query.split('&').filter(|pair| !pair.is_empty()).filter_map(|pair| pair.split_once('=')) {
        match key {
            "sentinel_username" => user = Some(value),
            "sentinel_password" => password = Some(value),
            _ => return Err(RedisUrlError::Parameter),
        }
    }
    // As in the URL: percent-encoded.
    let credentials = password.map_or_else(String::new, |password| format!("{}:{password}@", user.unwrap_or_default()));
    let each = parts.hosts.iter().map(|host| parts.single(&credentials, host, Some(SENTINEL_PORT), "0"));
    let sentinels = each.collect::<Result<_, _>>()?;
    let primary = parts.single(parts.credentials, "primary", None, database)?;
    Ok(SentinelUrl { sentinels, name, primary })
}

fn cluster(parts: &Parts<'_>) -> Result<Vec<SecretString>, RedisUrlError> {
    if !matches!(parts.path, "" | "0") {
        return Err(RedisUrlError::ClusterDatabase);
    }
    if !parts.query.is_empty() {
        return Err(RedisUrlError::Parameter);
    }
    parts.hosts.iter().map(|host| parts.single(parts.credentials, host, None, "0")).collect()
}

/// Checks the name of a queue: on a cluster, keys beside it must be on the same node.
pub(super) fn check_queue(url: &SecretString, queue: &str) -> Result<(), &'static str> {
    if matches!(RedisUrl::parse(url.expose_secret()), Ok(RedisUrl::Cluster(_))) {
        check_hash_tag(queue)
    } else {
        Ok(())
    }
}

fn check_hash_tag(queue: &str) -> Result<(), &'static str> {
    if queue.contains(['{', '}']) && !crate::model::Layout::has_hash_tag(queue) {
        return Err(
            "its braces are no hash tag, so that no other key can be put on the same node; leave them out, or write \
             for example {browser}:jobs",
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exposed(urls: &[SecretString]) -> Vec<&str> {
        urls.iter().map(ExposeSecret::expose_secret).collect()
    }

    #[test]
    fn sentinels_have_their_own_port_and_credentials() {
        let text = "rediss+sentinel://bot:p%40ss@s1:5000,s2,[::1]/main/3?sentinel_username=w&sentinel_password=x%3Ay";
        let Ok(RedisUrl::Sentinel(url)) = RedisUrl::parse(text) else { panic!("it is one of sentinels") };
        let sentinels = ["rediss://w:x%3Ay@s1:5000/0", "rediss://w:x%3Ay@s2:26379/0", "rediss://w:x%3Ay@[::1]:26379/0"];
        assert_eq!(exposed(&url.sentinels), sentinels);
        assert_eq!((url.name.as_str(), url.primary.expose_secret()), ("main", "rediss://bot:p%40ss@primary/3"));
        let Ok(RedisUrl::Sentinel(url)) = RedisUrl::parse("redis+sentinel://:pw@h/mymaster") else { panic!() };
        assert_eq!(exposed(&url.sentinels), ["redis://h:26379/0"], "the primary's password is not shown to sentinels");
        assert_eq!(url.primary.expose_secret(), "redis://:pw@primary/0");
    }

    #[test]
    fn nodes_of_a_cluster_share_the_credentials() {
        let Ok(RedisUrl::Cluster(nodes)) = RedisUrl::parse("redis+cluster://u:p@h1:7000,h2/0") else { panic!() };
        assert_eq!(exposed(&nodes), ["redis://u:p@h1:7000/0", "redis://u:p@h2/0"]);
        assert!(matches!(RedisUrl::parse("redis://h/0"), Ok(RedisUrl::Single(_))));
    }

    #[test]
    fn what_is_wrong_is_said_without_a_secret() {
        for (url, part) in [
            ("redis+sentinel://u:hunter2@", "no host"),
            ("redis+sentinel://u:hunter2@h", "which primary"),
            ("redis+sentinel://u:hunter2@h/main/x", "database"),
            ("redis+sentinel://u:hunter2@h/main?x=hunter2", "parameter"),
            ("redis+sentinel://u:hunter2@h:x/main", "HOST:PORT"),
            ("redis+cluster://u:hunter2@h,/0", "HOST:PORT"),
            ("redis+cluster://u:hunter2@h/2", "database 0"),
            ("rediss+cluster://u:hunter2@h?pass=hunter2", "parameter"),
        ] {
            let problem = RedisUrl::parse(url).unwrap_err().to_string();
            assert!(problem.contains(part) && !problem.contains("hunter2"), "{url}: {problem}");
        }
    }

    #[test]
    fn usable_urls_pass() {
        for url in [
            "redis://localhost",
            "redis://localhost:6379/0",
            "rediss://user:p%40ss@h.example:6380/15",
            "redis://:secret@[::1]:6379",
            "unix:///run/redis.sock?db=2&pass=x",
            "redis+unix:///run/redis.sock",
            "redis+sentinel://u:p@h:26379,i/mymaster/0",
            "rediss+cluster://:p@h:7000,i:7001",
        ] {
            assert_eq!(check_redis_url(url), Ok(()), "{url}");
        }
    }

    #[test]
    fn unusable_urls_are_refused() {
        for url in [
            "",
            "localhost:6379",
            "http://h",
            "redis://",
            "redis://h/db",
            "unix://",
            "redis://h:99999",
            "redis://h /1",
            "redis+sentinel://h",
            "redis+cluster://",
        ] {
            assert!(check_redis_url(url).is_err(), "{url}");
        }
    }

    #[test]
    fn the_database_may_stand_in_the_query() {
        for (text, url) in [
            ("redis://h?db=2", "redis://h/2"),
            ("rediss://u:p%40ss@h:1/?db=2", "rediss://u:p%40ss@h:1/2"),
            ("redis://h/2?db=2&protocol=resp3", "redis://h/2?protocol=resp3"),
            ("redis://h/3?db=", "redis://h/3?db="),
            ("redis://h/3", "redis://h/3"),
            ("unix:///s?db=2&pass=x", "unix:///s?db=2&pass=x"),
        ] {
            let Ok(RedisUrl::Single(single)) = RedisUrl::parse(text) else { panic!("{text} is one server's") };
            assert_eq!(single.expose_secret(), url);
        }
    }

    #[test]
    fn parameters_that_mean_nothing_are_refused_by_name() {
        for (url, part) in [
            ("rediss://u:hunter2@h/0?ssl_cert_reqs=hunter2", "`ssl_cert_reqs`"),
            ("redis://h?db=1&Hunter2=x", "a parameter that is not supported; write redis://"),
            ("redis://h?db=hunter2", "not a number"),
            ("redis://h/1?db=2", "two databases, /1 and ?db=2"),
            ("unix:///s?socket_timeout=1", "`socket_timeout`"),
        ] {
            let error = check_redis_url(url).unwrap_err();
            let problem = error.to_string();
            assert!(problem.contains(part) && !problem.to_lowercase().contains("hunter2"), "{url}: {problem}");
            assert_eq!(RedisUrl::parse(url).err(), Some(error), "{url}");
        }
    }

    #[test]
    fn no_password_of_any_of_them_is_shown() {
        for (url, shown) in [
            ("redis+cluster://u:hunter2@a:1,b", "redis+cluster://u:***@a:1,b"),
            (
                "redis+sentinel://:hunter2@a/m/1?sentinel_password=hunter2",
                "redis+sentinel://:***@a/m/1?sentinel_password=***",
            ),
            ("redis+sentinel://a:1,b:2/m", "redis+sentinel://a:1,b:2/m"),
        ] {
            assert_eq!(masked(url, "***").as_deref(), Some(shown));
        }
        assert_eq!(masked("redis://u:hunter2@h", "***"), None);
    }

    #[test]
    fn a_queue_with_other_braces_than_a_hash_tag_is_refused() {
        for queue in ["browser:jobs", "{browser}:jobs", "a{b}c{d"] {
            assert_eq!(check_hash_tag(queue), Ok(()), "{queue}");
        }
        for queue in ["a{}b", "a{b", "a}b"] {
            assert!(check_hash_tag(queue).is_err(), "{queue}");
        }
    }
}

//! What can be wrong with a Redis URL. Must never quote a URL's values, which may be a password.

/// Why a text is not a usable Redis URL. The message says how to write the URL, and contains none of its secrets.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RedisUrlError {
    /// White space in the URL.
    #[error("there is white space in the URL; remove it, or write it as %20 where a password needs it")]
    WhiteSpace,
    /// Not a URL.
    #[error(
        "not a URL (not shown, it may hold a password); write redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE] and \
         percent-encode special characters of the password"
    )]
    NotAUrl,
    /// A scheme that no form of URL has.
    #[error(
        "the URL's scheme is none of redis, rediss and unix; write redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE], \
         rediss:// for TLS, unix:///PATH, or redis+sentinel:// or redis+cluster:// with several hosts"
    )]
    Scheme,
    /// No host, in a URL of one server.
    #[error("the URL has no host; write redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE]")]
    NoHost,
    /// No host, in a URL of several.
    #[error(
        "the URL has no host; write redis+sentinel://[USER:PASSWORD@]HOST[:PORT],HOST[:PORT]/NAME[/DATABASE] or \
         redis+cluster://[USER:PASSWORD@]HOST[:PORT],HOST[:PORT]"
    )]
    NoHosts,
    /// A host of several that is malformed.
    #[error(
        "one of the hosts is not HOST or HOST:PORT; separate them by commas, write IPv6 addresses in brackets, and \
         percent-encode special characters of the password"
    )]
    HostForm,
    /// No path of a socket.
    #[error("the URL names no socket; write unix:///PATH/TO/redis.sock")]
    NoSocket,
    /// Sentinels without the name of a primary.
    #[error(
        "the URL does not say which primary the sentinels are to be asked for; write \
         redis+sentinel://HOST[:PORT],HOST[:PORT]/NAME[/DATABASE]"
    )]
    NoPrimary,
    /// A database of a cluster.
    #[error("a Redis Cluster has database 0 and no other; leave the number out")]
    ClusterDatabase,
    /// A database that is not a number.
    #[error("the database is not a number; end the URL in /0, or leave it out for database 0")]
    DatabaseNumber,
    /// One database in the path and another one in the query.
    #[error("the URL names two databases, /{path} and ?db={query}; name one")]
    TwoDatabases {
        /// Number in the path.
        path: String,
        /// Number in the query.
        query: String,
    },
    /// An unknown parameter of a URL with several hosts.
    #[error(
        "the URL has a parameter that is not known here; sentinel_username and sentinel_password are, for \
         redis+sentinel://"
    )]
    Parameter,
    /// An unknown parameter of a URL of one server.
    #[error(
        "the URL has a parameter{} that is not supported; write {form}, with rediss:// for TLS; its parameters are: {}",
        .name.as_ref().map_or_else(String::new, |name| format!(" `{name}`")),
        .known.join(", ")
    )]
    ServerParameter {
        /// Name of the parameter; `None` if it may be part of a secret that was not percent-encoded.
        name: Option<String>,
        /// Form of the URL.
        form: &'static str,
        /// Parameters that are supported.
        known: &'static [&'static str],
    },
}

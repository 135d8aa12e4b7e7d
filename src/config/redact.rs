//! Redis URLs: whether one can be used, without ever quoting it, and what of it may be shown. A password sits in the URL's
//! authority, or for a socket in its query.

use url::Url;

use super::redis_url;

/// Stands for what is not shown.
pub(super) const MASK: &str = "***";

/// Says what is wrong with a Redis URL, never quoting any part of it.
pub(super) fn check_redis_url(text: &str) -> Result<(), &'static str> {
    const SCHEME: &str = "the URL's scheme is none of redis, rediss and unix; write redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE], rediss:// for TLS, unix:///PATH, or redis+sentinel:// or redis+cluster:// with several hosts";
    if text.contains(char::is_whitespace) {
        return Err("there is white space in the URL; remove it, or write it as %20 where a password needs it");
    }
    if redis_url::has_several_hosts(text) {
        return redis_url::RedisUrl::parse(text).map(drop);
    }
    let url = Url::parse(text).map_err(|_| {
        "not a URL (not shown, it may hold a password); write redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE] and \
         percent-encode special characters of the password"
    })?;
    match url.scheme() {
        "redis" | "rediss" if url.host_str().is_none_or(str::is_empty) => Err("the URL has no host; write \
             redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE]"),
        "redis" | "rediss" => check_database(url.path().trim_start_matches('/')),
        "unix" | "redis+unix" if url.path().trim_matches('/').is_empty() => {
            Err("the URL names no socket; write unix:///PATH/TO/redis.sock")
        }
        "unix" | "redis+unix" => {
            url.query_pairs().find(|(key, _)| key == "db").map_or(Ok(()), |(_, number)| check_database(&number))
        }
        _ => Err(SCHEME),
    }
}

pub(super) fn check_database(number: &str) -> Result<(), &'static str> {
    if number.is_empty() || number.parse::<u32>().is_ok() {
        return Ok(());
    }
    Err("the database is not a number; end the URL in /0, or leave it out for database 0")
}

/// The URL with its password masked; of what is no URL, nothing.
pub(super) fn masked_url(text: &str) -> String {
    if let Some(masked) = redis_url::masked(text, MASK) {
        return masked;
    }
    let Ok(mut url) = Url::parse(text) else { return MASK.to_owned() };
    if url.cannot_be_a_base() {
        return MASK.to_owned();
    }
    if url.password().is_some() && url.set_password(Some(MASK)).is_err() {
        return MASK.to_owned();
    }
    if url.query().is_some() {
        let pairs: Vec<_> = url.query_pairs().into_owned().collect();
        let shown =
            pairs.iter().map(|(key, value)| format!("{key}={}", if key.starts_with("pass") { MASK } else { value }));
        let shown = shown.collect::<Vec<_>>().join("&");
        url.set_query(Some(&shown));
    }
    url.to_string()
}

/// A word that is free text: masked only if it is a URL with a password in it.
pub(super) fn masked_word(text: &str) -> String {
    let has_password = redis_url::has_several_hosts(text)
        || Url::parse(text).is_ok_and(|url| url.password().is_some() || has_password_parameter(&url));
    if has_password { masked_url(text) } else { text.to_owned() }
}

fn has_password_parameter(url: &Url) -> bool {
    url.query_pairs().any(|(key, _)| key.starts_with("pass"))
}

/// An environment variable's value, masked entirely if its name says that it is a secret.
pub(super) fn masked_variable(name: &str, value: &str) -> String {
    const SECRETS: [&str; 6] = ["PASS", "SECRET", "TOKEN", "KEY", "CREDENTIAL", "AUTH"];
    let name = name.to_uppercase();
    if SECRETS.iter().any(|secret| name.contains(secret)) { MASK.to_owned() } else { masked_word(value) }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn no_password_is_shown() {
        assert_eq!(masked_url("rediss://u:hunter2@h:1/2"), "rediss://u:***@h:1/2");
        assert_eq!(masked_url("redis://localhost:6379/0"), "redis://localhost:6379/0");
        assert_eq!(masked_url("unix:///s?db=1&pass=hunter2"), "unix:///s?db=1&pass=***");
        assert_eq!(masked_url("redis:hunter2@h"), "***");
        assert_eq!(masked_url("hunter2"), "***");
        assert_eq!(masked_variable("API_TOKEN", "x"), "***");
        assert_eq!(masked_variable("BACKEND", "amqp://u:hunter2@h/"), "amqp://u:***@h/");
        assert_eq!(masked_url("redis+cluster://u:hunter2@a,b"), "redis+cluster://u:***@a,b");
        assert_eq!(masked_word("redis+sentinel://u:hunter2@a,b/m"), "redis+sentinel://u:***@a,b/m");
        assert_eq!(masked_word("--type"), "--type");
    }
}

//! Masks secrets in Redis URLs, words and environment variables. A URL's password is in its authority, or for a socket
//! in its query.

use secrecy::SecretString;
use url::Url;

use super::redis_url;

/// Replacement for a secret.
pub(super) const MASK: &str = "***";

/// Returns the URL with its password masked; only the mask if the text is not a URL.
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

/// Serializes a secret as asterisks.
#[expect(clippy::ref_option, reason = "serde hands over the field")]
pub(super) fn masked<S: serde::Serializer>(secret: &Option<SecretString>, serializer: S) -> Result<S::Ok, S::Error> {
    match secret {
        Some(_) => serializer.serialize_some(MASK),
        None => serializer.serialize_none(),
    }
}

/// Returns a free-text word, masked only if it is a URL with a password.
pub(super) fn masked_word(text: &str) -> String {
    let has_password = redis_url::has_several_hosts(text)
        || Url::parse(text).is_ok_and(|url| url.password().is_some() || has_password_parameter(&url));
    if has_password { masked_url(text) } else { text.to_owned() }
}

fn has_password_parameter(url: &Url) -> bool {
    url.query_pairs().any(|(key, _)| key.starts_with("pass"))
}

/// Returns an environment variable's value, masked entirely if the name suggests a secret.
pub(super) fn masked_variable(name: &str, value: &str) -> String {
    const SECRETS: [&str; 6] = ["PASS", "SECRET", "TOKEN", "KEY", "CREDENTIAL", "AUTH"];
    let name = name.to_uppercase();
    if SECRETS.iter().any(|secret| name.contains(secret)) { MASK.to_owned() } else { masked_word(value) }
}

#[cfg(test)]
mod tests {
    use super::*;

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

//! Parses addresses of pages as people write them.

use std::{borrow::Cow, net::IpAddr};

use url::{Host, Url};

use super::AddressRule;

/// Reason why a text does not name a page.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAPage {
    /// The text does not parse as a URL. Shown without what may be credentials.
    #[error("an http:// or https:// address; `{text}` is none ({reason})")]
    NoUrl {
        /// The text.
        text: String,
        /// Error of the parser.
        reason: String,
    },
    /// The scheme is neither `http` nor `https`.
    #[error("an http:// or https:// address; `{scheme}:` is not opened")]
    Scheme {
        /// The scheme.
        scheme: String,
    },
    /// The host is an address that is not public.
    #[error("a public address; {address} is a {kind} address, and pages may not go there")]
    Private {
        /// The address.
        address: IpAddr,
        /// Kind of the address, such as loopback.
        kind: &'static str,
    },
}

/// Parses the page that `text` names.
///
/// # Errors
/// If it is not a URL, or neither `http` nor `https`. The message continues "it must be …".
pub fn page_url(text: &str) -> Result<Url, NotAPage> {
    let url = Url::parse(text)
        .map_err(|error| NotAPage::NoUrl { text: without_credentials(text).into_owned(), reason: error.to_string() })?;
    match url.scheme() {
        "http" | "https" => Ok(url),
        scheme => Err(NotAPage::Scheme { scheme: scheme.to_owned() }),
    }
}

/// What stands for credentials.
const MASK: &str = "***";

/// Returns the address for people and logs: `***` in place of user name and password.
pub fn shown(url: &Url) -> String {
    if url.username().is_empty() && url.password().is_none() {
        return url.to_string();
    }
    let mut masked = url.clone();
    // Fails for addresses that can't have credentials, and have none.
    let _ = masked.set_password(None);
    let _ = masked.set_username(MASK);
    masked.to_string()
}

/// Masks the credentials in an address for people and logs, even if it does not parse: then everything before its last
/// `@`, apart from the scheme, counts as credentials.
pub fn without_credentials(text: &str) -> Cow<'_, str> {
    if let Ok(url) = Url::parse(text)
        && url.has_host()
    {
        return Cow::Owned(shown(&url));
    }
    let Some(at) = text.rfind('@') else { return Cow::Borrowed(text) };
    let scheme = text.find("://").map_or(0, |colon| colon + 3).min(at);
    Cow::Owned(format!("{}{MASK}{}", &text[..scheme], &text[at..]))
}

/// Refuses a page whose host is an address that `rule` refuses, in any notation. Does not resolve names: the code that
/// connects checks the resolved address.
///
/// # Errors
/// If the rule refuses the host.
pub fn check_written(url: &Url, rule: &AddressRule) -> Result<(), NotAPage> {
    let (address, host) = match url.host() {
        Some(Host::Ipv4(address)) => (IpAddr::from(address), address.to_string()),
        Some(Host::Ipv6(address)) => (IpAddr::from(address), address.to_string()),
        _ => return Ok(()),
    };
    let port = url.port_or_known_default().unwrap_or_default();
    rule.check(&host, address, port).map_err(|kind| NotAPage::Private { address, kind })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pages_of_the_web_are_pages() {
        assert!(page_url("https://example.org/a?b#c").is_ok());
        for (text, says) in [
            ("example.org", "`example.org` is none"),
            ("file:///etc/passwd", "`file:` is not opened"),
            ("javascript:alert(1)", "`javascript:` is not opened"),
            ("chrome://settings", "`chrome:` is not opened"),
            ("", "is none"),
        ] {
            let error = page_url(text).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn credentials_are_shown_nowhere() {
        for (text, says) in [
            ("https://example.org/a?b#c", "https://example.org/a?b#c"),
            ("https://user:hunter2@example.org/a@b", "https://***@example.org/a@b"),
            ("https://hunter2@example.org/", "https://***@example.org/"),
            ("https:user:hunter2@example.org", "https://***@example.org/"),
            ("about:blank", "about:blank"),
            ("https://user:hunter2/x@exam ple.org/", "https://***@exam ple.org/"),
            ("user:hunter2@example.org", "***@example.org"),
            ("someone@example.org", "***@example.org"),
        ] {
            assert_eq!(without_credentials(text), says);
        }
        let error = page_url("https://user:hunter2@exam ple.org/").unwrap_err().to_string();
        assert!(error.contains("`https://***@exam ple.org/` is none"), "{error}");
    }

    #[test]
    fn a_private_address_is_seen_in_every_spelling_and_names_are_left_to_the_worker() {
        let rule = AddressRule::new(vec!["127.0.0.1:8080".parse().unwrap()]);
        for (text, fine) in [
            ("http://127.0.0.1/", false),
            ("http://127.0.0.1:8080/", true),
            ("http://2130706433/", false),
            ("http://0x7f.1/", false),
            ("http://[::1]/", false),
            ("http://[::ffff:10.0.0.1]/", false),
            ("https://169.254.169.254/latest/meta-data", false),
            ("https://1.1.1.1/", true),
            ("http://localhost/", true),
            ("https://example.org/", true),
        ] {
            assert_eq!(check_written(&page_url(text).unwrap(), &rule).is_ok(), fine, "{text}");
        }
    }
}

//! Who may change something over HTTP: whoever sends the token. Without one nobody may.

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;

use super::{Served, error::refusal};

/// The request carries the token.
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
            let answer = refusal(denied.code(), denied.message());
            if denied == Denied::Off {
                return answer;
            }
            ([(header::WWW_AUTHENTICATE, "Bearer")], answer).into_response()
        })?;
        Ok(Self)
    }
}

/// How long the comparison takes tells nothing but the token's length.
fn check(token: Option<&SecretString>, headers: &HeaderMap) -> Result<(), Denied> {
    let token = token.ok_or(Denied::Off)?.expose_secret().as_bytes();
    let sent = headers.get(header::AUTHORIZATION).ok_or(Denied::Missing)?.as_bytes();
    let (scheme, sent) = sent.split_at_checked(BEARER.len()).ok_or(Denied::Missing)?;
    if !scheme.eq_ignore_ascii_case(BEARER) {
        return Err(Denied::Missing);
    }
    if bool::from(sent.trim_ascii().ct_eq(token)) { Ok(()) } else { Err(Denied::Wrong) }
}

/// The scheme, in any case, and a blank.
const BEARER: &[u8] = b"bearer ";

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

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
}

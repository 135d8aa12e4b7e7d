//! Where the engine is, as Docker's own tools are told: `DOCKER_HOST`, `DOCKER_TLS_VERIFY`, `DOCKER_CERT_PATH`. Opens
//! no connection.

use std::{fmt, path::PathBuf};

/// Where an engine listens unless something else is said.
const DEFAULT_SOCKET: &str = "/var/run/docker.sock";

/// Where an engine is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// A socket on this machine.
    Unix(PathBuf),
    /// `HOST:PORT`, without encryption.
    Tcp(String),
    /// `HOST:PORT` with TLS, and the directory of `ca.pem`, `cert.pem` and `key.pem`.
    Tls(String, PathBuf),
}

/// `DOCKER_HOST` can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "DOCKER_HOST=\"{0}\" names no engine; write unix:///PATH, tcp://HOST:PORT, or leave it out for /var/run/docker.sock"
)]
pub struct UnknownEndpoint(String);

impl Endpoint {
    /// What the environment says. TLS is used for `tcp://` if `DOCKER_TLS_VERIFY` is not empty, and for `https://`.
    pub fn from_environment(variable: impl Fn(&str) -> Option<String>) -> Result<Self, UnknownEndpoint> {
        let set = |name| variable(name).filter(|value| !value.is_empty());
        let Some(host) = set("DOCKER_HOST") else { return Ok(Self::Unix(PathBuf::from(DEFAULT_SOCKET))) };
        let unknown = || UnknownEndpoint(host.clone());
        let (scheme, rest) = host.split_once("://").ok_or_else(unknown)?;
        let address = rest.trim_end_matches('/').to_owned();
        if address.is_empty() {
            return Err(unknown());
        }
        let certificates = || {
            let home = || set("HOME").map(|home| PathBuf::from(home).join(".docker"));
            set("DOCKER_CERT_PATH").map(PathBuf::from).or_else(home).unwrap_or_default()
        };
        match scheme {
            "unix" => Ok(Self::Unix(PathBuf::from(rest))),
            "https" => Ok(Self::Tls(address, certificates())),
            "tcp" if set("DOCKER_TLS_VERIFY").is_some() => Ok(Self::Tls(address, certificates())),
            "tcp" | "http" => Ok(Self::Tcp(address)),
            _ => Err(unknown()),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp://{address}"),
            Self::Tls(address, _) => write!(f, "tcp://{address} (TLS)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_names_the_engine_as_it_does_for_dockers_own_tools() {
        let tls = |address: &str, path: &str| Endpoint::Tls(address.to_owned(), PathBuf::from(path));
        for (variables, expected) in [
            (&[][..], Endpoint::Unix(PathBuf::from("/var/run/docker.sock"))),
            (&[("DOCKER_HOST", "")], Endpoint::Unix(PathBuf::from("/var/run/docker.sock"))),
            (
                &[("DOCKER_HOST", "unix:///run/user/1000/docker.sock")],
                Endpoint::Unix("/run/user/1000/docker.sock".into()),
            ),
            (&[("DOCKER_HOST", "tcp://proxy:2375")], Endpoint::Tcp("proxy:2375".to_owned())),
            (
                &[("DOCKER_HOST", "tcp://e:2376/"), ("DOCKER_TLS_VERIFY", "1"), ("HOME", "/h")],
                tls("e:2376", "/h/.docker"),
            ),
            (&[("DOCKER_HOST", "https://e:2376"), ("DOCKER_CERT_PATH", "/certs")], tls("e:2376", "/certs")),
        ] {
            let found =
                |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
            assert_eq!(Endpoint::from_environment(found), Ok(expected), "{variables:?}");
        }
        for host in ["ssh://me@there", "/var/run/docker.sock", "tcp://", "npipe:////./pipe/docker"] {
            let error = Endpoint::from_environment(|name| (name == "DOCKER_HOST").then(|| host.to_owned()));
            assert_eq!(error, Err(UnknownEndpoint(host.to_owned())));
        }
    }
}

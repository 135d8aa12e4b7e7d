//! Credentials for the registry of an image, from the file that `docker login` writes, or from the helper that it
//! names.

use std::{
    env,
    fs::File,
    io::{self, BufReader},
    path::{Path, PathBuf},
};

use bollard::auth::DockerCredentials;
use docker_credential::{CredentialRetrievalError, DockerCredential, get_credential_from_reader};
use tokio::task::spawn_blocking;

use super::error::EngineError;
use crate::{backend::BackendError, model::WorkerType};

/// Registry of images without one in their names, as credentials name it.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";
/// Parts of what engines and registries say to whoever has no right to an image.
const DENIALS: [&str; 4] = ["denied", "unauthorized", "authentication required", "no basic auth"];

/// What is known about an image's registry.
pub(super) struct Login {
    registry: String,
    /// File with credentials; `None` if there is none.
    file: Option<PathBuf>,
    credential: Option<DockerCredential>,
}

impl Login {
    /// Reads the credentials for an image from `file`, else from where Docker's own tools look. A registry without
    /// credentials is no error.
    ///
    /// # Errors
    /// If the file or the helper that it names can't be used.
    pub(super) async fn of(image: &str, file: Option<PathBuf>) -> Result<Self, BackendError> {
        let (registry, is_set) = (registry(image).to_owned(), file.is_some());
        let file = file.or_else(|| default_file(|name| env::var(name).ok())).filter(|file| is_set || file.exists());
        let Some(path) = file.clone() else { return Ok(Self { registry, file, credential: None }) };
        let of = registry.clone();
        // A helper is a program that is waited for.
        let read = spawn_blocking(move || read(&path, &of)).await;
        let credential = read.unwrap_or_else(|error| Err(error.to_string())).map_err(BackendError::permanent)?;
        if credential.as_ref().is_some_and(is_spoilt_on_the_way) {
            return Err(BackendError::permanent(format!(
                "the password for `{registry}` has a `>`, `?`, `~` or a character outside ASCII, which can't be sent to \
                 the engine; make an access token, and log in with that"
            )));
        }
        Ok(Self { registry, file, credential })
    }

    /// Returns the credentials as the engine takes them.
    pub(super) fn credentials(&self) -> Option<DockerCredentials> {
        let serveraddress = Some(self.registry.clone());
        Some(match self.credential.as_ref()? {
            DockerCredential::IdentityToken(token) => {
                DockerCredentials { identitytoken: Some(token.clone()), serveraddress, ..DockerCredentials::default() }
            }
            DockerCredential::UsernamePassword(user, password) => DockerCredentials {
                username: Some(user.clone()),
                password: Some(password.clone()),
                serveraddress,
                ..DockerCredentials::default()
            },
        })
    }

    /// Returns the cure if a pull was refused for want of the right to it.
    pub(super) fn cure(&self, error: &EngineError, worker_type: &WorkerType) -> Option<String> {
        let said = error.to_string().to_lowercase();
        if !DENIALS.iter().any(|words| said.contains(words)) {
            return None;
        }
        let setting = format!("worker_types.{worker_type}.docker.registry_auth_file");
        let login = if self.registry == DOCKER_HUB { "" } else { &self.registry };
        let login = format!("docker login {login}");
        let login = login.trim_end();
        Some(match (&self.file, &self.credential) {
            (Some(file), Some(_)) => {
                format!("the credentials in `{}` were sent; renew them (`{login}`)", file.display())
            }
            (Some(file), None) => format!("`{}` has no credentials for it; add them (`{login}`)", file.display()),
            (None, _) => format!("no credentials were sent: run `{login}` as this user, or set `{setting}`"),
        })
    }
}

/// Returns whether the engine would misread the credential: it expects the header in base64 for URLs, and the client
/// writes plain base64, which differs for these characters.
fn is_spoilt_on_the_way(credential: &DockerCredential) -> bool {
    let DockerCredential::UsernamePassword(user, password) = credential else { return false };
    [user, password].iter().any(|text| !text.is_ascii() || text.contains(['>', '?', '~']))
}

/// Returns the registry in an image's name, as Docker reads it: a first part with a dot or a port, or `localhost`.
fn registry(image: &str) -> &str {
    match image.split_once('/') {
        Some(("docker.io" | "index.docker.io", _)) => DOCKER_HUB,
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => first,
        _ => DOCKER_HUB,
    }
}

fn default_file(variable: impl Fn(&str) -> Option<String>) -> Option<PathBuf> {
    let set = |name| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let directory = set("DOCKER_CONFIG").or_else(|| Some(set("HOME")?.join(".docker")))?;
    Some(directory.join("config.json"))
}

fn read(path: &Path, registry: &str) -> Result<Option<DockerCredential>, String> {
    let of_file = |why: &dyn std::fmt::Display| format!("the credentials in `{}` can't be used: {why}", path.display());
    let file = File::open(path).map_err(|error: io::Error| of_file(&error))?;
    match get_credential_from_reader(BufReader::new(file), registry) {
        Ok(credential) => Ok(Some(credential)),
        Err(CredentialRetrievalError::NoCredentialConfigured) => Ok(None),
        Err(CredentialRetrievalError::ConfigReadError) => {
            Err(of_file(&"it is not JSON as `docker login` writes it, such as {\"auths\": {\"REGISTRY\": {…}}}"))
        }
        // Its helper says so on standard output for a registry that it does not know.
        Err(CredentialRetrievalError::HelperFailure { stdout, .. }) if stdout.contains("credentials not found") => {
            Ok(None)
        }
        Err(CredentialRetrievalError::HelperFailure { helper, stderr, .. }) => {
            Err(of_file(&format!("`{helper}` failed: {}", stderr.trim())))
        }
        Err(CredentialRetrievalError::HelperCommunicationError) => {
            Err(of_file(&"the credential helper that it names can't be run; install it, or log in without one"))
        }
        Err(error) => Err(of_file(&error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_images_registry() {
        for (image, expected) in [
            ("browser:1.2", DOCKER_HUB),
            ("acme/browser", DOCKER_HUB),
            ("docker.io/acme/browser", DOCKER_HUB),
            ("ghcr.io/acme/browser:1", "ghcr.io"),
            ("registry:5000/browser", "registry:5000"),
            ("localhost/browser", "localhost"),
        ] {
            assert_eq!(registry(image), expected, "{image}");
        }
    }

    #[test]
    fn where_credentials_are() {
        let of = |variables: &[(&str, &str)]| {
            let find =
                |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
            default_file(find)
        };
        assert_eq!(of(&[("HOME", "/h")]), Some("/h/.docker/config.json".into()));
        assert_eq!(of(&[("HOME", "/h"), ("DOCKER_CONFIG", "/etc/d")]), Some("/etc/d/config.json".into()));
        assert_eq!(of(&[("HOME", "")]), None);
    }

    #[tokio::test]
    async fn credentials_are_found_by_registry() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("config.json");
        // As `docker login` writes it: base64 of `ann:secret`.
        std::fs::write(&file, r#"{"auths": {"ghcr.io": {"auth": "YW5uOnNlY3JldA=="}}}"#).unwrap();
        let of = async |image: &str| Login::of(image, Some(file.clone())).await.unwrap().credentials();
        let found = of("ghcr.io/acme/browser").await.unwrap();
        assert_eq!((found.username.as_deref(), found.password.as_deref()), (Some("ann"), Some("secret")));
        assert_eq!(of("browser").await, None);
        std::fs::write(&file, r#"{"auths": {"ghcr.io": {"username": "ann", "password": "why?"}}}"#).unwrap();
        let refused = Login::of("ghcr.io/acme/browser", Some(file.clone())).await.err().unwrap().message;
        assert!(refused.contains("access token") && !refused.contains("why"), "{refused}");
        std::fs::write(&file, "ghcr.io ann secret").unwrap();
        let refused = Login::of("ghcr.io/acme/browser", Some(file.clone())).await.err().unwrap().message;
        assert!(refused.contains("config.json") && refused.contains("docker login"), "{refused}");
        std::fs::write(&file, r#"{"credHelpers": {"ghcr.io": "no-such-helper"}}"#).unwrap();
        let refused = Login::of("ghcr.io/acme/browser", Some(file)).await.err().unwrap().message;
        assert!(refused.contains("helper"), "{refused}");
        let missing = Login::of("browser", Some(directory.path().join("none"))).await.err().unwrap().message;
        assert!(missing.contains("none"), "{missing}");
    }
}

//! TLS of the server: its certificate, and which clients it takes. The files are read again when they have changed, so
//! that renewed certificates need no restart.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};

use crate::config::KedaSettings;

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file can't be read, or holds nothing usable.
    #[error("keda.{key} = {}: {message}", file.display())]
    File {
        /// The setting.
        key: &'static str,
        /// Its value.
        file: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// The certificate and the key don't fit.
    #[error("keda.tls_cert_file and keda.tls_key_file can't be used together: {0}")]
    Unusable(#[from] rustls::Error),
    /// The authorities of clients can't be used.
    #[error("keda.client_ca_file: {0}")]
    Authorities(#[from] rustls::server::VerifierBuilderError),
}

/// Reads the files, and returns in words what they give.
///
/// # Errors
/// If they can't be used.
pub fn check_tls(settings: &KedaSettings) -> Result<String, TlsError> {
    Ok(match Tls::load(settings)? {
        None => "no TLS: demand travels in clear text".to_owned(),
        Some(Tls { client_ca: None, .. }) => "TLS, for any client".to_owned(),
        Some(_) => "TLS, for clients with a certificate".to_owned(),
    })
}

/// The files of the certificate, and what was read from them.
pub(super) struct Tls {
    cert: PathBuf,
    key: PathBuf,
    client_ca: Option<PathBuf>,
    loaded: Mutex<Loaded>,
}

struct Loaded {
    config: Arc<ServerConfig>,
    /// Times of the files' last changes, when they were read.
    changed_at: Vec<Option<SystemTime>>,
}

impl Tls {
    /// Reads the files; `None` if the settings name none.
    pub(super) fn load(settings: &KedaSettings) -> Result<Option<Self>, TlsError> {
        let (Some(cert), Some(key)) = (&settings.tls_cert_file, &settings.tls_key_file) else { return Ok(None) };
        let (cert, key, client_ca) = (cert.clone(), key.clone(), settings.client_ca_file.clone());
        let changed_at = changed_at(&cert, &key, client_ca.as_deref());
        let config = Arc::new(read(&cert, &key, client_ca.as_deref())?);
        Ok(Some(Self { cert, key, client_ca, loaded: Mutex::new(Loaded { config, changed_at }) }))
    }

    /// Returns the configuration for a new connection. Files that have changed and can't be used leave the previous one
    /// in force.
    pub(super) fn config(&self) -> Arc<ServerConfig> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let changed_at = changed_at(&self.cert, &self.key, self.client_ca.as_deref());
        if changed_at != loaded.changed_at {
            match read(&self.cert, &self.key, self.client_ca.as_deref()) {
                Ok(config) => {
                    tracing::info!(cert = %self.cert.display(), "keda certificate read again");
                    loaded.config = Arc::new(config);
                }
                Err(error) => tracing::warn!(%error, "keda certificate has changed and can't be used"),
            }
            loaded.changed_at = changed_at;
        }
        loaded.config.clone()
    }
}

fn changed_at(cert: &Path, key: &Path, client_ca: Option<&Path>) -> Vec<Option<SystemTime>> {
    let at = |file: &Path| fs::metadata(file).and_then(|file| file.modified()).ok();
    [Some(cert), Some(key), client_ca].into_iter().flatten().map(at).collect()
}

fn read(cert: &Path, key: &Path, client_ca: Option<&Path>) -> Result<ServerConfig, TlsError> {
    let chain = certificates("tls_cert_file", cert)?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| unusable("tls_key_file", key, &error))?;
    let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions()?;
    let builder = match client_ca {
        None => builder.with_no_client_auth(),
        Some(file) => {
            let mut roots = RootCertStore::empty();
            for authority in certificates("client_ca_file", file)? {
                roots.add(authority)?;
            }
            let provider = Arc::new(ring::default_provider());
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build()?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_single_cert(chain, private)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

fn certificates(key: &'static str, file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let certificates = read.map_err(|error| unusable(key, file, &error))?;
    if certificates.is_empty() {
        let error = io::Error::new(io::ErrorKind::InvalidData, "the file holds no certificate in PEM");
        return Err(unusable(key, file, &error));
    }
    Ok(certificates)
}

fn unusable(key: &'static str, file: &Path, error: &dyn std::error::Error) -> TlsError {
    TlsError::File { key, file: file.to_owned(), message: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(dir: &Path) -> KedaSettings {
        KedaSettings {
            tls_cert_file: Some(dir.join("cert.pem")),
            tls_key_file: Some(dir.join("key.pem")),
            ..KedaSettings::default()
        }
    }

    fn write(dir: &Path) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        fs::write(dir.join("cert.pem"), made.cert.pem()).unwrap();
        fs::write(dir.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    }

    #[test]
    fn a_renewed_certificate_is_used_and_a_broken_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path());
        let tls = Tls::load(&settings(dir.path())).unwrap().unwrap();
        let first = tls.config();
        assert!(Arc::ptr_eq(&first, &tls.config()), "nothing has changed");
        write(dir.path());
        let cert = fs::File::options().append(true).open(dir.path().join("cert.pem")).unwrap();
        cert.set_modified(SystemTime::now() + std::time::Duration::from_secs(5)).unwrap();
        let second = tls.config();
        assert!(!Arc::ptr_eq(&first, &second));
        fs::write(dir.path().join("cert.pem"), "nothing").unwrap();
        assert!(Arc::ptr_eq(&second, &tls.config()));
    }

    #[test]
    fn an_unusable_file_is_named_with_its_setting() {
        let dir = tempfile::tempdir().unwrap();
        let told = |settings: &KedaSettings| Tls::load(settings).err().unwrap().to_string();
        assert!(told(&settings(dir.path())).starts_with("keda.tls_cert_file = "));
        write(dir.path());
        fs::write(dir.path().join("key.pem"), "").unwrap();
        assert!(told(&settings(dir.path())).starts_with("keda.tls_key_file = "));
        write(dir.path());
        fs::write(dir.path().join("ca.pem"), "").unwrap();
        let with_ca = KedaSettings { client_ca_file: Some(dir.path().join("ca.pem")), ..settings(dir.path()) };
        assert!(told(&with_ca).contains("client_ca_file = ") && told(&with_ca).contains("no certificate"));
        assert!(Tls::load(&KedaSettings::default()).unwrap().is_none());
    }
}

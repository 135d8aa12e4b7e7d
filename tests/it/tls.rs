//! `rediss://` with a user and password, against a real server with a certificate that only we trust.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

/// A password that has to be escaped in a URL.
const PASSWORD: &str = "p@ss:w/rd";
const PASSWORD_IN_URL: &str = "p%40ss%3Aw%2Frd";

struct TlsServer {
    process: Child,
    port: u16,
    directory: TempDir,
}

impl TlsServer {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        write_certificates(directory.path());
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let file = |name: &str| directory.path().join(name).display().to_string();
        let process = Command::new("redis-server")
            .args(["--port", "0", "--tls-port", &port.to_string(), "--save", "", "--tls-auth-clients", "no"])
            .args(["--tls-cert-file", &file("server.pem"), "--tls-key-file", &file("server.key")])
            .args(["--tls-ca-cert-file", &file("ca.pem")])
            .args(["--user", "app", "on", &format!(">{PASSWORD}"), "~*", "&*", "+@all", "--user", "default", "off"])
            .current_dir(directory.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self { process, port, directory }
    }

    fn url(&self, password: &str) -> String {
        format!("rediss://app:{password}@127.0.0.1:{}/0", self.port)
    }

    fn roots(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }
}

impl Drop for TlsServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// `ca.pem`, and `server.pem` with `server.key`, which it signed for 127.0.0.1.
pub(crate) fn write_certificates(directory: &Path) {
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_certificate = ca.self_signed(&ca_key).unwrap();
    let issuer = Issuer::new(ca, ca_key);
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    std::fs::write(directory.join("ca.pem"), ca_certificate.pem()).unwrap();
    std::fs::write(directory.join("server.pem"), leaf.pem()).unwrap();
    std::fs::write(directory.join("server.key"), key.serialize_pem()).unwrap();
}

fn publish(url: &str, roots: Option<&Path>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_swarm"));
    command.args(["publish", "browser.echo", "hi"]).env("REDIS_URL", url).env_remove("SSL_CERT_FILE");
    if let Some(roots) = roots {
        command.env("SSL_CERT_FILE", roots);
    }
    command.output().unwrap()
}

#[test]
fn rediss_with_user_and_password_works_and_a_stranger_is_refused() {
    let server = TlsServer::start();
    let deadline = Instant::now() + Duration::from_secs(20);
    let published = loop {
        let output = publish(&server.url(PASSWORD_IN_URL), Some(&server.roots()));
        if output.status.success() || Instant::now() > deadline {
            break output;
        }
    };
    assert!(published.status.success(), "{published:?}");

    let untrusted = publish(&server.url(PASSWORD_IN_URL), None);
    let error = String::from_utf8_lossy(&untrusted.stderr);
    assert!(!untrusted.status.success() && error.to_lowercase().contains("certificate"), "{error}");

    let wrong = publish(&server.url("wrong"), Some(&server.roots()));
    let error = String::from_utf8_lossy(&wrong.stderr);
    assert!(error.contains("refused the user or password"), "{error}");
    assert!(!error.contains("wrong"), "the password is never shown: {error}");
}

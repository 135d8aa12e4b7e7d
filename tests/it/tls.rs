//! `rediss://`, `rediss+sentinel://` and `rediss+cluster://` with a user and password, against a real server with a
//! certificate that only we trust.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Instant,
};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

use crate::support::{processes::KillOnDrop, redis::Port, wait::DEADLINE};

/// A password that has to be escaped in a URL.
const PASSWORD: &str = "p@ss:w/rd";
pub(crate) const PASSWORD_IN_URL: &str = "p%40ss%3Aw%2Frd";

pub(crate) struct TlsServer {
    process: Child,
    port: Port,
    directory: TempDir,
}

impl TlsServer {
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    fn start_with(more: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        write_certificates(directory.path());
        let port = Port::free();
        let file = |name: &str| directory.path().join(name).display().to_string();
        let process = Command::new("redis-server")
            .args(["--port", "0", "--tls-port", &port.number().to_string(), "--save", "", "--tls-auth-clients", "no"])
            .args(["--tls-cert-file", &file("server.pem"), "--tls-key-file", &file("server.key")])
            .args(["--tls-ca-cert-file", &file("ca.pem")])
            .args(["--user", "app", "on", &format!(">{PASSWORD}"), "~*", "&*", "+@all", "--user", "default", "off"])
            .args(more)
            .current_dir(directory.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self { process, port, directory }
    }

    pub(crate) fn url(&self, password: &str) -> String {
        format!("rediss://app:{password}@{}/0", self.port.address())
    }

    /// What `redis-cli` says to a command, as soon as the server answers.
    pub(crate) fn cli(&self, command: &[&str]) -> String {
        let port = self.port.number().to_string();
        let deadline = Instant::now() + DEADLINE;
        loop {
            let mut cli = Command::new("redis-cli");
            // OpenSSL takes a leaf with its issuer's name for one that signed itself; who is asked here is known
            // anyway.
            cli.args(["--tls", "--insecure", "-p", &port, "--user", "app", "-a", PASSWORD]).args(command);
            let output = cli.output().unwrap();
            let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
            if said.contains("OK") || Instant::now() > deadline {
                return said;
            }
        }
    }

    pub(crate) fn roots(&self) -> PathBuf {
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

/// Publishes until it works or the time is over.
fn publish_in_time(url: &str, roots: &Path) -> Output {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let output = publish(url, Some(roots));
        if output.status.success() || Instant::now() > deadline {
            return output;
        }
    }
}

#[test]
fn sentinels_and_their_primary_are_reached_by_tls() {
    let server = TlsServer::start();
    let file = |name: &str| server.directory.path().join(name).display().to_string();
    let (port, config) = (Port::free(), file("sentinel.conf"));
    let lines = format!(
        "port 0\ntls-port {}\ntls-auth-clients no\ntls-replication yes\ntls-cert-file {}\ntls-key-file {}\n\
         tls-ca-cert-file {}\nsentinel monitor main 127.0.0.1 {} 1\nsentinel auth-user main app\n\
         sentinel auth-pass main {PASSWORD}\nrequirepass watch\n",
        port.number(),
        file("server.pem"),
        file("server.key"),
        file("ca.pem"),
        server.port.number(),
    );
    std::fs::write(&config, lines).unwrap();
    let sentinel = Command::new("redis-server").args([&config, "--sentinel"]).stdout(Stdio::null()).spawn().unwrap();
    let mut sentinel = KillOnDrop(sentinel);
    let credentials = format!("app:{PASSWORD_IN_URL}@{}/main", port.address());
    let published =
        publish_in_time(&format!("rediss+sentinel://{credentials}?sentinel_password=watch"), &server.roots());
    let wrong = publish(&format!("rediss+sentinel://{credentials}?sentinel_password=wrong"), Some(&server.roots()));
    let untrusted = publish(&format!("rediss+sentinel://{credentials}?sentinel_password=watch"), None);
    sentinel.kill().unwrap();
    sentinel.wait().unwrap();
    assert!(published.status.success(), "{published:?}");
    assert!(!wrong.status.success() && !untrusted.status.success(), "{wrong:?} {untrusted:?}");
    let error = String::from_utf8_lossy(&untrusted.stderr).to_lowercase();
    assert!(error.contains("certificate"), "{error}");
}

#[test]
fn nodes_of_a_cluster_are_reached_by_tls() {
    let port = Port::free();
    let bus = port.number().to_string();
    let server = TlsServer::start_with(&["--cluster-enabled", "yes", "--tls-cluster", "yes", "--cluster-port", &bus]);
    let said = server.cli(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
    assert!(said.contains("OK"), "{said}");
    let url = server.url(PASSWORD_IN_URL).replace("rediss", "rediss+cluster");
    let published = publish_in_time(&url, &server.roots());
    assert!(published.status.success(), "{published:?}");
    let untrusted = publish(&url, None);
    let error = String::from_utf8_lossy(&untrusted.stderr).to_lowercase();
    assert!(!untrusted.status.success() && error.contains("certificate"), "{error}");
}

#[test]
fn rediss_with_user_and_password_works_and_a_stranger_is_refused() {
    let server = TlsServer::start();
    let published = publish_in_time(&server.url(PASSWORD_IN_URL), &server.roots());
    assert!(published.status.success(), "{published:?}");

    let untrusted = publish(&server.url(PASSWORD_IN_URL), None);
    let error = String::from_utf8_lossy(&untrusted.stderr);
    assert!(!untrusted.status.success() && error.to_lowercase().contains("certificate"), "{error}");

    let wrong = publish(&server.url("wrong"), Some(&server.roots()));
    let error = String::from_utf8_lossy(&wrong.stderr);
    assert!(error.contains("refused the user or password"), "{error}");
    assert!(!error.contains("wrong"), "the password is never shown: {error}");
}

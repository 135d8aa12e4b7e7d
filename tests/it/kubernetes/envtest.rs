//! A real `kube-apiserver` with its `etcd`, from the directory that `KUBEBUILDER_ASSETS` names, as
//! controller-runtime's envtest starts them: without nodes, controllers or a scheduler, and everybody with the token
//! may do everything.

use std::{
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use rcgen::KeyPair;
use serde_json::json;
use tempfile::TempDir;

use crate::support::wait::eventually;

/// How long the server may take until it answers.
const START: Duration = Duration::from_secs(60);

const TOKEN: &str = "of-the-test";

/// A running server; stopped when dropped.
pub(super) struct ApiServer {
    processes: Vec<Child>,
    port: u16,
    _directory: TempDir,
}

impl ApiServer {
    /// Starts both and waits until the API server is ready.
    pub(super) async fn start(assets: &Path) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let path = |name: &str| directory.path().join(name);
        let key = KeyPair::generate().expect("a key can be made").serialize_pem();
        fs::write(path("service-account.key"), key).expect("the directory is ours");
        fs::write(path("tokens.csv"), format!("{TOKEN},test,test,\"system:masters\"\n"))
            .expect("the directory is ours");
        let (store, peers, port) = (free_port(), free_port(), free_port());
        let store_url = format!("http://127.0.0.1:{store}");
        let etcd = Command::new(assets.join("etcd"))
            .arg("--data-dir")
            .arg(path("etcd"))
            .args(["--listen-client-urls", &store_url, "--advertise-client-urls", &store_url])
            .args(["--listen-peer-urls", &format!("http://127.0.0.1:{peers}"), "--unsafe-no-fsync"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("KUBEBUILDER_ASSETS holds etcd");
        let key = path("service-account.key").display().to_string();
        let server = Command::new(assets.join("kube-apiserver"))
            .args(["--etcd-servers", &store_url, "--secure-port", &port.to_string(), "--bind-address", "127.0.0.1"])
            .arg("--cert-dir")
            .arg(path("certificates"))
            .arg("--token-auth-file")
            .arg(path("tokens.csv"))
            .args(["--service-account-issuer", "https://localhost", "--service-account-key-file", &key])
            .args(["--service-account-signing-key-file", &key, "--service-cluster-ip-range", "10.0.0.0/24"])
            .args(["--authorization-mode", "RBAC", "--disable-admission-plugins", "ServiceAccount"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("KUBEBUILDER_ASSETS holds kube-apiserver");
        let started = Self { processes: vec![server, etcd], port, _directory: directory };
        let ready = eventually(START, async || started.is_ready().await).await;
        assert!(ready, "kube-apiserver is not ready within {START:?}");
        started
    }

    /// A kubeconfig that leads to it.
    pub(super) fn kubeconfig(&self) -> String {
        let cluster = json!({ "server": format!("https://127.0.0.1:{}", self.port), "insecure-skip-tls-verify": true });
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{ "name": "test", "cluster": cluster }],
            "contexts": [{ "name": "test", "context": { "cluster": "test", "user": "test" } }],
            "users": [{ "name": "test", "user": { "token": TOKEN } }],
        })
        .to_string()
    }

    /// Whether it takes connections and has its own objects.
    async fn is_ready(&self) -> bool {
        let address = SocketAddr::from(([127, 0, 0, 1], self.port));
        if TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_err() {
            return false;
        }
        let _ = rustls::crypto::ring::default_provider().install_default();
        let parsed = serde_json::from_str(&self.kubeconfig()).expect("a kubeconfig");
        let Ok(config) =
            kube::Config::from_custom_kubeconfig(parsed, &kube::config::KubeConfigOptions::default()).await
        else {
            return false;
        };
        let Ok(client) = kube::Client::try_from(config) else { return false };
        let spaces: kube::Api<k8s_openapi::api::core::v1::Namespace> = kube::Api::all(client);
        spaces.get("default").await.is_ok()
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        for process in &mut self.processes {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port can be had");
    listener.local_addr().expect("a bound listener has an address").port()
}

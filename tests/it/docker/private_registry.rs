//! A registry that wants a password: a real one, and a real engine that pulls from it.

use std::{
    fs,
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
};

use swarm::{backend::ErrorKind, config::PullPolicy};
use tempfile::TempDir;

use super::bench::{Bench, LONG};
use crate::support::{
    docker::{Engine, IMAGE},
    needs::repository,
    processes::KillOnDrop,
    redis::Port,
    wait::{DEADLINE, eventually},
};

/// Where `.ci/install-test-servers` puts the registry.
const UNPACKED: &str = "target/test-servers/docker-registry/bin/docker-registry";
const USER: &str = "ann";
const PASSWORD: &str = "secret";
/// bcrypt of the password.
const HASH: &str = "$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a";

/// Registry that only [`USER`] may use, with a worker's image that the engine no longer has.
struct PrivateRegistry {
    engine: Arc<Engine>,
    image: String,
    _process: KillOnDrop,
    _port: Port,
    directory: TempDir,
}

impl PrivateRegistry {
    async fn start(engine: Arc<Engine>) -> Self {
        let (directory, port) = (tempfile::tempdir().unwrap(), Port::free());
        let path = |name: &str| directory.path().join(name);
        let address = format!("127.0.0.1:{}", port.number());
        fs::write(path("users"), format!("{USER}:{HASH}\n")).unwrap();
        let settings = format!(
            "version: 0.1\nstorage: {{ filesystem: {{ rootdirectory: {} }} }}\nhttp: {{ addr: '{address}' }}\n\
             auth: {{ htpasswd: {{ realm: test, path: {} }} }}\n",
            path("images").display(),
            path("users").display()
        );
        fs::write(path("registry.yml"), settings).unwrap();
        let unpacked = repository(UNPACKED);
        let program = if unpacked.exists() { unpacked } else { PathBuf::from("docker-registry") };
        let log = fs::File::create(path("log")).unwrap();
        let mut process = Command::new(program);
        process.arg("serve").arg(path("registry.yml")).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let process = KillOnDrop(process.spawn().unwrap());
        let listens = async || TcpStream::connect(&address).is_ok();
        let started = eventually(DEADLINE, listens).await;
        assert!(started, "the registry does not start: {}", fs::read_to_string(path("log")).unwrap());

        let image = format!("{address}/worker:1");
        let registry = Self { engine, image, _process: process, _port: port, directory };
        let login = registry.logged_in();
        let login = login.parent().unwrap().to_str().unwrap();
        registry.engine.docker(&["tag", IMAGE, &registry.image]);
        registry.engine.docker(&["--config", login, "push", "--quiet", &registry.image]);
        registry.remove_image();
        registry
    }

    /// Logs in as people do, and returns the file that this leaves.
    fn logged_in(&self) -> PathBuf {
        let directory = self.directory.path().join("docker");
        let (login, address) = (directory.to_str().unwrap(), self.image.split('/').next().unwrap());
        self.engine.docker(&["--config", login, "login", "--username", USER, "--password", PASSWORD, address]);
        directory.join("config.json")
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let file = self.directory.path().join(name);
        fs::write(&file, text).unwrap();
        file
    }

    fn remove_image(&self) {
        self.engine.docker(&["image", "rm", &self.image]);
    }

    /// Returns a backend whose workers are made of the image.
    fn bench(&self, credentials: &Path) -> Bench {
        Bench::on(Arc::clone(&self.engine), |settings| {
            settings.image = Some(self.image.clone());
            settings.pull = PullPolicy::Missing;
            settings.registry_auth_file = Some(credentials.to_owned());
        })
    }
}

#[cfg_attr(any(without_docker, without_docker_registry), ignore = "no Docker engine or no registry can be had")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_of_a_private_registry_is_pulled_with_the_credentials_of_docker_login() {
    let registry = PrivateRegistry::start(Engine::any().await).await;
    let bench = registry.bench(&registry.logged_in());
    assert_eq!(bench.start(1).await.len(), 1);
    assert_eq!(bench.containers(&["running"]).len(), 1);
    drop(bench);
    registry.remove_image();
}

#[cfg_attr(any(without_docker, without_docker_registry), ignore = "no Docker engine or no registry can be had")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_pull_says_which_credentials_are_wrong() {
    let registry = PrivateRegistry::start(Engine::any().await).await;
    let address = registry.image.split('/').next().unwrap();
    let wrong = format!(r#"{{"auths": {{"{address}": {{"username": "{USER}", "password": "wr0ng"}}}}}}"#);
    for (name, text, cure) in [
        ("empty.json", "{}", "has no credentials for it"),
        ("wrong.json", &*wrong, "were sent; renew them"),
        ("broken.json", "secret", "is not JSON as `docker login` writes it"),
    ] {
        let error = registry.bench(&registry.file(name, text)).scale(1, &[], LONG).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Permanent, "{error}");
        for words in [registry.image.as_str(), name, cure] {
            assert!(error.message.contains(words), "no {words} in: {error}");
        }
        assert!(!error.message.contains("wr0ng") && !error.message.contains("secret\""), "{error}");
    }
}

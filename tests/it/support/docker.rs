//! A Docker engine for tests: the machine's own, else a private `dockerd`; a private one always where it is to be
//! killed or frozen. Every test works in a Compose project of its own, whose containers are removed at its end.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use bollard::{API_DEFAULT_VERSION, Docker, body_full, query_parameters::CreateImageOptions};
use futures_util::TryStreamExt;
use rustix::process::Signal;
use tempfile::TempDir;

use super::processes::kill;

/// An image with a shell and little else, imported once into each engine.
pub(crate) const IMAGE: &str = "swarm-test:1";
/// The machine's own engine.
const MACHINES_OWN: &str = "/var/run/docker.sock";
/// How long an engine may take to start.
const START: Duration = Duration::from_secs(60);

/// The private engine of all tests that run at the same time and need just any.
static SHARED: Mutex<Weak<Engine>> = Mutex::new(Weak::new());

/// An engine.
pub(crate) struct Engine {
    socket: PathBuf,
    private: Option<Mutex<Private>>,
}

/// A `dockerd` of our own.
struct Private {
    process: Child,
    directory: TempDir,
}

impl Engine {
    /// Any engine; `None`, said loudly, where there is none, unless SWARM_TEST_DOCKER=1 makes that a failure.
    pub(crate) async fn any() -> Option<Arc<Self>> {
        let own = Self { socket: PathBuf::from(MACHINES_OWN), private: None };
        if answers(&own.socket).await {
            own.import().await;
            return Some(Arc::new(own));
        }
        if let Some(engine) = SHARED.lock().unwrap().upgrade() {
            return Some(engine);
        }
        let engine = Self::private().await?;
        *SHARED.lock().unwrap() = Arc::downgrade(&engine);
        Some(engine)
    }

    /// A private engine.
    pub(crate) async fn private() -> Option<Arc<Self>> {
        let missing = if !rustix::process::geteuid().is_root() {
            "only root can start a private dockerd"
        } else if Command::new("dockerd").arg("--version").output().is_err() {
            "there is no dockerd"
        } else {
            let directory = tempfile::Builder::new().prefix("swarm-docker").tempdir().unwrap();
            let socket = directory.path().join("docker.sock");
            let process = spawn(directory.path());
            let engine = Self { socket, private: Some(Mutex::new(Private { process, directory })) };
            engine.until_up().await;
            engine.import().await;
            return Some(Arc::new(engine));
        };
        left_out(missing);
        None
    }

    /// Where it listens.
    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// A client of it.
    pub(crate) fn client(&self) -> Docker {
        client(&self.socket).expect("the socket was there")
    }

    /// `docker` with these arguments; its output.
    pub(crate) fn docker(&self, arguments: &[&str]) -> String {
        run(Command::new("docker").args(arguments), &self.socket)
    }

    /// Makes the worker of the test image fail, from inside: a `docker kill` would be somebody else's doing.
    pub(crate) fn crash(&self, container: &str) {
        // The command may be killed along with the container that it runs in.
        let host = format!("unix://{}", self.socket.display());
        let arguments = ["exec", container, "kill", "-USR1", "1"];
        let output = Command::new("docker").args(arguments).env("DOCKER_HOST", host).output();
        assert!(output.is_ok(), "there is no docker command");
    }

    /// `docker-compose` with these arguments in a directory; its output.
    pub(crate) fn compose(&self, directory: &Path, project: &str, arguments: &[&str]) -> String {
        run(Command::new("docker-compose").args(["-p", project]).args(arguments).current_dir(directory), &self.socket)
    }

    /// Kills a private engine (SIGKILL) and waits until it is gone.
    pub(crate) fn kill(&self) {
        let mut private = self.private.as_ref().expect("it is ours").lock().unwrap();
        private.process.kill().unwrap();
        private.process.wait().unwrap();
    }

    /// Starts a killed engine again.
    pub(crate) async fn start_again(&self) {
        {
            let mut private = self.private.as_ref().expect("it is ours").lock().unwrap();
            // Its containerd died with it. Until somebody has reaped that, dockerd would take it for alive.
            let _ = std::fs::remove_file(private.directory.path().join("exec/containerd/containerd.pid"));
            private.process = spawn(private.directory.path());
        }
        self.until_up().await;
    }

    /// Freezes a private engine, or lets it go on: connections stay open, nothing is answered.
    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.private.as_ref().expect("it is ours").lock().unwrap().process.id(), signal);
    }

    async fn until_up(&self) {
        let deadline = Instant::now() + START;
        while !answers(&self.socket).await {
            assert!(Instant::now() < deadline, "dockerd does not start; its log:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn log(&self) -> String {
        let Some(private) = &self.private else { return String::new() };
        let file = private.lock().unwrap().directory.path().join("log");
        std::fs::read_to_string(file).unwrap_or_default()
    }

    async fn import(&self) {
        let client = self.client();
        if client.inspect_image(IMAGE).await.is_ok() {
            return;
        }
        let (repo, tag) = IMAGE.split_once(':').unwrap();
        let options = CreateImageOptions {
            from_src: Some("-".to_owned()),
            repo: Some(repo.to_owned()),
            tag: Some(tag.to_owned()),
            ..CreateImageOptions::default()
        };
        let body = body_full(root_file_system().into());
        client.create_image(Some(options), Some(body), None).try_for_each(async |_| Ok(())).await.unwrap();
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let Some(private) = &mut self.private else { return };
        let process = &mut private.get_mut().unwrap().process;
        if !matches!(process.try_wait(), Ok(Some(_))) {
            kill(process.id(), Signal::CONT);
            kill(process.id(), Signal::TERM);
            let _ = process.wait();
        }
    }
}

/// A name for a Compose project that no other test of this machine has.
pub(crate) fn project_name() -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    format!("swarmtest{}x{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed))
}

/// A Compose project of one test.
pub(crate) struct Project {
    pub(crate) engine: Arc<Engine>,
    pub(crate) name: String,
}

impl Project {
    pub(crate) fn new(engine: Arc<Engine>) -> Self {
        Self { engine, name: project_name() }
    }

    /// Names of its containers in these states (`running`, `created`, …; any if there are none), sorted.
    pub(crate) fn containers(&self, states: &[&str]) -> Vec<String> {
        let label = format!("label=com.docker.compose.project={}", self.name);
        let states: Vec<String> = states.iter().map(|state| format!("status={state}")).collect();
        let filters = states.iter().flat_map(|state| ["--filter", state]);
        let listed: Vec<&str> =
            ["ps", "--all", "--format", "{{.Names}}", "--filter", &label].into_iter().chain(filters).collect();
        let mut names: Vec<String> = self.engine.docker(&listed).lines().map(str::to_owned).collect();
        names.sort();
        names
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        if !answers_now(&self.engine.socket) {
            return;
        }
        // A backend that still runs may remove the same ones at the same time: what is gone is gone.
        let label = format!("label=com.docker.compose.project={}", self.name);
        let script = "docker ps --all --quiet --filter \"$0\" | xargs -r docker rm --force --volumes\n\
                      docker network ls --quiet --filter \"$0\" | xargs -r docker network rm";
        let host = format!("unix://{}", self.engine.socket.display());
        let _ = Command::new("sh").args(["-c", script, &label]).env("DOCKER_HOST", host).output();
    }
}

/// Tests that need an engine are left out: nobody is to overlook that.
fn left_out(why: &str) {
    assert!(std::env::var("SWARM_TEST_DOCKER").as_deref() != Ok("1"), "no docker engine: {why}");
    // Past the test runner, which keeps to itself what tests print that pass.
    let told = "NOT TESTED: something of the docker backend";
    let _ = writeln!(std::io::stderr(), "{told}, {why}; SWARM_TEST_DOCKER=1 makes this a failure");
}

fn client(socket: &Path) -> Result<Docker, bollard::errors::Error> {
    Docker::connect_with_unix(&socket.to_string_lossy(), 120, API_DEFAULT_VERSION)
}

async fn answers(socket: &Path) -> bool {
    let Ok(client) = client(socket) else { return false };
    tokio::time::timeout(Duration::from_secs(5), client.ping()).await.is_ok_and(|answer| answer.is_ok())
}

/// Whether somebody listens at a socket.
fn answers_now(socket: &Path) -> bool {
    std::os::unix::net::UnixStream::connect(socket).is_ok()
}

fn run(command: &mut Command, socket: &Path) -> String {
    let output = command.env("DOCKER_HOST", format!("unix://{}", socket.display())).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{command:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

fn spawn(directory: &Path) -> Child {
    let path = |name: &str| directory.join(name).display().to_string();
    let log = std::fs::File::options().create(true).append(true).open(path("log")).unwrap();
    // Where a containerd runs already, dockerd shares it; then namespaces keep engines apart.
    let namespace = directory.file_name().unwrap().to_string_lossy().into_owned();
    // In a network namespace of its own: a dockerd without a bridge removes the `docker0` that it finds.
    Command::new("unshare")
        .args(["--net", "dockerd", "--host", &format!("unix://{}", path("docker.sock")), "--data-root", &path("data")])
        .args(["--exec-root", &path("exec"), "--pidfile", &path("pid"), "--bridge", "none", "--iptables=false"])
        .args(["--containerd-namespace", &namespace, "--containerd-plugins-namespace", &format!("{namespace}-plugins")])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap()
}

/// A tar with busybox and its names, and the links that make a mounted `/usr` usable.
fn root_file_system() -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let script = "set -e; mkdir -p bin usr etc tmp proc sys dev root\n\
                  cp \"$(command -v busybox)\" bin/busybox\n\
                  for name in sh sleep cat echo kill true false wget; do ln -s busybox bin/$name; done\n\
                  ln -s usr/lib lib; ln -s usr/lib64 lib64; tar -c .";
    let output = Command::new("sh").args(["-c", script]).current_dir(directory.path()).output().unwrap();
    assert!(
        output.status.success(),
        "busybox is needed: install busybox-static: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

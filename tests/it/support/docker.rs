//! Provides a Docker engine for tests: the machine's own, else a private `dockerd`; always a private one for tests that
//! kill or freeze it. Every test works in a Compose project of its own, whose containers are removed at its end.

use std::{
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

use super::{
    needs::engine_socket,
    processes::{self, kill},
};

/// Image with a shell and little else, imported once into each engine.
pub(crate) const IMAGE: &str = "swarm-test:1";
/// Timeout for the start of an engine.
const START: Duration = Duration::from_secs(60);
/// Timeout for the answer of an engine that listens: long, because tests replace an engine that counts as away.
const PING: Duration = Duration::from_secs(30);

/// Private engine shared by all simultaneous tests that need any engine.
static SHARED: Mutex<Weak<Engine>> = Mutex::new(Weak::new());

/// Docker engine.
pub(crate) struct Engine {
    socket: PathBuf,
    private: Option<Mutex<Private>>,
}

/// Private `dockerd`.
struct Private {
    process: Child,
    directory: TempDir,
    network: Network,
}

/// Network that `host` means for the containers of a private engine.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Network {
    /// The network of the tests.
    OfTheTests,
    /// An empty network, because several engines in one network disturb each other.
    OfItsOwn,
}

impl Engine {
    /// Returns any engine: that of `DOCKER_HOST` or of the machine if it answers, else a private one.
    pub(crate) async fn any() -> Arc<Self> {
        let own = Self { socket: engine_socket(), private: None };
        if answers(&own.socket).await {
            own.import().await;
            return Arc::new(own);
        }
        if let Some(engine) = SHARED.lock().unwrap().upgrade() {
            return engine;
        }
        let engine = Self::start(Network::OfTheTests).await;
        *SHARED.lock().unwrap() = Arc::downgrade(&engine);
        engine
    }

    /// Returns a private engine, for tests that kill or freeze it.
    pub(crate) async fn private() -> Arc<Self> {
        Self::start(Network::OfItsOwn).await
    }

    async fn start(network: Network) -> Arc<Self> {
        let cure = "SWARM_TEST_WITHOUT=docker leaves these tests out";
        assert!(rustix::process::geteuid().is_root(), "only root can start a private dockerd; {cure}");
        let directory = tempfile::Builder::new().prefix("swarm-docker").tempdir().unwrap();
        let socket = directory.path().join("docker.sock");
        let process = spawn(directory.path(), network);
        let engine = Self { socket, private: Some(Mutex::new(Private { process, directory, network })) };
        engine.until_up().await;
        engine.import().await;
        Arc::new(engine)
    }

    /// Returns the address it listens on.
    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// Returns a client of the engine.
    pub(crate) fn client(&self) -> Docker {
        client(&self.socket).expect("the socket was there")
    }

    /// Runs `docker` with these arguments and returns its output.
    pub(crate) fn docker(&self, arguments: &[&str]) -> String {
        run(Command::new("docker").args(arguments), &self.socket)
    }

    /// Makes the worker of the test image fail from inside, because a `docker kill` would count as a manual change.
    pub(crate) fn crash(&self, container: &str) {
        // The command may be killed along with its container.
        let host = format!("unix://{}", self.socket.display());
        let arguments = ["exec", container, "kill", "-USR1", "1"];
        let output = Command::new("docker").args(arguments).env("DOCKER_HOST", host).output();
        assert!(output.is_ok(), "there is no docker command");
    }

    /// Runs `docker-compose` with these arguments in a directory and returns its output.
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
            // Its containerd died with it. Until that is reaped, dockerd would believe that it lives.
            let _ = std::fs::remove_file(private.directory.path().join("exec/containerd/containerd.pid"));
            private.process = spawn(private.directory.path(), private.network);
        }
        self.until_up().await;
    }

    /// Freezes a private engine, or continues it: connections stay open, without answers.
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
        // With the tag in its name, because Podman ignores a tag beside it.
        let (from_src, repo) = (Some("-".to_owned()), Some(IMAGE.to_owned()));
        let options = CreateImageOptions { from_src, repo, ..CreateImageOptions::default() };
        let body = body_full(root_file_system().into());
        client.create_image(Some(options), Some(body), None).try_for_each(async |_| Ok(())).await.unwrap();
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let Some(private) = &mut self.private else { return };
        let Private { process, directory, .. } = private.get_mut().unwrap();
        if !matches!(process.try_wait(), Ok(Some(_))) {
            kill(process.id(), Signal::CONT);
            kill(process.id(), Signal::TERM);
            let _ = process.wait();
        }
        // A killed engine leaves its containerd, shims and mounts.
        end_processes_naming(directory.path());
        unmount_below(directory.path());
    }
}

/// Returns a name for a Compose project that is unique on this machine.
pub(crate) fn project_name() -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    format!("swarmtest{}x{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed))
}

/// Compose project of one test.
pub(crate) struct Project {
    pub(crate) engine: Arc<Engine>,
    pub(crate) name: String,
}

impl Project {
    pub(crate) fn new(engine: Arc<Engine>) -> Self {
        Self { engine, name: project_name() }
    }

    /// Returns the sorted names of its containers in these states (`running`, `created`, …; any state if none is
    /// given).
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
        // A backend that still runs may remove the same containers simultaneously, which is fine.
        let label = format!("label=com.docker.compose.project={}", self.name);
        let script = "docker ps --all --quiet --filter \"$0\" | xargs -r docker rm --force --volumes\n\
                      docker network ls --quiet --filter \"$0\" | xargs -r docker network rm";
        let host = format!("unix://{}", self.engine.socket.display());
        let _ = Command::new("sh").args(["-c", script, &label]).env("DOCKER_HOST", host).output();
    }
}

fn client(socket: &Path) -> Result<Docker, bollard::errors::Error> {
    Docker::connect_with_unix(&socket.to_string_lossy(), 120, API_DEFAULT_VERSION)
}

async fn answers(socket: &Path) -> bool {
    let Ok(client) = client(socket) else { return false };
    tokio::time::timeout(PING, client.ping()).await.is_ok_and(|answer| answer.is_ok())
}

/// Returns whether a process listens on a socket.
fn answers_now(socket: &Path) -> bool {
    std::os::unix::net::UnixStream::connect(socket).is_ok()
}

fn run(command: &mut Command, socket: &Path) -> String {
    let output = command.env("DOCKER_HOST", format!("unix://{}", socket.display())).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{command:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

fn spawn(directory: &Path, network: Network) -> Child {
    let path = |name: &str| directory.join(name).display().to_string();
    let log = std::fs::File::options().create(true).append(true).open(path("log")).unwrap();
    // Where a containerd runs already, dockerd shares it; then namespaces keep engines apart.
    let namespace = directory.file_name().unwrap().to_string_lossy().into_owned();
    // A dockerd without a bridge removes a `docker0` in its network.
    let mut command = match network {
        Network::OfTheTests => Command::new("dockerd"),
        Network::OfItsOwn => {
            let mut unshare = Command::new("unshare");
            unshare.args(["--net", "dockerd"]);
            unshare
        }
    };
    command
        .args(["--host", &format!("unix://{}", path("docker.sock")), "--data-root", &path("data")])
        .args(["--exec-root", &path("exec"), "--pidfile", &path("pid"), "--bridge", "none", "--iptables=false"])
        .args(["--containerd-namespace", &namespace, "--containerd-plugins-namespace", &format!("{namespace}-plugins")])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("dockerd is installed; SWARM_TEST_WITHOUT=docker leaves these tests out")
}

/// Kills all processes with a path below `directory` in their arguments, and waits until they are gone.
fn end_processes_naming(directory: &Path) {
    let place = directory.display().to_string();
    let ours = || {
        let ids = processes::all().into_iter();
        ids.filter(|id| processes::command_line(*id).iter().any(|word| word.contains(&place))).collect::<Vec<_>>()
    };
    let deadline = Instant::now() + START;
    loop {
        let left = ours();
        if left.is_empty() || Instant::now() > deadline {
            return;
        }
        for id in left {
            kill(id.cast_unsigned(), Signal::KILL);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Removes all mounts below `directory`, the innermost first.
fn unmount_below(directory: &Path) {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let places =
        mounts.lines().filter_map(|line| line.split(' ').nth(4)).filter(|at| Path::new(at).starts_with(directory));
    for place in places.collect::<Vec<_>>().into_iter().rev() {
        let _ = Command::new("umount").args(["--lazy", place]).output();
    }
}

/// Creates a tar with busybox and its names, and the links that make a mounted `/usr` usable.
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

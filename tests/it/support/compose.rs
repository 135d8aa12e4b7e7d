//! Runs the Compose stack on the real engine: the repository's `docker-compose.yml`, with an image of the binary under
//! test, in a project of its own that is removed when dropped.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::{Mutex, PoisonError},
};

use serde_json::Value;
use tempfile::TempDir;

use super::{autoscaler::SWARM, docker::project_name, engine_calls::EngineCalls, needs::repository};

/// Variable with the Compose command, for machines that should not use `docker-compose`: `docker compose`.
const COMPOSE: &str = "SWARM_TEST_COMPOSE";

/// Tested services. Debian has no package of Grafana, so it is unavailable where images can't be pulled.
pub(crate) const SERVICES: [&str; 3] = ["redis", "autoscaler", "prometheus"];

/// Held by whoever builds or removes images: the classic builder fails if an image from its cache is removed meanwhile.
static IMAGES: Mutex<()> = Mutex::new(());

/// Project that may have containers.
pub(crate) struct Stack {
    project: String,
    image: String,
    directory: TempDir,
    /// Calls of the autoscaler to the engine.
    pub(crate) calls: EngineCalls,
}

impl Stack {
    /// Creates the image and the files; starts nothing.
    ///
    /// # Panics
    /// If engine, Compose or images are missing.
    pub(crate) fn prepare() -> Self {
        check_possible();
        let project = project_name();
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let image = format!("{project}:test");
        let calls = EngineCalls::listen(&directory.path().join("docker.sock"));
        let stack = Self { project, image, directory, calls };
        stack.build();
        stack.write_files();
        stack
    }

    /// Runs Compose and returns its output.
    ///
    /// # Panics
    /// If it fails.
    pub(crate) fn compose(&self, arguments: &[&str]) -> String {
        succeeded(&self.try_compose(arguments), arguments)
    }

    /// Runs `swarm` in the autoscaler's container.
    pub(crate) fn swarm(&self, arguments: &[&str]) -> String {
        self.compose(&[&["exec", "-T", "autoscaler", "swarm"], arguments].concat())
    }

    /// Returns the names of this project's containers, stopped ones included.
    pub(crate) fn containers(&self) -> Vec<String> {
        let filter = format!("label=com.docker.compose.project={}", self.project);
        let names = docker(&["ps", "--all", "--filter", &filter, "--format", "{{.Names}}"]);
        names.lines().map(str::to_owned).collect()
    }

    /// Returns the ids of a service's running containers.
    pub(crate) fn running(&self, service: &str) -> Vec<String> {
        let label = |name: &str, value: &str| format!("label=com.docker.compose.{name}={value}");
        let filters = [label("project", &self.project), label("service", service)];
        let ids = docker(&["ps", "--no-trunc", "--quiet", "--filter", &filters[0], "--filter", &filters[1]]);
        ids.lines().map(str::to_owned).collect()
    }

    /// Returns what the engine says of a container.
    pub(crate) fn inspect(container: &str) -> Value {
        let text = docker(&["inspect", container]);
        serde_json::from_str::<Value>(&text).expect("it is JSON")[0].take()
    }

    /// Returns the details that a failure shows.
    pub(crate) fn report(&self) -> String {
        let output = |arguments: &[&str]| String::from_utf8_lossy(&self.try_compose(arguments).stdout).into_owned();
        format!("{}\n{}", output(&["ps"]), output(&["logs", "--no-color", "--tail", "60", "autoscaler"]))
    }

    /// Like [`Stack::compose`], for what may fail.
    pub(crate) fn try_compose(&self, arguments: &[&str]) -> Output {
        let command = command_words();
        let mut compose = Command::new(&command[0]);
        compose.args(&command[1..]).args(["--project-name", &self.project]);
        for file in [repository("docker-compose.yml"), self.file("override.yml")] {
            compose.arg("--file").arg(file);
        }
        compose.args(arguments).current_dir(repository(".")).envs([
            ("DOCKER_SOCKET", self.calls.socket().display().to_string()),
            ("DOCKER_GID", rustix::process::getgid().as_raw().to_string()),
            ("SWARM_PORT", "0".to_owned()),
            ("PROMETHEUS_PORT", "0".to_owned()),
            ("GRAFANA_PORT", "0".to_owned()),
            // A wide terminal, so that long names stay on one line.
            ("COLUMNS", "250".to_owned()),
        ]);
        compose.output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Builds the repository's Dockerfile with the classic builder and the binary of this test.
    fn build(&self) {
        let context = self.file("context");
        let binary = context.join("prebuilt/swarm");
        fs::create_dir_all(context.join("prebuilt")).expect("the directory is ours");
        let stripped = Command::new("strip").arg("-o").arg(&binary).arg(SWARM).status();
        if !stripped.is_ok_and(|status| status.success()) {
            fs::copy(SWARM, &binary).expect("the binary was built for this test");
        }
        fs::copy(repository("Dockerfile"), context.join("Dockerfile")).expect("the Dockerfile is there");
        let builder = format!("BUILDER={}", runtime_image());
        let _images = IMAGES.lock().unwrap_or_else(PoisonError::into_inner);
        // The stage that would compile has a name, so that it can be removed too.
        for (target, image) in [("builder", self.builder_image()), ("swarm", self.image.clone())] {
            let with = ["--build-arg", &builder, "--network", "none"];
            let arguments = [&["build", "--quiet", "--target", target, "--tag", &image], &with[..]].concat();
            let mut build = Command::new("docker");
            build.args(&arguments).arg(&context).env("DOCKER_BUILDKIT", "0");
            succeeded(&build.output().expect("docker is installed"), &arguments);
        }
    }

    fn builder_image(&self) -> String {
        format!("{}:builder", self.project)
    }

    /// Writes the settings, by which idle workers are let go after this time. A running autoscaler loads them within
    /// seconds.
    pub(crate) fn set_cooldown(&self, seconds: u32) {
        let settings = fs::read_to_string(repository("config/compose/swarm.toml")).expect("the settings are there");
        let settings = settings
            .replace("localhost/swarm-browser:0.1.0", &self.image)
            .replace("localhost/swarm:0.1.0", &self.image)
            .replace("max_workers = ", &format!("cooldown_seconds = {seconds}\nmax_workers = "));
        self.write("swarm.toml", &settings);
    }

    /// Writes the differences from the files of the repository: the image, and settings that keep workers.
    fn write_files(&self) {
        self.set_cooldown(1_000);
        let services = ["autoscaler", "worker-browser", "worker-tankpit"];
        let images = services.map(|name| format!("  {name}:\n    image: {}\n", self.image)).concat();
        let mount = format!("    volumes: [\"{}:/etc/swarm/swarm.toml:ro\"]\n", self.file("swarm.toml").display());
        let images = images.replacen("  worker-browser", &format!("{mount}  worker-browser"), 1);
        self.write("override.yml", &format!("services:\n{images}"));
    }

    /// Writes a file that the container's user may read.
    fn write(&self, name: &str, text: &str) {
        let readable = |mode| fs::Permissions::from_mode(mode);
        fs::write(self.file(name), text).expect("the directory is ours");
        fs::set_permissions(self.file(name), readable(0o644)).expect("the file is ours");
        fs::set_permissions(self.directory.path(), readable(0o755)).expect("the directory is ours");
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // Without their autoscaler, so that nobody waits for jobs that no test waits for.
        for name in self.containers().iter().filter(|name| name.contains("autoscaler") || name.contains("worker")) {
            let _ = Command::new("docker").args(["rm", "--force", name]).output();
        }
        self.try_compose(&["down", "--volumes", "--timeout", "5"]);
        let left = self.containers();
        for name in &left {
            let _ = Command::new("docker").args(["rm", "--force", name]).output();
        }
        let images = IMAGES.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = Command::new("docker").args(["image", "rm", "--force", &self.image, &self.builder_image()]).output();
        drop(images);
        assert!(left.is_empty() || std::thread::panicking(), "`down` leaves containers: {left:?}");
    }
}

fn check_possible() {
    let compose = command_words();
    let version: Vec<&str> = compose[1..].iter().map(String::as_str).chain(["version"]).collect();
    for (program, arguments) in [("docker", &["info"][..]), (&compose[0], &version)] {
        let works = Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success());
        assert!(works, "`{program} {}` does not work: run this test within .ci/sandbox", arguments.join(" "));
    }
    let images: Vec<String> = images_of(&repository("docker-compose.yml")).chain([runtime_image()]).collect();
    let missing: Vec<_> = images.iter().filter(|image| !is_image(image)).collect();
    assert!(
        missing.is_empty(),
        "the engine has no {missing:?}: run .ci/base-images pull, or this test within .ci/sandbox"
    );
}

fn is_image(name: &str) -> bool {
    Command::new("docker").args(["image", "inspect", name]).output().is_ok_and(|output| output.status.success())
}

/// Tested images that are not built here.
fn images_of(file: &Path) -> impl Iterator<Item = String> {
    let text = fs::read_to_string(file).expect("the Compose file is there");
    let images: Vec<_> =
        text.lines().filter_map(|line| line.trim().strip_prefix("image: ").map(str::to_owned)).collect();
    images.into_iter().filter(|image| image.starts_with("redis:") || image.starts_with("prom/"))
}

/// Base image of the Dockerfile.
fn runtime_image() -> String {
    let text = fs::read_to_string(repository("Dockerfile")).expect("the Dockerfile is there");
    let image = text.lines().find_map(|line| line.strip_prefix("ARG RUNTIME="));
    image.expect("the Dockerfile says what it is made from").to_owned()
}

fn command_words() -> Vec<String> {
    let words = env::var(COMPOSE).unwrap_or_else(|_| "docker-compose".to_owned());
    words.split_whitespace().map(str::to_owned).collect()
}

fn docker(arguments: &[&str]) -> String {
    succeeded(&Command::new("docker").args(arguments).output().expect("docker is installed"), arguments)
}

fn succeeded(output: &Output, arguments: &[&str]) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{arguments:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

//! The programs in `examples/`, each built as Cargo builds it and run against a real redis-server: they are what the
//! crate's documentation promises.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{processes, redis::RedisServer, wait::DEADLINE};

/// Between two looks at a child.
const POLL: Duration = Duration::from_millis(20);

/// Builds the examples once, with the profile of this test, and returns where they are.
fn examples() -> &'static Path {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    DIRECTORY.get_or_init(|| {
        let test = std::env::current_exe().unwrap();
        let profile = test.ancestors().nth(2).unwrap();
        let target = profile.parent().unwrap();
        let name = match profile.file_name().unwrap().to_str().unwrap() {
            "debug" => "dev",
            other => other,
        };
        let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
        let mut build = Command::new(cargo);
        // Cargo describes this package to the test. A build script that reads the same variables would run again, and
        // most dependencies would be compiled again, now and in the next build outside.
        let of_test = |name: &String| {
            name == "OUT_DIR" || ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|part| name.starts_with(part))
        };
        for name in std::env::vars().map(|(name, _)| name).filter(of_test) {
            build.env_remove(name);
        }
        build.args(["build", "--quiet", "--locked", "--offline", "--examples", "--profile", name, "--target-dir"]);
        let output = build.arg(target).current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        profile.join("examples")
    })
}

/// A running example; killed when dropped.
struct Example(Option<Child>);

impl Example {
    fn start(name: &str, server: &RedisServer) -> Self {
        let mut command = Command::new(examples().join(name));
        command.env("REDIS_URL", server.url()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self(Some(command.spawn().unwrap()))
    }

    fn pid(&self) -> u32 {
        self.0.as_ref().unwrap().id()
    }

    fn interrupt(&self) {
        let pid = Pid::from_raw(i32::try_from(self.pid()).unwrap()).unwrap();
        kill_process(pid, Signal::INT).unwrap();
    }

    /// Waits until it has ended, and returns what it printed.
    fn printed(mut self) -> String {
        let deadline = Instant::now() + DEADLINE;
        while self.0.as_mut().unwrap().try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "the example did not end within {DEADLINE:?}");
            std::thread::sleep(POLL);
        }
        let Output { status, stdout, stderr } = self.0.take().unwrap().wait_with_output().unwrap();
        assert!(status.success(), "{status}: {}", String::from_utf8_lossy(&stderr));
        String::from_utf8(stdout).unwrap()
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[test]
fn the_producers_job_is_run_by_the_handler() {
    let server = RedisServer::start();
    let handler = Example::start("handler", &server);
    let printed = Example::start("producer", &server).printed();
    assert!(printed.contains(r#"scaled: {"height":240.0,"width":320.0}"#), "{printed}");
    assert!(printed.contains("published: Entry"), "{printed}");

    handler.interrupt();
    let printed = handler.printed();
    assert!(printed.starts_with("completed ") && printed.contains(", 0 of them failed"), "{printed}");
}

#[test]
fn the_embedded_autoscaler_starts_workers_of_its_own_program_and_leaves_none() {
    let server = RedisServer::start();
    let example = Example::start("embedded_autoscaler", &server);
    let printed = example.printed();
    let results: Vec<serde_json::Value> = printed
        .lines()
        .filter_map(|line| line.strip_prefix("result: "))
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let squares: Vec<f64> = results.iter().map(|result| result["square"].as_f64().unwrap()).collect();
    assert_eq!(squares, (1..=10_u32).map(|number| f64::from(number * number)).collect::<Vec<_>>(), "{printed}");
    assert!(printed.ends_with("stopped\n"), "{printed}");
    for worker in results.iter().map(|result| result["process"].as_u64().unwrap()) {
        assert!(!Path::new(&format!("/proc/{worker}")).exists(), "worker {worker} is still there");
    }
    assert_eq!(processes::with_variable("REDIS_URL", &server.url()), []);
}

//! Tells the program which commit it was built from, for `swarm --version`, and the tests what this machine can't have.
//!
//! `SWARM_COMMIT` says so where there is no repository, as in a container's build; else git does, for optimized builds
//! only: other builds would compile again after each commit. Without either the version stands alone.
//!
//! `SWARM_TEST_WITHOUT=docker,redis-6.2` ignores the tests that need these, by a cfg for each: `without_docker`,
//! `without_redis_6_2`. `make test` sets it to what `.ci/install-test-servers` could not get.

use std::process::Command;

/// What tests may do without.
const OPTIONAL: &[&str] = &[
    "chromium",
    "compose",
    "docker",
    "docker-exec",
    "docker-registry",
    "frameworks",
    "frameworks-go",
    "frameworks-node",
    "frameworks-redis-5",
    "jq",
    "prometheus",
    "redis-6.2",
    "redis-8",
    "systemd",
    "user-namespaces",
    "valkey-8",
];

fn main() {
    println!("cargo::rerun-if-env-changed=SWARM_COMMIT");
    let commit = std::env::var("SWARM_COMMIT").ok().filter(|commit| !commit.is_empty()).or_else(of_git);
    let version = env!("CARGO_PKG_VERSION");
    let version = commit.map_or_else(|| version.to_owned(), |commit| format!("{version} ({commit})"));
    println!("cargo::rustc-env=SWARM_VERSION={version}");
    leave_out();
}

fn leave_out() {
    println!("cargo::rerun-if-env-changed=SWARM_TEST_WITHOUT");
    let cfg = |name: &str| format!("without_{}", name.replace(['-', '.'], "_"));
    for name in OPTIONAL {
        println!("cargo::rustc-check-cfg=cfg({})", cfg(name));
    }
    let without = std::env::var("SWARM_TEST_WITHOUT").unwrap_or_default();
    for name in without.split([',', ' ']).filter(|name| !name.is_empty()) {
        if OPTIONAL.contains(&name) {
            println!("cargo::rustc-cfg={}", cfg(name));
        } else {
            println!("cargo::error=SWARM_TEST_WITHOUT names `{name}`, which is not one of {}", OPTIONAL.join(", "));
        }
    }
}

/// The commit that is checked out, short; asked again when HEAD moves.
fn of_git() -> Option<String> {
    if std::env::var("PROFILE").ok()? != "release" {
        return None;
    }
    let git = |words: &[&str]| {
        let output = Command::new("git").args(words).output().ok().filter(|output| output.status.success())?;
        Some(String::from_utf8(output.stdout).ok()?.trim().to_owned()).filter(|line| !line.is_empty())
    };
    for file in ["HEAD", "logs/HEAD"] {
        if let Some(path) = git(&["rev-parse", "--git-path", file]) {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    // A repository around an unpacked source archive is not this program's.
    git(&["ls-files", "--error-unmatch", "build.rs"])?;
    git(&["rev-parse", "--short=12", "HEAD"])
}

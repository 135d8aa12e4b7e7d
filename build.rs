//! Tells the program which commit it was built from, for `swarm --version`.
//!
//! `SWARM_COMMIT` says so where there is no repository, as in a container's build; else git does, for optimized builds
//! only: others would be compiled anew after each commit. Without either the version stands alone.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-env-changed=SWARM_COMMIT");
    let commit = std::env::var("SWARM_COMMIT").ok().filter(|commit| !commit.is_empty()).or_else(of_git);
    let version = env!("CARGO_PKG_VERSION");
    let version = commit.map_or_else(|| version.to_owned(), |commit| format!("{version} ({commit})"));
    println!("cargo::rustc-env=SWARM_VERSION={version}");
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

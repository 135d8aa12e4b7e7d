//! Where things are that a few tests need. What a machine can't have is named in `SWARM_TEST_WITHOUT`, and build.rs
//! turns that into tests that are ignored with a reason; nothing is left out at run time.

use std::path::{Path, PathBuf};

/// A file of this repository.
pub(crate) fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The socket of the Docker engine that tests share: that of `DOCKER_HOST`, as `.ci/sandbox` sets it, or the machine's
/// own.
pub(crate) fn engine_socket() -> PathBuf {
    let host = std::env::var("DOCKER_HOST").unwrap_or_default();
    host.strip_prefix("unix://").unwrap_or("/var/run/docker.sock").into()
}

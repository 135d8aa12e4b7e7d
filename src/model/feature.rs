//! Parts of swarm that a build can lack.

use super::WorkerType;

/// A setting or a command needs a part that this build was compiled without.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{needed_by}: this build has no {part}; build it with `--features {feature}`")]
pub struct MissingFeature {
    /// Setting or command, as a user writes it: `orchestrator = "docker"`.
    pub needed_by: String,
    /// Part that the build lacks: `docker backend`.
    pub part: String,
    /// Cargo feature that adds the part.
    pub feature: &'static str,
}

impl MissingFeature {
    /// Returns the client of services, which `url` of a worker type needs with `orchestrator = "command"`.
    pub fn of_service(worker_type: &WorkerType) -> Self {
        let needed_by = format!("worker_types.{worker_type}.command.url");
        Self { needed_by, part: "client of services".to_owned(), feature: "command-url" }
    }
}

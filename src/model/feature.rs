//! Parts of swarm that a build can lack.

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

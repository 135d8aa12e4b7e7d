//! Parts of swarm that a build may lack.

/// A setting, or a command, needs a part that this build was compiled without.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{needed_by}: this build has no {part}; build it with `--features {feature}`")]
pub struct MissingFeature {
    /// The setting or command, as a user writes it: `orchestrator = "docker"`.
    pub needed_by: String,
    /// What the build lacks: `docker backend`.
    pub part: String,
    /// The Cargo feature that adds the part.
    pub feature: &'static str,
}

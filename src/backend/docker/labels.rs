//! The labels by which containers are known: Compose's own, and ours.

/// Compose: the project.
pub(super) const PROJECT: &str = "com.docker.compose.project";
/// Compose: the service within the project.
pub(super) const SERVICE: &str = "com.docker.compose.service";
/// Compose: the number within the service, from 1.
pub(super) const NUMBER: &str = "com.docker.compose.container-number";
/// Compose: `True` for the container of a `docker compose run`.
pub(super) const ONE_OFF: &str = "com.docker.compose.oneoff";
/// Compose: what the service was defined as. Its tools overlook containers without it.
pub(super) const CONFIG_HASH: &str = "com.docker.compose.config-hash";
/// Compose: on a container that is about to take the place of another one.
pub(super) const REPLACE: &str = "com.docker.compose.replace";

/// Every label of ours begins so.
pub(super) const OURS: &str = "swarm.";
/// Ours: the launch that made the container. One that has it was not made by hand.
pub(super) const LAUNCH: &str = "swarm.launch";
/// Ours: the worker's id, as in its environment.
pub(super) const WORKER: &str = "swarm.worker";
/// Ours: what it was made from. A container made in advance from something else is not started.
pub(super) const TEMPLATE: &str = "swarm.template";

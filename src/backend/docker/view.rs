//! A container as the engine lists it, reduced to what the scaler goes by. Pure.

use bollard::models::{ContainerSummary, ContainerSummaryStateEnum};

use super::labels;
use crate::model::{Timestamp, WorkerId};

/// How a container is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Made, never started.
    Created,
    /// Runs.
    Running(Health),
    /// Frozen by somebody.
    Paused,
    /// Ended, and the engine is about to start it again.
    Restarting,
    /// Ended, or beyond help.
    Ended,
    /// On its way out.
    Removing,
}

/// State of its health check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Health {
    /// There is none.
    Unchecked,
    /// It has not said anything yet.
    Starting,
    /// Good.
    Healthy,
    /// Bad.
    Unhealthy,
}

impl State {
    /// Whether there is a process in it, or about to be again.
    pub(super) fn is_alive(self) -> bool {
        matches!(self, Self::Running(_) | Self::Paused | Self::Restarting)
    }
}

/// One container of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    /// The engine's id.
    pub(super) id: String,
    /// Its name, without the slash.
    pub(super) name: String,
    /// Compose project.
    pub(super) project: String,
    /// Compose service.
    pub(super) service: String,
    /// Its number within the service.
    pub(super) number: Option<u32>,
    /// The launch that made it; none if somebody else did.
    pub(super) launch: Option<String>,
    /// The worker in it, if its labels say so.
    pub(super) worker: Option<WorkerId>,
    /// Fingerprint of the template that we created it from.
    pub(super) template: Option<String>,
    /// Whether that was settings, not another container.
    pub(super) from_settings: bool,
    /// How it is.
    pub(super) state: State,
    /// When it was made, by the engine's clock.
    pub(super) created_at: Timestamp,
}

impl Seen {
    /// `None` for what belongs to no service: containers of others, and those of `docker compose run`.
    pub(super) fn of(summary: &ContainerSummary) -> Option<Self> {
        let labels = summary.labels.as_ref()?;
        let label = |name: &str| labels.get(name).cloned();
        if label(labels::ONE_OFF).is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            return None;
        }
        let created = summary.created.and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or_default();
        Some(Self {
            id: summary.id.clone()?,
            name: summary.names.as_ref()?.iter().find_map(|name| own_name(name))?,
            project: label(labels::PROJECT)?,
            service: label(labels::SERVICE)?,
            number: label(labels::NUMBER).and_then(|number| number.parse().ok()),
            launch: label(labels::LAUNCH),
            worker: label(labels::WORKER).filter(|id| !id.is_empty()).map(WorkerId::new),
            template: label(labels::TEMPLATE),
            // What is built from settings has its template in place of Compose's hash.
            from_settings: label(labels::TEMPLATE).is_some() && label(labels::TEMPLATE) == label(labels::CONFIG_HASH),
            state: state(summary.state, summary.status.as_deref().unwrap_or_default()),
            created_at: Timestamp(created.saturating_mul(1_000)),
        })
    }
}

/// A container is also listed under the names that others link to it by, which have a second slash.
fn own_name(name: &str) -> Option<String> {
    let name = name.trim_start_matches('/');
    (!name.contains('/') && !name.is_empty()).then(|| name.to_owned())
}

fn state(state: Option<ContainerSummaryStateEnum>, status: &str) -> State {
    use ContainerSummaryStateEnum as Engine;
    match state {
        Some(Engine::CREATED) => State::Created,
        Some(Engine::RUNNING) => State::Running(health(status)),
        Some(Engine::PAUSED) => State::Paused,
        Some(Engine::RESTARTING) => State::Restarting,
        Some(Engine::REMOVING) => State::Removing,
        _ => State::Ended,
    }
}

/// Engines before API 1.52 tell the health in words only: `Up 5 seconds (healthy)`.
fn health(status: &str) -> Health {
    if status.ends_with("(healthy)") {
        Health::Healthy
    } else if status.ends_with("(unhealthy)") {
        Health::Unhealthy
    } else if status.ends_with("(health: starting)") {
        Health::Starting
    } else {
        Health::Unchecked
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn summary(state: ContainerSummaryStateEnum, status: &str, labels: &[(&str, &str)]) -> ContainerSummary {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        ContainerSummary {
            id: Some("abc".to_owned()),
            names: Some(vec!["/other/alias".to_owned(), "/shop-worker-1".to_owned()]),
            labels: Some(labels.collect::<HashMap<_, _>>()),
            created: Some(1_700_000_000),
            state: Some(state),
            status: Some(status.to_owned()),
            ..ContainerSummary::default()
        }
    }

    const COMPOSE: [(&str, &str); 3] = [(labels::PROJECT, "shop"), (labels::SERVICE, "worker"), (labels::NUMBER, "1")];

    #[test]
    fn states_are_told_apart() {
        use ContainerSummaryStateEnum as Engine;
        for (engine, status, expected) in [
            (Engine::CREATED, "Created", State::Created),
            (Engine::RUNNING, "Up 2 hours", State::Running(Health::Unchecked)),
            (Engine::RUNNING, "Up 2 hours (healthy)", State::Running(Health::Healthy)),
            (Engine::RUNNING, "Up 2 seconds (health: starting)", State::Running(Health::Starting)),
            (Engine::RUNNING, "Up 2 hours (unhealthy)", State::Running(Health::Unhealthy)),
            (Engine::PAUSED, "Up 2 hours (Paused)", State::Paused),
            (Engine::RESTARTING, "Restarting (1) 2 seconds ago", State::Restarting),
            (Engine::REMOVING, "Removal In Progress", State::Removing),
            (Engine::EXITED, "Exited (0) 2 hours ago", State::Ended),
            (Engine::DEAD, "Dead", State::Ended),
        ] {
            let seen = Seen::of(&summary(engine, status, &COMPOSE)).expect("it has all labels");
            assert_eq!(seen.state, expected, "{status}");
            assert_eq!((seen.name.as_str(), seen.number, seen.launch), ("shop-worker-1", Some(1), None));
            assert_eq!(seen.created_at, Timestamp(1_700_000_000_000));
        }
    }

    #[test]
    fn what_belongs_to_no_service_is_left_alone() {
        let running = |labels: &[(&str, &str)]| Seen::of(&summary(ContainerSummaryStateEnum::RUNNING, "Up", labels));
        assert_eq!(running(&COMPOSE[..1]), None);
        let one_off = [COMPOSE.as_slice(), &[(labels::ONE_OFF, "True")]].concat();
        assert_eq!(running(&one_off), None);
        let replica = [COMPOSE.as_slice(), &[(labels::ONE_OFF, "False")]].concat();
        assert!(running(&replica).is_some());
    }
}

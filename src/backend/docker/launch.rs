//! Starts one worker: makes its container, or takes one that lies ready, and starts it. Never makes two for one launch:
//! where an answer is missing, it looks for the launch's label before anything else.

use std::sync::Arc;

use bollard::models::ContainerCreateBody;
use tracing::info;

use super::{
    DockerShared, TypePool,
    container_template::{ContainerTemplate, Identity, variable},
    credentials::Login,
    drain::Leaving,
    error::EngineError,
    labels,
    view::{Seen, State},
    worker_registry::Ticket,
};
use crate::{
    backend::{BackendError, ErrorKind},
    config::{DockerSettings, PullPolicy, WORKER_SETTINGS},
    model::WorkerId,
};

/// Names tried for one worker. Each one taken means that somebody else made a container meanwhile.
const NAMES: usize = 5;

/// One start.
pub(super) struct Launch {
    pub(super) shared: Arc<DockerShared>,
    pub(super) pool: Arc<TypePool>,
    pub(super) template: Arc<ContainerTemplate>,
}

/// Why a worker could not be started.
enum Failure {
    Engine(EngineError),
    /// No free name.
    Crowded(EngineError),
    /// The image can't be fetched.
    Pull {
        login: Login,
        error: EngineError,
    },
    /// The credentials for its registry can't be read.
    Login(BackendError),
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        Self::Engine(error)
    }
}

impl Launch {
    /// Starts the worker of a ticket; takes it out of the registry if that fails.
    pub(super) async fn run(self, mut ticket: Ticket) -> Result<WorkerId, BackendError> {
        let outcome = match self.container(&mut ticket).await {
            Ok(container) => self.start(&ticket, container).await.map_err(Failure::from),
            Err(failure) => Err(failure),
        };
        match outcome {
            Ok(container) => {
                if self.pool.registry.started(&ticket, &container) {
                    let (id, within) = (ticket.identity.worker.clone(), self.pool.spec().drain_timeout);
                    self.shared.drain(&self.pool, Leaving { id, container, within });
                }
                Ok(ticket.identity.worker)
            }
            Err(failure) => {
                self.pool.registry.cancel(&ticket);
                Err(self.explain(failure))
            }
        }
    }

    /// Makes a container in advance.
    pub(super) async fn make_spare(self, mut ticket: Ticket) {
        let made = self.container(&mut ticket).await;
        let container = made.as_ref().ok().map(|container| (container.clone(), &*self.template));
        let wanted = self.pool.registry.made(&ticket, container, self.shared.clock.now());
        match made {
            Ok(container) if !wanted => self.discard(&container).await,
            Ok(_) => {}
            Err(failure) => {
                let worker_type = &self.pool.worker_type;
                info!(%worker_type, "no container was made in advance: {}", self.explain(failure).message);
            }
        }
    }

    async fn container(&self, ticket: &mut Ticket) -> Result<String, Failure> {
        if let Some(container) = &ticket.spare {
            return Ok(container.clone());
        }
        let mut pulled = self.pool.spec().settings.pull == PullPolicy::Never;
        let mut names = 1;
        loop {
            match self.create(&ticket.identity).await {
                Ok(container) => return Ok(container),
                Err(error) if is_missing_image(&error) && !pulled => {
                    pulled = true;
                    self.pull().await?;
                }
                Err(error) if error.is_conflict() && names < NAMES => {
                    names += 1;
                    *ticket = self.pool.registry.rename(ticket, &self.template, self.pool.owner());
                }
                Err(error) if error.is_conflict() => return Err(Failure::Crowded(error)),
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn pull(&self) -> Result<(), Failure> {
        let image = self.template.image();
        let file = self.pool.spec().settings.registry_auth_file.clone();
        let login = Login::of(image, file).await.map_err(Failure::Login)?;
        let pulled = self.shared.engine.pull(image, login.credentials()).await;
        pulled.map_err(|error| Failure::Pull { login, error })
    }

    /// Makes a container and joins its networks.
    async fn create(&self, identity: &Identity) -> Result<String, EngineError> {
        let engine = &self.shared.engine;
        let spec = self.pool.spec();
        let redis_url = spec.redis_url.resolve(&self.shared.redis_url);
        let mut body = self.template.body(&self.pool.worker_type, identity, redis_url);
        hand_over(&self.pool.spec().settings, &mut body);
        let container = match engine.create(&identity.name, body).await {
            Err(error) if error.is_ambiguous() => match self.find(identity).await? {
                Some((container, _)) => container,
                None => return Err(error),
            },
            outcome => outcome?,
        };
        for (network, endpoint) in self.template.further_networks(identity) {
            if let Err(error) = engine.join(&container, network, endpoint).await {
                self.discard(&container).await;
                return Err(error);
            }
        }
        Ok(container)
    }

    /// Starts a container, or finds that it runs all the same.
    async fn start(&self, ticket: &Ticket, container: String) -> Result<String, EngineError> {
        let Err(error) = self.shared.engine.start(&container).await else { return Ok(container) };
        if !error.is_ambiguous() {
            // It would refuse again: what lies ready must be good.
            self.discard(&container).await;
            return Err(error);
        }
        match self.find(&ticket.identity).await? {
            Some((container, state)) if state.is_alive() => Ok(container),
            _ => Err(error),
        }
    }

    /// The container of a launch, if there is one.
    async fn find(&self, identity: &Identity) -> Result<Option<(String, State)>, EngineError> {
        self.pool.unsure();
        let found = self.shared.engine.list(&[format!("{}={}", labels::LAUNCH, identity.launch)]).await?;
        Ok(found.iter().find_map(Seen::of).map(|seen| (seen.id, seen.state)))
    }

    /// Removes a container that can't be started. If that fails, housekeeping removes it later.
    async fn discard(&self, container: &str) {
        if let Err(error) = self.shared.engine.remove(container, true).await {
            info!(container, "a container that can't be started is not removed yet: {error}");
        }
        self.pool.registry.forget(container);
    }

    /// In words that name the cure.
    fn explain(&self, failure: Failure) -> BackendError {
        let ContainerTemplate { origin, hardened, .. } = &*self.template;
        let (worker_type, service) = (&self.pool.worker_type, &self.pool.service);
        let (kind, message) = match &failure {
            Failure::Crowded(error) => {
                let cure = "remove containers of these names that don't belong to the project";
                (ErrorKind::Retryable, format!("no free container name for `{worker_type}`: {error}; {cure}"))
            }
            Failure::Engine(error) if is_missing_image(error) => {
                let image = self.template.image();
                let message = format!(
                    "image `{image}` of worker type `{worker_type}` (from {origin}) is not on the engine; build it \
                     (`docker compose build {service}`), pull it (`docker pull {image}`), or set \
                     `worker_types.{worker_type}.docker.pull = \"missing\"`"
                );
                (ErrorKind::Permanent, message)
            }
            Failure::Pull { login, error } => {
                let (image, cure) = (self.template.image(), login.cure(error, worker_type));
                let kind = if cure.is_some() { ErrorKind::Permanent } else { error.kind() };
                let cure =
                    cure.unwrap_or_else(|| format!("check {origin}, and whether the engine reaches the registry"));
                (kind, format!("image `{image}` of worker type `{worker_type}` can't be pulled: {error}; {cure}"))
            }
            Failure::Login(error) => {
                let image = self.template.image();
                (
                    error.kind,
                    format!("image `{image}` of worker type `{worker_type}` can't be pulled: {}", error.message),
                )
            }
            // Whoever made the network may be about to make it again: this is tried again soon.
            Failure::Engine(error @ EngineError::Refused { status: 404, .. }) => {
                let cure = format!("make it again (`docker compose up -d`) or change {origin}");
                (ErrorKind::Retryable, format!("a worker of `{worker_type}` misses something: {error}; {cure}"))
            }
            Failure::Engine(error @ EngineError::Refused { status: 403, .. }) => {
                let cure = "if a socket proxy is between them, let it pass what docs/docker.md lists";
                (ErrorKind::Permanent, format!("a worker of `{worker_type}` can't be started: {error}; {cure}"))
            }
            Failure::Engine(error @ EngineError::Refused { .. }) => {
                let cure = if *hardened && is_about_rights(error) {
                    format!(
                        "swarm starts it without capabilities, new privileges and unlimited processes; if its image needs \
                         them, set `worker_types.{worker_type}.docker.hardened = false`"
                    )
                } else {
                    format!("check {origin}")
                };
                (error.kind(), format!("a worker of `{worker_type}` can't be started: {error}; {cure}"))
            }
            Failure::Engine(error) => (error.kind(), format!("a worker of `{worker_type}` can't be started: {error}")),
        };
        let told = BackendError::new(kind, message);
        match failure {
            Failure::Crowded(error) | Failure::Engine(error) | Failure::Pull { error, .. } => told.caused_by(error),
            Failure::Login(error) => told.caused_by(error),
        }
    }
}

/// Gives a copy of a Compose service the settings of the autoscaler too; a container from settings has them already.
fn hand_over(settings: &DockerSettings, body: &mut ContainerCreateBody) {
    let environment = body.env.get_or_insert_default();
    if let Some(handed) = settings.environment.get(WORKER_SETTINGS)
        && !environment.iter().any(|entry| variable(entry) == WORKER_SETTINGS)
    {
        environment.push(format!("{WORKER_SETTINGS}={handed}"));
    }
}

/// Whether the engine may have refused a start for what hardening takes away.
fn is_about_rights(error: &EngineError) -> bool {
    const WORDS: [&str; 6] = ["permission denied", "not permitted", "capabilit", "privilege", "pids", "cgroup"];
    let EngineError::Refused { message, .. } = error else { return false };
    let message = message.to_lowercase();
    WORDS.iter().any(|word| message.contains(word))
}

fn is_missing_image(error: &EngineError) -> bool {
    matches!(error, EngineError::Refused { status: 404, message, .. } if message.to_lowercase().contains("no such image"))
}

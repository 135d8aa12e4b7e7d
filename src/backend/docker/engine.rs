//! The calls that the backend makes to an engine, each with a time limit and errors in our words. Knows nothing of
//! worker types; retries nothing.

use std::{collections::HashMap, future::Future, sync::Mutex, sync::PoisonError, time::Duration};

use bollard::{
    API_DEFAULT_VERSION, Docker,
    auth::DockerCredentials,
    models::{
        ContainerCreateBody, ContainerInspectResponse, ContainerSummary, EndpointSettings, EventMessage,
        NetworkConnectRequest,
    },
    query_parameters::{
        CreateContainerOptions, CreateImageOptions, EventsOptions, KillContainerOptions, ListContainersOptions,
        RemoveContainerOptions,
    },
};
use futures_util::{Stream, StreamExt, TryStreamExt};
use tokio::time::timeout;

use super::{endpoint::Endpoint, error::EngineError, labels};
use crate::backend::leader_guard::LeaderGuard;

/// Seconds after which the client itself would give up on an answer: longer than any limit of ours, which are in force.
const NEVER: u64 = 365 * 24 * 60 * 60;

/// How long calls may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Questions and removals: milliseconds on an engine that is well.
    pub call: Duration,
    /// Making or starting one container: below a second, and many times that while the engine starts several.
    pub launch: Duration,
    /// Fetching an image.
    pub pull: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { call: Duration::from_secs(10), launch: Duration::from_secs(30), pull: Duration::from_secs(600) }
    }
}

/// One engine.
#[derive(Debug)]
pub(super) struct Engine {
    endpoint: Endpoint,
    limits: Limits,
    /// Made with the first call: at the start the engine's socket may not be there yet.
    client: Mutex<Option<Docker>>,
    pub(super) leader_guard: LeaderGuard,
}

impl Engine {
    pub(super) fn new(endpoint: Endpoint, limits: Limits) -> Self {
        Self { endpoint, limits, client: Mutex::default(), leader_guard: LeaderGuard::default() }
    }

    fn client(&self) -> Result<Docker, EngineError> {
        let mut client = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = &*client {
            return Ok(client.clone());
        }
        Ok(client.insert(connect(&self.endpoint)?).clone())
    }

    /// As [`call`](Self::call), for what makes workers: of many that were asked for, the last are made much later. Whom
    /// to let go the engine is told at once.
    async fn make<T, F: Future<Output = Result<T, bollard::errors::Error>>>(
        &self,
        call: &'static str,
        limit: Duration,
        make: impl FnOnce(Docker) -> F,
    ) -> Result<T, EngineError> {
        if !self.leader_guard.holds() {
            return Err(EngineError::NotLeading);
        }
        self.call(call, limit, make).await
    }

    async fn call<T, F: Future<Output = Result<T, bollard::errors::Error>>>(
        &self,
        call: &'static str,
        limit: Duration,
        make: impl FnOnce(Docker) -> F,
    ) -> Result<T, EngineError> {
        let answer = timeout(limit, make(self.client()?)).await;
        let timed_out = |_| EngineError::TimedOut { engine: self.endpoint.to_string(), call, after: limit };
        answer.map_err(timed_out)?.map_err(|error| EngineError::of(error, call, &self.endpoint))
    }

    /// Asks for its version and speaks no newer one from then on. Says it for people.
    pub(super) async fn negotiate(&self) -> Result<String, EngineError> {
        let limit = self.limits.call;
        let client = self.call("version", limit, async |client| client.negotiate_version().await).await?;
        Ok(format!("{} with API {}", self.endpoint, client.client_version()))
    }

    /// All containers, stopped ones too, that have these labels (`name=value`).
    pub(super) async fn list(&self, having: &[String]) -> Result<Vec<ContainerSummary>, EngineError> {
        let filters = Some(HashMap::from([("label".to_owned(), having.to_vec())]));
        let options = ListContainersOptions { all: true, filters, ..ListContainersOptions::default() };
        self.call("list", self.limits.call, async |client| client.list_containers(Some(options)).await).await
    }

    pub(super) async fn inspect(&self, container: &str) -> Result<ContainerInspectResponse, EngineError> {
        self.call("inspect", self.limits.call, async |client| client.inspect_container(container, None).await).await
    }

    /// Makes a container; says its id.
    pub(super) async fn create(&self, name: &str, body: ContainerCreateBody) -> Result<String, EngineError> {
        let options = CreateContainerOptions { name: Some(name.to_owned()), ..CreateContainerOptions::default() };
        let make = async |client: Docker| client.create_container(Some(options), body).await;
        self.make("create", self.limits.launch, make).await.map(|made| made.id)
    }

    pub(super) async fn join(
        &self,
        container: &str,
        network: &str,
        settings: EndpointSettings,
    ) -> Result<(), EngineError> {
        let request = NetworkConnectRequest { container: container.to_owned(), endpoint_config: Some(settings) };
        self.call("network connect", self.limits.call, async |client| client.connect_network(network, request).await)
            .await
    }

    /// Starts a container; one that runs already is left as it is.
    pub(super) async fn start(&self, container: &str) -> Result<(), EngineError> {
        self.make("start", self.limits.launch, async |client| client.start_container(container, None).await).await
    }

    /// Sends a signal. With the container's own stop signal, and with SIGKILL, the engine does not restart it
    /// afterwards.
    pub(super) async fn kill(&self, container: &str, signal: &str) -> Result<(), EngineError> {
        let options = KillContainerOptions { signal: signal.to_owned() };
        self.call("kill", self.limits.call, async |client| client.kill_container(container, Some(options)).await).await
    }

    /// Removes a container with its anonymous volumes. `force`: even if it runs.
    pub(super) async fn remove(&self, container: &str, force: bool) -> Result<(), EngineError> {
        let options = RemoveContainerOptions { v: true, force, link: false };
        let call = async |client: Docker| client.remove_container(container, Some(options)).await;
        self.call("remove", self.limits.launch, call).await
    }

    /// Whether it has an image.
    pub(super) async fn has_image(&self, image: &str) -> Result<bool, EngineError> {
        let look = async |client: Docker| client.inspect_image(image).await;
        found(self.call("image inspect", self.limits.call, look).await.map(drop))
    }

    /// Whether it has a network.
    pub(super) async fn has_network(&self, network: &str) -> Result<bool, EngineError> {
        let look = async |client: Docker| client.inspect_network(network, None).await;
        found(self.call("network inspect", self.limits.call, look).await.map(drop))
    }

    /// Fetches an image.
    pub(super) async fn pull(&self, image: &str, credentials: Option<DockerCredentials>) -> Result<(), EngineError> {
        let options = CreateImageOptions { from_image: Some(with_tag(image)), ..CreateImageOptions::default() };
        let pull = async |client: Docker| {
            client.create_image(Some(options), None, credentials).try_for_each(async |_| Ok(())).await
        };
        self.call("pull", self.limits.pull, pull).await
    }

    /// Streams container events from `since` on (seconds and nanoseconds of the engine's clock).
    pub(super) fn events(
        &self,
        since: &str,
    ) -> Result<impl Stream<Item = Result<EventMessage, EngineError>> + Send + Unpin + use<>, EngineError> {
        let filters = HashMap::from([
            ("type".to_owned(), vec!["container".to_owned()]),
            ("label".to_owned(), vec![labels::SERVICE.to_owned()]),
        ]);
        let options =
            EventsOptions { since: Some(since.to_owned()), filters: Some(filters), ..EventsOptions::default() };
        let endpoint = self.endpoint.clone();
        let events = self.client()?.events(Some(options));
        Ok(events.map(move |event| event.map_err(|error| EngineError::of(error, "events", &endpoint))).boxed())
    }
}

/// A missing object is not an error.
fn found(looked: Result<(), EngineError>) -> Result<bool, EngineError> {
    match looked {
        Ok(()) => Ok(true),
        Err(error) if error.is_not_found() => Ok(false),
        Err(error) => Err(error),
    }
}

/// Without a tag, the engine would fetch all there are.
fn with_tag(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    if last.contains([':', '@']) { image.to_owned() } else { format!("{image}:latest") }
}

/// Makes a client of the engine at `endpoint`, which opens a connection for each call.
fn connect(endpoint: &Endpoint) -> Result<Docker, EngineError> {
    let client = match endpoint {
        Endpoint::Unix(path) => Docker::connect_with_unix(&path.to_string_lossy(), NEVER, API_DEFAULT_VERSION),
        Endpoint::Tcp(address) => Docker::connect_with_http(address, NEVER, API_DEFAULT_VERSION),
        Endpoint::Tls(address, certificates) => {
            // Chosen once for the whole process; a provider chosen before stays.
            let _ = rustls::crypto::ring::default_provider().install_default();
            let [key, cert, ca] = ["key.pem", "cert.pem", "ca.pem"].map(|file| certificates.join(file));
            Docker::connect_with_ssl(address, &key, &cert, &ca, NEVER, API_DEFAULT_VERSION)
        }
    };
    client.map_err(|error| EngineError::of(error, "connect", endpoint))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_without_a_tag_is_the_latest() {
        assert_eq!(with_tag("registry:5000/browser"), "registry:5000/browser:latest");
        assert_eq!(with_tag("browser:1.2"), "browser:1.2");
        assert_eq!(with_tag("browser@sha256:00"), "browser@sha256:00");
    }
}

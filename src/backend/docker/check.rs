//! Whether the backend could do its work with the engine: reach it, list, make containers, and from what. Changes
//! nothing, and watches nothing: the backend itself is not started.

use std::collections::BTreeMap;

use bollard::models::{ContainerCreateBody, ContainerSummary};
use secrecy::SecretString;

use super::{
    DockerSpec, Surroundings, TypePool, container_template::ContainerTemplate, engine::Engine, error::EngineError,
    labels, self_container::SelfContainer, view::Seen,
};
use crate::{
    backend::{BackendError, Check},
    config::PullPolicy,
    model::WorkerType,
};

/// An image that can't exist: its name would have to be its own checksum.
const NO_IMAGE: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";

/// Statuses that mean a missing right.
const REFUSED: [u16; 3] = [401, 403, 405];

/// Tries what the backend does with each of its worker types.
pub async fn check(types: &BTreeMap<WorkerType, DockerSpec>, surroundings: &Surroundings) -> Vec<Check> {
    let engine = Engine::new(surroundings.endpoint.clone(), surroundings.limits);
    let reached = engine.negotiate().await.map_err(EngineError::into_backend);
    let mut checks = vec![Check::new("docker engine", reached)];
    if !checks[0].is_fine() {
        return checks;
    }
    let self_container = SelfContainer::find(&engine, surroundings.project.as_deref()).await;
    let self_container = match self_container {
        Ok(self_container) => self_container,
        Err(error) => {
            checks.push(Check::new("docker: the autoscaler's own container", Err(error.into_backend())));
            return checks;
        }
    };
    checks.push(may_make(&engine).await);
    let mut listed = BTreeMap::new();
    for (worker_type, spec) in types {
        if let Err(error) = ContainerTemplate::check(worker_type, spec) {
            checks.push(Check::new(format!("worker type `{worker_type}`: settings"), Err(error)));
            continue;
        }
        let pool = TypePool::new(worker_type.clone(), spec.clone());
        pool.settle(&self_container);
        let project = pool.owner().project.to_owned();
        if !listed.contains_key(&project) {
            let containers = engine.list(&[format!("{}={project}", labels::PROJECT)]).await;
            let told = containers.as_ref().map(|all| format!("{} containers", all.len()));
            let told = told.map_err(|error| error.clone().into_backend());
            checks.push(Check::new(format!("docker: list the containers of project `{project}`"), told));
            listed.insert(project.clone(), containers.unwrap_or_default());
        }
        checks.extend(can_start(&engine, &pool, &listed[&project], &surroundings.redis_url).await);
    }
    checks
}

/// Asks for a container of an image that can't exist: the engine refuses for that, a proxy in front of it for the
/// right.
async fn may_make(engine: &Engine) -> Check {
    let what = "docker: make containers";
    let body = ContainerCreateBody { image: Some(NO_IMAGE.to_owned()), ..ContainerCreateBody::default() };
    match engine.create("swarm-doctor", body).await {
        Err(EngineError::Refused { status, .. }) if !REFUSED.contains(&status) => {
            Check::new(what, Ok("allowed".to_owned()))
        }
        Err(error) => Check::new(what, Err(error.into_backend())),
        Ok(container) => {
            let removed = engine.remove(&container, true).await;
            let told =
                removed.map_or_else(|error| format!("it is left behind: {error}"), |()| "it was removed".to_owned());
            Check::doubtful(what, format!("the engine made a container of an image that can't exist; {told}"))
        }
    }
}

/// Checks what its containers would be created from.
async fn can_start(
    engine: &Engine,
    pool: &TypePool,
    listed: &[ContainerSummary],
    redis_url: &SecretString,
) -> Vec<Check> {
    let what = format!("worker type `{}`: service `{}`", pool.worker_type, pool.owner().service);
    let seen = listed.iter().filter_map(Seen::of);
    let example = seen.filter(|seen| seen.service == pool.owner().service && !seen.from_settings).count();
    if example > 0 {
        return vec![Check::new(what, Ok("new workers are copies of the container that it has".to_owned()))];
    }
    let spec = pool.spec();
    let settings = &spec.settings;
    let Some(image) = &settings.image else { return vec![Check::new(what, Err(pool.no_template()))] };
    let mut checks = vec![has_image(engine, what, image, settings.pull).await];
    if pool.template().is_some_and(|template| template.misses_redis(spec.redis_url.resolve(redis_url))) {
        let what = format!("worker type `{}`: redis", pool.worker_type);
        checks.push(Check::new(what, Err(super::no_redis(&pool.worker_type))));
    }
    for network in &settings.networks {
        checks.push(has_network(engine, pool, network).await);
    }
    checks
}

async fn has_image(engine: &Engine, what: String, image: &str, pull: PullPolicy) -> Check {
    match engine.has_image(image).await {
        Ok(true) => Check::new(what, Ok(format!("image `{image}` is there"))),
        Ok(false) if pull == PullPolicy::Missing => {
            Check::new(what, Ok(format!("image `{image}` is not there yet, and is pulled when it is needed")))
        }
        Ok(false) => {
            let cure = format!("no image `{image}`; build or pull it, or set `docker.pull = \"missing\"`");
            Check::new(what, Err(BackendError::permanent(cure)))
        }
        Err(error) => unknown(what, "image", error),
    }
}

async fn has_network(engine: &Engine, pool: &TypePool, network: &str) -> Check {
    let what = format!("worker type `{}`: network `{network}`", pool.worker_type);
    match engine.has_network(network).await {
        Ok(true) => Check::new(what, Ok("is there".to_owned())),
        Ok(false) => {
            let cure =
                format!("no network `{network}`; start the stack that makes it, or `docker network create {network}`");
            Check::new(what, Err(BackendError::permanent(cure)))
        }
        Err(error) => unknown(what, "network", error),
    }
}

/// A socket proxy lets through only what the backend itself asks, and looking at images is not among that.
fn unknown(what: String, thing: &str, error: EngineError) -> Check {
    match error {
        EngineError::Refused { status, .. } if REFUSED.contains(&status) => {
            Check::new(what, Ok(format!("not looked at: a proxy in front of the engine does not show its {thing}s")))
        }
        error => Check::new(what, Err(error.into_backend())),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::{Json, Router, http::StatusCode, routing::get};
    use serde_json::json;
    use tokio::net::TcpListener;

    use super::*;
    use crate::{
        backend::{
            CheckOutcome,
            docker::{Endpoint, Limits},
        },
        config::{DockerSettings, WorkerTypeSettings},
    };

    /// Answers as an engine with one image and no container does; `read_only` as a proxy that lets nobody make one.
    async fn engine(read_only: bool) -> String {
        let refusal = |code: StatusCode| (code, Json(json!({ "message": "no" })));
        let made = if read_only { StatusCode::FORBIDDEN } else { StatusCode::NOT_FOUND };
        let routes = Router::new()
            .route("/version", get(async || Json(json!({ "ApiVersion": "1.41", "MinAPIVersion": "1.12" }))))
            .route("/containers/json", get(async || Json(json!([]))))
            .route("/containers/create", axum::routing::post(async move || refusal(made)))
            .route("/images/here/json", get(async || Json(json!({ "Id": "sha256:1" }))))
            .fallback(async move |uri: axum::http::Uri| {
                (StatusCode::NOT_FOUND, Json(json!({ "message": format!("there is no {uri}") })))
            });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move { axum::serve(listener, routes).await });
        address
    }

    async fn checks(endpoint: Endpoint, settings: DockerSettings) -> Vec<CheckOutcome> {
        checks_with(endpoint, settings, "redis://redis").await
    }

    async fn checks_with(endpoint: Endpoint, settings: DockerSettings, redis_url: &str) -> Vec<CheckOutcome> {
        let spec = DockerSpec { settings, ..DockerSpec::from_settings("test", &WorkerTypeSettings::default()) };
        let surroundings = Surroundings {
            endpoint,
            limits: Limits { call: Duration::from_secs(20), ..Limits::default() },
            redis_url: redis_url.into(),
            project: Some("shop".to_owned()),
            sweep_interval: Duration::from_secs(60),
        };
        let types = BTreeMap::from([(WorkerType::new("test"), spec)]);
        check(&types, &surroundings).await.into_iter().map(|check| check.outcome).collect()
    }

    fn wrong(outcome: &CheckOutcome, part: &str) -> bool {
        matches!(outcome, CheckOutcome::Wrong(told) if told.contains(part))
    }

    #[tokio::test]
    async fn what_an_engine_has_and_lets_do_is_told() {
        let image = |image: &str| DockerSettings { image: Some(image.to_owned()), ..DockerSettings::default() };
        let found = checks(Endpoint::Tcp(engine(false).await), image("here")).await;
        assert!(found.iter().all(|outcome| matches!(outcome, CheckOutcome::Fine(_))), "{found:?}");

        let lost = DockerSettings { networks: vec!["back".to_owned()], ..image("lost") };
        let found = checks(Endpoint::Tcp(engine(false).await), lost).await;
        assert!(wrong(&found[3], "no image `lost`") && wrong(&found[4], "no network `back`"), "{found:?}");

        let found = checks_with(Endpoint::Tcp(engine(false).await), image("here"), "redis://u:p@127.0.0.1:6379").await;
        assert!(wrong(&found[4], "set `worker_redis_url`"), "{found:?}");

        let found = checks(Endpoint::Tcp(engine(true).await), DockerSettings::default()).await;
        assert!(wrong(&found[1], "refused `create`") && wrong(&found[3], "docker compose -p shop up"), "{found:?}");
    }

    #[tokio::test]
    async fn without_an_engine_there_is_one_cause() {
        let found = checks(Endpoint::Unix("/not/there.sock".into()), DockerSettings::default()).await;
        assert!(found.len() == 1 && wrong(&found[0], "start the engine"), "{found:?}");
    }
}

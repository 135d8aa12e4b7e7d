//! Lets one container go: sends its stop signal, gives it its time, kills it, removes it. Nothing of that hangs on a
//! connection: engines 23 and 24 kill a container at once when the client of their `stop` goes away, and an engine that
//! restarts forgets it. A second SIGTERM tells a worker to leave at once, so where it is not known whether the first
//! one arrived, none is sent again, except to a worker that is idle ([`ask_again`]).

use std::{sync::Arc, time::Duration};

use bollard::models::ContainerInspectResponse;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use super::{DockerShared, TypePool, engine::Engine, error::EngineError};
use crate::model::{AFTER_QUIET, QuietSignal, StopSignal, WorkerId};

/// Between two looks at a container: from the first to the longest. Workers without a job leave within milliseconds.
const LOOKS: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(1)];

/// A container that is let go.
pub(super) struct Leaving {
    pub(super) id: WorkerId,
    pub(super) container: String,
    /// Its drain timeout.
    pub(super) within: Duration,
}

/// Drains a container. Ends when it has stopped.
pub(super) async fn drain(shared: Arc<DockerShared>, pool: Arc<TypePool>, leaving: Leaving) {
    let Leaving { id, container, within } = leaving;
    let (engine, stop, begun_at) = (&shared.engine, pool.spec().stop, Instant::now());
    let kill_at = stop.kill_after(within).map(|time| begun_at + time);
    let (mut runs, mut deadline) = (true, begun_at + within);
    if let Some(signal) = stop.quiet {
        let done = shared.quiet.until_done(&pool.worker_type, &id, within);
        runs = quieten(engine, &container, signal, deadline, done).await;
        deadline = Instant::now() + AFTER_QUIET;
    }
    if runs && ask(engine, &container, stop.signal, deadline).await {
        wait_or_kill(engine, &container, kill_at).await;
    }
    remove(&shared, &pool, &container).await;
    (shared.on_change)(&pool.worker_type);
}

/// Lets a container take no more jobs, and waits until it has none: `done`, which also ends when its time is over.
/// `false` if the container does not run.
async fn quieten(
    engine: &Engine,
    container: &str,
    signal: QuietSignal,
    deadline: Instant,
    done: impl Future<Output = bool>,
) -> bool {
    if !until_sent(engine, container, Step::Quiet(signal), deadline).await {
        return false;
    }
    if !done.await {
        warn!(container, "it has not said that its jobs are done within its drain timeout");
    }
    // A program that was suspended by the signal gets no other one before it goes on.
    let _ = send(engine, container, "SIGCONT").await;
    true
}

/// Sends the stop signal of a container once more. An error is worth no repetition: who ordered it orders it again.
pub(super) async fn ask_again(engine: &Engine, container: &str, default: StopSignal) {
    if let Err(error) = send_stop_signal(engine, container, default).await {
        warn!(container, "it can't be asked to stop again: {error}");
    }
}

/// Sends the container's stop signal, or `default` if it names none, once. `false` if it does not run.
async fn ask(engine: &Engine, container: &str, default: StopSignal, deadline: Instant) -> bool {
    until_sent(engine, container, Step::Stop(default), deadline).await
}

/// What a container is asked for.
#[derive(Clone, Copy)]
enum Step {
    /// To take no more jobs.
    Quiet(QuietSignal),
    /// To stop, by this signal if it names none itself.
    Stop(StopSignal),
}

/// Sends the signal of a step, once. `false` if the container does not run.
async fn until_sent(engine: &Engine, container: &str, step: Step, deadline: Instant) -> bool {
    let mut refused = false;
    while Instant::now() < deadline {
        let sent = match step {
            Step::Quiet(signal) => send(engine, container, &format!("SIG{}", signal.as_str())).await,
            Step::Stop(default) => send_stop_signal(engine, container, default).await,
        };
        match sent {
            Ok(runs) => return runs,
            Err(error) if error.is_ambiguous() => {
                info!(container, "watching whether it stops: {error}");
                return true;
            }
            Err(error) => {
                if !std::mem::replace(&mut refused, true) {
                    warn!(container, "it can't be asked to stop yet: {error}");
                }
            }
        }
        sleep(LOOKS[1]).await;
    }
    true
}

/// Whether it was running. An ambiguous error is about the signal: a look that fails is worth another one.
async fn send_stop_signal(engine: &Engine, container: &str, default: StopSignal) -> Result<bool, EngineError> {
    let found = match engine.inspect(container).await {
        Ok(found) if !is_running(&found) => return Ok(false),
        Ok(found) => found,
        Err(error) if error.is_not_found() => return Ok(false),
        Err(error) => return Err(error.unsent()),
    };
    let signal = found.config.and_then(|config| config.stop_signal).filter(|signal| !signal.is_empty());
    let signal = signal.unwrap_or_else(|| format!("SIG{}", default.as_str()));
    send(engine, container, &signal).await
}

/// Sends a signal. Whether the container was running.
async fn send(engine: &Engine, container: &str, signal: &str) -> Result<bool, EngineError> {
    match engine.kill(container, signal).await {
        Ok(()) => Ok(true),
        Err(error) if error.is_not_found() => Ok(false),
        // It has ended meanwhile, or is about to.
        Err(error) if error.is_conflict() => Ok(true),
        Err(error) => Err(error),
    }
}

fn is_running(found: &ContainerInspectResponse) -> bool {
    found.state.as_ref().and_then(|state| state.running).unwrap_or_default()
}

/// Waits until the container has stopped. Kills it at the deadline, if there is one.
async fn wait_or_kill(engine: &Engine, container: &str, deadline: Option<Instant>) {
    let [mut pause, longest] = LOOKS;
    loop {
        match engine.inspect(container).await {
            Ok(found) if !is_running(&found) => return,
            Err(error) if error.is_not_found() => return,
            Ok(_) if deadline.is_some_and(|deadline| Instant::now() >= deadline) => {
                match engine.kill(container, "SIGKILL").await {
                    Ok(()) => {}
                    Err(error) => info!(container, "not killed yet: {error}"),
                }
            }
            Ok(_) | Err(_) => {}
        }
        let left = deadline.map_or(longest, |deadline| deadline.saturating_duration_since(Instant::now()));
        sleep(pause.min(left.max(LOOKS[0]))).await;
        pause = (pause * 2).min(longest);
    }
}

/// Removes a stopped container, unless the next one has to be made after its example.
async fn remove(shared: &DockerShared, pool: &TypePool, container: &str) {
    if pool.keeps_last() && pool.registry.is_last(container) {
        pool.registry.rest(container, shared.clock.now());
        return;
    }
    match shared.engine.remove(container, true).await {
        Ok(()) | Err(EngineError::Refused { status: 404 | 409, .. }) => {}
        // It is found among those that ended, and removed later.
        Err(error) => {
            warn!(%pool.worker_type, container, "a container that was let go is not removed yet: {error}");
            pool.registry.rest(container, shared.clock.now());
            return;
        }
    }
    pool.registry.forget(container);
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use axum::{
        Json, Router,
        body::{Body, Bytes},
        extract::{Query, State},
        http::StatusCode,
        response::{IntoResponse, Response},
        routing::{get, post},
    };
    use serde_json::json;
    use tokio::net::TcpListener;

    use super::*;
    use crate::backend::docker::{Endpoint, Limits};

    /// One container, and an engine that kills it when the client of a `stop` goes away.
    #[derive(Default)]
    struct World {
        running: bool,
        signal: Option<&'static str>,
        /// The worker leaves at its signal.
        obeys: bool,
        /// Answers to that many signals break off halfway.
        cut: usize,
        /// That many signals are refused.
        refused: usize,
        signals: Vec<String>,
    }

    type Shared = Arc<Mutex<World>>;

    #[derive(serde::Deserialize)]
    struct Signal {
        signal: String,
    }

    async fn kill(State(world): State<Shared>, Query(Signal { signal }): Query<Signal>) -> Response {
        let mut world = world.lock().unwrap();
        if world.refused > 0 {
            world.refused -= 1;
            return (StatusCode::INTERNAL_SERVER_ERROR, Json(json!({ "message": "busy" }))).into_response();
        }
        if signal == "SIGKILL" || world.obeys {
            world.running = false;
        }
        world.signals.push(signal);
        if world.cut > 0 {
            world.cut -= 1;
            let broken = [Ok(Bytes::from_static(b"{")), Err(std::io::Error::other("cut"))];
            let body = Body::from_stream(futures_util::stream::iter(broken));
            return (StatusCode::INTERNAL_SERVER_ERROR, body).into_response();
        }
        StatusCode::NO_CONTENT.into_response()
    }

    async fn inspect(State(world): State<Shared>) -> Response {
        let world = world.lock().unwrap();
        Json(json!({ "State": { "Running": world.running }, "Config": { "StopSignal": world.signal } })).into_response()
    }

    async fn engine(world: World) -> (Engine, Shared) {
        let world = Arc::new(Mutex::new(World { running: true, ..world }));
        let dropped = world.clone();
        let stop = async move || {
            dropped.lock().unwrap().running = false;
            StatusCode::NO_CONTENT
        };
        let routes = Router::new()
            .route("/containers/{id}/kill", post(kill))
            .route("/containers/{id}/stop", post(stop))
            .route("/containers/{id}/json", get(inspect))
            .with_state(world.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move { axum::serve(listener, routes).await });
        (Engine::new(Endpoint::Tcp(address), Limits::default()), world)
    }

    async fn drained(world: World, within: Duration) -> Vec<String> {
        drained_by(world, StopSignal::Term, within).await
    }

    async fn drained_by(world: World, signal: StopSignal, within: Duration) -> Vec<String> {
        let (engine, world) = engine(world).await;
        let deadline = Instant::now() + within;
        if ask(&engine, "c", signal, deadline).await {
            wait_or_kill(&engine, "c", Some(deadline)).await;
        }
        let world = world.lock().unwrap();
        assert!(!world.running);
        world.signals.clone()
    }

    const LONG: Duration = Duration::from_secs(600);

    #[tokio::test]
    async fn a_worker_gets_its_own_stop_signal_and_no_kill() {
        assert_eq!(drained(World { obeys: true, ..World::default() }, LONG).await, ["SIGTERM"]);
        let own = World { obeys: true, signal: Some("SIGINT"), ..World::default() };
        assert_eq!(drained(own, LONG).await, ["SIGINT"]);
    }

    #[tokio::test]
    async fn a_container_without_a_signal_gets_that_of_its_worker_type() {
        let obeys = || World { obeys: true, ..World::default() };
        assert_eq!(drained_by(obeys(), StopSignal::Quit, LONG).await, ["SIGQUIT"]);
        let own = World { signal: Some("SIGINT"), ..obeys() };
        assert_eq!(drained_by(own, StopSignal::Quit, LONG).await, ["SIGINT"]);
    }

    #[tokio::test]
    async fn without_a_hard_kill_a_worker_has_all_the_time_that_it_takes() {
        let (engine, world) = engine(World::default()).await;
        assert!(ask(&engine, "c", StopSignal::Term, Instant::now() + LONG).await);
        let waiting = tokio::time::timeout(Duration::from_millis(300), wait_or_kill(&engine, "c", None)).await;
        assert!(waiting.is_err(), "it is at work");
        assert_eq!(world.lock().unwrap().signals, ["SIGTERM"]);
        world.lock().unwrap().running = false;
        wait_or_kill(&engine, "c", None).await;
    }

    #[tokio::test]
    async fn a_worker_that_takes_no_more_jobs_is_asked_when_it_has_none() {
        let (engine, world) = engine(World { refused: 1, ..World::default() }).await;
        let (finish, finished) = tokio::sync::oneshot::channel();
        let done = async { finished.await.is_ok() };
        let quiet = quieten(&engine, "c", QuietSignal::Tstp, Instant::now() + LONG, done);
        let finishing = async {
            let sent = eventually_sent(&world).await;
            finish.send(()).unwrap();
            sent
        };
        let (runs, sent) = tokio::join!(quiet, finishing);
        assert!(runs);
        assert_eq!(sent, ["SIGTSTP"], "nothing more while it has a job");
        assert_eq!(world.lock().unwrap().signals, ["SIGTSTP", "SIGCONT"]);
        world.lock().unwrap().running = false;
    }

    /// Returns the signals once there is one.
    async fn eventually_sent(world: &Shared) -> Vec<String> {
        loop {
            let signals = world.lock().unwrap().signals.clone();
            if !signals.is_empty() {
                return signals;
            }
            sleep(LOOKS[0]).await;
        }
    }

    #[tokio::test]
    async fn a_signal_whose_answer_is_lost_is_not_sent_again_and_a_refused_one_is() {
        assert_eq!(drained(World { cut: 1, ..World::default() }, Duration::from_secs(1)).await, ["SIGTERM", "SIGKILL"]);
        assert_eq!(drained(World { refused: 1, obeys: true, ..World::default() }, LONG).await, ["SIGTERM"]);
    }

    #[tokio::test]
    async fn a_worker_that_is_asked_again_gets_one_more_signal_even_if_one_is_refused() {
        let (engine, world) = engine(World { refused: 1, ..World::default() }).await;
        ask_again(&engine, "c", StopSignal::Term).await;
        assert!(world.lock().unwrap().signals.is_empty(), "it was refused");
        ask_again(&engine, "c", StopSignal::Term).await;
        assert_eq!(world.lock().unwrap().signals, ["SIGTERM"]);
        world.lock().unwrap().running = false;
        ask_again(&engine, "c", StopSignal::Term).await;
        assert_eq!(world.lock().unwrap().signals, ["SIGTERM"], "it has left");
    }

    #[tokio::test]
    async fn whoever_goes_away_leaves_the_worker_its_time() {
        let (engine, world) = engine(World::default()).await;
        let deadline = Instant::now() + LONG;
        assert!(ask(&engine, "c", StopSignal::Term, deadline).await);
        let waiting = wait_or_kill(&engine, "c", Some(deadline));
        let waiting = tokio::time::timeout(Duration::from_millis(200), waiting).await;
        assert!(waiting.is_err(), "it is at work");
        drop(engine);
        let world = world.lock().unwrap();
        assert_eq!((world.running, world.signals.as_slice()), (true, &["SIGTERM".to_owned()][..]));
    }
}

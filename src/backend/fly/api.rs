//! The Machines API: one method for each request that is used, with rate limits, time-outs and those retries that can
//! do no harm. Knows what a request is, not what it is for; a request that must not be repeated blindly is not.

use std::{path::PathBuf, sync::Mutex, time::Duration};

use backon::{BackoffBuilder, ExponentialBuilder};
use reqwest::{
    Client, Method, RequestBuilder, Url,
    header::{AUTHORIZATION, HeaderValue},
};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{
    failure::Failure,
    machine::Machine,
    rate_limit::{Action, RateLimit, Throttle},
};
use crate::{
    backend::{BackendError, http_client, leader_guard::LeaderGuard},
    config::FlySettings,
    model::StopSignal,
};

/// How long a `/wait` may wait; the API allows no more.
pub(super) const WAIT: Duration = Duration::from_secs(60);
/// Beyond what a `/wait` was told to take, for the way there and back.
const WAIT_MARGIN: Duration = Duration::from_secs(10);
/// The longest time between SIGTERM and SIGKILL that Fly.io grants
/// (<https://fly.io/docs/reference/configuration/#kill_timeout-option>).
const LONGEST_STOP: Duration = Duration::from_secs(300);
/// Longest `Retry-After` that is waited for; longer ones are returned to the caller.
const LONGEST_SILENCE: Duration = Duration::from_secs(30);
/// Attempts at a request that may be repeated; with the pauses between them, some seconds.
const ATTEMPTS: usize = 4;

/// Where the API is and who we are.
#[derive(Clone, Debug)]
pub struct Access {
    /// `https://api.machines.dev`, without `/v1`.
    pub base_url: String,
    /// The token from the environment, if there is one.
    pub token: Option<SecretString>,
    /// File that holds the token; wins, and is read again when a token is refused.
    pub token_file: Option<PathBuf>,
    /// Time for each answer.
    pub timeout: Duration,
    /// How often to ask at most.
    pub rate_limit: RateLimit,
}

impl Access {
    /// What the settings say, with the token that the environment holds.
    pub fn from_settings(settings: &FlySettings, token: Option<String>) -> Self {
        Self {
            base_url: settings.base_url.clone(),
            token: token.map(SecretString::from),
            token_file: settings.token_file.clone(),
            timeout: settings.timeout(),
            rate_limit: RateLimit::DOCUMENTED,
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Api {
    client: Client,
    base: Url,
    authorization: Mutex<HeaderValue>,
    token_file: Option<PathBuf>,
    timeout: Duration,
    throttle: Throttle,
    pub(super) leader_guard: LeaderGuard,
}

/// A volume, as far as it matters here.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Volume {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) region: String,
    pub(super) state: String,
    pub(super) attached_machine_id: Option<String>,
}

/// One request.
struct Call<'a> {
    action: Action,
    app: &'a str,
    /// The machine, if it is about one.
    machine: Option<&'a str>,
    method: Method,
    /// Path below `/v1/apps/{app}`.
    path: Vec<&'a str>,
    query: Vec<(&'a str, String)>,
    body: Option<Value>,
    timeout: Duration,
    /// Whether to ask again when there is no answer.
    repeat: bool,
}

impl Api {
    /// Reads the token; asks nothing yet.
    pub(super) fn new(access: &Access) -> Result<Self, BackendError> {
        let base = Url::parse(&access.base_url).map_err(|error| {
            BackendError::permanent(format!("fly.base_url = \"{}\" is not a URL: {error}", access.base_url))
                .caused_by(error)
        })?;
        let client = http_client::builder()
            .build()
            .map_err(|error| BackendError::permanent(format!("no HTTP client for fly.io: {error}")).caused_by(error))?;
        let token = match &access.token_file {
            Some(file) => Some(read_token(file)?),
            None => access.token.clone(),
        };
        let token = token.filter(|token| !token.expose_secret().trim().is_empty()).ok_or_else(|| {
            BackendError::permanent(
                "there is no token for fly.io; set FLY_API_TOKEN, or `fly.token_file` to a file that holds it \
                 (`fly tokens create deploy -a APP` makes one)"
                    .to_owned(),
            )
        })?;
        Ok(Self {
            client,
            base,
            authorization: Mutex::new(header(&token)?),
            token_file: access.token_file.clone(),
            timeout: access.timeout,
            throttle: Throttle::new(access.rate_limit),
            leader_guard: LeaderGuard::default(),
        })
    }

    /// All machines of an app, those of other process groups included. Not repeated: who polls asks again anyway, and
    /// wants to know at once.
    pub(super) async fn list(&self, app: &str) -> Result<Vec<Machine>, Failure> {
        let call = self.about(app, Action::List, Method::GET, vec!["machines"]);
        self.call(Call { repeat: false, ..call }).await
    }

    /// Those machines of an app that have this metadata.
    pub(super) async fn list_with(&self, app: &str, key: &str, value: &str) -> Result<Vec<Machine>, Failure> {
        let filter = format!("metadata.{key}");
        let query = vec![(filter.as_str(), value.to_owned())];
        self.call(Call { query, ..self.about(app, Action::List, Method::GET, vec!["machines"]) }).await
    }

    /// One machine.
    pub(super) async fn get(&self, app: &str, id: &str) -> Result<Machine, Failure> {
        self.call(self.machine(app, id, Action::Get, Method::GET, None)).await
    }

    /// Makes and launches a machine. Not repeated, unless it was refused for too many requests.
    pub(super) async fn create(&self, app: &str, body: Value) -> Result<Machine, Failure> {
        let call = self.about(app, Action::Create, Method::POST, vec!["machines"]);
        self.call(Call { body: Some(body), ..call }).await
    }

    pub(super) async fn start(&self, app: &str, id: &str) -> Result<(), Failure> {
        self.call::<Done>(self.machine(app, id, Action::Start, Method::POST, Some("start"))).await.map(drop)
    }

    /// Sends the signal, and SIGKILL after `patience`, or after what Fly.io grants if that is less. Returns at once.
    pub(super) async fn stop(
        &self,
        app: &str,
        id: &str,
        signal: StopSignal,
        patience: Duration,
    ) -> Result<(), Failure> {
        let seconds = patience.min(LONGEST_STOP).as_secs().max(1);
        let body = json!({ "signal": format!("SIG{}", signal.as_str()), "timeout": format!("{seconds}s") });
        let call = self.machine(app, id, Action::Stop, Method::POST, Some("stop"));
        self.call::<Done>(Call { body: Some(body), ..call }).await.map(drop)
    }

    /// Destroys a machine that does not run; one that does is refused.
    pub(super) async fn destroy(&self, app: &str, id: &str) -> Result<(), Failure> {
        self.call::<Done>(self.machine(app, id, Action::Destroy, Method::DELETE, None)).await.map(drop)
    }

    /// Waits until a machine is in a state, a minute at most; 408 when it is not.
    pub(super) async fn wait(&self, app: &str, machine: &Machine, state: &str) -> Result<(), Failure> {
        let mut query = vec![("state", state.to_owned()), ("timeout", WAIT.as_secs().to_string())];
        if !machine.instance_id.is_empty() {
            query.push(("instance_id", machine.instance_id.clone()));
        }
        let call = self.machine(app, &machine.id, Action::Wait, Method::GET, Some("wait"));
        self.once::<Done>(&Call { query, timeout: WAIT + WAIT_MARGIN, ..call }).await.map(drop)
    }

    pub(super) async fn volumes(&self, app: &str) -> Result<Vec<Volume>, Failure> {
        self.call(self.about(app, Action::ListVolumes, Method::GET, vec!["volumes"])).await
    }

    pub(super) async fn create_volume(&self, app: &str, body: Value) -> Result<Volume, Failure> {
        let call = self.about(app, Action::CreateVolume, Method::POST, vec!["volumes"]);
        self.call(Call { body: Some(body), ..call }).await
    }

    fn about<'a>(&self, app: &'a str, action: Action, method: Method, path: Vec<&'a str>) -> Call<'a> {
        let (timeout, repeat) = (self.timeout, action.is_idempotent());
        Call { action, app, machine: None, method, path, query: Vec::new(), body: None, timeout, repeat }
    }

    fn machine<'a>(
        &self,
        app: &'a str,
        id: &'a str,
        action: Action,
        method: Method,
        then: Option<&'a str>,
    ) -> Call<'a> {
        let path = ["machines", id].into_iter().chain(then).collect();
        Call { machine: Some(id), ..self.about(app, action, method, path) }
    }

    /// Asks until there is an answer, as long as asking again does no harm.
    async fn call<T: DeserializeOwned + Default>(&self, call: Call<'_>) -> Result<T, Failure> {
        let mut pauses = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(200))
            .with_max_delay(Duration::from_secs(4))
            .with_max_times(ATTEMPTS - 1)
            .with_jitter()
            .build();
        let mut token_renewed = false;
        loop {
            let failure = match self.once(&call).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            if failure.status() == Some(401) && !token_renewed && self.renew_token() {
                token_renewed = true;
                continue;
            }
            let throttled = failure.is_throttled();
            let again = throttled || (failure.is_ambiguous() && call.repeat);
            let Some(pause) = pauses.next().filter(|_| again) else { return Err(failure) };
            if throttled {
                let silence = failure.retry_after().map_or(pause, |asked_for| asked_for.max(pause));
                if silence > LONGEST_SILENCE {
                    return Err(failure);
                }
                self.throttle.silence(call.action, call.app, silence);
            } else {
                tokio::time::sleep(pause).await;
            }
        }
    }

    async fn once<T: DeserializeOwned + Default>(&self, call: &Call<'_>) -> Result<T, Failure> {
        self.throttle.turn(call.action, call.app, call.machine.unwrap_or(call.app)).await;
        // Its turn may have come late.
        if call.action.changes_workers() && !self.leader_guard.holds() {
            return Err(Failure::NotLeading);
        }
        let response = self.request(call).send().await?;
        let status = response.status();
        if !status.is_success() {
            let retry_after = http_client::retry_after(response.headers());
            let body = response.text().await.unwrap_or_default();
            return Err(Failure::refused(status.as_u16(), retry_after, &body));
        }
        let body = response.bytes().await?;
        if body.is_empty() {
            return Ok(T::default());
        }
        serde_json::from_slice(&body).map_err(|error| Failure::Garbled(error.to_string()))
    }

    fn request(&self, call: &Call<'_>) -> RequestBuilder {
        let mut url = self.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(["v1", "apps", call.app]).extend(&call.path);
        }
        if !call.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&call.query);
        }
        let authorization = self.authorization.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        let request = self.client.request(call.method.clone(), url).timeout(call.timeout);
        let request = request.header(AUTHORIZATION, authorization);
        match &call.body {
            Some(body) => request.json(body),
            None => request,
        }
    }

    /// Reads the token's file again: tokens that expire are replaced there. Says whether there is another one now.
    fn renew_token(&self) -> bool {
        let Some(file) = &self.token_file else { return false };
        let Ok(fresh) = read_token(file).and_then(|token| header(&token)) else { return false };
        let mut authorization = self.authorization.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let renewed = *authorization != fresh;
        *authorization = fresh;
        renewed
    }
}

/// An answer of which only the success matters.
#[derive(Default)]
struct Done;

impl<'de> Deserialize<'de> for Done {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        serde::de::IgnoredAny::deserialize(deserializer).map(|_| Self)
    }
}

fn read_token(file: &std::path::Path) -> Result<SecretString, BackendError> {
    let text = std::fs::read_to_string(file).map_err(|error| {
        BackendError::permanent(format!(
            "the file of the token for fly.io, `{}`, can't be read: {error}",
            file.display()
        ))
        .caused_by(error)
    })?;
    Ok(SecretString::from(text.trim()))
}

/// Tokens come as `FlyV1 …`, which names its own scheme, or bare.
fn header(token: &SecretString) -> Result<HeaderValue, BackendError> {
    let token = token.expose_secret().trim();
    let text = if token.starts_with("FlyV1 ") { token.to_owned() } else { format!("Bearer {token}") };
    let mut value = HeaderValue::from_str(&text).map_err(|_| {
        BackendError::permanent("the token for fly.io holds characters that no token has; copy it again".to_owned())
    })?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(token: Option<&str>) -> Access {
        Access {
            base_url: "http://127.0.0.1:1".to_owned(),
            token: token.map(SecretString::from),
            token_file: None,
            timeout: Duration::from_secs(1),
            rate_limit: RateLimit::DOCUMENTED,
        }
    }

    #[test]
    fn no_token_is_an_error_that_says_where_one_comes_from() {
        for token in [None, Some(""), Some(" \n")] {
            let error = Api::new(&access(token)).unwrap_err();
            assert!(error.message.contains("FLY_API_TOKEN"), "{error}");
        }
    }

    #[test]
    fn the_token_names_its_own_scheme_and_is_shown_to_nobody() {
        for (token, expected) in [("FlyV1 fm2_x", "FlyV1 fm2_x"), ("plain\n", "Bearer plain")] {
            let header = header(&SecretString::from(token)).unwrap();
            assert_eq!(header.to_str().unwrap(), expected);
            assert!(!format!("{header:?}").contains(token.trim()));
        }
        let api = Api::new(&access(Some("hunter2"))).unwrap();
        assert!(!format!("{api:?}").contains("hunter2"));
    }
}

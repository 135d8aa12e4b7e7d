//! A platform that is asked over HTTP: the request of each call (`docs/command-openapi.yaml`), and the meaning of its
//! answer. Follows no redirect, so that the token goes to nobody else.

use std::{
    collections::BTreeMap,
    sync::{Mutex, OnceLock, PoisonError},
    time::Duration,
};

use reqwest::{
    Method, Response, StatusCode, Url,
    header::{AUTHORIZATION, HeaderValue},
    redirect::Policy,
};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use super::{
    call::{CallError, Change, MAX_ANSWER},
    listing::{self, Listed},
    secret,
};
use crate::{
    backend::{BackendError, ErrorKind, http_client},
    config::CommandSettings,
    model::WorkerType,
};

/// Most that is read of a refusal.
const MAX_REFUSAL: usize = 4 << 10;
/// Longest `Retry-After` that is respected: a mistake of the service must not end scaling.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(300);
/// Time between probes of a silent connection: a watch whose service is gone ends.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// Fields of a refusal that may say why, in this order: RFC 9457 names `detail` and `title`.
const EXPLANATIONS: [&str; 4] = ["detail", "message", "error", "title"];

/// What all calls of this backend share.
#[derive(Default)]
pub(super) struct Client {
    http: OnceLock<reqwest::Client>,
    /// Until when a call of a worker type is not made, because the service asked for that.
    paused: Mutex<BTreeMap<(WorkerType, &'static str), Instant>>,
}

impl Client {
    fn http(&self) -> Result<&reqwest::Client, BackendError> {
        if let Some(http) = self.http.get() {
            return Ok(http);
        }
        let built =
            http_client::builder().redirect(Policy::none()).tcp_keepalive(KEEPALIVE).build().map_err(|error| {
                BackendError::permanent(format!("there is no HTTP client: {}", http_client::why(&error)))
                    .caused_by(error)
            })?;
        Ok(self.http.get_or_init(|| built))
    }

    fn pause(&self, worker_type: &WorkerType, call: &'static str, wait: Duration) {
        let mut paused = self.paused.lock().unwrap_or_else(PoisonError::into_inner);
        paused.insert((worker_type.clone(), call), Instant::now() + wait.min(MAX_RETRY_AFTER));
    }

    /// Returns how much longer this call is not made.
    fn paused_for(&self, worker_type: &WorkerType, call: &'static str) -> Option<Duration> {
        let mut paused = self.paused.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (worker_type.clone(), call);
        let left = paused.get(&key)?.saturating_duration_since(Instant::now());
        if left.is_zero() {
            paused.remove(&key);
            return None;
        }
        Some(left)
    }
}

/// The service of a worker type.
#[derive(Clone, Copy)]
pub(super) struct Service<'a> {
    pub(super) worker_type: &'a WorkerType,
    pub(super) settings: &'a CommandSettings,
    pub(super) url: &'a str,
    pub(super) client: &'a Client,
}

/// A request of one call.
struct Request<'a> {
    call: &'static str,
    method: Method,
    /// Below the base URL.
    path: &'a [&'a str],
    query: &'a [(&'a str, &'a str)],
    body: Option<Value>,
}

impl Service<'_> {
    /// `GET /workers`
    pub(super) async fn list(self) -> Result<Vec<Listed>, BackendError> {
        let query = [("type", self.worker_type.as_str())];
        let request = Request { call: "list", method: Method::GET, path: &["workers"], query: &query, body: None };
        let within = self.settings.timeout();
        let body = timeout(within, async { self.whole("list", self.accepted(request).await?).await }).await;
        let body = body.unwrap_or_else(|_| Err(self.too_late("list"))).map_err(|failure| failure.error)?;
        listing::document(&body).map_err(|problem| BackendError::retryable(self.about("list", &problem)))
    }

    /// `POST /workers`, `DELETE /workers/{id}` or `PUT /scale`
    pub(super) async fn change(self, change: Change<'_>) -> Result<(), CallError> {
        let call = change.name();
        let changed = timeout(self.settings.timeout(), self.carried_out(call, change)).await;
        changed.unwrap_or_else(|_| Err(self.too_late(call)))
    }

    async fn carried_out(self, call: &'static str, change: Change<'_>) -> Result<(), CallError> {
        let of_type = self.worker_type.as_str();
        let put = |method, path, body| Request { call, method, path, query: &[], body: Some(body) };
        let request = match change {
            Change::Start(id) => {
                put(Method::POST, &["workers"][..], json!({ "type": of_type, "worker_id": id.as_str() }))
            }
            Change::Scale(target) => put(Method::PUT, &["scale"][..], json!({ "type": of_type, "target": target })),
            Change::StartMany(_) => {
                let problem = "a service starts one worker in each call";
                return Err(BackendError::permanent(self.about(call, problem)).into());
            }
            // URLs lose such a segment, whatever its spelling.
            Change::Stop { handle: handle @ ("." | ".."), .. } => {
                let problem = format!("no URL can have the id `{handle}`; give the worker another `id` in the list");
                return Err(BackendError::permanent(self.about(call, &problem)).into());
            }
            Change::Stop { handle, id } => {
                let (path, query) = (["workers", handle], [("type", of_type), ("worker_id", id.as_str())]);
                let request = Request { call, method: Method::DELETE, path: &path, query: &query, body: None };
                let (response, token) = self.answer(&request).await?;
                if matches!(response.status(), StatusCode::NOT_FOUND | StatusCode::GONE) {
                    return Ok(());
                }
                return self.judged(call, response, token.as_deref()).await.map(drop);
            }
        };
        self.accepted(request).await.map(drop)
    }

    /// `GET /watch`: calls `on_line` for each line, until the service ends the answer.
    pub(super) async fn watch(self, mut on_line: impl FnMut()) -> Result<(), BackendError> {
        let query = [("type", self.worker_type.as_str())];
        let request = Request { call: "watch", method: Method::GET, path: &["watch"], query: &query, body: None };
        let answer = timeout(self.settings.timeout(), self.accepted(request)).await;
        let answer = answer.unwrap_or_else(|_| Err(self.too_late("watch")));
        let mut response = answer.map_err(|failure| failure.error)?;
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) if chunk.contains(&b'\n') => on_line(),
                Ok(Some(_)) => {}
                Ok(None) => return Ok(()),
                Err(error) => return Err(self.cut("watch", &error).error),
            }
        }
    }

    async fn accepted(self, request: Request<'_>) -> Result<Response, CallError> {
        let (response, token) = self.answer(&request).await?;
        self.judged(request.call, response, token.as_deref()).await
    }

    /// Returns the answer, whatever it says, and the token that was sent.
    async fn answer(self, request: &Request<'_>) -> Result<(Response, Option<String>), CallError> {
        let call = request.call;
        if let Some(left) = self.client.paused_for(self.worker_type, call) {
            let problem = format!("the service has asked to wait; {} s are left", left.as_secs() + 1);
            return Err(BackendError::retryable(self.about(call, &problem)).into());
        }
        let url = self.address(request).map_err(|problem| BackendError::permanent(self.about(call, &problem)))?;
        let mut built = self.client.http()?.request(request.method.clone(), url);
        let token = self.token().map_err(|problem| BackendError::permanent(self.about(call, &problem)))?;
        if let Some(token) = &token {
            built = built.header(
                AUTHORIZATION,
                header(token).map_err(|problem| BackendError::permanent(self.about(call, &problem)))?,
            );
        }
        if let Some(body) = &request.body {
            built = built.json(body);
        }
        let response = built.send().await.map_err(|error| CallError {
            // A connection that did not come about carried nothing.
            ambiguous: !error.is_connect() && !error.is_builder(),
            ..self.cut(call, &error)
        })?;
        Ok((response, token))
    }

    fn address(self, request: &Request<'_>) -> Result<Url, String> {
        let mut url = Url::parse(self.url).map_err(|error| format!("it is not a URL: {error}"))?;
        url.path_segments_mut()
            .map_err(|()| "it is not a URL with https:// or http://".to_owned())?
            .pop_if_empty()
            .extend(request.path);
        if !request.query.is_empty() {
            url.query_pairs_mut().extend_pairs(request.query);
        }
        Ok(url)
    }

    fn token(self) -> Result<Option<String>, String> {
        let Some(file) = &self.settings.token_file else { return Ok(None) };
        let token = secret::read(file)
            .map(|token| token.trim().to_owned())
            .and_then(|token| if token.is_empty() { Err("it is empty".to_owned()) } else { Ok(token) });
        token.map(Some).map_err(|problem| format!("`token_file` `{}` can't be used: {problem}", file.display()))
    }

    /// Returns the answer if it is a success.
    async fn judged(self, call: &'static str, response: Response, token: Option<&str>) -> Result<Response, CallError> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        if let Some(wait) = http_client::retry_after(response.headers()) {
            self.client.pause(self.worker_type, call, wait);
        }
        let said = secret::said(&explanation(&beginning(response).await), token);
        let said = if said.is_empty() { String::new() } else { format!(": {said}") };
        let error =
            BackendError::new(kind(status), self.about(call, &format!("answer {status}{said}{}", cure(status))));
        // A gateway or a crash may have come after the change; 503 is the refusal of a service that is full.
        let ambiguous = status.is_server_error() && status != StatusCode::SERVICE_UNAVAILABLE;
        Err(CallError { error, ambiguous })
    }

    async fn whole(self, call: &'static str, mut response: Response) -> Result<Vec<u8>, CallError> {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.cut(call, &error))? {
            if body.len() + chunk.len() > MAX_ANSWER {
                let problem = format!("the answer has more than {} MiB", MAX_ANSWER >> 20);
                return Err(BackendError::permanent(self.about(call, &problem)).into());
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    fn cut(self, call: &str, error: &reqwest::Error) -> CallError {
        let problem = format!("no answer, or one that broke off: {}", http_client::why(error));
        CallError { error: BackendError::retryable(self.about(call, &problem)), ambiguous: true }
    }

    fn too_late(self, call: &str) -> CallError {
        let problem = format!(
            "no answer within {} s; raise `timeout_seconds` if the service needs longer",
            self.settings.timeout_seconds
        );
        CallError { error: BackendError::retryable(self.about(call, &problem)), ambiguous: true }
    }

    fn about(self, call: &str, problem: &str) -> String {
        format!("`worker_types.{}.command.url`: `{call}`: {problem}", self.worker_type)
    }
}

fn kind(status: StatusCode) -> ErrorKind {
    let may_go_away = status.is_server_error()
        || matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS);
    if may_go_away { ErrorKind::Retryable } else { ErrorKind::Permanent }
}

fn cure(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => "; check the token in `token_file`",
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => {
            "; check `url` and `calls`: the service does not have this call there"
        }
        status if status.is_redirection() => "; redirects are not followed: set `url` to the address that answers",
        _ => "",
    }
}

fn header(token: &str) -> Result<HeaderValue, String> {
    let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
        .map_err(|_| "the token in `token_file` holds characters that no token has; copy it again".to_owned())?;
    value.set_sensitive(true);
    Ok(value)
}

/// Returns the beginning of an answer.
async fn beginning(mut response: Response) -> String {
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        body.extend_from_slice(&chunk);
        if body.len() >= MAX_REFUSAL {
            body.truncate(MAX_REFUSAL);
            break;
        }
    }
    String::from_utf8_lossy(&body).into_owned()
}

/// Returns why a request was refused: a field that says so, or else the whole text.
fn explanation(body: &str) -> String {
    let fields: Value = serde_json::from_str(body).unwrap_or_default();
    let said = EXPLANATIONS.iter().find_map(|key| fields[key].as_str().filter(|text| !text.is_empty()));
    said.unwrap_or(body).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::WorkerId;

    #[test]
    fn statuses_say_whether_another_try_may_help() {
        for (code, expected) in [
            (302, ErrorKind::Permanent),
            (400, ErrorKind::Permanent),
            (401, ErrorKind::Permanent),
            (404, ErrorKind::Permanent),
            (408, ErrorKind::Retryable),
            (409, ErrorKind::Permanent),
            (425, ErrorKind::Retryable),
            (429, ErrorKind::Retryable),
            (500, ErrorKind::Retryable),
            (503, ErrorKind::Retryable),
        ] {
            assert_eq!(kind(StatusCode::from_u16(code).unwrap()), expected, "{code}");
        }
    }

    #[test]
    fn a_refusal_is_explained_by_its_fields_or_its_text() {
        for (body, expected) in [
            ("no room", "no room"),
            (r#"{"title":"Full","detail":"no room in fra"}"#, "no room in fra"),
            (r#"{"error":"no room"}"#, "no room"),
            (r#"{"error":{"code":7}}"#, r#"{"error":{"code":7}}"#),
            ("", ""),
        ] {
            assert_eq!(explanation(body), expected);
        }
    }

    #[tokio::test]
    async fn an_id_is_one_segment_of_the_path_or_refused() {
        let (worker_type, settings) = (WorkerType::new("mail"), CommandSettings::default());
        let (client, id) = (Client::default(), WorkerId::new("w"));
        let service =
            Service { worker_type: &worker_type, settings: &settings, url: "http://127.0.0.1:1/v1/", client: &client };
        let path = ["workers", "a/b?c %2e"];
        let request =
            Request { call: "stop", method: Method::DELETE, path: &path, query: &[("type", "mail")], body: None };
        let address = service.address(&request).unwrap();
        assert_eq!(address.as_str(), "http://127.0.0.1:1/v1/workers/a%2Fb%3Fc%20%252e?type=mail");
        for handle in [".", ".."] {
            let error = service.change(Change::Stop { handle, id: &id }).await.unwrap_err().error;
            assert!(error.kind == ErrorKind::Permanent && error.message.contains("no URL can have the id"), "{error}");
        }
    }

    #[test]
    fn a_service_is_let_alone_as_long_as_it_asks() {
        let (client, mail) = (Client::default(), WorkerType::new("mail"));
        client.pause(&mail, "start", Duration::MAX);
        let left = client.paused_for(&mail, "start").unwrap();
        assert!(left <= MAX_RETRY_AFTER && left > Duration::from_secs(200), "{left:?}");
        assert_eq!(client.paused_for(&mail, "list"), None);
        client.pause(&mail, "start", Duration::ZERO);
        assert_eq!(client.paused_for(&mail, "start"), None);
        assert!(client.paused.lock().unwrap().is_empty());
    }
}

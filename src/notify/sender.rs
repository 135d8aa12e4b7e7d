//! One webhook: makes one attempt to send a message, and says whether another attempt can help. Must show its URL to
//! nobody.

use std::time::Duration;

use reqwest::{
    Client, StatusCode,
    header::{CONTENT_TYPE, RETRY_AFTER},
    redirect::Policy,
};
use secrecy::{ExposeSecret, SecretString};

use super::{format, notification::Notification};
use crate::config::{NotifySettings, webhook_url_problem};

/// Maximum bytes of a response that an error quotes.
const MAX_QUOTED: usize = 200;

/// Maximum `Retry-After` that is respected.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(300);

/// A message did not arrive.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SendError {
    /// What happened, without the URL.
    pub message: String,
    /// Whether another attempt can help.
    pub retryable: bool,
    /// `Retry-After` of the response.
    pub retry_after: Option<Duration>,
}

/// One webhook.
#[derive(Debug)]
pub struct Sender {
    client: Client,
    settings: NotifySettings,
    name: String,
}

impl Sender {
    /// Connects to nothing yet. `index` is the position of the webhook in the configuration, from 0.
    ///
    /// # Errors
    /// If the HTTP client can't be built, for example because the system has no root certificates.
    pub fn new(settings: NotifySettings, index: usize) -> Result<Self, SendError> {
        // Another part of the program may have installed a provider; either works.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder()
            .user_agent(concat!("swarm/", env!("CARGO_PKG_VERSION")))
            .timeout(settings.timeout())
            .redirect(Policy::none())
            .build()
            .map_err(|error| permanent(format!("HTTP client can't be built: {}", without_url(error))))?;
        let name = settings.name(index);
        Ok(Self { client, settings, name })
    }

    /// Returns the name of the webhook.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the maximum number of messages per minute.
    pub(super) fn per_minute(&self) -> u32 {
        self.settings.per_minute
    }

    /// Makes one attempt to send `notification`. `id` is the same for each attempt.
    ///
    /// # Errors
    /// If the message did not arrive, or its arrival is unknown.
    pub async fn send(&self, notification: &Notification, id: &str) -> Result<(), SendError> {
        let url = self.url().await?;
        let template = self.settings.template.as_deref();
        let (body, media_type) = format::body(self.settings.format, template, notification, id);
        let request = self.client.post(url.expose_secret()).header(CONTENT_TYPE, media_type).body(body);
        let response = request
            .send()
            .await
            .map_err(|error| retryable(format!("webhook can't be reached: {}", without_url(error))))?;
        let status = response.status();
        if status.is_success() {
            return Ok(());
        }
        let retry_after = response.headers().get(RETRY_AFTER).and_then(|of| of.to_str().ok()?.trim().parse().ok());
        let quoted = match quoted(response).await {
            empty if empty.is_empty() => empty,
            text => format!(": {text}"),
        };
        let may_recover =
            status.is_server_error() || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT);
        Err(SendError {
            message: format!("webhook answered {status}{quoted}"),
            retryable: may_recover,
            retry_after: retry_after.map(|seconds| Duration::from_secs(seconds).min(MAX_RETRY_AFTER)),
        })
    }

    async fn url(&self) -> Result<SecretString, SendError> {
        let url = match (&self.settings.url_file, &self.settings.url) {
            (Some(file), _) => {
                let read = tokio::fs::read_to_string(file).await;
                let text =
                    read.map_err(|error| retryable(format!("url_file `{}` can't be read: {error}", file.display())))?;
                SecretString::from(text.trim().to_owned())
            }
            (None, Some(url)) => url.clone(),
            (None, None) => return Err(permanent("webhook has neither `url` nor `url_file`".to_owned())),
        };
        match webhook_url_problem(url.expose_secret()) {
            Some(problem) => Err(permanent(format!("URL of the webhook is invalid: {problem}"))),
            None => Ok(url),
        }
    }
}

/// Returns the beginning of a response as one line.
async fn quoted(mut response: reqwest::Response) -> String {
    let mut bytes = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        bytes.extend_from_slice(&chunk);
        if bytes.len() >= MAX_QUOTED {
            break;
        }
    }
    bytes.truncate(MAX_QUOTED);
    String::from_utf8_lossy(&bytes).replace(char::is_control, " ").trim().to_owned()
}

fn permanent(message: String) -> SendError {
    SendError { message, retryable: false, retry_after: None }
}

fn retryable(message: String) -> SendError {
    SendError { message, retryable: true, retry_after: None }
}

/// Returns an error with its causes, without the URL, which is a secret.
fn without_url(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

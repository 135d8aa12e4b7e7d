//! The bot as a whole: asks Discord for its identity, registers its commands, runs as many shards as Discord
//! recommends, and stops in order. The end of an essential part is fatal.

use std::{error::Error, sync::Arc, time::Duration};

use backon::{BackoffBuilder, ExponentialBuilder};
use secrecy::{ExposeSecret, SecretString};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use twilight_gateway::{ConfigBuilder, Intents, Shard, queue::InMemoryQueue};
use twilight_http::{
    Client as Http,
    error::{Error as HttpError, ErrorType},
    response::DeserializeBodyError,
};
use twilight_model::{
    application::command::Command,
    gateway::connection_info::BotConnectionInfo,
    id::{Id, marker::ApplicationMarker},
};
use url::Url;

use super::{
    access::Access,
    commands::commands,
    dispatcher::Dispatcher,
    gateway::{self, Ended, Ready},
    pace::{self, Pace},
};
use crate::{
    config::{NotAllowed, Settings},
    connection::{ConnectionError, RedisTarget},
    egress::AddressRule,
};

/// Timeout of one request: enough for a picture of some megabytes on a slow line.
const REQUEST: Duration = Duration::from_secs(30);
/// Pause between two sets of shards: Discord allows a new session every 5 seconds.
const BETWEEN_SETS: Duration = Duration::from_secs(5);
/// Longest pause between two attempts to reach Discord at the start.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Why the bot can't run, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum BotError {
    /// The Redis URL is invalid.
    #[error(transparent)]
    Redis(#[from] ConnectionError),
    /// The worker type that is to drive browsers does not exist.
    #[error(
        "discord.browser_type = \"{name}\", and the configuration has no such worker type; there are: {known}; set it to one \
         whose workers drive browsers"
    )]
    WorkerType {
        /// Name of the worker type.
        name: String,
        /// Configured worker types.
        known: String,
    },
    /// The addresses that its pages may connect to are invalid.
    #[error("worker_types.{name}.browser.allow_private: {cause}")]
    AllowPrivate {
        /// Name of the worker type.
        name: String,
        /// What is wrong.
        cause: NotAllowed,
    },
    /// Discord does not know the token.
    #[error(
        "discord refuses the token; copy it again from the application's page in the developer portal, or reset it there"
    )]
    Token,
    /// Discord refuses the request for the gateway's address.
    #[error("discord refuses to say how to connect: {0}")]
    Refused(String),
    /// Discord ended a connection for good.
    #[error("discord closed the connection for good (code {code}): {meaning}")]
    Gateway {
        /// Close code of the connection.
        code: u16,
        /// Meaning of the code, and the cure.
        meaning: &'static str,
    },
    /// A shard's task ended by itself.
    #[error("a connection to discord ended by itself: {0}")]
    Shard(String),
}

/// A bot that is not yet connected.
pub struct Bot {
    settings: Arc<Settings>,
    token: SecretString,
    http: Arc<Http>,
    pace: Pace,
    access: Access,
    dispatcher: Arc<Dispatcher>,
}

impl Bot {
    /// Returns a bot that has not connected yet. Must be called within the runtime.
    ///
    /// # Errors
    /// If the settings contradict each other.
    pub fn new(settings: Arc<Settings>, token: SecretString) -> Result<Self, BotError> {
        // The library opens its own connections, with the TLS provider of the whole process.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let redis = RedisTarget::new(&settings.redis_url, settings.scaler.redis_timeout())?;
        let name = settings.discord.browser_type.clone();
        let Some(worker_type) = settings.worker_types.get(&name) else {
            let known = settings.worker_types.keys().cloned().collect::<Vec<_>>().join(", ");
            return Err(BotError::WorkerType { name, known });
        };
        let allowed = worker_type.browser.allowed().map_err(|cause| BotError::AllowPrivate { name, cause })?;
        let http = Arc::new(http(&settings.discord.api_url, &token));
        let pace = Pace::new(&settings.discord.api_url, &token);
        let access = Access::new(&settings.discord);
        let rule = AddressRule::new(allowed);
        let dispatcher = Dispatcher::new(Arc::clone(&settings), redis, Arc::clone(&http), access.clone(), rule);
        Ok(Self { settings, token, http, pace, access, dispatcher: Arc::new(dispatcher) })
    }

    /// Runs until `stop`. Retries until Discord is reached for the first time.
    ///
    /// # Errors
    /// If Discord refuses the bot.
    pub async fn run(self, stop: CancellationToken) -> Result<(), BotError> {
        let ended = self.run_until(&stop).await;
        self.dispatcher.close().await;
        ended
    }

    async fn run_until(&self, stop: &CancellationToken) -> Result<(), BotError> {
        let Some(application) = self.until_answered(stop, async || self.application().await).await? else {
            return Ok(());
        };
        self.register(application, stop).await;
        loop {
            let Some(info) = self.until_answered(stop, async || self.connection_info().await).await? else {
                return Ok(());
            };
            match self.run_shards(&info, stop).await? {
                Ended::Reshard => tracing::info!("discord wants another number of shards"),
                Ended::Stopped | Ended::Refused { .. } => return Ok(()),
            }
            if stop.run_until_cancelled(tokio::time::sleep(BETWEEN_SETS)).await.is_none() {
                return Ok(());
            }
        }
    }

    async fn application(&self) -> Result<Id<ApplicationMarker>, Trouble> {
        Ok(pace::at_most(1, self.http.current_user_application()).await?.model().await?.id)
    }

    async fn connection_info(&self) -> Result<BotConnectionInfo, Trouble> {
        Ok(pace::at_most(1, self.http.gateway().authed()).await?.model().await?)
    }

    /// Repeats a request until Discord answers; returns `None` if the bot is stopped before. A refusal is final.
    async fn until_answered<T>(
        &self,
        stop: &CancellationToken,
        ask: impl AsyncFn() -> Result<T, Trouble>,
    ) -> Result<Option<T>, BotError> {
        let mut pauses = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(500))
            .with_max_delay(LONGEST_PAUSE)
            .without_max_times()
            .with_jitter()
            .build();
        loop {
            let pause = pauses.next().unwrap_or(LONGEST_PAUSE);
            let going_on = match stop.run_until_cancelled(ask()).await {
                None => return Ok(None),
                Some(Ok(answer)) => return Ok(Some(answer)),
                Some(Err(Trouble::Final(error))) => return Err(error),
                Some(Err(Trouble::Limited)) => stop.run_until_cancelled(self.until_allowed(pause)).await,
                Some(Err(Trouble::Passing(reason))) => {
                    tracing::warn!("discord can't be reached, trying again in {} s: {reason}", pause.as_secs() + 1);
                    stop.run_until_cancelled(tokio::time::sleep(pause)).await
                }
            };
            if going_on.is_none() {
                return Ok(None);
            }
        }
    }

    /// Waits until Discord takes requests again, and for at least `pause`.
    async fn until_allowed(&self, pause: Duration) {
        let wait = self.pace.wait().await.max(pause);
        tracing::warn!(wait_seconds = wait.as_secs_f64(), "discord has too many requests from here; sending none");
        tokio::time::sleep(wait).await;
    }

    /// Repeats a request a few times while Discord does not answer. For requests that are harmless if they are carried
    /// out twice.
    async fn repeated(
        &self,
        stop: &CancellationToken,
        ask: impl AsyncFn() -> Result<(), HttpError>,
    ) -> Result<(), HttpError> {
        let mut pauses = ExponentialBuilder::default().with_max_times(4).with_jitter().build();
        loop {
            let Err(error) = ask().await else { return Ok(()) };
            let passing = !matches!(error.kind(), ErrorType::Response { status, .. } if status.is_client_error());
            let Some(pause) = pauses.next().filter(|_| passing) else { return Err(error) };
            let going_on = if pace::is_limited(&error) {
                stop.run_until_cancelled(self.until_allowed(pause)).await
            } else {
                stop.run_until_cancelled(tokio::time::sleep(pause)).await
            };
            if going_on.is_none() {
                return Err(error);
            }
        }
    }

    /// Registers the commands with Discord. A failure is not fatal, because the previously registered commands remain.
    async fn register(&self, application: Id<ApplicationMarker>, stop: &CancellationToken) {
        let commands = commands(self.access.default_permission());
        let client = self.http.interaction(application);
        let guilds = self.access.guilds();
        // In named servers the commands are available immediately. If they were also registered globally, they would
        // appear twice.
        let global: &[Command] = if guilds.is_empty() { &commands } else { &[] };
        let set_global = async || pace::at_most(1, client.set_global_commands(global)).await.map(drop);
        if let Err(error) = self.repeated(stop, set_global).await {
            tracing::warn!("global commands can't be registered: {error}");
        }
        for guild in guilds {
            let Some(id) = Id::new_checked(*guild) else { continue };
            let set = async || pace::at_most(1, client.set_guild_commands(id, &commands)).await.map(drop);
            match self.repeated(stop, set).await {
                Ok(()) => tracing::info!(guild, "commands registered"),
                Err(error) => tracing::warn!(
                    guild,
                    "commands can't be registered; is the bot in that server, invited with the scope \
                     `applications.commands`? {error}"
                ),
            }
        }
    }

    /// Runs all shards until the bot is stopped or one of them ends.
    async fn run_shards(&self, info: &BotConnectionInfo, stop: &CancellationToken) -> Result<Ended, BotError> {
        let start = &info.session_start_limit;
        if start.remaining == 0 {
            tracing::warn!(
                "discord lets the bot begin no session for {} s: it was started too often",
                start.reset_after / 1_000
            );
        }
        let remaining = start.remaining.min(start.total);
        let reset = Duration::from_millis(start.reset_after);
        let queue = InMemoryQueue::new(start.max_concurrency.max(1), remaining, reset, start.total);
        let gateway = self.settings.discord.gateway_url.clone().unwrap_or_else(|| info.url.clone());
        let config = ConfigBuilder::new(self.token.expose_secret().to_owned(), Intents::empty())
            .proxy_url(gateway.trim_end_matches('/').to_owned())
            .queue(queue)
            .build();
        let (ready, stop_shards) = (Arc::new(Ready::default()), stop.child_token());
        let mut shards = JoinSet::new();
        for id in twilight_gateway::bucket(0, 1, info.shards.max(1)) {
            let shard = Shard::with_config(id, config.clone());
            shards.spawn(gateway::run(shard, Arc::clone(&self.dispatcher), Arc::clone(&ready), stop_shards.clone()));
        }
        tracing::info!(shards = shards.len(), "connecting to discord");
        let mut first = None;
        while let Some(ended) = shards.join_next().await {
            let ended = match ended {
                Ok(Ended::Refused { code, meaning }) if code == 4_004 => {
                    tracing::error!(code, "{meaning}");
                    Err(BotError::Token)
                }
                Ok(Ended::Refused { code, meaning }) => Err(BotError::Gateway { code, meaning }),
                Ok(ended) => Ok(ended),
                Err(panicked) => Err(BotError::Shard(panicked.to_string())),
            };
            stop_shards.cancel();
            first.get_or_insert(ended);
        }
        first.unwrap_or(Ok(Ended::Stopped))
    }
}

/// Returns a client of the REST API at `url`, which validation has checked to be an origin. The client respects
/// Discord's rate limits.
fn http(url: &str, token: &SecretString) -> Http {
    let client = Http::builder().token(token.expose_secret().to_owned()).timeout(REQUEST);
    match Url::parse(url) {
        Ok(parsed) => {
            let host = parsed.host_str().unwrap_or_default();
            let port = parsed.port().map_or_else(String::new, |port| format!(":{port}"));
            client.proxy(format!("{host}{port}"), parsed.scheme() == "http").build()
        }
        Err(_) => client.build(),
    }
}

/// Why Discord has not answered.
enum Trouble {
    /// Discord refuses, and a retry would not change that.
    Final(BotError),
    /// A retry may succeed.
    Passing(String),
    /// Discord has received too many requests from this address.
    Limited,
}

impl From<HttpError> for Trouble {
    fn from(error: HttpError) -> Self {
        match error.kind() {
            _ if pace::is_limited(&error) => Self::Limited,
            ErrorType::Unauthorized => Self::Final(BotError::Token),
            ErrorType::Response { status, .. } if status.get() == 401 => Self::Final(BotError::Token),
            ErrorType::Response { status, .. } if status.is_client_error() => {
                Self::Final(BotError::Refused(error.to_string()))
            }
            _ => Self::Passing(error.source().map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))),
        }
    }
}

impl From<DeserializeBodyError> for Trouble {
    fn from(error: DeserializeBodyError) -> Self {
        Self::Passing(format!("its answer is not understood: {error}"))
    }
}

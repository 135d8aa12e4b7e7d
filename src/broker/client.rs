//! Publishes jobs and answers questions about them, from any number of tasks. Knows the routes and keeps connections.
//! How a result is awaited: [`call`](super::call).

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    BrokerError, DeadLetterStreams, Job, Outlook, Place, PublishError, Published, Publisher, Routes, RoutingError,
    SessionState, Subject, explain, session,
};
use crate::{
    config::{Settings, WorkerTypeSettings},
    connection::{Connection, ConnectionError, RedisTarget, is_lost},
    model::WorkerType,
};

/// Idle time after which a connection is checked before it is used again: a server (`timeout`), a firewall or a proxy
/// may have closed it. None of these has such a short timeout.
const TRUSTED: Duration = Duration::from_secs(1);
/// Maximum connections kept for later calls; each call in progress holds one more.
const SPARE: usize = 32;

/// Publishes jobs and calls them. Cheap to clone.
///
/// ```no_run
/// # use swarm::{broker::{Client, Job}, config::Settings, connection::RedisTarget};
/// # use std::{sync::Arc, time::Duration};
/// # async fn run(settings: Settings) -> Result<(), Box<dyn std::error::Error>> {
/// let target = RedisTarget::new(&settings.redis_url, settings.scaler.redis_timeout())?;
/// let client = Client::new(Arc::new(settings), target);
/// let job = Job::new("browser.goto", vec!["https://example.org".into()], Default::default());
/// let value = client.call(job, Duration::from_secs(30)).await?;
/// println!("{value}");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    settings: Arc<Settings>,
    routes: Routes,
    target: RedisTarget,
    /// Connection for commands that do not block; opened when needed.
    commands: tokio::sync::Mutex<Option<Idle>>,
    /// Connections for commands that wait for a result, each for one call at a time.
    spare: Mutex<Vec<Idle>>,
}

/// An unused connection, and since when it is unused.
struct Idle {
    connection: Connection,
    since: Instant,
}

impl Idle {
    fn now(connection: Connection) -> Self {
        Self { connection, since: Instant::now() }
    }

    /// Returns the connection if it still works. `limit` is the timeout of the check.
    async fn checked(mut self, limit: Duration) -> Option<Connection> {
        if self.since.elapsed() < TRUSTED {
            return Some(self.connection);
        }
        match tokio::time::timeout(limit, self.connection.check()).await {
            // A user without the right to PING gets an error, over a connection that works.
            Ok(answer) => answer.err().is_none_or(|error| !is_lost(&error)).then_some(self.connection),
            Err(_) => None,
        }
    }
}

/// Why a call has no value.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No worker can do such a job.
    #[error(transparent)]
    Routing(#[from] RoutingError),
    /// The connection failed; nothing was published.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    /// The job was not published, or its publishing is uncertain.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// The job was published, and its result can't be waited for. The job is done in any case.
    #[error("job {id} was published, and its result can't be waited for: {cause}")]
    Lost {
        /// Id of the job.
        id: String,
        /// Why the result can't be waited for.
        cause: BrokerError,
    },
    /// Redis did not answer a question.
    #[error(transparent)]
    Asking(BrokerError),
    /// The job failed; the result is an error.
    #[error("job {id} failed: {error}")]
    Failed {
        /// Id of the job.
        id: String,
        /// Error in the worker's words.
        error: String,
    },
    /// No result in time. The job is not withdrawn.
    #[error("job {id} did not answer within {timeout:?}:\n{why}")]
    NoAnswer {
        /// Id of the job.
        id: String,
        /// How long the call waited.
        timeout: Duration,
        /// Visible reasons, one line for each.
        why: String,
    },
}

impl Client {
    /// Returns a client of the Redis at `redis_url`, for programs without a configuration file. Connects on first use.
    /// Jobs named `TYPE.METHOD` go to the stream `TYPE:jobs` of the `worker_types` given here, all other jobs to the
    /// stream `jobs`.
    ///
    /// # Errors
    /// If the URL is invalid.
    pub fn open(redis_url: &str, worker_types: &[&str]) -> Result<Self, ConnectionError> {
        let worker_types = worker_types.iter().map(|&name| (name.to_owned(), WorkerTypeSettings::default())).collect();
        let settings = Settings { redis_url: redis_url.into(), worker_types, ..Settings::default() };
        let target = RedisTarget::new(&settings.redis_url, settings.scaler.redis_timeout())?;
        Ok(Self::new(Arc::new(settings), target))
    }

    /// Returns a client of the Redis at `target`. Connects on first use.
    pub fn new(settings: Arc<Settings>, target: RedisTarget) -> Self {
        let routes = Routes::from_env(&settings);
        Self(Arc::new(Inner {
            settings,
            routes,
            target,
            commands: tokio::sync::Mutex::default(),
            spare: Mutex::default(),
        }))
    }

    /// Publishes a job on the stream of its type.
    ///
    /// # Errors
    /// All errors except those of waiting.
    pub async fn publish(&self, job: &Job) -> Result<Published, CallError> {
        let stream = self.0.routes.stream(&job.job_type)?;
        let inner = &*self.0;
        let channel = inner.settings.signals.channel.as_str();
        let mut publisher = Publisher::new(self.commands().await?, channel, inner.settings.broker.clone());
        match publisher.publish(stream, std::slice::from_ref(job)).await {
            Ok(mut outcomes) => Ok(outcomes.remove(0)),
            Err(error) => {
                if matches!(&error, PublishError::Broker(error) if error.is_connection_lost()) {
                    *inner.commands.lock().await = None;
                }
                Err(error.into())
            }
        }
    }

    /// Returns which workers could do jobs of that type.
    ///
    /// # Errors
    /// If Redis can't be asked.
    pub async fn outlook(&self, job_type: &str) -> Result<Outlook, CallError> {
        let stream = self.0.routes.stream(job_type)?;
        let place = &Place::of(&self.0.settings, &self.0.routes, job_type, stream);
        self.ask(|mut connection| async move {
            let seen = explain::outlook(&mut connection, place).await;
            seen.map_err(|cause| BrokerError::new(format!("look at the workers of `{stream}`"), cause))
        })
        .await
    }

    /// Returns which worker holds session `name` of that worker type.
    ///
    /// # Errors
    /// If Redis can't be asked.
    pub async fn session(&self, worker_type: &WorkerType, name: &str) -> Result<SessionState, CallError> {
        self.ask(|mut connection| async move { session::state_of(&mut connection, worker_type, name).await }).await
    }

    /// Returns the names of the open sessions of that worker type that begin with `prefix`, sorted. Scans all keys: for
    /// rare questions of people.
    ///
    /// # Errors
    /// If Redis can't be asked.
    pub async fn sessions(&self, worker_type: &WorkerType, prefix: &str) -> Result<Vec<String>, CallError> {
        self.ask(|mut connection| async move { session::open_sessions(&mut connection, worker_type, prefix).await })
            .await
    }

    /// Returns a connection, and the dead letters of a worker type. `None` if it is not configured, or its jobs are a
    /// framework's.
    ///
    /// # Errors
    /// If Redis can't be asked.
    pub async fn dead_letters(
        &self,
        worker_type: &WorkerType,
    ) -> Result<(Connection, Option<DeadLetterStreams>), CallError> {
        self.ask(|connection| async move {
            let streams = DeadLetterStreams::of_type(&connection, &self.0.settings, worker_type.as_str()).await?;
            Ok((connection, streams))
        })
        .await
    }

    /// Asks an idempotent question, twice if necessary: a connection that was closed while it was idle shows that only
    /// when it is used.
    pub(super) async fn ask<T, Answer>(&self, question: impl Fn(Connection) -> Answer) -> Result<T, CallError>
    where
        Answer: Future<Output = Result<T, BrokerError>>,
    {
        match question(self.commands().await?).await {
            Err(error) if error.is_connection_lost() => {
                *self.0.commands.lock().await = None;
                question(self.commands().await?).await.map_err(CallError::Asking)
            }
            answer => answer.map_err(CallError::Asking),
        }
    }

    /// Returns every place where a job can be.
    pub(super) async fn places(&self, connection: &Connection) -> Result<Vec<Place>, BrokerError> {
        Place::all(connection, &self.0.settings, &self.0.routes).await
    }

    /// Returns the stream of the jobs of that type.
    pub(super) fn stream(&self, job_type: &str) -> Result<&str, RoutingError> {
        self.0.routes.stream(job_type)
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.0.settings
    }

    pub(super) async fn why(&self, job: &Job, subject: &Subject) -> String {
        let inner = &*self.0;
        let Ok(stream) = inner.routes.stream(&job.job_type) else { return String::new() };
        let place = Place::of(&inner.settings, &inner.routes, &job.job_type, stream);
        match self.commands().await {
            Ok(mut connection) => explain(&mut connection, &place, subject).await,
            Err(error) => format!("  - {error}"),
        }
    }

    /// Returns how much longer than the wait for a result Redis may take to reply that there is none.
    pub(super) fn slack(&self) -> Duration {
        self.0.target.response_timeout()
    }

    async fn commands(&self) -> Result<Connection, ConnectionError> {
        let mut open = self.0.commands.lock().await;
        let found = match open.take() {
            Some(idle) => idle.checked(self.slack()).await,
            None => None,
        };
        let connection = match found {
            Some(connection) => connection,
            None => self.0.target.connect().await?,
        };
        *open = Some(Idle::now(connection.clone()));
        Ok(connection)
    }

    pub(super) async fn waiting_connection(&self) -> Result<Connection, ConnectionError> {
        loop {
            let idle = self.spare().pop();
            let Some(idle) = idle else { return self.0.target.connect_without_timeout().await };
            if let Some(connection) = idle.checked(self.slack()).await {
                return Ok(connection);
            }
        }
    }

    /// Keeps a connection whose reply has arrived. The server may still be blocked on any other connection.
    pub(super) fn keep(&self, connection: Connection) {
        let mut spare = self.spare();
        if spare.len() < SPARE {
            spare.push(Idle::now(connection));
        }
    }

    fn spare(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.0.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

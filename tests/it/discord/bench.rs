//! What tests of the bot share: the real `swarm discord` as a process, between a real Redis and the fake.

use std::{
    fs,
    process::{Child, ExitStatus, Stdio},
    time::Duration,
};

use fred::prelude::Client as Fred;
use rustix::process::Signal;
use secrecy::SecretString;
use serde_json::Value;
use swarm::{
    broker::{Consumer, Delivery, Job, JobPolicy, JobResult},
    connection::RedisTarget,
};
use tempfile::TempDir;

use crate::{
    fake_discord::{FakeDiscord, GUILD, TOKEN},
    support::{
        autoscaler::swarm,
        command::redis as command,
        log::Log,
        processes::kill,
        redis::RedisServer,
        wait::{DEADLINE, eventually},
    },
};

/// A running bot.
pub(super) struct Bot {
    process: Child,
    pub(super) log: Log,
    _directory: TempDir,
}

/// The settings of a bot of the fake, for the server that it has: more of `[discord]`, and what comes behind.
pub(super) fn settings(fake: &FakeDiscord, redis: &RedisServer, discord: &str, more: &str) -> String {
    format!(
        "redis_url = \"{}\"\n[discord]\napi_url = \"{}\"\nguilds = [\"{GUILD}\"]\n{discord}\n\
         [worker_types.browser]\n{more}\n",
        redis.url(),
        fake.url(),
    )
}

impl Bot {
    /// Starts it with these settings and the fake's token.
    pub(super) fn start(settings: &str) -> Self {
        Self::start_with(settings, &[("DISCORD_TOKEN", TOKEN)])
    }

    /// Starts it with these settings and variables. It logs everything, so that what must not be in a log would be.
    pub(super) fn start_with(settings: &str, environment: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("swarm.toml"), settings).unwrap();
        let mut process = swarm(directory.path())
            .arg("discord")
            .env("SWARM_LOG", "trace")
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Log::capture(process.stderr.take().unwrap());
        Self { process, log, _directory: directory }
    }

    /// Starts it and waits until it is connected.
    pub(super) async fn ready(fake: &FakeDiscord, settings: &str) -> Self {
        let bot = Self::start(settings);
        fake.until_ready(1).await;
        bot
    }

    pub(super) fn signal(&self, signal: Signal) {
        kill(self.process.id(), signal);
    }

    pub(super) async fn exit(&mut self) -> ExitStatus {
        let mut status = None;
        let ended = eventually(DEADLINE, async || {
            status = self.process.try_wait().unwrap();
            status.is_some()
        });
        assert!(ended.await, "it does not end; its log:\n{}", self.log.tail());
        status.unwrap()
    }

    /// Waits until it has logged something with this text.
    pub(super) async fn until_logged(&self, text: &str) {
        let logged = eventually(DEADLINE, async || self.log.text().contains(text)).await;
        assert!(logged, "nobody logged `{text}`:\n{}", self.log.tail());
    }

    /// No secret of the bot, or of an interaction, is in the log.
    pub(super) fn assert_discreet(&self, fake: &FakeDiscord) {
        let log = self.log.text();
        assert!(!log.contains(TOKEN), "the bot's token is in the log");
        let tokens: Vec<String> = fake.see(|world| world.interactions.iter().map(|one| one.token.clone()).collect());
        assert!(tokens.iter().all(|token| !log.contains(token.as_str())), "an interaction's token is in the log");
    }
}

impl Drop for Bot {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A worker whose answers the test makes up.
pub(super) struct Hands {
    target: RedisTarget,
    client: Fred,
}

impl Hands {
    pub(super) async fn new(redis: &RedisServer) -> Self {
        let target = RedisTarget::new(&SecretString::from(redis.url()), Duration::from_secs(5)).unwrap();
        let mut connection = target.connect().await.unwrap();
        consumer().ensure_group(&mut connection).await.unwrap();
        Self { target, client: redis.client().await }
    }

    /// Says that it lives, and that it reads the stream.
    pub(super) async fn beat(&self) {
        let _: u64 = command(&self.client, "XGROUP CREATECONSUMER browser:jobs browser w1").await;
        let _: u64 = command(&self.client, "HSET worker:heartbeat:browser:w1 state IDLE").await;
    }

    /// Says that it holds the session of a channel of the server.
    pub(super) async fn hold(&self, channel: u64) {
        let _: String = command(&self.client, &format!("SET session:browser:discord:{GUILD}:{channel} w1")).await;
    }

    /// Takes the next job.
    pub(super) async fn take(&self) -> Delivery {
        let mut connection = self.target.connect_without_timeout().await.unwrap();
        let mut taken = Vec::new();
        let read = eventually(DEADLINE, async || {
            taken = consumer().read(&mut connection, 1, Duration::from_secs(1)).await.unwrap();
            !taken.is_empty()
        });
        assert!(read.await, "no job comes");
        taken.remove(0)
    }

    /// Takes the next job and answers it.
    pub(super) async fn work(&self, answer: impl FnOnce(&Job) -> Result<Value, String>) -> Job {
        let delivery = self.take().await;
        let job = delivery.job.clone().unwrap();
        self.answer(&delivery, answer(&job)).await;
        *job
    }

    /// Answers a job that was taken.
    pub(super) async fn answer(&self, delivery: &Delivery, answer: Result<Value, String>) {
        let mut connection = self.target.connect().await.unwrap();
        let result = JobResult::new(&delivery.job.as_ref().unwrap().id, answer);
        consumer().complete(&mut connection, &[(delivery, &result)]).await.unwrap();
    }
}

fn consumer() -> Consumer {
    let (stream, group, name) = ("browser:jobs".to_owned(), "browser".to_owned(), "w1".to_owned());
    Consumer { stream, group, name, policy: JobPolicy::default() }
}

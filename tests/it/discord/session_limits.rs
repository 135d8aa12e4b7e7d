//! How many browsers a person and a server may have open, and what frees a place. The worker is made up here.

use fred::prelude::{Client, FromValue, HashesInterface};
use serde_json::json;

use super::bench::{Bot, Hands, settings};
use crate::{
    fake_discord::{FakeDiscord, GUILD, Member, Message},
    support::{command::redis as command, redis::RedisServer},
};

const REFUSED: &str = "Too many browsers";

/// A bot with these limits, and a worker.
struct Bench {
    fake: FakeDiscord,
    redis: RedisServer,
    client: Client,
    hands: Hands,
    limits: &'static str,
    bot: Option<Bot>,
}

impl Bench {
    async fn new(limits: &'static str) -> Self {
        let (fake, redis) = (FakeDiscord::start().await, RedisServer::start());
        let (client, hands) = (redis.client().await, Hands::new(&redis).await);
        hands.beat().await;
        let mut bench = Self { fake, redis, client, hands, limits, bot: None };
        bench.start_bot().await;
        bench
    }

    /// Starts a bot; one that ran before is killed.
    async fn start_bot(&mut self) {
        self.bot = None;
        self.fake.act(|world| world.start_anew(1));
        let discord = format!("screenshots = false\n{}", self.limits);
        self.bot = Some(Bot::ready(&self.fake, &settings(&self.fake, &self.redis, &discord, "")).await);
    }

    fn start(&self, user: u64, channel: u64) -> usize {
        let member = Member { user, channel, ..Member::user() };
        self.fake.command(&member, "web", "start", json!([]))
    }

    /// Opens the browser of a channel.
    async fn open(&self, user: u64, channel: u64) {
        let asked = self.start(user, channel);
        let delivery = self.hands.take().await;
        assert_eq!(delivery.job.as_ref().unwrap().session, Some(session(channel)));
        self.hands.hold(channel).await;
        self.hands.answer(&delivery, Ok(json!({ "already_open": false, "page": {} }))).await;
        self.reply(asked, "Browser opened").await;
    }

    async fn refused(&self, user: u64, channel: u64) -> Message {
        let asked = self.start(user, channel);
        self.reply(asked, REFUSED).await
    }

    async fn reply(&self, asked: usize, title: &str) -> Message {
        self.fake.reply(asked, title, |reply| reply.title() == title).await
    }

    async fn redis<T: FromValue>(&self, words: &str) -> T {
        command(&self.client, words).await
    }
}

fn session(channel: u64) -> String {
    format!("discord:{GUILD}:{channel}")
}

#[tokio::test]
async fn a_person_and_a_server_have_at_most_so_many_browsers_open() {
    let bench = Bench::new("max_user_sessions = 2\nmax_guild_sessions = 3").await;
    bench.open(501, 701).await;
    bench.open(501, 702).await;
    let refused = bench.refused(501, 703).await;
    for part in ["2 browsers open", "/web close", "<#701>, <#702>", "discord.max_user_sessions"] {
        assert!(refused.text().contains(part), "`{part}` is missing in {refused:?}");
    }
    // A browser that is open is found by everybody, and stays whose it is.
    let again = bench.start(503, 701);
    bench.hands.work(|_| Ok(json!({ "already_open": true, "page": {} }))).await;
    bench.reply(again, "This channel's browser was open").await;

    bench.open(503, 703).await;
    let refused = bench.refused(503, 704).await;
    for part in ["server has 3 browsers open", "/web closeall", "discord.max_guild_sessions"] {
        assert!(refused.text().contains(part), "`{part}` is missing in {refused:?}");
    }
    // Closed by whom or by what does not matter.
    let _: u64 = bench.redis(&format!("DEL session:browser:{}", session(701))).await;
    bench.open(501, 704).await;
    assert_eq!(bench.redis::<u64>("XLEN browser:jobs").await, 5, "nothing is published that is refused");
    let noted: Vec<String> = bench.redis("HKEYS session-openers:browser").await;
    assert!(!noted.contains(&session(701)), "{noted:?}");
}

#[tokio::test]
async fn without_limits_nobody_is_counted() {
    let bench = Bench::new("max_user_sessions = 0\nmax_guild_sessions = 0").await;
    for channel in 701..=707 {
        bench.open(501, channel).await;
    }
    assert_eq!(bench.redis::<u64>("EXISTS session-openers:browser").await, 0);
}

/// A browser that is being opened counts; one that could not be opened does not.
#[tokio::test]
async fn a_start_that_fails_frees_its_place() {
    let bench = Bench::new("max_user_sessions = 1").await;
    let first = bench.start(501, 701);
    let delivery = bench.hands.take().await;
    bench.refused(501, 702).await;
    bench.hands.answer(&delivery, Err("Chromium can't be started".to_owned())).await;
    bench.reply(first, "Not done").await;
    bench.open(501, 702).await;
}

/// The count outlives the bot; a start that nobody answers any more, and a worker that died, hold no place.
#[tokio::test]
async fn neither_a_dead_bot_nor_a_dead_worker_keeps_a_place() {
    let mut bench = Bench::new("max_user_sessions = 1").await;
    bench.start(501, 701);
    bench.hands.take().await;
    bench.start_bot().await;
    bench.refused(501, 702).await;
    // The time within which the job can be started is over, and no worker has opened the session.
    let _: u64 = bench.client.hset("session-openers:browser", (session(701), "501 1")).await.unwrap();
    bench.open(501, 702).await;

    bench.refused(501, 703).await;
    let _: u64 = bench.redis("DEL worker:heartbeat:browser:w1").await;
    let asked = bench.start(501, 703);
    bench.fake.reply(asked, "it waits", |reply| reply.title() != REFUSED).await;
    bench.hands.work(|_| Ok(json!({ "page": {} }))).await;
    bench.reply(asked, "Browser opened").await;
    // Heard of again, the session of the worker that was only silent counts again.
    bench.hands.beat().await;
    bench.refused(501, 704).await;
}

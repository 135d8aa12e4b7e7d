//! When the answer does not come at once, or not at all.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;
use swarm::broker::Refusal;

use super::bench::{Bot, Hands, settings};
use crate::{
    fake_discord::{FakeDiscord, Member, World},
    support::{
        command::redis as command,
        redis::RedisServer,
        wait::{DEADLINE, eventually},
    },
};

/// No worker, and nobody who would start one: the reply says so while it waits, then why there is no answer; and when
/// the answer comes after all, it is told in a message of its own.
#[tokio::test]
async fn without_an_autoscaler_the_reply_explains_itself_and_a_late_answer_follows() {
    let (fake, redis) = (FakeDiscord::start().await, RedisServer::start());
    let bot = Bot::ready(&fake, &settings(&fake, &redis, "answer_seconds = 3\nscreenshots = false", "")).await;
    let asked = fake.command(&Member::user(), "web", "start", json!([]));
    let waiting =
        fake.reply(asked, "it says that nobody starts workers", |reply| reply.title() == "Nobody starts workers");
    assert!(waiting.await.text().contains("swarm autoscaler"));
    let given_up = fake.reply(asked, "it says why", |reply| reply.title() == "No answer within 3 s").await;
    for finding in ["no worker has ever read it", "no autoscaler is running: nobody starts workers"] {
        assert!(given_up.text().contains(finding), "`{finding}` is missing in {}", given_up.text());
    }

    let hands = Hands::new(&redis).await;
    hands.work(|_| Ok(json!({ "already_open": false, "page": { "url": "about:blank", "title": "" } }))).await;
    fake.until("the answer follows", |world| world.interactions[asked].follow_ups.len() == 1).await;
    let (follow_up, reply) = fake.see(|world| {
        let interaction = &world.interactions[asked];
        (interaction.follow_ups[0].clone(), interaction.reply.clone().unwrap())
    });
    assert_eq!((follow_up.title(), reply.title()), ("Browser opened", "No answer within 3 s"));
    assert_eq!(follow_up.body["allowed_mentions"]["parse"], json!([]));
    bot.assert_discreet(&fake);
}

/// Words in between are few: each is said once.
#[tokio::test]
async fn a_worker_that_takes_its_time_is_waited_for() {
    let (fake, redis) = (FakeDiscord::start().await, RedisServer::start());
    let hands = Hands::new(&redis).await;
    hands.beat().await;
    let _bot = Bot::ready(&fake, &settings(&fake, &redis, "", "")).await;
    let asked = fake.command(&Member::user(), "web", "start", json!([]));
    fake.reply(asked, "it works", |reply| reply.title() == "Working…").await;
    // Longer than the three seconds that Discord gives for the first reply.
    let created = fake.see(|world| world.interactions[asked].created);
    assert!(eventually(DEADLINE, async || created.elapsed() > Duration::from_secs(4)).await);
    hands.work(|_| Ok(json!({ "already_open": true, "page": { "url": "u", "title": "t" } }))).await;
    fake.reply(asked, "it is answered", |reply| reply.title() == "This channel's browser was open").await;
    let titles: Vec<String> =
        fake.see(|world| world.interactions[asked].history.iter().map(|one| one.title().to_owned()).collect());
    assert_eq!(titles, ["Working…", "This channel's browser was open"]);
}

/// What a handler says is text like any other: it means nothing to Discord.
#[tokio::test]
async fn the_progress_of_a_job_is_shown_while_it_runs() {
    let (fake, redis) = (FakeDiscord::start().await, RedisServer::start());
    let hands = Hands::new(&redis).await;
    hands.beat().await;
    let bot = Bot::ready(&fake, &settings(&fake, &redis, "screenshots = false", "")).await;
    let asked = fake.command(&Member::user(), "web", "start", json!([]));
    let delivery = hands.take().await;
    let key = format!("browser:jobs:progress:{}", delivery.job.as_ref().unwrap().id);
    let client = redis.client().await;
    for (fraction, shown) in [("0.4", r"40 \%\: \@everyone"), ("0.8", r"80 \%\: \@everyone")] {
        let write = format!("HSET {key} worker w1 at 1 text @everyone fraction {fraction}");
        let _: u64 = command(&client, &write).await;
        let reply = fake.reply(asked, "it shows the progress", |reply| reply.text() == shown).await;
        assert!(reply.title() == "Working…" && reply.buttons().len() == 1, "{reply:?}");
    }
    hands.answer(&delivery, Ok(json!({ "page": {} }))).await;
    let answered = fake.reply(asked, "it is answered", |reply| reply.title() == "Browser opened").await;
    assert!(!answered.text().contains('%'), "{answered:?}");
    bot.assert_discreet(&fake);
}

#[tokio::test]
async fn a_bot_that_is_stopped_says_so_where_it_is_waited_for() {
    let (fake, redis) = (FakeDiscord::start().await, RedisServer::start());
    let mut bot = Bot::ready(&fake, &settings(&fake, &redis, "", "")).await;
    let asked = fake.command(&Member::user(), "web", "start", json!([]));
    fake.reply(asked, "it waits", |_| true).await;
    bot.signal(Signal::TERM);
    assert!(bot.exit().await.success(), "{}", bot.log.tail());
    let said = fake.see(|world| world.interactions[asked].reply.clone().unwrap());
    assert_eq!(said.title(), "The bot was stopped before the answer came");
}

#[tokio::test]
async fn redis_that_is_away_is_told_and_its_return_is_waited_for() {
    let (fake, mut redis) = (FakeDiscord::start().await, RedisServer::start());
    let _bot = Bot::ready(&fake, &settings(&fake, &redis, "", "")).await;
    redis.kill();
    let asked = fake.command(&Member::user(), "web", "start", json!([]));
    let told = fake.reply(asked, "it says that redis is away", |reply| reply.title() == "Not possible now").await;
    assert!(told.text().contains("can't connect to redis"), "{told:?}");
    redis.restart();
    let asked = fake.command(&Member::user(), "web", "start", json!([]));
    fake.reply(asked, "it waits", |reply| reply.title() == "Nobody starts workers").await;
}

/// After that nobody could be told, so nothing is to happen either.
#[tokio::test]
async fn what_is_given_up_is_told_and_not_begun_any_more() {
    let (fake, redis) = (FakeDiscord::start().await, RedisServer::start());
    let discord = "answer_seconds = 1\ngive_up_seconds = 3";
    let _bot = Bot::ready(&fake, &settings(&fake, &redis, discord, "")).await;
    let asked = fake.command(&Member::user(), "web", "start", json!([]));
    let told = fake.reply(asked, "it is given up", |reply| reply.title() == "No answer within 3 s").await;
    assert!(told.text().contains("The job was cancelled."), "{told:?}");
    assert!(told.buttons().is_empty(), "{told:?}");
    let marks: u64 = command(&redis.client().await, "HLEN browser:jobs:cancelled").await;
    assert_eq!(marks, 1);
    // Whoever does not look at the marks finds it too late.
    let delivery = Hands::new(&redis).await.take().await;
    assert!(matches!(delivery.job, Err(Refusal::Expired { .. })), "{delivery:?}");
}

/// Somebody has deleted the reply: the answer comes in a message of its own.
#[tokio::test]
async fn a_reply_that_was_deleted_is_replaced() {
    let (fake, redis) = (FakeDiscord::start().await, RedisServer::start());
    let hands = Hands::new(&redis).await;
    hands.beat().await;
    let _bot = Bot::ready(&fake, &settings(&fake, &redis, "screenshots = false", "")).await;
    let asked = fake.command(&Member::user(), "web", "start", json!([]));
    fake.until("it is under way", |world| world.interactions[asked].callback.is_some()).await;
    fake.act(World::delete_replies);
    hands.work(|_| Ok(json!({ "page": {} }))).await;
    fake.until("the answer is there all the same", |world| world.interactions[asked].follow_ups.len() == 1).await;
    assert_eq!(fake.see(|world| world.interactions[asked].follow_ups[0].title().to_owned()), "Browser opened");
}

//! The button that cancels a job while a reply waits for it.

use serde_json::json;

use super::bench::{Bot, Hands, settings};
use crate::{
    fake_discord::{FakeDiscord, Member, Message},
    support::{command::redis as command, redis::RedisServer, worker::WorkerProcess},
};

/// A bot, and a command that nobody answers: the fake, the number of the command and the button under its reply.
async fn waiting(redis: &RedisServer, worker_type: &str) -> (FakeDiscord, Bot, usize, String) {
    let fake = FakeDiscord::start().await;
    let discord = format!("screenshots = false\nbrowser_type = \"{worker_type}\"");
    let bot = Bot::ready(&fake, &settings(&fake, redis, &discord, "[worker_types.t]")).await;
    let asked = fake.command(&Member::user(), "web", "start", json!([]));
    let shown = fake.reply(asked, "it can be cancelled", |reply| !reply.buttons().is_empty()).await;
    let button = shown.buttons()[0].to_owned();
    assert!(shown.buttons().len() == 1 && button.starts_with("swarm:cancel:"), "{shown:?}");
    (fake, bot, asked, button)
}

async fn press(fake: &FakeDiscord, member: &Member, button: &str) -> Message {
    let pressed = fake.act(|world| world.press(member, button));
    let told = fake.reply(pressed, button, |_| true).await;
    assert!(told.is_private(), "{told:?}");
    told
}

async fn marks(redis: &RedisServer) -> u64 {
    command(&redis.client().await, "HLEN browser:jobs:cancelled").await
}

#[tokio::test]
async fn whoever_asked_cancels_and_a_stranger_does_not() {
    let redis = RedisServer::start();
    Hands::new(&redis).await.beat().await;
    let (fake, bot, asked, button) = waiting(&redis, "browser").await;
    let refused = press(&fake, &Member { user: 503, ..Member::user() }, &button).await;
    assert_eq!((refused.title(), marks(&redis).await), ("Not allowed", 0));

    assert_eq!(press(&fake, &Member::user(), &button).await.title(), "Cancelled");
    let ended = fake.reply(asked, "it says so", |reply| reply.title() == "Not done").await;
    assert!(ended.text().contains("cancelled") && ended.buttons().is_empty(), "{ended:?}");
    assert_eq!(marks(&redis).await, 1, "no worker begins it");
    assert_eq!(press(&fake, &Member::user(), &button).await.title(), "Nothing to cancel");
    let other = "swarm:cancel:0199f1c2-7d3e-7c61-9f7a-0d5f3a1b2c3d";
    assert_eq!(press(&fake, &Member::administrator(), other).await.title(), "Nothing to cancel");
    bot.assert_discreet(&fake);
}

/// A real worker stops the job that it runs.
#[tokio::test]
async fn an_operator_cancels_a_job_that_runs() {
    let redis = RedisServer::start();
    let program = "heartbeat_seconds = 1\nhandler = \"exec\"\nexec = [\"sleep\", \"1000\"]";
    let worker = WorkerProcess::start(&redis.url(), "w1", program);
    let (fake, _bot, asked, button) = waiting(&redis, "t").await;
    worker.until_state(&redis.client().await, "BUSY").await;
    assert_eq!(press(&fake, &Member::administrator(), &button).await.title(), "Cancelled", "{}", worker.log());
    let ended = fake.reply(asked, "it says so", |reply| reply.title() == "Not done").await;
    assert!(ended.text().contains("cancelled"), "{ended:?}");
}

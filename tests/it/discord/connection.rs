//! The gateway and the REST API as they come: who the bot says it is, what it does when connections break, and what it
//! does not tell.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use super::bench::{Bot, settings};
use crate::{
    fake_discord::{APPLICATION, FakeDiscord, Fault, GUILD, Member, Refusal, TOKEN, World},
    support::{
        command::redis as command,
        http::get,
        redis::RedisServer,
        wait::{DEADLINE, eventually},
    },
};

/// A bot that is connected.
async fn connected(discord: &str) -> (FakeDiscord, RedisServer, Bot) {
    let (fake, redis) = (FakeDiscord::start().await, RedisServer::start());
    let bot = Bot::ready(&fake, &settings(&fake, &redis, discord, "")).await;
    (fake, redis, bot)
}

/// A command that is answered without anybody's help.
async fn is_answered(fake: &FakeDiscord) {
    let asked = fake.command(&Member::user(), "web", "status", json!([]));
    fake.reply(asked, "it is answered", |reply| reply.title() == "This channel has no browser open").await;
}

#[tokio::test]
async fn it_says_who_it_is_registers_its_commands_answers_and_leaves() {
    let (fake, _redis, mut bot) = connected("").await;
    let identify = fake.see(|world| world.identifies[0].clone());
    assert_eq!((&identify["intents"], &identify["shard"]), (&json!(0), &json!([0, 1])));
    fake.until("commands are registered", |world| world.commands.contains_key(&Some(GUILD))).await;
    let (global, of_guild) = fake.see(|world| (world.commands[&None].clone(), world.commands[&Some(GUILD)].clone()));
    assert!(global.is_empty(), "there would be two of each: {global:?}");
    let names: Vec<_> = of_guild.iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["web", "swarm"]);
    let subcommands = |at: usize| of_guild[at]["options"].as_array().unwrap().len();
    assert_eq!((subcommands(0), subcommands(1)), (8, 6));
    assert_eq!(of_guild[1]["default_member_permissions"], json!("8"), "administrators see it");

    is_answered(&fake).await;
    bot.assert_discreet(&fake);
    bot.signal(Signal::TERM);
    assert!(bot.exit().await.success(), "{}", bot.log.tail());
    fake.until("it has said goodbye", |world| world.goodbyes == [1_000]).await;
    bot.assert_discreet(&fake);
}

#[tokio::test]
async fn without_servers_commands_are_global() {
    let (fake, redis) = (FakeDiscord::start().await, RedisServer::start());
    // Through another gateway than the one that the API names, as with a proxy.
    let gateway = format!("gateway_url = \"{}\"", fake.act(World::name_no_gateway));
    let everywhere = settings(&fake, &redis, &gateway, "").replace(&format!("guilds = [\"{GUILD}\"]"), "guilds = []");
    let _bot = Bot::ready(&fake, &everywhere).await;
    fake.until("commands are registered", |world| world.commands.get(&None).is_some_and(|all| all.len() == 2)).await;
    is_answered(&fake).await;
}

#[tokio::test]
async fn a_token_that_is_missing_or_wrong_is_told_and_not_shown() {
    let (fake, redis) = (FakeDiscord::start().await, RedisServer::start());
    let settings = settings(&fake, &redis, "", "");
    for (environment, says) in [
        (vec![], "set DISCORD_TOKEN"),
        (vec![("DISCORD_TOKEN", "hunter2.hunter3")], "discord refuses the token"),
        (vec![("DISCORD_TOKEN", "hunter2 hunter3")], "copy it again"),
    ] {
        let mut bot = Bot::start_with(&settings, &environment);
        assert_eq!(bot.exit().await.code(), Some(1));
        bot.until_logged(says).await;
        assert!(!bot.log.text().contains("hunter2"), "{}", bot.log.tail());
    }
    assert!(fake.see(|world| world.identifies.is_empty()));
}

#[tokio::test]
async fn a_token_from_a_file_wins_and_one_that_the_gateway_refuses_ends_the_bot() {
    let (fake, redis) = (FakeDiscord::start().await, RedisServer::start());
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("{TOKEN}\n")).unwrap();
    let settings = settings(&fake, &redis, &format!("token_file = \"{}\"", file.path().display()), "");
    let mut bot = Bot::start_with(&settings, &[("DISCORD_TOKEN", "wrong")]);
    fake.until_ready(1).await;
    fake.act(|world| world.close(4_004));
    assert_eq!(bot.exit().await.code(), Some(1));
    bot.until_logged("discord refuses the token").await;
    bot.assert_discreet(&fake);
}

#[tokio::test]
async fn discord_that_is_away_at_first_is_waited_for() {
    let (fake, redis) = (FakeDiscord::start().await, RedisServer::start());
    fake.fail("GET", "/applications/@me", Fault::Status(502, 0));
    fake.fail("GET", "/gateway/bot", Fault::Status(503, 0));
    let bot = Bot::ready(&fake, &settings(&fake, &redis, "", "")).await;
    is_answered(&fake).await;
    bot.until_logged("discord can't be reached, trying again").await;
}

/// What is given while the connection is gone is answered afterwards: the session goes on.
#[tokio::test]
async fn broken_connections_are_resumed_and_nothing_is_missed() {
    let (fake, _redis, bot) = connected("").await;
    for (round, breaks) in [World::reconnect, World::cut].into_iter().enumerate() {
        fake.act(breaks);
        fake.until("the connection is gone", |world| world.connected() == 0 || world.resumes.len() > round).await;
        let asked = fake.command(&Member::user(), "web", "status", json!([]));
        fake.until("the session goes on", |world| world.resumes.len() == round + 1 && world.connected() == 1).await;
        fake.reply(asked, "it is answered", |_| true).await;
    }
    fake.act(|world| world.close(4_000));
    fake.until("the session goes on", |world| world.resumes.len() == 3 && world.connected() == 1).await;
    assert_eq!(fake.see(|world| world.identifies.len()), 1, "no new session was needed");
    is_answered(&fake).await;
    bot.assert_discreet(&fake);
}

#[tokio::test]
async fn an_invalid_session_is_replaced_by_a_new_one() {
    let (fake, _redis, _bot) = connected("").await;
    fake.act(World::invalidate);
    fake.until("there is another session", |world| world.identifies.len() == 2 && world.connected() == 1).await;
    is_answered(&fake).await;
}

#[tokio::test]
async fn a_connection_that_no_longer_answers_is_given_up() {
    let (fake, redis) = (FakeDiscord::start().await, RedisServer::start());
    fake.act(|world| world.heartbeat_ms = 2_000);
    let _bot = Bot::ready(&fake, &settings(&fake, &redis, "", "")).await;
    fake.until("it heartbeats", |world| world.heartbeats > 2).await;
    assert!(fake.see(|world| world.resumes.is_empty()), "answered heartbeats are enough");
    fake.act(|world| world.acknowledges = false);
    fake.until("it connects again by itself", |world| !world.resumes.is_empty()).await;
    fake.act(|world| world.acknowledges = true);
    fake.until_ready(1).await;
    is_answered(&fake).await;
}

#[tokio::test]
async fn there_are_as_many_shards_as_discord_wants_also_when_it_changes_its_mind() {
    let (fake, redis) = (FakeDiscord::start().await, RedisServer::start());
    fake.act(|world| world.shards = 2);
    let _bot = Bot::start(&settings(&fake, &redis, "", ""));
    fake.until_ready(2).await;
    let mut shards = fake.see(|world| world.identifies.iter().map(|one| one["shard"].to_string()).collect::<Vec<_>>());
    shards.sort();
    assert_eq!(shards, ["[0,2]", "[1,2]"]);
    is_answered(&fake).await;
    // Resuming fails, since the sessions are gone; and a new one with two shards is refused with 4011.
    fake.act(|world| world.start_anew(3));
    fake.until_ready(3).await;
    is_answered(&fake).await;
}

#[tokio::test]
async fn rate_limits_are_kept() {
    let (fake, _redis, bot) = connected("").await;
    fake.fail("PATCH", "/messages/@original", Fault::TooMany(2));
    is_answered(&fake).await;
    assert_eq!(fake.see(|world| world.too_early), 0, "it did not wait");
    bot.assert_discreet(&fake);
}

/// The edge of Discord's network refuses an address for longer the more it asks.
#[tokio::test]
async fn a_bot_that_is_refused_at_its_start_asks_twice_and_waits() {
    let refused = async |how: Refusal| {
        let (fake, redis) = (FakeDiscord::start().await, RedisServer::start());
        // Longer than this test may be held up between two looks.
        fake.act(|world| world.refused = Some((how, 12)));
        let bot = Bot::start(&settings(&fake, &redis, "", ""));
        bot.until_logged("discord has too many requests from here").await;
        let asked = fake.see(|world| world.requests.len());
        assert!(asked <= 2, "{how:?}: {asked} requests");
        fake.act(|world| world.refused = None);
        fake.until_ready(1).await;
        is_answered(&fake).await;
        bot.assert_discreet(&fake);
    };
    tokio::join!(refused(Refusal::Json), refused(Refusal::Text), refused(Refusal::Global));
}

/// A reply that nobody takes is given up; its command is not repeated at fifty requests a second.
#[tokio::test]
async fn a_reply_that_is_refused_is_not_sent_again_and_again() {
    let (fake, _redis, bot) = connected("").await;
    fake.until("commands are registered", |world| world.commands.contains_key(&Some(GUILD))).await;
    let before = fake.see(|world| world.requests.len());
    fake.act(|world| world.refused = Some((Refusal::Text, 60)));
    fake.command(&Member::user(), "web", "status", json!([]));
    bot.until_logged("discord has too many requests from here, and takes none").await;
    let asked = fake.see(|world| world.requests.len()) - before;
    assert!((1..=3).contains(&asked), "{asked} requests");
    bot.assert_discreet(&fake);
}

#[tokio::test]
async fn a_reply_that_discord_fails_to_take_is_sent_again() {
    let (fake, _redis, _bot) = connected("").await;
    fake.fail("PATCH", "/messages/@original", Fault::Status(500, 0));
    is_answered(&fake).await;
}

/// Discord forgets an interaction after three seconds, and one that somebody else has replied to is theirs: what it
/// asks for is not done, since nobody would hear of it.
#[tokio::test]
async fn what_is_too_old_or_taken_is_not_done() {
    let (fake, redis, bot) = connected("").await;
    let data =
        json!({ "id": "77", "name": "web", "type": 1, "options": [{ "name": "start", "type": 1, "options": [] }] });
    let old = Instant::now().checked_sub(Duration::from_secs(4)).unwrap();
    let missed = fake.act(|world| world.interact(&Member::user(), 2, data, old, 1 << 20));
    bot.until_logged("discord no longer takes replies to this command").await;
    fake.fail("POST", "/callback", Fault::Status(400, 40_060));
    fake.command(&Member::user(), "web", "start", json!([]));
    bot.until_logged("does another `swarm discord` run with the same token?").await;
    is_answered(&fake).await;
    let jobs: u64 = command(&redis.client().await, "XLEN browser:jobs").await;
    assert_eq!(jobs, 0);
    assert!(fake.see(|world| world.interactions[missed].callback.is_none()));
    assert_eq!(
        fake.see(|world| world.requests.iter().filter(|one| one.contains(&APPLICATION.to_string())).count()),
        3,
        "two registrations and one edit: {:?}",
        fake.see(|world| world.requests.clone())
    );
}

#[tokio::test]
async fn it_counts_what_it_does() {
    let (fake, _redis, bot) = connected("metrics_listen = \"127.0.0.1:0\"").await;
    is_answered(&fake).await;
    bot.until_logged("metrics at=").await;
    let line = |text: String| {
        text.lines().find_map(|line| line.split_once("metrics at=")?.1.split_whitespace().next().map(str::to_owned))
    };
    let url = format!("http://{}/metrics", line(bot.log.text()).unwrap());
    let mut shown = String::new();
    let counted = eventually(DEADLINE, async || {
        shown = get(&url, DEADLINE).await.unwrap().1;
        shown.contains("swarm_discord_commands_total{command=\"web status\",outcome=\"failed\"} 1")
    });
    assert!(counted.await, "{shown}");
    assert!(
        shown.contains("swarm_discord_shards_ready 1") && shown.contains("swarm_discord_acknowledged_seconds_count 1"),
        "{shown}"
    );
    assert!(get(&url.replace("/metrics", "/healthz"), DEADLINE).await.unwrap().0.is_success());
}

#[tokio::test]
async fn settings_that_do_not_fit_are_told_with_the_cure() {
    let (fake, redis) = (FakeDiscord::start().await, RedisServer::start());
    for (discord, says) in [
        ("browser_type = \"shop\"", "there are: browser"),
        ("user_roles = [\"my role\"]", "\"my role\" is no id"),
        ("answer_seconds = 900", "an integer from 1 to 840"),
        ("gateway_url = \"discord.gg\"", "such as \"wss://gateway.discord.gg\""),
    ] {
        let mut bot = Bot::start(&settings(&fake, &redis, discord, ""));
        assert_eq!(bot.exit().await.code(), Some(1));
        bot.until_logged(says).await;
    }
}

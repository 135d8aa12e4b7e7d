//! `/web …`: who may, what reaches the workers, and what comes back of it. The worker's answers are made up here.

use std::time::Instant;

use base64::{Engine, prelude::BASE64_STANDARD};
use fred::prelude::KeysInterface;
use serde_json::{Value, json};

use super::bench::{Bot, Hands, settings};
use crate::{
    fake_discord::{FakeDiscord, GUILD, Member, Message, flag, text},
    support::{command::redis as command, redis::RedisServer},
};

/// A bot and a worker.
async fn bench(discord: &str) -> (FakeDiscord, RedisServer, Bot, Hands) {
    let (fake, redis) = (FakeDiscord::start().await, RedisServer::start());
    let hands = Hands::new(&redis).await;
    hands.beat().await;
    let bot = Bot::ready(&fake, &settings(&fake, &redis, discord, "")).await;
    (fake, redis, bot, hands)
}

async fn jobs(redis: &RedisServer) -> u64 {
    command(&redis.client().await, "XLEN browser:jobs").await
}

fn png() -> Value {
    json!({ "png": BASE64_STANDARD.encode(b"\x89PNG\r\n\x1a\nnot much of one"), "width": 1, "height": 1 })
}

/// The reply when there is nothing more to come.
async fn reply(fake: &FakeDiscord, asked: usize, title: &str) -> Message {
    fake.reply(asked, title, |reply| reply.title() == title).await
}

#[tokio::test]
async fn each_command_is_a_job_of_the_channels_session_and_its_answer_a_reply() {
    let (fake, _redis, bot, hands) = bench("screenshots = false").await;
    let ann = Member::user();
    let page = json!({ "url": "https://example.org/", "title": "An example", "status": 200 });
    let asked = fake.command(&ann, "web", "start", json!([text("url", "https://example.org")]));
    let job = hands.work(|_| Ok(json!({ "session": "x", "already_open": false, "page": page }))).await;
    assert_eq!((job.job_type.as_str(), &job.args), ("browser.start", &vec![json!("https://example.org")]));
    assert_eq!(job.session, Some(format!("discord:{GUILD}:701")));
    assert!(job.deadline_ts.is_some(), "nobody acts on a page when nobody can be told any more");
    let started = reply(&fake, asked, "Browser opened").await;
    assert_eq!((started.field("Page"), started.field("Status")), ("An example", "200"));
    assert_eq!(started.field("Address"), r"https\:\/\/example\.org\/");
    assert_eq!(fake.see(|world| world.interactions[asked].kind()), Some(5), "it was deferred");

    hands.hold(701).await;
    for (subcommand, options, job_type, args, answer, title) in [
        (
            "open",
            json!([text("url", "http://example.org/b")]),
            "goto",
            json!(["http://example.org/b"]),
            page,
            "Page loaded",
        ),
        ("click", json!([text("selector", "#go")]), "click", json!(["#go"]), Value::Null, "Clicked"),
        (
            "fill",
            json!([text("selector", "#a"), text("text", "me")]),
            "fill",
            json!(["#a", "me"]),
            Value::Null,
            "Filled in",
        ),
        ("screenshot", json!([flag("full_page", true)]), "screenshot", json!([true]), png(), "The page"),
        (
            "status",
            json!([]),
            "status",
            json!([]),
            json!({ "url": "u", "title": "t", "open_seconds": 12 }),
            "This channel's browser",
        ),
        ("close", json!([]), "close", json!([]), json!({ "closed": 1 }), "Browser closed"),
    ] {
        let asked = fake.command(&ann, "web", subcommand, options);
        let job = hands.work(|_| Ok(answer)).await;
        assert_eq!((job.job_type, json!(job.args)), (format!("browser.{job_type}"), args));
        let shown = reply(&fake, asked, title).await;
        assert_eq!(shown.files.len(), usize::from(subcommand == "screenshot"));
        if subcommand == "screenshot" {
            assert!(shown.files["page.png"].starts_with(b"\x89PNG"));
            assert_eq!(shown.body["embeds"][0]["image"]["url"], "attachment://page.png");
        }
    }
    bot.assert_discreet(&fake);
}

#[tokio::test]
async fn actions_show_the_page_and_failures_their_cause() {
    let (fake, _redis, _bot, hands) = bench("").await;
    let ann = Member::user();
    hands.hold(701).await;
    let asked = fake.command(&ann, "web", "click", json!([text("selector", "#go")]));
    hands.work(|_| Ok(Value::Null)).await;
    assert_eq!(hands.work(|_| Ok(png())).await.job_type, "browser.screenshot");
    let shown = fake.reply(asked, "with a picture", |reply| !reply.files.is_empty()).await;
    assert_eq!(shown.title(), "Clicked");

    let asked = fake.command(&ann, "web", "click", json!([text("selector", "#go")]));
    hands.work(|_| Err("no element matches `#go` @everyone".to_owned())).await;
    let failed = reply(&fake, asked, "Not done").await;
    assert_eq!(failed.text(), "```\nno element matches ˋ#goˋ @everyone\n```");
    assert!(failed.files.is_empty() && failed.body["attachments"] == json!([]), "no picture from before: {failed:?}");

    // A picture that is larger than files may be there.
    let data = json!({ "id": "77", "name": "web", "type": 1, "options": [{ "name": "screenshot", "type": 1 }] });
    let asked = fake.act(|world| world.interact(&ann, 2, data, Instant::now(), 10));
    hands.work(|_| Ok(png())).await;
    let shown = reply(&fake, asked, "The page").await;
    assert!(shown.files.is_empty() && shown.field("No picture").contains("larger than Discord takes"), "{shown:?}");
}

#[tokio::test]
async fn without_a_browser_nobody_is_started_to_say_so() {
    let (fake, redis, _bot, _hands) = bench("").await;
    let asked = fake.command(&Member::user(), "web", "click", json!([text("selector", "a")]));
    let shown = reply(&fake, asked, "This channel has no browser open").await;
    assert!(shown.text().contains("/web start"), "{shown:?}");
    let mark = format!("session-lost:browser:discord:{GUILD}:701");
    let _: () = redis.client().await.set(mark, "1763896658250 w9", None, None, false).await.unwrap();
    let asked = fake.command(&Member::user(), "web", "status", json!([]));
    assert!(reply(&fake, asked, "This channel's browser was lost").await.text().contains("w9"));
    assert_eq!(jobs(&redis).await, 0);
}

#[tokio::test]
async fn who_may_not_is_told_so_privately_and_nothing_is_done() {
    let (fake, redis, _bot, _hands) = bench("user_roles = [\"601\"]\noperator_roles = [\"602\"]").await;
    let (ann, admin) = (Member::user(), Member::administrator());
    let stranger = Member { roles: vec![5], ..ann.clone() };
    let elsewhere = Member { guild: Some(GUILD + (1 << 22)), ..admin.clone() };
    let alone = Member { guild: None, ..ann.clone() };
    for (member, command, subcommand, says) in [
        (&stranger, "web", "start", "none of the roles"),
        (&elsewhere, "web", "start", "This server is not one"),
        (&alone, "web", "start", "not in direct messages"),
        (&ann, "web", "closeall", "for operators"),
        (&ann, "swarm", "status", "for operators"),
        (&ann, "web", "fly", "does not know that"),
    ] {
        let asked = fake.command(member, command, subcommand, json!([]));
        let refused = fake.reply(asked, says, |reply| reply.text().contains(says)).await;
        assert!(refused.is_private(), "{refused:?}");
    }
    // Whoever is not shown a command may still be a program that sends it.
    let typing = fake.act(|world| world.typing(&ann, "why", "bro"));
    fake.until("nothing is offered", |world| world.interactions[typing].callback.is_some()).await;
    let offered = fake.see(|world| world.interactions[typing].callback.clone().unwrap().0);
    assert_eq!((&offered["type"], &offered["data"]["choices"]), (&json!(8), &json!([])));
    assert_eq!(jobs(&redis).await, 0);
}

#[tokio::test]
async fn addresses_that_pages_may_not_go_to_reach_no_worker() {
    let (fake, redis, _bot, _hands) = bench("").await;
    for (url, says) in [
        ("example.org", "is none"),
        ("file:///etc/passwd", "is not opened"),
        ("http://127.0.0.1:6379/", "is a loopback address"),
        ("http://[::ffff:a00:1]/", "is a private address"),
        ("http://2852039166/latest", "is a link\\-local address"),
    ] {
        let asked = fake.command(&Member::user(), "web", "start", json!([text("url", url)]));
        let refused = fake.reply(asked, says, |reply| reply.title() == "No such page").await;
        assert!(refused.text().contains(says) && refused.is_private(), "{refused:?}");
    }
    assert_eq!(jobs(&redis).await, 0);
}

#[tokio::test]
async fn too_many_commands_of_one_person_or_in_one_channel_are_refused() {
    let (fake, _redis, _bot, _hands) = bench("user_per_minute = 2\nchannel_per_minute = 3").await;
    let (ann, bob) = (Member::user(), Member { user: 503, ..Member::user() });
    for (member, title) in [
        (&ann, "This channel has no browser open"),
        (&ann, "This channel has no browser open"),
        (&ann, "Too many commands"),
        (&bob, "This channel has no browser open"),
        (&bob, "Too many commands"),
    ] {
        let asked = fake.command(member, "web", "status", json!([]));
        reply(&fake, asked, title).await;
    }
}

/// Whatever people and pages write, nobody is called and nothing is formatted.
#[tokio::test]
async fn text_of_others_means_nothing() {
    let (fake, _redis, _bot, hands) = bench("screenshots = false").await;
    let evil = "@everyone <@501> [x](https://evil.example) **b** `c` ```d``` ||e|| <t:0> # f";
    let asked = fake.command(&Member::user(), "web", "start", json!([]));
    let page = json!({ "url": "https://evil.example/?<@501>", "title": evil });
    hands.work(|_| Ok(json!({ "already_open": false, "page": page }))).await;
    let shown = reply(&fake, asked, "Browser opened").await;
    let expected =
        r"\@everyone \<\@501\> \[x\]\(https\:\/\/evil\.example\) \*\*b\*\* \`c\` \`\`\`d\`\`\` \|\|e\|\| \<t\:0\> \# f";
    assert_eq!(shown.field("Page"), expected);
    hands.hold(701).await;
    let asked = fake.command(&Member::user(), "web", "click", json!([text("selector", evil)]));
    hands.work(|_| Ok(Value::Null)).await;
    let shown = reply(&fake, asked, "Clicked").await;
    assert_eq!(shown.text().matches('`').count(), 4, "{}", shown.text());
    let all = fake.see(|world| world.interactions.iter().flat_map(|one| one.history.clone()).collect::<Vec<_>>());
    assert!(all.iter().all(|message| message.body["allowed_mentions"]["parse"] == json!([])), "{all:#?}");
    assert!(all.iter().all(|message| message.body["content"].is_null()), "{all:#?}");
}

#[tokio::test]
async fn closing_all_reaches_every_channel_of_the_server_and_no_other() {
    let (fake, redis, _bot, hands) = bench("").await;
    let client = redis.client().await;
    for channel in [701, 702, 703] {
        hands.hold(channel).await;
    }
    let _: String = command(&client, "SET session:browser:discord:99:701 w1").await;
    let _: String = command(&client, "SET session:browser:general w1").await;
    let asked = fake.command(&Member::administrator(), "web", "closeall", json!([]));
    let mut closed = Vec::new();
    for _ in 0..3 {
        let job = hands.work(|_| Ok(json!({ "closed": 1 }))).await;
        assert_eq!(job.job_type, "browser.close");
        closed.extend(job.session);
    }
    closed.sort();
    assert_eq!(closed, [701, 702, 703].map(|channel| format!("discord:{GUILD}:{channel}")));
    reply(&fake, asked, "Closed 3 of 3 browsers of this server").await;
    assert_eq!(jobs(&redis).await, 3);
}

#[tokio::test]
async fn more_commands_than_the_bot_takes_at_a_time_are_refused() {
    let (fake, _redis, _bot, hands) = bench("max_under_way = 1\nscreenshots = false").await;
    let first = fake.command(&Member::user(), "web", "start", json!([]));
    fake.until("it is under way", |world| world.interactions[first].callback.is_some()).await;
    let second = fake.command(&Member { user: 503, ..Member::user() }, "web", "status", json!([]));
    assert!(reply(&fake, second, "Busy").await.is_private());
    hands.work(|_| Ok(json!({ "page": {} }))).await;
    reply(&fake, first, "Browser opened").await;
}

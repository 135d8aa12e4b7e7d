//! `/swarm …` with a real autoscaler: what is shown is what the commands of the binary show, and what is ordered is
//! done, and known as somebody's of Discord.

use fred::types::Value;
use serde_json::json;
use swarm::model::control::Mode;

use super::bench::{Bot, Hands, settings};
use crate::{
    fake_discord::{FakeDiscord, GUILD, Member, Message, flag, number, text},
    support::{
        autoscaler::{Autoscaler, NO_SWEEP, PATIENT, SLEEPER, pool},
        command::{add_jobs, records, redis as command},
        needs::repository,
        redis::RedisServer,
    },
};

struct Bench {
    fake: FakeDiscord,
    redis: RedisServer,
    scaler: Autoscaler,
    _bot: Bot,
}

/// An autoscaler with workers that do nothing, and a bot that knows it.
async fn bench() -> Bench {
    let (fake, redis) = (FakeDiscord::start().await, RedisServer::start());
    let pools = pool("test", "max_workers = 8, scale_up_threshold = 2, cooldown_seconds = 0", SLEEPER);
    let scaler = Autoscaler::start(&redis.url(), &format!("{NO_SWEEP}{PATIENT}{pools}")).await;
    scaler.until_ready().await;
    let discord = format!("status_url = \"{}\"", scaler.url());
    let more = format!("{pools}[scaler]\n{PATIENT}");
    let bot = Bot::ready(&fake, &settings(&fake, &redis, &discord, &more)).await;
    Bench { fake, redis, scaler, _bot: bot }
}

impl Bench {
    async fn ask(&self, subcommand: &str, options: serde_json::Value) -> Message {
        let asked = self.fake.command(&Member::administrator(), "swarm", subcommand, options);
        self.fake.reply(asked, subcommand, |_| true).await
    }

    async fn press(&self, button: &str) -> (u64, Message) {
        let pressed = self.fake.act(|world| world.press(&Member::administrator(), button));
        let reply = self.fake.reply(pressed, button, |_| true).await;
        (self.fake.see(|world| world.interactions[pressed].kind().unwrap()), reply)
    }

    async fn until_mode(&self, mode: Option<Mode>) {
        let is = async || self.scaler.of("test").await.control.as_ref().map(|control| control.mode) == mode;
        self.scaler.until(&format!("its control is {mode:?}"), is).await;
    }
}

#[tokio::test]
async fn operators_see_what_the_commands_show() {
    let bench = bench().await;
    add_jobs(&bench.redis.client().await, "test:jobs", 5).await;
    bench.scaler.until_workers("test", 3).await;
    bench.scaler.until_quiet().await;

    let all = bench.ask("status", json!([])).await;
    assert!(all.is_private() && all.text().contains("orchestrator process"), "{all:?}");
    assert!(all.field("test").starts_with("3 ready"), "{all:?}");
    assert!(all.field("test").contains("5 waiting, 0 in work"), "{all:?}");
    let one = bench.ask("status", json!([text("type", "test")])).await;
    assert_eq!((one.title(), one.field("LAG"), one.field("DESIRED")), ("test", "5", "3"));
    assert_eq!(one.buttons(), ["swarm:status:test", "swarm:why:test", "swarm:status", "swarm:pause:test"]);
    let why = bench.ask("why", json!([text("type", "test")])).await;
    for line in
        ["depth        5 = 5 waiting + 0 delivered and unfinished", "1. depth 5 ≥ 2 wants 3", "bounds       0 to 8"]
    {
        assert!(why.text().contains(line), "`{line}` is missing in {}", why.text());
    }
    bench.scaler.until("it is recorded", async || !records(&bench.redis.client().await, "test").await.is_empty()).await;
    let events = bench.ask("events", json!([text("type", "test"), number("count", 5)])).await;
    assert!(events.text().contains("0 → 3") || events.text().contains("→ 3"), "{}", events.text());

    let nobody = bench.ask("why", json!([text("type", "nobody")])).await;
    assert!(nobody.title() == "Not done" && nobody.text().contains("knows no worker type"), "{nobody:?}");
    let typing = bench.fake.act(|world| world.typing(&Member::administrator(), "why", "te"));
    bench.fake.until("names are offered", |world| world.interactions[typing].callback.is_some()).await;
    let offered = bench.fake.see(|world| world.interactions[typing].callback.clone().unwrap().0);
    assert_eq!(
        (&offered["type"], &offered["data"]["choices"]),
        (&json!(8), &json!([{ "name": "test", "value": "test" }]))
    );

    // What a button shows is for whoever presses it: the reply that it is on stays as it is for everybody.
    for (button, title) in [("swarm:why:test", "Why"), ("swarm:status:test", "test")] {
        let (kind, shown) = bench.press(button).await;
        assert_eq!((kind, shown.title()), (5, title));
        assert!(shown.is_private(), "{shown:?}");
    }
}

#[tokio::test]
async fn operators_orders_are_given_and_known_as_theirs() {
    let bench = bench().await;
    let paused =
        bench.ask("pause", json!([text("type", "test"), text("reason", "the *site* is down"), text("for", "10m")]));
    let paused = paused.await;
    assert_eq!((paused.title(), paused.text()), (r"test\: paused for 600 s", r"the \*site\* is down"));
    assert!(!paused.is_private(), "everybody sees what is changed");
    bench.until_mode(Some(Mode::Paused)).await;
    let (kind, resumed) = bench.press("swarm:resume:test").await;
    assert_eq!((kind, resumed.title()), (5, r"test\: resumed"));
    bench.until_mode(None).await;
    let observed = bench.ask("pause", json!([text("type", "test"), flag("observe", true)])).await;
    assert_eq!(observed.title(), r"test\: only observed");
    bench.until_mode(Some(Mode::Observe)).await;
    bench.ask("resume", json!([text("type", "test")])).await;
    let again = bench.ask("resume", json!([text("type", "test")])).await;
    assert_eq!(again.title(), "test is neither paused nor pinned");
    let scaled = bench.ask("scale", json!([text("type", "test"), number("workers", 2)])).await;
    assert_eq!(scaled.title(), r"test\: scaled once to 2\, held for 5 s");
    bench.scaler.until_workers("test", 2).await;

    let refused = bench.ask("scale", json!([text("type", "test"), number("workers", 9)])).await;
    assert!(refused.text().contains("9 is outside of what ˋtestˋ may have, 0 to 8"), "{refused:?}");
    let refused = bench.ask("pause", json!([text("type", "test"), text("for", "soon")])).await;
    assert!(refused.text().contains("such as 10m"), "{refused:?}");

    let client = bench.redis.client().await;
    bench.scaler.until("it is recorded", async || records(&client, "test").await.len() >= 6).await;
    let records = records(&client, "test").await;
    let said: Vec<_> = records.iter().filter(|record| record.contains_key("by")).collect();
    let decisions: Vec<_> = said.iter().map(|record| record["decision"].as_str()).collect();
    assert_eq!(decisions, ["paused", "resumed", "observe", "resumed", "pinned"]);
    assert!(said.iter().all(|record| record["by"] == "eve.admin@discord (502)"), "{said:?}");
    assert_eq!(said[0]["why"], "the *site* is down");
}

#[tokio::test]
async fn without_an_autoscaler_status_says_so() {
    let (fake, redis) = (FakeDiscord::start().await, RedisServer::start());
    let _bot = Bot::ready(&fake, &settings(&fake, &redis, "status_url = \"http://127.0.0.1:1\"", "")).await;
    let asked = fake.command(&Member::administrator(), "swarm", "status", json!([]));
    let told = fake.reply(asked, "it says so", |reply| reply.title() == "Not done").await;
    assert!(told.text().contains("no autoscaler is running at http://127.0.0.1:1"), "{told:?}");
    let asked = fake.command(&Member::administrator(), "swarm", "events", json!([]));
    fake.reply(asked, "there are none", |reply| reply.title() == "Nothing was changed yet").await;
}

/// A bot whose Redis user has the rights of `docs/protocol.md`, no more, does everything and is refused nothing.
#[tokio::test]
async fn the_documented_rights_are_enough() {
    let (fake, redis) = (FakeDiscord::start().await, RedisServer::start());
    let client = redis.client().await;
    let page = std::fs::read_to_string(repository("docs/protocol.md")).unwrap();
    let rule = page.lines().find(|line| line.contains("ACL SETUSER discord")).unwrap();
    let _: String = command(&client, rule).await;
    let url = format!("redis://discord:secret@127.0.0.1:{}/0", redis.port());
    let more = format!("[scaler]\n{PATIENT}");
    let settings = settings(&fake, &redis, "answer_seconds = 3\nscreenshots = false", &more);
    let _bot = Bot::ready(&fake, &settings.replace(&redis.url(), &url)).await;
    let hands = Hands::new(&redis).await;
    let asked = fake.command(&Member::user(), "web", "start", json!([]));
    let waiting = fake.reply(asked, "it can be cancelled", |reply| !reply.buttons().is_empty()).await;
    let pressed = fake.act(|world| world.press(&Member::user(), waiting.buttons()[0]));
    fake.reply(pressed, "it is cancelled", |reply| reply.title() == "Cancelled").await;
    hands.take().await;
    let asked = fake.command(&Member::user(), "web", "start", json!([]));
    let why = fake.reply(asked, "it says why", |reply| reply.title() == "No answer within 3 s").await;
    assert!(why.text().contains("no autoscaler is running") && !why.text().contains("can't look"), "{why:?}");
    hands.work(|_| Ok(json!({ "page": {} }))).await;
    fake.until("it is answered", |world| world.interactions[asked].follow_ups.len() == 1).await;
    hands.hold(701).await;
    let admin = Member::administrator();
    let asked = fake.command(&admin, "web", "closeall", json!([]));
    hands.work(|_| Ok(json!({ "closed": 1 }))).await;
    fake.reply(asked, "they are closed", |reply| reply.title().starts_with("Closed 1 of 1")).await;
    // The closed browser frees its place with the next start.
    let _: u64 = command(&client, &format!("DEL session:browser:discord:{GUILD}:701")).await;
    let asked = fake.command(&Member { channel: 702, ..Member::user() }, "web", "start", json!([]));
    hands.work(|_| Ok(json!({ "page": {} }))).await;
    fake.reply(asked, "another one is open", |reply| reply.title() == "Browser opened").await;
    let noted: Vec<String> = command(&client, "HKEYS session-openers:browser").await;
    assert_eq!(noted, [format!("discord:{GUILD}:702")]);
    let browser = text("type", "browser");
    for (subcommand, options, title) in [
        ("pause", json!([browser, text("for", "10m")]), r"browser\: paused for 600 s"),
        ("scale", json!([browser, number("workers", 1)]), r"browser\: scaled once to 1\, held for 5 s"),
        ("resume", json!([browser]), r"browser\: resumed"),
        ("events", json!([]), "What was changed, newest first"),
    ] {
        let asked = fake.command(&admin, "swarm", subcommand, options);
        fake.reply(asked, title, |reply| reply.title() == title).await;
    }
    let refused: Value = command(&client, "ACL LOG").await;
    assert!(matches!(&refused, Value::Array(entries) if entries.is_empty()), "{refused:?}");
}

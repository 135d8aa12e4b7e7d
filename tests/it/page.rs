//! The status page in a real Chromium, served by the real autoscaler under load, and its stream.

use std::net::SocketAddr;

use crate::support::{
    autoscaler::{Autoscaler, FAST_SWEEP, PATIENT, SLEEPER, pool, real_pool, swarm},
    command::{add_jobs, add_sleep, redis},
    redis::RedisServer,
    tab::{Relay, Tab},
};

const DESKTOP: (u32, u32) = (1280, 900);
const PHONE: (u32, u32) = (390, 844);

/// Real workers, one type that is held by its maximum, one that can't be read, and one at rest.
fn settings() -> String {
    let work = real_pool("work", "max_workers = 4, scale_up_threshold = 2, cooldown_seconds = 2");
    let full = pool("full", "max_workers = 2, scale_up_threshold = 1", SLEEPER);
    let odd = pool("odd", "max_workers = 3", SLEEPER);
    let rest = pool("rest", "max_workers = 3", SLEEPER);
    format!("{FAST_SWEEP}{PATIENT}{work}{full}{odd}{rest}")
}

fn address(scaler: &Autoscaler) -> SocketAddr {
    scaler.url().trim_start_matches("http://").parse().unwrap()
}

/// `swarm`, told where the autoscaler's configuration is.
fn order(scaler: &Autoscaler, words: &[&str]) {
    let file = scaler.directory().join("swarm.toml");
    let output = swarm(scaler.directory()).env("USER", "ann").args(words).arg("--config").arg(file).output().unwrap();
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The text of a part of a worker type's card.
fn card(name: &str, part: &str) -> String {
    format!("document.querySelector('[data-type={name}] {part}').textContent")
}

#[cfg_attr(without_chromium, ignore = "there is no Chromium")]
#[tokio::test]
async fn a_pool_whose_workers_fail_to_start_is_red_with_what_the_platform_said() {
    let server = RedisServer::start();
    let settings = pool("broken", "min_workers = 1, max_workers = 2", "exit 3");
    let scaler = Autoscaler::start(&server.url(), &settings).await;
    let tab = Tab::open(&scaler.url(), DESKTOP, false).await;
    let pill = "document.querySelector('[data-type=broken] .pill')";
    tab.until(&format!("{pill}?.dataset.state === 'bad' && {pill}.textContent === 'failing to start'")).await;
    tab.until(&format!("{}.includes('3')", card("broken", ".note.bad"))).await;
}

#[cfg_attr(without_chromium, ignore = "there is no Chromium")]
#[tokio::test]
async fn the_page_shows_what_happens_while_it_happens() {
    let server = RedisServer::start();
    let client = server.client().await;
    let _: u64 = redis(&client, "LPUSH odd:jobs x").await;
    let scaler = Autoscaler::start(&server.url(), &settings()).await;
    add_jobs(&client, "full:jobs", 40).await;
    let reason = "the <b>site</b> & its \"friends\" are down";
    order(&scaler, &["pause", "rest", "--for", "30m", "--reason", reason]);
    let tab = Tab::open(&scaler.url(), DESKTOP, false).await;
    tab.until("document.getElementById('link').textContent === 'live'").await;
    tab.until("document.querySelectorAll('.card').length === 4").await;

    // It is there already, and goes on while somebody looks.
    tab.until(&format!("{}.startsWith('held at 2')", card("full", ".decision"))).await;
    for job in 0..6 {
        add_sleep(&client, "work", &format!("j{job}"), 5.0).await;
    }
    tab.until(&format!("{} === '3'", card("work", ".big b"))).await;
    tab.until("[...document.querySelectorAll('[data-type=work] .tag')].some((tag) => tag.textContent === 'BUSY')")
        .await;
    tab.until("[...document.querySelectorAll('.events .change')].some((change) => change.textContent.endsWith('→ 3'))")
        .await;
    tab.until(&format!("{}.includes('another type than configured')", card("odd", ".note.bad"))).await;
    let note = tab.value(&card("rest", ".note.warn")).await;
    let note = note.as_str().unwrap_or_default();
    assert!(note.starts_with("Paused by ann@") && note.ends_with(reason), "{note}");
    assert_eq!(tab.value("document.querySelectorAll('.card b b, .events b b').length").await, 0, "markup came in");
    let drawn = "['.edge', '.workers'].every((part) => document.querySelector(`[data-type=work] ${part}`).getAttribute('d').length > 20)";
    tab.until(drawn).await;
    tab.value("document.querySelectorAll('[data-type=work] details, [data-type=full] details').forEach((part) => part.open = true)").await;
    for (dark, shade) in [(false, "light"), (true, "dark")] {
        tab.darken(dark).await;
        for (size, device) in [(DESKTOP, "desktop"), (PHONE, "phone")] {
            tab.resize(size).await;
            tab.until("document.documentElement.scrollWidth <= innerWidth").await;
            tab.picture(&format!("page-{device}-{shade}")).await;
        }
    }
    let opened = "document.querySelectorAll('[data-type=work] details[open]').length";
    assert_eq!(tab.value(opened).await, 2, "what was opened stays open");
    // The jobs are done and the workers go: the page sees that too.
    tab.until(&format!("{} === '0'", card("work", ".big b"))).await;
    assert_eq!(tab.faults().await, serde_json::json!([]));
}

#[cfg_attr(without_chromium, ignore = "there is no Chromium")]
#[tokio::test]
async fn of_many_worker_types_some_are_shown_and_the_filter_finds_the_others() {
    let server = RedisServer::start();
    let types: String = (0..150).map(|number| pool(&format!("t{number:03}"), "max_workers = 1", SLEEPER)).collect();
    let scaler = Autoscaler::start(&server.url(), &types).await;
    let client = server.client().await;
    scaler.until_ready().await;
    let tab = Tab::open(&scaler.url(), DESKTOP, true).await;
    tab.until("document.querySelectorAll('.card').length === 100").await;
    tab.until("document.getElementById('types-note').textContent.startsWith('The 100 of 150')").await;
    // One that was not shown has something to show now.
    assert_eq!(tab.value("document.querySelector('[data-type=t149]')").await, serde_json::Value::Null);
    add_jobs(&client, "t149:jobs", 3).await;
    tab.until(&format!("document.querySelector('[data-type=t149]') !== null && {} === '1'", card("t149", ".big b")))
        .await;
    tab.until("document.querySelectorAll('.card').length === 100").await;
    let filter = |text: &str| {
        format!(
            "(() => {{ const box = document.getElementById('filter'); box.value = '{text}'; box.dispatchEvent(new Event('input')); }})()"
        )
    };
    tab.value(&filter("t14")).await;
    tab.until("document.querySelectorAll('.card').length === 10").await;
    tab.value(&filter("nobody")).await;
    tab.until("document.querySelectorAll('.card').length === 0 && document.getElementById('types-note').textContent.includes('nobody')").await;
    tab.value(&filter("")).await;
    tab.until("document.querySelectorAll('.card').length === 100").await;
    assert_eq!(tab.faults().await, serde_json::json!([]));
}

#[cfg_attr(without_chromium, ignore = "there is no Chromium")]
#[tokio::test]
async fn a_page_that_was_cut_off_says_so_and_catches_up() {
    let server = RedisServer::start();
    let client = server.client().await;
    let scaler = Autoscaler::start(&server.url(), &settings()).await;
    let relay = Relay::to(address(&scaler)).await;
    let tab = Tab::open(&relay.url(), PHONE, true).await;
    tab.until("document.querySelectorAll('.card').length === 4").await;
    let before = tab.value("document.title").await;
    relay.cut().await;
    tab.until("document.getElementById('link').textContent === 'connection lost'").await;

    // Another autoscaler, with one worker type less and work for another.
    let fewer = settings().split("[worker_types.rest]").next().unwrap().to_owned();
    let scaler = scaler.restart(&server.url(), &fewer).await;
    add_jobs(&client, "full:jobs", 9).await;
    scaler.until_workers("full", 2).await;
    relay.mend(address(&scaler));
    tab.until("document.getElementById('link').textContent === 'live'").await;
    tab.until("document.querySelectorAll('.card').length === 3").await;
    tab.until(&format!("{} === '2'", card("full", ".big b"))).await;
    tab.until(&format!("document.title !== {before}")).await;
    assert_eq!(tab.faults().await, serde_json::json!([]));
}

#[cfg_attr(without_chromium, ignore = "there is no Chromium")]
#[tokio::test]
async fn with_a_read_token_the_page_asks_for_it_and_keeps_it_in_memory_only() {
    const TOKEN: &str = "readers-0123456789";
    let server = RedisServer::start();
    let settings = format!("read_token = {TOKEN:?}\n{}", pool("rest", "max_workers = 3", SLEEPER));
    let scaler = Autoscaler::start(&server.url(), &settings).await;
    let tab = Tab::open(&scaler.url(), PHONE, true).await;
    tab.until("document.getElementById('link').textContent === 'locked'").await;
    tab.unlock("readers-wrong-0000").await;
    tab.until("document.getElementById('link').textContent === 'token refused'").await;
    tab.unlock(TOKEN).await;
    tab.until("document.getElementById('link').textContent === 'live'").await;
    tab.until("document.querySelectorAll('.card').length === 1").await;
    assert_eq!(tab.value("getComputedStyle(document.getElementById('unlock')).display").await, "none");
    let places = "[location.href, document.cookie, JSON.stringify(localStorage), JSON.stringify(sessionStorage), \
                  document.getElementById('token').value].join(' ')";
    let places = tab.value(places).await;
    assert!(!places.as_str().unwrap().contains("readers"), "{places}");
    assert_eq!(tab.faults().await, serde_json::json!([]));

    // The command line has the token from its configuration.
    order(&scaler, &["status", "--url", &scaler.url()]);
    let bare =
        swarm(scaler.directory()).args(["status", "--url", &scaler.url(), "--config", "/none"]).output().unwrap();
    let told = String::from_utf8_lossy(&bare.stderr).into_owned();
    assert!(!bare.status.success() && told.contains("read_token_file"), "{told}");
}

#[cfg_attr(without_chromium, ignore = "there is no Chromium")]
#[tokio::test]
async fn the_buttons_ask_for_the_token_and_keep_it_in_memory_only() {
    const TOKEN: &str = "operators-0123456789";
    let server = RedisServer::start();
    let rest = pool("rest", "max_workers = 3, cooldown_seconds = 0", SLEEPER);
    let settings = format!("token = {TOKEN:?}\n[scaler]\n{PATIENT}{rest}");
    let scaler = Autoscaler::start(&server.url(), &settings).await;
    let tab = Tab::open(&scaler.url(), PHONE, true).await;
    let controls = "document.querySelector('[data-type=rest] .controls')";
    tab.until(&format!("{controls} !== null")).await;
    let said = format!("{controls}.querySelector('[role=status]').textContent");
    let asks = format!("!{controls}.querySelector('form.note').hidden");
    let enter = |token: &str| {
        format!(
            "(() => {{ const form = {controls}.querySelector('form.note'); \
             form.querySelector('input').value = '{token}'; form.querySelector('button').click(); }})()"
        )
    };
    tab.value(&format!("{controls}.open = true")).await;
    tab.value(&format!("{controls}.querySelector('[data-action=pause]').click()")).await;
    tab.until(&asks).await;
    tab.value(&enter("operators-wrong-000")).await;
    tab.until(&format!("{asks} && {said}.includes('refused')")).await;
    assert!(scaler.of("rest").await.control.is_none(), "it was paused without the token");
    // The token carries out what was asked for.
    tab.value(&enter(TOKEN)).await;
    tab.until(&format!("{said} === 'rest: paused for 600 s'")).await;
    tab.until(&format!("{}.startsWith('Paused by')", card("rest", ".note.warn"))).await;
    tab.value(&format!("{controls}.querySelector('[data-action=resume]').click()")).await;
    scaler.until("it is resumed", async || scaler.of("rest").await.control.is_none()).await;
    let scale = format!(
        "(() => {{ {controls}.querySelector('.count').value = '2'; \
         {controls}.querySelector('[data-action=scale]').click(); }})()"
    );
    tab.value(&scale).await;
    scaler.until_workers("rest", 2).await;
    tab.until("document.documentElement.scrollWidth <= innerWidth").await;
    tab.picture("page-controls").await;
    let places = "[location.href, document.cookie, JSON.stringify(localStorage), JSON.stringify(sessionStorage), \
                  ...[...document.querySelectorAll('input')].map((input) => input.value)].join(' ')";
    let places = tab.value(places).await;
    assert!(!places.as_str().unwrap().contains("operators"), "{places}");
    assert_eq!(tab.faults().await, serde_json::json!([]));
    assert!(!scaler.log().contains(TOKEN), "{}", scaler.log());
}

#[cfg_attr(without_chromium, ignore = "there is no Chromium")]
#[tokio::test]
async fn without_a_token_there_are_no_buttons() {
    let server = RedisServer::start();
    let scaler = Autoscaler::start(&server.url(), &pool("rest", "max_workers = 3", SLEEPER)).await;
    let tab = Tab::open(&scaler.url(), DESKTOP, true).await;
    tab.until("document.getElementById('link').textContent === 'live'").await;
    tab.until("document.querySelectorAll('.card').length === 1").await;
    assert_eq!(tab.value("document.querySelectorAll('.controls').length").await, 0);
}

#[cfg_attr(without_chromium, ignore = "there is no Chromium")]
#[tokio::test]
async fn dead_letters_are_listed_retried_and_dropped_on_the_page() {
    const TOKEN: &str = "operators-0123456789";
    let server = RedisServer::start();
    let client = server.client().await;
    let fields = "dead_reason failed dead_error <b>no-such-page</b> dead_entry 5-0 dead_group rest dead_attempts 3";
    for number in 1..=30 {
        let job = format!(r#"{{"id":"j{number}","type":"rest.echo"}}"#);
        let _: String = redis(&client, &format!("XADD rest:jobs:dead {number}-0 json {job} {fields}")).await;
    }
    let _: String = redis(&client, &format!("XADD rest:jobs:dead 31-0 json nonsense {fields}")).await;
    // Nobody takes the jobs that are put back.
    let rest = pool("rest", "max_workers = 3", SLEEPER);
    let settings = format!("token = {TOKEN:?}\n[scaler]\n{PATIENT}dry_run = true\n{rest}");
    let scaler = Autoscaler::start(&server.url(), &settings).await;
    let tab = Tab::open(&scaler.url(), PHONE, true).await;
    let dead = "document.querySelector('[data-type=rest] .dead-letters')";
    tab.until(&format!("{dead} !== null")).await;
    let shown = |count: usize| format!("{dead}.querySelectorAll('li').length === {count}");
    let said = |words: &str| format!("{dead}.querySelector('[role=status]').textContent.includes('{words}')");
    let click = |what: &str| format!("{dead}.querySelector('{what}').click()");
    tab.value(&format!("{dead}.open = true")).await;
    tab.until(&said("Enter the token")).await;
    let enter = format!(
        "(() => {{ const form = {dead}.querySelector('form.note'); \
         form.querySelector('input').value = '{TOKEN}'; form.querySelector('button').click(); }})()"
    );
    tab.value(&enter).await;
    tab.until(&shown(20)).await;
    tab.until(&said("20 of 31")).await;
    let text = tab.value(&format!("{dead}.querySelector('li').innerText")).await;
    let text = text.as_str().unwrap();
    for part in ["j1", "rest.echo", "failed, 3 attempts", "<b>no-such-page</b>"] {
        assert!(text.contains(part), "`{part}` is missing in {text}");
    }
    tab.until("document.documentElement.scrollWidth <= innerWidth").await;
    tab.picture("page-dead-letters").await;

    tab.value(&click("[data-entry=\"1-0\"] [data-action=retry]")).await;
    tab.until(&said("rest: 1 dead letter retried")).await;
    tab.until(&shown(19)).await;
    assert_eq!(redis::<u64>(&client, "XLEN rest:jobs").await, 1);
    tab.value(&click("[data-action=more]")).await;
    tab.until(&shown(11)).await;
    // Dropping deletes for good: the first click asks.
    let drop = click("[data-entry=\"31-0\"] [data-action=drop]");
    tab.value(&drop).await;
    tab.until(&format!(
        "{dead}.querySelector('[data-entry=\"31-0\"] [data-action=drop]').textContent.includes('sure')"
    ))
    .await;
    assert_eq!(redis::<u64>(&client, "XLEN rest:jobs:dead").await, 30);
    tab.value(&drop).await;
    tab.until(&said("rest: 1 dead letter dropped")).await;
    tab.value(&click("[data-action=retry-all]")).await;
    tab.until(&said("rest: 29 dead letters retried")).await;
    assert_eq!(redis::<u64>(&client, "XLEN rest:jobs:dead").await, 0);
    assert_eq!(redis::<u64>(&client, "XLEN rest:jobs").await, 30);
    assert_eq!(tab.faults().await, serde_json::json!([]));
}

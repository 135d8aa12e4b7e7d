//! The page of one worker type in a real Chromium, served by the real autoscaler.

use hyper::StatusCode;

use crate::support::{
    autoscaler::{Autoscaler, FAST_SWEEP, NO_SWEEP, PATIENT, SLEEPER, gated_pool, pool, swarm},
    command::{add_jobs, redis},
    gate::Gate,
    http::get,
    redis::RedisServer,
    tab::{Relay, Tab},
    wait::DEADLINE,
};

const DESKTOP: (u32, u32) = (1280, 900);
const PHONE: (u32, u32) = (390, 844);

const LIVE: &str = "document.getElementById('link').textContent === 'live'";

fn page_of(url: &str, name: &str) -> String {
    format!("{url}/types/{name}")
}

/// The text of one of the facts behind the decision; undefined while it is not there.
fn fact(name: &str) -> String {
    format!("{}.find((row) => row[0] === '{name}')?.[1]", cells("why"))
}

/// The texts of the cells of a table's body.
fn cells(table: &str) -> String {
    format!("[...document.querySelectorAll('#{table} tr')].map((row) => [...row.cells].map((one) => one.textContent))")
}

#[cfg_attr(without_chromium, ignore = "there is no Chromium")]
#[tokio::test]
async fn the_page_of_a_worker_type_says_why_and_shows_its_workers_and_its_history() {
    let (server, gate) = (RedisServer::start(), Gate::new());
    let client = server.client().await;
    let scaling = "max_workers = 2, scale_up_threshold = 1, cooldown_seconds = 0";
    let settings = format!("{FAST_SWEEP}{PATIENT}{}", gated_pool("work", scaling, &gate));
    let scaler = Autoscaler::start(&server.url(), &settings).await;
    for job in 0..3 {
        let _: String = redis(&client, &format!(r#"XADD work:jobs * json {{"id":"j{job}","type":"work.run"}}"#)).await;
    }
    scaler.until_workers("work", 2).await;
    let tab = Tab::open(&scaler.url(), DESKTOP, false).await;
    tab.until("document.querySelector('[data-type=work] h3 a') !== null").await;
    let href = tab.value("document.querySelector('[data-type=work] h3 a').href").await;
    assert_eq!(href, page_of(&scaler.url(), "work"));
    tab.until("document.querySelector('.events b a')?.pathname === '/types/work'").await;
    tab.go(href.as_str().unwrap()).await;

    tab.until(LIVE).await;
    tab.until("document.querySelector('#decision .decision').textContent.startsWith('held at 2: ')").await;
    tab.until("document.querySelector('#decision li:last-child').textContent === 'at most 2 (max_workers)'").await;
    tab.until(&format!("{} === 'max_workers'", fact("Rule"))).await;
    tab.until(&format!("/^This autoscaler, term [0-9]+$/.test({})", fact("Acts"))).await;
    tab.until(&format!("{} === '3 = 1 waiting + 2 in work'", fact("Jobs"))).await;
    tab.until(&format!("{} === '2 = 2 ready (2 busy) + 0 starting'", fact("Workers"))).await;
    tab.until(&format!("{} === 'none'", fact("Override"))).await;
    let busy = "row[1] === 'busy' && row[2] === 'yes' && row[3] === 'BUSY'";
    tab.until(&format!("{}.filter((row) => {busy}).length === 2", cells("workers"))).await;
    tab.until(&format!("{}[0].slice(0, 3).join() === 'work:jobs,1,2'", cells("queues"))).await;
    tab.until("document.querySelector('#events li:last-child .change').textContent.startsWith('0 → ')").await;
    let drawn = "['.edge', '.workers'].every((part) => \
                 document.querySelector(`#now ${part}`).getAttribute('d').startsWith('M'))";
    tab.until(drawn).await;

    // What a person says about it comes in as text.
    let reason = "the <b>site</b> & its \"friends\" are down";
    let file = scaler.directory().join("swarm.toml");
    let paused = swarm(scaler.directory())
        .env("USER", "ann")
        .args(["pause", "work", "--for", "30m", "--reason", reason, "--config"])
        .arg(&file)
        .output()
        .unwrap();
    assert!(paused.status.success(), "{}", String::from_utf8_lossy(&paused.stderr));
    tab.until(&format!("{}.startsWith('Paused by ann@')", fact("Override"))).await;
    tab.until(&format!("{}.includes({})", fact("Override"), serde_json::json!(reason))).await;
    tab.until("document.querySelector('#events li .change').textContent === 'paused'").await;
    tab.until(&format!(
        "document.querySelector('#events .reason').textContent.includes({})",
        serde_json::json!(reason)
    ))
    .await;
    assert_eq!(
        tab.value("[...document.querySelectorAll('b')].filter((b) => b.textContent === 'site').length").await,
        0
    );
    for (dark, shade) in [(false, "light"), (true, "dark")] {
        tab.darken(dark).await;
        for (size, device) in [(DESKTOP, "desktop"), (PHONE, "phone")] {
            tab.resize(size).await;
            tab.until("document.documentElement.scrollWidth <= innerWidth").await;
            tab.picture(&format!("type-page-{device}-{shade}")).await;
        }
    }

    // The page goes on with what happens.
    gate.open();
    let resumed = swarm(scaler.directory()).args(["resume", "work", "--config"]).arg(&file).output().unwrap();
    assert!(resumed.status.success(), "{}", String::from_utf8_lossy(&resumed.stderr));
    tab.until("document.querySelector('#events li .change').textContent.endsWith('→ 0')").await;
    tab.until("document.querySelectorAll('#workers tr').length === 0").await;
    assert_eq!(tab.faults().await, serde_json::json!([]));
}

#[cfg_attr(without_chromium, ignore = "there is no Chromium")]
#[tokio::test]
async fn an_unknown_worker_type_is_a_404_that_leads_back_and_one_that_goes_says_so() {
    let server = RedisServer::start();
    let both = format!("{}{}", pool("rest", "max_workers = 3", SLEEPER), pool("other", "max_workers = 3", SLEEPER));
    let scaler = Autoscaler::start(&server.url(), &both).await;
    let (code, _) = get(&page_of(&scaler.url(), "nobody"), DEADLINE).await.unwrap();
    assert_eq!(code, StatusCode::NOT_FOUND);
    let tab = Tab::open(&page_of(&scaler.url(), "%3Cb%3Enobody%20"), PHONE, true).await;
    let missing = "!document.getElementById('missing').hidden && document.getElementById('shown').hidden";
    tab.until(missing).await;
    tab.until("document.getElementById('link').textContent === 'not found'").await;
    assert_eq!(tab.value("document.getElementById('missing-name').textContent").await, "<b>nobody ");
    assert_eq!(tab.value("document.querySelector('#missing a').href").await, format!("{}/", scaler.url()));

    tab.go(&page_of(&scaler.url(), "other")).await;
    tab.until("!document.getElementById('shown').hidden && document.getElementById('missing').hidden").await;
    scaler.reload(&server.url(), &pool("rest", "max_workers = 3", SLEEPER)).await;
    tab.until(missing).await;
    scaler.reload(&server.url(), &both).await;
    tab.until("!document.getElementById('shown').hidden && document.getElementById('missing').hidden").await;
    assert_eq!(tab.faults().await, serde_json::json!([]));
}

#[cfg_attr(without_chromium, ignore = "there is no Chromium")]
#[tokio::test]
async fn lists_and_frameworks_in_a_dry_run_and_a_standby_say_what_is_unknown_and_who_acts() {
    let server = RedisServer::start();
    let client = server.client().await;
    let list = pool("list", "max_workers = 3, scale_up_threshold = 1", SLEEPER)
        .replace("[worker_types.list]\n", "[worker_types.list]\nkind = \"list\"\n");
    let mail = "[worker_types.mail]\nframework = \"rq\"\nqueues = [\"mail\"]\n\
                scaling = { max_workers = 4, scale_up_threshold = 1 }\nprocess = { command = [\"sleep\", \"1000\"] }\n";
    let settings = format!("{FAST_SWEEP}{PATIENT}{list}{mail}");
    let leader = Autoscaler::start(&server.url(), &format!("{NO_SWEEP}{PATIENT}{list}{mail}")).await;
    leader.until_ready().await;
    let _: u64 = redis(&client, "LPUSH list:jobs a b").await;
    let _: u64 = redis(&client, "LPUSH rq:queue:mail a b c").await;
    let standby = Autoscaler::start(&server.url(), &settings).await;
    let tab = Tab::open(&page_of(&standby.url(), "mail"), PHONE, false).await;
    tab.until(&format!("{}?.includes('stands by')", fact("Acts"))).await;
    tab.until(&format!("{}?.startsWith('rq: 3 waiting + ')", fact("Framework"))).await;

    let dry = Autoscaler::start(&server.url(), &settings.replace(PATIENT, &format!("{PATIENT}dry_run = true\n"))).await;
    tab.go(&page_of(&dry.url(), "list")).await;
    tab.until(&format!("{}?.includes('dry run')", fact("Acts"))).await;
    tab.until("document.querySelector('#decision .decision').textContent.startsWith('would scale up 0 → ')").await;
    // A list does not tell how old its jobs are.
    tab.until(&format!("{}[0]?.join().startsWith('list:jobs,2,')", cells("queues"))).await;
    tab.until(&format!("{} === '?' && {}[0][3] === '?'", fact("Oldest job"), cells("queues"))).await;
    tab.until(&format!("{}[0][4].includes('a list does not tell how old')", cells("queues"))).await;
    assert_eq!(tab.faults().await, serde_json::json!([]));
}

#[cfg_attr(without_chromium, ignore = "there is no Chromium")]
#[tokio::test]
async fn a_page_that_was_cut_off_says_from_when_it_is_and_catches_up() {
    let server = RedisServer::start();
    let client = server.client().await;
    let settings = format!("{FAST_SWEEP}{}", pool("full", "max_workers = 2, scale_up_threshold = 1", SLEEPER));
    let scaler = Autoscaler::start(&server.url(), &settings).await;
    let address = |scaler: &Autoscaler| scaler.url().trim_start_matches("http://").parse().unwrap();
    let relay = Relay::to(address(&scaler)).await;
    let tab = Tab::open(&page_of(&relay.url(), "full"), PHONE, true).await;
    tab.until(LIVE).await;
    assert_eq!(tab.value("document.getElementById('stale').hidden").await, true);
    relay.cut().await;
    tab.until("document.getElementById('link').textContent === 'connection lost'").await;
    tab.until("document.getElementById('stale').textContent.startsWith('Not current: as of ')").await;
    assert_eq!(tab.value("document.getElementById('shown').hidden").await, false, "what was there stays");
    let scaler = scaler.restart(&server.url(), &settings).await;
    add_jobs(&client, "full:jobs", 9).await;
    scaler.until_workers("full", 2).await;
    relay.mend(address(&scaler));
    tab.until(LIVE).await;
    tab.until("document.getElementById('stale').hidden").await;
    tab.until(&format!("{}?.startsWith('2 = 2 ready')", fact("Workers"))).await;
    assert_eq!(tab.faults().await, serde_json::json!([]));
}

#[cfg_attr(without_chromium, ignore = "there is no Chromium")]
#[tokio::test]
async fn with_a_read_token_the_page_of_a_worker_type_asks_for_it() {
    const TOKEN: &str = "readers-0123456789";
    let server = RedisServer::start();
    let settings = format!("read_token = {TOKEN:?}\n{}", pool("rest", "max_workers = 3", SLEEPER));
    let scaler = Autoscaler::start(&server.url(), &settings).await;
    let tab = Tab::open(&page_of(&scaler.url(), "rest"), PHONE, true).await;
    tab.until("document.getElementById('link').textContent === 'locked'").await;
    tab.until("document.getElementById('shown').hidden && document.getElementById('missing').hidden").await;
    tab.unlock(TOKEN).await;
    tab.until(LIVE).await;
    tab.until("!document.getElementById('shown').hidden").await;
    assert!(!tab.value("location.href").await.as_str().unwrap().contains("readers"));
    assert_eq!(tab.faults().await, serde_json::json!([]));
}

//! The whole way: a command in Discord, no worker, the real autoscaler, a real page in a real Chromium, and the reply
//! with its picture.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Stdio};

use serde_json::json;

use super::bench::{Bot, settings};
use crate::{
    fake_discord::{FakeDiscord, Member, Message, text},
    support::{
        autoscaler::{Autoscaler, NO_SWEEP, real_pool, swarm},
        browser::Site,
        docker::{Engine, IMAGE, Project},
        processes::KillOnDrop,
        redis::RedisServer,
        wait::{DEADLINE, eventually},
    },
};

/// Width and height of a PNG, as its header says.
fn png_size(png: &[u8]) -> (u32, u32) {
    assert!(png.starts_with(b"\x89PNG\r\n\x1a\n") && png.len() > 1_000, "no PNG: {} bytes", png.len());
    let number = |at: usize| u32::from_be_bytes(png[at..at + 4].try_into().unwrap());
    (number(16), number(20))
}

fn titles(fake: &FakeDiscord, asked: usize) -> Vec<String> {
    fake.see(|world| world.interactions[asked].history.iter().map(|one| one.title().to_owned()).collect())
}

/// Asks for a page, and follows the reply until it shows it.
async fn start(fake: &FakeDiscord, site: &Site) -> Message {
    let asked = fake.command(&Member::user(), "web", "start", json!([text("url", &site.url("/"))]));
    let shown = fake.reply(asked, "the page is shown", |reply| !reply.files.is_empty()).await;
    let titles = titles(fake, asked);
    assert!(titles.iter().any(|title| title == "starting a browser worker…"), "{titles:?}");
    shown
}

#[cfg_attr(without_chromium, ignore = "there is no Chromium")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_makes_a_worker_that_shows_a_page() {
    let (fake, redis, site) = (FakeDiscord::start().await, RedisServer::start(), Site::start(1).await);
    let browser =
        format!("no_sandbox = true\nallow_private = [\"127.0.0.1:{}\"]\nwidth = 640\nheight = 480", site.port);
    let pools = format!("{}[worker_types.browser.browser]\n{browser}\n", real_pool("browser", "min_workers = 0"));
    let scaler = Autoscaler::start(&redis.url(), &format!("{NO_SWEEP}{pools}")).await;
    scaler.until_ready().await;
    scaler.until_workers("browser", 0).await;
    let discord = format!("status_url = \"{}\"", scaler.url());
    let of_type = format!("[worker_types.browser.browser]\n{browser}");
    let bot = Bot::ready(&fake, &settings(&fake, &redis, &discord, &of_type)).await;

    let shown = start(&fake, &site).await;
    assert_eq!((shown.title(), shown.field("Page"), shown.field("Status")), ("Browser opened", "A page", "200"));
    assert_eq!(png_size(&shown.files["page.png"]), (640, 480));
    scaler.until_workers("browser", 1).await;

    // Now that the channel has its browser, it is used.
    let (ann, reply) = (Member::user(), async |subcommand: &str, options, title: &'static str| {
        let asked = fake.command(&Member::user(), "web", subcommand, options);
        fake.reply(asked, title, |reply| reply.title() == title).await
    });
    reply("fill", json!([text("selector", "#name"), text("text", "me")]), "Filled in").await;
    reply("click", json!([text("selector", "#go")]), "Clicked").await;
    let failed = reply("click", json!([text("selector", "#nobody")]), "Not done").await;
    assert!(failed.text().contains("no element matches ˋ#nobodyˋ"), "{failed:?}");
    let status = reply("status", json!([]), "This channel's browser").await;
    assert_eq!(status.field("Address"), site.url("/").replace(':', r"\:").replace('.', r"\.").replace('/', r"\/"));
    let all = fake.command(&ann, "web", "screenshot", json!([{ "name": "full_page", "type": 5, "value": true }]));
    let shown = fake.reply(all, "all of the page", |reply| !reply.files.is_empty()).await;
    assert!(png_size(&shown.files["page.png"]).1 > 3_000);
    reply("close", json!([]), "Browser closed").await;
    let asked = fake.command(&Member::administrator(), "swarm", "events", json!([]));
    let events = fake.reply(asked, "the start is in the history", |_| true).await;
    assert!(events.text().contains("0 → 1"), "{}", events.text());
    bot.assert_discreet(&fake);
}

/// The same with workers as containers. The image has nothing: this machine's programs are mounted, Chromium among
/// them.
#[cfg_attr(without_chromium, ignore = "there is no Chromium")]
#[cfg_attr(without_docker, ignore = "no Docker engine can be had")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_makes_a_container_that_shows_a_page() {
    let engine = Engine::any().await;
    let (project, fake, redis) = (Project::new(engine), FakeDiscord::start().await, RedisServer::start());
    let site = Site::start(1).await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("swarm.toml");
    let program = Path::new(env!("CARGO_BIN_EXE_swarm")).parent().unwrap();
    let of_type = format!(
        "worker = {{ heartbeat_seconds = 1 }}\n[worker_types.browser.browser]\nno_sandbox = true\n\
         allow_private = [\"127.0.0.1:{}\"]\nwidth = 640\nheight = 480\n",
        site.port
    );
    let container = format!(
        "image = \"{IMAGE}\"\nproject = \"{}\"\nnetworks = [\"host\"]\ncommand = [\"/swarm/swarm\", \"worker\"]\n\
         volumes = [{}, \"{}:/swarm:ro\", \"{}:/settings:ro\"]\n\
         environment = {{ SWARM_CONFIG = \"/settings/swarm.toml\", HOME = \"/tmp\", PATH = \"/usr/bin:/bin\" }}\n",
        project.name,
        mounts().join(", "),
        program.display(),
        directory.path().display(),
    );
    let scaler_settings = format!(
        "redis_url = \"{}\"\n[http]\nlisten = \"\"\n[worker_types.browser]\nscaling = {{ cooldown_seconds = 2 }}\n{of_type}\
         [worker_types.browser.docker]\n{container}",
        redis.url()
    );
    fs::write(&file, scaler_settings).unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let scaler = swarm(directory.path())
        .args(["autoscaler", "--orchestrator", "docker", "--config"])
        .arg(&file)
        .env("DOCKER_HOST", format!("unix://{}", project.engine.socket().display()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(fs::File::create(directory.path().join("log")).unwrap())
        .spawn()
        .unwrap();
    let scaler = KillOnDrop(scaler);
    let bot = Bot::ready(&fake, &settings(&fake, &redis, "", &of_type)).await;
    assert_eq!(project.containers(&[]), Vec::<String>::new());

    let shown = start(&fake, &site).await;
    assert_eq!((shown.title(), shown.field("Page")), ("Browser opened", "A page"));
    assert_eq!(png_size(&shown.files["page.png"]), (640, 480));
    assert_eq!(project.containers(&["running"]).len(), 1);
    let asked = fake.command(&Member::user(), "web", "close", json!([]));
    fake.reply(asked, "it is closed", |reply| reply.title() == "Browser closed").await;
    let gone = eventually(DEADLINE, async || project.containers(&["running"]).is_empty()).await;
    drop(scaler);
    let log = fs::read_to_string(directory.path().join("log")).unwrap_or_default();
    assert!(gone, "{:?}\n{log}", project.containers(&[]));
    bot.assert_discreet(&fake);
}

/// What Chromium needs of this machine beside its program.
fn mounts() -> Vec<String> {
    let wanted = ["/usr", "/etc/fonts", "/etc/chromium", "/etc/chromium.d", "/etc/alternatives", "/etc/passwd"];
    let there = wanted.into_iter().filter(|path| Path::new(path).exists());
    there.map(|path| format!("\"{path}:{path}:ro\"")).collect()
}

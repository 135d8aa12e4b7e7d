//! The real `swarm autoscaler --orchestrator fly` between a real Redis and the fake.

use fred::prelude::{Client, StreamsInterface};
use tempfile::TempDir;

use super::bench::GROUP;
use crate::{
    fake_fly::{APP, FakeFly, TOKEN},
    support::{autoscaler::Autoscaler, redis::RedisServer},
};

async fn publish(client: &Client) {
    let job = ("json", r#"{"id":"1","type":"browser.echo"}"#);
    let _: String = client.xadd("browser:jobs", false, None, "*", job).await.unwrap();
}

/// Starts an autoscaler whose worker type `browser` has these settings and one stopped machine. The directory holds its
/// token.
async fn start(redis: &RedisServer, fake: &FakeFly, settings: &str) -> (Autoscaler, TempDir) {
    fake.act(|world| world.add_worker("stopped", GROUP));
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    std::fs::write(&file, TOKEN).unwrap();
    let settings = format!(
        "[fly]\nbase_url = \"{}\"\ntoken_file = \"{}\"\npoll_seconds = 1\n[worker_types.browser]\n\
         {settings}fly = {{ app = \"{APP}\" }}\n",
        fake.url(),
        file.display()
    );
    (Autoscaler::start_with(&redis.url(), &settings, &["--orchestrator", "fly"]).await, directory)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_brings_a_machine_and_nobody_hears_of_the_token() {
    let (redis, fake) = (RedisServer::start(), FakeFly::start().await);
    let settings = "worker = { heartbeats = false }\nscaling = { cooldown_seconds = 0, scale_up_threshold = 1 }\n";
    let (scaler, _token) = start(&redis, &fake, settings).await;
    scaler.until_ready().await;
    let client = redis.client().await;
    publish(&client).await;
    fake.until("the stopped machine runs", |world| world.ids("started").len() == 1).await;
    publish(&client).await;
    fake.until("a second one is made", |world| world.ids("started").len() == 2).await;
    scaler.until_workers("browser", 2).await;

    let _: u64 = client.xtrim("browser:jobs", ("MAXLEN", "=", 0, None)).await.unwrap();
    fake.until("they are let go", |world| world.ids("stopped").len() == 2).await;
    scaler.until_workers("browser", 0).await;
    assert!(!scaler.log().contains(TOKEN), "the token is in the log");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn machines_of_a_framework_never_get_the_top_level_url() {
    let (redis, fake) = (RedisServer::start(), FakeFly::start().await);
    let settings = format!(
        "framework = \"rq\"\nredis_url = \"{}\"\nscaling = {{ min_workers = 2, cooldown_seconds = 0 }}\n",
        redis.url_db(1)
    );
    let _started = start(&redis, &fake, &settings).await;
    fake.until("a second machine is made", |world| world.ids("started").len() == 2).await;
    let machines = fake.act(|world| serde_json::json!(world.list()).to_string());
    assert!(machines.contains(GROUP) && machines.contains("image"), "{machines}");
    assert!(!machines.contains("REDIS_URL") && !machines.contains("redis://"), "{machines}");
}

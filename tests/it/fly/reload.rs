//! Worker types that come and go while the autoscaler runs with Fly.io.

use fred::prelude::{Client, StreamsInterface};
use swarm::model::snapshot::ReloadOutcome;

use crate::{
    fake_fly::{APP, FakeFly, TOKEN, World},
    support::{autoscaler::Autoscaler, redis::RedisServer},
};

async fn publish(client: &Client, worker_type: &str) {
    let job = ("json", r#"{"id":"1","type":"any.echo"}"#);
    let _: String = client.xadd(format!("{worker_type}:jobs"), false, None, "*", job).await.unwrap();
}

fn running(world: &World, group: &str) -> usize {
    let of_group = |machine: &&serde_json::Value| machine["config"]["metadata"]["fly_process_group"] == group;
    let machines = world.list();
    let started = world.ids("started");
    let is_up = |machine: &&serde_json::Value| started.iter().any(|id| machine["id"] == id.as_str());
    machines.iter().filter(of_group).filter(is_up).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn process_groups_are_taken_on_and_left_alone() {
    let (redis, fake) = (RedisServer::start(), FakeFly::start().await);
    fake.act(|world| {
        world.add_worker("started", "worker-browser");
        world.add_worker("started", "worker-mail");
        world.add_worker("stopped", "worker-mail");
    });
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    std::fs::write(&file, TOKEN).unwrap();
    let settings = |types: &[(&str, &str)]| {
        let of = |(name, more): &(&str, &str)| {
            format!(
                "[worker_types.{name}]\nworker = {{ heartbeats = false }}\nfly = {{ app = \"{APP}\" {more} }}\n\
                 scaling = {{ min_workers = 1, cooldown_seconds = 0, scale_up_threshold = 1 }}\n"
            )
        };
        let types: String = types.iter().map(of).collect();
        let (url, file) = (fake.url(), file.display());
        format!("[fly]\nbase_url = \"{url}\"\ntoken_file = \"{file}\"\npoll_seconds = 1\n{types}")
    };
    let browser = ("browser", "");
    let scaler = Autoscaler::start_with(&redis.url(), &settings(&[browser]), &["--orchestrator", "fly"]).await;
    scaler.until_ready().await;
    let client = redis.client().await;
    publish(&client, "mail").await;
    publish(&client, "mail").await;

    let reload = scaler.reload(&redis.url(), &settings(&[browser, ("mail", "")])).await;
    assert_eq!((reload.outcome, reload.changes.as_str()), (ReloadOutcome::Applied, "added mail"));
    fake.until("its stopped machine runs", |world| running(world, "worker-mail") == 2).await;
    scaler.until_workers("mail", 2).await;
    assert_eq!(fake.see(World::list).len(), 3, "it knew of both machines before it decided");

    // Two worker types on one group: refused, as at the start.
    let clash = settings(&[browser, ("mail", ", process_group = \"worker-browser\"")]);
    let reload = scaler.reload(&redis.url(), &clash).await;
    assert_eq!(reload.outcome, ReloadOutcome::Refused);
    assert!(reload.errors[0].contains("both have process group `worker-browser`"), "{:?}", reload.errors);
    scaler.until_workers("mail", 2).await;

    let reload = scaler.reload(&redis.url(), &settings(&[browser])).await;
    assert_eq!(reload.changes, "removed mail");
    publish(&client, "browser").await;
    publish(&client, "browser").await;
    fake.until("the other one is scaled", |world| running(world, "worker-browser") == 2).await;
    assert_eq!(fake.see(|world| running(world, "worker-mail")), 2, "it is left as it is");

    let reload = scaler.reload(&redis.url(), &settings(&[browser, ("mail", "")])).await;
    assert_eq!(reload.changes, "added mail");
    scaler.until_workers("mail", 2).await;
    let _: u64 = client.xtrim("mail:jobs", ("MAXLEN", "=", 0, None)).await.unwrap();
    fake.until("one may go", |world| running(world, "worker-mail") == 1).await;
}

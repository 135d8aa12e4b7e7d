//! The backend of Fly.io on a fake of the Machines API that keeps states, leases, volumes and hosts, and fails as
//! wanted.

pub(crate) mod bench;
mod examples;
mod failures;
mod reload;
mod whole;

use serde_json::{Value, json};
use swarm::{
    backend::{Check, CheckOutcome, ErrorKind, ScaleReport, ScalingBackend},
    config::FlyWorkerSettings,
    model::WorkerId,
};

use self::bench::{Bench, GROUP, up};
use crate::fake_fly::{FakeFly, worker};

fn defaults() -> FlyWorkerSettings {
    FlyWorkerSettings::default()
}

fn ids(names: &[String]) -> Vec<WorkerId> {
    names.iter().map(|name| WorkerId::new(name.as_str())).collect()
}

/// The machines that came about through the API, as lists show them.
fn made(bench: &Bench) -> Vec<Value> {
    let ours = |machine: &Value| !machine["config"]["metadata"]["swarm_launch"].is_null();
    bench.fake.see(|world| world.list().into_iter().filter(ours).collect())
}

#[tokio::test]
async fn machines_of_the_group_count_and_nothing_else() {
    let fake = FakeFly::start().await;
    let expected = fake.act(|world| {
        world.add_worker("started", "worker-other");
        world.add_worker("destroyed", GROUP);
        world.add_worker("stopped", GROUP);
        let release =
            json!({ "image": "x", "metadata": { "process_group": "release_command", "fly_process_group": GROUP } });
        world.add("started", "fra", release);
        world.add("started", "fra", json!({ "image": "x", "metadata": { "fly_process_group": "fly_app_console" } }));
        let lost = world.add_worker("started", GROUP);
        world.host(&lost, true);
        let old = world.add("started", "fra", json!({ "image": "x", "metadata": { "process_group": GROUP } }));
        vec![old, world.add_worker("started", GROUP), world.add_worker("starting", GROUP)]
    });
    let mut bench = Bench::on(fake, defaults());
    let pool = bench.until("three workers", |pool| up(pool).len() == 3).await;
    assert_eq!(up(&pool), ids(&expected));
    assert_eq!((pool.manual, pool.exits), (vec![], vec![]), "that is how things were");
}

#[tokio::test]
async fn stopped_machines_are_started_before_others_are_made() {
    let fake = FakeFly::start().await;
    let (running, stopped) = fake.act(|world| (world.add_worker("started", GROUP), world.add_worker("stopped", GROUP)));
    let mut bench = Bench::on(fake, defaults());
    bench.until_up(1).await;
    assert_eq!(bench.scale(2, &[]).await.unwrap().started, ids(std::slice::from_ref(&stopped)));
    assert_eq!(bench.fake.see(|world| world.requests("POST", "/machines")), 0);

    let started = bench.scale(3, &[]).await.unwrap().started;
    let copy = made(&bench).pop().unwrap();
    assert_eq!(started, [WorkerId::new(copy["id"].as_str().unwrap())]);
    bench.fake.until("three machines run", |world| world.ids("started").len() == 3).await;
    let pool = bench.until("three workers", |pool| up(pool).len() == 3).await;
    assert!(pool.manual.is_empty() && up(&pool).contains(&WorkerId::new(running)), "{pool:?}");
    let config = &copy["config"];
    assert_eq!(config["image"], "registry.fly.io/shop@sha256:0ff1ce", "by digest");
    assert_eq!(config["env"], json!({ "LEVEL": "info" }), "no worker's name is copied");
    assert_eq!((&copy["region"], &config["metadata"]["fly_process_group"]), (&json!("fra"), &json!(GROUP)));
}

#[tokio::test]
async fn new_machines_are_spread_over_the_regions_that_have_room() {
    let fake = FakeFly::start().await;
    fake.act(|world| {
        world.add("started", "fra", worker(GROUP));
        world.full.insert("ams".to_owned());
    });
    let regions = ["fra", "ams", "cdg"].map(str::to_owned).to_vec();
    let mut bench = Bench::on(fake, FlyWorkerSettings { regions, ..defaults() });
    bench.until_up(1).await;
    for target in 2..=4 {
        bench.scale(target, &[]).await.unwrap();
    }
    let mut regions: Vec<_> = made(&bench).iter().map(|machine| machine["region"].clone()).collect();
    regions.sort_by_key(ToString::to_string);
    assert_eq!(regions, ["cdg", "cdg", "fra"]);
    bench.fake.act(|world| world.full.extend(["fra".to_owned(), "cdg".to_owned()]));
    let error = bench.scale(5, &[]).await.unwrap_err();
    assert!(error.kind == ErrorKind::Retryable && error.message.contains("no room"), "{error}");
    assert_eq!(bench.pool().await.unwrap().instances.len(), 4, "what was refused is not counted");
}

#[tokio::test]
async fn a_mount_gets_a_volume_of_its_own_an_unused_one_if_there_is_one() {
    let fake = FakeFly::start().await;
    fake.act(|world| {
        let mut config = worker(GROUP);
        config["mounts"] = json!([{ "volume": "vol_a", "path": "/data", "name": "cache", "size_gb": 5 }]);
        let original = world.add("started", "fra", config);
        world.add_volume("vol_a", "cache", "fra", Some(&original));
        world.add_volume("vol_b", "cache", "ams", None);
        world.add_volume("vol_c", "cache", "fra", None);
    });
    let mut bench = Bench::on(fake, defaults());
    bench.until_up(1).await;
    bench.scale(3, &[]).await.unwrap();
    let mut mounted: Vec<_> =
        made(&bench).iter().map(|machine| machine["config"]["mounts"][0]["volume"].clone()).collect();
    mounted.sort_by_key(ToString::to_string);
    assert_eq!(mounted, ["vol_4", "vol_c"]);
    assert_eq!(bench.fake.see(|world| world.volumes().len()), 4);
}

#[tokio::test]
async fn victims_drain_stop_and_are_destroyed_beyond_those_to_keep() {
    let fake = FakeFly::start().await;
    let all: Vec<String> = fake.act(|world| (0..4).map(|_| world.add_worker("started", GROUP)).collect());
    let mut bench = Bench::on(fake, FlyWorkerSettings { keep_stopped: 1, ..defaults() });
    bench.until_up(4).await;
    let report = bench.scale(1, &ids(&all[..3])).await.unwrap();
    assert_eq!(report, ScaleReport { started: vec![], retired: ids(&all[..3]) });
    bench.fake.until("one is kept", |world| world.ids("stopped").len() == 1 && world.list().len() == 2).await;
    let pool = bench.until("one worker", |pool| pool.instances.len() == 1).await;
    assert_eq!((up(&pool), pool.manual, pool.exits), (ids(&all[3..]), vec![], vec![]));
    let kept = bench.fake.see(|world| world.list().into_iter().find(|machine| machine["state"] == "stopped").unwrap());
    let asked = kept["events"].as_array().unwrap().iter().find(|event| event["type"] == "stop").unwrap().clone();
    assert_eq!(asked["asked"], json!({ "signal": "SIGINT", "timeout": "120s" }));
}

#[tokio::test]
async fn the_last_machine_is_kept_to_be_copied_and_what_others_stopped_is_theirs() {
    let fake = FakeFly::start().await;
    let (last, theirs) = fake.act(|world| (world.add_worker("started", GROUP), world.add_worker("stopped", GROUP)));
    let mut bench = Bench::on(fake, FlyWorkerSettings { keep_stopped: 0, ..defaults() });
    bench.until_up(1).await;
    bench.scale(0, &ids(std::slice::from_ref(&last))).await.unwrap();
    bench.fake.until("the victim is gone", |world| world.ids("stopped") == [theirs.clone()]).await;
    bench.until_up(0).await;
    let woken = bench.scale(1, &[]).await.unwrap().started;
    assert_eq!(woken, ids(std::slice::from_ref(&theirs)));
    bench.scale(0, &woken).await.unwrap();
    bench.fake.until("it stands still", |world| world.ids("stopped") == [theirs.clone()]).await;
    bench.until("nobody is left", |pool| pool.instances.is_empty()).await;
    bench.backend.shutdown(false).await;
    assert_eq!(bench.fake.see(|world| world.list().len()), 1, "without an image the last one stays");
}

#[tokio::test]
async fn from_nothing_there_must_be_an_image() {
    let mut bench = Bench::on(FakeFly::start().await, defaults());
    bench.until_up(0).await;
    let error = bench.scale(1, &[]).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Permanent);
    assert!(error.message.contains("fly scale count worker-browser=1"), "{error}");

    let mut bench = Bench::with_image().await;
    bench.until_up(0).await;
    bench.scale(2, &[]).await.unwrap();
    bench.fake.until("two run", |world| world.ids("started").len() == 2).await;
    assert_eq!(made(&bench)[0]["config"]["metadata"]["fly_platform_version"], "v2");
    bench.until_up(2).await;
}

#[tokio::test]
async fn what_others_scale_is_told() {
    let fake = FakeFly::start().await;
    let first = fake.act(|world| world.add_worker("started", GROUP));
    let mut bench = Bench::on(fake, defaults());
    bench.until_up(1).await;
    // fly scale count worker-browser=3
    let second = bench.fake.act(|world| (world.add_worker("started", GROUP), world.add_worker("started", GROUP)).0);
    let pool = bench.until("a manual scale", |pool| !pool.manual.is_empty()).await;
    assert_eq!((pool.manual[0].from, pool.manual[0].to, up(&pool).len()), (1, 3, 3));
    bench.fake.act(|world| world.stop_by_hand(&first));
    bench.until("a stop", |pool| pool.manual.len() == 2).await;
    bench.fake.act(|world| world.destroy_by_hand(&second));
    let pool = bench.until("a destruction", |pool| pool.manual.len() == 3).await;
    let told: Vec<_> = pool.manual.iter().map(|change| (change.seq, change.from, change.to)).collect();
    assert_eq!(told, [(1, 1, 3), (2, 3, 2), (3, 2, 1)]);
    assert!(pool.exits.is_empty(), "{:?}", pool.exits);
}

#[tokio::test]
async fn a_host_that_fails_is_made_up_for_and_is_no_news() {
    let fake = FakeFly::start().await;
    let all: Vec<String> = fake.act(|world| (0..2).map(|_| world.add_worker("started", GROUP)).collect());
    let mut bench = Bench::on(fake, defaults());
    bench.until_up(2).await;
    bench.fake.act(|world| world.host(&all[0], true));
    assert_eq!(bench.until_up(1).await, ids(&all[1..]));
    bench.scale(2, &[]).await.unwrap();
    bench.fake.act(|world| world.host(&all[0], false));
    let pool = bench.until("three workers", |pool| up(pool).len() == 3).await;
    assert_eq!((pool.manual, pool.exits), (vec![], vec![]));
}

#[tokio::test]
async fn checks_say_in_words_what_would_work() {
    let mut bench = Bench::on(FakeFly::start().await, defaults());
    bench.until_up(0).await;
    let checks = bench.backend.check().await;
    let fine: Vec<bool> = checks.iter().map(Check::is_fine).collect();
    assert_eq!(fine, [true, true, false], "{checks:#?}");
    assert!(matches!(&checks[2].outcome, CheckOutcome::Wrong(told) if told.contains("worker_types.browser.fly.image")));
    bench.fake.act(|world| {
        world.read_only = true;
        world.add_worker("started", GROUP);
    });
    bench.until_up(1).await;
    let checks = bench.backend.check().await;
    let refused = &checks[1].outcome;
    assert!(
        matches!(refused, CheckOutcome::Wrong(told) if told.contains("fly tokens create deploy -a shop")),
        "{refused:?}"
    );
    assert!(checks[0].is_fine() && checks[2].is_fine(), "{checks:#?}");
    assert_eq!(bench.fake.see(|world| world.list().len()), 1, "nothing was made");
}

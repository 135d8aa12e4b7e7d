//! Leader and standby; overrides.

use rustix::process::Signal;

use super::client::{FLAGS, HALF, KEDA, Keda};
use crate::{
    leadership::lead_and_follow,
    support::{
        autoscaler::{Autoscaler, FAST_SWEEP, swarm},
        command::{add_jobs, records},
        redis::RedisServer,
    },
};

const T: &[(&str, &str)] = &[("workerType", "t")];

#[tokio::test]
async fn a_standby_answers_and_pushes_as_the_leader_does() {
    let server = RedisServer::start();
    let client = server.client().await;
    let settings = format!("{KEDA}{FAST_SWEEP}leader_lease_seconds = 3600\n{HALF}");
    let (mut leader, standby) =
        lead_and_follow(async || Autoscaler::start_with(&server.url(), &settings, FLAGS).await).await;
    let mut followed = Keda::connect(&standby).await;
    let mut led = Keda::connect(&leader).await;
    let mut stream = followed.open(&standby, T).await;
    assert!(!stream.message().await.unwrap().unwrap().result);
    add_jobs(&client, "t:jobs", 5).await;
    assert!(stream.message().await.unwrap().unwrap().result);
    for keda in [&mut led, &mut followed] {
        keda.until_value(&standby, T, 3).await;
    }
    leader.signal(Signal::KILL);
    leader.exit().await;
    followed.until_value(&standby, T, 3).await;
    assert!(records(&client, "t").await.is_empty());
}

#[tokio::test]
async fn a_pause_holds_the_number_and_a_pin_sets_it() {
    let server = RedisServer::start();
    let client = server.client().await;
    let scaler = super::client::start(&server, FAST_SWEEP).await;
    let mut keda = Keda::connect(&scaler).await;
    add_jobs(&client, "t:jobs", 4).await;
    scaler.until("two are recommended", async || scaler.of("t").await.recommended == Some(2)).await;
    let run = |arguments: &[&str]| {
        let config = scaler.directory().join("swarm.toml");
        let done = swarm(scaler.directory()).args(arguments).arg("--config").arg(config).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    run(&["pause", "t"]);
    scaler.until("it is paused", async || scaler.of("t").await.control.is_some()).await;
    add_jobs(&client, "t:jobs", 10).await;
    scaler.until("they are seen", async || scaler.of("t").await.demand.depth().known() == Some(&14)).await;
    keda.until_value(&scaler, T, 2).await;
    run(&["scale", "t=5", "--for", "1h"]);
    keda.until_value(&scaler, T, 5).await;
    run(&["resume", "t"]);
    keda.until_value(&scaler, T, 7).await;
}

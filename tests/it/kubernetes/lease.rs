//! Who leads is settled by a Lease: real autoscalers on one target, a real Redis, and the API server of the bed.

use std::{collections::BTreeSet, time::Duration};

use fred::prelude::Client;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use kube::api::DeleteParams;
use rustix::process::Signal;
use serde_json::Value;
use swarm::model::snapshot::Role;

use super::{TYPE, bed::Bed, controller::Behaviour};
use crate::{
    fake_kubernetes::Fault,
    leadership::{self, lead_and_follow, until_role, writer},
    support::{
        autoscaler::{Autoscaler, FAST_SWEEP, NO_SWEEP, swarm},
        command::{add_jobs, records, redis},
        redis::RedisServer,
    },
};

const NAME: &str = "swarm-autoscaler";
/// After a table `[scaler]`: a lease that nobody waits for the end of.
const LONG: &str = "leader_lease_seconds = 3600\n";
/// A lease whose end is waited for. Who leads acts for three fifths of it without a renewal: for longer than a busy
/// machine holds a process up.
const SHORT: &str = "leader_lease_seconds = 10\n";

fn settings(bed: &Bed, scaler: &str) -> String {
    format!(
        "[kubernetes]\nkubeconfig = \"{}\"\nlease = \"{NAME}\"\n{scaler}[worker_types.{TYPE}]\n\
         worker = {{ heartbeats = false }}\n\
         scaling = {{ scale_up_threshold = 1, max_workers = 20, cooldown_seconds = 1000 }}\n",
        bed.kubeconfig().display()
    )
}

async fn start(server: &RedisServer, bed: &Bed, scaler: &str) -> Autoscaler {
    Autoscaler::start_with(&server.url(), &settings(bed, scaler), &["--orchestrator", "kubernetes"]).await
}

/// A leader and a standby.
async fn start_two(server: &RedisServer, bed: &Bed, scaler: &str) -> (Autoscaler, Autoscaler) {
    bed.deployment(TYPE, 0).await;
    lead_and_follow(async || start(server, bed, scaler).await).await
}

/// Waits until the target has `count` replicas, and the last record says so.
async fn until_scaled(bed: &Bed, scaler: &Autoscaler, client: &Client, count: i32) {
    bed.until(&format!("{count} replicas"), async || bed.replicas(TYPE).await == count).await;
    let count = count.to_string();
    let recorded = async || records(client, TYPE).await.last().is_some_and(|record| record["to_count"] == count);
    scaler.until("it is recorded", recorded).await;
}

/// Who wrote the records so far.
async fn writers(client: &Client) -> BTreeSet<(String, String)> {
    leadership::writers(&records(client, TYPE).await)
}

async fn lease(bed: &Bed) -> LeaseSpec {
    bed.api::<Lease>().get(NAME).await.expect("the lease is there").spec.expect("it says something")
}

async fn queue(client: &Client, count: usize) {
    add_jobs(client, &format!("{TYPE}:jobs"), count).await;
}

#[tokio::test]
async fn one_leads_and_the_other_decides_and_does_nothing() {
    let (server, bed) = (RedisServer::start(), Bed::start().await);
    let client = server.client().await;
    let (leader, standby) = start_two(&server, &bed, &format!("{FAST_SWEEP}{LONG}")).await;
    queue(&client, 3).await;
    until_scaled(&bed, &leader, &client, 3).await;
    standby.until("it would scale", async || standby.of(TYPE).await.desired == 3).await;
    standby.until_evaluated(TYPE, 3).await;

    assert_eq!(writers(&client).await, BTreeSet::from([writer(&leader).await]));
    let (token, instance) = writer(&leader).await;
    let said = lease(&bed).await;
    assert!(said.holder_identity.is_some_and(|holder| holder.starts_with(&format!("{instance}_"))));
    assert_eq!((said.lease_transitions, said.lease_duration_seconds), (token.parse().ok(), Some(3600)));
    let in_redis: u64 = redis(&client, "EXISTS scaler:leader").await;
    let told: u64 = redis(&client, "GET scaler:leader:token").await;
    assert_eq!((in_redis, told.to_string()), (0, token), "Redis knows the token and keeps no lease");
    let (ready, body) = standby.readyz().await;
    assert!(ready && body.contains("\"role\":\"standby\""), "{body}");
    drop((leader, standby));
    bed.end().await;
}

#[tokio::test]
async fn a_leader_that_is_stopped_hands_over_at_once() {
    let (server, bed) = (RedisServer::start(), Bed::start().await);
    let client = server.client().await;
    let (mut leader, standby) = start_two(&server, &bed, &format!("{NO_SWEEP}{LONG}")).await;
    queue(&client, 2).await;
    until_scaled(&bed, &leader, &client, 2).await;
    let before = writer(&leader).await;

    leader.signal(Signal::TERM);
    assert_eq!(leader.exit().await.code(), Some(0));
    // A look comes only every twelve minutes: it was told.
    until_role(&standby, Role::Leader).await;
    queue(&client, 1).await;
    until_scaled(&bed, &standby, &client, 3).await;
    let after = writer(&standby).await;
    assert!(after.0.parse::<u64>().ok() > before.0.parse().ok(), "{before:?} {after:?}");
    assert_eq!(writers(&client).await, BTreeSet::from([before, after]));
    bed.end().await;
}

#[tokio::test]
async fn a_leader_that_is_killed_is_followed_when_its_lease_is_over() {
    let (server, bed) = (RedisServer::start(), Bed::start().await);
    let client = server.client().await;
    let (mut leader, standby) = start_two(&server, &bed, &format!("{NO_SWEEP}{SHORT}")).await;
    leader.signal(Signal::KILL);
    leader.exit().await;
    queue(&client, 2).await;
    until_scaled(&bed, &standby, &client, 2).await;
    assert_eq!(writers(&client).await, BTreeSet::from([writer(&standby).await]));
    bed.end().await;
}

#[tokio::test]
async fn invariant_15_a_leader_that_was_frozen_does_not_act_on_waking() {
    let (server, bed) = (RedisServer::start(), Bed::start().await);
    let client = server.client().await;
    let (frozen, standby) = start_two(&server, &bed, &format!("{NO_SWEEP}{SHORT}")).await;
    queue(&client, 2).await;
    until_scaled(&bed, &frozen, &client, 2).await;
    let mut expected = BTreeSet::from([writer(&frozen).await]);

    frozen.signal(Signal::STOP);
    until_role(&standby, Role::Leader).await;
    expected.insert(writer(&standby).await);
    queue(&client, 3).await;
    until_scaled(&bed, &standby, &client, 5).await;
    frozen.signal(Signal::CONT);
    until_role(&frozen, Role::Standby).await;
    queue(&client, 1).await;
    until_scaled(&bed, &standby, &client, 6).await;
    frozen.until("it has seen the job", async || frozen.of(TYPE).await.desired == 6).await;

    assert_eq!(writers(&client).await, expected);
    assert!(records(&client, TYPE).await.iter().all(|record| !record.contains_key("fenced")));
    bed.end().await;
}

#[tokio::test]
async fn a_lease_that_somebody_removes_or_touches_stays_with_its_holder() {
    let (server, bed) = (RedisServer::start(), Bed::start().await);
    let client = server.client().await;
    let (leader, standby) = start_two(&server, &bed, &format!("{NO_SWEEP}{SHORT}")).await;
    let before = writer(&leader).await;
    let since = leader.status().await.leadership.since;
    bed.api::<Lease>().delete(NAME, &DeleteParams::default()).await.expect("it is there");
    leader.until("it has it again", async || bed.api::<Lease>().get_opt(NAME).await.unwrap().is_some()).await;
    queue(&client, 1).await;
    until_scaled(&bed, &leader, &client, 1).await;
    let labelled = serde_json::json!({ "metadata": { "labels": { "of": "somebody" } } });
    let params = kube::api::PatchParams::default();
    bed.api::<Lease>().patch(NAME, &params, &kube::api::Patch::Merge(labelled)).await.expect("it is there");
    let renewed = lease(&bed).await.renew_time;
    leader.until("it is renewed", async || lease(&bed).await.renew_time != renewed).await;
    let labels = bed.api::<Lease>().get(NAME).await.unwrap().metadata.labels;
    assert_eq!(labels.and_then(|labels| labels.get("of").cloned()).as_deref(), Some("somebody"), "labels stay");

    let after = writer(&leader).await;
    assert!(after.0.parse::<u64>().ok() > before.0.parse().ok(), "tokens never fall: {before:?} {after:?}");
    assert_eq!(standby.status().await.leadership.role, Role::Standby);
    assert_eq!(writers(&client).await, BTreeSet::from([after]));
    assert_eq!(leader.status().await.leadership.since, since, "its term was never interrupted");
    bed.end().await;
}

#[tokio::test]
async fn without_the_right_nobody_leads_and_the_right_is_named() {
    let (server, bed) = (RedisServer::start(), Bed::start_fake(Behaviour::default()).await);
    let client = server.client().await;
    let (first, second) = start_two(&server, &bed, &format!("{FAST_SWEEP}{SHORT}")).await;
    bed.fake().deny("patch", "leases");
    until_role(&first, Role::Standby).await;
    for scaler in [&first, &second] {
        let named = async || {
            let (ready, body) = scaler.readyz().await;
            !ready && body.contains("no right to `patch` `leases`")
        };
        scaler.until("it says what it lacks", named).await;
    }
    queue(&client, 2).await;
    first.until_evaluated(TYPE, 3).await;
    assert_eq!(bed.replicas(TYPE).await, 0, "nobody acts");
    bed.fake().allow_all();
    until_scaled(&bed, &first, &client, 2).await;
    assert_eq!(writers(&client).await.len(), 1);
}

#[tokio::test]
async fn a_conflict_a_busy_server_and_a_cut_connection_cost_no_lead() {
    let (server, bed) = (RedisServer::start(), Bed::start_fake(Behaviour::default()).await);
    let client = server.client().await;
    let (leader, standby) = start_two(&server, &bed, &format!("{NO_SWEEP}{SHORT}")).await;
    let before = writer(&leader).await;
    let status = |code, retry_after| Fault::Status { code, message: "injected", retry_after };
    for fault in [status(409, None), status(500, None), status(429, Some(1)), Fault::Cut] {
        let renewed = lease(&bed).await.renew_time;
        bed.fake().disturb("patch", "leases", fault);
        leader.until("it is renewed", async || lease(&bed).await.renew_time != renewed).await;
    }
    queue(&client, 1).await;
    until_scaled(&bed, &leader, &client, 1).await;
    assert_eq!(writers(&client).await, BTreeSet::from([before]));
    assert_eq!(standby.status().await.leadership.role, Role::Standby);
}

#[tokio::test]
async fn it_goes_on_without_redis_and_tokens_go_on_from_those_of_redis() {
    let (server, bed) = (RedisServer::start(), Bed::start_fake(Behaviour::default()).await);
    let client = server.client().await;
    let _: String = redis(&client, "SET scaler:leader:token 41").await;
    let (leader, standby) = start_two(&server, &bed, &format!("{NO_SWEEP}{SHORT}")).await;
    assert_eq!(writer(&leader).await.0, "42", "greater than any before, wherever the lease was");

    server.stop();
    let (renewals, length) = (bed.fake().count("patch", "leases"), Duration::from_secs(10));
    // Ten renewals are two lengths of the lease.
    leader.until("it renews", async || bed.fake().count("patch", "leases") > renewals + 10).await;
    server.cont();
    assert_eq!(leader.status().await.leadership.token, Some(42), "it has led for all of {length:?}");
    assert_eq!(standby.status().await.leadership.role, Role::Standby);
}

#[tokio::test]
async fn the_doctor_and_the_start_look_at_the_lease() {
    let (server, bed) = (RedisServer::start(), Bed::start_fake(Behaviour::default()).await);
    // As `config/kubernetes/lease.yaml` grants them.
    for verb in ["get", "patch"] {
        bed.fake().allow_only(verb, "leases", NAME);
    }
    let (leader, _standby) = start_two(&server, &bed, &format!("{FAST_SWEEP}{LONG}")).await;
    let file = leader.directory().join("swarm.toml");
    let mut doctor = swarm(leader.directory());
    doctor.args(["doctor", "--json", "--url", &leader.url(), "--config"]).arg(&file);
    doctor.env("ORCHESTRATOR", "kubernetes");
    let asked = tokio::process::Command::from(doctor).output().await.unwrap();
    let report: Value = serde_json::from_slice(&asked.stdout).unwrap();
    let found: Vec<&str> =
        report["findings"].as_array().unwrap().iter().filter_map(|finding| finding["found"].as_str()).collect();
    let instance = leader.status().await.instance;
    assert!(found.iter().any(|text| text.contains(&format!("lease `{NAME}`: names {instance}_"))), "{found:#?}");
    assert!(!found.iter().any(|text| text.contains("no autoscaler leads")), "{found:#?}");

    bed.fake().deny("get", "leases");
    let mut command = swarm(leader.directory());
    command.args(["autoscaler", "--orchestrator", "kubernetes", "--config"]).arg(&file);
    let ended = tokio::process::Command::from(command).output();
    let output = tokio::time::timeout(crate::support::wait::DEADLINE, ended).await.expect("it ends").unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let rule = "{apiGroups: [\"coordination.k8s.io\"], resources: [\"leases\"], verbs: [\"get\"]}";
    assert!(!output.status.success() && said.contains(rule), "{said}");
}

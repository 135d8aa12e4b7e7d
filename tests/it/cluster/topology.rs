//! A cluster that changes while it is used: a primary dies and its replica takes over, a slot moves.

use std::collections::BTreeSet;

use swarm::model::{WorkerId, WorkerType, keys, snapshot::WorkerStatus};

use super::{KEYSPACE, SCALING, depth, start, until_recorded};
use crate::support::{
    autoscaler::{Autoscaler, FAST_SWEEP, SLEEPER, TRACKING, pool},
    cluster::Cluster,
    command::{add_jobs, redis},
};

/// The other primaries go on while one has no successor yet.
const PARTIAL: [&str; 2] = ["--cluster-require-full-coverage", "no"];

#[tokio::test]
async fn a_primary_that_dies_holds_its_own_pools_until_its_replica_takes_over() {
    let mut cluster = Cluster::start_with(1, &PARTIAL, &[]);
    let client = cluster.client().await;
    let (scaler, [_, steady, failing]) = start(&cluster, "").await;
    let failing_slot = cluster.slot(&format!("{failing}:jobs")).await;
    add_jobs(&client, &format!("{failing}:jobs"), 10).await;
    scaler.until_workers(&failing, 2).await;
    scaler.until_quiet().await;
    let before = cluster.owner(failing_slot).await;
    let _: u64 = redis(&cluster.nodes[before].client().await, "WAIT 1 5000").await;
    cluster.nodes[before].kill();
    scaler.until("its depth is unknown", async || depth(&scaler, &failing).await.is_none()).await;
    let other = cluster.slot(&format!("{steady}:jobs")).await;
    assert_ne!(cluster.owner(other).await, before);
    cluster.add_jobs(&format!("{steady}:jobs"), 1);
    scaler.until_workers(&steady, 1).await;
    scaler.until_workers(&failing, 2).await;
    assert!(!scaler.log().contains("scale down"), "{}", scaler.log());

    cluster.until_owner_is_not(failing_slot, before).await;
    scaler.until("its depth is known again", async || depth(&scaler, &failing).await == Some(10)).await;
    cluster.add_jobs(&format!("{failing}:jobs"), 10);
    scaler.until_workers(&failing, 4).await;
}

async fn a_slot_that_moves_is_followed(signals: &str, source: &str) {
    let cluster = Cluster::start();
    let client = cluster.client().await;
    let (scaler, [first, ..]) = start(&cluster, signals).await;
    let queue = format!("{first}:jobs");
    let slot = cluster.slot(&queue).await;
    add_jobs(&client, &queue, 1).await;
    scaler.until_workers(&first, 1).await;
    assert_eq!(until_recorded(&scaler, &client, &first).await, source);
    scaler.until_quiet().await;

    cluster.begin_move(slot, 2, &[&queue]).await;
    scaler.until("it reads the queue where it is", async || depth(&scaler, &first).await == Some(1)).await;
    scaler.until_quiet().await;
    let before = scaler.of(&first).await.evaluations;
    cluster.end_move(slot, 2).await;
    // Without a job, nothing tells of the move but the slots themselves, which are looked at every second.
    scaler.until("it has noticed the move", async || scaler.of(&first).await.evaluations > before).await;
    scaler.until_quiet().await;
    cluster.add_jobs(&queue, 9);
    scaler.until_workers(&first, 2).await;
}

#[tokio::test]
async fn a_slot_that_moves_is_followed_by_notifications() {
    a_slot_that_moves_is_followed(KEYSPACE, "keyspace").await;
}

#[tokio::test]
async fn a_slot_that_moves_is_followed_by_invalidations() {
    a_slot_that_moves_is_followed(TRACKING, "tracking").await;
}

#[tokio::test]
async fn a_queue_is_read_and_scaled_while_its_slot_is_on_the_way() {
    let cluster = Cluster::start();
    let client = cluster.client().await;
    let [first, ..] = cluster.types().await;
    let queue = format!("{first}:jobs");
    let slot = cluster.slot(&queue).await;
    add_jobs(&client, &queue, 1).await;
    cluster.begin_move(slot, 1, &[&queue]).await;
    let scaler = Autoscaler::start(&cluster.url(), &format!("{FAST_SWEEP}{}", pool(&first, SCALING, SLEEPER))).await;
    scaler.until_workers(&first, 1).await;
    cluster.add_jobs(&queue, 9);
    scaler.until_workers(&first, 2).await;
    cluster.end_move(slot, 1).await;
}

#[tokio::test]
async fn a_primary_without_replica_that_comes_back_is_found_again() {
    let cluster = Cluster::start_with(0, &PARTIAL, &[]);
    let (scaler, [_, _, failing]) = start(&cluster, KEYSPACE).await;
    let slot = cluster.slot(&format!("{failing}:jobs")).await;
    let owner = cluster.owner(slot).await;
    cluster.nodes[owner].stop();
    scaler.until("its depth is unknown", async || depth(&scaler, &failing).await.is_none()).await;
    cluster.nodes[owner].cont();
    cluster.until_well().await;
    scaler.until("its depth is known again", async || depth(&scaler, &failing).await.is_some()).await;
    scaler.until_ready().await;
    cluster.add_jobs(&format!("{failing}:jobs"), 1);
    scaler.until_workers(&failing, 1).await;
}

/// Writes heartbeats of idle workers for a pool, and adds jobs until that primary has at least one of the heartbeats
/// and another primary at least one. Returns the number of workers, and those whose heartbeats that primary has.
async fn grow_until_heartbeats_are_on(
    cluster: &Cluster,
    scaler: &Autoscaler,
    worker_type: &str,
    primary: usize,
) -> (u32, BTreeSet<WorkerId>) {
    let client = cluster.client().await;
    let (mut workers, mut on_primary) = (0, BTreeSet::new());
    while on_primary.is_empty() || on_primary.len() == workers as usize {
        add_jobs(&client, &format!("{worker_type}:jobs"), 5).await;
        workers += 1;
        scaler.until_workers(worker_type, workers).await;
        for worker in &scaler.of(worker_type).await.workers {
            let key = keys::heartbeat(&WorkerType::new(worker_type), &worker.id);
            let _: u64 = redis(&client, &format!("HSET {key} state IDLE")).await;
            if cluster.owner(cluster.slot(&key).await).await == primary {
                on_primary.insert(worker.id.clone());
            }
        }
    }
    (workers, on_primary)
}

#[tokio::test]
async fn a_frozen_primary_hides_only_what_lies_on_it() {
    let cluster = Cluster::start_with(0, &PARTIAL, &[]);
    let client = cluster.client().await;
    let types = cluster.types().await;
    // The lease has to be renewed meanwhile.
    let leading = cluster.owner(cluster.slot("scaling:events").await).await;
    let frozen = (leading + 1) % 3;
    let (here, there) = (&types[leading], &types[frozen]);
    let with_heartbeats =
        pool(here, &format!("{SCALING}, max_workers = 100"), SLEEPER).replace("worker = { heartbeats = false }\n", "");
    let pools = with_heartbeats + &pool(there, SCALING, SLEEPER);
    let scaler = Autoscaler::start(&cluster.url(), &format!("{FAST_SWEEP}{pools}")).await;
    scaler.until_ready().await;
    add_jobs(&client, &format!("{there}:jobs"), 10).await;
    scaler.until_workers(there, 2).await;
    let (workers, hidden) = grow_until_heartbeats_are_on(&cluster, &scaler, here, frozen).await;
    let all_idle = async || {
        let all = &scaler.of(here).await.workers;
        all.len() == workers as usize && all.iter().all(|worker| worker.status == WorkerStatus::Idle)
    };
    scaler.until("all of them are heard", all_idle).await;

    cluster.nodes[frozen].stop();
    let client = cluster.nodes[leading].client().await;
    scaler.until("the depth there is unknown", async || depth(&scaler, there).await.is_none()).await;
    let _: u64 = redis(&client, &format!("XTRIM {here}:jobs MAXLEN 0")).await;
    // Those that can be heard leave.
    let left = u32::try_from(hidden.len()).unwrap();
    scaler.until_workers(here, left).await;
    let of = scaler.of(here).await;
    let unheard = of.workers.iter().filter(|worker| worker.status == WorkerStatus::PossiblyBusy);
    assert_eq!(unheard.map(|worker| worker.id.clone()).collect::<BTreeSet<_>>(), hidden, "{of:?}");
    // A job here still starts a worker.
    add_jobs(&client, &format!("{here}:jobs"), 5 * (hidden.len() + 1)).await;
    scaler.until_workers(here, left + 1).await;
    // There, nothing is known, and nobody leaves.
    assert_eq!(depth(&scaler, there).await, None);
    scaler.until_workers(there, 2).await;

    cluster.nodes[frozen].cont();
    scaler.until("the depth there is known again", async || depth(&scaler, there).await == Some(10)).await;
    scaler.until_workers(there, 2).await;
}

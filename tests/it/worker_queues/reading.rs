//! How several queues are read: in turn, never more than there is room for, and what is too much is given back.

use std::{
    ops::Range,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use fred::prelude::*;
use serde_json::{Value as Json, json};
use swarm::{
    broker::{Consumer, Job, JobPolicy},
    config::WorkerTypeSettings,
    model::{WorkerId, WorkerType},
    worker::{Handler, JobError, WorkerConfig, WorkerReport, run},
};
use tokio_util::sync::CancellationToken;

use super::{NAMED, put, target};
use crate::servers::{Tested, on_servers};
use crate::support::{
    command::{pending, redis},
    redis::RedisServer,
    wait::{DEADLINE, eventually},
};

/// Notes which jobs were done, in their order, and how many were in progress at once.
#[derive(Default)]
struct Notes {
    done: Mutex<Vec<String>>,
    now: AtomicUsize,
    most: AtomicUsize,
}

impl Notes {
    fn done(&self) -> Vec<String> {
        self.done.lock().unwrap().clone()
    }
}

#[async_trait]
impl Handler for Notes {
    async fn handle(&self, _method: &str, job: &Job) -> Result<Json, JobError> {
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(5)).await;
        self.now.fetch_sub(1, Ordering::SeqCst);
        self.done.lock().unwrap().push(job.id.clone());
        Ok(Json::Null)
    }
}

struct Running {
    notes: Arc<Notes>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<WorkerReport>,
}

impl Running {
    fn start(server: &RedisServer, concurrency: usize) -> Self {
        let settings = WorkerTypeSettings {
            extra_queues: ["urgent", "slow", "tenant-*:jobs"].map(str::to_owned).into(),
            ..WorkerTypeSettings::default()
        };
        let config =
            WorkerConfig { concurrency, ..WorkerConfig::new(WorkerType::new("t"), WorkerId::new("w1"), &settings) };
        let (notes, stop) = (Arc::new(Notes::default()), CancellationToken::new());
        let worker = run(config, target(server), notes.clone(), stop.clone());
        let task = tokio::spawn(async { worker.await.unwrap() });
        Self { notes, stop, task }
    }

    async fn until_done(&self, count: usize) -> Vec<String> {
        let done = async || self.notes.done().len() >= count;
        assert!(eventually(DEADLINE, done).await, "only {} of {count} are done", self.notes.done().len());
        self.notes.done()
    }

    async fn leave(self) -> WorkerReport {
        self.stop.cancel();
        self.task.await.unwrap()
    }
}

on_servers! {
    [installed, valkey_8, redis_6_2],
    [
        a_flood_on_one_queue_starves_no_other,
        several_queues_bring_no_more_jobs_than_there_are_slots,
        jobs_that_come_at_once_are_done_one_by_one_by_a_worker_with_one_slot,
        what_is_taken_is_shared_out_evenly_and_what_is_too_much_is_given_back,
        a_queue_that_is_gone_is_told_and_the_others_are_read,
    ]
}

async fn a_flood_on_one_queue_starves_no_other(tested: &Tested) {
    let server = tested.start(&[]);
    let client = server.client().await;
    for number in 0..200 {
        put(&client, "t:jobs", &format!("flood-{number}"), "t.note", json!([])).await;
    }
    for number in 0..4 {
        put(&client, "urgent", &format!("urgent-{number}"), "t.note", json!([])).await;
        put(&client, "slow", &format!("slow-{number}"), "t.note", json!([])).await;
        put(&client, "tenant-1:jobs", &format!("tenant-{number}"), "t.note", json!([])).await;
    }
    let worker = Running::start(&server, 1);
    worker.until_done(30).await;
    put(&client, "urgent", "late", "t.note", json!([])).await;
    let before = worker.notes.done().len();
    let done = worker.until_done(213).await;
    let place = |id: &str| done.iter().position(|done| done == id).unwrap();
    for number in 0..4 {
        // Each of up to four queues has its turn before it is that of the first one again.
        for queue in ["urgent", "slow"] {
            assert!(place(&format!("{queue}-{number}")) < 4 * (number + 1), "{done:?}");
        }
        assert!(place(&format!("tenant-{number}")) < 100, "{done:?}");
    }
    assert!(place("late") <= before + 4, "it was the {}th, published after {before}", place("late"));
    let flood: Vec<usize> = (0..200).map(|number| place(&format!("flood-{number}"))).collect();
    assert!(flood.is_sorted(), "one queue's jobs are begun in their order");
    assert_eq!(worker.leave().await.processed, 213);
}

async fn several_queues_bring_no_more_jobs_than_there_are_slots(tested: &Tested) {
    let server = tested.start(&[]);
    let client = server.client().await;
    let put_rounds = async |numbers: Range<usize>| {
        for number in numbers {
            for queue in NAMED {
                put(&client, queue, &format!("{queue}-{number}"), "t.note", json!([])).await;
            }
        }
    };
    // Enough for every slot at its first look, however slowly the others come.
    put_rounds(0..2).await;
    let worker = Running::start(&server, 3);
    put_rounds(2..50).await;
    worker.until_done(150).await;
    assert_eq!(worker.notes.most.load(Ordering::SeqCst), 3);
    assert_eq!(worker.leave().await.processed, 150);
}

/// From 7.2 on a read that waits may be answered with one job of each.
async fn jobs_that_come_at_once_are_done_one_by_one_by_a_worker_with_one_slot(tested: &Tested) {
    let server = tested.start(&[]);
    let client = server.client().await;
    let worker = Running::start(&server, 1);
    for round in 0..10 {
        let all = client.multi();
        for queue in NAMED {
            let job = json!({"id": format!("{round}-{queue}"), "type": "t.note"}).to_string();
            let () = all.xadd(queue, false, None, "*", ("json", job)).await.unwrap();
        }
        let _: Vec<String> = all.exec(true).await.unwrap();
        worker.until_done(3 * (round + 1)).await;
    }
    let mut done = worker.notes.done();
    done.sort_unstable();
    done.dedup();
    assert_eq!((done.len(), worker.notes.most.load(Ordering::SeqCst)), (30, 1));
    assert_eq!(worker.leave().await.processed, 30);
    for queue in NAMED {
        assert!(pending(&client, queue, "t").await.is_empty(), "{queue}");
    }
}

fn consumer(name: &str) -> Consumer {
    let [stream, group, name] = ["t:jobs", "t", name].map(str::to_owned);
    Consumer { stream, group, name, policy: JobPolicy::default() }
}

async fn what_is_taken_is_shared_out_evenly_and_what_is_too_much_is_given_back(tested: &Tested) {
    let server = tested.start(&[]);
    let client = server.client().await;
    let mut connection = target(&server).connect().await.unwrap();
    let streams = NAMED.map(Arc::<str>::from);
    let (one, two) = (consumer("one"), consumer("two"));
    for (stream, count) in NAMED.into_iter().zip([20, 1, 20]) {
        one.on(stream).ensure_group(&mut connection).await.unwrap();
        for number in 0..count {
            put(&client, stream, &format!("{stream}-{number}"), "t.echo", json!([])).await;
        }
    }
    let take = one.take(&mut connection, &streams, 10).await.unwrap();
    assert!(take.broken.is_empty());
    let of = |stream: &str| take.deliveries.iter().filter(|taken| &*taken.stream == stream).count();
    assert_eq!(NAMED.map(of), [3, 1, 6], "3 of 10, 3 of the 7 that are left, and all of the 6 that are left then");
    let take = one.take(&mut connection, &streams, 1).await.unwrap();
    assert_eq!((take.deliveries.len(), &*take.deliveries[0].stream), (1, "t:jobs"));

    // A wait brings one of each that has some.
    let waited = one.wait(&mut connection, &streams, Duration::from_secs(1)).await.unwrap();
    let mut from: Vec<&str> = waited.iter().map(|taken| &*taken.stream).collect();
    from.sort_unstable();
    assert_eq!(from, ["slow", "t:jobs"]);
    let surplus = waited.iter().find(|taken| &*taken.stream == "slow").unwrap();
    let id = surplus.job.as_ref().unwrap().id.clone();
    assert!(one.give_back(&mut connection, surplus).await.unwrap());
    assert!(!one.give_back(&mut connection, surplus).await.unwrap(), "it is not ours any more");
    let rest = two.on("slow").read(&mut connection, 100, Duration::from_millis(10)).await.unwrap();
    let again: Vec<_> = rest.iter().filter(|taken| taken.job.as_ref().unwrap().id == id).collect();
    assert_eq!((again.len(), again[0].attempts), (1, 1), "it is there once, and that was no attempt");

    // Of several groups only this one gets it again.
    let _: String = redis(&client, "XGROUP CREATE slow others $").await;
    assert!(two.give_back(&mut connection, again[0]).await.unwrap());
    let given = one.on("slow").read(&mut connection, 1, Duration::from_millis(10)).await.unwrap();
    assert_eq!(given[0].job.as_ref().unwrap().group.as_deref(), Some("t"));
    assert_eq!(given[0].attempts, 1);
}

async fn a_queue_that_is_gone_is_told_and_the_others_are_read(tested: &Tested) {
    let server = tested.start(&[]);
    let client = server.client().await;
    let mut connection = target(&server).connect().await.unwrap();
    let one = consumer("one");
    one.ensure_group(&mut connection).await.unwrap();
    put(&client, "t:jobs", "a", "t.echo", json!([])).await;
    let _: String = redis(&client, "SET text text").await;
    let streams = ["gone", "text", "t:jobs"].map(Arc::<str>::from);
    let take = one.take(&mut connection, &streams, 5).await.unwrap();
    assert_eq!(take.deliveries.len(), 1);
    let [(gone, missing), (text, wrong)] = &take.broken[..] else { panic!("{:?}", take.broken) };
    assert!(&**gone == "gone" && missing.is_missing_group(), "{missing}");
    assert!(&**text == "text" && wrong.is_wrong_type(), "{wrong}");
    assert!(!one.on("gone").join_group(&mut connection).await.unwrap());
    assert_eq!(redis::<u64>(&client, "EXISTS gone").await, 0);
    put(&client, "gone", "b", "t.echo", json!([])).await;
    assert!(one.on("gone").join_group(&mut connection).await.unwrap());
    assert!(one.on("gone").join_group(&mut connection).await.unwrap(), "it is there already");
    assert_eq!(one.take(&mut connection, &streams, 5).await.unwrap().deliveries.len(), 1);
}

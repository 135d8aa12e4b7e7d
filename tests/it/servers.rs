//! The same questions to every server that swarm is said to work with: the `redis-server` of this machine, and those
//! that `.ci/install-test-servers` puts into `target/test-servers`. One test for each server and question.
//!
//! Where a server can't be had, `SWARM_TEST_WITHOUT=redis-6.2` leaves its tests out (build.rs).

use std::{
    collections::HashMap,
    env,
    path::{Path, PathBuf},
};

use fred::prelude::Client;
use serde_json::Value;
use swarm::model::{Source, Timestamp};

use crate::support::{
    autoscaler::{Autoscaler, FAST_SWEEP, NO_SWEEP, swarm},
    command::{add_jobs, records, redis, work_off},
    redis::{INSTALLED, RedisServer},
    wait::DEADLINE,
};

/// Where `.ci/install-test-servers` puts them.
const SERVERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/test-servers");

/// A server under test.
pub(crate) struct Tested {
    /// Its folder in [`SERVERS`].
    name: &'static str,
    /// Its program there.
    program: &'static str,
    /// What INFO says of it: a field and the beginning of its value.
    says: (&'static str, &'static str),
    /// Whether XINFO GROUPS tells a lag; `None` where the version is not known.
    lag: Option<bool>,
}

/// Whatever `redis-server` is in PATH; swarm's other tests run on it too.
pub(crate) const OF_THIS_MACHINE: Tested =
    Tested { name: "installed", program: INSTALLED, says: ("redis_version", ""), lag: None };
/// Debian's package. It answers `redis_version:7.2.4`, for programs that ask for that.
pub(crate) const VALKEY_8: Tested =
    Tested { name: "valkey-8", program: "valkey-server", says: ("valkey_version", "8."), lag: Some(true) };
/// Debian 13's package.
pub(crate) const REDIS_8: Tested =
    Tested { name: "redis-8", program: "redis-server", says: ("redis_version", "8."), lag: Some(true) };
/// The oldest that is supported: no lag, no number of entries ever added, other replies to XCLAIM.
pub(crate) const REDIS_6_2: Tested =
    Tested { name: "redis-6.2", program: "redis-server", says: ("redis_version", "6.2."), lag: Some(false) };

impl Tested {
    /// Starts one.
    ///
    /// # Panics
    /// If it is not there.
    pub(crate) fn start(&self, options: &[&str]) -> RedisServer {
        RedisServer::start_binary(&self.binary(), options)
    }

    /// Returns whether it counts the entries that a group has read, where the version is known.
    pub(crate) fn counts_reads(&self) -> bool {
        self.lag != Some(false)
    }

    fn binary(&self) -> PathBuf {
        let Self { name, program, .. } = *self;
        if name == OF_THIS_MACHINE.name {
            return program.into();
        }
        let binary = Path::new(SERVERS).join(name).join("bin").join(program);
        assert!(
            binary.exists(),
            "{} is missing: run `make servers`; SWARM_TEST_WITHOUT={name} leaves its tests out",
            binary.display()
        );
        binary
    }
}

/// One test for each question and server, in a module for each server. A question is a function of a [`Tested`].
macro_rules! on_servers {
    ([$($server:ident),+], $questions:tt) => {
        $($crate::servers::on_servers! { @ $server $questions })+
    };
    (@ installed $questions:tt) => {
        $crate::servers::on_servers! { @ installed OF_THIS_MACHINE, any(), "" $questions }
    };
    (@ valkey_8 $questions:tt) => {
        $crate::servers::on_servers! { @ valkey_8 VALKEY_8, without_valkey_8, "there is no Valkey 8" $questions }
    };
    (@ redis_8 $questions:tt) => {
        $crate::servers::on_servers! { @ redis_8 REDIS_8, without_redis_8, "there is no Redis 8" $questions }
    };
    (@ redis_6_2 $questions:tt) => {
        $crate::servers::on_servers! { @ redis_6_2 REDIS_6_2, without_redis_6_2, "there is no Redis 6.2" $questions }
    };
    (@ $server:ident $tested:ident, $missing:meta, $why:literal [$($question:ident),+ $(,)?]) => {
        mod $server {
            $(
                #[cfg_attr($missing, ignore = $why)]
                #[tokio::test]
                async fn $question() {
                    super::$question(&$crate::servers::$tested).await;
                }
            )+
        }
    };
}
pub(crate) use on_servers;

on_servers! {
    [installed, valkey_8, redis_8, redis_6_2],
    [
        is_what_its_name_says,
        a_keyspace_notification_alone_wakes_a_pool,
        an_invalidation_alone_wakes_a_pool,
        a_message_on_the_channel_alone_wakes_a_pool,
        without_config_invalidations_wake_a_pool,
        a_real_worker_is_started_and_answers,
        the_job_of_a_worker_that_died_is_done,
        a_job_that_was_deleted_holds_no_worker,
        the_backlog_is_right_without_stream_or_group,
        the_backlog_is_right_where_the_server_cannot_tell,
    ]
}

const KEYSPACE: &str = "[signals]\nkeyspace = \"on\"\nchannel = \"\"\ntracking = \"off\"\n";
const TRACKING: &str = "[signals]\nkeyspace = \"off\"\nchannel = \"\"\ntracking = \"on\"\n";
const CHANNEL: &str = "[signals]\nkeyspace = \"off\"\ntracking = \"off\"\n";

/// A pool of real workers, which one job is to wake.
const POOL: &str = "[worker_types.test]\nscaling = { min_workers = 0, scale_up_threshold = 5, cooldown_seconds = 0 }\n\
                    worker = { heartbeat_seconds = 1 }\n";
/// A pool that is looked at and gets no workers, so that nobody takes what is counted.
const NO_POOL: &str = "[worker_types.test]\nscaling = { min_workers = 0, max_workers = 0 }\n";

async fn start(server: &RedisServer, sweep: &str, signals: &str) -> Autoscaler {
    let scaler = Autoscaler::start(&server.url(), &format!("{sweep}{signals}{POOL}")).await;
    scaler.until_ready().await;
    scaler
}

/// Waits until the first change is recorded, and checks that it is from 0 to 1 and what led to it.
async fn woken_by(source: &str, client: &Client, scaler: &Autoscaler) {
    scaler.until("the change is recorded", async || !records(client, "test").await.is_empty()).await;
    let first = &records(client, "test").await[0];
    let told = ["from_count", "to_count", "trigger"].map(|field| first[field].as_str());
    assert_eq!(told, ["0", "1", source]);
}

async fn is_what_its_name_says(tested: &Tested) {
    let server = tested.start(&[]);
    let client = server.client().await;
    let info: String = redis(&client, "INFO server").await;
    let (field, beginning) = tested.says;
    let value = info.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    assert!(value.is_some_and(|value| value.starts_with(beginning)), "{} says of itself:\n{info}", tested.name);

    let _: String = redis(&client, "XGROUP CREATE test:jobs test 0 MKSTREAM").await;
    let groups: Vec<HashMap<String, fred::types::Value>> = redis(&client, "XINFO GROUPS test:jobs").await;
    let lag = groups[0].contains_key("lag");
    assert_eq!(lag, tested.lag.unwrap_or(lag), "{groups:?}");
}

async fn a_keyspace_notification_alone_wakes_a_pool(tested: &Tested) {
    let server = tested.start(&[]);
    let client = server.client().await;
    let scaler = start(&server, NO_SWEEP, KEYSPACE).await;
    add_jobs(&client, "test:jobs", 1).await;
    woken_by("keyspace", &client, &scaler).await;
}

async fn an_invalidation_alone_wakes_a_pool(tested: &Tested) {
    let server = tested.start(&[]);
    let client = server.client().await;
    let scaler = start(&server, NO_SWEEP, TRACKING).await;
    add_jobs(&client, "test:jobs", 1).await;
    woken_by("tracking", &client, &scaler).await;
}

async fn a_message_on_the_channel_alone_wakes_a_pool(tested: &Tested) {
    let server = tested.start(&[]);
    let client = server.client().await;
    let scaler = start(&server, NO_SWEEP, CHANNEL).await;
    add_jobs(&client, "test:jobs", 1).await;
    let heard: u64 = redis(&client, "PUBLISH jobs:published test:jobs").await;
    assert_eq!(heard, 1);
    woken_by("channel", &client, &scaler).await;
}

async fn without_config_invalidations_wake_a_pool(tested: &Tested) {
    let server = tested.start(&["--rename-command", "CONFIG", ""]);
    let client = server.client().await;
    let scaler = start(&server, NO_SWEEP, "").await;
    scaler.until_source(Source::Tracking, "up").await;
    add_jobs(&client, "test:jobs", 1).await;
    woken_by("tracking", &client, &scaler).await;
}

async fn a_real_worker_is_started_and_answers(tested: &Tested) {
    let server = tested.start(&[]);
    let scaler = start(&server, NO_SWEEP, "").await;
    let mut publish = tokio::process::Command::from(swarm(scaler.directory()));
    publish.args(["publish", "test.echo", "hello", "42", "--wait", "--json"]).kill_on_drop(true);
    let answer = tokio::time::timeout(DEADLINE, publish.output()).await.unwrap().unwrap();
    let result: Value = serde_json::from_slice(&answer.stdout).unwrap_or_else(|_| panic!("{answer:?}"));
    assert_eq!(result["value"], serde_json::json!(["hello", 42]), "{result}");
    // Nothing tells the scaler of the end of a job, and it does not sweep here. It may see the worker idle, busy and
    // idle again.
    let client = server.client().await;
    let is_empty = async || {
        let _: u64 = redis(&client, "PUBLISH jobs:published test:jobs").await;
        scaler.of("test").await.pool.known().is_some_and(|pool| pool.current() == 0)
    };
    scaler.until("the idle worker is let go", is_empty).await;
}

/// Delivers what waits to a consumer without a heartbeat: a worker that has died.
async fn deliver_to_the_dead(client: &Client) {
    let _: String = redis(client, "XGROUP CREATE test:jobs test 0 MKSTREAM").await;
    let _: fred::types::Value = redis(client, "XREADGROUP GROUP test dead COUNT 100 STREAMS test:jobs >").await;
}

async fn nothing_pending(client: &Client, scaler: &Autoscaler) {
    scaler
        .until("nothing is pending", async || {
            let pending: Vec<(String, String, u64, u64)> = redis(client, "XPENDING test:jobs test - + 10").await;
            pending.is_empty()
        })
        .await;
    scaler.until_workers("test", 0).await;
}

async fn the_job_of_a_worker_that_died_is_done(tested: &Tested) {
    let server = tested.start(&[]);
    let client = server.client().await;
    add_jobs(&client, "test:jobs", 1).await;
    deliver_to_the_dead(&client).await;
    let scaler = start(&server, FAST_SWEEP, "").await;
    nothing_pending(&client, &scaler).await;
    let consumers: Vec<HashMap<String, fred::types::Value>> = redis(&client, "XINFO CONSUMERS test:jobs test").await;
    let names: Vec<String> =
        consumers.into_iter().map(|mut one| one.remove("name").unwrap().convert().unwrap()).collect();
    assert!(!names.contains(&"dead".to_owned()), "the consumer of the dead one is removed: {names:?}");
}

async fn a_job_that_was_deleted_holds_no_worker(tested: &Tested) {
    let server = tested.start(&[]);
    let client = server.client().await;
    let jobs = add_jobs(&client, "test:jobs", 2).await;
    deliver_to_the_dead(&client).await;
    let _: u64 = redis(&client, &format!("XDEL test:jobs {}", jobs[0])).await;
    let scaler = start(&server, FAST_SWEEP, "").await;
    nothing_pending(&client, &scaler).await;
}

/// Waits until the scaler counts so much waiting and pending work, and knows since when if there is some.
async fn until_counted(scaler: &Autoscaler, what: &str, waiting: u64, pending: u64) {
    let what = format!("{what}: {waiting} waiting, {pending} pending");
    scaler
        .until(&what, async || {
            let demand = &scaler.of("test").await.demand;
            let oldest: Option<&Option<Timestamp>> = demand.oldest.known();
            demand.lag.known() == Some(&waiting)
                && demand.pending.known() == Some(&pending)
                && (waiting + pending > 0 || oldest == Some(&None))
        })
        .await;
}

async fn the_backlog_is_right_without_stream_or_group(tested: &Tested) {
    let server = tested.start(&[]);
    let client = server.client().await;
    let scaler = Autoscaler::start(&server.url(), &format!("{FAST_SWEEP}{NO_POOL}")).await;
    scaler.until_ready().await;
    until_counted(&scaler, "no stream", 0, 0).await;
    add_jobs(&client, "test:jobs", 3).await;
    until_counted(&scaler, "no group", 3, 0).await;
    let _: String = redis(&client, "XGROUP CREATE test:jobs test 0").await;
    until_counted(&scaler, "a new group", 3, 0).await;
    let _: fred::types::Value = redis(&client, "XREADGROUP GROUP test one COUNT 2 STREAMS test:jobs >").await;
    until_counted(&scaler, "two delivered", 1, 2).await;
    work_off(&client, "test:jobs", "test").await;
    until_counted(&scaler, "all done", 0, 0).await;
    let _: u64 = redis(&client, "DEL test:jobs").await;
    until_counted(&scaler, "the stream is gone", 0, 0).await;
}

async fn the_backlog_is_right_where_the_server_cannot_tell(tested: &Tested) {
    let server = tested.start(&[]);
    let client = server.client().await;
    let scaler = Autoscaler::start(&server.url(), &format!("{FAST_SWEEP}{NO_POOL}")).await;
    scaler.until_ready().await;
    let jobs = add_jobs(&client, "test:jobs", 6).await;
    let _: String = redis(&client, &format!("XGROUP CREATE test:jobs test {}", jobs[1])).await;
    until_counted(&scaler, "a group made at the second of six", 4, 0).await;
    let _: u64 = redis(&client, &format!("XDEL test:jobs {}", jobs[3])).await;
    until_counted(&scaler, "one that waits is deleted", 3, 0).await;
    let _: fred::types::Value = redis(&client, "XREADGROUP GROUP test one COUNT 1 STREAMS test:jobs >").await;
    until_counted(&scaler, "one is delivered", 2, 1).await;
    let _: u64 = redis(&client, "XTRIM test:jobs MAXLEN 1").await;
    until_counted(&scaler, "all but the last are trimmed", 1, 1).await;
    work_off(&client, "test:jobs", "test").await;
    until_counted(&scaler, "all done", 0, 0).await;
    add_jobs(&client, "test:jobs", 2).await;
    until_counted(&scaler, "two more", 2, 0).await;
}

//! Sidekiq's stop in two steps, with a process in its place: it notes its signals, and the test writes what a process
//! of Sidekiq says about itself.

use std::{
    fs,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use fred::prelude::Client;
use rustix::process::Signal;

use super::bed::server;
use crate::support::{
    autoscaler::{Autoscaler, FAST_SWEEP},
    command::redis,
    redis::RedisServer,
    wait::{DEADLINE, eventually},
};

/// Notes each signal, SIGTERM with what the test has written before.
const PROCESS: &str = "trap 'echo TSTP >> $SWARM_TEST_DIR/signals' TSTP; \
                       trap 'echo TERM $(cat $SWARM_TEST_DIR/state) >> $SWARM_TEST_DIR/signals; exit' TERM; \
                       : DYNO=$SWARM_WORKER_ID; echo $SWARM_WORKER_ID >> $SWARM_TEST_DIR/started; \
                       while :; do sleep 0.02; done";

/// A pool with one process, and what the process says.
struct Bed {
    scaler: Autoscaler,
    client: Client,
    _server: RedisServer,
    process: String,
}

impl Bed {
    async fn start(server: RedisServer, scaling: &str) -> Self {
        let command = serde_json::Value::from(PROCESS);
        let settings = format!(
            "[worker_types.mail]\nframework = \"sidekiq\"\nqueues = [\"mail\"]\nscaling = {{ {scaling} }}\n\
             process = {{ command = [\"sh\", \"-c\", {command}] }}\n"
        );
        let scaler = Autoscaler::start(&server.url(), &format!("{FAST_SWEEP}{settings}")).await;
        scaler.until("a process runs", async || !scaler.lines("started").is_empty()).await;
        let process = scaler.lines("started")[0].clone();
        Self { scaler, client: server.client().await, _server: server, process }
    }

    /// Writes what a process says every 10 s. First, what its signals will be noted with.
    async fn says(&self, busy: u32, quiet: bool) {
        let state = if busy > 0 { "busy" } else { "idle" };
        // Renamed, because the process may read it at any time.
        let [new, file] = ["state.new", "state"].map(|name| self.scaler.directory().join(name));
        fs::write(&new, state).and_then(|()| fs::rename(&new, file)).unwrap();
        let (identity, now) =
            (format!("{}:7:abc", self.process), SystemTime::now().duration_since(UNIX_EPOCH).unwrap());
        let _: u64 = redis(&self.client, &format!("SADD processes {identity}")).await;
        let beat = now.as_secs_f64();
        let _: u64 = redis(&self.client, &format!("HSET {identity} busy {busy} beat {beat} quiet {quiet}")).await;
    }

    /// Says again and again what a process says every 10 s, until the signals are as wanted.
    async fn says_until(&self, busy: u32, quiet: bool, signals: &[&str]) {
        let come = eventually(DEADLINE, async || {
            self.says(busy, quiet).await;
            self.signals() == signals
        });
        assert!(come.await, "{:?} have come instead of {signals:?}\n{}", self.signals(), self.scaler.log());
    }

    fn signals(&self) -> Vec<String> {
        self.scaler.lines("signals")
    }
}

#[tokio::test]
async fn a_process_that_is_let_go_gets_tstp_and_then_term_when_it_says_that_it_is_quiet_and_idle() {
    let redis_server = server();
    let _: u64 = redis(&redis_server.client().await, "LPUSH queue:mail {\"queue\":\"mail\"}").await;
    let scaling = "min_workers = 0, max_workers = 1, cooldown_seconds = 1, drain_timeout_seconds = 600";
    let bed = Bed::start(redis_server, scaling).await;
    bed.says(1, false).await;
    let _: String = redis(&bed.client, "RPOP queue:mail").await;
    bed.says_until(0, false, &["TSTP"]).await;
    // It took a job in the moment of the signal.
    bed.says(1, true).await;
    // Longer than the time between two questions.
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert_eq!(bed.signals(), ["TSTP"], "{}", bed.scaler.log());
    bed.says_until(0, true, &["TSTP", "TERM idle"]).await;
    bed.scaler.until("it has left", async || bed.scaler.of("mail").await.workers.is_empty()).await;
}

#[tokio::test]
async fn an_autoscaler_that_stops_waits_for_the_jobs_of_its_quiet_processes() {
    let scaling = "min_workers = 1, max_workers = 1, drain_timeout_seconds = 600";
    let mut bed = Bed::start(server(), scaling).await;
    bed.says(1, false).await;
    bed.scaler.signal(Signal::TERM);
    bed.says_until(1, true, &["TSTP"]).await;
    bed.says_until(0, true, &["TSTP", "TERM idle"]).await;
    assert!(bed.scaler.exit().await.success());
}

/// Nobody reads then what a process says: it has the drain timeout for its jobs.
#[tokio::test]
async fn processes_of_an_autoscaler_that_was_killed_get_both_signals_from_the_guard() {
    let scaling = "min_workers = 1, max_workers = 1, drain_timeout_seconds = 2";
    let mut bed = Bed::start(server(), scaling).await;
    bed.says(1, false).await;
    bed.scaler.signal(Signal::KILL);
    bed.scaler.exit().await;
    let signals = bed.scaler.directory().join("signals");
    let noted = async || fs::read_to_string(&signals).is_ok_and(|text| text == "TSTP\nTERM busy\n");
    assert!(eventually(DEADLINE, noted).await, "{:?}", bed.signals());
}

/// Somebody has told the process by Sidekiq's own page or by hand.
#[tokio::test]
async fn a_process_that_was_told_by_somebody_else_is_replaced_and_let_go() {
    let scaling = "min_workers = 1, max_workers = 2, drain_timeout_seconds = 600";
    let mut bed = Bed::start(server(), scaling).await;
    bed.says(1, true).await;
    bed.scaler.until("another one is started", async || bed.scaler.lines("started").len() == 2).await;
    assert_eq!(bed.signals(), [""; 0], "it has a job");
    bed.says_until(0, true, &["TSTP"]).await;
    bed.says_until(0, true, &["TSTP", "TERM idle"]).await;
    bed.scaler.until("one is left", async || bed.scaler.of("mail").await.workers.len() == 1).await;
    bed.process = bed.scaler.lines("started")[1].clone();
    bed.scaler.signal(Signal::TERM);
    bed.says_until(0, true, &["TSTP", "TERM idle", "TSTP", "TERM idle"]).await;
    assert!(bed.scaler.exit().await.success());
}

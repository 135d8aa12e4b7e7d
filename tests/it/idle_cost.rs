//! What an idle autoscaler and an idle worker cost Redis, in commands. `benches/idle_cost.rs` measures it exactly; here
//! the bounds are wide, and still far below the cost of one command more in each interval.

use std::time::Duration;

#[path = "../../benches/support/command_count.rs"]
mod command_count;

use self::command_count::{Counts, UNKNOWN, commands_by_user, total};
use crate::support::{
    autoscaler::{Autoscaler, SLEEPER, pool},
    command::redis,
    redis::RedisServer,
    worker::WorkerProcess,
};

/// How long the commands are counted.
const WATCHED: Duration = Duration::from_secs(20);

/// Returns a server with a user `name` for each role, and the URL of each.
async fn server_with(name: &str) -> (RedisServer, String) {
    let server = RedisServer::start();
    let client = server.client().await;
    let _: String = redis(&client, &format!("ACL SETUSER {name} on >secret ~* &* +@all")).await;
    let url = server.url().replace("//", &format!("//{name}:secret@"));
    (server, url)
}

async fn watched(server: &RedisServer) -> Counts {
    let port = server.port();
    let counting = tokio::task::spawn_blocking(move || commands_by_user(port, WATCHED));
    counting.await.unwrap().expect("the server can be watched")
}

#[tokio::test]
async fn an_idle_worker_sends_few_commands() {
    let (server, url) = server_with("worker").await;
    let client = server.client().await;
    let worker = WorkerProcess::start(&url, "w1", "");
    worker.until_state(&client, "IDLE").await;
    let counts = watched(&server).await;
    // A heartbeat every 5 s, and two commands every 7 s; besides, what it does at its start.
    assert!(total(&counts, "worker") <= 24, "{counts:?}");
    assert!(counts["worker"].contains_key("EVAL"), "it lives: {counts:?}");
}

#[tokio::test]
async fn an_idle_autoscaler_sends_few_commands() {
    let (server, url) = server_with("scaler").await;
    let settings = format!("{}{}", pool("one", "min_workers = 0", SLEEPER), pool("two", "min_workers = 0", SLEEPER));
    let scaler = Autoscaler::start(&url, &settings).await;
    scaler.until_ready().await;
    let counts = watched(&server).await;
    // A renewal of the lease every 2 s, which carries the signs of life; two checks every 10 s; a sweep.
    let count = total(&counts, "scaler") + total(&counts, UNKNOWN);
    assert!(count <= 40, "{count}: {counts:?}");
    assert!(counts["scaler"]["EVAL"] >= 5, "it leads: {counts:?}");
}

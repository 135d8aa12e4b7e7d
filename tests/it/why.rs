//! `swarm why`, asked of a running autoscaler.

use serde_json::Value;

use crate::support::{
    autoscaler::{Autoscaler, NO_SWEEP, SLEEPER, pool, swarm},
    command::add_jobs,
    redis::RedisServer,
};

#[tokio::test]
async fn why_tells_what_was_seen_and_which_rule_decided() {
    let server = RedisServer::start();
    let client = server.client().await;
    let settings = format!("{NO_SWEEP}{}", pool("test", "scale_up_threshold = 2, max_workers = 3", SLEEPER));
    let scaler = Autoscaler::start(&server.url(), &settings).await;
    add_jobs(&client, "test:jobs", 20).await;
    scaler.until_workers("test", 3).await;
    scaler.until_quiet().await;
    let ask = |arguments: &[&str]| {
        let url = scaler.url();
        swarm(scaler.directory()).arg("why").args(arguments).args(["--url", &url]).output().unwrap()
    };

    let told = ask(&["test"]);
    let text = String::from_utf8(told.stdout).unwrap();
    assert!(told.status.success(), "{text}");
    let parts = [
        "test: held at 3",
        "20 = 20 waiting + 0 delivered",
        "3 = 3 ready",
        "1. depth 20 ≥ 2 wants 10",
        "at most 3 (max_workers)",
        " → 3",
        "this autoscaler, term 1",
    ];
    for part in parts {
        assert!(text.contains(part), "`{part}` is missing in\n{text}");
    }

    let told: Value = serde_json::from_slice(&ask(&["test", "--json"]).stdout).unwrap();
    assert_eq!((&told["worker_type"], &told["leadership"]["role"]), (&Value::from("test"), &Value::from("leader")));
    assert_eq!(told["rules"].as_array().and_then(|rules| rules.last()), Some(&Value::from("at most 3 (max_workers)")));

    let unknown = ask(&["nobody"]);
    let error = String::from_utf8(unknown.stderr).unwrap();
    assert_eq!(unknown.status.code(), Some(1));
    assert!(error.contains("no worker type `nobody`") && error.contains("there are: test"), "{error}");
}

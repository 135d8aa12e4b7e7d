//! Traces, with the feature `otlp`: what a collector gets, on a real HTTP server that takes the protocol's own bytes.

mod collector;

use serde_json::Value;

use self::collector::{Collector, Span};
use crate::support::{
    autoscaler::{Autoscaler, NO_SWEEP, real_pool, swarm},
    command::{answers, redis},
    processes::KillOnDrop,
    redis::RedisServer,
    wait::{DEADLINE, eventually},
};

/// Waits until the collector has a span of that name.
async fn until_got(collector: &Collector, name: &str) -> Span {
    let mut found = None;
    let got = eventually(DEADLINE, async || {
        found = collector.spans().into_iter().find(|span| span.name == name);
        found.is_some()
    })
    .await;
    assert!(got, "no span `{name}` in {:?}", collector.spans());
    found.expect("it was found just now")
}

#[tokio::test]
async fn a_job_and_the_change_that_it_led_to_are_traced_from_end_to_end() {
    let server = RedisServer::start();
    let collector = Collector::start().await;
    let environment = [("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url.as_str()), ("OTEL_BSP_SCHEDULE_DELAY", "100")];
    let pool = real_pool("browser", "min_workers = 0");
    let scaler = Autoscaler::start_in_environment(&server.url(), &format!("{NO_SWEEP}{pool}"), &environment).await;
    scaler.until_ready().await;

    let mut publish = swarm(scaler.directory());
    publish.args(["publish", "browser.echo", "hi", "--wait", "--timeout", "60"]).env("REDIS_URL", server.url());
    let published = publish.envs(environment).output().unwrap();
    assert!(published.status.success(), "{published:?}");

    let published = until_got(&collector, "publish browser.echo").await;
    let worked = until_got(&collector, "work browser.echo").await;
    assert_eq!((&worked.trace, &worked.parent), (&published.trace, &published.id), "the job carries its trace");
    assert_eq!(published.parent, "", "it begins with the publisher");
    assert!(worked.has("swarm.outcome", "done") && worked.has("service.name", "swarm"), "{worked:?}");
    assert!(published.begin <= worked.begin && worked.begin <= worked.end);

    let whole = until_got(&collector, "scale browser").await;
    assert!(whole.has("swarm.action", "scale_up") && whole.has("swarm.worker_type", "browser"), "{whole:?}");
    let parts: Vec<_> = collector.spans().into_iter().filter(|span| span.parent == whole.id).collect();
    let names: Vec<_> = parts.iter().map(|span| span.name.as_str()).collect();
    assert_eq!(names, ["wait", "observe", "decide", "act"]);
    for (before, after) in parts.iter().zip(&parts[1..]) {
        assert!(before.end.abs_diff(after.begin) < 1_000_000, "no gap between {before:?} and {after:?}");
    }
}

#[tokio::test]
async fn a_job_of_another_program_keeps_its_trace() {
    let server = RedisServer::start();
    let client = server.client().await;
    let collector = Collector::start().await;
    let environment = [("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url.as_str()), ("OTEL_BSP_SCHEDULE_DELAY", "100")];
    let directory = tempfile::tempdir().unwrap();
    let mut worker = swarm(directory.path());
    worker.args(["worker", "--type", "t", "--id", "w1"]).env("REDIS_URL", server.url()).envs(environment);
    let mut worker = KillOnDrop(worker.spawn().unwrap());
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let job = format!(
        r#"{{"id":"j","type":"t.echo","args":[],"kwargs":{{}},"reply_to":"result:j","traceparent":"00-{trace}-b7ad6b7169203331-01"}}"#
    );
    let _: String = redis(&client, &format!("XADD t:jobs * json {job}")).await;
    let span = until_got(&collector, "work t.echo").await;
    let answered = async || answers(&client, "j").await.len() == 1;
    assert!(eventually(DEADLINE, answered).await, "no answer");
    worker.kill().unwrap();
    worker.wait().unwrap();
    assert_eq!((span.trace.as_str(), span.parent.as_str()), (trace, "b7ad6b7169203331"));
    assert_eq!(answers(&client, "j").await[0]["ok"], Value::from(true));
}

#[tokio::test]
async fn without_an_endpoint_a_job_carries_nothing_and_a_collector_that_is_gone_holds_up_nothing() {
    let server = RedisServer::start();
    let client = server.client().await;
    for (id, endpoint) in [("plain", ""), ("gone", "http://127.0.0.1:1")] {
        let directory = tempfile::tempdir().unwrap();
        let mut publish = swarm(directory.path());
        publish.args(["publish", "browser.echo", id]).env("REDIS_URL", server.url());
        let output = publish.env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    let entries: Vec<(String, Vec<String>)> = redis(&client, "XRANGE browser:jobs - +").await;
    let carries: Vec<_> = entries.iter().map(|(_, fields)| fields[1].contains("traceparent")).collect();
    assert_eq!(carries, [false, true]);
}

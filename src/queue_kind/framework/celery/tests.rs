use super::*;
use crate::{
    model::Reading,
    queue_kind::{FrameworkReading, QueueKind},
};

const NOW: u64 = 1_700_000_000_000;
/// A time ten minutes later.
const LATER: &str = "2023-11-14T22:23:20+00:00";

fn spec(late_acknowledgement: bool) -> QueueSpec {
    let framework = FrameworkSpec { late_acknowledgement, ..FrameworkSpec::of(Framework::Celery, &["mail"]) };
    let kind = QueueKind::Framework(Framework::Celery);
    QueueSpec { framework: Some(Arc::new(framework)), ..QueueSpec::new("mail", "", kind) }
}

fn bulk(text: &str) -> Value {
    Value::BulkString(text.as_bytes().to_vec())
}

/// Returns a message of a list in kombu's form.
fn message(routing_key: &str, eta: Option<&str>) -> String {
    let properties = serde_json::json!({ "delivery_info": { "exchange": "", "routing_key": routing_key } });
    serde_json::json!({ "body": "…", "headers": { "eta": eta }, "properties": properties }).to_string()
}

/// Returns a message of the hash in kombu's form.
fn fetched(routing_key: &str, eta: Option<&str>) -> Value {
    bulk(&format!("[{}, \"\", \"{routing_key}\"]", message(routing_key, eta)))
}

fn heard(name: &str, active: u64, is_since_news: bool, age: u64) -> HeardWorker {
    HeardWorker { name: name.to_owned(), active, age: Duration::from_secs(age), is_since_news }
}

/// Reads the queue. `lists` has the lengths of its lists by their step, `second` the replies to the second request.
fn read(late: bool, lists: &[(usize, i64)], unacked: i64, second: Vec<Value>, heard: &[HeardWorker]) -> Observed {
    let spec = spec(late);
    let mut reader = spec.kind.reader(&spec);
    reader.note_time(Timestamp(NOW));
    reader.note_heard(Heard { workers: heard.to_vec(), news_age: None, is_hearing: true });
    let seconds = bulk(&(NOW / 1_000).to_string());
    let mut replies = vec![Value::Array(vec![seconds, bulk("0")])];
    replies
        .extend((0..10).map(|step| Value::Int(lists.iter().find(|(of, _)| *of == step).map_or(0, |(_, jobs)| *jobs))));
    replies.push(Value::Int(unacked));
    loop {
        assert_eq!(reader.commands(&spec, Scripts::ReadOnly).len(), replies.len());
        match reader.interpret(&spec, replies.clone(), Scripts::ReadOnly) {
            Interpretation::Complete(observed) => return observed,
            Interpretation::Again => {}
            Interpretation::Ask(ask) => {
                assert_eq!(ask.commands.len(), second.len());
                match reader.complete(&spec, *ask, Ok(Value::Array(second))) {
                    Interpretation::Complete(observed) => return observed,
                    other => panic!("the second request is the last: {other:?}"),
                }
            }
            Interpretation::ScriptRefused => panic!("no script is sent"),
        }
    }
}

fn reading(observed: &Observed) -> &FrameworkReading {
    observed.framework.as_deref().expect("a framework tells")
}

fn list(messages: &[String]) -> Value {
    Value::Array(messages.iter().map(|message| bulk(message)).collect())
}

#[test]
fn every_step_of_priority_and_what_workers_fetched_waits() {
    let (plain, urgent) = (list(&[message("mail", None)]), list(&[message("mail", None), message("mail", None)]));
    let unacked = Value::Array(vec![fetched("mail", None), fetched("other", None)]);
    let observed = read(false, &[(0, 1), (9, 2)], 2, vec![plain, urgent, unacked], &[heard("a", 1, true, 1)]);
    assert_eq!((&observed.demand.lag, &observed.demand.pending), (&Reading::Known(4), &Reading::Known(1)));
    let busy = read(false, &[(0, 5_000)], 0, Vec::new(), &[]);
    assert_eq!(busy.demand.depth(), Reading::Known(5_000), "of many, none is read");
}

#[test]
fn a_message_with_an_eta_waits_for_its_time_wherever_it_is() {
    let listed = list(&[message("mail", Some(LATER)), message("mail", Some("2023-11-14T22:00:00+00:00"))]);
    let unacked = Value::Array(vec![fetched("mail", Some(LATER))]);
    let observed = read(false, &[(0, 2)], 1, vec![listed, unacked], &[]);
    let FrameworkReading { work, look_at, .. } = reading(&observed);
    assert_eq!((work.waiting, work.later, work.next_due), (1, 2, Some(Timestamp(NOW + 600_000))));
    assert!(look_at.is_some_and(|at| at > Timestamp(NOW + 600_000)));
}

#[test]
fn with_late_acknowledgement_what_is_fetched_may_run() {
    let unacked = Value::Array(vec![fetched("mail", None), fetched("mail", None)]);
    let observed = read(true, &[], 2, vec![unacked], &[]);
    assert_eq!((&observed.demand.lag, &observed.demand.pending), (&Reading::Known(0), &Reading::Known(2)));
}

#[test]
fn an_idle_heartbeat_counts_only_while_it_is_young_and_nothing_happened_since() {
    let all =
        [heard("idle", 0, true, 1), heard("busy", 2, false, 1), heard("stale", 0, false, 1), heard("old", 0, true, 8)];
    let observed = read(false, &[], 0, Vec::new(), &all);
    let occupation = &reading(&observed).occupation;
    let is_busy = ["idle", "busy", "stale", "old", "silent"].map(|name| occupation.is_busy(name));
    assert_eq!(is_busy, [Some(false), Some(true), None, None, None]);
    assert_eq!(observed.demand.pending, Reading::Known(2));
}

/// Sent by celery 5.7.0 on channel `/1.celeryev/worker.heartbeat`.
const HEARTBEAT: &str = r#"{"body": "eyJob3N0bmFtZSI6ICJtYWlsLTFAdm0iLCAidXRjb2Zmc2V0IjogMC4wLCAicGlkIjogMzA0MjIsICJjbG9jayI6IDE2LCAiZnJlcSI6IDIuMCwgImFjdGl2ZSI6IDEsICJwcm9jZXNzZWQiOiAxLCAibG9hZGF2ZyI6IFs4Ljc2LCAxMi45OCwgMTEuNTVdLCAic3dfaWRlbnQiOiAicHktY2VsZXJ5IiwgInN3X3ZlciI6ICI1LjcuMCIsICJzd19zeXMiOiAiTGludXgiLCAidGltZXN0YW1wIjogMTc5NTkyMTk2MC4yMTE5NjY1LCAidHlwZSI6ICJ3b3JrZXItaGVhcnRiZWF0In0=", "content-encoding": "utf-8", "content-type": "application/json", "headers": {"hostname": "mail-1@vm"}, "properties": {"delivery_mode": 1, "body_encoding": "base64"}}"#;

#[test]
fn a_heartbeat_names_the_worker_and_its_running_tasks() {
    let expected = WorkerStatement { name: "mail-1".to_owned(), active: 1, is_leaving: false };
    assert_eq!(Celery.hear(HEARTBEAT.as_bytes()), Some(expected));
    assert_eq!(Celery.hear(b"{}"), None);
    let offline = r#"{"body": "{\"hostname\": \"mail-1@vm\", \"type\": \"worker-offline\"}"}"#;
    assert!(Celery.hear(offline.as_bytes()).is_some_and(|said| said.is_leaving));
}

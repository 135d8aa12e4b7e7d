use super::*;
use crate::{model::Reading, queue_kind::QueueKind};

const NOW: u64 = 1_700_000_000_000;

fn bulk(text: &str) -> Value {
    Value::BulkString(text.as_bytes().to_vec())
}

/// A worker: its id, the job that it runs, and the age of its heartbeat in seconds.
type Worker<'a> = (&'a str, Option<&'a str>, Option<u64>);

/// Reads queue `mail` with a waiting job, these workers, and lists of delayed jobs, each at a time in seconds from now.
fn read(pause: Option<&str>, workers: &[Worker<'_>], delayed: &[(i64, &str)]) -> Observed {
    let framework = FrameworkSpec::of(Framework::Resque, &["mail"]);
    let kind = QueueKind::Framework(Framework::Resque);
    let spec = QueueSpec { framework: Some(Arc::new(framework)), ..QueueSpec::new("resque:queue:mail", "", kind) };
    let mut reader = spec.kind.reader(&spec);
    reader.note_time(Timestamp(NOW));
    let time = Value::Array(vec![bulk(&(NOW / 1_000).to_string()), bulk("0")]);
    let ids = workers.iter().map(|(id, ..)| bulk(id)).collect();
    let at = |seconds: i64| (NOW / 1_000).saturating_add_signed(seconds).to_string();
    let times = delayed.iter().flat_map(|(seconds, _)| [bulk(&at(*seconds)), bulk(&at(*seconds))]).collect();
    let pause = pause.map_or(Value::Nil, bulk);
    let replies = vec![time, pause, Value::Int(1), Value::Array(ids), Value::Array(times)];
    let ask = loop {
        assert_eq!(reader.commands(&spec, Scripts::ReadOnly).len(), replies.len());
        match reader.interpret(&spec, replies.clone(), Scripts::ReadOnly) {
            Interpretation::Ask(ask) => break ask,
            Interpretation::Again => {}
            Interpretation::Complete(observed) => return observed,
            Interpretation::ScriptRefused => panic!("there is no script"),
        }
    };
    let text = |text: Option<String>| text.map_or(Value::Nil, |text| bulk(&text));
    let of_worker = |(id, job, beat): &Worker<'_>| {
        assert!(ResqueReader::queues_of(id).any(|queue| queue == "mail" || queue == "*"));
        let beat = beat.map(|age| {
            let at = i64::try_from(NOW / 1_000 - age).expect("it is a time");
            jiff::Timestamp::from_second(at).expect("it is a time").to_string()
        });
        [text(job.map(str::to_owned)), text(beat)]
    };
    let ours = workers.iter().filter(|(id, ..)| !id.ends_with("other"));
    let lists = delayed.iter().map(|(_, queue)| Value::Array(vec![bulk(&format!("{{\"queue\":\"{queue}\"}}"))]));
    let said = ours.flat_map(of_worker).chain(lists).collect();
    match reader.complete(&spec, *ask, Ok(Value::Array(said))) {
        Interpretation::Complete(observed) => observed,
        other => panic!("the second request is the last: {other:?}"),
    }
}

const JOB: Option<&str> = Some("{\"queue\":\"mail\",\"payload\":{}}");

#[test]
fn a_worker_is_named_by_its_last_queue_and_busy_while_it_has_a_job() {
    let workers = [
        ("host:7:mail,mail-1", JOB, Some(5)),
        ("host:8:mail,mail-2", None, Some(5)),
        ("host:9:mail,mail-3", None, None),
        ("host:10:mail,mail-4", JOB, Some(400)),
        ("host:11:other", JOB, Some(5)),
    ];
    let observed = read(None, &workers, &[]);
    let reading = observed.framework.expect("a framework tells");
    let is_busy = ["mail-1", "mail-2", "mail-3", "mail-4"].map(|name| reading.occupation.is_busy(name));
    assert_eq!(is_busy, [Some(true), Some(false), Some(false), None]);
    assert_eq!((reading.work.waiting, reading.work.running), (1, Reading::Known(1)));
    assert_eq!(reading.work.due, 1, "a worker that starts gives up the job of the dead one");
}

#[test]
fn delayed_jobs_count_by_queue_and_the_next_one_sets_an_alarm() {
    let observed = read(None, &[], &[(-5, "mail"), (-1, "other"), (40, "other"), (60, "mail")]);
    let reading = observed.framework.expect("a framework tells");
    assert_eq!((reading.work.due, reading.work.later), (1, 1));
    assert_eq!(reading.work.next_due, Some(Timestamp(NOW + 60_000)));
}

#[test]
fn paused_workers_wait_for_nothing() {
    let observed = read(Some("true"), &[("host:7:*,mail-1", JOB, Some(5))], &[(-5, "mail"), (60, "mail")]);
    let work = observed.framework.expect("a framework tells").work;
    assert_eq!((work.waiting, work.running, work.due, work.next_due), (0, Reading::Known(1), 0, None));
    assert_eq!(work.paused, ["mail"]);
    assert_eq!(read(Some("false"), &[], &[]).framework.expect("a framework tells").work.waiting, 1);
}

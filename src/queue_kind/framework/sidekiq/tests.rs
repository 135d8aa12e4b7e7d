use super::*;
use crate::queue_kind::QueueKind;

const NOW: u64 = 1_700_000_000_000;

fn bulk(text: &str) -> Value {
    Value::BulkString(text.as_bytes().to_vec())
}

/// Reads an empty queue with these processes: the jobs that each runs, and the age of its report, in seconds. `news` is
/// the time since something happened in the queues. A process whose name begins with `quiet` takes no more jobs.
fn read(processes: &[(&str, u64, u64)], news: Option<u64>) -> Observed {
    let framework = FrameworkSpec::of(Framework::Sidekiq, &["mail"]);
    let kind = QueueKind::Framework(Framework::Sidekiq);
    let spec = QueueSpec { framework: Some(Arc::new(framework)), ..QueueSpec::new("queue:mail", "", kind) };
    let mut reader = spec.kind.reader(&spec);
    reader.note_time(Timestamp(NOW));
    reader.note_heard(Heard { workers: Vec::new(), news_age: news.map(Duration::from_secs), is_hearing: true });
    let time = Value::Array(vec![bulk(&(NOW / 1_000).to_string()), bulk("0")]);
    let names = processes.iter().map(|(name, ..)| bulk(&format!("{name}:7:abc"))).collect();
    let none = || Value::Array(Vec::new());
    let replies = vec![time, Value::Int(0), Value::Nil, Value::Int(0), none(), none(), Value::Array(names)];
    let mut ask = loop {
        assert_eq!(reader.commands(&spec, Scripts::ReadOnly).len(), replies.len());
        match reader.interpret(&spec, replies.clone(), Scripts::ReadOnly) {
            Interpretation::Ask(ask) => break Some(ask),
            Interpretation::Again => {}
            other => panic!("processes have to be asked: {other:?}"),
        }
    };
    let said = processes.iter().flat_map(|(name, busy, age)| {
        let beat = bulk(&format!("{}.0", NOW / 1_000 - age));
        let works = (0..*busy).map(|_| bulk("{\"queue\":\"mail\"}")).collect();
        let quiet = bulk(if name.starts_with("quiet") { "true" } else { "false" });
        [Value::Array(vec![bulk(&busy.to_string()), beat, quiet]), Value::Array(works)]
    });
    let ask = ask.take().expect("it was asked");
    match reader.complete(&spec, *ask, Ok(Value::Array(said.collect()))) {
        Interpretation::Complete(observed) => observed,
        other => panic!("the second request is the last: {other:?}"),
    }
}

fn is_busy(observed: &Observed, name: &str) -> Option<bool> {
    observed.framework.as_deref().expect("a framework tells").occupation.is_busy(name)
}

#[test]
fn an_idle_process_counts_only_by_a_statement_younger_than_the_last_news() {
    let processes = [("fresh", 0, 1), ("old", 0, 8), ("busy", 2, 8), ("gone", 0, 30)];
    let observed = read(&processes, Some(5));
    assert_eq!(
        ["fresh", "old", "busy", "gone"].map(|name| is_busy(&observed, name)),
        [Some(false), None, Some(true), None]
    );
    let work = &observed.framework.as_deref().expect("a framework tells").work;
    assert_eq!(work.running, crate::model::Reading::Known(2));
    assert_eq!(is_busy(&read(&processes, None), "old"), Some(false), "nothing happened");
}

#[test]
fn it_looks_again_when_a_process_says_something_new() {
    let look_at = |observed: Observed| observed.framework.expect("a framework tells").look_at;
    assert_eq!(look_at(read(&[("old", 0, 8)], Some(5))), Some(Timestamp(NOW + 2_500)));
    assert_eq!(look_at(read(&[("fresh", 0, 1)], Some(5))), None);
}

#[test]
fn a_quiet_process_says_so_whatever_happens_in_the_queues() {
    let observed = read(&[("quiet-idle", 0, 8), ("quiet-busy", 1, 2), ("other", 0, 1)], Some(0));
    let occupation = observed.framework.expect("a framework tells").occupation;
    let done = |asked_for| {
        ["quiet-idle", "quiet-busy", "other"].map(|name| occupation.is_done(name, Duration::from_secs(asked_for)))
    };
    assert_eq!(done(9), [true, false, false]);
    assert_eq!(done(8), [false; 3], "it may be from before the signal");
}

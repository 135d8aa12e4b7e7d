//! Tests of what the events record, and of `docs/metrics.md` against it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{
    BackendCall, BackendCalled, BackendFailure, BudgetConfigured, CommandAcknowledged, CommandAnswered, CommandOutcome,
    ConfigLoaded, ConfigReloaded, DeadLettersDropped, DeadReason, DelayedMoved, EvaluationFinished, FailureKind,
    JobBuried, JobMetrics, JobOutcome, JobRetried, JobWorked, KedaRequested, LateRecord, LeadershipChanged,
    NotificationOutcome, NotificationSent, ProbeFailed, QueueServerLeft, ReactionMeasured, RecordWaits,
    RecordingFailed, RedisReachable, RedisUnreachable, RedisWrites, ScalingOutcome, ScalingRecorded, ScalingRefused,
    ShardChange, ShardChanged, SignalsReceived, SourceChanged, Stage, StreamTrimmed, SweepFinished, WatchBroken,
    WorkerExited, WorkerLoad,
    events::signals,
    metric::{self, Kind},
    per_type, recorder,
};
use crate::model::{
    Demand, PoolCounts, Reading, Source, Timestamp, WorkerId, WorkerType,
    snapshot::{
        Action, DecisionCount, ReloadOutcome, ReloadSnapshot, Role, SourceState, TypeSnapshot, WorkerSnapshot,
        WorkerStatus,
    },
};

/// Returns what `emit` records, in the Prometheus text format.
fn recorded(emit: impl FnOnce()) -> String {
    let recorder = recorder::recorder().unwrap();
    let handle = recorder.handle();
    metrics::with_local_recorder(&recorder, emit);
    handle.render()
}

#[track_caller]
fn assert_line(text: &str, line: &str) {
    assert!(text.lines().any(|found| found == line), "no line `{line}` in:\n{text}");
}

fn browser() -> WorkerType {
    WorkerType::new("browser")
}

/// 7 jobs wait, 2 are in progress, the oldest for 4.5 s; 2 workers ready of which 1 busy, 1 starting, 1 stalled, 1
/// draining; 0 to 10 workers.
fn snapshot() -> TypeSnapshot {
    TypeSnapshot {
        evaluated_at: Some(Timestamp(10_000)),
        demand: Demand {
            lag: Reading::Known(7),
            pending: Reading::Known(2),
            oldest: Reading::Known(Some(Timestamp(5_500))),
        },
        pool: Reading::Known(PoolCounts {
            ready: 2,
            starting: 1,
            stalled: 1,
            busy: 1,
            draining: 1,
            places: 16,
            places_taken: 9,
            waiting_for_place: 3,
            ..PoolCounts::default()
        }),
        desired: 3,
        decisions: vec![DecisionCount { action: Action::ScaleUp, reason: "backlog".into(), count: 1 }],
        worker_seconds: 7.5,
        workers: [WorkerStatus::Idle, WorkerStatus::Busy, WorkerStatus::Unheard, WorkerStatus::Unheard]
            .map(|status| WorkerSnapshot {
                id: WorkerId::new("w"),
                state: None,
                status,
                busy: status == WorkerStatus::Busy,
                draining: false,
                reason: None,
                started_at: Timestamp(1),
            })
            .to_vec(),
        ..TypeSnapshot::at_rest("browser")
    }
}

/// Emits every event, so that every metric and every label appears.
fn emit_everything() {
    recorder::announce();
    signals::register()[Source::Tracking as usize].increment(3);
    let worker_type = &browser();
    let (action, outcome) = (Action::ScaleUp, ScalingOutcome::Done);
    EvaluationFinished {
        worker_type,
        action,
        reason: "backlog",
        headline: "up",
        sources: &[],
        acts: true,
        retries: false,
        changed: true,
    }
    .emit();
    ReactionMeasured { worker_type, stage: Stage::Decided, elapsed: Duration::from_micros(400) }.emit();
    let failure = Some(BackendFailure { kind: FailureKind::Retryable, error: "engine is away" });
    let (backend, call, elapsed) = ("process", BackendCall::Scale, Duration::from_millis(20));
    BackendCalled { backend, call, worker_type, elapsed, failure, news: true }.emit();
    RecordWaits { worker_type, waiting: 2, error: "WRONGTYPE", news: true }.emit();
    ScalingRecorded { worker_type, action, from: 1, to: 3, outcome, waiting: 1 }.emit();
    RecordingFailed { worker_type, action, from: 3, to: 4, outcome, error: "timed out" }.emit();
    LeadershipChanged { role: Role::Leader, leader: Some("here"), token: Some(7), problem: None }.emit();
    LateRecord { worker_type, token: Some(6) }.emit();
    ProbeFailed { worker_type, error: "timed out", news: true }.emit();
    SweepFinished { queues: 2, elapsed, drift: 1 }.emit();
    SourceChanged { server: None, source: Source::Keyspace, state: SourceState::Up, detail: "Kt" }.emit();
    let worker_id = &WorkerId::new("browser-1");
    WorkerExited { worker_type, worker_id, detail: "exit code 1", lived: elapsed, success: false }.emit();
    ScalingRefused { worker_type, rival: "hpa" }.emit();
    WatchBroken { watched: "pods", error: "refused" }.emit();
    JobBuried { stream: "browser:jobs", entry: "1-0", job: "a", reason: DeadReason::AttemptsExhausted, error: "gone" }
        .emit();
    JobRetried { stream: "browser:jobs", job: "a", attempts: 1, wait: elapsed }.emit();
    DeadLettersDropped { stream: "browser:jobs", letters: 2 }.emit();
    DelayedMoved { stream: "browser:jobs", jobs: 2 }.emit();
    StreamTrimmed { stream: "browser:jobs", entries: 3 }.emit();
    let (job, error) = ("a", Some("no such page"));
    let metrics = &JobMetrics::new(worker_type.clone());
    JobWorked { metrics, method: "goto", job, outcome: JobOutcome::Failed, error, elapsed }.emit();
    WorkerLoad { worker_type, jobs: 2, sessions: 1 }.emit();
    let reload = ReloadSnapshot {
        at: Timestamp(1),
        outcome: ReloadOutcome::Refused,
        changes: String::new(),
        errors: vec!["swarm.toml:1: wrong".into()],
        need_restart: vec!["redis_url".into()],
    };
    BudgetConfigured { total: Some(20) }.emit();
    ConfigLoaded.emit();
    ConfigReloaded { trigger: "signal", reload: &reload }.emit();
    KedaRequested { method: "IsActive", code: "OK", error: None }.emit();
    NotificationSent { webhook: "chat", outcome: NotificationOutcome::Sent, error: None }.emit();
    let (outcome, detail) = (CommandOutcome::Done, "");
    CommandAnswered { command: "web start", outcome, elapsed, user: "ann", channel: "7", detail }.emit();
    CommandAcknowledged { elapsed }.emit();
    ShardChanged { shard: 0, change: ShardChange::Lost { reason: "4009" }, ready: 1 }.emit();
    RedisReachable { server: None }.emit();
    RedisReachable { server: Some("b:6379/0") }.emit();
    RedisWrites { refused: Some("OOM") }.emit();
}

/// Returns the metrics of these worker types.
fn shown(worker_types: &[TypeSnapshot]) -> String {
    let dead_letters = Arc::new(BTreeMap::from([("browser".to_owned(), 4)]));
    let worker_types: Vec<_> = worker_types.iter().cloned().map(Arc::new).collect();
    per_type::FAMILIES.iter().map(|family| family.render(&worker_types, &dead_letters)).collect()
}

/// Returns everything that `/metrics` can show.
fn everything() -> String {
    recorded(emit_everything) + &shown(&[snapshot()])
}

#[test]
fn events_count_with_their_labels() {
    let text = everything();
    for line in [
        r#"swarm_signals_total{source="tracking"} 3"#,
        r#"swarm_evaluations_total{worker_type="browser"} 1"#,
        r#"swarm_decisions_total{worker_type="browser",action="scale_up",reason="backlog"} 1"#,
        r#"swarm_backend_errors_total{backend="process",call="scale",kind="retryable"} 1"#,
        r#"swarm_scaling_events_total{worker_type="browser",action="scale_up",outcome="done"} 2"#,
        r#"swarm_backend_refusals_total{worker_type="browser",rival="hpa"} 1"#,
        r#"swarm_kubernetes_watch_failures_total{watched="pods"} 1"#,
        r#"swarm_config_reloads_total{outcome="refused"} 1"#,
        "swarm_config_last_reload_success 0",
        "swarm_recording_failures_total 1",
        "swarm_records_waiting 1",
        "swarm_probe_failures_total 1",
        "swarm_sweep_drift_total 1",
        r#"swarm_worker_exits_total{worker_type="browser",success="false"} 1"#,
        r#"swarm_jobs_total{worker_type="browser",method="goto",outcome="failed"} 1"#,
        r#"swarm_job_seconds_count{worker_type="browser",method="goto"} 1"#,
        r#"swarm_jobs_in_progress{worker_type="browser"} 2"#,
        r#"swarm_sessions_open{worker_type="browser"} 1"#,
        r#"swarm_dead_letters{worker_type="browser"} 4"#,
        r#"swarm_discord_commands_total{command="web start",outcome="done"} 1"#,
        "swarm_discord_shards_ready 1",
        "swarm_discord_disconnects_total 1",
        "# TYPE swarm_queue_oldest_age_seconds gauge",
    ] {
        assert_line(&text, line);
    }
}

/// The only test that binds the process's signal counters, which keep the recorder that was in force at their
/// installation.
#[test]
fn received_signals_count_at_their_source() {
    let text = recorded(|| {
        signals::install();
        for (source, count) in Source::ALL.into_iter().zip(1..) {
            SignalsReceived { source, count }.emit();
        }
    });
    for (source, count) in Source::ALL.into_iter().zip(1..) {
        assert_line(&text, &format!(r#"swarm_signals_total{{source="{}"}} {count}"#, source.as_str()));
    }
}

#[test]
fn times_fall_into_the_buckets_around_them() {
    let text = recorded(emit_everything);
    for line in [
        r#"swarm_reaction_seconds_bucket{stage="decided",le="0.00025"} 0"#,
        r#"swarm_reaction_seconds_bucket{stage="decided",le="0.0005"} 1"#,
        r#"swarm_reaction_seconds_count{stage="decided"} 1"#,
        r#"swarm_backend_call_seconds_bucket{backend="process",call="scale",le="0.01"} 0"#,
        r#"swarm_backend_call_seconds_bucket{backend="process",call="scale",le="0.025"} 1"#,
        r#"swarm_sweep_seconds_bucket{le="60"} 1"#,
    ] {
        assert_line(&text, line);
    }
}

#[test]
fn sources_and_redis_show_as_up_down_and_off() {
    let changed = |state| SourceChanged { server: None, source: Source::Keyspace, state, detail: "x" }.emit();
    let shown = |state| recorded(|| changed(state));
    assert_line(&shown(SourceState::Up), r#"swarm_source_up{source="keyspace"} 1"#);
    assert_line(&shown(SourceState::Connecting), r#"swarm_source_up{source="keyspace"} 0"#);
    assert_line(&shown(SourceState::Down), r#"swarm_source_up{source="keyspace"} 0"#);
    assert_line(&shown(SourceState::Off), r#"swarm_source_up{source="keyspace"} NaN"#);

    let (server, error) = (Some("b:6379/0"), "refused");
    let shown = |emit: &dyn Fn()| recorded(emit);
    assert_line(&shown(&|| RedisReachable { server: None }.emit()), "swarm_redis_up 1");
    assert_line(&shown(&|| RedisUnreachable { server: None, error }.emit()), "swarm_redis_up 0");
    let up = |value: &str| format!("swarm_queue_server_up{{server=\"b:6379/0\"}} {value}");
    assert_line(&shown(&|| RedisReachable { server }.emit()), &up("1"));
    let away = shown(&|| RedisUnreachable { server, error }.emit());
    assert_line(&away, &up("0"));
    assert!(!away.contains("swarm_redis_up"), "{away}");
    assert_line(&shown(&|| QueueServerLeft { server: "b:6379/0" }.emit()), &up("NaN"));
    let state = SourceState::Down;
    let source = shown(&|| SourceChanged { server, source: Source::Keyspace, state, detail: "x" }.emit());
    assert!(!source.contains("swarm_source_up"), "{source}");
    assert_line(&recorded(|| RedisWrites { refused: Some("OOM") }.emit()), "swarm_redis_writes_refused 1");
    assert_line(&recorded(|| RedisWrites { refused: None }.emit()), "swarm_redis_writes_refused 0");
}

#[test]
fn snapshots_show_queue_and_pool() {
    let text = shown(&[snapshot()]);
    for (name, value) in [
        ("swarm_queue_lag", "7"),
        ("swarm_queue_pending", "2"),
        ("swarm_queue_oldest_age_seconds", "4.5"),
        ("swarm_workers_desired", "3"),
        ("swarm_workers_running", "4"),
        ("swarm_workers_ready", "2"),
        ("swarm_workers_busy", "1"),
        ("swarm_workers_starting", "1"),
        ("swarm_workers_draining", "1"),
        ("swarm_workers_max", "10"),
        ("swarm_session_places", "16"),
        ("swarm_session_places_taken", "9"),
        ("swarm_session_jobs_waiting", "3"),
    ] {
        assert_line(&text, &format!(r#"{name}{{worker_type="browser"}} {value}"#));
    }
    for (state, count) in [("idle", 1), ("busy", 1), ("unheard", 2)] {
        assert_line(&text, &format!(r#"swarm_workers{{worker_type="browser",state="{state}"}} {count}"#));
    }
    assert!(!text.contains("stalled\""), "nobody is stalled");
}

#[test]
fn what_is_not_known_is_nan_and_never_zero() {
    let unknown =
        TypeSnapshot { demand: Demand::failed("timed out"), pool: Reading::Failed("refused".into()), ..snapshot() };
    let text = shown(&[unknown]);
    for name in ["queue_lag", "queue_pending", "queue_oldest_age_seconds", "workers_running", "workers_busy"] {
        assert_line(&text, &format!(r#"swarm_{name}{{worker_type="browser"}} NaN"#));
    }
}

#[test]
fn a_metric_is_headed_once_and_has_a_line_for_each_worker_type() {
    let other = TypeSnapshot { worker_type: WorkerType::new("tankpit"), max_workers: 50, ..snapshot() };
    let text = shown(&[snapshot(), other]);
    let is_named = |line: &&str| line.split([' ', '{']).any(|word| word == "swarm_workers_max");
    let lines: Vec<_> = text.lines().filter(is_named).collect();
    assert_eq!(
        lines,
        [
            "# HELP swarm_workers_max The upper bound in force: max_workers, or what an open window of the schedule lowers it \
             to.",
            "# TYPE swarm_workers_max gauge",
            r#"swarm_workers_max{worker_type="browser"} 10"#,
            r#"swarm_workers_max{worker_type="tankpit"} 50"#,
        ]
    );
    assert_eq!(shown(&[]), "");
}

/// Kind and labels by metric name.
type Listing = BTreeMap<String, (String, Vec<String>)>;

fn listed_in_code() -> Listing {
    let row = |metric: &metric::Metric| {
        let kind = match metric.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let labels = metric.labels.iter().map(ToString::to_string).collect();
        (metric.name.to_owned(), (kind.to_owned(), labels))
    };
    metric::ALL.iter().map(row).collect()
}

/// Returns the rows of the tables in `docs/metrics.md` that begin with a metric's name.
fn listed_in_documentation() -> Listing {
    let text = include_str!("../../docs/metrics.md");
    let row = |line: &str| {
        let cells: Vec<_> = line.trim().strip_prefix('|')?.split('|').map(str::trim).collect();
        let [name, kind, labels, ..] = cells[..] else { return None };
        let name = name.strip_prefix("`swarm_")?.strip_suffix('`')?;
        Some((format!("swarm_{name}"), (kind.to_owned(), quoted(labels))))
    };
    text.lines().filter_map(row).collect()
}

/// Returns the words between backticks.
fn quoted(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Returns kind and labels of everything that the events record, read back from the text format.
fn listed_by_emitting() -> Listing {
    let text = everything();
    let kinds = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let labels_of = |name: &str, kind: &str| {
        let sample = if kind == "histogram" { format!("{name}_count") } else { name.to_owned() };
        let rest = text.lines().find_map(|line| line.strip_prefix(&sample)?.strip_prefix('{'));
        let pairs = rest.and_then(|rest| rest.split_once('}')).map_or("", |(pairs, _)| pairs);
        pairs.split(',').filter_map(|pair| Some(pair.split_once('=')?.0.to_owned())).collect()
    };
    kinds.map(|(name, kind)| (name.to_owned(), (kind.to_owned(), labels_of(name, kind)))).collect()
}

#[test]
fn the_list_holds_exactly_what_is_emitted() {
    assert_eq!(listed_in_code(), listed_by_emitting());
}

#[test]
fn the_documentation_lists_exactly_what_is_emitted() {
    assert_eq!(listed_in_documentation(), listed_in_code());
}

/// A field in its `Debug` form (`?field`) shows the program's internals to people, and gives programs text instead of a
/// number.
#[test]
fn no_log_line_has_a_debug_form() {
    let mut folders = vec![std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    let (mut files, mut found) = (0, Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs")
                && !path.ends_with("telemetry/tests.rs")
            {
                files += 1;
                let text = std::fs::read_to_string(&path).unwrap();
                found.extend(debug_forms(&text).map(|line| format!("{}: {line}", path.display())));
            }
        }
    }
    assert!(files > 100 && found.is_empty(), "{files} files: {found:#?}");
    let seen = ["info!(%a, ?b, \"c\");", "    ?limit,", "warn!(from = ?gone.from, \"c\");"];
    assert_eq!(debug_forms(&seen.join("\n")).count(), 3, "the test sees what it looks for");
}

/// Returns the lines with a `?` that begins a word; the operator `?` stands behind a word.
fn debug_forms(text: &str) -> impl Iterator<Item = &str> {
    let begins_a_word = |line: &str| {
        let code = line.split("//").next().unwrap_or_default();
        let before = |at: usize| code[..at].chars().next_back().is_none_or(|c| matches!(c, ' ' | '('));
        let after = |at: usize| code[at + 1..].starts_with(|c: char| c.is_ascii_lowercase() || c == '_');
        code.match_indices('?').any(|(at, _)| before(at) && after(at)) && !code.contains("?:")
    };
    let is_log = |line: &str| ["trace!", "debug!", "info!", "warn!", "error!"].iter().any(|name| line.contains(name));
    text.lines().filter(move |line| begins_a_word(line) && (is_log(line) || line.trim().starts_with('?')))
}

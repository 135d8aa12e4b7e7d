//! The environment of a worker, failed starts, and the output of a worker.

use super::*;

/// As for an autoscaler that a script runs in the background.
#[test]
fn a_worker_does_not_inherit_that_signals_are_ignored() {
    let script =
        format!("trap '' INT QUIT TERM; exec {SWARM} process-start -- sh -c 'kill -$1 $$; echo survived' sh $0");
    for signal in ["INT", "QUIT", "TERM"] {
        let mut start = Command::new("sh");
        start.args(["-c", &script, signal]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut worker = start.spawn().unwrap();
        writeln!(worker.stdin.take().unwrap()).unwrap();
        let output = worker.wait_with_output().unwrap();
        assert_eq!((output.status.success(), output.stdout.as_slice()), (false, &b""[..]), "{signal}");
    }
}

#[tokio::test]
async fn a_missing_program_is_permanent_and_what_was_done_is_told() {
    let script = "echo $$ > $SWARM_WORKER_ID.pid; exec /bin/sleep 1000";
    let bench = Bench::with(|spec| spec.environment = BTreeMap::from([path("bin")]), script).await;
    let bin = bench.directory.path().join("bin");
    fs::create_dir(&bin).unwrap();
    std::os::unix::fs::symlink("/bin/sh", bin.join("sh")).unwrap();
    let ids = bench.start(2).await;
    for id in &ids {
        bench.pid(id).await;
    }

    fs::remove_dir_all(&bin).unwrap();
    let error = bench.scale(5, &ids[..1], LONG).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Permanent);
    assert_eq!(error.done, ScaleReport { started: vec![], retired: vec![ids[0].clone()] });
    assert!(error.message.contains("program `sh` of worker type `shell` was not found"), "{error}");
    assert_eq!(bench.pool().await.instances.iter().filter(|i| i.phase == Phase::Running).count(), 1);
    bench.backend.shutdown(true).await;
}

/// A PATH for the worker itself: its script needs no program but the shell's own.
fn path(entry: &str) -> (String, String) {
    ("PATH".to_owned(), entry.to_owned())
}

#[tokio::test]
async fn a_file_that_is_no_program_and_a_missing_directory_are_named() {
    let bench = Bench::with(|spec| spec.command = vec!["./notes.txt".to_owned()], "").await;
    fs::write(bench.directory.path().join("notes.txt"), "hello").unwrap();
    let error = bench.scale(1, &[], LONG).await.unwrap_err();
    assert!(error.message.contains("notes.txt` of worker type `shell` is not an executable file"), "{error}");
    assert_eq!(error.kind, ErrorKind::Permanent);

    let bench = Bench::with(|spec| spec.directory = Some("/does/not/exist".into()), SLEEPER).await;
    let error = bench.scale(1, &[], LONG).await.unwrap_err();
    assert!(error.message.contains("directory `/does/not/exist`"), "{error}");
    assert_eq!(error.kind, ErrorKind::Permanent);
}

#[tokio::test]
async fn a_program_that_does_not_run_after_all_exits_with_127() {
    let mut bench = Bench::with(|spec| spec.command = vec!["./broken".to_owned()], "").await;
    let file = bench.directory.path().join("broken");
    fs::write(&file, "#!/does/not/exist\n").unwrap();
    fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    bench.start(1).await;
    let pool = bench.until(|pool| !pool.exits.is_empty()).await;
    assert_eq!(pool.exits[0].detail, "exit code 127");
    bench.backend.shutdown(true).await;
}

#[tokio::test]
async fn an_unknown_worker_type_is_an_error_and_not_an_empty_pool() {
    let bench = Bench::new(SLEEPER).await;
    let error = bench.backend.observe(&WorkerType::new("other")).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Permanent);
}

#[tokio::test]
async fn a_worker_knows_who_it_is_and_where_redis_is() {
    let script = "echo $SWARM_WORKER_TYPE $REDIS_URL $SWARM_CONFIG $MORE > $SWARM_WORKER_ID.env; exec sleep 1000";
    let more = BTreeMap::from([("MORE".to_owned(), "more".to_owned())]);
    let bench = Bench::with(|spec| spec.environment = more, script).await;
    let ids = bench.start(1).await;
    assert_eq!(bench.noted(&ids[0], "env").await, "shell redis://example:6379/3 /etc/swarm.toml more");
    bench.backend.shutdown(true).await;
}

/// Collects what is logged, as text.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn what_a_worker_prints_is_logged_in_bounded_lines_under_its_name() {
    let log = Log::default();
    let writer = log.clone();
    // With a single subscriber, `tracing` asks only that of the thread which reaches a line of the program first, and
    // remembers the answer for every thread. That may be the thread of another test, which has none.
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());
    let subscriber = tracing_subscriber::fmt().json().with_writer(move || writer.clone()).with_ansi(false).finish();
    let _guard = tracing::subscriber::set_default(subscriber);

    let script = "echo out; echo err >&2; printf 'bad \\377 byte\\n'; head -c 100000 /dev/zero | tr '\\0' x; exit 0";
    let mut bench = Bench::new(script).await;
    let ids = bench.start(1).await;
    bench.until(|pool| !pool.exits.is_empty()).await;
    bench.backend.shutdown(true).await;

    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let events = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let lines: Vec<String> = events
        .filter(|event| event["target"] == "swarm::worker_output")
        .map(|event| {
            assert_eq!((&event["level"], &event["fields"]["worker_type"]), (&"INFO".into(), &"shell".into()));
            assert_eq!(event["fields"]["worker_id"], ids[0].as_str());
            event["fields"]["message"].as_str().unwrap().to_owned()
        })
        .collect();
    for line in ["out", "err", "bad \u{fffd} byte"] {
        assert!(lines.iter().any(|seen| seen == line), "{line} in {lines:?}");
    }
    let pieces: Vec<_> = lines.iter().filter(|line| line.starts_with('x')).map(String::len).collect();
    assert_eq!(pieces.iter().sum::<usize>(), 100_000);
    assert!(pieces.iter().all(|&length| length <= 8 * 1024), "{pieces:?}");
}

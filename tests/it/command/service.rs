//! A platform that is asked over HTTP (`url`). The conformance suite runs over it, too.

use std::{collections::BTreeSet, fs, time::Instant};

use swarm::{
    backend::{BackendError, CheckOutcome, ErrorKind, Phase, Pool, Removal, ScaleReport, ScalingBackend},
    config::{CommandSettings, Removes, ServiceCall},
    model::WorkerId,
};

use super::bench::{Bench, mail};
use crate::{
    fake_platform::{Contract, FakePlatform, Fault},
    support::wait::DEADLINE,
};

type Served = Bench<FakePlatform>;

/// Nothing is listed but at the start and when somebody asks.
const NO_POLL: u64 = 3_600;

fn numbered(settings: CommandSettings) -> CommandSettings {
    CommandSettings { calls: BTreeSet::from([ServiceCall::Scale]), removes: Removes::Newest, ..settings }
}

fn live(pool: &Pool) -> Vec<&str> {
    pool.instances.iter().filter(|one| one.phase == Phase::Running).map(|one| one.id.as_str()).collect()
}

/// Returns what `swarm doctor` says of the list.
async fn listing(bench: &Served) -> CheckOutcome {
    let mut checks = bench.backend.check().await;
    assert_eq!(checks.len(), 1, "of a service, only the list can be tried: {checks:?}");
    checks.remove(0).outcome
}

/// Scales to one worker until the service has answered as `expected` says; a list may fail first on a slow machine.
async fn refused(bench: &Served, expected: &str) -> BackendError {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let error = bench.scale(1, &[]).await.unwrap_err();
        if error.message.contains(expected) {
            return error;
        }
        assert!(Instant::now() < deadline, "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_start_is_made_again_and_one_without_an_answer_counts() {
    let about = "`worker_types.mail.command.url`: `start`: ";
    for (status, kind, cure) in [
        (400, ErrorKind::Permanent, ""),
        (401, ErrorKind::Permanent, "; check the token in `token_file`"),
        (404, ErrorKind::Permanent, "; check `url` and `calls`"),
        (429, ErrorKind::Retryable, ""),
        (503, ErrorKind::Retryable, ""),
    ] {
        let mut bench = Bench::over_http(|settings| settings).await;
        bench.stand_in.fail("startWorker", Fault::Refused(status, None));
        let error = bench.scale(1, &[]).await.unwrap_err();
        assert_eq!(error.kind, kind, "{error}");
        let told = error.message.strip_prefix(&format!("{about}answer {status} ")).unwrap();
        assert!(told.contains(&format!(": as the test wants it{cure}")), "{error}");
        assert_eq!(bench.backend.observe(&mail()).await.unwrap().instances, [], "it was not carried out");
        bench.stand_in.heal();
        assert_eq!(bench.scale(1, &[]).await.unwrap().started.len(), 1);
        bench.until("one worker", |pool| live(pool).len() == 1).await;
        bench.backend.shutdown(false).await;
    }
    for (fault, expected) in [(Fault::Lost, "answer 500"), (Fault::Silent, "no answer within 1 s; raise `timeout_sec")]
    {
        // The list stays valid when a slow machine misses one within the second.
        let impatient = |settings| CommandSettings { timeout_seconds: 1, poll_seconds: 10, ..settings };
        let mut bench = Bench::over_http(impatient).await;
        bench.stand_in.fail("startWorker", fault);
        let error = refused(&bench, expected).await;
        assert_eq!(error.kind, ErrorKind::Retryable, "{error}");
        bench.stand_in.heal();
        bench.until("one worker", |pool| live(pool).len() == 1).await;
        assert_eq!(bench.scale(1, &[]).await.unwrap(), ScaleReport::default(), "it was started, and counts");
        assert_eq!(bench.stand_in.see(|world| world.running().len()), 1);
        bench.backend.shutdown(false).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_that_can_not_be_read_is_unknown() {
    let bench = Bench::over_http(|settings| CommandSettings { poll_seconds: NO_POLL, ..settings }).await;
    for (fault, expected) in [
        (Fault::Refused(500, None), "`list`: answer 500 Internal Server Error: as the test wants it"),
        (Fault::Cut, "`list`: no answer, or one that broke off"),
        (Fault::Garbage, "`list`: expected a JSON object such as {\"workers\":"),
        (Fault::Endless, "`list`: the answer has more than 8 MiB"),
    ] {
        bench.stand_in.fail("listWorkers", fault);
        let CheckOutcome::Wrong(told) = listing(&bench).await else { panic!("{fault:?} is fine") };
        assert!(told.starts_with("`worker_types.mail.command.url`: ") && told.contains(expected), "{told}");
        bench.stand_in.heal();
        assert_eq!(listing(&bench).await, CheckOutcome::Fine("0 workers".to_owned()));
    }
    bench.backend.shutdown(false).await;
    let nobody = Bench::over_http(|settings| CommandSettings {
        url: Some("http://127.0.0.1:1/v1".to_owned()),
        poll_seconds: NO_POLL,
        ..settings
    });
    let nobody = nobody.await;
    let error = nobody.backend.observe(&mail()).await.unwrap_err();
    assert!(error.kind == ErrorKind::Retryable && error.message.contains("Connection refused"), "{error}");
    nobody.backend.shutdown(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_token_is_read_at_each_call_and_shown_to_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    fs::write(&file, "first-secret-word\n").unwrap();
    let with_token = |settings| CommandSettings { token_file: Some(file.clone()), poll_seconds: NO_POLL, ..settings };
    let bench = Bench::over_http(with_token).await;
    assert_eq!(listing(&bench).await, CheckOutcome::Fine("0 workers".to_owned()));
    bench.stand_in.act(|world| world.token = Some("second-secret-word".to_owned()));
    let CheckOutcome::Wrong(told) = listing(&bench).await else { panic!("it has another token") };
    let expected = "answer 401 Unauthorized: unknown credentials: Bearer ***; check the token in `token_file`";
    assert!(told.contains(expected), "{told}");
    fs::write(&file, "second-secret-word\n").unwrap();
    assert_eq!(listing(&bench).await, CheckOutcome::Fine("0 workers".to_owned()));
    for (content, expected) in [(" \n", "it is empty"), ("a\tb\u{7f}", "characters that no token has")] {
        fs::write(&file, content).unwrap();
        let CheckOutcome::Wrong(told) = listing(&bench).await else { panic!("that is no token") };
        assert!(told.contains("`token_file`") && told.contains(expected), "{told}");
    }
    fs::remove_file(&file).unwrap();
    let CheckOutcome::Wrong(told) = listing(&bench).await else { panic!("there is no token") };
    assert!(told.contains(&format!("`token_file` `{}` can't be used: No such file", file.display())), "{told}");
    bench.backend.shutdown(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_redirect_is_followed() {
    let elsewhere = FakePlatform::start().await;
    let bench = Bench::over_http(|settings| settings).await;
    let to = elsewhere.address();
    for operation in ["startWorker", "listWorkers"] {
        bench.stand_in.fail(operation, Fault::Redirected(to));
    }
    let CheckOutcome::Wrong(told) = listing(&bench).await else { panic!("it was redirected") };
    assert!(told.contains("answer 307 Temporary Redirect; redirects are not followed: set `url`"), "{told}");
    assert_eq!(elsewhere.see(|world| world.log.clone()), Vec::<String>::new());
    bench.backend.shutdown(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_asks_to_wait_is_let_alone() {
    let mut bench = Bench::over_http(|settings| settings).await;
    bench.stand_in.fail("startWorker", Fault::Refused(429, Some(3_600)));
    bench.until("an empty pool", |pool| pool.instances.is_empty()).await;
    assert!(bench.scale(1, &[]).await.unwrap_err().message.contains("answer 429"));
    let error = bench.scale(1, &[]).await.unwrap_err();
    assert!(error.kind == ErrorKind::Retryable && error.message.contains("the service has asked to wait"), "{error}");
    assert_eq!(bench.stand_in.see(|world| world.count("POST /v1/workers")), 1);
    assert_eq!(listing(&bench).await, CheckOutcome::Fine("0 workers".to_owned()), "other calls go on");
    bench.backend.shutdown(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_is_seen_by_watching() {
    let calls = BTreeSet::from([ServiceCall::Start, ServiceCall::Stop, ServiceCall::Watch]);
    let mut bench = Bench::over_http(|settings| CommandSettings { calls, poll_seconds: NO_POLL, ..settings }).await;
    bench.stand_in.until("it is watched", |world| world.watchers > 0).await;
    let id = bench.scale(1, &[]).await.unwrap().started.remove(0);
    bench.until("it runs", |pool| pool.instances.iter().any(|one| one.began_at.is_some())).await;
    bench.stand_in.act(|world| world.crash(id.as_str()));
    let pool = bench.until("it has ended", |pool| pool.instances.is_empty()).await;
    assert_eq!(pool.exits.iter().map(|exit| (&exit.id, exit.success)).collect::<Vec<_>>(), [(&id, false)]);
    bench.backend.shutdown(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_with_a_number_loses_the_workers_that_it_removes_first() {
    let mut bench = Bench::over_http(numbered).await;
    bench.scale(3, &[]).await.unwrap();
    let pool = bench.until("three workers", |pool| live(pool) == ["w-1", "w-2", "w-3"]).await;
    let order = ["w-3", "w-2", "w-1"].map(|id| vec![WorkerId::new(id)]);
    assert_eq!(pool.removal, Removal::ByOrder(order.to_vec()));
    let report = bench.scale(1, &["w-3", "w-2"]).await.unwrap();
    assert_eq!(report.retired, ["w-3", "w-2"].map(WorkerId::new));
    bench.until("one worker", |pool| live(pool) == ["w-1"] && pool.instances.len() == 1).await;
    bench.stand_in.act(|world| world.full = true);
    let error = bench.scale(2, &[]).await.unwrap_err();
    let expected = "`scale`: answer 503 Service Unavailable: no room for another worker";
    assert!(error.kind == ErrorKind::Retryable && error.message.contains(expected), "{error}");
    bench.backend.shutdown(false).await;
}

/// The fakes refuse, and fail the test for, whatever the document lacks; this is the other direction.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_operation_of_the_document_is_used() {
    let calls = BTreeSet::from([ServiceCall::Start, ServiceCall::Stop, ServiceCall::Watch]);
    let mut bench = Bench::over_http(|settings| CommandSettings { calls, ..settings }).await;
    let id = bench.scale(1, &[]).await.unwrap().started.remove(0);
    bench.until("one worker", |pool| live(pool).len() == 1).await;
    bench.scale(0, &[id.as_str()]).await.unwrap();
    bench.until("an empty pool", |pool| pool.instances.is_empty()).await;
    bench.stand_in.until("it is watched", |world| world.watchers > 0).await;
    bench.backend.shutdown(false).await;
    let by_number = Bench::over_http(numbered).await;
    by_number.scale(1, &[]).await.unwrap();
    by_number.backend.shutdown(false).await;
    let used = |bench: &Served| bench.stand_in.see(|world| world.operations.clone());
    assert_eq!(&used(&bench) | &used(&by_number), Contract::load().operations());
}

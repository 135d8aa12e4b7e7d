//! Tests of `/v1` over a real socket, with a made-up fleet and an override service that records its requests.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    http::{
        HttpControl,
        tests::{Answer, MadeUpFleet, Running, made_up_type, send, serve_state},
    },
    model::{
        PoolCounts, Reading, Timestamp, WorkerId, WorkerState, WorkerType,
        control::{ApplyOverride, Control, Mode, OverrideAction, OverrideError, OverrideRequest},
        dead_letter::{
            DeadLetter, DeadLetterAction, DeadLetterDone, DeadLetterError, DeadLetterOutcome, DeadLetterPage,
            DeadLetterService,
        },
        history::ScalingEvent,
        job::{Cancelled, JobError, JobReport, JobService, JobState},
        progress::{Progress, ReportedProgress},
        snapshot::{Change, FleetSnapshot, Reaction, StatusSource, TypeSnapshot, WorkerSnapshot, WorkerStatus},
    },
};

const TOKEN: &str = "0123456789abcdef";

/// Two worker types, one of which has a value in every field.
struct Two;

fn busy() -> TypeSnapshot {
    let mut busy = made_up_type("busy");
    busy.demand.lag = Reading::Known(7);
    busy.demand.oldest = Reading::Known(Some(Timestamp(1)));
    busy.pool = Reading::Known(PoolCounts { ready: 1, busy: 1, ..PoolCounts::default() });
    busy.desired = 1;
    busy.last_change = Some(Change { at: Timestamp(1), from: 0, to: 1 });
    busy.reaction = Some(Reaction { decided_ms: 0.5, requested_ms: Some(0.9), running_ms: None });
    let control = Control { mode: Mode::Pinned(1), until: Some(Timestamp(9)), by: "ann".into(), why: "x".into() };
    busy.control = Some(Arc::new(control));
    busy.workers = vec![WorkerSnapshot {
        id: WorkerId::new("w"),
        state: Some(WorkerState::Busy),
        busy: true,
        draining: false,
        status: WorkerStatus::Busy,
        reason: None,
        started_at: Timestamp(1),
    }];
    busy
}

impl StatusSource for Two {
    fn fleet(&self) -> FleetSnapshot {
        let mut lost = made_up_type("lost");
        lost.demand = crate::model::Demand::failed("no answer");
        lost.pool = Reading::Unknown("nobody knows".to_owned());
        lost.backend_error = Some("no backend".to_owned());
        let worker_types = vec![Arc::new(busy()), Arc::new(lost)];
        FleetSnapshot { worker_types, ..MadeUpFleet { not_ready: Vec::new() }.fleet() }
    }

    fn not_ready(&self) -> Vec<String> {
        Vec::new()
    }
}

/// Records the requests; knows `busy` with up to 5 workers.
#[derive(Default)]
struct Book(Mutex<Vec<OverrideRequest>>);

#[async_trait]
impl ApplyOverride for Book {
    async fn give(&self, order: &OverrideRequest) -> Result<bool, OverrideError> {
        let worker_type = order.worker_type.clone();
        if order.worker_type.as_str() != "busy" {
            return Err(OverrideError::Unknown { worker_type, known: vec!["busy".to_owned()] });
        }
        match order.action {
            OverrideAction::Scale(5) => return Err(OverrideError::Unavailable("redis is away".to_owned())),
            OverrideAction::Scale(workers @ 6..) => {
                return Err(OverrideError::OutOfBounds { worker_type, workers, bounds: (0, 5) });
            }
            _ => {}
        }
        self.0.lock().unwrap().push(order.clone());
        Ok(true)
    }
}

/// Knows the job `busy`; Redis is away for `away`.
struct MadeUpJobs;

#[async_trait]
impl JobService for MadeUpJobs {
    async fn report(&self, id: &str) -> Result<Option<JobReport>, JobError> {
        if id == "away" {
            return Err(JobError("redis is away".to_owned()));
        }
        Ok((id == "busy").then(|| JobReport {
            id: id.to_owned(),
            job_type: Some("t.work".to_owned()),
            stream: Some("t:jobs".to_owned()),
            entry: Some("1-0".to_owned()),
            published: Some(Timestamp(1)),
            deadline: None,
            reply_by: Some(Timestamp(9)),
            failed_attempts: 1,
            max_attempts: Some(5),
            interruptions: 0,
            deliveries: 1,
            state: JobState::Running { worker: "w".to_owned(), worker_state: "BUSY".to_owned() },
            progress: Some(ReportedProgress {
                worker: "w".to_owned(),
                at: Timestamp(8),
                progress: Progress::new("page 2 of 5").with_fraction(0.4),
            }),
            why: vec!["it runs".to_owned()],
        }))
    }

    async fn cancel(&self, id: &str) -> Result<Cancelled, JobError> {
        match id {
            "away" => Err(JobError("redis is away".to_owned())),
            "busy" => Ok(Cancelled::Stopped { worker: "w".to_owned() }),
            _ => Ok(Cancelled::Unknown),
        }
    }
}

/// Keeps two dead letters of `busy`, one of which holds no job, and no matter what is done.
struct MadeUpDeadLetters;

fn dead_letter(entry: &str, id: Option<&str>) -> DeadLetter {
    DeadLetter {
        stream: "busy:jobs".to_owned(),
        entry: entry.to_owned(),
        at: Timestamp(1),
        id: id.map(str::to_owned),
        job_type: id.map(|_| "busy.work".to_owned()),
        reason: "failed".to_owned(),
        error: "no such page".to_owned(),
        source_entry: "0-1".to_owned(),
        group: "busy".to_owned(),
        attempts: 5,
        interruptions: 0,
    }
}

#[async_trait]
impl DeadLetterService for MadeUpDeadLetters {
    async fn list(
        &self,
        worker_type: &WorkerType,
        after: Option<String>,
        limit: usize,
    ) -> Result<DeadLetterPage, DeadLetterError> {
        match worker_type.as_str() {
            "busy" => {
                let all = [dead_letter("1-0", Some("a")), dead_letter("2-0", None)];
                let skipped = usize::from(after.is_some());
                let dead_letters: Vec<_> = all.into_iter().skip(skipped).take(limit).collect();
                let next = dead_letters.last().filter(|last| last.entry == "1-0").map(|last| last.entry.clone());
                Ok(DeadLetterPage { dead_letters, total: 2, next })
            }
            "away" => Err(DeadLetterError::Unavailable("redis is away".to_owned())),
            _ => Err(DeadLetterError::Unknown(worker_type.clone())),
        }
    }

    async fn act(
        &self,
        worker_type: &WorkerType,
        ids: &[String],
        action: DeadLetterAction,
        limit: usize,
    ) -> Result<Vec<DeadLetterDone>, DeadLetterError> {
        let page = self.list(worker_type, None, limit).await?;
        let chosen = page.dead_letters.into_iter().filter(|letter| ids.is_empty() || ids.contains(&letter.entry));
        let outcome = |id: &Option<String>| match (action, id) {
            (DeadLetterAction::Drop, _) => DeadLetterOutcome::Dropped,
            (DeadLetterAction::Retry, Some(_)) => DeadLetterOutcome::Retried { new_entry: "9-0".to_owned() },
            (DeadLetterAction::Retry, None) => DeadLetterOutcome::NoJob,
        };
        Ok(chosen
            .map(|DeadLetter { stream, entry, id, .. }| DeadLetterDone { outcome: outcome(&id), stream, entry, id })
            .collect())
    }
}

struct Bench {
    server: Running,
    book: Arc<Book>,
}

impl Bench {
    async fn start(token: Option<&str>) -> Self {
        let book = Arc::<Book>::default();
        let event = ScalingEvent { id: "1-0".into(), worker_type: "busy".into(), ..ScalingEvent::default() };
        let control = token.map(|token| HttpControl {
            token: token.into(),
            desk: book.clone(),
            jobs: Arc::new(MadeUpJobs),
            dead_letters: Arc::new(MadeUpDeadLetters),
        });
        Self { server: serve_state(Arc::new(Two), vec![Arc::new(event)], control).await, book }
    }

    fn addr(&self) -> SocketAddr {
        self.server.addr
    }

    async fn get(&self, path: &str) -> Answer {
        send(self.addr(), Method::GET, path, &[], "").await
    }

    async fn get_with_token(&self, path: &str) -> Answer {
        let token = format!("Bearer {TOKEN}");
        send(self.addr(), Method::GET, path, &[("authorization", &token)], "").await
    }

    async fn order(&self, path: &str, body: &str) -> Answer {
        let token = format!("Bearer {TOKEN}");
        send(self.addr(), Method::POST, path, &[("authorization", &token)], body).await
    }
}

#[tokio::test]
async fn orders_reach_the_desk_with_who_and_why() {
    let bench = Bench::start(Some(TOKEN)).await;
    let said = |action, seconds: Option<u64>, by: &str, why: &str| OverrideRequest {
        worker_type: WorkerType::new("busy"),
        action,
        lasts: seconds.map(Duration::from_secs),
        by: by.to_owned(),
        why: why.to_owned(),
    };
    let full = r#"{"for_seconds":60,"by":"ann@desk","reason":"the site is down"}"#;
    let paused = bench.order("/v1/worker_types/busy/pause", full).await;
    assert_eq!(paused.json()["done"], "busy: paused for 60 s");
    assert_eq!(
        (&paused.json()["control"]["mode"], &paused.json()["control"]["by"]),
        (&json!("paused"), &json!("ann@desk"))
    );
    assert!(paused.json()["control"]["until"].as_u64().is_some_and(|until| until > Timestamp::wall().0));
    let one_way = bench.order("/v1/worker_types/busy/pause", r#"{"direction":"in"}"#).await;
    assert_eq!(
        (&one_way.json()["done"], &one_way.json()["control"]["mode"]),
        (&json!("busy: paused for scaling in"), &json!("paused_in"))
    );
    let nowhere = bench.order("/v1/worker_types/busy/pause", r#"{"direction":"up"}"#).await;
    assert_eq!(nowhere.code, StatusCode::BAD_REQUEST);
    assert_eq!(bench.order("/v1/worker_types/busy/observe", "").await.code, StatusCode::OK);
    let once = bench.order("/v1/worker_types/busy/scale", r#"{"workers":3}"#).await;
    assert_eq!(once.json()["done"], "busy: scaled once to 3, held for 5 s");
    let resumed = bench.order("/v1/worker_types/busy/resume", "{}").await;
    assert_eq!(resumed.json(), json!({ "done": "busy: resumed", "control": null }));
    let expected = [
        said(OverrideAction::Pause, Some(60), "ann@desk", "the site is down"),
        said(OverrideAction::PauseIn, None, "http@127.0.0.1", ""),
        said(OverrideAction::Observe, None, "http@127.0.0.1", ""),
        said(OverrideAction::Scale(3), None, "http@127.0.0.1", ""),
        said(OverrideAction::Resume, None, "http@127.0.0.1", ""),
    ];
    assert_eq!(*bench.book.0.lock().unwrap(), expected);
}

#[tokio::test]
async fn orders_that_are_not_allowed_or_make_no_sense_are_refused_with_the_cure() {
    let bench = Bench::start(Some(TOKEN)).await;
    let long = format!(r#"{{"by":"{}"}}"#, "x".repeat(201));
    let huge = format!(r#"{{"reason":"{}"}}"#, "x".repeat(20_000));
    for (action, body, code, told) in [
        ("busy/scale", r#"{"workers":6}"#, 422, "6 is outside of what `busy` may have, 0 to 5"),
        ("busy/scale", r#"{"workers":5}"#, 503, "redis is away"),
        ("busy/scale", "", 400, "missing field `workers`"),
        ("busy/scale", r#"{"workers":-1}"#, 400, "as /v1/openapi.json says"),
        ("busy/pause", r#"{"for_secs":1}"#, 400, "unknown field `for_secs`"),
        ("busy/pause", r#"{"for_seconds":0}"#, 400, "`for_seconds` is 1 to"),
        ("busy/pause", "[", 400, "as /v1/openapi.json says"),
        ("busy/pause", r#"{"by":"ann\nERROR"}"#, 400, "one line each"),
        ("busy/pause", &long, 400, "`by` has at most 200 characters"),
        ("busy/pause", &huge, 413, "length limit exceeded"),
        ("nobody/pause", "", 404, "no worker type `nobody` in the configuration; there are: busy"),
        ("No%20body/pause", "", 400, "can't name a worker type"),
        ("busy/explode", "", 404, "there is no /v1/worker_types/busy/explode"),
    ] {
        let answer = bench.order(&format!("/v1/worker_types/{action}"), body).await;
        let error = answer.json()["error"].as_str().unwrap_or_default().to_owned();
        assert!(answer.code == code && error.contains(told), "{action} {body}: {} {error}", answer.code);
    }
    let path = "/v1/worker_types/busy/pause";
    let answer = send(bench.addr(), Method::POST, path, &[], "").await;
    assert_eq!(answer.code, StatusCode::UNAUTHORIZED);
    assert!(answer.body.contains("Authorization: Bearer TOKEN"), "{}", answer.body);
    let wrong = send(bench.addr(), Method::POST, path, &[("authorization", "Bearer wrong")], "").await;
    assert_eq!(wrong.code, StatusCode::UNAUTHORIZED);
    let read = bench.get(path).await;
    assert_eq!(
        (read.code, read.json()["error"].as_str().unwrap().ends_with("use POST")),
        (StatusCode::METHOD_NOT_ALLOWED, true)
    );
    assert!(bench.book.0.lock().unwrap().is_empty());

    let closed = Bench::start(None).await;
    let answer = closed.order(path, "").await;
    assert_eq!(answer.code, StatusCode::FORBIDDEN);
    assert!(answer.body.contains("set `token` or `token_file` in `[http]`"), "{}", answer.body);
}

#[tokio::test]
async fn what_is_read_can_be_narrowed() {
    let bench = Bench::start(None).await;
    let found = bench.get("/v1/worker_types?match=us&limit=1").await.json();
    assert_eq!((&found["matching"], &found["worker_types"][0]["worker_type"]), (&json!(1), &json!("busy")));
    assert_eq!(bench.get("/v1/worker_types?limit=1").await.json()["matching"], 2);
    assert_eq!(bench.get("/v1/events?type=nobody").await.json(), json!({ "problem": null, "events": [] }));
    assert_eq!(bench.get("/v1/events?count=1").await.json()["events"][0]["id"], "1-0");
    let why = bench.get("/v1/worker_types/busy/why").await.json();
    assert_eq!(why["rules"], json!(["depth 0 ≤ 0 wants 0"]));
    assert_eq!((&why["leadership"]["role"], &why["queue"]), (&json!("leader"), &json!("busy:jobs")));
    for (path, code) in [
        ("/v1/worker_types/nobody", 404),
        ("/v1/worker_types/nobody/why", 404),
        ("/v1/worker_types?limit=many", 400),
        ("/v1/events?kind=x", 400),
        ("/v1/nothing", 404),
    ] {
        let answer = bench.get(path).await;
        assert!(answer.code == code && answer.json()["error"].is_string(), "{path}: {} {}", answer.code, answer.body);
    }
}

#[tokio::test]
async fn jobs_are_found_and_cancelled_with_the_token_only() {
    let bench = Bench::start(Some(TOKEN)).await;
    let found = bench.get_with_token("/v1/jobs/busy").await.json();
    assert_eq!((&found["state"], &found["worker"], &found["type"]), (&json!("running"), &json!("w"), &json!("t.work")));
    assert_eq!(found["progress"], json!({ "worker": "w", "at": 8, "text": "page 2 of 5", "fraction": 0.4 }));
    let cancelled = bench.order("/v1/jobs/busy/cancel", "").await.json();
    assert_eq!(cancelled, json!({ "id": "busy", "outcome": "stopped", "worker": "w" }));
    let long = format!("/v1/jobs/{}", "x".repeat(513));
    for (path, code) in [("/v1/jobs/none", 404), ("/v1/jobs/away", 503), (long.as_str(), 400)] {
        assert_eq!(bench.get_with_token(path).await.code, code, "{path}");
        assert_eq!(bench.order(&format!("{path}/cancel"), "").await.code, code, "{path}");
    }
    assert_eq!(bench.order("/v1/jobs/busy/cancel", r#"{"x":1}"#).await.code, 400);
    assert_eq!(bench.get("/v1/jobs/busy").await.code, 401);
    let off = Bench::start(None).await;
    assert_eq!(off.get("/v1/jobs/busy").await.code, 403);
    assert_eq!(send(off.addr(), Method::POST, "/v1/jobs/busy/cancel", &[], "").await.code, 403);
}

#[tokio::test]
async fn dead_letters_are_read_in_pages_and_changed_with_the_token_only() {
    const PATH: &str = "/v1/worker_types/busy/dead_letters";
    let bench = Bench::start(Some(TOKEN)).await;
    let page = bench.get_with_token(&format!("{PATH}?limit=1")).await.json();
    assert_eq!(
        (&page["dead_letters"][0]["id"], &page["total"], &page["next"]),
        (&json!("a"), &json!(2), &json!("1-0"))
    );
    let page = bench.get_with_token(&format!("{PATH}?after=1-0")).await.json();
    assert_eq!((&page["dead_letters"][0]["entry"], &page["next"]), (&json!("2-0"), &json!(null)));
    let retried = bench.order(&format!("{PATH}/retry"), r#"{"all":true}"#).await.json();
    assert_eq!(retried["done"], "busy: 1 dead letter retried; 1 hold no job and can only be dropped");
    assert_eq!(
        (&retried["dead_letters"][0]["new_entry"], &retried["dead_letters"][1]["outcome"]),
        (&json!("9-0"), &json!("no_job"))
    );
    let dropped = bench.order(&format!("{PATH}/drop"), r#"{"ids":["2-0"]}"#).await.json();
    assert_eq!(dropped["done"], "busy: 1 dead letter dropped");

    for body in ["", r#"{"all":true,"ids":["1-0"]}"#, r#"{"entries":[]}"#] {
        assert_eq!(bench.order(&format!("{PATH}/drop"), body).await.code, 400, "{body}");
    }
    for (path, code) in [
        (format!("{PATH}?after=soon"), 400),
        (format!("{PATH}?first=1"), 400),
        ("/v1/worker_types/none/dead_letters".to_owned(), 404),
        ("/v1/worker_types/away/dead_letters".to_owned(), 503),
    ] {
        let answer = bench.get_with_token(&path).await;
        assert_eq!(answer.code, code, "{path}");
        assert!(answer.json()["error"].is_string(), "{path}");
    }
    assert_eq!(bench.get(PATH).await.code, 401);
    assert_eq!(send(bench.addr(), Method::POST, &format!("{PATH}/drop"), &[], r#"{"all":true}"#).await.code, 401);
    let off = Bench::start(None).await;
    assert_eq!(off.get(PATH).await.code, 403);
}

/// Returns the schema of an answer, as a document of its own.
fn schema_of(document: &Value, operation: &Value, code: &str) -> Value {
    let mut schema = operation["responses"][code]["content"]["application/json"]["schema"].clone();
    assert!(schema.is_object(), "{operation}: no answer {code}");
    schema["components"] = document["components"].clone();
    schema
}

/// Checks that `answer` matches its operation in the document.
fn check_answer(document: &Value, operation: &Value, answer: &Answer) {
    let schema = schema_of(document, operation, answer.code.as_str());
    let validator = jsonschema::validator_for(&schema).unwrap();
    let body = answer.json();
    let errors: Vec<String> =
        validator.iter_errors(&body).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(errors.is_empty(), "{}: {errors:?}\n{}", operation["operationId"], answer.body);
}

/// Returns every operation of the document, by method and by path with a worker type filled in.
fn operations(document: &Value) -> BTreeMap<(String, String), Value> {
    let paths = document["paths"].as_object().unwrap();
    let of_path = |(path, methods): (&String, &Value)| {
        let path = path.replace("{name}", "busy").replace("{id}", "busy");
        let methods = methods.as_object().unwrap().clone();
        methods.into_iter().map(move |(method, operation)| ((method.to_uppercase(), path.clone()), operation))
    };
    paths.iter().flat_map(of_path).collect()
}

#[tokio::test]
async fn the_document_and_the_routes_agree_and_answers_are_as_it_says() {
    let bench = Bench::start(Some(TOKEN)).await;
    let document = bench.get("/v1/openapi.json").await.json();
    assert_eq!(document["openapi"], "3.1.0");
    let operations = operations(&document);
    assert!(operations.len() >= 11, "{:?}", operations.keys());
    let mut ids = std::collections::BTreeSet::new();
    for ((method, path), operation) in &operations {
        assert!(ids.insert(operation["operationId"].to_string()), "two are called {}", operation["operationId"]);
        let is_order = operation["requestBody"].is_object();
        let needs_token = is_order || path.starts_with("/v1/jobs/") || path.ends_with("/dead_letters");
        assert_eq!(needs_token, operation["security"][0] != json!({}), "{path}");
        if path == "/v1/stream" {
            continue;
        }
        let body = match path.rsplit('/').next() {
            Some("scale") => r#"{"workers":2,"for_seconds":9}"#,
            Some("retry" | "drop") => r#"{"all":true}"#,
            _ => "",
        };
        let answer = match method.as_str() {
            "GET" if needs_token => bench.get_with_token(path).await,
            "GET" => bench.get(path).await,
            _ => bench.order(path, body).await,
        };
        assert_eq!(answer.code, StatusCode::OK, "{method} {path}: {}", answer.body);
        check_answer(&document, operation, &answer);
        // The other method is refused, so the document is complete.
        let (other, path) = if is_order { (Method::GET, path) } else { (Method::POST, path) };
        let other = send(bench.addr(), other, path, &[], "").await;
        assert_eq!(other.code, StatusCode::METHOD_NOT_ALLOWED, "{path}");
    }
    let status = &operations[&("GET".to_owned(), "/v1/status".to_owned())];
    let failures = &operations[&("POST".to_owned(), "/v1/worker_types/busy/scale".to_owned())];
    check_answer(&document, status, &bench.get("/status").await);
    for body in [r#"{"workers":6}"#, r#"{"workers":5}"#, "["] {
        check_answer(&document, failures, &bench.order("/v1/worker_types/busy/scale", body).await);
    }
    check_answer(&document, failures, &send(bench.addr(), Method::POST, "/v1/worker_types/busy/scale", &[], "").await);
}

#[tokio::test]
async fn request_bodies_are_as_the_document_says() {
    let bench = Bench::start(Some(TOKEN)).await;
    let document = bench.get("/v1/openapi.json").await.json();
    for ((_, path), operation) in operations(&document).into_iter().filter(|(key, _)| key.0 == "POST") {
        let mut schema = operation["requestBody"]["content"]["application/json"]["schema"].clone();
        schema["components"] = document["components"].clone();
        let validator = jsonschema::validator_for(&schema).unwrap();
        for body in [
            json!({}),
            json!({ "workers": 2 }),
            json!({ "workers": 2, "for_seconds": 5, "by": "a", "reason": "b" }),
            json!({ "for_seconds": 5, "reason": "b" }),
            json!({ "for_seconds": 0 }),
            json!({ "workers": 2, "for_seconds": "5" }),
            json!({ "reason": 5 }),
            json!({ "by": null, "reason": "" }),
            json!({ "all": true }),
            json!({ "all": false }),
            json!({ "ids": ["1-0"] }),
            json!({ "ids": [] }),
            json!({ "ids": ["1-0"], "all": true }),
        ] {
            let answer = bench.order(&path, &body.to_string()).await;
            let fits = validator.is_valid(&body);
            assert_eq!(fits, answer.code == StatusCode::OK, "{path} {body}: {}", answer.body);
        }
    }
}

//! Alerts to webhooks: what the real autoscaler sends to a receiver with faults to inject.

use std::{
    collections::{BTreeSet, VecDeque},
    path::Path,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{any, post},
};
use rustix::process::Signal;
use serde_json::Value;
use swarm::model::snapshot::{ReloadOutcome, Role};
use tokio::{net::TcpListener, task::JoinHandle};

use crate::{
    leadership::{lead_and_follow, until_role},
    support::{
        autoscaler::{ALONE, Autoscaler, FAST_SWEEP, SLEEPER, pool, swarm},
        command::{add_jobs, redis},
        redis::RedisServer,
        wait::{DEADLINE, eventually},
    },
};

/// The secret part of the URL.
const SECRET: &str = "hunter2hunter2";

/// How the receiver answers a request that it does not accept.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Status(u16),
    RetryAfter(u64),
    Redirect,
    Hang,
}

/// Media type and body of a message.
type Received = (String, Value);

#[derive(Clone, Default)]
struct Shared {
    received: Arc<Mutex<Vec<Received>>>,
    /// Faults of the next requests; afterwards the receiver accepts.
    faults: Arc<Mutex<VecDeque<Fault>>>,
    /// Times of all requests, also of those with a fault.
    requests: Arc<Mutex<Vec<std::time::Instant>>>,
    followed: Arc<Mutex<u32>>,
}

struct Receiver {
    url: String,
    shared: Shared,
    server: JoinHandle<()>,
}

async fn take(State(shared): State<Shared>, headers: HeaderMap, body: String) -> Response {
    shared.requests.lock().unwrap().push(std::time::Instant::now());
    let fault = shared.faults.lock().unwrap().pop_front();
    match fault {
        Some(Fault::Status(code)) => return StatusCode::from_u16(code).unwrap().into_response(),
        Some(Fault::RetryAfter(seconds)) => {
            return (StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, seconds.to_string())]).into_response();
        }
        Some(Fault::Redirect) => return (StatusCode::FOUND, [(header::LOCATION, "/elsewhere")]).into_response(),
        Some(Fault::Hang) => std::future::pending().await,
        None => {}
    }
    let media_type = headers[header::CONTENT_TYPE].to_str().unwrap().to_owned();
    shared.received.lock().unwrap().push((media_type, serde_json::from_str(&body).unwrap()));
    StatusCode::OK.into_response()
}

impl Receiver {
    async fn start() -> Self {
        let shared = Shared::default();
        let follow = async |State(shared): State<Shared>| *shared.followed.lock().unwrap() += 1;
        let app = Router::new()
            .route(&format!("/{SECRET}"), post(take))
            .route("/elsewhere", any(follow))
            .with_state(shared.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/{SECRET}", listener.local_addr().unwrap());
        let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { url, shared, server }
    }

    fn inject(&self, faults: &[Fault]) {
        self.shared.faults.lock().unwrap().extend(faults);
    }

    /// Returns `alert status` of each accepted message.
    fn accepted(&self) -> Vec<String> {
        let received = self.shared.received.lock().unwrap();
        let text = |body: &Value, key: &str| body[key].as_str().unwrap_or_default().to_owned();
        received.iter().map(|(_, body)| format!("{} {}", text(body, "alert"), text(body, "status"))).collect()
    }

    /// Returns who has sent these messages.
    fn senders(&self, alert: &str, status: &str) -> BTreeSet<String> {
        let received = self.shared.received.lock().unwrap();
        let of = received.iter().filter(|(_, body)| body["alert"] == alert && body["status"] == status);
        of.map(|(_, body)| body["instance"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// Waits until exactly these autoscalers have sent the message.
    async fn until_sent_by(&self, (alert, status): (&str, &str), senders: &[&String]) {
        let wanted: BTreeSet<String> = senders.iter().map(ToString::to_string).collect();
        // An alert has ended only after 30 s without its condition.
        let sent = eventually(DEADLINE * 2, async || self.senders(alert, status) == wanted).await;
        assert!(sent, "`{alert} {status}` of {wanted:?}, but {:?}", self.shared.received.lock().unwrap());
    }

    async fn until_accepted(&self, message: &str) {
        let accepted = eventually(DEADLINE, async || self.accepted().iter().any(|of| of == message)).await;
        assert!(accepted, "`{message}` did not arrive, but {:?}", self.accepted());
    }

    async fn until_requests(&self, count: usize) {
        let requests = || self.shared.requests.lock().unwrap().len();
        assert!(eventually(DEADLINE, async || requests() >= count).await, "{} requests", requests());
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn full_pool() -> String {
    pool("test", "max_workers = 1, scale_up_threshold = 1, cooldown_seconds = 0", SLEEPER)
}

#[tokio::test]
async fn an_alert_is_sent_once_and_its_end_and_the_url_is_shown_nowhere() {
    let server = RedisServer::start();
    let client = server.client().await;
    let receiver = Receiver::start().await;
    // The first attempts fail, which loses nothing. Only the one that hangs may take too long: each is counted.
    receiver.inject(&[Fault::Status(503), Fault::Hang, Fault::RetryAfter(3)]);
    let webhook = format!(
        "[[notify]]\nurl = \"{}\"\nafter_seconds = 1\ntimeout_seconds = 5\nalerts = [\"pool_at_maximum\"]\n",
        receiver.url
    );
    let settings = format!("{FAST_SWEEP}{ALONE}{webhook}{}", full_pool());
    let scaler = Autoscaler::start(&server.url(), &settings).await;
    scaler.until_ready().await;
    add_jobs(&client, "test:jobs", 3).await;
    scaler.until_workers("test", 1).await;
    receiver.until_accepted("pool_at_maximum firing").await;
    {
        let requests = receiver.shared.requests.lock().unwrap();
        assert_eq!(requests.len(), 4, "one for each fault, and the one that was accepted");
        let waited = requests[3].duration_since(requests[2]);
        assert!(waited >= std::time::Duration::from_millis(2_900), "Retry-After: waited {waited:?}");
    }
    scaler.until_evaluated("test", 3).await;
    assert_eq!(receiver.accepted(), ["pool_at_maximum firing"], "sent once");
    let body = receiver.shared.received.lock().unwrap()[0].1.clone();
    assert_eq!((body["worker_type"].as_str(), body["detail"].as_str()), (Some("test"), Some("3 jobs wait")));

    let _: u64 = redis(&client, "DEL test:jobs").await;
    let resolved = "pool_at_maximum resolved";
    let ended = eventually(DEADLINE * 2, async || receiver.accepted().iter().any(|of| of == resolved)).await;
    assert!(ended, "{:?}", receiver.accepted());
    assert_eq!(receiver.accepted().len(), 2);
    scaler
        .until("both are counted", async || scaler.metric(r#"swarm_notifications_total{outcome="sent"}"#).await > 1.5)
        .await;
    assert!(!scaler.log().contains(SECRET), "{}", scaler.log());
    let status = serde_json::to_string(&scaler.status().await).unwrap();
    assert!(!status.contains(SECRET));
}

#[tokio::test]
async fn a_receiver_that_hangs_or_refuses_delays_no_scaling() {
    let server = RedisServer::start();
    let client = server.client().await;
    let receiver = Receiver::start().await;
    // The first webhook hangs, the second one redirects: neither is followed, neither matters to the pool.
    receiver.inject(&[Fault::Hang, Fault::Redirect]);
    let webhook = |name: &str| {
        format!("[[notify]]\nname = \"{name}\"\nurl = \"{}\"\nafter_seconds = 0\ntimeout_seconds = 60\n", receiver.url)
    };
    let settings = format!("{FAST_SWEEP}{ALONE}{}{}{}", webhook("one"), webhook("two"), full_pool());
    let scaler = Autoscaler::start(&server.url(), &settings).await;
    scaler.until_ready().await;
    add_jobs(&client, "test:jobs", 5).await;
    scaler.until_workers("test", 1).await;
    receiver.until_requests(2).await;
    scaler.until_logged("notification given up").await;
    assert_eq!(*receiver.shared.followed.lock().unwrap(), 0, "a redirect was followed");
    // While the first request still hangs, the pool shrinks to nothing and grows again.
    let _: u64 = redis(&client, "DEL test:jobs").await;
    scaler.until_workers("test", 0).await;
    add_jobs(&client, "test:jobs", 5).await;
    scaler.until_workers("test", 1).await;
    assert!(scaler.log().contains("302"), "{}", scaler.log());
    assert!(!scaler.log().contains(SECRET), "{}", scaler.log());
}

#[tokio::test]
async fn a_redis_that_refuses_writes_is_reported() {
    let server = RedisServer::start();
    let client = server.client().await;
    let receiver = Receiver::start().await;
    let alerts = "alerts = [\"redis_refuses_writes\"]";
    let webhook = format!("[[notify]]\nurl = \"{}\"\nafter_seconds = 0\n{alerts}\n", receiver.url);
    let settings = format!("{FAST_SWEEP}{ALONE}{webhook}{}", full_pool());
    let scaler = Autoscaler::start(&server.url(), &settings).await;
    scaler.until_ready().await;
    let _: String = redis(&client, "CONFIG SET maxmemory 1").await;
    receiver.until_accepted("redis_refuses_writes firing").await;
    let body = receiver.shared.received.lock().unwrap()[0].1.clone();
    assert!(body["detail"].as_str().unwrap().contains("maxmemory"), "{body}");
}

/// A leader and a standby with the same webhook, and the names of both.
async fn lead_and_follow_with(server: &RedisServer, receiver: &Receiver) -> [(Autoscaler, String); 2] {
    let webhook = format!("[[notify]]\nurl = \"{}\"\nafter_seconds = 0\nper_minute = 60\n", receiver.url);
    let settings = format!("{FAST_SWEEP}leader_lease_seconds = 10\n{webhook}{}", full_pool());
    let (leader, standby) = lead_and_follow(async || Autoscaler::start(&server.url(), &settings).await).await;
    let names = (leader.status().await.instance, standby.status().await.instance);
    [(leader, names.0), (standby, names.1)]
}

#[tokio::test]
async fn of_two_autoscalers_the_one_that_leads_sends() {
    let server = RedisServer::start();
    let client = server.client().await;
    let receiver = Receiver::start().await;
    let [(mut leader, first), (standby, second)] = lead_and_follow_with(&server, &receiver).await;
    add_jobs(&client, "test:jobs", 5).await;
    receiver.until_sent_by(("pool_at_maximum", "firing"), &[&first]).await;
    standby.until("it sees the full pool", async || standby.of("test").await.desired == 1).await;
    standby.until_evaluated("test", 3).await;

    leader.signal(Signal::TERM);
    leader.exit().await;
    until_role(&standby, Role::Leader).await;
    // The new leader says that it leads, and what still holds.
    receiver.until_sent_by(("pool_at_maximum", "firing"), &[&first, &second]).await;
    let told = eventually(DEADLINE, async || receiver.senders("leader_changed", "event").contains(&second)).await;
    assert!(told, "{:?}", receiver.shared.received.lock().unwrap());
    let of_pool = receiver.accepted().into_iter().filter(|message| message == "pool_at_maximum firing").count();
    assert_eq!(of_pool, 2, "once by each while it leads");
}

/// Makes Redis refuse writes, so that nobody can lead.
const REFUSE: &str = "CONFIG SET min-replicas-to-write 1";
/// Ends [`REFUSE`].
const ACCEPT: &str = "CONFIG SET min-replicas-to-write 0";

#[tokio::test]
async fn while_nobody_leads_both_say_so_and_the_last_leader_says_why() {
    let server = RedisServer::start();
    let client = server.client().await;
    let receiver = Receiver::start().await;
    let [(leader, first), (standby, second)] = lead_and_follow_with(&server, &receiver).await;
    let both: &[&String] = &[&first, &second];

    let _: String = redis(&client, REFUSE).await;
    receiver.until_sent_by(("nobody_leads", "firing"), both).await;
    receiver.until_sent_by(("redis_refuses_writes", "firing"), &[&first]).await;
    // Longer than the interval of the signs of life: the last leader still knows of the refusal after its term.
    leader.until_evaluated("test", 6).await;
    assert!(leader.status().await.redis_refuses_writes.is_some_and(|error| error.contains("NOREPLICAS")));
    let (ready, body) = standby.readyz().await;
    assert!(!ready && body.contains("redis refuses writes: NOREPLICAS"), "{body}");
    assert_eq!(receiver.accepted().len(), 3, "{:?}", receiver.accepted());

    let _: String = redis(&client, ACCEPT).await;
    receiver.until_sent_by(("nobody_leads", "resolved"), both).await;
    let ended = async || receiver.accepted().contains(&"redis_refuses_writes resolved".to_owned());
    assert!(eventually(DEADLINE, ended).await, "{:?}", receiver.accepted());
}

#[tokio::test]
async fn a_full_redis_takes_the_lead_from_nobody() {
    let server = RedisServer::start();
    let client = server.client().await;
    let receiver = Receiver::start().await;
    let [(leader, first), (standby, _)] = lead_and_follow_with(&server, &receiver).await;
    let token = leader.status().await.leadership.token;

    let _: String = redis(&client, "CONFIG SET maxmemory 1").await;
    receiver.until_sent_by(("redis_refuses_writes", "firing"), &[&first]).await;
    // Longer than the lease: it is renewed, which takes no memory.
    for scaler in [&leader, &standby] {
        scaler.until_evaluated("test", 15).await;
    }
    assert_eq!(leader.status().await.leadership.token, token);
    assert_eq!(standby.status().await.leadership.leader.as_ref(), Some(&first));

    let _: String = redis(&client, "CONFIG SET maxmemory 0").await;
    receiver.until_sent_by(("redis_refuses_writes", "resolved"), &[&first]).await;
    assert_eq!(receiver.accepted().len(), 2, "{:?}", receiver.accepted());
}

#[tokio::test]
async fn a_reload_changes_the_webhooks_and_repeats_and_loses_no_message() {
    let server = RedisServer::start();
    let client = server.client().await;
    let [kept, gone, new] = [Receiver::start().await, Receiver::start().await, Receiver::start().await];
    // The message is retried while the configuration changes.
    kept.inject(&[Fault::Status(503); 1_000]);
    let webhook = |receiver: &Receiver, more: &str| {
        format!("[[notify]]\nurl = \"{}\"\nafter_seconds = 0\nper_minute = 60\n{more}", receiver.url)
    };
    let settings = |webhooks: &[String]| format!("{FAST_SWEEP}{ALONE}{}{}", webhooks.concat(), full_pool());
    let before = settings(&[webhook(&gone, ""), webhook(&kept, "")]);
    let scaler = Autoscaler::start(&server.url(), &before).await;
    scaler.until_ready().await;
    add_jobs(&client, "test:jobs", 3).await;
    let firing = "pool_at_maximum firing";
    gone.until_accepted(firing).await;
    kept.until_requests(1).await;

    let after = settings(&[webhook(&kept, "format = \"cloud-events\"\n"), webhook(&new, "")]);
    let reload = scaler.reload(&server.url(), &after).await;
    assert_eq!((reload.outcome, reload.changes.as_str()), (ReloadOutcome::Applied, "notify"));
    assert_eq!(reload.need_restart, [""; 0]);
    new.until_accepted(firing).await;
    kept.shared.faults.lock().unwrap().clear();
    let arrived = async || kept.shared.received.lock().unwrap().len() == 1;
    assert!(eventually(DEADLINE, arrived).await, "the message that waited has arrived");
    let (media_type, body) = kept.shared.received.lock().unwrap()[0].clone();
    assert_eq!(media_type, "application/cloudevents+json", "in the new format");
    assert_eq!(body["type"], "io.swarm.pool_at_maximum.firing");

    let _: u64 = redis(&client, "DEL test:jobs").await;
    new.until_accepted("pool_at_maximum resolved").await;
    assert!(eventually(DEADLINE, async || kept.shared.received.lock().unwrap().len() == 2).await, "it ended");
    assert_eq!((new.accepted().len(), gone.accepted()), (2, vec![firing.to_owned()]));
    assert!(!scaler.log().contains(SECRET), "{}", scaler.log());
}

fn test_messages(directory: &Path, settings: &str, more: &[&str]) -> (bool, String) {
    let file = directory.join("swarm.toml");
    std::fs::write(&file, settings).unwrap();
    let mut command = swarm(directory);
    let output = command.args(["notify", "test", "--config"]).arg(&file).args(more).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    (output.status.success(), text)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_test_says_for_each_webhook_whether_the_message_arrived() {
    let receiver = Receiver::start().await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("url");
    std::fs::write(&file, format!("{}\n", receiver.url)).unwrap();
    let settings = format!(
        "[[notify]]\nname = \"events\"\nurl_file = \"{}\"\nformat = \"cloud-events\"\n\
         [[notify]]\nname = \"chat\"\nurl = \"{}\"\nformat = \"discord\"\n[worker_types.test]\n",
        file.display(),
        receiver.url
    );
    let (ok, text) = test_messages(directory.path(), &settings, &[]);
    assert!(ok, "{text}");
    assert_eq!(text, "events: sent\nchat: sent\n");
    let messages = receiver.shared.received.lock().unwrap().clone();
    assert_eq!(messages[0].0, "application/cloudevents+json");
    assert_eq!(messages[0].1["type"], "io.swarm.test.test");
    assert!(messages[1].1["content"].as_str().unwrap().contains("swarm can send messages here"));

    receiver.inject(&[Fault::Status(404)]);
    let (ok, text) = test_messages(directory.path(), &settings, &["--name", "chat"]);
    assert!(!ok && text == "chat: webhook answered 404 Not Found\n", "{text}");
    let (ok, text) = test_messages(directory.path(), &settings, &["--name", "other"]);
    assert!(!ok && text.contains("no webhook has the name `other`"), "{text}");
    std::fs::remove_file(&file).unwrap();
    let (ok, text) = test_messages(directory.path(), &settings, &["--name", "events"]);
    assert!(!ok && text.contains("can't be read"), "{text}");
    assert!(!text.contains(SECRET), "{text}");

    let mut show = swarm(directory.path());
    let shown = show.args(["config", "show", "--config"]).arg(directory.path().join("swarm.toml")).output().unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains("chat") && !shown.contains(SECRET), "{shown}");
}

//! Tests of the stream over real sockets: the messages, the maximum number of readers, and their cost.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    time::timeout,
};

use super::{READERS, frame::SHOWN};
use crate::{
    http::tests::{MadeUpFleet, made_up_type, serve_state},
    model::{
        Reading,
        history::ScalingEvent,
        snapshot::{FleetSnapshot, StatusSource, TypeSnapshot},
    },
};

const DEADLINE: Duration = Duration::from_secs(30);

/// A fleet whose first worker type changes with each read.
struct Busy {
    types: Vec<Arc<TypeSnapshot>>,
    looks: Arc<AtomicU64>,
}

impl Busy {
    fn of(types: usize) -> (Arc<Self>, Arc<AtomicU64>) {
        let types = (0..types).map(|number| Arc::new(made_up_type(&format!("t{number:05}")))).collect();
        let looks = Arc::<AtomicU64>::default();
        (Arc::new(Self { types, looks: looks.clone() }), looks)
    }
}

impl StatusSource for Busy {
    fn fleet(&self) -> FleetSnapshot {
        let mut worker_types = self.types.clone();
        let look = self.looks.fetch_add(1, Ordering::SeqCst);
        let first = Arc::make_mut(&mut worker_types[0]);
        first.evaluations = look;
        first.demand.lag = Reading::Known(look);
        FleetSnapshot { worker_types, ..MadeUpFleet { not_ready: Vec::new() }.fleet() }
    }

    fn not_ready(&self) -> Vec<String> {
        Vec::new()
    }
}

struct Follower(BufReader<TcpStream>);

impl Follower {
    async fn start(addr: SocketAddr) -> Self {
        Self::ask(addr, "").await
    }

    async fn ask(addr: SocketAddr, query: &str) -> Self {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        let request = format!("GET /v1/stream{query} HTTP/1.1\r\nhost: localhost\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        Self(BufReader::new(stream))
    }

    async fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = timeout(DEADLINE, self.0.read_line(&mut line)).await.expect("a line comes in time").unwrap();
        (read > 0).then(|| line.trim_end().to_owned())
    }

    /// Returns the next message; `None` at the end.
    async fn message(&mut self) -> Option<Value> {
        loop {
            let line = self.line().await?;
            if let Some(data) = line.strip_prefix("data:") {
                return Some(serde_json::from_str(data).unwrap());
            }
        }
    }
}

#[tokio::test]
async fn a_reader_gets_everything_once_and_then_what_has_changed() {
    let (status, _) = Busy::of(3);
    let event = Arc::new(ScalingEvent { id: "1-0".to_owned(), ..ScalingEvent::default() });
    let server = serve_state(status, vec![event], None).await;
    let mut follower = Follower::start(server.addr).await;
    let first = follower.message().await.unwrap();
    assert_eq!((&first["first"], &first["fleet"]["totals"]["types"]), (&json!(true), &json!(3)));
    assert_eq!(first["types"].as_array().unwrap().len(), 3);
    assert_eq!(first["events"][0]["id"], "1-0");
    assert!(first["curves"].is_object(), "{first}");
    let next = follower.message().await.unwrap();
    assert_eq!(next["types"].as_array().unwrap().len(), 1, "only one has changed");
    assert!(next["types"][0]["evaluations"].as_u64() > first["types"][0]["evaluations"].as_u64());
    for absent in ["first", "events", "curves", "gone"] {
        assert!(next[absent].is_null(), "{next}");
    }
}

#[tokio::test]
async fn many_readers_cost_no_more_looks_than_one() {
    let (status, looks) = Busy::of(1);
    let server = serve_state(status, Vec::new(), None).await;
    let follow = |addr| async move {
        let mut follower = Follower::start(addr).await;
        for _ in 0..4 {
            follower.message().await.unwrap();
        }
    };
    let readers: Vec<_> = (0..READERS).map(|_| tokio::spawn(follow(server.addr))).collect();
    for reader in readers {
        reader.await.unwrap();
    }
    let (looks, messages) = (looks.load(Ordering::SeqCst), 4 * READERS as u64);
    assert!(looks * 4 < messages, "{looks} looks for {messages} messages");
}

#[tokio::test]
async fn one_reader_too_many_is_refused_and_a_free_seat_is_given_again() {
    let (status, _) = Busy::of(1);
    let server = serve_state(status, Vec::new(), None).await;
    let mut seated = Vec::new();
    for _ in 0..READERS {
        let mut follower = Follower::start(server.addr).await;
        follower.message().await.unwrap();
        seated.push(follower);
    }
    let mut refused = Follower::start(server.addr).await;
    assert_eq!(refused.line().await.unwrap(), "HTTP/1.1 503 Service Unavailable");
    seated.pop();
    let admitted = async {
        while Follower::start(server.addr).await.line().await.as_deref() != Some("HTTP/1.1 200 OK") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(DEADLINE, admitted).await.expect("the seat is free again");
}

#[tokio::test]
async fn of_many_worker_types_those_with_most_to_show_are_sent() {
    let (status, _) = Busy::of(5 * SHOWN);
    let mut lost = Busy { types: status.types.clone(), looks: Arc::default() };
    Arc::make_mut(lost.types.last_mut().unwrap()).backend_error = Some("no backend".to_owned());
    let troubled = lost.types.last().unwrap().worker_type.to_string();
    let server = serve_state(Arc::new(lost), Vec::new(), None).await;
    let mut follower = Follower::start(server.addr).await;
    follower.message().await.unwrap();
    // In the first read, the first worker type had nothing to show either.
    let server = Follower::start(server.addr).await.message().await.unwrap();
    let sent: Vec<_> = server["types"].as_array().unwrap().iter().map(|of| of["worker_type"].clone()).collect();
    assert_eq!((sent.len(), &server["fleet"]["totals"]["types"]), (SHOWN, &json!(5 * SHOWN)));
    assert!(sent.contains(&json!(troubled)) && sent.contains(&json!("t00000")), "{sent:?}");
}

#[tokio::test]
async fn a_reader_of_one_worker_type_gets_only_that_one_with_its_own_history() {
    let (status, _) = Busy::of(5 * SHOWN);
    let last = status.types.last().unwrap().worker_type.to_string();
    let event = |id: &str, of: &str| {
        Arc::new(ScalingEvent { id: id.to_owned(), worker_type: of.to_owned(), ..ScalingEvent::default() })
    };
    let server = serve_state(status, vec![event("1-0", "t00000"), event("2-0", &last)], None).await;
    // Among all it would not be shown: it has nothing to show.
    let mut follower = Follower::ask(server.addr, &format!("?type={last}")).await;
    let first = follower.message().await.unwrap();
    assert_eq!((&first["types"][0]["worker_type"], first["types"].as_array().unwrap().len()), (&json!(last), 1));
    assert_eq!((&first["events"][0]["id"], first["events"].as_array().unwrap().len()), (&json!("2-0"), 1));
    assert_eq!(first["fleet"]["totals"]["types"], json!(5 * SHOWN), "the fleet is there as for everybody");
    assert_eq!(first["first"], json!(true));

    // While somebody follows the whole fleet, another reader joins for one that changes.
    let mut all = Follower::start(server.addr).await;
    all.message().await.unwrap();
    let mut busy = Follower::ask(server.addr, "?type=t00000").await;
    for first in [true, false] {
        let message = busy.message().await.unwrap();
        assert_eq!(message["types"].as_array().unwrap().len(), 1, "{message}");
        assert_eq!((&message["types"][0]["worker_type"], message["first"] == true), (&json!("t00000"), first));
    }
}

/// A fleet whose only worker type can be taken away.
struct Fading(Arc<AtomicBool>);

impl StatusSource for Fading {
    fn fleet(&self) -> FleetSnapshot {
        let remains = !self.0.load(Ordering::SeqCst);
        let worker_types = remains.then(|| Arc::new(made_up_type("fading"))).into_iter().collect();
        FleetSnapshot { worker_types, ..MadeUpFleet { not_ready: Vec::new() }.fleet() }
    }

    fn not_ready(&self) -> Vec<String> {
        Vec::new()
    }
}

#[tokio::test]
async fn readers_are_told_that_their_worker_type_is_gone_and_unknown_ones_are_refused() {
    let gone = Arc::<AtomicBool>::default();
    let server = serve_state(Arc::new(Fading(gone.clone())), Vec::new(), None).await;
    let mut follower = Follower::ask(server.addr, "?type=fading").await;
    assert_eq!(follower.message().await.unwrap()["types"][0]["worker_type"], "fading");
    gone.store(true, Ordering::SeqCst);
    let mut told = follower.message().await.unwrap();
    while told["gone"].is_null() {
        told = follower.message().await.unwrap();
    }
    assert_eq!(told["gone"], json!(["fading"]));
    for (query, code) in [("?type=fading", "404 Not Found"), ("?typ=fading", "400 Bad Request")] {
        let mut refused = Follower::ask(server.addr, query).await;
        assert_eq!(refused.line().await.unwrap(), format!("HTTP/1.1 {code}"));
    }
}

#[tokio::test]
async fn a_stream_ends_with_the_server_at_once() {
    let (status, _) = Busy::of(1);
    let server = serve_state(status, Vec::new(), None).await;
    let mut follower = Follower::start(server.addr).await;
    follower.message().await.unwrap();
    server.cancel.cancel();
    while follower.message().await.is_some() {}
    timeout(DEADLINE, server.task).await.expect("ends in time").unwrap();
}

//! The tankpit worker as a process, playing against WebSocket servers of the test, well-behaved and otherwise.

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_tungstenite::{
    WebSocketStream, accept_async,
    tungstenite::{
        Message,
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};

use crate::support::{
    redis::RedisServer,
    wait::{DEADLINE, eventually},
    worker_process::WorkerProcess,
};

/// A place for a game, and the worker that plays there.
struct Table {
    listener: TcpListener,
    worker: WorkerProcess,
    _server: RedisServer,
}

impl Table {
    async fn set(more: &str) -> Self {
        let server = RedisServer::start();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let settings = format!("[worker_types.tankpit.tankpit]\nurl = \"ws://127.0.0.1:{port}/play\"\n{more}");
        let worker = WorkerProcess::start(&server, "tankpit", &settings).await;
        Self { listener, worker, _server: server }
    }

    /// The next connection, as a WebSocket.
    async fn accept(&self) -> WebSocketStream<TcpStream> {
        accept_async(self.listener.accept().await.unwrap().0).await.unwrap()
    }

    /// Opens session `a` and answers the game's end of it.
    async fn spawn(&self) -> WebSocketStream<TcpStream> {
        let (answer, game) = tokio::join!(self.worker.ask("a", "spawn", json!([])), self.accept());
        assert_eq!(answer.unwrap()["already_open"], json!(false));
        game
    }

    /// The report of session `a` once `fits` is true of it.
    async fn report(&self, fits: impl Fn(&Value) -> bool) -> Value {
        let mut report = Value::Null;
        let there = eventually(DEADLINE, async || {
            report = self.worker.ask("a", "status", json!([])).await.unwrap();
            fits(&report)
        });
        assert!(there.await, "not within {DEADLINE:?}; at the end: {report}");
        report
    }
}

#[tokio::test]
async fn a_session_greets_sends_counts_and_says_goodbye() {
    let table = Table::set("").await;
    let spawn = json!({ "session": "a", "kwargs": { "name": "Ann", "password": "x" } });
    let (answer, mut game) = tokio::join!(table.worker.ask_with("spawn", json!([]), spawn), table.accept());
    assert_eq!(answer.unwrap()["report"]["frames_sent"], json!(1));
    let hello = game.next().await.unwrap().unwrap();
    let hello: Value = serde_json::from_str(hello.to_text().unwrap()).unwrap();
    assert_eq!(hello, json!({ "name": "Ann", "password": "x" }));

    table.worker.ask("a", "send", json!(["left"])).await.unwrap();
    table.worker.ask("a", "send", json!([{ "fire": 1 }])).await.unwrap();
    assert_eq!(game.next().await.unwrap().unwrap(), Message::text("left"));
    assert_eq!(game.next().await.unwrap().unwrap(), Message::text(r#"{"fire":1}"#));
    game.send(Message::text("hit")).await.unwrap();
    game.send(Message::binary(vec![0, 159, 146, 150])).await.unwrap();
    let report = table.report(|report| report["frames_received"] == json!(2)).await;
    let sent = r#"{"name":"Ann","password":"x"}left{"fire":1}"#.len();
    assert_eq!((&report["bytes_received"], &report["bytes_sent"]), (&json!(7), &json!(sent)));
    assert_eq!((&report["last_text"], &report["state"]), (&json!("hit"), &json!("connected")));

    let again = table.worker.ask("a", "spawn", json!([])).await.unwrap();
    assert_eq!(again["already_open"], json!(true));
    let (stopped, goodbye) = tokio::join!(table.worker.ask("a", "stop", json!([])), async {
        let goodbye = game.next().await.unwrap().unwrap();
        // The answer to it is on its way; the end of the stream says that it was taken.
        while let Some(Ok(_)) = game.next().await {}
        goodbye
    });
    assert!(matches!(goodbye, Message::Close(Some(frame)) if frame.code == CloseCode::Normal));
    assert_eq!(stopped.unwrap()["state"], json!("ended"));
    let error = table.worker.ask("a", "send", json!(["x"])).await.unwrap_err();
    assert!(error.contains("session `a` is not open; begin with `spawn`"), "{error}");
}

#[tokio::test]
async fn a_lost_connection_is_made_again_and_greeted_again() {
    let table = Table::set("").await;
    let spawn = json!({ "session": "a", "kwargs": { "name": "Ann" } });
    let (answer, mut game) = tokio::join!(table.worker.ask_with("spawn", json!([]), spawn), table.accept());
    answer.unwrap();
    game.next().await.unwrap().unwrap();
    drop(game);
    // One that is refused in between: not a WebSocket at all.
    let (mut garbage, _) = table.listener.accept().await.unwrap();
    garbage.write_all(b"\x00\xff\x13garbage\r\n\r\n").await.unwrap();
    drop(garbage);
    let mut game = table.accept().await;
    assert_eq!(game.next().await.unwrap().unwrap(), Message::text(r#"{"name":"Ann"}"#));
    let report = table.report(|report| report["state"] == json!("connected")).await;
    assert_eq!((&report["reconnects"], &report["frames_sent"]), (&json!(1), &json!(2)));
    table.worker.ask("a", "send", json!(["still here"])).await.unwrap();
    assert_eq!(game.next().await.unwrap().unwrap(), Message::text("still here"));
}

#[tokio::test]
async fn a_final_close_code_ends_the_session_and_is_told() {
    let table = Table::set("").await;
    let mut game = table.spawn().await;
    game.close(Some(CloseFrame { code: CloseCode::Library(4_001), reason: "banned".into() })).await.unwrap();
    let report = table.report(|report| report["state"] == json!("ended")).await;
    assert_eq!(report["last_close"], json!({ "code": 4_001, "reason": "banned" }));
    let error = table.worker.ask("a", "send", json!(["x"])).await.unwrap_err();
    assert!(error.contains("session lost: the game closed the connection with code 4001 (banned)"), "{error}");
}

/// A game whose first frame is too large would end each connection in the same way.
#[tokio::test]
async fn a_frame_that_is_too_large_ends_the_session_and_names_the_setting() {
    let table = Table::set("max_frame_bytes = 1000").await;
    let mut game = table.spawn().await;
    game.send(Message::text("x".repeat(2_000))).await.unwrap();
    let report = table.report(|report| report["state"] == json!("ended")).await;
    assert_eq!((&report["reconnects"], &report["frames_received"]), (&json!(0), &json!(0)));
    let error = table.worker.ask("a", "send", json!(["x"])).await.unwrap_err();
    assert!(error.contains("2000 bytes, more than max_frame_bytes = 1000"), "{error}");
    assert!(error.contains("raise `max_frame_bytes`"), "{error}");
}

/// Takes the connection and says nothing.
#[tokio::test]
async fn who_does_not_answer_is_given_up() {
    let table = Table::set("timeout_seconds = 1").await;
    let (silent, _held) = tokio::join!(table.worker.ask("a", "spawn", json!([])), table.listener.accept());
    let error = silent.unwrap_err();
    assert!(error.contains("no answer within 1s"), "{error}");
}

/// Stops reading, and answering pings.
#[tokio::test]
async fn who_falls_asleep_is_given_up() {
    let table = Table::set("ping_seconds = 1\nmax_reconnects = 0").await;
    let _asleep = table.spawn().await;
    let report = table.report(|report| report["state"] == json!("ended")).await;
    assert!(report["last_close"]["reason"].as_str().unwrap().contains("nothing came from the game"), "{report}");
}

#[tokio::test]
async fn who_refuses_or_floods_is_given_up() {
    let table = Table::set("max_reconnects = 0\nmax_frame_bytes = 1000").await;
    let error = table.worker.ask("a", "spawn", json!(["Ann"])).await.unwrap_err();
    assert!(error.contains("takes named arguments only"), "{error}");

    // A frame that is larger than allowed.
    let mut game = table.spawn().await;
    let error = table.worker.ask("a", "send", json!(["x".repeat(1_001)])).await.unwrap_err();
    assert!(error.contains("`max_frame_bytes` is 1000"), "{error}");
    game.send(Message::text("x".repeat(2_000))).await.unwrap();
    let report = table.report(|report| report["state"] == json!("ended")).await;
    assert_eq!(report["frames_received"], json!(0));

    // Garbage in the middle of a session.
    let mut garbled = table.spawn().await;
    garbled.get_mut().write_all(&[0xff; 64]).await.unwrap();
    let report = table.report(|report| report["state"] == json!("ended")).await;
    assert!(report["last_close"]["reason"].as_str().unwrap().contains("the connection broke"), "{report}");
    let mut rest = Vec::new();
    // What it said before it hung up is of no interest, only that it did.
    let _ = garbled.get_mut().read_to_end(&mut rest).await;

    let Table { listener, worker, _server } = table;
    drop(listener);
    let error = worker.ask("a", "spawn", json!([])).await.unwrap_err();
    assert!(error.contains("could not connect to the game"), "{error}");
}

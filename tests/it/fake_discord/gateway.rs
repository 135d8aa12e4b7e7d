//! The gateway: one WebSocket for each connection.

use std::sync::Arc;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_tungstenite::{
    WebSocketStream, accept_async,
    tungstenite::{
        Message,
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};

use super::{
    APPLICATION, Shared, TOKEN,
    world::{Session, Tell, World},
};

pub(super) async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            if let Ok(socket) = accept_async(stream).await {
                let number = shared.change(|world| {
                    world.connections += 1;
                    world.connections
                });
                Connection { socket, number, shared: Arc::clone(&shared), session: None }.run().await;
                shared.change(|world| forget(world, number));
            }
        });
    }
}

/// A connection is gone: its session is kept, to be resumed.
fn forget(world: &mut World, number: usize) {
    for session in world.sessions.values_mut() {
        session.connection.take_if(|(held_by, _)| *held_by == number);
    }
}

struct Connection {
    socket: WebSocketStream<TcpStream>,
    number: usize,
    shared: Arc<Shared>,
    session: Option<String>,
}

impl Connection {
    async fn run(mut self) {
        let (told, mut tells) = mpsc::unbounded_channel();
        let interval = self.shared.world().heartbeat_ms;
        if self.send(&json!({ "op": 10, "d": { "heartbeat_interval": interval } })).await.is_none() {
            return;
        }
        loop {
            let going_on = tokio::select! {
                Some(tell) = tells.recv() => self.do_as_told(tell).await,
                message = self.socket.next() => match message {
                    Some(Ok(Message::Text(text))) => {
                        let payload = serde_json::from_str(&text).expect("the bot sends JSON");
                        self.take(&payload, &told).await
                    }
                    Some(Ok(Message::Close(frame))) => {
                        let code = frame.map_or(0, |frame| frame.code.into());
                        self.shared.change(|world| {
                            world.goodbyes.push(code);
                            // Discord forgets the session of whoever leaves like that.
                            if let (1_000 | 1_001, Some(session)) = (code, &self.session) {
                                world.sessions.remove(session);
                            }
                        });
                        None
                    }
                    Some(Ok(_)) => Some(()),
                    _ => None,
                },
            };
            if going_on.is_none() {
                // The closing handshake, if there is one.
                let _ = self.socket.flush().await;
                return;
            }
        }
    }

    async fn do_as_told(&mut self, tell: Tell) -> Option<()> {
        match tell {
            Tell::Send(payload) => self.send(&payload).await,
            Tell::Close(code) => {
                self.close(code).await;
                None
            }
            Tell::Cut => None,
        }
    }

    async fn close(&mut self, code: u16) {
        let frame = CloseFrame { code: CloseCode::from(code), reason: "as the test wants it".into() };
        let _ = self.socket.close(Some(frame)).await;
        while let Some(Ok(_)) = self.socket.next().await {}
    }

    async fn send(&mut self, payload: &Value) -> Option<()> {
        self.socket.send(Message::text(payload.to_string())).await.ok()
    }

    async fn take(&mut self, payload: &Value, told: &mpsc::UnboundedSender<Tell>) -> Option<()> {
        match payload["op"].as_u64() {
            Some(1) => {
                let acknowledges = self.shared.change(|world| {
                    world.heartbeats += 1;
                    world.acknowledges
                });
                if acknowledges { self.send(&json!({ "op": 11, "d": null })).await } else { Some(()) }
            }
            Some(2) => self.identify(&payload["d"], told).await,
            Some(6) => self.resume(&payload["d"], told).await,
            _ => Some(()),
        }
    }

    async fn identify(&mut self, data: &Value, told: &mpsc::UnboundedSender<Tell>) -> Option<()> {
        let shards = self.shared.change(|world| {
            world.identifies.push(data.clone());
            world.shards
        });
        if data["token"] != format!("Bot {TOKEN}") {
            self.close(4_004).await;
            return None;
        }
        let shard = (data["shard"][0].as_u64()?, data["shard"][1].as_u64()?);
        if shard.1 != shards {
            self.close(4_011).await;
            return None;
        }
        let ready = self.shared.change(|world| {
            let name = format!("session-{}", world.new_id());
            let gateway = world.gateway.clone();
            let ready = json!({ "op": 0, "t": "READY", "s": 1, "d": {
                "v": 10, "session_id": name, "resume_gateway_url": gateway, "guilds": [], "shard": [shard.0, shard.1],
                "user": { "id": "4243", "username": "swarm", "discriminator": "0", "avatar": null, "bot": true,
                          "mfa_enabled": true, "verified": true, "email": null, "flags": 0 },
                "application": { "id": APPLICATION.to_string(), "flags": 0 },
            } });
            let connection = Some((self.number, told.clone()));
            world
                .sessions
                .insert(name.clone(), Session { shard, events: vec![ready.clone()], connection, valid: true });
            self.session = Some(name);
            ready
        });
        self.send(&ready).await
    }

    async fn resume(&mut self, data: &Value, told: &mpsc::UnboundedSender<Tell>) -> Option<()> {
        let name = data["session_id"].as_str()?.to_owned();
        let seen = usize::try_from(data["seq"].as_u64()?).unwrap();
        let missed = self.shared.change(|world| {
            world.resumes.push(data.clone());
            let session = world.sessions.get_mut(&name).filter(|session| session.valid)?;
            session.connection = Some((self.number, told.clone()));
            let mut missed: Vec<Value> = session.events.get(seen..).unwrap_or_default().to_vec();
            missed.push(json!({ "op": 0, "t": "RESUMED", "s": session.events.len() + 1, "d": {} }));
            session.events.push(json!({ "op": 0, "t": "RESUMED", "s": session.events.len() + 1, "d": {} }));
            Some(missed)
        });
        let Some(missed) = missed else { return self.send(&json!({ "op": 9, "d": false })).await };
        self.session = Some(name);
        for event in missed {
            self.send(&event).await?;
        }
        Some(())
    }
}

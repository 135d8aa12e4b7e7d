//! What the fake knows: sessions, interactions, commands, and what is to go wrong.

use std::{collections::BTreeMap, time::Instant};

use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::{
    APPLICATION,
    interaction::{Interaction, Member},
};

/// What is to go wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Answers 429, and refuses requests to the same path for this number of seconds.
    TooMany(u64),
    /// Another status, with Discord's code.
    Status(u16, u64),
}

/// How the edge of Discord's network refuses every request: without the headers of Discord's own limits.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Refusal {
    /// JSON with `Retry-After`.
    Json,
    /// Text of the edge itself.
    Text,
    /// Discord's limit for everything together, which the library hands to nobody.
    Global,
}

/// What a gateway connection is told.
#[derive(Clone, Debug)]
pub(super) enum Tell {
    Send(Value),
    Close(u16),
    /// The connection breaks without a word.
    Cut,
}

/// A session of the gateway.
#[derive(Debug)]
pub(crate) struct Session {
    pub(super) shard: (u64, u64),
    pub(super) events: Vec<Value>,
    pub(super) connection: Option<(usize, mpsc::UnboundedSender<Tell>)>,
    pub(super) valid: bool,
}

/// Everything.
pub(crate) struct World {
    pub(super) gateway: String,
    /// The one that the API names.
    pub(super) named_gateway: String,
    /// How many shards it recommends, and insists on.
    pub(crate) shards: u64,
    pub(crate) heartbeat_ms: u64,
    /// Whether heartbeats are answered.
    pub(crate) acknowledges: bool,
    pub(crate) sessions: BTreeMap<String, Session>,
    pub(crate) identifies: Vec<Value>,
    pub(crate) resumes: Vec<Value>,
    pub(crate) heartbeats: usize,
    /// Codes with which the bot has closed connections.
    pub(crate) goodbyes: Vec<u16>,
    pub(crate) interactions: Vec<Interaction>,
    /// The commands registered globally, and in each server.
    pub(crate) commands: BTreeMap<Option<u64>, Vec<Value>>,
    pub(crate) faults: Vec<(String, String, Fault)>,
    /// Paths that are limited until then.
    pub(super) limited: BTreeMap<String, Instant>,
    /// Requests that came while they were.
    pub(crate) too_early: usize,
    /// Whether every request is refused, how, and the number of seconds that are named.
    pub(crate) refused: Option<(Refusal, u64)>,
    pub(crate) requests: Vec<String>,
    pub(super) connections: usize,
    next_id: u64,
}

impl World {
    pub(super) fn new(gateway: String) -> Self {
        Self {
            named_gateway: gateway.clone(),
            gateway,
            shards: 1,
            heartbeat_ms: 41_250,
            acknowledges: true,
            sessions: BTreeMap::new(),
            identifies: Vec::new(),
            resumes: Vec::new(),
            heartbeats: 0,
            goodbyes: Vec::new(),
            interactions: Vec::new(),
            commands: BTreeMap::new(),
            faults: Vec::new(),
            limited: BTreeMap::new(),
            too_early: 0,
            refused: None,
            requests: Vec::new(),
            connections: 0,
            next_id: 900_000,
        }
    }

    pub(super) fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// From now on the API names a gateway that nobody is at; the real one.
    pub(crate) fn name_no_gateway(&mut self) -> String {
        self.named_gateway = String::from("ws://127.0.0.1:1");
        self.gateway.clone()
    }

    /// How many sessions have a connection.
    pub(crate) fn connected(&self) -> usize {
        self.sessions.values().filter(|session| session.valid && session.connection.is_some()).count()
    }

    /// Tells every connection something.
    fn tell(&mut self, tell: &Tell) {
        for session in self.sessions.values_mut() {
            if let Some((_, connection)) = &session.connection {
                let _ = connection.send(tell.clone());
            }
        }
    }

    /// Asks for new connections.
    pub(crate) fn reconnect(&mut self) {
        self.tell(&Tell::Send(json!({ "op": 7, "d": null })));
    }

    /// Says that sessions are over.
    pub(crate) fn invalidate(&mut self) {
        self.sessions.values_mut().for_each(|session| session.valid = false);
        self.tell(&Tell::Send(json!({ "op": 9, "d": false })));
    }

    /// Closes every connection with this code.
    pub(crate) fn close(&mut self, code: u16) {
        self.tell(&Tell::Close(code));
    }

    /// Breaks every connection.
    pub(crate) fn cut(&mut self) {
        self.tell(&Tell::Cut);
    }

    /// Breaks every connection and forgets every session. From now on it recommends `shards` shards.
    pub(crate) fn start_anew(&mut self, shards: u64) {
        self.cut();
        self.shards = shards;
        self.sessions.clear();
        self.identifies.clear();
    }

    /// An event for the shard that has the server.
    fn dispatch(&mut self, guild: u64, name: &str, data: &Value) {
        let shards = self.shards;
        let of_guild = |session: &&mut Session| session.valid && session.shard.0 == (guild >> 22) % shards;
        let Some(session) = self.sessions.values_mut().filter(of_guild).last() else { return };
        let event = json!({ "op": 0, "t": name, "s": session.events.len() + 1, "d": data });
        session.events.push(event.clone());
        if let Some((_, connection)) = &session.connection {
            let _ = connection.send(Tell::Send(event));
        }
    }

    /// Somebody gives a command.
    #[expect(clippy::needless_pass_by_value, reason = "made where it is needed")]
    pub(crate) fn command(&mut self, member: &Member, command: &str, subcommand: &str, options: Value) -> usize {
        let sub = json!([{ "name": subcommand, "type": 1, "options": options }]);
        let data = json!({ "id": "77", "name": command, "type": 1, "options": sub });
        self.interact(member, 2, data, Instant::now(), 10 << 20)
    }

    /// Somebody presses a button.
    pub(crate) fn press(&mut self, member: &Member, id: &str) -> usize {
        let data = json!({ "custom_id": id, "component_type": 2, "resolved": null });
        self.interact(member, 3, data, Instant::now(), 10 << 20)
    }

    /// Somebody types into the option `type` of a command.
    pub(crate) fn typing(&mut self, member: &Member, command: &str, typed: &str) -> usize {
        let option = json!([{ "name": "type", "type": 3, "value": typed, "focused": true }]);
        let data = json!({ "id": "77", "name": "swarm", "type": 1, "options": [{ "name": command, "type": 1, "options": option }] });
        self.interact(member, 4, data, Instant::now(), 10 << 20)
    }

    /// An interaction that was made at that time, where files have that limit.
    #[expect(clippy::needless_pass_by_value, reason = "made where it is needed")]
    pub(crate) fn interact(&mut self, member: &Member, kind: u8, data: Value, created: Instant, limit: u64) -> usize {
        let (id, token) = (self.new_id(), format!("aW50ZXJhY3Rpb246{}", self.new_id()));
        let user = json!({
            "id": member.user.to_string(), "username": member.name, "discriminator": "0", "avatar": null,
            "global_name": "An n", "public_flags": 0,
        });
        let channel = member.channel.to_string();
        let mut event = json!({
            "id": id.to_string(), "application_id": APPLICATION.to_string(), "type": kind, "token": token, "version": 1,
            "channel_id": channel, "channel": { "id": channel, "type": 0 }, "data": data, "entitlements": [],
            "authorizing_integration_owners": {}, "attachment_size_limit": limit, "locale": "en-US", "context": 0,
        });
        match member.guild {
            Some(guild) => {
                let roles: Vec<_> = member.roles.iter().map(ToString::to_string).collect();
                event["guild_id"] = json!(guild.to_string());
                event["member"] = json!({
                    "user": user, "roles": roles, "permissions": member.permissions.to_string(), "deaf": false,
                    "mute": false, "flags": 0, "nick": null, "joined_at": "2020-01-01T00:00:00+00:00",
                    "communication_disabled_until": null,
                });
            }
            None => event["user"] = user,
        }
        self.interactions.push(Interaction {
            id,
            token,
            created,
            callback: None,
            reply: None,
            history: Vec::new(),
            follow_ups: Vec::new(),
            deleted: false,
        });
        self.dispatch(member.guild.unwrap_or_default(), "INTERACTION_CREATE", &event);
        self.interactions.len() - 1
    }

    /// Somebody deletes the replies that there are, also those that are yet to be edited.
    pub(crate) fn delete_replies(&mut self) {
        self.interactions.iter_mut().for_each(|one| one.deleted = true);
    }

    /// What a failure shows.
    pub(crate) fn summary(&self) -> Value {
        let shown = |one: &Interaction| {
            let history = one.history.iter().map(|message| format!("{}: {}", message.title(), message.text()));
            let history: Vec<_> = history.collect();
            json!({ "kind": one.kind(), "history": history, "follow_ups": one.follow_ups.len() })
        };
        let interactions: Vec<_> = self.interactions.iter().map(shown).collect();
        json!({
            "interactions": interactions, "connected": self.connected(), "identifies": self.identifies.len(),
            "resumes": self.resumes.len(), "requests": self.requests,
        })
    }
}

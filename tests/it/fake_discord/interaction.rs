//! Interactions: who makes them, and the replies to them.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::GUILD;

/// How long an interaction waits for its first reply.
const FIRST_REPLY: Duration = Duration::from_secs(3);
/// How long its token is good for.
const TOKEN_LIFE: Duration = Duration::from_secs(15 * 60);

/// Somebody who gives commands.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) user: u64,
    pub(crate) name: String,
    /// None: in direct messages.
    pub(crate) guild: Option<u64>,
    pub(crate) channel: u64,
    pub(crate) roles: Vec<u64>,
    pub(crate) permissions: u64,
}

impl Member {
    /// An ordinary member of the server.
    pub(crate) fn user() -> Self {
        let name = "ann".to_owned();
        Self { user: 501, name, guild: Some(GUILD), channel: 701, roles: vec![601], permissions: 1 << 11 }
    }

    /// One with the permission "Administrator".
    pub(crate) fn administrator() -> Self {
        Self { user: 502, name: "eve.admin".to_owned(), permissions: 1 << 3, ..Self::user() }
    }
}

/// Options of a command.
pub(crate) fn text(name: &str, value: &str) -> Value {
    json!({ "name": name, "type": 3, "value": value })
}

pub(crate) fn number(name: &str, value: i64) -> Value {
    json!({ "name": name, "type": 4, "value": value })
}

pub(crate) fn flag(name: &str, value: bool) -> Value {
    json!({ "name": name, "type": 5, "value": value })
}

/// A message as it was sent.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Message {
    pub(crate) body: Value,
    /// Attached files, by name.
    pub(crate) files: BTreeMap<String, Vec<u8>>,
}

impl Message {
    pub(crate) fn title(&self) -> &str {
        self.body["embeds"][0]["title"].as_str().unwrap_or_default()
    }

    pub(crate) fn text(&self) -> &str {
        self.body["embeds"][0]["description"].as_str().unwrap_or_default()
    }

    /// The value of a field of its embed.
    pub(crate) fn field(&self, name: &str) -> &str {
        let fields = self.body["embeds"][0]["fields"].as_array();
        let found = fields.into_iter().flatten().find(|field| field["name"] == name);
        found.and_then(|field| field["value"].as_str()).unwrap_or_default()
    }

    /// The ids of its buttons.
    pub(crate) fn buttons(&self) -> Vec<&str> {
        let rows = self.body["components"].as_array().into_iter().flatten();
        rows.flat_map(|row| row["components"].as_array().into_iter().flatten())
            .filter_map(|button| button["custom_id"].as_str())
            .collect()
    }

    pub(crate) fn is_private(&self) -> bool {
        self.body["flags"].as_u64().is_some_and(|flags| flags & 64 != 0)
    }
}

/// An interaction and its replies.
#[derive(Clone, Debug)]
pub(crate) struct Interaction {
    pub(crate) id: u64,
    pub(crate) token: String,
    pub(crate) created: Instant,
    /// The callback, and when it came.
    pub(crate) callback: Option<(Value, Duration)>,
    /// The reply as it is now; none while it is deferred.
    pub(crate) reply: Option<Message>,
    /// As it has been, oldest first.
    pub(crate) history: Vec<Message>,
    pub(crate) follow_ups: Vec<Message>,
    /// Whether somebody has deleted the reply.
    pub(crate) deleted: bool,
}

impl Interaction {
    pub(crate) fn is_known(&self) -> bool {
        self.callback.is_some() || self.created.elapsed() <= FIRST_REPLY
    }

    pub(super) fn takes_replies(&self) -> bool {
        self.callback.is_some() && self.created.elapsed() <= TOKEN_LIFE
    }

    /// What was said first: the type of the callback.
    pub(crate) fn kind(&self) -> Option<u64> {
        self.callback.as_ref().and_then(|(body, _)| body["type"].as_u64())
    }
}

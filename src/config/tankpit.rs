//! Settings of tankpit workers: the address of the game, and how its connections are kept open.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::Url;

/// `[worker_types.NAME.tankpit]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TankpitSettings {
    /// URL of the game's WebSocket: `ws://` or `wss://` (TLS). `""`: none, and `spawn` fails.
    pub url: String,
    /// Maximum open sessions of one worker.
    #[schemars(range(min = 1, max = 10_000))]
    pub max_sessions: usize,
    /// Maximum seconds for connecting, and for sending one frame.
    #[schemars(range(min = 1, max = 600))]
    pub timeout_seconds: u64,
    /// Seconds between pings. A connection on which nothing arrives for two intervals is given up.
    #[schemars(range(min = 1, max = 3_600))]
    pub ping_seconds: u64,
    /// Maximum consecutive attempts to reopen a lost connection. The first follows after about a second; each further
    /// wait is twice as long, up to a minute. 0: never.
    #[schemars(range(max = 1_000))]
    pub max_reconnects: usize,
    /// Largest frame to send or accept, in bytes.
    #[schemars(range(min = 1, max = 16_777_216))]
    pub max_frame_bytes: usize,
}

super::section::defaults!(TankpitSettings);

impl Default for TankpitSettings {
    fn default() -> Self {
        Self {
            url: String::new(),
            max_sessions: 64,
            timeout_seconds: 10,
            ping_seconds: 20,
            max_reconnects: 10,
            max_frame_bytes: 1 << 16,
        }
    }
}

impl TankpitSettings {
    /// Returns `timeout_seconds` as a duration.
    pub fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout_seconds)
    }

    /// Returns `ping_seconds` as a duration.
    pub fn ping(&self) -> Duration {
        Duration::from_secs(self.ping_seconds)
    }

    /// Returns the problems that a schema can't express, each with its key.
    pub(super) fn problems(&self) -> Vec<(&'static str, String)> {
        let fits = |url: Url| matches!(url.scheme(), "ws" | "wss") && url.has_host();
        if self.url.is_empty() || Url::parse(&self.url).is_ok_and(fits) {
            return Vec::new();
        }
        vec![("url", "not the URL of a WebSocket; write ws://HOST[:PORT]/PATH, or wss:// for TLS".to_owned())]
    }
}

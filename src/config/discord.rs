//! `[discord]`: the bot's users, its limits, and the addresses of Discord. The token is not a setting: it comes from
//! `DISCORD_TOKEN` or from `token_file`.

use std::{net::SocketAddr, num::NonZeroU64, path::PathBuf, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::Url;

use crate::model::WorkerType;

/// `[discord]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DiscordSettings {
    /// File that contains the bot's token, for secrets mounted as files. Overrides `DISCORD_TOKEN`.
    pub token_file: Option<PathBuf>,
    /// Ids of the servers ("guilds") in which the bot may be used. Its commands are available there immediately. Empty:
    /// every server that the bot is in, and no operator by permission.
    pub guilds: Vec<String>,
    /// Ids of the roles that may use `/web`. Empty: every member.
    pub user_roles: Vec<String>,
    /// Ids of the roles that may use `/swarm` and `/web closeall`.
    pub operator_roles: Vec<String>,
    /// Discord permission that also makes an operator, in one of `guilds`.
    pub operator_permission: OperatorPermission,
    /// Worker type that drives browsers.
    pub browser_type: String,
    /// Seconds after which a reply says why there is no answer yet. The bot continues to wait.
    #[schemars(range(min = 1, max = 840))]
    pub answer_seconds: u64,
    /// Seconds after which the bot stops waiting for an answer, and a job that no worker has started is not started any
    /// more. Discord accepts replies for 15 minutes.
    #[schemars(range(min = 1, max = 870))]
    pub give_up_seconds: u64,
    /// Whether to show the page after each action.
    pub screenshots: bool,
    /// Maximum commands of one person per minute.
    #[schemars(range(min = 1, max = 6_000))]
    pub user_per_minute: u32,
    /// Maximum commands in one channel per minute.
    #[schemars(range(min = 1, max = 6_000))]
    pub channel_per_minute: u32,
    /// Maximum browsers that one person has open, in all servers together; `/web start` refuses more. 0: unlimited.
    #[schemars(range(max = 10_000))]
    pub max_user_sessions: u32,
    /// Maximum browsers open in one server; `/web start` refuses more. 0: unlimited.
    #[schemars(range(max = 10_000))]
    pub max_guild_sessions: u32,
    /// Maximum commands in progress at the same time; more are refused.
    #[schemars(range(min = 1, max = 10_000))]
    pub max_under_way: usize,
    /// Address of the autoscaler's HTTP server, for `/swarm status` and `/swarm why`: `http://HOST:PORT`. Default: that
    /// of `http.listen`, on this machine.
    pub status_url: Option<String>,
    /// Address and port of the bot's own `/metrics` and `/healthz`; port 0 picks a free port. `""`: none.
    pub metrics_listen: String,
    /// Address of Discord's REST API, if there is a proxy in front of it: `https://HOST` or, without TLS,
    /// `http://HOST:PORT`. The token is sent there.
    pub api_url: String,
    /// Address of Discord's gateway, if there is a proxy in front of it: `wss://HOST` or `ws://HOST:PORT`. Default: the
    /// address that the API returns.
    pub gateway_url: Option<String>,
}

/// A permission of Discord that makes an operator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OperatorPermission {
    /// The permission "Administrator".
    #[default]
    Administrator,
    /// The permission "Manage Server", which administrators have too.
    ManageServer,
    /// No permission: operators need a role.
    None,
}

impl Default for DiscordSettings {
    fn default() -> Self {
        Self {
            token_file: None,
            guilds: Vec::new(),
            user_roles: Vec::new(),
            operator_roles: Vec::new(),
            operator_permission: OperatorPermission::default(),
            browser_type: "browser".to_owned(),
            answer_seconds: 120,
            give_up_seconds: 870,
            screenshots: true,
            user_per_minute: 20,
            channel_per_minute: 60,
            max_user_sessions: 5,
            max_guild_sessions: 20,
            max_under_way: 200,
            status_url: None,
            metrics_listen: String::new(),
            api_url: "https://discord.com".to_owned(),
            gateway_url: None,
        }
    }
}

impl DiscordSettings {
    /// Returns `answer_seconds` as a duration.
    pub fn answer(&self) -> Duration {
        Duration::from_secs(self.answer_seconds)
    }

    /// Returns `give_up_seconds` as a duration.
    pub fn give_up(&self) -> Duration {
        Duration::from_secs(self.give_up_seconds)
    }

    /// Returns the problems of the table, each with its key.
    pub(super) fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        let ids =
            [("guilds", &self.guilds), ("user_roles", &self.user_roles), ("operator_roles", &self.operator_roles)];
        for (key, ids) in ids {
            if let Some(id) = ids.iter().find(|id| id.parse::<NonZeroU64>().is_err()) {
                problems.push((key, format!("{id:?} is no id; with Discord's developer mode on, \"Copy ID\" gives one such as \"81384788765712384\"")));
            }
        }
        if !WorkerType::is_valid(&self.browser_type) {
            problems.push(("browser_type", format!("{:?} can't name a worker type", self.browser_type)));
        }
        let urls = [
            ("status_url", self.status_url.as_deref(), ["http", "http"], "http://127.0.0.1:9000"),
            ("api_url", Some(self.api_url.as_str()), ["https", "http"], "https://discord.com"),
            ("gateway_url", self.gateway_url.as_deref(), ["wss", "ws"], "wss://gateway.discord.gg"),
        ];
        for (key, url, schemes, example) in urls {
            if url.is_some_and(|url| !is_origin(url, &schemes)) {
                let cure = "expected a scheme, a host, perhaps a port, and nothing more";
                problems.push((key, format!("{cure}, such as {example:?}")));
            }
        }
        if !self.metrics_listen.is_empty() && self.metrics_listen.parse::<SocketAddr>().is_err() {
            problems.push((
                "metrics_listen",
                "expected ADDRESS:PORT such as \"127.0.0.1:9001\" (a numeric address, no host name), or \"\" for none"
                    .to_owned(),
            ));
        }
        problems
    }
}

/// Returns whether the text names a server, without a path or query.
fn is_origin(text: &str, schemes: &[&str]) -> bool {
    Url::parse(text).is_ok_and(|url| {
        let bare = url.username().is_empty() && url.password().is_none() && url.query().is_none();
        schemes.contains(&url.scheme()) && url.has_host() && bare && matches!(url.path(), "" | "/")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_name_the_key() {
        let settings = DiscordSettings {
            guilds: vec!["81384788765712384".to_owned(), "my server".to_owned()],
            user_roles: vec!["0".to_owned()],
            browser_type: "Browser".to_owned(),
            status_url: Some("127.0.0.1:9000".to_owned()),
            api_url: "https://user:secret@host".to_owned(),
            gateway_url: Some("wss://host/path".to_owned()),
            metrics_listen: "localhost:1".to_owned(),
            ..DiscordSettings::default()
        };
        let problems = settings.problems();
        let keys: Vec<&str> = problems.iter().map(|(key, _)| *key).collect();
        assert_eq!(
            keys,
            ["guilds", "user_roles", "browser_type", "status_url", "api_url", "gateway_url", "metrics_listen"]
        );
        assert!(problems.iter().all(|(_, problem)| !problem.contains("secret")));
        assert_eq!(DiscordSettings::default().problems(), []);
    }
}

//! The browser session of each channel. Pure.

use super::access::Caller;

/// Prefix of the names of sessions that belong to Discord channels.
const PREFIX: &str = "discord";

/// Returns the session of the caller's channel: `discord:SERVER:CHANNEL`.
pub(super) fn of_channel(caller: &Caller) -> String {
    format!("{}{}", of_guild(caller), caller.channel)
}

/// Returns the prefix of all sessions of the caller's server.
pub(super) fn of_guild(caller: &Caller) -> String {
    format!("{PREFIX}:{}:", caller.guild.unwrap_or_default())
}

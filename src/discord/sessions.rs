//! Which browser session belongs to whom: one for each channel. Pure.

use super::access::Caller;

/// What the names of sessions begin with that belong to channels of Discord.
const PREFIX: &str = "discord";

/// The session of the caller's channel: `discord:SERVER:CHANNEL`.
pub(super) fn of_channel(caller: &Caller) -> String {
    format!("{}{}", of_guild(caller), caller.channel)
}

/// What the names of all sessions of the caller's server begin with.
pub(super) fn of_guild(caller: &Caller) -> String {
    format!("{PREFIX}:{}:", caller.guild.unwrap_or_default())
}

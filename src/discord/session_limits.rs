//! Limits of open browsers: per person, in all servers together, and per server. The count is in Redis, where several
//! bots and a restarted one find it.

use std::time::Duration;

use super::{
    access::Caller,
    context::CommandContext,
    markup::Markup,
    reply::{Reply, Tone},
    sessions,
};
use crate::broker::{AdmittedSession, CallError, SessionAdmission, SessionOpening, SessionState};

/// Maximum channels that a refusal names: as many as a person reads.
const NAMED: usize = 10;

/// Why a browser is not opened.
pub(super) enum NotOpened {
    /// A limit is reached.
    Limited(Reply),
    /// Redis can't be asked.
    Failed(CallError),
}

impl From<CallError> for NotOpened {
    fn from(error: CallError) -> Self {
        Self::Failed(error)
    }
}

/// Notes that the caller is going to open the browser of their channel within that time. Returns the note; `None` if
/// none is needed, because nothing is limited or the browser is open.
pub(super) async fn admit(
    context: &CommandContext,
    caller: &Caller,
    within: Duration,
) -> Result<Option<AdmittedSession>, NotOpened> {
    let discord = &context.settings.discord;
    if discord.max_user_sessions == 0 && discord.max_guild_sessions == 0 {
        return Ok(None);
    }
    let (session, group, opener) = (sessions::of_channel(caller), sessions::of_guild(caller), caller.user.to_string());
    if let SessionState::Open(_) = context.client.session(&context.worker_type, &session).await? {
        return Ok(None);
    }
    let opening = SessionOpening {
        session: &session,
        opener: &opener,
        group: &group,
        max_of_opener: discord.max_user_sessions,
        max_of_group: discord.max_guild_sessions,
        within,
    };
    match context.client.admit_session(&context.worker_type, opening).await? {
        SessionAdmission::Admitted(admitted) => Ok(Some(admitted)),
        SessionAdmission::OpenerLimit(open) => {
            let here = open.iter().filter_map(|session| session.strip_prefix(&group)?.parse().ok());
            Err(NotOpened::Limited(of_user(discord.max_user_sessions, &here.collect::<Vec<u64>>())))
        }
        SessionAdmission::GroupLimit => Err(NotOpened::Limited(of_guild(discord.max_guild_sessions))),
    }
}

/// Notes that the browser is open now, or was not opened: from now on it counts while it is open. Without this note it
/// counts as open until its job can't be started any more.
pub(super) async fn settle(context: &CommandContext, admitted: &AdmittedSession) {
    if let Err(error) = context.client.settle_session(&context.worker_type, admitted).await {
        tracing::debug!(%error, "a browser counts as open for longer than it is");
    }
}

fn of_user(limit: u32, here: &[u64]) -> Reply {
    let text =
        Markup::ours("You have ").and_number(limit).and(" browsers open, as many as one person may. Close one with ");
    let mut text = text.and_code("/web close").and(" in its channel");
    for (number, channel) in here.iter().take(NAMED).enumerate() {
        text = text.and(if number == 0 { ": <#" } else { ", <#" }).and_number(*channel).and(">");
    }
    let text = text.and(". Whoever runs the bot sets the limit, ").and_code("discord.max_user_sessions").and(".");
    Reply::new(Tone::Bad, "Too many browsers").with_text(text)
}

fn of_guild(limit: u32) -> Reply {
    let text =
        Markup::ours("This server has ").and_number(limit).and(" browsers open, as many as it may. Close one with ");
    let text = text.and_code("/web close").and(" in its channel; operators close all with ").and_code("/web closeall");
    let text = text.and(". Whoever runs the bot sets the limit, ").and_code("discord.max_guild_sessions").and(".");
    Reply::new(Tone::Bad, "Too many browsers").with_text(text)
}

//! Dispatches commands: checks the caller's rights and rate, replies within three seconds, and runs each command to its
//! end. Owns the tasks that do so.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;
use twilight_http::Client as Http;
use twilight_model::application::interaction::Interaction;

use super::{
    access::{Access, Caller, Rank},
    ask::Ask,
    cancelling,
    context::{CommandContext, CommandReport, first_reply},
    conversation::{Audience, Conversation},
    limits::{Limits, TooMany},
    markup::Markup,
    operate,
    reply::{Reply, Tone},
    web,
    what::What,
};
use crate::{
    config::Settings,
    connection::RedisTarget,
    egress::AddressRule,
    telemetry::{CommandAnswered, CommandOutcome},
};

/// Maximum refusals in progress while all slots are taken; beyond them no reply is sent.
const REFUSALS: usize = 64;
/// Time that commands have to report that the bot is being stopped.
const GOODBYE: Duration = Duration::from_secs(10);

/// Dispatches commands, and runs each to its end.
pub(super) struct Dispatcher {
    context: CommandContext,
    http: Arc<Http>,
    access: Access,
    limits: Limits,
    slots: Arc<Semaphore>,
    refusals: Arc<Semaphore>,
    tasks: TaskTracker,
}

impl Dispatcher {
    pub(super) fn new(
        settings: Arc<Settings>,
        redis: RedisTarget,
        http: Arc<Http>,
        access: Access,
        rule: AddressRule,
    ) -> Self {
        let discord = &settings.discord;
        Self {
            http,
            access,
            limits: Limits::new(discord),
            slots: Arc::new(Semaphore::new(discord.max_under_way)),
            refusals: Arc::new(Semaphore::new(REFUSALS)),
            tasks: TaskTracker::new(),
            context: CommandContext::new(settings, redis, rule),
        }
    }

    /// Dispatches an interaction; returns immediately.
    pub(super) fn take(self: &Arc<Self>, interaction: Interaction) {
        let Some(ask) = Ask::read(interaction, Instant::now()) else { return };
        let dispatcher = Arc::clone(self);
        if let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() {
            self.tasks.spawn(async move {
                dispatcher.see_to(ask).await;
                drop(slot);
            });
        } else if let Ok(slot) = Arc::clone(&self.refusals).try_acquire_owned() {
            self.tasks.spawn(async move {
                dispatcher.refuse_busy(ask).await;
                drop(slot);
            });
        }
    }

    /// Lets commands in progress report that the bot stops, and waits until they have.
    pub(super) async fn close(&self) {
        self.context.stop.cancel();
        self.tasks.close();
        if tokio::time::timeout(GOODBYE, self.tasks.wait()).await.is_err() {
            tracing::warn!(commands = self.tasks.len(), "commands are given up without a last word");
        }
    }

    async fn see_to(&self, ask: Ask) {
        let conversation = Conversation::new(Arc::clone(&self.http), &ask, self.context.settings.discord.give_up());
        let Ask { caller, what, .. } = ask;
        if let What::Suggest(typed) = what {
            return self.suggest(&conversation, &caller, &typed).await;
        }
        let command = what.name();
        let outcome = match self.refusal(&caller, &what) {
            Some((reply, outcome)) => self.refuse(&conversation, &reply, outcome).await,
            None => self.carry_out(&conversation, &caller, what).await,
        };
        tell(command, &caller, &conversation, &outcome);
    }

    async fn carry_out(&self, conversation: &Conversation, caller: &Caller, what: What) -> CommandReport {
        match what {
            What::Web(web) => web::carry_out(&self.context, conversation, caller, web).await,
            What::Swarm(swarm) => operate::command(&self.context, conversation, caller, swarm).await,
            What::Cancel(job) => cancelling::press(&self.context, &self.access, conversation, caller, &job).await,
            What::Unknown | What::Suggest(_) => {
                let reply = Reply::new(Tone::Bad, "Not understood").with_text(Markup::ours(
                    "This bot does not know that. Discord may show commands of another version for a while after an update.",
                ));
                self.refuse(conversation, &reply, CommandOutcome::Refused).await
            }
        }
    }

    /// Suggests names while the user types; none to a user without the right to know them. Each keystroke is a request,
    /// so suggestions are neither counted nor logged.
    async fn suggest(&self, conversation: &Conversation, caller: &Caller, typed: &str) {
        let names = match self.access.check(caller, Rank::Operator) {
            Ok(()) => operate::suggestions(&self.context.settings, typed),
            Err(_) => Vec::new(),
        };
        if let Err(error) = conversation.suggest(names).await {
            tracing::debug!("names could not be offered: {error}");
        }
    }

    /// Returns why a command is refused; `None` if it is started.
    fn refusal(&self, caller: &Caller, what: &What) -> Option<(Reply, CommandOutcome)> {
        if let Err(denied) = self.access.check(caller, what.rank()) {
            let reply = Reply::new(Tone::Bad, "Not allowed").with_text(Markup::text(&denied.to_string()));
            return Some((reply, CommandOutcome::Refused));
        }
        if let Err(too_many) = self.limits.count(caller) {
            return Some((too_many_words(too_many), CommandOutcome::Limited));
        }
        let What::Web(web) = what else { return None };
        web::refusal(&self.context, web).map(|reply| (reply, CommandOutcome::Refused))
    }

    async fn refuse(&self, conversation: &Conversation, reply: &Reply, outcome: CommandOutcome) -> CommandReport {
        match first_reply(conversation, conversation.answer(reply, Audience::Caller)).await {
            Ok(()) => CommandReport::new(outcome),
            Err(missed) => missed,
        }
    }

    async fn refuse_busy(&self, ask: Ask) {
        let conversation = Conversation::new(Arc::clone(&self.http), &ask, self.context.settings.discord.give_up());
        let text = Markup::ours("As many commands are under way as the bot takes. Try again in a moment.");
        let reply = Reply::new(Tone::Bad, "Busy").with_text(text);
        let outcome = self.refuse(&conversation, &reply, CommandOutcome::Limited).await;
        tell(ask.what.name(), &ask.caller, &conversation, &outcome);
    }
}

fn too_many_words(too_many: TooMany) -> Reply {
    let (who, wait) = match too_many {
        TooMany::User(wait) => ("You have given as many commands as one person may in a minute.", wait),
        TooMany::Channel(wait) => ("In this channel as many commands were given as may be in a minute.", wait),
    };
    let text = Markup::ours(who).and(" Try again in ").and_number(wait.as_secs() + 1).and(" s.");
    Reply::new(Tone::Bad, "Too many commands").with_text(text)
}

fn tell(command: &'static str, caller: &Caller, conversation: &Conversation, outcome: &CommandReport) {
    let (user, channel) = (format!("{} ({})", caller.name.escape_debug(), caller.user), caller.channel.to_string());
    CommandAnswered {
        command,
        outcome: outcome.outcome,
        elapsed: conversation.elapsed(),
        user: &user,
        channel: &channel,
        detail: &outcome.detail,
    }
    .emit();
}

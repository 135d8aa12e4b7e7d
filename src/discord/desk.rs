//! Where commands arrive: checks who asks and how often, replies within three seconds, and sees each to its end. Owns the
//! tasks that do so.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use twilight_http::Client as Http;
use twilight_model::application::interaction::Interaction;

use super::{
    access::{Access, Caller, Rank},
    ask::Ask,
    conversation::{Audience, Conversation, Undelivered},
    limits::{Limits, TooMany},
    markup::Markup,
    operate,
    reply::{Reply, Tone},
    web,
    what::What,
};
use crate::{
    broker::Client,
    config::Settings,
    connection::RedisTarget,
    egress::AddressRule,
    model::WorkerType,
    operations::{
        OverrideService as Orders,
        status_client::{NoAddress, url_of},
    },
    telemetry::{CommandAcknowledged, CommandAnswered, CommandOutcome},
};

/// Refusals under way at the same time when everything else is at its limit; beyond them nobody is answered.
const REFUSALS: usize = 64;
/// How long commands may take to tell that the bot is being stopped.
const GOODBYE: Duration = Duration::from_secs(10);

/// What every command may use.
pub(super) struct Desk {
    pub(super) settings: Arc<Settings>,
    pub(super) client: Client,
    pub(super) redis: RedisTarget,
    /// The worker type that drives browsers.
    pub(super) worker_type: WorkerType,
    /// Where its pages may go.
    pub(super) rule: AddressRule,
    /// Takes orders.
    pub(super) orders: Orders<Settings>,
    /// Where the autoscaler shows its status.
    pub(super) status_url: Result<String, NoAddress>,
    /// Cancelled when the bot is to stop.
    pub(super) stop: CancellationToken,
    http: Arc<Http>,
    access: Access,
    limits: Limits,
    slots: Arc<Semaphore>,
    refusals: Arc<Semaphore>,
    tasks: TaskTracker,
}

/// What became of a command, and what is worth knowing besides.
pub(super) struct Outcome {
    pub(super) outcome: CommandOutcome,
    pub(super) detail: String,
}

impl Outcome {
    pub(super) fn new(outcome: CommandOutcome) -> Self {
        Self { outcome, detail: String::new() }
    }

    /// What a delivery ended with.
    pub(super) fn of_delivery(delivered: Result<(), Undelivered>, outcome: CommandOutcome) -> Self {
        match delivered {
            Ok(()) => Self::new(outcome),
            Err(error) => Self { outcome: CommandOutcome::Undelivered, detail: error.to_string() },
        }
    }
}

impl Desk {
    pub(super) fn new(
        settings: Arc<Settings>,
        redis: RedisTarget,
        http: Arc<Http>,
        access: Access,
        rule: AddressRule,
    ) -> Self {
        let discord = &settings.discord;
        let status_url = match &discord.status_url {
            Some(url) => Ok(url.clone()),
            None => url_of(&settings.http.listen),
        };
        Self {
            client: Client::new(Arc::clone(&settings), redis.clone()),
            orders: Orders::new(Arc::new(redis.clone()), Arc::clone(&settings), settings.scaler.events_max_len),
            redis,
            worker_type: WorkerType::new(discord.browser_type.as_str()),
            rule,
            status_url,
            stop: CancellationToken::new(),
            http,
            access,
            limits: Limits::new(discord),
            slots: Arc::new(Semaphore::new(discord.max_under_way)),
            refusals: Arc::new(Semaphore::new(REFUSALS)),
            tasks: TaskTracker::new(),
            settings,
        }
    }

    /// Takes an interaction; returns at once.
    pub(super) fn take(self: &Arc<Self>, interaction: Interaction) {
        let Some(ask) = Ask::read(interaction, Instant::now()) else { return };
        let desk = Arc::clone(self);
        if let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() {
            self.tasks.spawn(async move {
                desk.see_to(ask).await;
                drop(slot);
            });
        } else if let Ok(slot) = Arc::clone(&self.refusals).try_acquire_owned() {
            self.tasks.spawn(async move {
                desk.refuse_busy(ask).await;
                drop(slot);
            });
        }
    }

    /// Lets commands that are under way say that the bot stops, and waits until they have.
    pub(super) async fn close(&self) {
        self.stop.cancel();
        self.tasks.close();
        if tokio::time::timeout(GOODBYE, self.tasks.wait()).await.is_err() {
            tracing::warn!(commands = self.tasks.len(), "commands are given up without a last word");
        }
    }

    async fn see_to(&self, ask: Ask) {
        let conversation = Conversation::new(Arc::clone(&self.http), &ask, self.settings.discord.give_up());
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

    async fn carry_out(&self, conversation: &Conversation, caller: &Caller, what: What) -> Outcome {
        match what {
            What::Web(web) => web::carry_out(self, conversation, caller, web).await,
            What::Swarm(swarm) => operate::command(self, conversation, caller, swarm).await,
            What::Press(press) => operate::press(self, conversation, caller, press).await,
            What::Unknown | What::Suggest(_) => {
                let reply = Reply::new(Tone::Bad, "Not understood").with_text(Markup::ours(
                    "This bot does not know that. Discord may show commands of another version for a while after an update.",
                ));
                self.refuse(conversation, &reply, CommandOutcome::Refused).await
            }
        }
    }

    /// Offers names to somebody who is typing; none to who may not know them. Each key is a question, so it is neither counted
    /// nor told.
    async fn suggest(&self, conversation: &Conversation, caller: &Caller, typed: &str) {
        let names = match self.access.check(caller, Rank::Operator) {
            Ok(()) => operate::suggestions(&self.settings, typed),
            Err(_) => Vec::new(),
        };
        if let Err(error) = conversation.suggest(names).await {
            tracing::debug!("names could not be offered: {error}");
        }
    }

    /// Why it is not even begun, if it is not.
    fn refusal(&self, caller: &Caller, what: &What) -> Option<(Reply, CommandOutcome)> {
        if let Err(denied) = self.access.check(caller, what.rank()) {
            let reply = Reply::new(Tone::Bad, "Not allowed").with_text(Markup::text(&denied.to_string()));
            return Some((reply, CommandOutcome::Refused));
        }
        if let Err(too_many) = self.limits.count(caller) {
            return Some((too_many_words(too_many), CommandOutcome::Limited));
        }
        let What::Web(web) = what else { return None };
        web::refusal(self, web).map(|reply| (reply, CommandOutcome::Refused))
    }

    async fn refuse(&self, conversation: &Conversation, reply: &Reply, outcome: CommandOutcome) -> Outcome {
        match self.first(conversation, conversation.answer(reply, Audience::Caller)).await {
            Ok(()) => Outcome::new(outcome),
            Err(missed) => missed,
        }
    }

    async fn refuse_busy(&self, ask: Ask) {
        let conversation = Conversation::new(Arc::clone(&self.http), &ask, self.settings.discord.give_up());
        let text = Markup::ours("As many commands are under way as the bot takes. Try again in a moment.");
        let reply = Reply::new(Tone::Bad, "Busy").with_text(text);
        let outcome = self.refuse(&conversation, &reply, CommandOutcome::Limited).await;
        tell(ask.what.name(), &ask.caller, &conversation, &outcome);
    }

    /// Sends the first reply. If Discord does not take it, nothing more is to be done.
    pub(super) async fn first(
        &self,
        conversation: &Conversation,
        sending: impl Future<Output = Result<(), Undelivered>>,
    ) -> Result<(), Outcome> {
        match sending.await {
            Ok(()) => {
                CommandAcknowledged { elapsed: conversation.elapsed() }.emit();
                Ok(())
            }
            Err(error) => Err(Outcome { outcome: CommandOutcome::Missed, detail: error.to_string() }),
        }
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

fn tell(command: &'static str, caller: &Caller, conversation: &Conversation, outcome: &Outcome) {
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

//! `/web …`: the channel's browser, through the jobs of browser workers (`docs/browser.md`).

use base64::{Engine, prelude::BASE64_STANDARD};
use futures_util::{StreamExt, stream};
use serde_json::{Map, Value, json};

use super::{
    access::Caller,
    cancelling,
    context::{CommandContext, CommandReport, first_reply},
    conversation::{Audience, Conversation, Undelivered},
    markup::Markup,
    reply::{Reply, Tone},
    session_limits::{self, NotOpened},
    sessions,
    waiting::{Waited, ask},
    what::Web,
};
use crate::{
    broker::{AdmittedSession, CallError, Job, SessionState},
    egress::{check_written, page_url},
    telemetry::CommandOutcome,
};

/// Maximum sessions that are closed at the same time.
const CLOSED_AT_ONCE: usize = 16;

impl Web {
    /// Returns the method of the worker that carries it out, and its arguments.
    fn job(&self) -> (&'static str, Vec<Value>) {
        match self {
            Self::Start { url } => ("start", url.iter().map(|url| json!(url)).collect()),
            Self::Open { url } => ("goto", vec![json!(url)]),
            Self::Click { selector } => ("click", vec![json!(selector)]),
            Self::Fill { selector, text } => ("fill", vec![json!(selector), json!(text)]),
            Self::Screenshot { full_page } => ("screenshot", vec![json!(full_page)]),
            Self::Status => ("status", Vec::new()),
            Self::Close | Self::CloseAll => ("close", Vec::new()),
        }
    }

    /// Returns whether the command can change the page.
    fn shows_a_page(&self) -> bool {
        matches!(self, Self::Start { url: Some(_) } | Self::Open { .. } | Self::Click { .. } | Self::Fill { .. })
    }
}

/// Returns why a command is refused, as far as that is known without asking Redis.
pub(super) fn refusal(context: &CommandContext, web: &Web) -> Option<Reply> {
    let (Web::Start { url: Some(text) } | Web::Open { url: text }) = web else { return None };
    let checked = page_url(text).and_then(|url| check_written(&url, &context.rule));
    let problem = checked.err()?;
    let text = Markup::ours("The address must be ").and_text(&problem.to_string());
    Some(Reply::new(Tone::Bad, "No such page").with_text(text))
}

/// Carries out a command.
pub(super) async fn carry_out(
    context: &CommandContext,
    conversation: &Conversation,
    caller: &Caller,
    web: Web,
) -> CommandReport {
    if let Err(missed) = first_reply(conversation, conversation.defer(Audience::Everyone)).await {
        return missed;
    }
    if web == Web::CloseAll {
        return close_all(context, conversation, caller).await;
    }
    let session = sessions::of_channel(caller);
    if let Some(reply) = without_session(context, &session, &web).await {
        return CommandReport::of_delivery(conversation.edit(&reply).await, CommandOutcome::Failed);
    }
    let admitted = match admitted(context, conversation, caller, &web).await {
        Ok(admitted) => admitted,
        Err((reply, outcome)) => return CommandReport::of_delivery(conversation.edit(&reply).await, outcome),
    };
    Errand { context, conversation, user: caller.user, session, admitted }.run(&web).await
}

/// Returns the note that the command is going to open a browser; the error is the reply if it may not.
async fn admitted(
    context: &CommandContext,
    conversation: &Conversation,
    caller: &Caller,
    web: &Web,
) -> Result<Option<AdmittedSession>, (Reply, CommandOutcome)> {
    if !matches!(web, Web::Start { .. }) {
        return Ok(None);
    }
    session_limits::admit(context, caller, conversation.left()).await.map_err(|refusal| match refusal {
        NotOpened::Limited(reply) => (reply, CommandOutcome::Limited),
        NotOpened::Failed(error) => (not_now(&error), CommandOutcome::Failed),
    })
}

/// Returns the reply for a channel without a browser, so that no worker is started only to say so.
async fn without_session(context: &CommandContext, session: &str, web: &Web) -> Option<Reply> {
    if matches!(web, Web::Start { .. }) {
        return None;
    }
    let begin = Markup::code("/web start").and(" opens one.");
    match context.client.session(&context.worker_type, session).await {
        Ok(SessionState::Open(_)) => None,
        Ok(SessionState::Closed) => Some(Reply::new(Tone::Plain, "This channel has no browser open").with_text(begin)),
        Ok(SessionState::Lost(worker)) => {
            let text = Markup::ours("Its worker ").and_code(worker.as_str()).and(" died. ").and_all(&begin);
            Some(Reply::new(Tone::Bad, "This channel's browser was lost").with_text(text))
        }
        Err(error) => Some(not_now(&error)),
    }
}

/// One command for one session.
struct Errand<'a> {
    context: &'a CommandContext,
    conversation: &'a Conversation,
    /// User who gave the command.
    user: u64,
    session: String,
    /// Note that the session is going to be opened.
    admitted: Option<AdmittedSession>,
}

impl Errand<'_> {
    async fn run(&self, web: &Web) -> CommandReport {
        let (method, args) = web.job();
        let asked = self.ask(method, args).await;
        // A job that nobody has answered may still open the session.
        if let (Some(admitted), Ok(Waited::Answer { .. }) | Err(_)) = (&self.admitted, &asked) {
            session_limits::settle(self.context, admitted).await;
        }
        let (value, late) = match asked {
            Ok(Waited::Answer { outcome, late }) => (outcome, late),
            Ok(Waited::OutOfTime { job }) => return self.out_of_time(&job).await,
            Ok(Waited::Stopped) => return self.stopped().await,
            Err(error) => {
                let delivered = self.conversation.edit(&not_now(&error)).await;
                return CommandReport::of_delivery(delivered, CommandOutcome::Failed);
            }
        };
        let (reply, outcome) = match value {
            Ok(value) => (answer(web, &value), CommandOutcome::Done),
            Err(error) => (failure(&error), CommandOutcome::Failed),
        };
        let pictured =
            outcome == CommandOutcome::Done && web.shows_a_page() && self.context.settings.discord.screenshots;
        if late {
            let reply = if pictured { self.with_picture(reply).await } else { reply };
            return CommandReport::of_delivery(self.deliver(&reply, true).await, CommandOutcome::Late);
        }
        let delivered = self.deliver(&reply, false).await;
        if !pictured || delivered.is_err() {
            return CommandReport::of_delivery(delivered, outcome);
        }
        let reply = self.with_picture(reply).await;
        CommandReport::of_delivery(self.deliver(&reply, false).await, outcome)
    }

    async fn ask(&self, method: &str, args: Vec<Value>) -> Result<Waited, CallError> {
        let job = Job::new(format!("{}.{method}", self.context.worker_type), args, Map::new())
            .with_session(self.session.as_str());
        // A job must not act on a page when its result can no longer be reported.
        ask(self.context, self.conversation, self.user, job.with_deadline(self.conversation.left())).await
    }

    /// Adds a picture of the page to the reply; if that fails, the reason.
    async fn with_picture(&self, reply: Reply) -> Reply {
        let job = Job::new(format!("{}.screenshot", self.context.worker_type), vec![json!(false)], Map::new());
        let job = job.with_session(self.session.as_str()).with_deadline(self.conversation.left());
        let timeout = self.context.settings.discord.answer().min(self.conversation.left());
        let taken = self.context.client.call(job, timeout).await.map_err(|error| error.to_string());
        match taken.and_then(|value| picture(&value)) {
            Ok(png) => reply.with_picture(png),
            Err(problem) => reply.with_field(Markup::ours("No picture"), Markup::text(&problem)),
        }
    }

    /// Delivers a reply: as an edit, or as a follow-up of an intermediate reply. A note replaces a picture that Discord
    /// does not accept, and a new message a reply that somebody has deleted.
    async fn deliver(&self, reply: &Reply, late: bool) -> Result<(), Undelivered> {
        let mut reply = reply.clone();
        let size = reply.picture.as_ref().map_or(0, Vec::len);
        if u64::try_from(size).is_ok_and(|size| size > self.conversation.attachment_limit()) {
            reply = without_picture(reply);
        }
        let delivered = self.send(&reply, late).await;
        match delivered {
            Err(Undelivered::TooLarge) if reply.picture.is_some() => self.send(&without_picture(reply), late).await,
            Err(Undelivered::Deleted) if !late => self.send(&reply, true).await,
            delivered => delivered,
        }
    }

    async fn send(&self, reply: &Reply, late: bool) -> Result<(), Undelivered> {
        if late { self.conversation.follow_up(reply).await } else { self.conversation.edit(reply).await }
    }

    /// Cancels the job, and sends the last reply before Discord accepts no more.
    async fn out_of_time(&self, job: &str) -> CommandReport {
        let (is_over, text) = cancelling::give_up(self.context, job).await;
        if let (true, Some(admitted)) = (is_over, &self.admitted) {
            session_limits::settle(self.context, admitted).await;
        }
        let text = Markup::ours("The bot no longer waits for the answer. ").and_all(&text);
        let title =
            Markup::ours("No answer within ").and_number(self.context.settings.discord.give_up_seconds).and(" s");
        let reply = Reply { title, ..Reply::new(Tone::Bad, "") }.with_text(text);
        CommandReport::of_delivery(self.conversation.edit(&reply).await, CommandOutcome::Unanswered)
    }

    async fn stopped(&self) -> CommandReport {
        let text = Markup::ours("The job goes on; ").and_code("/web status").and(" shows what became of it.");
        let reply = Reply::new(Tone::Bad, "The bot was stopped before the answer came").with_text(text);
        CommandReport::of_delivery(self.conversation.edit(&reply).await, CommandOutcome::Stopped)
    }
}

/// Closes the browsers of all channels of the caller's server, whichever workers hold them.
async fn close_all(context: &CommandContext, conversation: &Conversation, caller: &Caller) -> CommandReport {
    let names = match context.client.sessions(&context.worker_type, &sessions::of_guild(caller)).await {
        Ok(names) => names,
        Err(error) => {
            return CommandReport::of_delivery(conversation.edit(&not_now(&error)).await, CommandOutcome::Failed);
        }
    };
    let timeout = context.settings.discord.answer().min(conversation.left());
    let close = |name: String| async move {
        let job = Job::new(format!("{}.close", context.worker_type), Vec::new(), Map::new());
        context
            .client
            .call(job.with_session(name).with_deadline(timeout), timeout)
            .await
            .map_err(|error| error.to_string())
    };
    let all = names.len();
    let done: Vec<Result<Value, String>> =
        stream::iter(names).map(close).buffer_unordered(CLOSED_AT_ONCE).collect().await;
    let failed: Vec<&String> = done.iter().filter_map(|closed| closed.as_ref().err()).collect();
    let counted = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    let title = Markup::ours("Closed ").and_number(counted(all - failed.len())).and(" of ").and_number(counted(all));
    let title = title.and(" browsers of this server");
    let (tone, outcome) = match failed.first() {
        None => (Tone::Good, CommandOutcome::Done),
        Some(_) => (Tone::Bad, CommandOutcome::Failed),
    };
    let text = failed.first().map(|why| Markup::block(why)).unwrap_or_default();
    let reply = Reply { title, ..Reply::new(tone, "") }.with_text(text);
    CommandReport::of_delivery(conversation.edit(&reply).await, outcome)
}

/// Returns the reply to a successful job.
fn answer(web: &Web, value: &Value) -> Reply {
    let page = |reply: Reply, page: &Value| {
        let text = |key: &str| page[key].as_str().map(Markup::text).unwrap_or_default();
        let status = page["status"].as_u64().map(|status| Markup::default().and_number(status)).unwrap_or_default();
        let reply = reply.with_field(Markup::ours("Page"), text("title"));
        let reply = reply.with_field(Markup::ours("Address"), text("url"));
        reply.with_field(Markup::ours("Status"), status)
    };
    match web {
        Web::Start { .. } => {
            let title =
                if value["already_open"] == true { "This channel's browser was open" } else { "Browser opened" };
            page(Reply::new(Tone::Good, title), &value["page"])
        }
        Web::Open { .. } => page(Reply::new(Tone::Good, "Page loaded"), value),
        Web::Click { selector } => Reply::new(Tone::Good, "Clicked").with_text(Markup::code(selector)),
        Web::Fill { selector, .. } => Reply::new(Tone::Good, "Filled in").with_text(Markup::code(selector)),
        Web::Screenshot { .. } => match picture(value) {
            Ok(png) => Reply::new(Tone::Good, "The page").with_picture(png),
            Err(problem) => failure(&problem),
        },
        Web::Status => {
            let open = value["open_seconds"].as_u64().unwrap_or_default();
            let open = Markup::default().and_number(open).and(" s");
            page(Reply::new(Tone::Good, "This channel's browser"), value).with_field(Markup::ours("Open for"), open)
        }
        Web::Close | Web::CloseAll => {
            let closed = value["closed"].as_u64().unwrap_or_default() > 0;
            Reply::new(Tone::Good, if closed { "Browser closed" } else { "This channel had no browser open" })
        }
    }
}

/// Returns the picture in the result of `screenshot`.
fn picture(value: &Value) -> Result<Vec<u8>, String> {
    let text = value["png"].as_str().ok_or("the worker's answer holds no picture")?;
    BASE64_STANDARD.decode(text).map_err(|error| format!("the worker's picture can't be read: {error}"))
}

fn without_picture(reply: Reply) -> Reply {
    let size = reply.picture.as_ref().map_or(0, Vec::len) / 1_024;
    let why = Markup::ours("With ").and_number(u64::try_from(size).unwrap_or(u64::MAX));
    let why = why.and(" KiB it is larger than Discord takes here.");
    Reply { picture: None, ..reply }.with_field(Markup::ours("No picture"), why)
}

fn failure(error: &str) -> Reply {
    Reply::new(Tone::Bad, "Not done").with_text(Markup::block(error))
}

fn not_now(error: &CallError) -> Reply {
    Reply::new(Tone::Bad, "Not possible now").with_text(Markup::block(&error.to_string()))
}

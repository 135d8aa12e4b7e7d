//! Cancelling a job: by the button under a reply that waits for it, and when the bot gives up waiting.

use std::time::Duration;

use super::{
    access::{Access, Caller, Rank},
    context::{CommandContext, CommandReport, first_reply},
    conversation::{Audience, Conversation},
    markup::Markup,
    reply::{Reply, Tone},
};
use crate::{model::job::Cancelled, telemetry::CommandOutcome};

/// How long to wait for the worker that runs the job to stop it.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// The same when the bot gives up: Discord accepts the last reply for a short time only.
const LAST_STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for cancelling a job when the bot gives up, Redis included: the last reply must still be delivered.
const GIVE_UP_TIMEOUT: Duration = Duration::from_secs(10);

/// Carries out a press of the button. The reply is visible to the caller only; the reply that waits tells everyone.
pub(super) async fn press(
    context: &CommandContext,
    access: &Access,
    conversation: &Conversation,
    caller: &Caller,
    job: &str,
) -> CommandReport {
    let asker = context.waited.asker(job);
    if let Err(missed) = first_reply(conversation, conversation.defer(Audience::Caller)).await {
        return missed;
    }
    let (reply, outcome) = match asker {
        None => (nothing_to_cancel(), CommandOutcome::Failed),
        Some(user) if user != caller.user && access.check(caller, Rank::Operator).is_err() => {
            let text = Markup::ours("Only whoever gave the command and operators may cancel it.");
            (Reply::new(Tone::Bad, "Not allowed").with_text(text), CommandOutcome::Refused)
        }
        Some(_) => match context.client.cancel(job, STOP_TIMEOUT).await {
            Ok(cancelled) if cancelled.is_cancelled() => (Reply::new(Tone::Good, "Cancelled"), CommandOutcome::Done),
            Ok(Cancelled::Told { worker }) => (told(&worker), CommandOutcome::Done),
            Ok(_) => (nothing_to_cancel(), CommandOutcome::Failed),
            Err(error) => {
                let text = Markup::block(&error.to_string());
                (Reply::new(Tone::Bad, "Not possible now").with_text(text), CommandOutcome::Failed)
            }
        },
    };
    CommandReport::of_delivery(conversation.edit(&reply).await, outcome)
}

/// Cancels a job whose answer nobody waits for any more. Returns whether it does not run and will not, and what
/// happened, in words.
pub(super) async fn give_up(context: &CommandContext, job: &str) -> (bool, Markup) {
    let status = |text: Markup| text.and(" ").and_code("/web status").and(" shows what became of it.");
    let cancelling = tokio::time::timeout(GIVE_UP_TIMEOUT, context.client.cancel(job, LAST_STOP_TIMEOUT)).await;
    let answered = cancelling.map_err(|_| "redis did not answer in time".to_owned());
    match answered.and_then(|answer| answer.map_err(|error| error.to_string())) {
        Ok(cancelled) if cancelled.is_cancelled() => (true, Markup::ours("The job was cancelled.")),
        Ok(Cancelled::Told { worker }) => {
            let text = Markup::ours("Worker ").and_code(&worker).and(" was told to stop the job.");
            (false, status(text))
        }
        Ok(_) => (false, status(Markup::ours("The job has just ended."))),
        Err(error) => {
            tracing::warn!(job, error, "a job could not be cancelled");
            let text = "The job could not be cancelled. No worker begins it any more; if one has begun it,";
            (false, status(Markup::ours(text)))
        }
    }
}

fn nothing_to_cancel() -> Reply {
    let text = Markup::ours("The job has ended, or the bot was restarted and no longer waits for it.");
    Reply::new(Tone::Plain, "Nothing to cancel").with_text(text)
}

fn told(worker: &str) -> Reply {
    let text = Markup::ours("Worker ").and_code(worker).and(" was told to stop the job, and has not done so yet.");
    Reply::new(Tone::Waiting, "Being cancelled").with_text(text)
}

//! Waits for a worker's answer, while the reply shows what goes on: a worker is being started, no autoscaler starts
//! one, the job's progress, or that the answer takes longer than it should, and why.

use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::{
    context::CommandContext,
    conversation::{Conversation, Undelivered},
    markup::Markup,
    reply::{Reply, Tone},
    what::Press,
};
use crate::{
    broker::{Call, CallError, Job, Outlook, ScalerWord},
    model::progress::Progress,
};

/// An answer within this time needs no intermediate reply.
const QUICK: Duration = Duration::from_millis(700);
/// Time between two looks at what goes on.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Minimum time between two edits that show the job's progress: Discord limits the edits of a reply.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(3);

/// How the waiting ended.
#[derive(Debug)]
pub(super) enum Waited {
    /// An answer arrived. `late`: after the reply had reported that there is none.
    Answer { outcome: Result<Value, String>, late: bool },
    /// Discord no longer accepts replies. The job is not cancelled.
    OutOfTime {
        /// Id of the job.
        job: String,
    },
    /// The bot is being stopped.
    Stopped,
}

/// Publishes a job that `user` has asked for, and waits for its answer, while Discord accepts replies.
///
/// # Errors
/// If the job could not be published.
pub(super) async fn ask(
    context: &CommandContext,
    conversation: &Conversation,
    user: u64,
    job: Job,
) -> Result<Waited, CallError> {
    let job_type = job.job_type.clone();
    // Before the job can wake the autoscaler, so that a quickly started worker is still reported as started.
    let before = context.client.outlook(&job_type).await;
    // An error that arrives after the reply has reported that there is no answer is of less use.
    let job = job.with_reply_within(context.settings.discord.answer());
    let mut call = context.client.begin(job).await?;
    let _waited = context.waited.begin(call.id(), user);
    let mut said = Said { shown: None, late: false, job: call.id().to_owned(), progress: None };
    if let Ok(outlook) = before
        && outlook.workers == 0
    {
        said.say(conversation, going_on(&outlook, context.worker_type.as_str(), None)).await;
    }
    Ok(wait(context, conversation, &mut call, &job_type, said).await)
}

async fn wait(
    context: &CommandContext,
    conversation: &Conversation,
    call: &mut Call,
    job_type: &str,
    mut said: Said,
) -> Waited {
    let begun = Instant::now();
    let mut timeout = QUICK;
    loop {
        match call.wait(timeout.min(conversation.left()).max(Duration::from_millis(1))).await {
            Ok(Some(value)) => return Waited::Answer { outcome: Ok(value), late: said.late },
            Err(CallError::Failed { error, .. }) => return Waited::Answer { outcome: Err(error), late: said.late },
            Ok(None) => {}
            // Redis is down. The result waits in Redis, and the bot waits for Redis.
            Err(_) => {
                let _ = context.stop.run_until_cancelled(tokio::time::sleep(POLL_INTERVAL)).await;
            }
        }
        timeout = POLL_INTERVAL;
        if context.stop.is_cancelled() {
            return Waited::Stopped;
        }
        if conversation.left().is_zero() {
            return Waited::OutOfTime { job: said.job };
        }
        if begun.elapsed() >= context.settings.discord.answer() {
            said.no_answer(context, conversation, call).await;
        } else {
            said.what_goes_on(context, conversation, call, job_type).await;
        }
    }
}

/// What the reply says now.
struct Said {
    shown: Option<Reply>,
    late: bool,
    /// Id of the job, for the button that cancels it.
    job: String,
    /// The job's progress, and when it was asked for.
    progress: Option<(Instant, Option<Progress>)>,
}

impl Said {
    async fn what_goes_on(
        &mut self,
        context: &CommandContext,
        conversation: &Conversation,
        call: &Call,
        job_type: &str,
    ) {
        let reply = match context.client.outlook(job_type).await {
            Ok(outlook) => {
                let progress = if outlook.workers > 0 { self.progress(call).await } else { None };
                going_on(&outlook, context.worker_type.as_str(), progress)
            }
            Err(error) => Reply::new(Tone::Waiting, "Waiting…").with_text(Markup::block(&error.to_string())),
        };
        self.say(conversation, reply).await;
    }

    /// Returns the job's progress, which may be some seconds old.
    async fn progress(&mut self, call: &Call) -> Option<&Progress> {
        if self.progress.as_ref().is_none_or(|(asked, _)| asked.elapsed() >= PROGRESS_INTERVAL) {
            // Redis that is down is reported in place of the workers.
            let reported = call.progress().await.ok().flatten();
            self.progress = Some((Instant::now(), reported.map(|reported| reported.progress)));
        }
        self.progress.as_ref().and_then(|(_, progress)| progress.as_ref())
    }

    /// Reports the visible reasons, once.
    async fn no_answer(&mut self, context: &CommandContext, conversation: &Conversation, call: &Call) {
        if self.late {
            return;
        }
        let reply = no_answer_yet(context.settings.discord.answer_seconds, &call.why().await);
        self.say(conversation, reply).await;
        self.late = true;
    }

    /// Edits the reply, unless it says that already. A failed intermediate reply is no reason to give up: the answer is
    /// still to come.
    async fn say(&mut self, conversation: &Conversation, reply: Reply) {
        let reply = reply.with_buttons(vec![Press::Cancel(self.job.clone())]);
        if self.shown.as_ref() != Some(&reply) && conversation.edit(&reply).await != Err(Undelivered::Gone) {
            self.shown = Some(reply);
        }
    }
}

/// Returns which workers could do the job, and whether an autoscaler starts one; or how far the job is.
fn going_on(outlook: &Outlook, worker_type: &str, progress: Option<&Progress>) -> Reply {
    if outlook.workers > 0 {
        let text = match progress {
            Some(progress) => Markup::text(&progress.to_string()),
            None => Markup::ours("A ").and_code(worker_type).and(" worker is there. Waiting for its answer."),
        };
        return Reply::new(Tone::Waiting, "Working…").with_text(text);
    }
    let starting = Markup::ours("starting a ").and_text(worker_type).and(" worker…");
    match &outlook.scaler {
        ScalerWord::Nobody => {
            let text = Markup::ours("No autoscaler is running, and no ").and_code(worker_type);
            let text = text.and(" worker either. Somebody has to start ").and_code("swarm autoscaler");
            Reply::new(Tone::Bad, "Nobody starts workers").with_text(text.and(". Waiting, in case somebody does."))
        }
        ScalerWord::Failing { error, .. } => {
            let text = Markup::ours("The autoscaler can't start one, and tries again:\n").and_block(error);
            Reply { title: starting, ..Reply::new(Tone::Bad, "") }.with_text(text)
        }
        ScalerWord::Wants { headline, .. } => {
            Reply { title: starting, ..Reply::new(Tone::Waiting, "") }.with_text(Markup::block(headline))
        }
        ScalerWord::Quiet { .. } | ScalerWord::Unknown => Reply { title: starting, ..Reply::new(Tone::Waiting, "") },
    }
}

fn no_answer_yet(seconds: u64, why: &str) -> Reply {
    let text = Markup::ours("What can be seen of the reason:\n").and_block(why);
    let text =
        text.and("\nThe job goes on; if its answer comes while Discord takes replies, 15 minutes, it is told here.");
    let title = Markup::ours("No answer within ").and_number(seconds).and(" s");
    Reply { title, ..Reply::new(Tone::Bad, "") }.with_text(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(workers: usize, scaler: ScalerWord) -> String {
        let reply = going_on(&Outlook { workers, scaler }, "browser", None);
        let embed = reply.embed();
        format!("{}: {}", embed.title.unwrap_or_default(), embed.description.unwrap_or_default())
    }

    #[test]
    fn the_words_fit_what_goes_on() {
        let instance = || "here-1".to_owned();
        let wants = ScalerWord::Wants {
            instance: instance(),
            desired: "1".to_owned(),
            max: "10".to_owned(),
            headline: "scale up 0 → 1: depth 1 starts the first worker".to_owned(),
        };
        assert!(told(0, wants.clone()).starts_with("starting a browser worker…: ```\nscale up 0 → 1"));
        assert!(told(1, wants).starts_with("Working…"));
        assert!(told(0, ScalerWord::Nobody).contains("No autoscaler is running"));
        let failing = ScalerWord::Failing { instance: instance(), error: "no engine at @everyone".to_owned() };
        assert!(told(0, failing).contains("can't start one, and tries again:\n```\nno engine"));
        let progress = Progress::new("@everyone, page 2 of 5").with_fraction(0.4);
        let outlook = Outlook { workers: 1, scaler: ScalerWord::Unknown };
        let shown = going_on(&outlook, "browser", Some(&progress)).embed().description;
        assert_eq!(shown.as_deref(), Some(r"40 \%\: \@everyone\, page 2 of 5"));
        assert_eq!(told(0, ScalerWord::Quiet { instance: instance() }), "starting a browser worker…: ");
    }
}

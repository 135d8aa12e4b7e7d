//! `/swarm …` and its buttons: what an operator may see and change, as the commands of the binary do it.

use super::{
    access::Caller,
    context::{CommandContext, CommandReport, first_reply},
    conversation::{Audience, Conversation},
    markup::Markup,
    reply::{Reply, Tone},
    what::{Press, Swarm},
};
use crate::{
    config::Settings,
    model::{
        Timestamp, WorkerType,
        control::{ApplyOverride, OverrideAction, OverrideRequest},
        history::ScalingEvent,
        snapshot::{FleetSnapshot, TypeSnapshot},
    },
    operations::{
        order::parse_time,
        recent_events,
        view::{events, fleet, why},
    },
    telemetry::CommandOutcome,
};

/// Maximum worker types in an overview, because Discord limits the number of fields.
const SHOWN: usize = 24;
/// Maximum suggestions that Discord accepts.
const SUGGESTIONS: usize = 25;
/// Maximum characters of a reason in a line.
const REASON: usize = 120;
/// Maximum total length of an overview's text and fields: Discord's limit, with room for the rest of the embed. Worker
/// types that don't fit are only counted.
const LONGEST_OVERVIEW: usize = 5_800;
/// Maximum length of a history's text: below Discord's limit. Older events that don't fit are left out.
const LONGEST_HISTORY: usize = 4_000;

/// Returns the worker types whose names contain the typed text.
pub(super) fn suggestions(settings: &Settings, typed: &str) -> Vec<String> {
    let typed = typed.to_lowercase();
    settings.worker_types.keys().filter(|name| name.contains(&typed)).take(SUGGESTIONS).cloned().collect()
}

/// Carries out a command. The reply to a read is visible to the caller only, the reply to a change to everyone. The
/// same command of a button has a reply of its own: the message with the button may be visible to everyone.
pub(super) async fn command(
    context: &CommandContext,
    conversation: &Conversation,
    caller: &Caller,
    swarm: Swarm,
) -> CommandReport {
    let changes = matches!(swarm, Swarm::Pause { .. } | Swarm::Resume { .. } | Swarm::Scale { .. });
    let audience = if changes { Audience::Everyone } else { Audience::Caller };
    match first_reply(conversation, conversation.defer(audience)).await {
        Ok(()) => reply_to(context, conversation, caller, swarm).await,
        Err(missed) => missed,
    }
}

async fn reply_to(
    context: &CommandContext,
    conversation: &Conversation,
    caller: &Caller,
    swarm: Swarm,
) -> CommandReport {
    let (reply, outcome) = match answer(context, caller, swarm).await {
        Ok(reply) => (reply, CommandOutcome::Done),
        Err(problem) => (Reply::new(Tone::Bad, "Not done").with_text(Markup::block(&problem)), CommandOutcome::Failed),
    };
    CommandReport::of_delivery(conversation.edit(&reply).await, outcome)
}

async fn answer(context: &CommandContext, caller: &Caller, swarm: Swarm) -> Result<Reply, String> {
    match swarm {
        Swarm::Status { worker_type: None } => Ok(overview(&status(context).await?, Timestamp::wall())),
        Swarm::Status { worker_type: Some(name) } => {
            let fleet = status(context).await?;
            Ok(of_type(find(&fleet, &name)?, Timestamp::wall()))
        }
        Swarm::Why { worker_type } => {
            let fleet = status(context).await?;
            let of = find(&fleet, &worker_type)?;
            let text = Markup::block(&why::text(of, &fleet, Timestamp::wall()));
            Ok(Reply::new(Tone::Plain, "Why").with_text(text).with_buttons(buttons(of)))
        }
        Swarm::Events { worker_type, count } => {
            let recent = recent_events(&context.redis, count, worker_type.as_deref()).await;
            Ok(history(&recent.map_err(|error| error.to_string())?.events))
        }
        Swarm::Pause { worker_type, observe, lasts, reason } => {
            let action = if observe { OverrideAction::Observe } else { OverrideAction::Pause };
            order(context, caller, worker_type, action, lasts, reason).await
        }
        Swarm::Resume { worker_type, reason } => {
            order(context, caller, worker_type, OverrideAction::Resume, None, reason).await
        }
        Swarm::Scale { worker_type, workers, lasts, reason } => {
            order(context, caller, worker_type, OverrideAction::Scale(workers), lasts, reason).await
        }
    }
}

async fn status(context: &CommandContext) -> Result<FleetSnapshot, String> {
    let server = context.status_server.as_ref().map_err(|_| {
        "it is not known where the autoscaler shows its status; set `status_url` in `[discord]`, for example to \
         http://autoscaler:9000"
            .to_owned()
    })?;
    server.status().await.map_err(|error| error.to_string())
}

fn find<'a>(fleet: &'a FleetSnapshot, name: &str) -> Result<&'a TypeSnapshot, String> {
    let found = fleet.worker_type(name);
    found.map(AsRef::as_ref).ok_or_else(|| format!("the autoscaler knows no worker type `{name}`"))
}

async fn order(
    context: &CommandContext,
    caller: &Caller,
    worker_type: String,
    action: OverrideAction,
    lasts: Option<String>,
    why: String,
) -> Result<Reply, String> {
    let lasts = lasts.map(|text| parse_time(&text).map_err(|problem| format!("for: {problem}"))).transpose()?;
    let by = format!("{}@discord ({})", caller.name, caller.user);
    let known = context.settings.worker_types.contains_key(&worker_type);
    let order = OverrideRequest { worker_type: WorkerType::new(worker_type.as_str()), action, lasts, by, why };
    let existed = context.orders.give(&order).await.map_err(|error| error.to_string())?;
    let reply = Reply { title: Markup::text(&order.done(existed)), ..Reply::new(Tone::Good, "") }
        .with_text(Markup::text(&order.why))
        .with_field(Markup::ours("By"), Markup::text(&caller.name));
    let next = if action == OverrideAction::Resume { None } else { Some(Press::Resume(worker_type.clone())) };
    let next = next.into_iter().chain([Press::Why(worker_type)]).filter(|_| known).collect();
    Ok(reply.with_buttons(next))
}

/// Returns the overview of all worker types.
fn overview(fleet: &FleetSnapshot, now: Timestamp) -> Reply {
    let head = [
        fleet::title(fleet, now),
        format!("leader   {}", fleet::leader(fleet, now)),
        format!("redis    {}", fleet::redis(fleet)),
        format!("signals  {}", fleet::sources(fleet)),
    ];
    let mut text = Markup::block(&head.join("\n"));
    let (mut fields, mut length) = (Vec::new(), text.len());
    for of in fleet.worker_types.iter().take(SHOWN) {
        let (name, value) = (Markup::text(of.worker_type.as_str()), in_a_line(of, now));
        length += name.len() + value.len();
        if length > LONGEST_OVERVIEW {
            break;
        }
        fields.push((name, value));
    }
    let left_out = fleet.worker_types.len() - fields.len();
    if left_out > 0 {
        let left_out = u64::try_from(left_out).unwrap_or(u64::MAX);
        text = text.and("\nand ").and_number(left_out).and(" more: name one to see it");
    }
    let reply = Reply::new(Tone::Plain, "swarm").with_text(text).with_buttons(vec![Press::Status(None)]);
    Reply { fields, ..reply }
}

/// Returns `3 ready (2 busy) + 1 starting, want 4 of 1–6; jobs: 12 waiting, 3 in work` and the last decision.
fn in_a_line(of: &TypeSnapshot, now: Timestamp) -> Markup {
    let counts = fleet::counts(of, now);
    let [_, lag, pending, _, _, desired, ready, starting, busy, _, bounds, _] = &counts;
    Markup::text(ready)
        .and(" ready (")
        .and_text(busy)
        .and(" busy) + ")
        .and_text(starting)
        .and(" starting, want ")
        .and_text(desired)
        .and(" of ")
        .and_text(bounds)
        .and("; jobs: ")
        .and_text(lag)
        .and(" waiting, ")
        .and_text(pending)
        .and(" in work\n")
        .and_text(&cut(&fleet::decision(of)))
}

/// Returns all details of one worker type.
fn of_type(of: &TypeSnapshot, now: Timestamp) -> Reply {
    let mut reply = Reply { title: Markup::text(of.worker_type.as_str()), ..Reply::new(Tone::Plain, "") }
        .with_text(Markup::block(&fleet::decision(of)))
        .with_buttons(buttons(of));
    for (name, value) in fleet::COUNTS.into_iter().zip(fleet::counts(of, now)).skip(1) {
        reply = reply.with_field(Markup::text(name), Markup::text(&value));
    }
    let again = of.recheck_at.map_or_else(|| "at the next signal or sweep".to_owned(), |_| fleet::looks_again(of, now));
    reply.with_field(Markup::ours("LOOKS AGAIN"), Markup::text(&again))
}

fn buttons(of: &TypeSnapshot) -> Vec<Press> {
    let name = || of.worker_type.as_str().to_owned();
    let next = if of.control.is_some() { Press::Resume(name()) } else { Press::Pause(name()) };
    vec![Press::Status(Some(name())), Press::Why(name()), Press::Status(None), next]
}

fn history(all: &[ScalingEvent]) -> Reply {
    if all.is_empty() {
        return Reply::new(Tone::Plain, "Nothing was changed yet");
    }
    let mut lines = Markup::default();
    for event in all.iter().rev() {
        let failed = if event.outcome == "failed" { "**failed**: " } else { "" };
        let line = Markup::default()
            .and_moment(event.at)
            .and(" **")
            .and_text(&event.worker_type)
            .and("** ")
            .and_text(&events::change(event))
            .and(": ")
            .and(failed)
            .and_text(&cut(&events::reason(event)))
            .and("\n");
        if lines.len() + line.len() > LONGEST_HISTORY {
            break;
        }
        lines = lines.and_all(&line);
    }
    Reply::new(Tone::Plain, "What was changed, newest first").with_text(lines)
}

fn cut(text: &str) -> String {
    crate::operations::view::words::cut(text, REASON)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overview_shows_each_type_and_what_is_wrong() {
        let embed = overview(&fleet::made_up(), Timestamp(60_000)).embed();
        assert!(embed.description.unwrap().contains("swarm 1.2.3 on here-1"));
        let (browser, tankpit) = (&embed.fields[0], &embed.fields[1]);
        assert!(browser.value.starts_with("4 ready (4 busy) + 2 starting, want 6 of 1–6; jobs: 31 waiting, 6 in work"));
        assert!(tankpit.value.contains(r"\? ready") && tankpit.value.contains("redis does not answer"), "{tankpit:?}");
    }

    #[test]
    fn worker_types_that_do_not_fit_are_counted() {
        let mut fleet = fleet::made_up();
        let mut of = TypeSnapshot::clone(&fleet.worker_types[0]);
        of.reasons = vec!["held at 6: depth 37 ≥ 5 wants 8, at most 6 (max_workers) ".repeat(10)];
        fleet.worker_types = std::iter::repeat_n(std::sync::Arc::new(of), 40).collect();
        let embed = overview(&fleet, Timestamp(60_000)).embed();
        let text = embed.description.unwrap();
        assert!(text.ends_with(&format!("and {} more: name one to see it", 40 - embed.fields.len())), "{text}");
        assert!(embed.fields.len() > 8);
    }

    #[test]
    fn a_button_offers_what_is_not_so() {
        let mut of = TypeSnapshot::clone(&fleet::made_up().worker_types[0]);
        assert!(buttons(&of).contains(&Press::Pause("browser".to_owned())));
        let (mode, by, why) = (crate::model::control::Mode::Paused, String::new(), String::new());
        of.control = Some(std::sync::Arc::new(crate::model::control::Control { mode, until: None, by, why }));
        assert!(buttons(&of).contains(&Press::Resume("browser".to_owned())));
    }

    #[test]
    fn as_many_events_are_shown_as_fit() {
        let event = ScalingEvent {
            worker_type: "browser".to_owned(),
            decision: "scale_up".to_owned(),
            from_count: Some(0),
            to_count: Some(1),
            reason: "<@1>*_".repeat(100),
            outcome: "failed".to_owned(),
            ..ScalingEvent::default()
        };
        let text = history(&vec![event; 20]).embed().description.unwrap();
        assert!(text.contains("**failed**") && text.len() <= 4_096 && text.lines().count() > 8, "{text}");
    }
}

//! Body of a message, for each kind of webhook. Escapes all text, so that a worker type or an error can't mention
//! people or fake a link. Pure.

use serde_json::{Map, Value, json};

use super::notification::{Notification, Status};
use crate::config::NotifyFormat;

/// Maximum characters of the detail: Discord accepts 2,000 in all, and escaping can double them.
const MAX_DETAIL: usize = 600;

/// Returns the body and its media type. `id` is the same for each attempt.
pub(super) fn body(
    format: NotifyFormat,
    template: Option<&str>,
    notification: &Notification,
    id: &str,
) -> (String, &'static str) {
    const JSON: &str = "application/json";
    match format {
        NotifyFormat::Json => (from_template(template, notification), JSON),
        NotifyFormat::Slack => {
            (json!({ "text": text(notification, escaped_for_slack), "mrkdwn": false }).to_string(), JSON)
        }
        NotifyFormat::Discord => {
            let nobody = json!({ "parse": [] });
            let content = text(notification, escaped_for_discord);
            (json!({ "content": content, "allowed_mentions": nobody }).to_string(), JSON)
        }
        NotifyFormat::Teams => (teams(notification).to_string(), JSON),
        NotifyFormat::CloudEvents => (cloud_event(notification, id).to_string(), "application/cloudevents+json"),
    }
}

fn fields(notification: &Notification) -> Vec<(&'static str, String)> {
    let worker_type = notification.worker_type.as_ref().map_or("", |of| of.as_str()).to_owned();
    vec![
        ("alert", notification.alert().to_owned()),
        ("status", notification.status.as_str().to_owned()),
        ("summary", notification.summary.clone()),
        ("detail", shortened(&notification.detail)),
        ("worker_type", worker_type),
        ("instance", notification.instance.clone()),
        ("at", time(notification)),
        ("dropped", notification.dropped.to_string()),
    ]
}

fn object(notification: &Notification) -> Value {
    let fields = fields(notification).into_iter().map(|(name, value)| (name.to_owned(), Value::String(value)));
    Value::Object(fields.collect::<Map<_, _>>())
}

/// Parses the template before it replaces placeholders in the strings, so that no value can break out of its string.
fn from_template(template: Option<&str>, notification: &Notification) -> String {
    let Some(mut body) = template.and_then(|template| serde_json::from_str::<Value>(template).ok()) else {
        return object(notification).to_string();
    };
    fill(&mut body, &fields(notification));
    body.to_string()
}

fn fill(value: &mut Value, fields: &[(&'static str, String)]) {
    match value {
        Value::String(text) => *text = filled(text, fields),
        Value::Array(elements) => elements.iter_mut().for_each(|element| fill(element, fields)),
        Value::Object(members) => members.values_mut().for_each(|member| fill(member, fields)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Replaces placeholders in one pass, so that a value never counts as a placeholder.
fn filled(text: &str, fields: &[(&'static str, String)]) -> String {
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('{') {
        filled.push_str(&rest[..at]);
        rest = &rest[at..];
        let found =
            fields.iter().find(|(name, _)| rest[1..].strip_prefix(name).is_some_and(|after| after.starts_with('}')));
        if let Some((name, value)) = found {
            filled.push_str(value);
            rest = &rest[name.len() + 2..];
        } else {
            filled.push('{');
            rest = &rest[1..];
        }
    }
    filled.push_str(rest);
    filled
}

/// Returns two to four lines of text.
fn text(notification: &Notification, escape: fn(&str) -> String) -> String {
    let (sign, prefix) = match notification.status {
        Status::Firing => ("🔴", ""),
        Status::Resolved => ("🟢", "resolved: "),
        Status::Event | Status::Test => ("🔵", ""),
    };
    let mut lines = vec![format!("{sign} {prefix}{}", escape(&notification.summary))];
    if !notification.detail.is_empty() {
        lines.push(escape(&shortened(&notification.detail)));
    }
    if notification.dropped > 0 {
        lines.push(format!("{} earlier messages were dropped", notification.dropped));
    }
    lines.push(format!("{} · {}", escape(&notification.instance), time(notification)));
    lines.join("\n")
}

/// <https://docs.slack.dev/messaging/formatting-message-text#escaping>
fn escaped_for_slack(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Escapes Discord's Markdown.
fn escaped_for_discord(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if matches!(character, '*' | '_' | '~' | '|' | '>' | '<' | '[' | ']' | '\\' | '#' | '`' | '@') {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}

/// Returns an Adaptive Card for a workflow of Teams. Its text runs, unlike its text blocks, render no Markdown.
fn teams(notification: &Notification) -> Value {
    let color = match notification.status {
        Status::Firing => "attention",
        Status::Resolved => "good",
        Status::Event | Status::Test => "default",
    };
    let block = |run: Value| json!({ "type": "RichTextBlock", "inlines": [run] });
    let heading = format!("{}: {}", notification.status.as_str(), notification.summary);
    let mut blocks = vec![block(json!({ "type": "TextRun", "text": heading, "weight": "bolder", "color": color }))];
    let others = fields(notification).into_iter().filter(|(name, value)| {
        !value.is_empty() && !matches!(*name, "summary" | "status") && (*name != "dropped" || notification.dropped > 0)
    });
    blocks.extend(others.map(|(name, value)| block(json!({ "type": "TextRun", "text": format!("{name}: {value}") }))));
    json!({
        "type": "message",
        "attachments": [{
            "contentType": "application/vnd.microsoft.card.adaptive",
            "content": {
                "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
                "type": "AdaptiveCard",
                "version": "1.2",
                "body": blocks,
            },
        }],
    })
}

/// <https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md>
fn cloud_event(notification: &Notification, id: &str) -> Value {
    let mut event = json!({
        "specversion": "1.0",
        "id": id,
        "source": format!("/swarm/{}", notification.instance),
        "type": format!("io.swarm.{}.{}", notification.alert(), notification.status.as_str()),
        "time": time(notification),
        "datacontenttype": "application/json",
        "data": object(notification),
    });
    if let Some(worker_type) = &notification.worker_type {
        event["subject"] = json!(worker_type);
    }
    event
}

fn time(notification: &Notification) -> String {
    let at = i64::try_from(notification.at.0).ok().and_then(|at| jiff::Timestamp::from_millisecond(at).ok());
    at.map_or_else(String::new, |at| at.to_string())
}

fn shortened(text: &str) -> String {
    if text.chars().count() <= MAX_DETAIL {
        return text.to_owned();
    }
    text.chars().take(MAX_DETAIL).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::AlertKind, model::Timestamp, model::WorkerType};

    fn firing(detail: &str) -> Notification {
        Notification {
            kind: Some(AlertKind::CrashLoop),
            status: Status::Firing,
            worker_type: Some(WorkerType::new("mail")),
            summary: "workers of `mail` fail to start".to_owned(),
            detail: detail.to_owned(),
            instance: "host-1".to_owned(),
            at: Timestamp(1_767_323_045_000),
            dropped: 0,
        }
    }

    fn parsed(format: NotifyFormat, template: Option<&str>, notification: &Notification) -> Value {
        serde_json::from_str(&body(format, template, notification, "id-1").0).unwrap()
    }

    #[test]
    fn json_without_a_template_has_every_field() {
        let expected = json!({
            "alert": "crash_loop", "status": "firing", "summary": "workers of `mail` fail to start", "detail": "boom",
            "worker_type": "mail", "instance": "host-1", "at": "2026-01-02T03:04:05Z", "dropped": "0",
        });
        assert_eq!(parsed(NotifyFormat::Json, None, &firing("boom")), expected);
    }

    #[test]
    fn no_value_breaks_out_of_a_template() {
        let template = r#"{"a": "{alert}: {detail}", "b": ["{status}", {"c": "{other}"}], "n": 1}"#;
        let detail = "\"}, \"evil\": {summary}";
        let expected = json!({ "a": format!("crash_loop: {detail}"), "b": ["firing", { "c": "{other}" }], "n": 1 });
        assert_eq!(parsed(NotifyFormat::Json, Some(template), &firing(detail)), expected);
    }

    #[test]
    fn a_message_mentions_nobody() {
        let slack = parsed(NotifyFormat::Slack, None, &firing("<!channel> & co"));
        let expected = "🔴 workers of `mail` fail to start\n&lt;!channel&gt; &amp; co\nhost-1 · 2026-01-02T03:04:05Z";
        assert_eq!(slack, json!({ "text": expected, "mrkdwn": false }));
        let discord = parsed(NotifyFormat::Discord, None, &firing("<@123> **x**"));
        assert_eq!(discord["allowed_mentions"], json!({ "parse": [] }));
        assert!(discord["content"].as_str().unwrap().contains("\\<\\@123\\> \\*\\*x\\*\\*"), "{discord}");
    }

    #[test]
    fn teams_and_cloud_events_get_their_own_shapes() {
        let mut over = firing("it lasted 61 s");
        (over.status, over.dropped) = (Status::Resolved, 2);
        let card = parsed(NotifyFormat::Teams, None, &over);
        let heading = &card["attachments"][0]["content"]["body"][0]["inlines"][0];
        assert_eq!(heading["color"], "good");
        assert_eq!(heading["text"], "resolved: workers of `mail` fail to start");
        let (text, media_type) = body(NotifyFormat::CloudEvents, None, &over, "id-1");
        let event: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(media_type, "application/cloudevents+json");
        let named =
            ["specversion", "id", "source", "type", "subject", "time"].map(|name| event[name].as_str().unwrap());
        let kind = "io.swarm.crash_loop.resolved";
        assert_eq!(named, ["1.0", "id-1", "/swarm/host-1", kind, "mail", "2026-01-02T03:04:05Z"]);
        assert_eq!(event["data"]["dropped"], "2");
    }

    #[test]
    fn a_long_detail_is_shortened() {
        let long = "*".repeat(5_000);
        let text = parsed(NotifyFormat::Discord, None, &firing(&long));
        assert!(text["content"].as_str().unwrap().chars().count() < 2_000);
    }
}

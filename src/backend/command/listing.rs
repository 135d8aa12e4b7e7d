//! What a platform says of its workers: one JSON object for each, in lines or in a document. Pure.

use std::collections::HashSet;

use serde::Deserialize;
use serde_json::Value;

use crate::model::{Timestamp, WorkerId};

/// Longest id, and longest part of a state or reason that is kept, in characters.
const MAX_TEXT: usize = 200;
/// A time below this number is in seconds, another one in milliseconds.
const SECONDS_END: u64 = 100_000_000_000;

#[cfg(any(feature = "command-url", test))]
const EXPECTED_DOCUMENT: &str = "expected a JSON object such as {\"workers\":[{\"id\":\"w-1\",\"state\":\"running\"}]}";

/// State of a worker, by its platform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// The platform can't start it yet.
    Blocked,
    /// The platform is starting its process.
    Starting,
    /// Its process runs.
    Running,
    /// The platform was asked to end it.
    Draining,
    /// It has ended.
    Exited,
    /// A word of the platform that has no meaning here.
    Unknown(String),
}

impl State {
    fn parse(text: &str) -> Self {
        match text.to_ascii_lowercase().as_str() {
            "blocked" => Self::Blocked,
            "starting" => Self::Starting,
            "running" => Self::Running,
            "draining" => Self::Draining,
            "exited" => Self::Exited,
            _ => Self::Unknown(shortened(text)),
        }
    }
}

/// A worker, as its object describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listed {
    /// The platform's name for it.
    pub(super) handle: String,
    /// The worker's own id: `worker_id`, or else the platform's name.
    pub(super) id: WorkerId,
    pub(super) state: State,
    pub(super) reason: Option<String>,
    pub(super) started_at: Option<Timestamp>,
    /// Whether it ended well: `"exit_code": 0`.
    pub(super) success: bool,
}

#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Described {
    id: Value,
    #[serde(default)]
    state: Option<String>,
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    started_at: Option<Value>,
    #[serde(default)]
    worker_id: Option<Value>,
    #[serde(default)]
    exit_code: Option<i64>,
}

/// Parses lines of one object each. A line that can't be read makes the whole list unknown; the error names that line.
pub(super) fn lines(text: &[u8]) -> Result<Vec<Listed>, String> {
    let text = std::str::from_utf8(text).map_err(|error| format!("its output is not UTF-8: {error}"))?;
    let workers = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
    distinct("line", workers.map(|(number, line)| (number, one(line))))
}

/// Parses a document with the `workers`. One that can't be read makes the whole list unknown.
#[cfg(any(feature = "command-url", test))]
pub(super) fn document(text: &[u8]) -> Result<Vec<Listed>, String> {
    let document: Value = serde_json::from_slice(text).map_err(|error| format!("{EXPECTED_DOCUMENT}: {error}"))?;
    let workers = document["workers"].as_array().ok_or(EXPECTED_DOCUMENT)?;
    distinct("worker", (1..).zip(workers.iter().map(|worker| one(&worker.to_string()))))
}

/// Returns the workers, each with its number, unless one can't be read or is listed twice.
fn distinct(what: &str, workers: impl Iterator<Item = (usize, Result<Listed, String>)>) -> Result<Vec<Listed>, String> {
    let mut seen = HashSet::new();
    let mut all = Vec::new();
    for (number, listed) in workers {
        let listed = listed.map_err(|problem| format!("{what} {number}: {problem}"))?;
        if !seen.insert(listed.id.clone()) {
            return Err(format!("{what} {number}: worker `{}` is listed twice", listed.id));
        }
        all.push(listed);
    }
    Ok(all)
}

fn one(text: &str) -> Result<Listed, String> {
    // An array would be read as the fields in their order.
    let text = if text.trim_start().starts_with('{') { text } else { "" };
    let worker: Described = serde_json::from_str(text).map_err(|error| {
        format!("expected one JSON object such as {{\"id\":\"w-1\",\"state\":\"running\"}}: {error}")
    })?;
    let handle = name(&worker.id).ok_or("`id` is neither text nor a number, or empty")?;
    let id = match &worker.worker_id {
        None | Some(Value::Null) => handle.clone(),
        Some(value) => name(value).unwrap_or_else(|| handle.clone()),
    };
    Ok(Listed {
        id: WorkerId::new(id),
        handle,
        state: State::parse(worker.state.as_deref().unwrap_or_default()),
        reason: worker.reason.as_deref().map(shortened).filter(|reason| !reason.is_empty()),
        started_at: worker.started_at.as_ref().and_then(time),
        success: worker.exit_code == Some(0),
    })
}

fn name(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if !text.is_empty() && text.chars().count() <= MAX_TEXT => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// RFC 3339, or seconds or milliseconds since 1970.
fn time(value: &Value) -> Option<Timestamp> {
    match value {
        Value::String(text) => {
            let at: jiff::Timestamp = text.parse().ok()?;
            u64::try_from(at.as_millisecond()).ok().map(Timestamp)
        }
        Value::Number(number) => {
            let number = number.as_u64()?;
            Some(Timestamp(if number < SECONDS_END { number.saturating_mul(1_000) } else { number }))
        }
        _ => None,
    }
}

fn shortened(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MAX_TEXT).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_with_what_it_says() {
        let text = br#"
{"id": 7, "state": "Running", "started_at": "2026-01-02T03:04:05Z", "worker_id": "mail-1", "extra": [1]}
{"id": "b", "state": "blocked", "reason": "no\nroom", "started_at": 1767323045, "worker_id": null}
{"id": "c", "state": "exited", "exit_code": 0, "started_at": 1767323045000}
{"id": "d", "state": "STAGED"}
{"id": "e"}
"#;
        let all = lines(text).unwrap();
        let at = Some(Timestamp(1_767_323_045_000));
        let shown: Vec<_> = all.iter().map(|one| (one.id.as_str(), one.handle.as_str(), one.started_at)).collect();
        assert_eq!(shown, [("mail-1", "7", at), ("b", "b", at), ("c", "c", at), ("d", "d", None), ("e", "e", None)]);
        let states: Vec<_> = all.iter().map(|one| one.state.clone()).collect();
        let unknown = |text: &str| State::Unknown(text.to_owned());
        assert_eq!(states, [State::Running, State::Blocked, State::Exited, unknown("STAGED"), unknown("")]);
        assert_eq!((all[1].reason.as_deref(), all[2].success, all[3].success), (Some("noroom"), true, false));
    }

    #[test]
    fn the_document_for_services_has_the_fields_that_are_read() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/command-openapi.yaml");
        let document: Value = serde_saphyr::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
        let names = |schema: &Value| schema["properties"].as_object().unwrap().keys().cloned().collect::<HashSet<_>>();
        let described = &document["components"]["schemas"]["Worker"];
        assert_eq!(names(described), names(schemars::schema_for!(Described).as_value()));
        for word in described["properties"]["state"]["examples"].as_array().unwrap() {
            let state = State::parse(word.as_str().unwrap());
            assert!(!matches!(state, State::Unknown(_)), "{word}");
        }
    }

    #[test]
    fn a_list_that_can_not_be_read_is_unknown_as_a_whole() {
        for (text, expected) in [
            ("{\"id\":\"a\"}\nError: no token\n", "line 2: expected one JSON object"),
            ("[{\"id\":\"a\"}]", "line 1: expected one JSON object"),
            ("{\"id\":\"\"}", "line 1: `id` is neither"),
            ("{\"state\":\"running\"}", "missing field `id`"),
            ("{\"id\":\"a\"}\n{\"id\":\"b\",\"worker_id\":\"a\"}", "line 2: worker `a` is listed twice"),
        ] {
            let error = lines(text.as_bytes()).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
        let at = |number, problem| format!("worker {number}: {problem}");
        for (text, expected) in [
            ("{\"workers\":[{\"id\":\"a\"},{\"id\":\"a\"}]}", at(2, "worker `a` is listed twice")),
            ("{\"workers\":[[\"a\"]]}", at(1, "expected one JSON object")),
            ("{\"workers\":[{\"id\":\"\"}]}", at(1, "`id` is neither")),
            ("{\"workers\":{}}", "expected a JSON object such as".to_owned()),
            ("{\"items\":[]}", "expected a JSON object such as".to_owned()),
            ("[[{\"id\":\"a\"}]]", "expected a JSON object such as".to_owned()),
            ("{\"workers\":[", "EOF".to_owned()),
            ("", "EOF".to_owned()),
        ] {
            let error = document(text.as_bytes()).unwrap_err();
            assert!(error.contains(&expected), "{text}: {error}");
        }
        assert_eq!(document(b"{\"workers\":[],\"more\":1}").unwrap(), []);
        assert!(lines(&[0xff]).unwrap_err().contains("not UTF-8"));
        assert_eq!(lines(b"\n").unwrap(), []);
    }
}

//! Passes lines that worker processes print to this process's log. A line that a worker logged keeps its own timestamp,
//! level and fields and gets the worker's id; any other text becomes the message of a new log line.

use std::fmt::{self, Write};

use serde_json::{Map, Value};
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::Writer,
        time::{FormatTime, SystemTime},
    },
    registry::LookupSpan,
};

use super::log_format::LogFormat;
use crate::model::{WorkerId, WorkerType};

/// Target of these events, by which [`PassOn`] recognizes them. It is below `swarm`, so that filters for `swarm` apply.
const TARGET: &str = "swarm::worker_output";

/// A worker process printed a line.
#[derive(Clone, Copy, Debug)]
pub struct WorkerPrinted<'a> {
    /// Type of the worker.
    pub worker_type: &'a WorkerType,
    /// Id of the worker.
    pub worker_id: &'a WorkerId,
    /// Text of the line, without its line ending.
    pub line: &'a str,
}

impl WorkerPrinted<'_> {
    /// Logs the line at the level of the worker's log line; at `info` if it is not a log line.
    pub fn emit(self) {
        let Self { worker_type, worker_id, line } = self;
        macro_rules! at {
            ($level:ident) => {
                tracing::event!(target: TARGET, Level::$level, %worker_type, %worker_id, "{line}")
            };
        }
        match Line::parse(line).level() {
            Level::ERROR => at!(ERROR),
            Level::WARN => at!(WARN),
            Level::INFO => at!(INFO),
            Level::DEBUG => at!(DEBUG),
            Level::TRACE => at!(TRACE),
        }
    }
}

/// A parsed line.
enum Line<'a> {
    /// A line of a JSON log.
    Json(&'a str, Map<String, Value>),
    /// A line of a text log: its timestamp, its level and the rest.
    Text(&'a str, Level, &'a str),
    /// Any other text.
    Other,
}

impl<'a> Line<'a> {
    fn parse(line: &'a str) -> Self {
        if line.starts_with('{') {
            return match serde_json::from_str(line) {
                Ok(Value::Object(fields)) => Self::Json(line, fields),
                _ => Self::Other,
            };
        }
        let text = || {
            let (timestamp, rest) = line.split_once(' ')?;
            let (level, rest) = rest.trim_start().split_once(' ')?;
            // `2026-01-31T14:03:59.123456Z`
            let is_time = timestamp.len() >= 20 && timestamp.ends_with('Z') && timestamp.as_bytes()[10] == b'T';
            is_time.then_some(Self::Text(timestamp, level.parse().ok()?, rest))
        };
        text().unwrap_or(Self::Other)
    }

    fn level(&self) -> Level {
        match self {
            Self::Json(_, fields) => {
                fields.get("level").and_then(Value::as_str).and_then(|level| level.parse().ok()).unwrap_or(Level::INFO)
            }
            Self::Text(_, level, _) => *level,
            Self::Other => Level::INFO,
        }
    }
}

/// Formats the lines of workers, and leaves all other events to `inner`.
pub(super) struct PassOn<F> {
    inner: F,
    format: LogFormat,
}

impl<F> PassOn<F> {
    pub(super) fn new(inner: F, format: LogFormat) -> Self {
        Self { inner, format }
    }
}

impl<S, N, F> FormatEvent<S, N> for PassOn<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        if event.metadata().target() != TARGET {
            return self.inner.format_event(context, writer, event);
        }
        let mut printed = Printed::default();
        event.record(&mut printed);
        let line = Line::parse(&printed.line);
        match (self.format, line) {
            (LogFormat::Json, Line::Json(text, fields)) => printed.json(writer, text, &fields),
            (LogFormat::Json, Line::Text(timestamp, level, rest)) => {
                let fields = [("timestamp", timestamp), ("level", level.as_str()), ("message", rest)];
                let fields: Map<String, Value> =
                    fields.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
                printed.json(writer, &Value::Object(fields.clone()).to_string(), &fields)
            }
            (LogFormat::Text, Line::Text(timestamp, level, rest)) => printed.text(writer, timestamp, level, rest),
            (LogFormat::Text, _) => {
                let mut now = String::new();
                SystemTime.format_time(&mut Writer::new(&mut now))?;
                printed.text(writer, &now, *event.metadata().level(), &printed.line)
            }
            (LogFormat::Json, Line::Other) => self.inner.format_event(context, writer, event),
        }
    }
}

/// Fields of a [`WorkerPrinted`] event.
#[derive(Default)]
struct Printed {
    worker_type: String,
    worker_id: String,
    line: String,
}

impl Printed {
    /// Writes the worker's own object, with the fields that name the worker in front unless the object has them. The
    /// rest is copied character by character: parsing and writing it would change its numbers.
    fn json(&self, mut writer: Writer<'_>, text: &str, fields: &Map<String, Value>) -> fmt::Result {
        let own = [("worker_type", &self.worker_type), ("worker_id", &self.worker_id)];
        let added = own.into_iter().filter(|(name, _)| !fields.contains_key(*name));
        let added: Vec<String> =
            added.map(|(name, value)| format!("\"{name}\":{}", Value::from(value.as_str()))).collect();
        let rest = text[1..].trim_start();
        let comma = if added.is_empty() || rest.starts_with('}') { "" } else { "," };
        writeln!(writer, "{{{}{comma}{rest}", added.join(","))
    }

    /// Writes timestamp, level, worker and the rest, without control characters, which could control a terminal.
    fn text(&self, mut writer: Writer<'_>, timestamp: &str, level: Level, rest: &str) -> fmt::Result {
        let rest: String =
            rest.chars().map(|c| if c.is_control() && c != '\t' { char::REPLACEMENT_CHARACTER } else { c }).collect();
        let level = if writer.has_ansi_escapes() {
            let colour = match level {
                Level::ERROR => 31,
                Level::WARN => 33,
                Level::INFO => 32,
                Level::DEBUG => 34,
                Level::TRACE => 35,
            };
            format!("\x1b[{colour}m{level:>5}\x1b[0m")
        } else {
            format!("{level:>5}")
        };
        writeln!(writer, "{timestamp} {level} {}: {rest}", self.worker_id)
    }
}

impl Visit for Printed {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = match field.name() {
            "worker_type" => &mut self.worker_type,
            "worker_id" => &mut self.worker_id,
            "message" => &mut self.line,
            _ => return,
        };
        // Writing to a String can't fail. The fields formatted here are text whose `Debug` form is its `Display` form.
        let _ = write!(text, "{value:?}");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// Returns the log after worker `w-1` has printed `lines`.
    fn logged(format: LogFormat, lines: &[&str]) -> Vec<String> {
        let sink = Sink::default();
        let writer = sink.clone();
        let log = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone());
        let emit = || {
            let (worker_type, worker_id) = (&WorkerType::new("w"), &WorkerId::new("w-1"));
            for line in lines {
                WorkerPrinted { worker_type, worker_id, line }.emit();
            }
        };
        match format {
            LogFormat::Text => {
                let inner = tracing_subscriber::fmt::format();
                tracing::subscriber::with_default(log.event_format(PassOn::new(inner, format)).finish(), emit);
            }
            LogFormat::Json => {
                let log = log.json();
                let inner = tracing_subscriber::fmt::format().json().flatten_event(true);
                tracing::subscriber::with_default(log.event_format(PassOn::new(inner, format)).finish(), emit);
            }
        }
        let text = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    const AT: &str = "2026-01-31T14:03:59.123456Z";

    #[test]
    fn a_text_line_keeps_its_timestamp_and_level_and_gets_the_workers_id() {
        let line = format!("{AT}  WARN swarm::worker: slow job=\"7\"");
        assert_eq!(logged(LogFormat::Text, &[&line]), [format!("{AT}  WARN w-1: swarm::worker: slow job=\"7\"")]);
    }

    #[test]
    fn a_json_line_is_passed_on_with_the_workers_id_and_without_a_second_timestamp() {
        let line = format!(
            "{{\"timestamp\":\"{AT}\",\"level\":\"WARN\",\"message\":\"slow\",\"n\":1.50,\"worker_type\":\"w\"}}"
        );
        let passed = logged(LogFormat::Json, &[&line, "{}"]);
        assert_eq!(passed[0], line.replacen('{', "{\"worker_id\":\"w-1\",", 1), "not a digit is changed");
        assert_eq!(passed[1], "{\"worker_type\":\"w\",\"worker_id\":\"w-1\"}");
    }

    #[test]
    fn a_text_line_in_a_json_log_becomes_an_object_with_its_own_time() {
        let passed = logged(LogFormat::Json, &[&format!("{AT} ERROR gone")]);
        let line: Value = serde_json::from_str(&passed[0]).unwrap();
        let expected = serde_json::json!({
            "timestamp": AT, "level": "ERROR", "message": "gone", "worker_type": "w", "worker_id": "w-1",
        });
        assert_eq!(line, expected);
    }

    #[test]
    fn other_text_is_a_message_and_can_do_nothing_to_a_terminal() {
        let passed = logged(LogFormat::Text, &["Traceback \u{1b}[2J", "{not json"]);
        assert!(passed[0].ends_with("  INFO w-1: Traceback \u{fffd}[2J"), "{passed:?}");
        assert!(passed[1].ends_with("  INFO w-1: {not json"), "{passed:?}");
        let passed = logged(LogFormat::Json, &["Traceback"]);
        let line: Value = serde_json::from_str(&passed[0]).unwrap();
        assert_eq!((&line["message"], &line["worker_id"]), (&"Traceback".into(), &"w-1".into()));
    }
}

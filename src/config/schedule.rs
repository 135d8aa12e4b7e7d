//! `[[worker_types.NAME.scaling.schedule]]`: time windows with a higher minimum or a lower maximum of workers.
//!
//! Text that is not a valid time is kept, so that validation can name its line and the cure. Reads no clock: `policy`
//! applies the windows.

use std::{borrow::Cow, str::FromStr, time::Duration};

use croner::{
    Cron,
    parser::{CronParser, Seconds, Year},
};
use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// One window.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ScheduleWindow {
    /// When it opens: a cron expression of five fields (minute, hour, day of month, month, day of week), or of six with
    /// seconds in front.
    pub start: Said<Cron>,
    /// How long it stays open, such as `"10h"` or `"1h 30m"`. Or `end`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration: Option<Said<Duration>>,
    /// When it closes: a cron expression. Or `duration`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end: Option<Said<Cron>>,
    /// Time zone of `start` and `end`, such as `"Europe/Berlin"`.
    pub time_zone: Said<TimeZone>,
    /// Minimum workers while the window is open. 0: as outside of the window.
    #[schemars(range(max = 10_000))]
    pub min_workers: u32,
    /// Maximum workers while the window is open. Nobody is started beyond it; workers beyond it leave as they become
    /// idle.
    #[schemars(range(max = 10_000))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_workers: Option<u32>,
}

impl ScheduleWindow {
    /// Returns the problems of the window by itself: the key, and what to do.
    pub(super) fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        let times = [("start", Some(&self.start)), ("end", self.end.as_ref())];
        problems.extend(times.into_iter().filter_map(|(key, cron)| Some((key, cron?.problem()?))));
        problems.extend(self.time_zone.problem().map(|problem| ("time_zone", problem)));
        match (&self.duration, &self.end) {
            (Some(duration), None) => problems.extend(duration.problem().map(|problem| ("duration", problem))),
            (None, Some(_)) => {}
            (Some(_), Some(_)) => problems.push(("duration", "there is an end too; drop one of them".to_owned())),
            (None, None) => problems.push(("start", "nothing closes it; add duration or end".to_owned())),
        }
        match self.max_workers {
            None if self.min_workers == 0 => problems.push((
                "min_workers",
                "it is missing; say how many workers there are at least then, or at most with max_workers".to_owned(),
            )),
            Some(max) if max < self.min_workers => {
                let min = self.min_workers;
                let problem = format!("{max} is less than min_workers = {min}; raise max_workers or lower min_workers");
                problems.push(("max_workers", problem));
            }
            _ => {}
        }
        problems
    }

    /// Returns whether the window closes exactly when it opens, and so is always open.
    pub(super) fn is_always_open(&self) -> bool {
        let words =
            |said: &Said<Cron>| -> Vec<String> { said.text.split_whitespace().map(str::to_uppercase).collect() };
        self.end.as_ref().is_some_and(|end| words(end) == words(&self.start))
    }
}

/// A setting's text and its parsed value, if the text is valid.
#[derive(Clone, Debug, PartialEq)]
pub struct Said<T> {
    text: String,
    meaning: Option<T>,
}

/// A value that is parsed from text.
pub trait Meaning: Sized {
    /// Parses `text`. An error says what is wrong, and the cure.
    fn of(text: &str) -> Result<Self, String>;

    /// The default text.
    const DEFAULT: &'static str;
}

impl<T: Meaning> Said<T> {
    /// Returns the parsed value; `None` only before validation.
    pub fn get(&self) -> Option<&T> {
        self.meaning.as_ref()
    }

    fn problem(&self) -> Option<String> {
        T::of(&self.text).err()
    }
}

impl<T: Meaning> From<String> for Said<T> {
    fn from(text: String) -> Self {
        Self { meaning: T::of(&text).ok(), text }
    }
}

impl<T: Meaning> From<&str> for Said<T> {
    fn from(text: &str) -> Self {
        Self::from(text.to_owned())
    }
}

impl<T: Meaning> Default for Said<T> {
    fn default() -> Self {
        Self::from(T::DEFAULT)
    }
}

impl<T> Serialize for Said<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de, T: Meaning> Deserialize<'de> for Said<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::from)
    }
}

impl<T> JsonSchema for Said<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        Cow::Borrowed("Said")
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        String::json_schema(generator)
    }
}

impl Meaning for Cron {
    const DEFAULT: &'static str = "";

    fn of(text: &str) -> Result<Self, String> {
        const FORM: &str = "write MINUTE HOUR DAY MONTH WEEKDAY, such as \"0 8 * * MON-FRI\"";
        if text.trim().is_empty() {
            return Err(format!("it is missing; {FORM}"));
        }
        let parser = CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed).build();
        let cron = parser
            .parse(text)
            .map_err(|error| format!("{text:?} is no cron expression ({}); {FORM}", plain(&error.to_string())))?;
        // Without a year the time recurs, or it never occurs.
        match cron.find_next_occurrence(&Timestamp::UNIX_EPOCH.to_zoned(TimeZone::UTC), true) {
            Ok(_) => Ok(cron),
            Err(_) => Err(format!("{text:?} never comes; name a day that there is")),
        }
    }
}

impl Meaning for TimeZone {
    const DEFAULT: &'static str = "UTC";

    /// Prefers the machine's time zone database, which may be newer than the one in the binary.
    fn of(text: &str) -> Result<Self, String> {
        let found = Self::get(text).or_else(|_| jiff::tz::TimeZoneDatabase::bundled().get(text));
        found.map_err(|_| {
            format!("there is no time zone {text:?}; write a name of the IANA database, such as \"Europe/Berlin\"")
        })
    }
}

impl Meaning for Duration {
    const DEFAULT: &'static str = "";

    fn of(text: &str) -> Result<Self, String> {
        let read = SignedDuration::from_str(text).ok().and_then(|duration| Self::try_from(duration).ok());
        read.filter(|duration| *duration >= Self::from_secs(1)).ok_or_else(|| {
            format!("{text:?} is no length of time; write hours, minutes or seconds, such as \"1h 30m\"")
        })
    }
}

/// Returns the cron parser's message in a form that fits into ours.
fn plain(message: &str) -> String {
    message.trim_end_matches('.').to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window() -> ScheduleWindow {
        ScheduleWindow {
            start: "0 8 * * MON-FRI".into(),
            duration: Some("10h".into()),
            time_zone: "Europe/Berlin".into(),
            min_workers: 2,
            ..ScheduleWindow::default()
        }
    }

    fn problems(window: &ScheduleWindow) -> Vec<String> {
        window.problems().into_iter().map(|(key, problem)| format!("{key}: {problem}")).collect()
    }

    #[test]
    fn what_is_written_as_it_should_be_has_no_problems() {
        assert_eq!(problems(&window()), [""; 0]);
        let by_the_clock = ScheduleWindow { duration: None, end: Some("30 59 17 * * *".into()), ..window() };
        assert_eq!(problems(&by_the_clock), [""; 0]);
    }

    #[test]
    fn every_problem_is_told_with_its_cure() {
        let wrong = ScheduleWindow {
            start: "0 25 * * *".into(),
            end: Some("0 0 30 2 *".into()),
            duration: None,
            time_zone: "Mars/Olympus".into(),
            min_workers: 0,
            max_workers: None,
        };
        let told = problems(&wrong);
        let parts =
            ["start: \"0 25 * * *\" is no cron", "end: \"0 0 30 2 *\" never comes", "\"Mars/", "min_workers: it"];
        assert_eq!(told.len(), parts.len(), "{told:?}");
        for part in parts {
            assert!(told.iter().any(|problem| problem.contains(part)), "{part}: {told:?}");
        }
        for (duration, end, part) in [
            (None, None, "start: nothing closes it"),
            (Some("1h"), Some("0 9 * * *"), "duration: there is an end too"),
            (Some("1d"), None, "duration: \"1d\" is no length of time"),
            (Some("-1h"), None, "duration: \"-1h\" is no length of time"),
        ] {
            let (duration, end) = (duration.map(Said::from), end.map(Said::from));
            assert!(problems(&ScheduleWindow { duration, end, ..window() })[0].contains(part), "{part}");
        }
        let crossed = ScheduleWindow { max_workers: Some(1), ..window() };
        assert!(problems(&crossed)[0].starts_with("max_workers: 1 is less than min_workers = 2"));
        assert_eq!(problems(&ScheduleWindow { min_workers: 0, max_workers: Some(0), ..window() }), [""; 0]);
        assert!(problems(&ScheduleWindow { start: "0 8 * * * 2020 1 1".into(), ..window() })[0].contains("cron"));
    }

    #[test]
    fn it_is_written_as_it_was_read() {
        let text = "start = \"0 8 * * MON-FRI\"\nduration = \"10h\"\ntime_zone = \"Europe/Berlin\"\nmin_workers = 2\n";
        let read: ScheduleWindow = toml::from_str(text).expect("it is a window");
        assert_eq!(read, window());
        assert_eq!(toml::to_string(&read).expect("a table"), text);
    }

    #[test]
    fn a_machine_without_time_zones_has_those_in_the_binary() {
        assert!(jiff::tz::TimeZoneDatabase::bundled().get("Europe/Berlin").is_ok());
    }
}

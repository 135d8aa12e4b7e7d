//! The commands of a worker type, and the values that their placeholders stand for.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    config::{CommandSettings, Settings, WorkerTypeSettings, placeholders},
    model::WorkerType,
};

/// How to run the workers of one type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandSpec {
    /// The commands and their limits.
    pub settings: CommandSettings,
    /// Whether its workers can be asked to drain: those without heartbeats can't.
    pub drains: bool,
    /// How long a worker may take to leave when the scaler stops and drains.
    pub drain_timeout: Duration,
}

impl CommandSpec {
    /// Returns the settings of one worker type.
    pub fn from_settings(settings: &WorkerTypeSettings) -> Self {
        Self {
            settings: CommandSettings::clone(&settings.command),
            drains: settings.worker.heartbeats,
            drain_timeout: settings.scaling.drain_timeout(),
        }
    }

    /// Returns the settings of all worker types that are enabled.
    pub fn all(settings: &Settings) -> BTreeMap<WorkerType, Self> {
        settings.enabled().map(|(name, of)| (WorkerType::new(name), Self::from_settings(of))).collect()
    }

    /// Whether the platform has only a number of workers.
    pub(super) fn by_number(&self) -> bool {
        self.settings.by_number()
    }
}

/// Replaces the placeholders of each word.
pub(super) fn filled(words: &[String], values: &[(&str, &str)]) -> Vec<String> {
    words.iter().map(|word| filled_word(word, values)).collect()
}

/// In one pass, so that a value is never taken for a placeholder.
fn filled_word(word: &str, values: &[(&str, &str)]) -> String {
    let mut filled = String::with_capacity(word.len());
    let mut rest = word;
    while let Some(at) = rest.find('{') {
        let (before, from) = rest.split_at(at);
        filled.push_str(before);
        let named = placeholders(from).next().filter(|name| from[1..].starts_with(name));
        let value = named.and_then(|name| values.iter().find(|(known, _)| *known == name));
        if let Some((name, value)) = value {
            filled.push_str(value);
            rest = &from[name.len() + 2..];
        } else {
            filled.push('{');
            rest = &from[1..];
        }
    }
    filled.push_str(rest);
    filled
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_replace_their_placeholders_once() {
        let values = [("id", "{type}"), ("type", "mail")];
        for (word, expected) in [
            ("stop", "stop"),
            ("{id}", "{type}"),
            ("{type}={id}", "mail={type}"),
            ("{{.ID}} {\"a\":1} {other} {", "{{.ID}} {\"a\":1} {other} {"),
            ("{ {type}", "{ mail"),
            ("é{type}é", "émailé"),
        ] {
            assert_eq!(filled_word(word, &values), expected);
        }
    }
}

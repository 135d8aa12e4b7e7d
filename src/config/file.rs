//! Finds the configuration file and parses it into a tree of values with their lines. Does not judge the values.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    error::{ConfigError, ConfigErrors},
    origin::{Layers, Origin, element_of, join},
};

/// Paths that are searched if no file is named, in this order.
pub const SEARCH_PATHS: [&str; 3] = ["swarm.toml", "config/swarm.toml", "/etc/swarm/swarm.toml"];

/// Returns the file to read: the one named by flag, else by variable, else the first of `search` that exists, else
/// none.
pub(super) fn locate(
    flag: Option<&Path>,
    variable: Option<String>,
    search: &[PathBuf],
) -> Result<Option<PathBuf>, ConfigErrors> {
    let (named, by) = match (flag, variable) {
        (Some(path), _) => (path.to_owned(), Origin::Flag("--config")),
        (None, Some(path)) => (PathBuf::from(path), Origin::Environment("SWARM_CONFIG".to_owned())),
        (None, None) => return Ok(search.iter().find(|path| path.is_file()).cloned()),
    };
    if named.exists() {
        return Ok(Some(named));
    }
    let message =
        format!("no such file: {}; create it (`config/swarm.toml` is an example) or drop this", named.display());
    Err(ConfigErrors::one(ConfigError::new(by, message)))
}

/// Reads `path`. The errors are those of reading and of TOML itself, as many as the parser can find.
pub(super) fn read(path: &Path) -> Result<Layers, ConfigErrors> {
    let whole = |message: String| {
        ConfigErrors::one(ConfigError::new(Origin::File { path: path.to_owned(), line: None }, message))
    };
    let bytes = std::fs::read(path).map_err(|error| whole(format!("can't be read: {error}")))?;
    let text = String::from_utf8(bytes).map_err(|_| whole("is not UTF-8 text; save it as UTF-8".to_owned()))?;
    parse(path, &text)
}

/// Parses `text`; errors name `path`.
pub(super) fn parse(path: &Path, text: &str) -> Result<Layers, ConfigErrors> {
    let mut reader = Reader { path, lines: Lines::of(text), layers: Layers::default(), errors: Vec::new() };
    let (table, syntax) = DeTable::parse_recoverable(text);
    for error in syntax {
        // Only the message: the parser's own rendering quotes the line, which may contain a password.
        let message = format!("not valid TOML: {}", error.message().replace('\n', ", "));
        reader.reject(error.span().map_or(0, |span| span.start), message);
    }
    if reader.errors.is_empty() {
        reader.layers.tree = reader.table("", table.get_ref());
    }
    // One mistake often spoils the rest of its line, so the first error of a line is enough.
    reader.errors.dedup_by(|later, first| later.origin == first.origin);
    if reader.errors.is_empty() { Ok(reader.layers) } else { Err(ConfigErrors::new(reader.errors)) }
}

struct Reader<'a> {
    path: &'a Path,
    lines: Lines,
    layers: Layers,
    errors: Vec<ConfigError>,
}

impl Reader<'_> {
    fn origin(&self, offset: usize) -> Origin {
        Origin::File { path: self.path.to_owned(), line: Some(self.lines.line_of(offset)) }
    }

    fn reject(&mut self, offset: usize, message: String) {
        self.errors.push(ConfigError::new(self.origin(offset), message));
    }

    fn table(&mut self, at: &str, table: &DeTable<'_>) -> Value {
        let mut entries = Map::new();
        for (key, value) in table {
            let at = join(at, key.get_ref());
            self.layers.note(at.clone(), self.origin(key.span().start));
            entries.insert(key.get_ref().to_string(), self.value(&at, value));
        }
        Value::Object(entries)
    }

    fn value(&mut self, at: &str, value: &Spanned<DeValue<'_>>) -> Value {
        let offset = value.span().start;
        match value.get_ref() {
            DeValue::String(text) => Value::from(text.as_ref()),
            DeValue::Boolean(on) => Value::from(*on),
            DeValue::Array(elements) => elements.iter().enumerate().map(|element| self.element(at, element)).collect(),
            DeValue::Table(table) => self.table(at, table),
            DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
                Ok(number) => Value::from(number),
                Err(_) => self.refuse(offset, format!("{number} is too large a number; the largest is {}", i64::MAX)),
            },
            DeValue::Float(number) => match number.as_str().parse::<f64>() {
                Ok(finite) if finite.is_finite() => Value::from(finite),
                _ => self.refuse(offset, format!("{number} is not a finite number; no setting takes it")),
            },
            DeValue::Datetime(time) => {
                self.refuse(offset, format!("no setting is a date or time; put quotes around {time}"))
            }
        }
    }

    /// Records the line of a table in an array, for errors about missing keys.
    fn element(&mut self, array: &str, (index, element): (usize, &Spanned<DeValue<'_>>)) -> Value {
        let at = element_of(array, index);
        if element.get_ref().is_table() {
            self.layers.note(at.clone(), self.origin(element.span().start));
        }
        self.value(&at, element)
    }

    /// Rejects a value; the tree gets null in its place.
    fn refuse(&mut self, offset: usize, message: String) -> Value {
        self.reject(offset, message);
        Value::Null
    }
}

/// Converts byte offsets to line numbers.
struct Lines {
    starts: Vec<usize>,
}

impl Lines {
    fn of(text: &str) -> Self {
        Self { starts: text.match_indices('\n').map(|(at, _)| at + 1).collect() }
    }

    fn line_of(&self, offset: usize) -> usize {
        self.starts.partition_point(|start| *start <= offset) + 1
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parsed(text: &str) -> Result<Layers, String> {
        parse(Path::new("f.toml"), text).map_err(|errors| errors.to_string())
    }

    #[test]
    fn every_value_remembers_its_line() {
        let text = "a = 1\n\n[b.c]\nd = [\n  \"x\",\n]\ne = { f = true }\n[[g]]\nh = 1\n[[g]]\nh = 2\n";
        let layers = parsed(text).unwrap();
        let (b, g) = (json!({ "c": { "d": ["x"], "e": { "f": true } } }), json!([{ "h": 1 }, { "h": 2 }]));
        assert_eq!(layers.tree, json!({ "a": 1, "b": b, "g": g }));
        let places = [
            ("/a", 1),
            ("/b", 3),
            ("/b/c", 3),
            ("/b/c/d", 4),
            ("/b/c/e/f", 7),
            ("/g/0/h", 9),
            ("/g/1", 10),
            ("/g/1/h", 11),
        ];
        for (pointer, line) in places {
            assert_eq!(layers.origins.of(pointer).to_string(), format!("f.toml:{line}"), "{pointer}");
        }
    }

    #[test]
    fn a_syntax_error_names_its_line_and_hides_its_text() {
        let errors = parsed("a = 1\nredis_url = redis://:hunter2@host\n[b\n").unwrap_err();
        assert!(errors.starts_with("f.toml:2: not valid TOML: "), "{errors}");
        assert!(errors.contains("\nf.toml:3: not valid TOML: "), "{errors}");
        assert!(!errors.contains("hunter2"), "{errors}");
    }

    #[test]
    fn values_that_no_setting_takes_are_all_refused() {
        let errors = parsed("a = 99999999999999999999\nb = nan\nc = 2024-01-01\nd = 0xff\n").unwrap_err();
        let places: Vec<_> = errors.lines().map(|line| line.split(": ").next().unwrap()).collect();
        assert_eq!(places, ["f.toml:1", "f.toml:2", "f.toml:3"], "{errors}");
    }

    #[test]
    fn the_named_file_wins_and_must_exist() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (dir.path().join("one"), dir.path().join("two"));
        std::fs::write(&one, "").unwrap();
        std::fs::write(&two, "").unwrap();
        let absent = dir.path().join("absent");
        let text = |path: &Path| Some(path.display().to_string());
        assert_eq!(locate(Some(&one), text(&two), &[]).unwrap().as_deref(), Some(&*one));
        assert_eq!(locate(None, text(&two), std::slice::from_ref(&one)).unwrap().as_deref(), Some(&*two));
        assert_eq!(locate(None, None, &[absent.clone(), two.clone(), one]).unwrap(), Some(two));
        assert_eq!(locate(None, None, std::slice::from_ref(&absent)).unwrap(), None);
        assert!(locate(Some(&absent), None, &[]).unwrap_err().to_string().starts_with("--config: no such file"));
        assert!(locate(None, text(&absent), &[]).unwrap_err().to_string().starts_with("SWARM_CONFIG: no such file"));
    }
}

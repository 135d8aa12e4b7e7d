//! Masks arguments of jobs in texts for people: a handler's error may quote them, and an error is read in logs, dead
//! letters and answers. Pure.

use serde_json::Value;

use super::{Job, digits};

/// Stands in place of a masked value.
const MASK: &str = "***";
/// Names all arguments.
const ALL: &str = "*";
/// Characters of a value that is masked within a word too. A shorter value would be found in words that have nothing to
/// do with it.
const LONG: usize = 4;
/// Maximum values that are looked for: each costs time in each character of the text.
const MAX_VALUES: usize = 256;

impl Job {
    /// Returns `text` with `***` in place of the values of the arguments in `masked`: names of named arguments,
    /// positions of positional ones, from 0 on, or `*` for all of them. Of an argument that is a list or an object,
    /// every value in it is masked. With too many values to look for, the whole text is masked.
    pub fn masked(&self, masked: &[String], text: String) -> String {
        if masked.is_empty() {
            return text;
        }
        let is_masked = |name: &str| masked.iter().any(|one| one == ALL || one == name);
        let named = self.kwargs.iter().filter(|(name, _)| is_masked(name)).map(|(_, value)| value);
        let positional = self.args.iter().enumerate().filter(|(at, _)| is_masked(&at.to_string()));
        let mut values = Vec::new();
        if !named.chain(positional.map(|(_, value)| value)).all(|value| collect(value, &mut values)) {
            return format!("{MASK} (the text can't be shown: the job has more than {MAX_VALUES} masked values)");
        }
        // The longest first, because one value may begin with another.
        values.sort_unstable_by(|one, other| other.len().cmp(&one.len()).then_with(|| one.cmp(other)));
        values.dedup();
        replaced(&text, &values)
    }
}

/// Adds the texts of a value and of those in it; returns `false` if there are too many.
fn collect(value: &Value, texts: &mut Vec<String>) -> bool {
    if let Some(digits) = digits(value) {
        texts.push(digits.to_owned());
        return texts.len() <= MAX_VALUES;
    }
    match value {
        Value::Null | Value::Bool(_) => {}
        Value::Number(number) => texts.push(number.to_string()),
        Value::String(text) => {
            // As people, JSON and a Rust program write it.
            let quoted = [value.to_string(), format!("{text:?}")];
            let inner = quoted.iter().map(|quoted| quoted[1..quoted.len() - 1].to_owned());
            let spellings = std::iter::once(text.clone()).chain(inner.filter(|inner| inner != text));
            texts.extend(spellings.filter(|spelling| !spelling.trim().is_empty()));
        }
        Value::Array(values) => return values.iter().all(|value| collect(value, texts)),
        Value::Object(members) => return members.values().all(|value| collect(value, texts)),
    }
    texts.len() <= MAX_VALUES
}

fn replaced(text: &str, values: &[String]) -> String {
    let (mut masked, mut rest, mut before) = (String::with_capacity(text.len()), text, None);
    while let Some(first) = rest.chars().next() {
        let is_here = |value: &&String| {
            let after = || rest[value.len()..].chars().next();
            rest.starts_with(value.as_str())
                && (value.chars().nth(LONG - 1).is_some() || ![before, after()].into_iter().flatten().any(is_of_word))
        };
        let (shown, length, last) = match values.iter().find(is_here) {
            Some(value) => (MASK, value.len(), value.chars().next_back()),
            None => (&rest[..first.len_utf8()], first.len_utf8(), Some(first)),
        };
        masked.push_str(shown);
        (rest, before) = (&rest[length..], last);
    }
    masked
}

fn is_of_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn job() -> Job {
        let job = json!({
            "id": "1", "type": "t.x", "args": ["#name", "hunter2", 7],
            "kwargs": { "token": "a\"b\nc", "card": { "number": 4_111_111, "pin": "12" }, "user": "ann", "flag": true },
        });
        serde_json::from_value(job).unwrap()
    }

    #[test]
    fn named_and_positional_arguments_are_masked() {
        let said = "no #name for hunter2 of ann, nor 4111111 with 12 in 1234, 7 times; hunter22";
        for (masked, expected) in [
            (&[][..], said),
            (&["1"], "no #name for *** of ann, nor 4111111 with 12 in 1234, 7 times; ***2"),
            (&["card"], "no #name for hunter2 of ann, nor *** with *** in 1234, 7 times; hunter22"),
            (&["user", "2"], "no #name for hunter2 of ***, nor 4111111 with 12 in 1234, *** times; hunter22"),
            (&["*"], "no *** for *** of ***, nor *** with *** in 1234, *** times; ***2"),
            (&["nothing", "flag", "9"], said),
        ] {
            let masked: Vec<String> = masked.iter().map(|&name: &&str| name.to_owned()).collect();
            assert_eq!(job().masked(&masked, said.to_owned()), expected, "{masked:?}");
        }
    }

    #[test]
    fn a_quoted_value_is_found() {
        let said = "`a\"b\nc` in {\"token\":\"a\\\"b\\nc\"}";
        assert_eq!(job().masked(&["token".to_owned()], said.to_owned()), "`***` in {\"token\":\"***\"}");
    }

    #[test]
    fn with_too_many_values_nothing_is_shown() {
        let mut job = job();
        job.args = vec![json!((0..300).collect::<Vec<u32>>())];
        let masked = job.masked(&["0".to_owned()], "it says hunter2".to_owned());
        assert!(masked.starts_with("***") && !masked.contains("hunter2"), "{masked}");
    }
}

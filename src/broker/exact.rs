//! JSON whose numbers keep their digits. `serde_json` reads a number as a 64-bit integer or as a double, so a larger
//! integer changes silently, and `1e400` is an error. Its feature `arbitrary_precision` would keep the digits, but
//! changes how every other type of this program and of its libraries is read. This module reads a number that fits
//! neither type as a placeholder [`Value`], and writes the placeholder as the original digits. The form of the
//! placeholder is private to this module.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    sync::{
        LazyLock,
        atomic::{AtomicBool, Ordering},
    },
};

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use uuid::Uuid;

/// The only name in a placeholder object. It is random, so no job can contain one by itself.
static NAME: LazyLock<String> = LazyLock::new(|| format!("swarm:number:{}", Uuid::now_v7()));

/// Whether this process has read such a number: most processes never do.
static ANY: AtomicBool = AtomicBool::new(false);
/// Digits that a double always preserves.
const SAFE_DIGITS: usize = 15;
/// Maximum digits with which a double is written.
const DOUBLE_DIGITS: usize = 17;

/// Reads JSON. A number in a [`Value`] keeps its digits if [`to_string`] writes it.
///
/// # Errors
/// Those of `serde_json`.
pub fn from_slice<T: DeserializeOwned>(json: &[u8]) -> serde_json::Result<T> {
    serde_json::from_slice(&marked(json))
}

/// Writes JSON, with the original digits of the numbers that [`from_slice`] has read.
///
/// # Panics
/// If a map in `value` has keys that are not strings.
pub fn to_string<T: Serialize>(value: &T) -> String {
    unmarked(serde_json::to_string(value).expect("keys are strings and values are JSON already"))
}

/// Returns the digits of a number that no 64-bit integer and no double can hold; `None` for any other value.
pub fn digits(value: &Value) -> Option<&str> {
    let members = value.as_object().filter(|members| members.len() == 1)?;
    members.get(NAME.as_str())?.as_str()
}

/// Returns whether [`unmarked`] may have placeholders to replace.
pub(super) fn any_marked() -> bool {
    ANY.load(Ordering::Relaxed)
}

/// Replaces the placeholders in `json`, which has no line breaks, by the original digits.
pub(super) fn unmarked(json: String) -> String {
    if !any_marked() {
        return json;
    }
    let before = format!("{{\"{}\":\"", *NAME);
    let mut parts = json.split(before.as_str());
    let mut written = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.split_once("\"}") {
            Some((number, rest)) if is_number(number) => written.extend([number, rest]),
            _ => written.extend([before.as_str(), part]),
        }
    }
    written
}

/// Replaces each number that a [`Value`] can't hold by a placeholder object. Text that is not valid JSON stays invalid.
fn marked(json: &[u8]) -> Cow<'_, [u8]> {
    let (mut marked, mut copied, mut at) = (Vec::new(), 0, 0);
    while let Some(byte) = json.get(at) {
        match byte {
            b'"' => at = end_of_string(json, at + 1),
            b'-' | b'0'..=b'9' => {
                let rest = &json[at..];
                let length = rest.iter().position(|byte| !b"+-.0123456789Ee".contains(byte)).unwrap_or(rest.len());
                if let Ok(number) = std::str::from_utf8(&rest[..length])
                    && is_number(number)
                    && !is_kept(number)
                {
                    marked.extend_from_slice(&json[copied..at]);
                    let stand_in = BTreeMap::from([(NAME.as_str(), number)]);
                    serde_json::to_writer(&mut marked, &stand_in).expect("memory takes it, and names are strings");
                    copied = at + length;
                }
                at += length;
            }
            _ => at += 1,
        }
    }
    if copied == 0 {
        return Cow::Borrowed(json);
    }
    ANY.store(true, Ordering::Relaxed);
    marked.extend_from_slice(&json[copied..]);
    Cow::Owned(marked)
}

/// Returns the position after the string that began before `at`.
fn end_of_string(json: &[u8], mut at: usize) -> usize {
    while let Some(byte) = json.get(at) {
        at += match byte {
            b'"' => return at + 1,
            b'\\' => 2,
            _ => 1,
        };
    }
    json.len()
}

/// Returns whether `text` is a number in the grammar of JSON.
fn is_number(text: &str) -> bool {
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let (number, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((number, exponent)) => (number, Some(exponent.strip_prefix(['+', '-']).unwrap_or(exponent))),
        None => (unsigned, None),
    };
    let (whole, fraction) = match number.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (number, None),
    };
    let are_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let whole_fits = are_digits(whole) && (whole == "0" || !whole.starts_with('0'));
    whole_fits && fraction.is_none_or(are_digits) && exponent.is_none_or(are_digits)
}

/// Returns whether a 64-bit integer or a double stands for this number. A fraction with at most as many digits as a
/// double is written with counts as a double, even if it is read as a neighbouring one: programs send times in that
/// form.
fn is_kept(number: &str) -> bool {
    let has_exponent = number.contains(['e', 'E']);
    if !has_exponent && number.len() <= SAFE_DIGITS {
        return true;
    }
    if !has_exponent && !number.contains('.') {
        return number.parse::<i64>().is_ok() || number.parse::<u64>().is_ok();
    }
    let digits = significant_digits(number);
    let fits = number.parse::<f64>().is_ok_and(f64::is_normal);
    digits == 0 || (digits <= DOUBLE_DIGITS && fits)
}

/// Returns the number of digits, without zeros at either end.
fn significant_digits(number: &str) -> usize {
    let number = number.split(['e', 'E']).next().unwrap_or_default();
    let digits: String = number.chars().filter(char::is_ascii_digit).collect();
    digits.trim_matches('0').len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn again(json: &str) -> String {
        to_string(&from_slice::<Value>(json.as_bytes()).unwrap())
    }

    #[test]
    fn digits_survive_that_no_machine_number_holds() {
        for number in [
            "340282366920938463463374607431768211455",
            "18446744073709551616",
            "-9223372036854775809",
            "1e400",
            "-1E+400",
            "1e-400",
            "5e-99999999999999999999",
            "5e-324",
            "0.1000000000000000055511151231257827",
            "123456789012345678.5",
        ] {
            assert_eq!(again(number), number);
            let nested = format!(r#"{{"a":[1,{number},{{"b":{number}}}],"c":"{number} \" {number}"}}"#);
            assert_eq!(again(&nested), nested);
            let value: Value = from_slice(number.as_bytes()).unwrap();
            assert_eq!((digits(&value), value.as_f64()), (Some(number), None));
        }
    }

    #[test]
    fn a_number_that_fits_is_one_and_keeps_its_value() {
        for (text, value) in [
            ("18446744073709551615", json!(u64::MAX)),
            ("-9223372036854775808", json!(i64::MIN)),
            ("1.50", json!(1.5)),
            ("1E3", json!(1000.0)),
            ("0.1", json!(0.1)),
            ("-0.0", json!(-0.0)),
            ("0e99999999999999999999", json!(0.0)),
            ("1.7976931348623157e308", json!(f64::MAX)),
            ("2.3e-308", json!(2.3e-308)),
        ] {
            assert_eq!(from_slice::<Value>(text.as_bytes()).unwrap(), value, "{text}");
        }
        // These numbers are read as the exact double, or as a neighbouring one.
        for text in ["1763896658.2512345", "-1419587817604880.2", "0.30000000000000004"] {
            assert!(from_slice::<Value>(text.as_bytes()).unwrap().is_f64(), "{text}");
        }
    }

    #[test]
    fn nobody_can_forge_a_number() {
        for json in [r#"{"swarm:number:":"1,2"}"#, r#"{"swarm:number:0":"1"}"#] {
            assert_eq!(again(json), json);
            assert_eq!(digits(&from_slice(json.as_bytes()).unwrap()), None);
        }
    }

    #[test]
    fn what_is_no_json_stays_none() {
        for text in ["1-2", "01", "1.", ".5", "1e", "--1", "340282366920938463463374607431768211455x", "\"1", "[1e400"]
        {
            assert!(from_slice::<Value>(text.as_bytes()).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_number_keeps_its_value(number in "-?(0|[1-9][0-9]{0,45})(\\.[0-9]{1,45})?([eE][+-]?[0-9]{1,25})?") {
            let written = again(&number);
            if from_slice::<Value>(number.as_bytes()).unwrap().is_f64() {
                let (before, after) = (number.parse::<f64>().unwrap(), written.parse::<f64>().unwrap());
                prop_assert!((before - after).abs() <= before.abs() * f64::EPSILON, "{} {}", number, written);
            } else {
                prop_assert_eq!(&written, &number);
            }
            let wrapped = format!(r#"{{"x":[{number}],"y":{number}}}"#);
            prop_assert_eq!(again(&wrapped), format!(r#"{{"x":[{written}],"y":{written}}}"#));
        }

        #[test]
        fn an_integer_keeps_its_digits(number in "-?[1-9][0-9]{0,60}") {
            prop_assert_eq!(again(&number), number);
        }

        #[test]
        fn no_bytes_make_reading_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = from_slice::<Value>(&bytes);
        }

        #[test]
        fn json_without_such_numbers_is_read_as_ever(text in "[\\[\\]{}:,\"\\\\a-c0-9.eE+ -]{0,40}") {
            if let Ok(value) = serde_json::from_str::<Value>(&text) {
                let read = from_slice::<Value>(text.as_bytes()).unwrap();
                prop_assert!(read == value || text.bytes().any(|byte| byte.is_ascii_digit()));
            }
        }
    }
}

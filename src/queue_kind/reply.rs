//! Parses replies of Redis, in RESP2 and RESP3.

use redis::Value;

/// Returns the error of the server, if the reply is one.
pub fn refusal(value: &Value) -> Option<String> {
    match value {
        Value::ServerError(error) => Some(match error.details() {
            Some(details) => format!("{} {details}", error.code()),
            None => error.code().to_owned(),
        }),
        _ => None,
    }
}

/// Returns the error for a command without a reply.
pub fn missing() -> String {
    "redis sent fewer replies than commands".to_owned()
}

/// Returns the text of a reply.
pub fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        _ => None,
    }
}

/// Returns the number of a reply.
pub fn number(value: &Value) -> Option<u64> {
    match value {
        Value::Int(number) => u64::try_from(*number).ok(),
        other => text(other)?.parse().ok(),
    }
}

/// Returns the names and values of a RESP3 map or a RESP2 array.
pub(super) fn fields(value: Value) -> Vec<(Value, Value)> {
    match value {
        Value::Map(pairs) => pairs,
        Value::Array(flat) => {
            let mut flat = flat.into_iter();
            std::iter::from_fn(|| Some((flat.next()?, flat.next()?))).collect()
        }
        _ => Vec::new(),
    }
}

/// Returns one field of [`fields`].
pub(super) fn field<'a>(fields: &'a [(Value, Value)], name: &str) -> Option<&'a Value> {
    fields.iter().find(|(key, _)| text(key) == Some(name)).map(|(_, value)| value)
}

//! A message as it is sent: JSON, or a form with JSON and files.

use std::collections::BTreeMap;

use axum::http::{HeaderMap, header};
use serde_json::Value;

use super::interaction::Message;

pub(super) fn message(headers: &HeaderMap, body: &[u8]) -> Message {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    match kind.split_once("boundary=") {
        Some((_, boundary)) => form(boundary.trim_matches('"'), body),
        None => Message { body: serde_json::from_slice(body).expect("the bot sends JSON"), files: BTreeMap::new() },
    }
}

fn form(boundary: &str, body: &[u8]) -> Message {
    let mut message = Message::default();
    for part in split(body, format!("--{boundary}").as_bytes()) {
        let Some(at) = find(part, b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&part[..at]).into_owned();
        let content = part[at + 4..].strip_suffix(b"\r\n").unwrap_or(&part[at + 4..]);
        if let Some((_, name)) = head.split_once("filename=\"") {
            let name = name.split('"').next().unwrap_or_default().to_owned();
            message.files.insert(name, content.to_vec());
        } else if head.contains("name=\"payload_json\"") {
            message.body = serde_json::from_slice::<Value>(content).expect("the bot sends JSON");
        }
    }
    message
}

fn split<'a>(mut rest: &'a [u8], by: &[u8]) -> Vec<&'a [u8]> {
    let mut parts = Vec::new();
    while let Some(at) = find(rest, by) {
        parts.push(&rest[..at]);
        rest = &rest[at + by.len()..];
    }
    parts.push(rest);
    parts
}

fn find(within: &[u8], what: &[u8]) -> Option<usize> {
    within.windows(what.len()).position(|window| window == what)
}

//! Secrets of calls: reads them from files, and masks them in the words of a platform. Keeps none.

use std::path::Path;

/// Longest text of a platform's own in an error, in characters.
const MAX_SAID: usize = 300;
/// Shorter values of variables are words such as `true`, and are not masked.
const SHORTEST_SECRET: usize = 6;

/// Returns the content of a file without the end of its last line.
///
/// # Errors
/// Why the file can't be used.
pub(super) fn read(path: &Path) -> Result<String, String> {
    match std::fs::read_to_string(path) {
        Ok(text) if text.contains('\0') => Err("it holds a NUL".to_owned()),
        Ok(text) => Ok(text.trim_end_matches(['\n', '\r']).to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Returns the beginning of what a platform said, as one line without these secrets.
pub(super) fn said<'a>(text: &str, secrets: impl IntoIterator<Item = &'a str>) -> String {
    let mut text = text.trim().to_owned();
    for secret in secrets.into_iter().filter(|secret| secret.len() >= SHORTEST_SECRET) {
        text = text.replace(secret, "***");
    }
    text.chars().filter(|c| !c.is_control()).take(MAX_SAID).collect()
}

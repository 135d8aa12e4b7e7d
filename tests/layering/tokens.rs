//! Just enough of Rust's syntax to see which names a file uses: words and punctuation, without comments, strings and
//! test-only items. Must not know what the names mean.

/// A word, `::`, or any other single character.
#[derive(Clone, Debug)]
pub(crate) struct Token {
    /// As in the source.
    pub(crate) text: String,
    /// Counted from 1.
    pub(crate) line: usize,
}

/// Splits Rust source; comments, strings and character literals are dropped.
pub(crate) fn tokens(source: &str) -> Vec<Token> {
    let chars: Vec<char> = source.chars().collect();
    let at = |i: usize| chars.get(i).copied().unwrap_or('\0');
    let mut tokens = Vec::new();
    let (mut i, mut line) = (0, 1);
    while i < chars.len() {
        let start = i;
        match (at(i), at(i + 1)) {
            ('/', '/') => i = end_of_line(&chars, i),
            ('/', '*') => i = end_of_comment(&chars, i),
            ('"', _) => i = end_of_string(&chars, i),
            ('r', '"' | '#') if raw_string_quote(&chars, i).is_some() => i = end_of_raw_string(&chars, i),
            ('\'', '\\') => i = end_of_char(&chars, i + 2),
            ('\'', _) if at(i + 2) == '\'' => i += 3,
            (':', ':') => i += 2,
            (c, _) if is_word(c) => {
                while is_word(at(i)) {
                    i += 1;
                }
            }
            _ => i += 1,
        }
        let text: String = chars[start..i].iter().collect();
        if text == "::" || text.chars().all(is_word) || (i == start + 1 && !text.trim().is_empty()) {
            tokens.push(Token { text, line });
        }
        // `br"…"` and `b"…"`: the prefix is a word of its own; a raw one would hide the string's `r`.
        if tokens.last().is_some_and(|token| token.text == "br") && raw_string_quote(&chars, i - 1).is_some() {
            i = end_of_raw_string(&chars, i - 1);
        }
        line += chars[start..i].iter().filter(|c| **c == '\n').count();
    }
    tokens
}

pub(crate) fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn end_of_line(chars: &[char], from: usize) -> usize {
    chars[from..].iter().position(|c| *c == '\n').map_or(chars.len(), |n| from + n)
}

fn end_of_comment(chars: &[char], from: usize) -> usize {
    let (mut i, mut open) = (from + 2, 1);
    while i < chars.len() && open > 0 {
        match (chars[i], chars.get(i + 1)) {
            ('/', Some('*')) => (i, open) = (i + 2, open + 1),
            ('*', Some('/')) => (i, open) = (i + 2, open - 1),
            _ => i += 1,
        }
    }
    i
}

fn end_of_string(chars: &[char], from: usize) -> usize {
    let mut i = from + 1;
    while i < chars.len() && chars[i] != '"' {
        i += if chars[i] == '\\' { 2 } else { 1 };
    }
    (i + 1).min(chars.len())
}

fn end_of_char(chars: &[char], escaped: usize) -> usize {
    let rest = chars.get(escaped + 1..).unwrap_or_default();
    rest.iter().position(|c| *c == '\'').map_or(chars.len(), |n| escaped + n + 2)
}

/// Where the quote of a raw string that starts with the `r` at `from` is, if one starts there.
fn raw_string_quote(chars: &[char], from: usize) -> Option<usize> {
    let hashes = chars.get(from + 1..)?.iter().take_while(|c| **c == '#').count();
    (chars.get(from + 1 + hashes) == Some(&'"')).then_some(from + 1 + hashes)
}

fn end_of_raw_string(chars: &[char], from: usize) -> usize {
    let quote = raw_string_quote(chars, from).expect("the caller saw the quote");
    let hashes = quote - from - 1;
    let closes =
        |i: usize| chars[i] == '"' && chars[i + 1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes;
    (quote + 1..chars.len()).find(|i| closes(*i)).map_or(chars.len(), |i| i + 1 + hashes)
}

/// Drops every item under `#[cfg(test)]`.
pub(crate) fn without_test_items(tokens: &[Token]) -> Vec<Token> {
    const ATTRIBUTE: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let mut kept = Vec::new();
    let mut i = 0;
    while i < tokens.len() {
        if tokens[i..].len() >= ATTRIBUTE.len() && tokens[i..].iter().zip(ATTRIBUTE).all(|(t, a)| t.text == a) {
            i = end_of_item(tokens, i + ATTRIBUTE.len());
        } else {
            kept.push(tokens[i].clone());
            i += 1;
        }
    }
    kept
}

/// The end of the item that starts at `from`: its `;`, or the brace that closes its body.
fn end_of_item(tokens: &[Token], from: usize) -> usize {
    let mut open = 0_usize;
    let mut is_use = false;
    for (i, token) in tokens.iter().enumerate().skip(from) {
        match token.text.as_str() {
            "use" if open == 0 => is_use = true,
            "{" | "(" | "[" => open += 1,
            "}" | ")" | "]" => {
                open = open.saturating_sub(1);
                if open == 0 && token.text == "}" && !is_use {
                    return i + 1;
                }
            }
            ";" if open == 0 => return i + 1,
            _ => {}
        }
    }
    tokens.len()
}

//! Text for replies. Discord interprets markup in everything that it shows, so text that people, pages and programs
//! wrote enters only through the functions here, which neutralize it: no mention, link, emoji, style, or escape from
//! its place.

use std::fmt::Write;

use crate::model::Timestamp;

/// Maximum characters of one foreign text.
const SHOWN: usize = 1_000;
/// Maximum characters of a block: together with the rest they fit an embed's 4096.
const SHOWN_IN_BLOCK: usize = 3_400;

/// Text that Discord may interpret as markup, because it is the bot's own or was neutralized.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Markup(String);

impl Markup {
    /// Returns the bot's own text, unchanged.
    pub(super) fn ours(text: &'static str) -> Self {
        Self(text.to_owned())
    }

    /// Returns foreign text, in a line.
    pub(super) fn text(text: &str) -> Self {
        Self::default().and_text(text)
    }

    /// Returns a name in a line, as code.
    pub(super) fn code(text: &str) -> Self {
        Self::default().and_code(text)
    }

    /// Returns lines as a code block.
    pub(super) fn block(text: &str) -> Self {
        Self::default().and_block(text)
    }

    /// Appends the bot's own text.
    pub(super) fn and(mut self, text: &'static str) -> Self {
        self.0.push_str(text);
        self
    }

    /// Appends foreign text. Every punctuation mark is escaped: Discord shows a character after a backslash as itself.
    pub(super) fn and_text(mut self, text: &str) -> Self {
        for c in shortened(text, SHOWN).chars().map(harmless) {
            if c.is_ascii_punctuation() {
                self.0.push('\\');
            }
            self.0.push(if c == '\n' { ' ' } else { c });
        }
        self
    }

    /// Appends a name as code, in which only a backtick has a meaning.
    pub(super) fn and_code(mut self, text: &str) -> Self {
        self.0.push_str("`` ");
        let line = shortened(text, SHOWN);
        self.0.extend(line.chars().map(harmless).map(|c| if c == '\n' { ' ' } else { without_backtick(c) }));
        self.0.push_str(" ``");
        self
    }

    /// Appends lines as a code block.
    pub(super) fn and_block(mut self, text: &str) -> Self {
        self.0.push_str("```\n");
        let lines = shortened(text.trim_matches('\n'), SHOWN_IN_BLOCK);
        self.0.extend(lines.chars().map(harmless).map(without_backtick));
        self.0.push_str("\n```");
        self
    }

    /// Appends a number.
    pub(super) fn and_number(mut self, number: impl Into<u64>) -> Self {
        self.0.push_str(&number.into().to_string());
        self
    }

    /// Appends a time, which Discord shows in each reader's own time zone: `5 minutes ago`.
    pub(super) fn and_moment(mut self, at: Timestamp) -> Self {
        // Writing to a String can't fail.
        let _ = write!(self.0, "<t:{}:R>", at.0 / 1_000);
        self
    }

    /// Appends another text.
    pub(super) fn and_all(mut self, other: &Self) -> Self {
        self.0.push_str(&other.0);
        self
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the length as Discord counts it, in UTF-16 units.
    pub(super) fn len(&self) -> usize {
        self.0.encode_utf16().count()
    }

    /// Returns the text for Discord, at most `limit` long. A longer text is not cut, because half an escape could have
    /// a meaning; a line that says so replaces it.
    pub(super) fn within(self, limit: usize) -> String {
        if self.len() <= limit { self.0 } else { "(too long to be shown here)".to_owned() }
    }
}

fn shortened(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most.saturating_sub(1)).chain(['…']).collect()
}

/// Replaces invisible characters that change the text: controls, and characters that change the direction of writing or
/// hide between letters.
fn harmless(c: char) -> char {
    match c {
        '\n' => '\n',
        '\t' => ' ',
        '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}' => '\u{fffd}',
        c if c.is_control() => '\u{fffd}',
        c => c,
    }
}

/// Replaces a backtick, which would end the code that contains it, with a similar character.
fn without_backtick(c: char) -> char {
    if c == '`' { '\u{2cb}' } else { c }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(markup: Markup) -> String {
        markup.within(usize::MAX)
    }

    #[test]
    fn nothing_that_somebody_wrote_means_anything() {
        for (written, line) in [
            ("@everyone", r"\@everyone"),
            ("<@123> <#4> <@&5> <:a:6>", r"\<\@123\> \<\#4\> \<\@\&5\> \<\:a\:6\>"),
            ("**b** _i_ ~~s~~ ||x|| `c`", r"\*\*b\*\* \_i\_ \~\~s\~\~ \|\|x\|\| \`c\`"),
            ("[a](https://b.example)", r"\[a\]\(https\:\/\/b\.example\)"),
            ("# head\n> quote\n- item", r"\# head \> quote \- item"),
            (r"\*", r"\\\*"),
            ("a\u{202e}b\u{200b}c\u{7}", "a\u{fffd}b\u{fffd}c\u{fffd}"),
        ] {
            assert_eq!(shown(Markup::text(written)), line, "{written}");
        }
        assert_eq!(shown(Markup::code("a`` b")), "`` aˋˋ b ``");
        assert_eq!(shown(Markup::block("```\n@here\n```x")), "```\nˋˋˋ\n@here\nˋˋˋx\n```");
    }

    #[test]
    fn what_is_too_long_is_shortened_or_left_out() {
        assert_eq!(Markup::text(&"a".repeat(5_000)).len(), SHOWN);
        assert!(Markup::block(&"`".repeat(5_000)).len() < 4_096);
        assert_eq!(Markup::text("aaaa").within(3), "(too long to be shown here)");
    }

    proptest! {
        #[test]
        fn every_sign_is_escaped_and_code_never_ends_early(text in any::<String>()) {
            let line = shown(Markup::text(&text));
            let mut signs = line.chars();
            while let Some(c) = signs.next() {
                prop_assert!(!c.is_ascii_punctuation() || c == '\\', "{}", line);
                if c == '\\' {
                    prop_assert!(signs.next().is_some_and(|c| c.is_ascii_punctuation()));
                }
            }
            let code = shown(Markup::code(&text));
            prop_assert_eq!(code.matches('`').count(), 4);
            let block = shown(Markup::block(&text));
            prop_assert_eq!(block.matches('`').count(), 6);
        }
    }
}

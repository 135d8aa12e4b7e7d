//! Progress in the stderr of a program: separates the lines that report it from everything else. Does no I/O.

use crate::model::progress::Progress;

/// Beginning of a line that reports progress.
const PREFIX: &[u8] = b"swarm:progress ";
/// Longest line that reports progress, in bytes. A longer one counts as any other output.
const MAX_LINE: usize = 4 << 10;

/// What of the present line has been seen.
#[derive(Debug, Default)]
pub(super) struct ProgressLines {
    /// The line so far, if it may report progress.
    held: Vec<u8>,
    /// Whether the line does not report progress.
    is_other: bool,
}

impl ProgressLines {
    /// Takes in what the program printed: passes progress to `report`, and appends the rest to `rest`.
    pub(super) fn sift(&mut self, printed: &[u8], rest: &mut Vec<u8>, report: &mut impl FnMut(Progress)) {
        for piece in printed.split_inclusive(|byte| *byte == b'\n') {
            let is_complete = piece.ends_with(b"\n");
            if self.is_other {
                rest.extend_from_slice(piece);
            } else {
                self.held.extend_from_slice(piece);
                let reports = self.held.starts_with(PREFIX);
                if self.held.len() > MAX_LINE || !(reports || PREFIX.starts_with(&self.held)) {
                    rest.append(&mut self.held);
                    self.is_other = true;
                } else if is_complete {
                    self.take(report);
                }
            }
            self.is_other &= !is_complete;
        }
    }

    /// Takes in the end of the output.
    pub(super) fn finish(&mut self, rest: &mut Vec<u8>, report: &mut impl FnMut(Progress)) {
        if self.held.starts_with(PREFIX) {
            self.take(report);
        }
        rest.append(&mut self.held);
    }

    fn take(&mut self, report: &mut impl FnMut(Progress)) {
        report(parse(&String::from_utf8_lossy(&self.held[PREFIX.len()..])));
        self.held.clear();
    }
}

/// Parses `40% page 2 of 5`; the percentage may be absent, and so may the text.
fn parse(line: &str) -> Progress {
    let line = line.trim();
    let (first, text) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    match first.strip_suffix('%').and_then(|number| number.parse::<f64>().ok()) {
        Some(percent) => Progress::new(text.trim_start()).with_fraction(percent / 100.0),
        None => Progress::new(line),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The reports and the rest of an output that arrives in pieces of `size` bytes.
    fn sifted(printed: &[u8], size: usize) -> (Vec<String>, Vec<u8>) {
        let (mut lines, mut rest, mut reports) = (ProgressLines::default(), Vec::new(), Vec::new());
        let mut report = |progress: Progress| reports.push(progress.to_string());
        for piece in printed.chunks(size) {
            lines.sift(piece, &mut rest, &mut report);
        }
        lines.finish(&mut rest, &mut report);
        (reports, rest)
    }

    #[test]
    fn lines_with_the_prefix_report_and_all_others_are_kept() {
        let printed = b"begin\nswarm:progress 40% page 2 of 5\nswarm:progres\n swarm:progress 1\nx swarm:progress 2\n\
                        swarm:progress waiting\r\nswarm:progress 62.5%\nswarm:progress 50%off\nend, no swarm:";
        for size in [1, 2, 7, 1_000] {
            let (reports, rest) = sifted(printed, size);
            assert_eq!(reports, ["40 %: page 2 of 5", "waiting", "62 %", "50%off"], "{size}");
            let rest = String::from_utf8(rest).unwrap();
            assert_eq!(rest, "begin\nswarm:progres\n swarm:progress 1\nx swarm:progress 2\nend, no swarm:", "{size}");
        }
    }

    #[test]
    fn a_last_line_may_lack_its_end_and_a_long_one_is_other_output() {
        assert_eq!(sifted(b"swarm:progress 9%", 4), (vec!["9 %".to_owned()], Vec::new()));
        let long = format!("swarm:progress {}\nswarm:progress b\n", "a".repeat(MAX_LINE));
        let (reports, rest) = sifted(long.as_bytes(), 1_000);
        assert_eq!((reports, rest.len()), (vec!["b".to_owned()], MAX_LINE + PREFIX.len() + 1));
    }

    proptest! {
        #[test]
        fn output_that_reports_nothing_is_kept_whole(
            printed in proptest::collection::vec(prop_oneof!["swarm:", "[a-z \n]{0,9}"], 0..20),
            size in 1_usize..9,
        ) {
            let printed = printed.concat();
            prop_assume!(!printed.contains("swarm:progress"));
            prop_assert_eq!(sifted(printed.as_bytes(), size), (Vec::new(), printed.into_bytes()));
        }
    }
}

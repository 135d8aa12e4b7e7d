//! Output of commands on the standard streams. A reader that goes away (`swarm … | head`) is not an error: the rest is
//! dropped. The log is not written here.

use std::io::{self, Write};

use serde::Serialize;

/// Writes a line to standard output.
pub fn line(text: &str) -> io::Result<()> {
    write_line(&mut io::stdout().lock(), text)
}

/// Writes a line to standard error, for errors.
pub fn error_line(text: &str) -> io::Result<()> {
    write_line(&mut io::stderr().lock(), text)
}

/// Writes `value` as indented JSON and a line feed to standard output.
pub fn json<T: Serialize>(value: &T) -> io::Result<()> {
    line(&serde_json::to_string_pretty(value)?)
}

/// Writes `value` as JSON on one line of standard output, for readers that take a line at a time.
pub fn json_line<T: Serialize>(value: &T) -> io::Result<()> {
    line(&serde_json::to_string(value)?)
}

fn write_line(to: &mut impl Write, text: &str) -> io::Result<()> {
    let written = to.write_all(text.as_bytes()).and_then(|()| to.write_all(b"\n")).and_then(|()| to.flush());
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Refusing(io::ErrorKind);

    impl Write for Refusing {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn only_a_reader_that_went_away_is_no_error() {
        assert!(write_line(&mut Refusing(io::ErrorKind::BrokenPipe), "x").is_ok());
        assert!(write_line(&mut Refusing(io::ErrorKind::StorageFull), "x").is_err());
        let mut written = Vec::new();
        write_line(&mut written, "x").unwrap();
        assert_eq!(written, b"x\n");
    }
}

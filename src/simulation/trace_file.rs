//! Traces as files: CSV with a header. `docs/simulation.md` describes the columns for users.
//!
//! | column | unit | |
//! |---|---|---|
//! | `arrival_ms` | milliseconds, since 1970 or since any other moment | when the job was put on its queue |
//! | `worker_type` | | the job's worker type; the column may be missing if all jobs are of one type |
//! | `service_ms` | milliseconds | how long a worker took; empty where that is unknown, and the column may be missing |

use std::{
    collections::BTreeMap,
    fmt,
    io::{self, Read, Write},
    time::Duration,
};

use csv::{Reader, ReaderBuilder, StringRecord, Trim, Writer};

/// The columns, in the order in which they are written.
const COLUMNS: [&str; 3] = ["arrival_ms", "worker_type", "service_ms"];

/// End of the year 9999 in milliseconds, the latest time that calendars support.
const LATEST_MS: f64 = 253_402_300_799_000.0;
/// Longest service time of a job: a week.
const LONGEST_SERVICE_MS: f64 = 604_800_000.0;
/// Longest trace: 400 days. Otherwise a single wrong unit would simulate centuries.
const LONGEST_TRACE_US: u64 = 400 * 86_400 * 1_000_000;
/// Maximum errors in one report; a file in a wrong format has an error in every line.
const ERRORS_TOLD: usize = 10;

/// One job of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Arrival in microseconds, since 1970 or since the moment from which the file counts.
    pub arrival_us: u64,
    /// Service time, if it is known.
    pub service: Option<Duration>,
}

/// Errors of a file, each with its line and the cure.
#[derive(Debug, Default)]
pub struct TraceError {
    told: Vec<String>,
    more: usize,
}

impl std::error::Error for TraceError {}

impl fmt::Display for TraceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.told.join("\n"))?;
        if self.more > 0 { write!(f, "\nand {} more like these", self.more) } else { Ok(()) }
    }
}

/// Reads the jobs of one worker type from a file, in the order of the file. `name` is the file's name in errors. A line
/// that begins with `#` is a comment.
///
/// # Errors
/// All errors of the file.
pub fn read(input: impl Read, name: &str, worker_type: &str) -> Result<Vec<Row>, TraceError> {
    let reader = ReaderBuilder::new().trim(Trim::All).comment(Some(b'#')).flexible(true).from_reader(input);
    let mut file = File { name, errors: TraceError::default(), others: BTreeMap::new() };
    let rows = file.rows(reader, worker_type);
    file.check(&rows, worker_type);
    if file.errors.told.is_empty() { Ok(rows) } else { Err(file.errors) }
}

/// Indexes of the columns.
struct Columns {
    count: usize,
    arrival: usize,
    worker_type: Option<usize>,
    service: Option<usize>,
}

struct File<'a> {
    name: &'a str,
    errors: TraceError,
    /// Jobs of other worker types, by type.
    others: BTreeMap<String, u64>,
}

impl File<'_> {
    fn reject(&mut self, line: Option<u64>, problem: &str) {
        if self.errors.told.len() < ERRORS_TOLD {
            let line = line.map_or_else(String::new, |line| format!(":{line}"));
            self.errors.told.push(format!("{}{line}: {problem}", self.name));
        } else {
            self.errors.more += 1;
        }
    }

    fn rows(&mut self, mut reader: Reader<impl Read>, wanted: &str) -> Vec<Row> {
        let mut rows = Vec::new();
        let header = match reader.headers() {
            Ok(header) => header.clone(),
            Err(error) => return self.unreadable(&error, rows),
        };
        let Some(columns) = self.columns(&header) else { return rows };
        let mut record = StringRecord::new();
        loop {
            match reader.read_record(&mut record) {
                Ok(false) => return rows,
                Ok(true) => rows.extend(self.row(&record, &columns, wanted)),
                Err(error) => return self.unreadable(&error, rows),
            }
        }
    }

    fn unreadable(&mut self, error: &csv::Error, rows: Vec<Row>) -> Vec<Row> {
        let line = error.position().map(csv::Position::line);
        let problem = match error.kind() {
            csv::ErrorKind::Utf8 { .. } => "is not UTF-8 text; save it as UTF-8".to_owned(),
            csv::ErrorKind::Io(error) => format!("can't be read: {error}"),
            _ => error.to_string(),
        };
        self.reject(line, &problem);
        rows
    }

    fn columns(&mut self, header: &StringRecord) -> Option<Columns> {
        let line = header.position().map(csv::Position::line);
        let known = COLUMNS.join(",");
        if header.is_empty() {
            self.reject(None, &format!("is empty; its first line must be a header such as {known}"));
            return None;
        }
        if header.iter().all(|name| name.parse::<f64>().is_ok()) {
            self.reject(line, &format!("has no header; put a first line above it, such as {known}"));
            return None;
        }
        for (position, name) in header.iter().enumerate() {
            if !COLUMNS.contains(&name) {
                let near = COLUMNS.iter().max_by(|a, b| strsim::jaro(a, name).total_cmp(&strsim::jaro(b, name)));
                let hint = near.filter(|near| strsim::jaro(near, name) > 0.75);
                let hint = hint.map_or_else(String::new, |near| format!("; is `{near}` meant?"));
                self.reject(line, &format!("unknown column {name:?}{hint} There are: {known}"));
            } else if header.iter().take(position).any(|before| before == name) {
                self.reject(line, &format!("column `{name}` is there twice; remove one"));
            }
        }
        let place = |name: &str| header.iter().position(|column| column == name);
        let Some(arrival) = place("arrival_ms") else {
            self.reject(line, "no column `arrival_ms`, the time at which each job came, in milliseconds; add it");
            return None;
        };
        let (worker_type, service) = (place("worker_type"), place("service_ms"));
        Some(Columns { count: header.len(), arrival, worker_type, service })
    }

    /// Parses one line; `None` if the line is wrong or belongs to another worker type.
    fn row(&mut self, record: &StringRecord, columns: &Columns, wanted: &str) -> Option<Row> {
        let line = record.position().map(csv::Position::line);
        if record.len() != columns.count {
            let (found, count) = (record.len(), columns.count);
            self.reject(
                line,
                &format!("{found} fields, and the header has {count}; a missing value is an empty field"),
            );
            return None;
        }
        let text = |column: usize| record.get(column).unwrap_or_default();
        let arrival = self.number(line, "arrival_ms", text(columns.arrival), LATEST_MS);
        let service = match columns.service.map(text).filter(|text| !text.is_empty()) {
            Some(text) => Some(self.number(line, "service_ms", text, LONGEST_SERVICE_MS)?),
            None => None,
        };
        let row = Row {
            arrival_us: microseconds(arrival?),
            service: service.map(|ms| Duration::from_micros(microseconds(ms))),
        };
        match columns.worker_type.map(text) {
            Some(other) if other != wanted => {
                *self.others.entry(other.to_owned()).or_default() += 1;
                None
            }
            _ => Some(row),
        }
    }

    fn number(&mut self, line: Option<u64>, column: &str, text: &str, most: f64) -> Option<f64> {
        let number = text.parse::<f64>().ok().filter(|number| (0.0..=most).contains(number));
        if number.is_none() {
            self.reject(line, &format!("{column}: expected milliseconds from 0 to {most:.0}, found {text:?}"));
        }
        number
    }

    /// Checks the file as a whole, once each line is right.
    fn check(&mut self, rows: &[Row], wanted: &str) {
        if !self.errors.told.is_empty() {
            return;
        }
        let times = || rows.iter().map(|row| row.arrival_us);
        let (first, last) = (times().min().unwrap_or(0), times().max().unwrap_or(0));
        if rows.is_empty() && self.others.is_empty() {
            self.reject(None, "holds no jobs; record some, or name a pattern such as `steady`");
        } else if rows.is_empty() {
            let others: Vec<_> = self.others.iter().map(|(name, jobs)| format!("{name} ({jobs})")).collect();
            let others = others.join(", ");
            self.reject(
                None,
                &format!("holds no jobs of `{wanted}`; name another type with --type, there are: {others}"),
            );
        } else if last - first > LONGEST_TRACE_US {
            let days = (last - first) / 86_400_000_000;
            self.reject(None, &format!(
                "goes over {days} days, and 400 are the most; arrival_ms must be milliseconds, counted from the same moment in \
                 each line"
            ));
        }
    }
}

/// Converts milliseconds within the bounds above to microseconds.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 2.6e17, checked by `number`")]
fn microseconds(ms: f64) -> u64 {
    (ms * 1e3).round() as u64
}

/// Writes a file row by row.
#[derive(Debug)]
pub struct RowWriter<W: Write>(Writer<W>);

impl<W: Write> RowWriter<W> {
    /// Writes the header.
    ///
    /// # Errors
    /// If the header can't be written.
    pub fn new(output: W) -> io::Result<Self> {
        let mut writer = Writer::from_writer(output);
        writer.write_record(COLUMNS)?;
        Ok(Self(writer))
    }

    /// Writes one job. The row may stay in a buffer until [`RowWriter::flush`].
    ///
    /// # Errors
    /// If the row can't be written.
    pub fn write(&mut self, arrival_ms: u64, worker_type: &str, service_ms: Option<f64>) -> io::Result<()> {
        let service = service_ms.map_or_else(String::new, |ms| format!("{}", (ms * 10.0).round() / 10.0));
        self.0.write_record([&arrival_ms.to_string(), worker_type, &service])?;
        Ok(())
    }

    /// Writes the buffered rows.
    ///
    /// # Errors
    /// If the buffer can't be written.
    pub fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests;

//! Set-up of the log: its destination, its format and its filter.

use std::sync::OnceLock;

use tracing::{Level, Metadata};
use tracing_subscriber::{
    EnvFilter,
    filter::{FilterFn, filter_fn},
    fmt::MakeWriter,
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

use super::{log_format::LogFormat, worker_output::PassOn};

/// Environment variables that hold a filter; the first one that is set wins.
const FILTER_VARIABLES: [&str; 2] = ["SWARM_LOG", "RUST_LOG"];

/// Crates that log the addresses of their requests, although the addresses contain a secret: the paths of Discord's API
/// contain the tokens of interactions. Only their warnings and errors are logged, whatever the filter says.
const CONFIDENTIAL: [&str; 2] = ["twilight_http", "twilight_http_ratelimiting"];

/// Targets that log every failed request to the API server and every closed connection. Our own log lines report each
/// outage once.
const REPEATED: [(&str, Level); 2] =
    [("kube_client::client::builder", Level::ERROR), ("kube_client::client", Level::WARN)];

/// Why the log could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The filter can't be parsed.
    #[error(
        "{variable} holds `{filter}`, which is not a log filter ({reason}); write, for example, `info,swarm=debug`"
    )]
    Filter {
        /// Source of the filter: a variable's name, or `the default filter`.
        variable: &'static str,
        /// Text of the filter.
        filter: String,
        /// What is wrong with the filter.
        reason: String,
    },
    /// The process has set up a log already.
    #[error("the log is set up already; set it up once, at the start")]
    AlreadySet,
}

/// Sets up the log of this process on stderr.
///
/// The filter is `SWARM_LOG`, else `RUST_LOG`, else `default_filter`.
pub fn init_logging(format: LogFormat, default_filter: &str) -> Result<(), LoggingError> {
    let filter = filter(default_filter)?;
    let lines =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).log_internal_errors(false);
    let installed = match format {
        LogFormat::Text => {
            let colour = std::io::IsTerminal::is_terminal(&std::io::stderr());
            let passing_on = PassOn::new(tracing_subscriber::fmt::format(), format);
            lines.with_ansi(colour).event_format(passing_on).finish().with(confidential()).try_init()
        }
        LogFormat::Json => {
            let passing_on = PassOn::new(tracing_subscriber::fmt::format().json().flatten_event(true), format);
            lines.json().event_format(passing_on).finish().with(confidential()).try_init()
        }
    };
    installed.map_err(|_| LoggingError::AlreadySet)?;
    // Can't fail: a second set-up was refused above.
    let _ = FORMAT.set(format);
    Ok(())
}

static FORMAT: OnceLock<LogFormat> = OnceLock::new();

/// Returns the format of this process's log, so that child processes can use the same one; `None` without a log.
pub fn log_format() -> Option<LogFormat> {
    FORMAT.get().copied()
}

/// Sets up the log of this process as plain text into `writer`, for programs that need the terminal themselves. The
/// filter is the same as in [`init_logging`].
pub fn init_logging_into<W>(writer: W, default_filter: &str) -> Result<(), LoggingError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let filter = filter(default_filter)?;
    let passing_on = PassOn::new(tracing_subscriber::fmt::format(), LogFormat::Text);
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_ansi(false);
    let lines = lines.event_format(passing_on);
    lines.finish().with(confidential()).try_init().map_err(|_| LoggingError::AlreadySet)
}

/// Returns a filter that suppresses events and spans of [`CONFIDENTIAL`] and [`REPEATED`].
fn confidential() -> FilterFn {
    filter_fn(may_be_told)
}

fn may_be_told(metadata: &Metadata<'_>) -> bool {
    if metadata.is_event() && REPEATED.contains(&(metadata.target(), *metadata.level())) {
        return false;
    }
    let module = metadata.target().split("::").next().unwrap_or_default();
    metadata.is_event() && *metadata.level() <= Level::WARN || !CONFIDENTIAL.contains(&module)
}

fn filter(default_filter: &str) -> Result<EnvFilter, LoggingError> {
    let set = FILTER_VARIABLES.into_iter().find_map(|variable| Some((variable, non_empty(variable)?)));
    let (variable, filter) = set.unwrap_or_else(|| ("the default filter", default_filter.to_owned()));
    parse_filter(variable, &filter)
}

/// Returns a variable's value; `None` if it is unset, blank or not text.
fn non_empty(variable: &str) -> Option<String> {
    std::env::var(variable).ok().filter(|value| !value.trim().is_empty())
}

fn parse_filter(variable: &'static str, filter: &str) -> Result<EnvFilter, LoggingError> {
    EnvFilter::builder().parse(filter).map_err(|error| LoggingError::Filter {
        variable,
        filter: filter.to_owned(),
        reason: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_filter_is_named_with_its_variable() {
        let error = parse_filter("SWARM_LOG", "swarm=loud").unwrap_err().to_string();
        assert!(error.starts_with("SWARM_LOG holds `swarm=loud`"), "{error}");
        assert!(error.contains("info,swarm=debug"), "{error}");
    }

    #[test]
    fn filters_by_module_are_accepted() {
        assert!(parse_filter("SWARM_LOG", "warn,swarm::scaler=trace").is_ok());
    }
}

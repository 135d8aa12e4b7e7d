//! The formats of the log.

/// Format of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum LogFormat {
    /// Text for people; coloured on a terminal.
    #[default]
    Text,
    /// One JSON object per line, with the event's fields at the top level.
    Json,
}

impl LogFormat {
    /// Name of the environment variable that selects the format.
    pub const VARIABLE: &'static str = "SWARM_LOG_FORMAT";

    /// Returns the name in flags and in [`Self::VARIABLE`].
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

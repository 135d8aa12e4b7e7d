//! The commands that can be given, and the rank that each requires. Knows nothing about Discord's formats.

use super::access::Rank;

/// What the user asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    Web(Web),
    Swarm(Swarm),
    /// The job with this id is to be cancelled.
    Cancel(String),
    /// Suggestions of worker types for the text typed so far.
    Suggest(String),
    /// A command that this version does not know: Discord's list of commands is older or newer than the bot.
    Unknown,
}

/// `/web …`
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Web {
    Start { url: Option<String> },
    Open { url: String },
    Click { selector: String },
    Fill { selector: String, text: String },
    Screenshot { full_page: bool },
    Status,
    Close,
    CloseAll,
}

/// `/swarm …`
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Swarm {
    Status { worker_type: Option<String> },
    Why { worker_type: String },
    Events { worker_type: Option<String>, count: usize },
    Pause { worker_type: String, observe: bool, lasts: Option<String>, reason: String },
    Resume { worker_type: String, reason: String },
    Scale { worker_type: String, workers: u32, lasts: Option<String>, reason: String },
}

/// A button of a reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Press {
    Status(Option<String>),
    Why(String),
    Pause(String),
    Resume(String),
    /// Cancels the job with this id.
    Cancel(String),
}

/// Default number of events.
pub(super) const EVENTS: usize = 10;
/// Prefix of a button's id.
const BUTTONS: &str = "swarm";

impl Press {
    /// Returns the id that Discord sends back. At most 100 characters: a worker type's name has 63, a job's id 36.
    pub(super) fn id(&self) -> String {
        match self {
            Self::Status(None) => format!("{BUTTONS}:status"),
            Self::Status(Some(name)) => format!("{BUTTONS}:status:{name}"),
            Self::Why(name) => format!("{BUTTONS}:why:{name}"),
            Self::Pause(name) => format!("{BUTTONS}:pause:{name}"),
            Self::Resume(name) => format!("{BUTTONS}:resume:{name}"),
            Self::Cancel(job) => format!("{BUTTONS}:cancel:{job}"),
        }
    }

    pub(super) fn parse(id: &str) -> Option<Self> {
        let rest = id.strip_prefix(BUTTONS)?.strip_prefix(':')?;
        let (what, name) = rest.split_once(':').map_or((rest, None), |(what, name)| (what, Some(name.to_owned())));
        match (what, name) {
            ("status", name) => Some(Self::Status(name)),
            ("why", Some(name)) => Some(Self::Why(name)),
            ("pause", Some(name)) => Some(Self::Pause(name)),
            ("resume", Some(name)) => Some(Self::Resume(name)),
            ("cancel", Some(job)) => Some(Self::Cancel(job)),
            _ => None,
        }
    }

    pub(super) fn label(&self) -> &'static str {
        match self {
            Self::Status(None) => "All",
            Self::Status(Some(_)) => "Status",
            Self::Why(_) => "Why",
            Self::Pause(_) => "Pause",
            Self::Resume(_) => "Resume",
            Self::Cancel(_) => "Cancel",
        }
    }

    pub(super) fn changes_something(&self) -> bool {
        matches!(self, Self::Pause(_) | Self::Resume(_) | Self::Cancel(_))
    }

    /// Returns what whoever presses the button asks for.
    pub(super) fn what(self) -> What {
        let reason = String::new();
        match self {
            Self::Status(worker_type) => What::Swarm(Swarm::Status { worker_type }),
            Self::Why(worker_type) => What::Swarm(Swarm::Why { worker_type }),
            Self::Pause(worker_type) => What::Swarm(Swarm::Pause { worker_type, observe: false, lasts: None, reason }),
            Self::Resume(worker_type) => What::Swarm(Swarm::Resume { worker_type, reason }),
            Self::Cancel(job) => What::Cancel(job),
        }
    }
}

impl What {
    /// Returns its name, from a closed set.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Web(Web::Start { .. }) => "web start",
            Self::Web(Web::Open { .. }) => "web open",
            Self::Web(Web::Click { .. }) => "web click",
            Self::Web(Web::Fill { .. }) => "web fill",
            Self::Web(Web::Screenshot { .. }) => "web screenshot",
            Self::Web(Web::Status) => "web status",
            Self::Web(Web::Close) => "web close",
            Self::Web(Web::CloseAll) => "web closeall",
            Self::Cancel(_) => "web cancel",
            Self::Swarm(Swarm::Status { .. }) => "swarm status",
            Self::Swarm(Swarm::Why { .. }) => "swarm why",
            Self::Swarm(Swarm::Events { .. }) => "swarm events",
            Self::Swarm(Swarm::Pause { .. }) => "swarm pause",
            Self::Swarm(Swarm::Resume { .. }) => "swarm resume",
            Self::Swarm(Swarm::Scale { .. }) => "swarm scale",
            Self::Suggest(_) => "suggest",
            Self::Unknown => "unknown",
        }
    }

    /// Returns the rank that it requires at least.
    pub(super) fn rank(&self) -> Rank {
        match self {
            Self::Web(Web::CloseAll) | Self::Swarm(_) | Self::Suggest(_) => Rank::Operator,
            Self::Web(_) | Self::Cancel(_) | Self::Unknown => Rank::User,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buttons_have_ids_that_are_read_back() {
        for press in [
            Press::Status(None),
            Press::Status(Some("browser".to_owned())),
            Press::Why("a.b".to_owned()),
            Press::Pause("a".to_owned()),
            Press::Resume("a".to_owned()),
            Press::Cancel("0199f1c2-7d3e-7c61-9f7a-0d5f3a1b2c3d".to_owned()),
        ] {
            assert_eq!(Press::parse(&press.id()), Some(press));
        }
        for strange in ["", "swarm", "swarm:why", "other:status", "swarm:fly:x"] {
            assert_eq!(Press::parse(strange), None, "{strange}");
        }
    }
}

//! Lines that a scaler writes to its process guard: one for each worker that starts or is gone. Owns their format.

use std::{fmt, str::FromStr, time::Duration};

use rustix::process::Pid;

/// First line of the guard. From here on it accepts registrations, and no terminal signal ends it.
pub const READY: &str = "ready";

/// Line to the guard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// `+GROUP SECONDS`: this process group lives. Its leader has SECONDS to end when the scaler is gone.
    Watch {
        /// Process group, which is also the process id of its leader.
        group: Group,
        /// Time to end. Sent in whole seconds, rounded up.
        drain_timeout: Duration,
    },
    /// `-GROUP`: this process group is gone, and its number may be reused soon.
    Forget(Group),
}

/// Number of a process group that may be signalled: above 1, so never "my own group", `init` or "everyone".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Group(Pid);

impl Group {
    /// Returns the group, unless its number has a special meaning for `kill(2)`.
    pub fn new(number: i32) -> Option<Self> {
        if number > 1 { Pid::from_raw(number).map(Self) } else { None }
    }

    /// Returns the group of a child process that leads its own group.
    pub fn led_by(child: &std::process::Child) -> Option<Self> {
        i32::try_from(child.id()).ok().and_then(Self::new)
    }

    /// Returns the group's number as the type that signals take.
    pub fn pid(self) -> Pid {
        self.0
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_raw_pid().fmt(f)
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Watch { group, drain_timeout } => {
                let seconds = drain_timeout.as_secs().saturating_add(u64::from(drain_timeout.subsec_nanos() > 0));
                writeln!(f, "+{group} {seconds}")
            }
            Self::Forget(group) => writeln!(f, "-{group}"),
        }
    }
}

/// Line that is not a [`Message`].
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("guard message `{0}` is neither `+GROUP SECONDS` nor `-GROUP` with a group above 1")]
pub struct NotAMessage(String);

impl FromStr for Message {
    type Err = NotAMessage;

    fn from_str(line: &str) -> Result<Self, NotAMessage> {
        let group = |digits: &str| digits.parse().ok().and_then(Group::new);
        let message = match line.trim_end().split_at_checked(1) {
            Some(("+", rest)) => rest.split_once(' ').and_then(|(number, seconds)| {
                let drain_timeout = Duration::from_secs(seconds.parse().ok()?);
                Some(Self::Watch { group: group(number)?, drain_timeout })
            }),
            Some(("-", number)) => group(number).map(Self::Forget),
            _ => None,
        };
        message.ok_or_else(|| NotAMessage(line.trim_end().to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_reads_back_as_written_with_the_timeout_rounded_up() {
        let group = Group::new(4711).unwrap();
        let watch = Message::Watch { group, drain_timeout: Duration::from_millis(1_001) };
        assert_eq!(watch.to_string(), "+4711 2\n");
        assert_eq!("+4711 2\n".parse(), Ok(Message::Watch { group, drain_timeout: Duration::from_secs(2) }));
        assert_eq!(Message::Forget(group).to_string().parse(), Ok(Message::Forget(group)));
    }

    #[test]
    fn numbers_that_kill_reads_as_more_than_one_group_are_refused() {
        for line in ["+0 1", "+1 1", "+-1 1", "-0", "-1", "--5", "+5", "+5 x", "", "5 1", "é"] {
            assert_eq!(line.parse::<Message>(), Err(NotAMessage(line.to_owned())), "{line}");
        }
    }
}

//! Lines that a scaler writes to its process guard: one for each worker that starts or is gone. Owns their format.

use std::{fmt, str::FromStr, time::Duration};

use rustix::process::{Pid, Signal};

/// First line of the guard. From here on it accepts registrations, and no terminal signal ends it.
pub const READY: &str = "ready";

/// Line to the guard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// `+GROUP SECONDS SIGNAL`: this process group lives. When the scaler is gone, its leader gets SIGNAL once and has
    /// SECONDS to end; `-` in their place is any time, and nobody kills the group. With `FIRST TIME` behind that, its
    /// leader gets the signal FIRST, and SIGNAL only TIME seconds later.
    Watch {
        /// Process group, which is also the process id of its leader.
        group: Group,
        /// How to end it.
        end: End,
    },
    /// `-GROUP`: this process group is gone, and its number may be reused soon.
    Forget(Group),
}

/// How the guard ends a process group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// Sent first, and how long to wait then for the leader to end by itself, in whole seconds, rounded up when sent.
    pub quiet: Option<(Signal, Duration)>,
    /// Asks the leader to end.
    pub signal: Signal,
    /// Time to end after `signal`, in whole seconds, rounded up when sent. `None`: as long as it takes.
    pub within: Option<Duration>,
}

impl End {
    /// SIGTERM, and SIGKILL after this time.
    pub fn term_within(time: Duration) -> Self {
        Self { quiet: None, signal: Signal::TERM, within: Some(time) }
    }
}

/// The signals that a guard sends to a leader, by name.
const SIGNALS: [(&str, Signal); 4] =
    [("TERM", Signal::TERM), ("INT", Signal::INT), ("QUIT", Signal::QUIT), ("TSTP", Signal::TSTP)];

fn name_of(signal: Signal) -> &'static str {
    SIGNALS.into_iter().find(|(_, known)| *known == signal).map_or("TERM", |(name, _)| name)
}

fn signal_named(name: &str) -> Option<Signal> {
    SIGNALS.into_iter().find(|(known, _)| *known == name).map(|(_, signal)| signal)
}

/// Returns the seconds of a time, rounded up.
fn whole_seconds(time: Duration) -> u64 {
    time.as_secs().saturating_add(u64::from(time.subsec_nanos() > 0))
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
            Self::Watch { group, end: End { quiet, signal, within } } => {
                write!(f, "+{group} ")?;
                match within {
                    Some(time) => write!(f, "{}", whole_seconds(*time))?,
                    None => f.write_str("-")?,
                }
                write!(f, " {}", name_of(*signal))?;
                if let Some((first, time)) = quiet {
                    write!(f, " {} {}", name_of(*first), whole_seconds(*time))?;
                }
                f.write_str("\n")
            }
            Self::Forget(group) => writeln!(f, "-{group}"),
        }
    }
}

/// Line that is not a [`Message`].
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("guard message `{0}` is neither `+GROUP SECONDS SIGNAL` nor `-GROUP` with a group above 1")]
pub struct NotAMessage(String);

impl FromStr for Message {
    type Err = NotAMessage;

    fn from_str(line: &str) -> Result<Self, NotAMessage> {
        let group = |digits: &str| digits.parse().ok().and_then(Group::new);
        let message = match line.trim_end().split_at_checked(1) {
            Some(("+", rest)) => watch(rest, group),
            Some(("-", number)) => group(number).map(Self::Forget),
            _ => None,
        };
        message.ok_or_else(|| NotAMessage(line.trim_end().to_owned()))
    }
}

fn watch(rest: &str, group: impl Fn(&str) -> Option<Group>) -> Option<Message> {
    let mut words = rest.split(' ');
    let (number, seconds, name) = (words.next()?, words.next()?, words.next()?);
    let within = if seconds == "-" { None } else { Some(Duration::from_secs(seconds.parse().ok()?)) };
    let quiet = match words.next() {
        Some(first) => Some((signal_named(first)?, Duration::from_secs(words.next()?.parse().ok()?))),
        None => None,
    };
    let end = End { quiet, signal: signal_named(name)?, within };
    words.next().is_none().then_some(Message::Watch { group: group(number)?, end })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_reads_back_as_written_with_the_timeout_rounded_up() {
        let group = Group::new(4711).unwrap();
        let watch = |end| Message::Watch { group, end };
        assert_eq!(watch(End::term_within(Duration::from_millis(1_001))).to_string(), "+4711 2 TERM\n");
        assert_eq!("+4711 2 TERM\n".parse(), Ok(watch(End::term_within(Duration::from_secs(2)))));
        for signal in [Signal::TERM, Signal::INT, Signal::QUIT] {
            let patient = watch(End { quiet: None, signal, within: None });
            assert_eq!(patient.to_string().parse(), Ok(patient));
        }
        let patient = End { quiet: None, signal: Signal::QUIT, within: None };
        assert_eq!(watch(patient).to_string(), "+4711 - QUIT\n");
        let quiet = End { quiet: Some((Signal::TSTP, Duration::from_millis(299_500))), ..patient };
        assert_eq!(watch(quiet).to_string(), "+4711 - QUIT TSTP 300\n");
        let whole = End { quiet: Some((Signal::TSTP, Duration::from_secs(300))), ..patient };
        assert_eq!("+4711 - QUIT TSTP 300\n".parse(), Ok(watch(whole)));
        assert_eq!(Message::Forget(group).to_string().parse(), Ok(Message::Forget(group)));
    }

    #[test]
    fn numbers_that_kill_reads_as_more_than_one_group_are_refused() {
        let lines =
            ["+0 1 TERM", "+1 1 TERM", "+-1 1 TERM", "-0", "-1", "--5", "+5", "+5 x TERM", "+5 1", "", "5 1", "é"];
        for line in
            lines.into_iter().chain(["+5 1 KILL", "+5 1 TERM more", "+5 -", "+5 1 TERM TSTP", "+5 1 TERM TSTP 1 2"])
        {
            assert_eq!(line.parse::<Message>(), Err(NotAMessage(line.to_owned())), "{line}");
        }
    }
}

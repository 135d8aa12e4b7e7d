//! `PROGRAM process-guard`: ends a scaler's worker processes when the scaler is gone, however it went. It sees that by
//! the end of its stdin, whose other end only the scaler holds. Needs no runtime, and no terminal signal ends it.

use std::{
    collections::HashMap,
    io::{self, BufRead, Write},
    process::ExitCode,
    sync::{Arc, atomic::AtomicBool},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    io::Errno,
    process::{Signal, kill_process, kill_process_group, test_kill_process},
};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};

use super::protocol::{End, Group, Message, READY};

/// How often it looks whether a worker has left: it is not their parent, so nobody tells it.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Ends the process groups named on stdin when stdin ends. Returns when the scaler is gone and its workers are too.
pub(super) fn run() -> ExitCode {
    if let Err(error) = take_post() {
        say(&format!("could not start: {error}"));
        return ExitCode::FAILURE;
    }
    let watched = listen(io::stdin().lock());
    if !watched.is_empty() {
        say(&format!("the scaler is gone; ending its workers ({})", watched.len()));
        end(watched);
    }
    ExitCode::SUCCESS
}

/// Outlives what ends the scaler (Ctrl-C, a service manager's SIGTERM to everyone), and says that it is there.
fn take_post() -> io::Result<()> {
    let noted = Arc::new(AtomicBool::new(false));
    for signal in [SIGHUP, SIGINT, SIGQUIT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&noted))?;
    }
    let mut output = io::stdout();
    writeln!(output, "{READY}")?;
    output.flush()
}

/// Keeps the list of groups until the input ends.
fn listen(mut input: impl BufRead) -> HashMap<Group, End> {
    let mut watched = HashMap::new();
    let mut line = String::new();
    while matches!(input.read_line(&mut line), Ok(1..)) {
        // A line cut short by the scaler's death names a worker that was not let go yet, or that has left.
        match line.strip_suffix('\n').map(str::parse) {
            Some(Ok(Message::Watch { group, end })) => drop(watched.insert(group, end)),
            Some(Ok(Message::Forget(group))) => drop(watched.remove(&group)),
            Some(Err(error)) => say(&format!("ignored: {error}")),
            None => {}
        }
        line.clear();
    }
    watched
}

/// A group on its way out.
struct Leaving {
    group: Group,
    end: End,
    /// Whether its leader got the signal that asks it to end.
    is_asked: bool,
}

impl Leaving {
    /// Sends the first signal.
    fn begin((group, end): (Group, End)) -> Self {
        if let Some((first, _)) = end.quiet {
            let _ = kill_process(group.pid(), first);
        }
        Self { group, end, is_asked: false }
    }

    /// Sends what is due after this time. Returns whether the leader may stay longer.
    fn proceed(&mut self, elapsed: Duration) -> bool {
        let quiet = self.end.quiet.map_or(Duration::ZERO, |(_, time)| time);
        if elapsed >= quiet && !self.is_asked {
            self.is_asked = true;
            let _ = kill_process(self.group.pid(), self.end.signal);
            if self.end.quiet.is_some() {
                // A program that was suspended by the first signal gets no other one before it goes on.
                let _ = kill_process(self.group.pid(), Signal::CONT);
            }
        }
        self.end.within.is_none_or(|within| elapsed < quiet.saturating_add(within))
    }
}

/// Asks every leader to leave, and kills the groups whose leader has left or has had its time.
fn end(watched: HashMap<Group, End>) {
    let began_at = Instant::now();
    let mut left: Vec<Leaving> = watched.into_iter().map(Leaving::begin).collect();
    loop {
        left.retain_mut(|leaving| {
            let has_time = leaving.proceed(began_at.elapsed());
            let stays = has_time && test_kill_process(leaving.group.pid()) != Err(Errno::SRCH);
            if !stays {
                // Fails if nobody is left in the group.
                let _ = kill_process_group(leaving.group.pid(), Signal::KILL);
            }
            stays
        });
        if left.is_empty() {
            return;
        }
        thread::sleep(LOOK_EVERY);
    }
}

/// For people, if anyone still listens.
fn say(what: &str) {
    let _ = writeln!(io::stderr(), "swarm process-guard: {what}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listening_keeps_what_was_not_forgotten_and_skips_nonsense_and_a_torn_last_line() {
        let watched = listen(&b"+10 1 TERM\n+20 2 TERM\nhello\n+0 9 TERM\n-10\n+30"[..]);
        let end = End::term_within(Duration::from_secs(2));
        assert_eq!(watched, HashMap::from([(Group::new(20).unwrap(), end)]));
    }
}

//! The steps by which one worker process leaves: its helpers first, or a quiet signal and the end of its jobs first,
//! then its stop signal, and in the end the kill, if there is one.

use std::{future::pending, time::Duration};

use futures_util::future::BoxFuture;
use rustix::process::{Signal, WaitId, WaitIdOptions, kill_process, kill_process_group as kill_group, waitid};
use tokio::time::{Instant, sleep, sleep_until};

use super::helpers::LeavingHelpers;
use crate::{
    guard::protocol::{self as guard, Group},
    model::{AFTER_QUIET, QuietSignal, StopPolicy, StopSignal},
};

/// How often to check whether the helpers of a worker have left.
const HELPERS_POLL_INTERVAL: Duration = Duration::from_millis(10);

/// How far a worker is on its way out. Signals its process only while the supervisor holds it unreaped.
pub(super) struct Departure {
    policy: StopPolicy,
    group: Group,
    step: Step,
    kill_at: Option<Instant>,
}

enum Step {
    /// Nobody asked the worker to leave.
    Staying,
    /// Its helpers were asked.
    Helpers(LeavingHelpers),
    /// It takes no more jobs. Ends when it has none, or its time is over.
    Quiet(BoxFuture<'static, bool>),
    /// It was asked.
    Asked,
}

/// What a step did, for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stepped {
    /// Sent the stop signal after the helpers, or when the worker had no more jobs.
    Asked,
    /// Sent the stop signal, although the worker did not say that it has no more jobs.
    AskedAtTimeout,
    /// Killed the group.
    Killed,
}

impl Departure {
    pub(super) fn new(policy: StopPolicy, group: Group) -> Self {
        Self { policy, group, step: Step::Staying, kill_at: None }
    }

    /// Returns how the guard ends the worker if the scaler is gone.
    pub(super) fn guarded(policy: StopPolicy, drain_timeout: Duration) -> guard::End {
        guard::End {
            quiet: policy.quiet.map(|signal| (quiet_signal_of(signal), drain_timeout)),
            signal: signal_of(policy.signal),
            within: policy.hard_kill.then_some(if policy.quiet.is_some() { AFTER_QUIET } else { drain_timeout }),
        }
    }

    /// Asks the worker to leave. A second call sends the stop signal, whatever the first one waits for. `until_done`
    /// ends when the worker has no more jobs, or its time is over.
    pub(super) fn ask(&mut self, within: Duration, until_done: impl FnOnce() -> BoxFuture<'static, bool>) {
        let is_first = matches!(self.step, Step::Staying);
        let kill_after = self.policy.kill_after(within);
        self.kill_at = self.kill_at.or(kill_after.and_then(|time| Instant::now().checked_add(time)));
        match self.policy.quiet {
            Some(quiet) if is_first => {
                let _ = kill_process(self.group.pid(), quiet_signal_of(quiet));
                self.step = Step::Quiet(until_done());
            }
            _ => {
                let helpers =
                    self.policy.helpers_first.then(|| LeavingHelpers::ask(self.group, self.signal())).flatten();
                match helpers {
                    Some(helpers) => self.step = Step::Helpers(helpers),
                    None => self.send_stop(),
                }
            }
        }
    }

    /// Waits until the next step is due, and takes it. Waits for ever if there is none.
    pub(super) async fn next(&mut self) -> Stepped {
        let kill_at = self.kill_at;
        let kill = async {
            match kill_at {
                Some(instant) => sleep_until(instant).await,
                None => pending().await,
            }
        };
        let group = self.group;
        let due = async {
            match &mut self.step {
                Step::Helpers(helpers) => {
                    while !helpers.are_gone() {
                        sleep(HELPERS_POLL_INTERVAL).await;
                    }
                    Stepped::Asked
                }
                // Its program does not handle the signal yet: it has not begun to take jobs.
                Step::Quiet(_) if is_suspended(group) => Stepped::Asked,
                Step::Quiet(done) => {
                    if done.await {
                        Stepped::Asked
                    } else {
                        Stepped::AskedAtTimeout
                    }
                }
                Step::Staying | Step::Asked => pending().await,
            }
        };
        let stepped = tokio::select! {
            stepped = due => stepped,
            () = kill => Stepped::Killed,
        };
        if stepped == Stepped::Killed {
            let _ = kill_group(group.pid(), Signal::KILL);
            self.kill_at = None;
        } else {
            self.send_stop();
        }
        stepped
    }

    fn signal(&self) -> Signal {
        signal_of(self.policy.signal)
    }

    fn send_stop(&mut self) {
        self.step = Step::Asked;
        let _ = kill_process(self.group.pid(), self.signal());
        if self.policy.quiet.is_some() {
            // A program that was suspended by the quiet signal gets no other one before it goes on.
            let _ = kill_process(self.group.pid(), Signal::CONT);
        }
    }
}

/// Whether the leader of a group, our child, is suspended.
fn is_suspended(group: Group) -> bool {
    let options = WaitIdOptions::STOPPED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    matches!(waitid(WaitId::Pid(group.pid()), options), Ok(Some(_)))
}

fn signal_of(signal: StopSignal) -> Signal {
    match signal {
        StopSignal::Term => Signal::TERM,
        StopSignal::Int => Signal::INT,
        StopSignal::Quit => Signal::QUIT,
    }
}

fn quiet_signal_of(signal: QuietSignal) -> Signal {
    match signal {
        QuietSignal::Tstp => Signal::TSTP,
    }
}

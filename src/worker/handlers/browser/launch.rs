//! Starts Chromium: finds it, and sets up its flags, a fresh profile and the pipes for commands. A guard stops Chromium
//! when this worker ends, however it ends.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs,
    io::{self, PipeReader},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    io::AsyncReadExt,
    net::unix::pipe,
    time::{Instant, sleep},
};
use tokio_util::task::TaskTracker;

use super::{devtools::DevTools, profile::Profile};
use crate::{
    config::BrowserSettings,
    guard::{GuardedChild, GuardedChildSpec},
};

/// Names of the executable.
const NAMES: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
/// Connects Chromium's command pipes to descriptors 3 and 4, where it reads commands and writes replies. A shell can
/// assign these numbers even if other files are open under them; most builds of Chromium start through a shell anyway.
/// `$0` is the directory for temporary files and reports of crashes, or empty.
const WITH_PIPES: [&str; 2] = [
    "-c",
    r#"[ -z "$0" ] || export TMPDIR="$0" BREAKPAD_DUMP_LOCATION="$0/crashes"; exec "$@" 3<&0 4>&1 </dev/null >/dev/null"#,
];
/// Maximum bytes of the path of a directory in which Chromium can still make its socket, which is called
/// `org.chromium.Chromium.XXXXXX/SingletonSocket`. The address of a socket has 104 bytes on macOS, 108 on Linux.
const MAX_TEMPORARY: usize = 104 - 1 - 45;
const SHELL: &str = "/bin/sh";
/// Maximum time for Chromium to exit after its pipes were closed, so that its output is complete.
const ENDING: Duration = Duration::from_secs(1);
/// Time between two checks whether Chromium has exited.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// Time that Chromium may take to exit.
const TIME_TO_LEAVE: Duration = Duration::from_secs(3);
/// Chromium's message on a machine that does not permit its sandbox.
const NO_SANDBOX: &str = "No usable sandbox";
/// Maximum bytes of Chromium's output in an error.
const LAST_WORDS: usize = 2_000;

/// Why there is no browser.
#[derive(Debug, thiserror::Error)]
pub(super) enum LaunchError {
    #[error("there is no browser here: none of {} is in PATH; install it (Debian: apt install chromium), or set `executable` in [worker_types.NAME.browser]", NAMES.join(", "))]
    NotFound,
    #[error(
        "there is no browser at {0}; install it (Debian: apt install chromium), or correct `executable` in [worker_types.NAME.browser]"
    )]
    NotThere(PathBuf),
    #[error(
        "the browser would run without its sandbox: {0}; run workers as a user of their own on a machine that allows user \
         namespaces, or set `no_sandbox = true` in [worker_types.NAME.browser] if something else isolates them"
    )]
    NoSandbox(String),
    #[error("could not start the browser: {0}")]
    Io(#[from] io::Error),
    #[error("the browser ended while it started; it said: {0}")]
    Ended(String),
    #[error("the browser did not start within {0:?}; it said: {1}")]
    Slow(Duration, String),
}

/// A Chromium that was started.
pub(super) struct Launched {
    pub(super) child: GuardedChild,
    pub(super) profile: Profile,
    /// Pipes for commands to Chromium, and for its messages. No other process has these pipes.
    pipes: Option<(pipe::Sender, pipe::Receiver)>,
    words: Arc<Mutex<String>>,
}

impl Launched {
    /// Returns the connection to Chromium, and the future that transfers its messages. Succeeds once.
    pub(super) fn connect(
        &mut self,
    ) -> Result<(DevTools, impl Future<Output = io::Result<()>> + Send + 'static + use<>), LaunchError> {
        let (commands, events) = self.pipes.take().ok_or_else(|| io::Error::other("the pipes are in use"))?;
        Ok(DevTools::new(events, commands))
    }

    /// Returns whether Chromium was started with its sandbox. Chromium's own launcher can add flags, so the command
    /// line of the process decides.
    pub(super) fn has_sandbox(&self) -> bool {
        let line = fs::read(format!("/proc/{}/cmdline", self.child.id())).unwrap_or_default();
        !line.split(|byte| *byte == 0).any(|word| word == b"--no-sandbox")
    }

    /// Returns why Chromium accepts no commands: it has exited, or `limit` is over.
    pub(super) async fn failure(&self, limit: Duration) -> LaunchError {
        let patience = Instant::now() + ENDING;
        while !self.child.ended() && Instant::now() < patience {
            sleep(POLL_INTERVAL).await;
        }
        let words = self.words.lock().unwrap_or_else(PoisonError::into_inner).trim().to_owned();
        if words.contains(NO_SANDBOX) {
            return LaunchError::NoSandbox("this machine allows no user namespaces".to_owned());
        }
        if self.child.ended() { LaunchError::Ended(words) } else { LaunchError::Slow(limit, words) }
    }
}

/// Starts Chromium. Must not be cancelled: a process from a cancelled start lives until this process ends. `proxy` is
/// for requests that belong to no session. `tasks` read Chromium's output.
pub(super) async fn launch(
    settings: &BrowserSettings,
    proxy: &str,
    tasks: &TaskTracker,
) -> Result<Launched, LaunchError> {
    let program = find(settings.executable.as_deref())?;
    if !settings.no_sandbox && rustix::process::geteuid().is_root() {
        return Err(LaunchError::NoSandbox("this worker runs as root".to_owned()));
    }
    let profile = Profile::create(&env::temp_dir())?;
    let (reader, writer) = io::pipe()?;
    let words = listen(reader, tasks)?;
    let (events, its_events) = io::pipe()?;
    let mut words_of_shell: Vec<OsString> = WITH_PIPES.map(OsString::from).to_vec();
    words_of_shell.push(temporary(profile.path()).into());
    words_of_shell.push(program.into());
    words_of_shell.extend(arguments(settings, profile.path(), proxy).into_iter().map(OsString::from));
    let spec = GuardedChildSpec {
        swarm: env::current_exe()?,
        program: Path::new(SHELL),
        arguments: &words_of_shell,
        output: its_events.into(),
        errors: writer.into(),
        has_input: true,
        time_to_leave: TIME_TO_LEAVE,
    };
    let mut child = GuardedChild::start(spec).await?;
    let commands = child.take_input().ok_or_else(|| io::Error::other("the browser has no input"))?;
    let commands = pipe::Sender::from_owned_fd(commands)?;
    let events = pipe::Receiver::from_owned_fd(OwnedFd::from(events))?;
    Ok(Launched { child, profile, pipes: Some((commands, events)), words })
}

/// Returns where Chromium puts its temporary files and, instead of the user's home, reports of crashes: into its
/// profile, so that a Chromium that was killed leaves nothing behind. Empty, for the place of this process's own, if
/// the path would be too long for a socket in it.
fn temporary(profile: &Path) -> &OsStr {
    let path = profile.as_os_str();
    if path.len() <= MAX_TEMPORARY { path } else { OsStr::new("") }
}

fn find(configured: Option<&Path>) -> Result<PathBuf, LaunchError> {
    let directories: Vec<PathBuf> = env::var_os("PATH").iter().flat_map(env::split_paths).collect();
    let in_path = |name: &Path| directories.iter().map(|directory| directory.join(name)).find(|path| path.is_file());
    match configured {
        None => NAMES.iter().find_map(|name| in_path(Path::new(name))).ok_or(LaunchError::NotFound),
        Some(path) if path.components().count() > 1 && path.is_file() => Ok(path.to_owned()),
        Some(path) if path.components().count() > 1 => Err(LaunchError::NotThere(path.to_owned())),
        Some(name) => in_path(name).ok_or_else(|| LaunchError::NotThere(name.to_owned())),
    }
}

fn arguments(settings: &BrowserSettings, profile: &Path, proxy: &str) -> Vec<String> {
    let mut arguments: Vec<String> = [
        "--headless=new",
        "--disable-gpu",
        "--remote-debugging-pipe",
        // Sessions open the only pages; an empty one beside them would take 80 MiB and a third of the time to start.
        "--no-startup-window",
        "--no-first-run",
        "--no-default-browser-check",
        "--no-pings",
        "--mute-audio",
        "--metrics-recording-only",
        "--password-store=basic",
        "--deny-permission-prompts",
        "--disable-background-networking",
        "--disable-breakpad",
        "--disable-component-update",
        "--disable-default-apps",
        "--disable-domain-reliability",
        "--disable-extensions",
        "--disable-sync",
        // No traffic bypasses the proxy: no UDP, no name resolution, no search for devices.
        "--disable-quic",
        "--webrtc-ip-handling-policy=disable_non_proxied_udp",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        "--proxy-bypass-list=<-loopback>",
        "--disable-features=MediaRouter,DialMediaRouteProvider,OptimizationHints,Translate,WebTransport",
    ]
    .map(str::to_owned)
    .to_vec();
    arguments.push(format!("--proxy-server={proxy}"));
    arguments.push(format!("--user-data-dir={}", profile.display()));
    arguments.push(format!("--window-size={},{}", settings.width, settings.height));
    arguments.extend(settings.user_agent.iter().map(|agent| format!("--user-agent={agent}")));
    if settings.no_sandbox {
        arguments.push("--no-sandbox".to_owned());
    }
    arguments
}

/// Reads Chromium's output until its end, and keeps the last part.
fn listen(reader: PipeReader, tasks: &TaskTracker) -> io::Result<Arc<Mutex<String>>> {
    let mut reader = pipe::Receiver::from_owned_fd(OwnedFd::from(reader))?;
    let words = Arc::new(Mutex::new(String::new()));
    let heard = Arc::clone(&words);
    tasks.spawn(async move {
        let mut buffer = [0; 4_096];
        while let Ok(length @ 1..) = reader.read(&mut buffer).await {
            let text = String::from_utf8_lossy(&buffer[..length]);
            tracing::debug!(said = text.trim(), "browser");
            let mut words = heard.lock().unwrap_or_else(PoisonError::into_inner);
            words.push_str(&text);
            let excess = words.len().saturating_sub(LAST_WORDS);
            let cut = (excess..=words.len()).find(|at| words.is_char_boundary(*at)).unwrap_or(0);
            words.drain(..cut);
        }
    });
    Ok(words)
}

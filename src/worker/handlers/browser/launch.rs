//! Starts Chromium: finds it, gives it its flags and a fresh profile, and waits until it takes commands. A guard ends it
//! with this worker, however the worker ends.

use std::{
    env, fs,
    io::{self, PipeReader},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    io::AsyncReadExt,
    net::unix::pipe,
    time::{Instant, sleep},
};
use tokio_util::task::TaskTracker;

use super::profile::Profile;
use crate::{
    config::BrowserSettings,
    guard::{GuardedChild, GuardedChildSpec},
};

/// Names that it goes by.
const NAMES: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
/// How long it may take to start; it takes about a second, and more on a machine that is busy.
const START: Duration = Duration::from_secs(30);
/// Between two looks whether it has started.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// How long it may take to leave.
const TIME_TO_LEAVE: Duration = Duration::from_secs(3);
/// Bytes of what it says that are kept for an error.
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
    #[error("could not start the browser: {0}")]
    Io(#[from] io::Error),
    #[error("the browser ended while it started; it said: {0}")]
    Ended(String),
    #[error("the browser did not start within {START:?}; it said: {0}")]
    Slow(String),
}

/// A Chromium that takes commands.
pub(super) struct Launched {
    pub(super) child: GuardedChild,
    pub(super) profile: Profile,
    /// Where it takes commands: a WebSocket on the loopback interface, on a path that nobody can guess.
    pub(super) commands: String,
}

/// Starts one. Must run to its end: what is dropped half-way lives until this process ends. `proxy` is for what belongs to
/// no session. `tasks` keep reading what it says.
pub(super) async fn launch(
    settings: &BrowserSettings,
    proxy: &str,
    tasks: &TaskTracker,
) -> Result<Launched, LaunchError> {
    let program = find(settings.executable.as_deref())?;
    let profile = Profile::create(&env::temp_dir())?;
    let (reader, writer) = io::pipe()?;
    let words = listen(reader, tasks)?;
    let spec = GuardedChildSpec {
        swarm: env::current_exe()?,
        program: &program,
        arguments: &arguments(settings, profile.path(), proxy),
        output: Stdio::null(),
        errors: writer.into(),
        time_to_leave: TIME_TO_LEAVE,
    };
    let child = GuardedChild::start(spec).await?;
    if let Some(commands) = wait_for_commands(&child, profile.path()).await {
        return Ok(Launched { child, profile, commands });
    }
    let ended = child.ended();
    child.stop().await?;
    let words = words.lock().unwrap_or_else(PoisonError::into_inner).trim().to_owned();
    Err(if ended { LaunchError::Ended(words) } else { LaunchError::Slow(words) })
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
        "--remote-debugging-port=0",
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
        // Nothing leaves but through a proxy: no UDP, no look-up of names, no search for devices.
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
    let root = rustix::process::geteuid().is_root();
    if root && !settings.no_sandbox {
        tracing::warn!("running as root, where chromium has no sandbox: run workers as another user");
    }
    if root || settings.no_sandbox {
        arguments.push("--no-sandbox".to_owned());
    }
    arguments.push("about:blank".to_owned());
    arguments
}

/// Waits for the file in which Chromium says where it listens: its port, and a path. `None` if it ends or is too slow.
async fn wait_for_commands(child: &GuardedChild, profile: &Path) -> Option<String> {
    let file = profile.join("DevToolsActivePort");
    let deadline = Instant::now() + START;
    while !child.ended() && Instant::now() < deadline {
        if let Ok(text) = fs::read_to_string(&file)
            && let Some((port, path)) = text.trim().split_once('\n')
            && path.starts_with("/devtools/browser/")
        {
            return Some(format!("ws://127.0.0.1:{port}{path}"));
        }
        sleep(POLL_INTERVAL).await;
    }
    None
}

/// Reads what it says until its end, and keeps the last of it.
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

//! A tab of a real Chromium for tests of the status page, and a relay in front of a server, which can be cut.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use chromiumoxide::{
    Browser, BrowserConfig, Page,
    cdp::browser_protocol::emulation::{MediaFeature, SetDeviceMetricsOverrideParams},
    page::ScreenshotParams,
};
use futures_util::StreamExt;
use serde_json::Value;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_util::task::AbortOnDropHandle;

use super::wait::{DEADLINE, eventually};

/// Script that records errors of the page: errors of scripts, and violations of its policy.
const WATCH: &str = "window.faults = [];
    addEventListener('error', (event) => faults.push(event.message ?? String(event)));
    addEventListener('unhandledrejection', (event) => faults.push(String(event.reason)));
    addEventListener('securitypolicyviolation', (event) => faults.push(event.violatedDirective + ' ' + event.blockedURI));";

/// Browser with one page, ended when dropped.
pub(crate) struct Tab {
    page: Page,
    _browser: Browser,
    _pump: AbortOnDropHandle<()>,
    _profile: tempfile::TempDir,
}

impl Tab {
    /// Opens a URL in a window of this size.
    pub(crate) async fn open(url: &str, size: (u32, u32), dark: bool) -> Self {
        let profile = tempfile::tempdir().expect("a temporary directory can be made");
        let config = BrowserConfig::builder().no_sandbox().user_data_dir(profile.path()).launch_timeout(DEADLINE);
        let config = config.request_timeout(DEADLINE).build().expect("it is complete");
        let (browser, mut handler) = Browser::launch(config).await.expect("chromium starts");
        let pump = AbortOnDropHandle::new(tokio::spawn(async move { while handler.next().await.is_some() {} }));
        let page = browser.new_page("about:blank").await.expect("chromium opens a page");
        page.evaluate_on_new_document(WATCH).await.expect("it is a script");
        let tab = Self { page, _browser: browser, _pump: pump, _profile: profile };
        tab.resize(size).await;
        tab.darken(dark).await;
        tab.go(url).await;
        tab
    }

    /// Goes to another URL.
    pub(crate) async fn go(&self, url: &str) {
        self.page.goto(url).await.unwrap_or_else(|error| panic!("{url}: {error}"));
    }

    /// Sets the size of the window; below 700 pixels it emulates a phone.
    pub(crate) async fn resize(&self, (width, height): (u32, u32)) {
        let phone = width < 700;
        let scale = if phone { 2.0 } else { 1.0 };
        let metrics = SetDeviceMetricsOverrideParams::new(i64::from(width), i64::from(height), scale, phone);
        self.page.execute(metrics).await.expect("chromium changes its size");
    }

    /// Sets preferences of the reader.
    pub(crate) async fn darken(&self, dark: bool) {
        let scheme = MediaFeature::new("prefers-color-scheme", if dark { "dark" } else { "light" });
        self.page.emulate_media_features(vec![scheme]).await.expect("chromium knows the preference");
    }

    /// Evaluates an expression.
    pub(crate) async fn value(&self, script: &str) -> Value {
        let found = self.page.evaluate_expression(script).await.unwrap_or_else(|error| panic!("{script}: {error}"));
        found.value().cloned().unwrap_or_default()
    }

    /// Waits until an expression is true.
    pub(crate) async fn until(&self, script: &str) {
        if !eventually(DEADLINE, async || self.value(script).await == true).await {
            let text = self.value("document.body.innerText").await;
            panic!(
                "not within {DEADLINE:?}: {script}\n{}\n{:?}",
                text.as_str().unwrap_or_default(),
                self.faults().await
            );
        }
    }

    /// Enters a token for readers and sends it.
    pub(crate) async fn unlock(&self, token: &str) {
        let enter = format!(
            "(() => {{ document.getElementById('token').value = '{token}'; \
             document.querySelector('#unlock button').click(); }})()"
        );
        self.value(&enter).await;
    }

    /// Returns the errors of the page.
    pub(crate) async fn faults(&self) -> Value {
        self.value("window.faults").await
    }

    /// Saves a screenshot for people, below `target/tmp`.
    pub(crate) async fn picture(&self, name: &str) -> PathBuf {
        let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.png"));
        let params = ScreenshotParams::builder().full_page(true).build();
        let png = self.page.screenshot(params).await.expect("chromium makes a picture");
        assert!(png.starts_with(b"\x89PNG"), "{name} is no picture");
        std::fs::write(&file, png).expect("the build directory is ours");
        file
    }
}

/// Passes connections on to a server that may change, and cuts them.
pub(crate) struct Relay {
    addr: SocketAddr,
    target: Arc<Mutex<Option<SocketAddr>>>,
    open: Arc<Mutex<JoinSet<()>>>,
    _accepting: AbortOnDropHandle<()>,
}

impl Relay {
    /// Starts a relay to this server.
    pub(crate) async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("there are free ports");
        let addr = listener.local_addr().expect("it is bound");
        let target = Arc::new(Mutex::new(Some(target)));
        let open = Arc::<Mutex<JoinSet<()>>>::default();
        let (to, running) = (target.clone(), open.clone());
        let accepting = tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                // While the relay is cut, new connections are closed.
                let Some(target) = *to.lock().expect("nobody panics with it") else { continue };
                running.lock().expect("nobody panics with it").spawn(async move {
                    if let Ok(mut server) = TcpStream::connect(target).await {
                        let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                    }
                });
            }
        });
        Self { addr, target, open, _accepting: AbortOnDropHandle::new(accepting) }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Cuts every connection, and refuses new ones.
    pub(crate) async fn cut(&self) {
        *self.target.lock().expect("nobody panics with it") = None;
        let mut open = std::mem::take(&mut *self.open.lock().expect("nobody panics with it"));
        open.shutdown().await;
    }

    /// Continues, to this server.
    pub(crate) fn mend(&self, target: SocketAddr) {
        *self.target.lock().expect("nobody panics with it") = Some(target);
    }
}

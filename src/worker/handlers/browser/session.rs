//! One session: an isolated page, and what can be done with it. Each action has a time limit, and ends at once when the
//! page or the browser is lost.

use std::{
    future::Future,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use chromiumoxide::{
    Page,
    cdp::browser_protocol::{
        browser::{SetDownloadBehaviorBehavior, SetDownloadBehaviorParams},
        page::{
            CaptureScreenshotFormat, CaptureScreenshotParams, GetLayoutMetricsParams, StopLoadingParams,
            Viewport as Clip,
        },
        target::{CreateTargetParams, GetTargetInfoParams, TargetInfo},
    },
    cdp::js_protocol::runtime::EvaluateParams,
    element::Element,
    error::CdpError,
};
use serde_json::{Value, json};
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{sleep, timeout},
};
use url::Url;

use super::{
    chromium::{BrowsingContext, CRASHED, Chromium, ChromiumError},
    loading::Loading,
    proxy::{Dialer, Place, Proxy},
};

/// Between two looks for an element.
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// How long a page may take to stop loading, and a lost browser to be noticed.
const STOP: Duration = Duration::from_secs(2);
/// Largest screenshot in each direction, in pixels: what Chromium can paint at once.
const MAX_SIDE: f64 = 16_384.0;
/// Characters of a title or an address that are told.
const TOLD: usize = 2_048;

/// Sets the value of a form field as a person would have, and tells the page. Answers what is wrong, or nothing.
const FILL: &str = "function() {
    const text = TEXT;
    if (this.isContentEditable) { this.focus(); this.textContent = text; }
    else if (this instanceof HTMLSelectElement) {
        const option = [...this.options].find(o => o.value === text || o.label === text);
        if (!option) return 'has no such option';
        this.value = option.value;
    }
    else if (this instanceof HTMLInputElement || this instanceof HTMLTextAreaElement) {
        if (this.disabled || this.readOnly) return 'is disabled or read-only';
        if (['checkbox', 'radio', 'file', 'button', 'submit', 'reset', 'image'].includes(this.type))
            return 'is of type ' + this.type + ', which takes no text';
        this.focus();
        Object.getOwnPropertyDescriptor(Object.getPrototypeOf(this), 'value').set.call(this, text);
    }
    else return 'is no field of a form';
    this.dispatchEvent(new Event('input', { bubbles: true }));
    this.dispatchEvent(new Event('change', { bubbles: true }));
    return '';
}";

/// Why an action was not done.
#[derive(Debug, thiserror::Error)]
pub(super) enum ActionError {
    /// The page is gone; whoever wants to go on begins anew.
    #[error("session lost: {0}; open it again")]
    Lost(String),
    #[error("{what} took longer than {limit:?} and was broken off")]
    TooSlow { what: String, limit: Duration },
    #[error("{0}")]
    Refused(String),
    #[error("{url} was not loaded: {cause}")]
    NotLoaded { url: Url, cause: String },
    #[error("no element matches `{0}`")]
    NoElement(String),
    #[error("`{0}` is no CSS selector")]
    NoSelector(String),
    #[error("the element `{selector}` {problem}")]
    Unfit { selector: String, problem: String },
    #[error("the browser says: {0}")]
    Browser(#[from] CdpError),
}

/// An open session. Dropping it closes its page and breaks off its connections.
pub(super) struct Session {
    page: Page,
    proxy: Proxy,
    dialer: Dialer,
    chromium: Arc<Chromium>,
    limit: Duration,
    opened: Instant,
    _context: BrowsingContext,
    _slot: OwnedSemaphorePermit,
}

impl Session {
    /// Opens an empty page in a profile of its own.
    pub(super) async fn open(
        chromium: Arc<Chromium>,
        dialer: Dialer,
        limit: Duration,
        slot: OwnedSemaphorePermit,
    ) -> Result<Self, ChromiumError> {
        let proxy = Proxy::start(dialer.clone()).await?;
        let context = chromium.context(&proxy).await?;
        let mut downloads = SetDownloadBehaviorParams::new(SetDownloadBehaviorBehavior::Deny);
        downloads.browser_context_id = Some(context.id.clone());
        chromium.browser().execute(downloads).await?;
        let mut blank = CreateTargetParams::new("about:blank");
        blank.browser_context_id = Some(context.id.clone());
        let page = chromium.browser().new_page(blank).await?;
        let opened = Instant::now();
        Ok(Self { page, proxy, dialer, chromium, limit, opened, _context: context, _slot: slot })
    }

    /// Why it can't be used any more, if so.
    pub(super) fn lost(&self) -> Option<String> {
        let losses = self.chromium.losses();
        let losses = losses.borrow();
        let crashed = || losses.pages.contains(self.page.target_id()).then(|| "the page crashed".to_owned());
        losses.all.clone().or_else(crashed)
    }

    /// Loads `url` and waits until the page has. Answers where that led.
    pub(super) async fn goto(&self, url: &Url) -> Result<Value, ActionError> {
        if let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) {
            let place = Place::new(host, port);
            self.dialer.check(&place).await.map_err(|error| ActionError::Refused(error.to_string()))?;
        }
        let loaded = self.within(self.limit, &format!("loading {url}"), self.load(url)).await;
        if matches!(loaded, Err(ActionError::TooSlow { .. } | ActionError::NotLoaded { .. })) {
            self.clear().await;
        }
        let status = loaded?;
        let TargetInfo { url, title, .. } = self.info().await?;
        Ok(json!({ "url": short(&url), "title": short(&title), "status": status }))
    }

    /// Answers the HTTP status; `None` if nothing was asked of a server, as for `#fragment`.
    async fn load(&self, url: &Url) -> Result<Option<i64>, ActionError> {
        let mut news = Loading::listen(&self.page).await?;
        self.proxy.take_problem();
        let mut going = pin!(self.page.goto(url.as_str()));
        let gone = tokio::select! {
            biased;
            cause = news.aborted() => return Err(ActionError::NotLoaded { url: url.clone(), cause }),
            gone = &mut going => gone,
        };
        match gone {
            Err(CdpError::ChromeMessage(cause)) => {
                let problem = self.proxy.take_problem().map_or_else(String::new, |problem| format!(" ({problem})"));
                Err(ActionError::NotLoaded { url: url.clone(), cause: format!("{cause}{problem}") })
            }
            Err(error) => Err(error.into()),
            Ok(_) => news.status(),
        }
    }

    /// Breaks off what is loading and leaves a blank page. The driver begins no other load before one that it waits for is
    /// replaced by a new document.
    async fn clear(&self) {
        let clearing = async {
            self.page.execute(StopLoadingParams::default()).await?;
            self.page.execute(EvaluateParams::new("location.replace('about:blank')")).await
        };
        // A page that is too busy for this holds up the next load, until that one's limit at most.
        let _ = timeout(STOP, clearing).await;
    }

    /// Clicks the first element that matches, in its middle, as a mouse does.
    pub(super) async fn click(&self, selector: &str) -> Result<Value, ActionError> {
        let clicking = async {
            let element = self.find(selector).await?;
            let unfit = |error: CdpError| ActionError::Unfit {
                selector: selector.to_owned(),
                problem: format!("can't be clicked: {error}"),
            };
            element.click().await.map_err(unfit)?;
            Ok(())
        };
        self.within(self.limit, &format!("clicking `{selector}`"), clicking).await?;
        Ok(Value::Null)
    }

    /// Sets the value of the first field that matches.
    pub(super) async fn fill(&self, selector: &str, text: &str) -> Result<Value, ActionError> {
        let filling = async {
            let element = self.find(selector).await?;
            let function = FILL.replace("TEXT", &json!(text).to_string());
            let answer = element.call_js_fn(function, false).await?;
            match answer.result.value.as_ref().and_then(Value::as_str) {
                Some("") => Ok(()),
                other => {
                    let problem = other.unwrap_or("can't be filled").to_owned();
                    Err(ActionError::Unfit { selector: selector.to_owned(), problem })
                }
            }
        };
        self.within(self.limit, &format!("filling `{selector}`"), filling).await?;
        Ok(Value::Null)
    }

    /// Waits until an element matches, at most `limit` and never longer than an action may take.
    pub(super) async fn wait_for(&self, selector: &str, limit: Option<Duration>) -> Result<Value, ActionError> {
        let waiting = async {
            loop {
                match self.find(selector).await {
                    Ok(_) => return Ok(()),
                    Err(error @ ActionError::NoSelector(_)) => return Err(error),
                    // A page that is just changing gives errors of many kinds; the limit ends them.
                    Err(_) => sleep(POLL_INTERVAL).await,
                }
            }
        };
        let limit = limit.unwrap_or(self.limit).min(self.limit);
        self.within(limit, &format!("waiting for `{selector}`"), waiting).await?;
        Ok(Value::Null)
    }

    /// The page as a PNG in base64: what the window shows, or all of it.
    pub(super) async fn screenshot(&self, full_page: bool) -> Result<Value, ActionError> {
        let taking = async {
            let metrics = self.page.execute(GetLayoutMetricsParams::default()).await?.result;
            let window = metrics.css_layout_viewport;
            #[expect(clippy::cast_precision_loss, reason = "a window has some thousand pixels")]
            let (mut width, mut height) = (window.client_width as f64, window.client_height as f64);
            let mut params =
                CaptureScreenshotParams { format: Some(CaptureScreenshotFormat::Png), ..Default::default() };
            if full_page {
                let content = metrics.css_content_size;
                (width, height) = (content.width.clamp(1.0, MAX_SIDE), content.height.clamp(1.0, MAX_SIDE));
                params.clip = Some(Clip { x: 0.0, y: 0.0, width, height, scale: 1.0 });
                params.capture_beyond_viewport = Some(true);
            }
            let png: String = self.page.execute(params).await?.result.data.into();
            Ok(json!({ "png": png, "width": width, "height": height }))
        };
        self.within(self.limit, "the screenshot", taking).await
    }

    /// Where it is.
    pub(super) async fn status(&self) -> Result<Value, ActionError> {
        let TargetInfo { url, title, .. } = self.info().await?;
        Ok(json!({ "url": short(&url), "title": short(&title), "open_seconds": self.opened.elapsed().as_secs() }))
    }

    async fn info(&self) -> Result<TargetInfo, ActionError> {
        let asking = async {
            let target_id = Some(self.page.target_id().clone());
            Ok(self.chromium.browser().execute(GetTargetInfoParams { target_id }).await?.result.target_info)
        };
        self.within(self.limit, "asking where the page is", asking).await
    }

    async fn find(&self, selector: &str) -> Result<Element, ActionError> {
        self.page.find_element(selector).await.map_err(|error| match error {
            CdpError::Chrome(error) if error.message.contains("DOM Error") => {
                ActionError::NoSelector(selector.to_owned())
            }
            CdpError::Chrome(_) | CdpError::NotFound => ActionError::NoElement(selector.to_owned()),
            error => error.into(),
        })
    }

    /// `action` within `limit`, unless the page is lost before.
    async fn within<T>(
        &self,
        limit: Duration,
        what: &str,
        action: impl Future<Output = Result<T, ActionError>>,
    ) -> Result<T, ActionError> {
        let id = self.page.target_id();
        let mut losses = self.chromium.losses();
        let loss = pin!(losses.wait_for(|losses| losses.all.is_some() || losses.pages.contains(id)));
        let done = tokio::select! {
            biased;
            _ = loss => return Err(self.loss()),
            done = timeout(limit, action) => done,
        };
        match done {
            Err(_) => Err(ActionError::TooSlow { what: what.to_owned(), limit }),
            // What was under way when the connection broke says less than why it broke.
            Ok(Err(ActionError::Browser(CdpError::ChannelSendError(_) | CdpError::Ws(_)))) => {
                let mut losses = self.chromium.losses();
                let _ = timeout(STOP, losses.wait_for(|losses| losses.all.is_some())).await;
                Err(self.loss())
            }
            // The driver's own limit is the same as ours.
            Ok(Err(ActionError::Browser(CdpError::Timeout))) => {
                Err(ActionError::TooSlow { what: what.to_owned(), limit })
            }
            Ok(done) => done,
        }
    }

    fn loss(&self) -> ActionError {
        ActionError::Lost(self.lost().unwrap_or_else(|| CRASHED.to_owned()))
    }
}

fn short(text: &str) -> String {
    text.chars().take(TOLD).collect()
}

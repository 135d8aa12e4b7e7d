//! One session: an isolated page, and the actions on it. Each action has a time limit, and ends immediately when the
//! page or the browser is lost.

mod data;

use std::{
    future::Future,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{sleep, timeout},
};
use url::Url;

use super::{
    action_error::ActionError,
    chromium::{BrowsingContext, CRASHED, Chromium, ChromiumError},
    devtools::CommandError,
    loading::{self, Loaded},
    page::Page,
    proxy::{Dialer, Place, Proxy},
};
use crate::{config::BrowserSettings, egress::without_credentials};

/// Time between two looks for an element.
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// Maximum time until the loss of a browser is noticed.
const STOP: Duration = Duration::from_secs(2);
/// Time added to the limit of a load, for stopping the load.
const STOPPING: Duration = Duration::from_secs(15);
/// Largest screenshot in each direction, in pixels: the maximum that Chromium can paint in one piece.
const MAX_SIDE: f64 = 16_384.0;
/// Largest area of a screenshot, in pixels. Chromium holds several copies of a picture, with four bytes per pixel.
const MAX_AREA: f64 = 33_554_432.0;
/// Maximum bytes of a page's HTML in a result.
const MAX_HTML: usize = 4 << 20;
/// Maximum characters of a title or address in a result.
const TOLD: usize = 2_048;

/// Sets the value of a form field as a person would, and notifies the page. Returns the problem, if there is one.
const FILL: &str = "function(text) {
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

/// An open session. Dropping it closes its page and its connections.
pub(super) struct Session {
    page: Page,
    proxy: Proxy,
    dialer: Dialer,
    chromium: Arc<Chromium>,
    limit: Duration,
    opened: Instant,
    _context: BrowsingContext,
    /// Its place, unless its Chromium holds it.
    _place: Option<OwnedSemaphorePermit>,
}

impl Session {
    /// Opens an empty page in a profile of its own.
    pub(super) async fn open(
        chromium: Arc<Chromium>,
        dialer: Dialer,
        settings: &BrowserSettings,
        place: Option<OwnedSemaphorePermit>,
    ) -> Result<Self, ChromiumError> {
        let proxy = Proxy::start(dialer.clone()).await?;
        let context = chromium.context(&proxy).await?;
        let page = Page::open(chromium.devtools().clone(), &context.id, settings).await?;
        let (opened, limit) = (Instant::now(), settings.action_timeout());
        Ok(Self { page, proxy, dialer, chromium, limit, opened, _context: context, _place: place })
    }

    /// Returns the session as opened now, because someone has it from now on.
    pub(super) fn taken(self) -> Self {
        Self { opened: Instant::now(), ..self }
    }

    /// Returns whether the page can be used, and reacts to commands.
    pub(super) async fn reacts(&self) -> bool {
        self.lost().is_none() && loading::reacts(&self.page).await
    }

    /// Returns why the session can no longer be used; `None` if it can.
    pub(super) fn lost(&self) -> Option<String> {
        let losses = self.chromium.losses();
        let losses = losses.borrow();
        let alone = || losses.pages.get(self.page.target()).map(|why| (*why).to_owned());
        losses.all.clone().or_else(alone)
    }

    /// Ends the session because it was open for as long as it may be.
    pub(super) fn expire(&self) {
        self.chromium.close_expired(self.page.target());
    }

    /// Loads `url` and waits until the page has loaded. Returns the resulting address, title and status.
    pub(super) async fn goto(&self, url: &Url) -> Result<Value, ActionError> {
        if let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) {
            let place = Place::new(host, port);
            self.dialer.check(&place).await.map_err(|error| ActionError::Refused(error.to_string()))?;
        }
        let loading = loading::load(&self.page, url, self.limit, &self.proxy);
        let loaded = self.within(self.limit + STOPPING, "stopping to load", loading).await;
        if matches!(loaded, Err(ActionError::TooSlow { .. } | ActionError::NotLoaded { .. })) {
            self.clear().await;
        }
        let Loaded { status, is_complete, is_substitute } = loaded.map_err(|error| self.with_dialogs_told(error))?;
        let (at, title) = if is_substitute { (url.to_string(), String::new()) } else { self.info().await? };
        let at = without_credentials(&at);
        let mut told = json!({ "url": short(&at), "title": short(&title), "status": status });
        if !is_complete {
            told["loaded"] = json!(false);
            // The page is reported as far as it has loaded. If it does not react any more, it is given up.
            if !loading::reacts(&self.page).await {
                self.chromium.give_up(self.page.target());
            }
        }
        Ok(self.with_dialogs(told))
    }

    /// Leaves a blank page. A page that hangs is given up.
    async fn clear(&self) {
        if self.lost().is_none() && !loading::clear(&self.page).await {
            self.chromium.give_up(self.page.target());
        }
    }

    /// Returns a result with the dialogs that were shown since the last one.
    fn with_dialogs(&self, told: Value) -> Value {
        let Some(dialogs) = self.page.take_dialogs() else { return told };
        let mut told = if told.is_null() { json!({}) } else { told };
        told["dialogs"] = dialogs;
        told
    }

    /// Returns an error with the first dialog that was shown since the last result, because the dialog may be the
    /// cause.
    fn with_dialogs_told(&self, error: ActionError) -> ActionError {
        match (error, self.page.take_dialogs()) {
            (ActionError::TooSlow { what, limit }, Some(dialogs)) => {
                let what = format!("{what} (which showed the dialog {})", dialogs[0]["message"]);
                ActionError::TooSlow { what, limit }
            }
            (error, _) => error,
        }
    }

    /// Clicks the first matching element in its middle, as a mouse does.
    pub(super) async fn click(&self, selector: &str) -> Result<Value, ActionError> {
        let unfit = |problem: String| ActionError::Unfit { selector: selector.to_owned(), problem };
        let clicking = async {
            let element = self.find(selector).await?;
            let element = json!({ "objectId": element });
            let scrolled = self.page.call("DOM.scrollIntoViewIfNeeded", element.clone()).await;
            scrolled.map_err(|error| unfit(format!("can't be clicked: {error}")))?;
            let quads = self.page.call("DOM.getContentQuads", element).await;
            let quads = quads.map_err(|error| unfit(format!("can't be clicked: {error}")))?;
            let Some((x, y)) = middle(&quads["quads"]) else {
                return Err(unfit("can't be clicked: it is not visible".to_owned()));
            };
            for kind in ["mouseMoved", "mousePressed", "mouseReleased"] {
                let button = if kind == "mouseMoved" { "none" } else { "left" };
                let event = json!({ "type": kind, "x": x, "y": y, "button": button, "clickCount": 1 });
                self.page.call("Input.dispatchMouseEvent", event).await?;
            }
            Ok(())
        };
        self.within(self.limit, &format!("clicking `{selector}`"), clicking).await?;
        Ok(self.with_dialogs(Value::Null))
    }

    /// Sets the value of the first matching field.
    pub(super) async fn fill(&self, selector: &str, text: &str) -> Result<Value, ActionError> {
        let filling = async {
            let element = self.find(selector).await?;
            let filling = json!({
                "functionDeclaration": FILL, "objectId": element, "arguments": [{ "value": text }], "returnByValue": true,
            });
            let answer = self.page.call("Runtime.callFunctionOn", filling).await?;
            match answer["result"]["value"].as_str() {
                Some("") => Ok(()),
                other => {
                    let problem = other.unwrap_or("can't be filled").to_owned();
                    Err(ActionError::Unfit { selector: selector.to_owned(), problem })
                }
            }
        };
        self.within(self.limit, &format!("filling `{selector}`"), filling).await?;
        Ok(self.with_dialogs(Value::Null))
    }

    /// Waits until an element matches, for at most `limit` and at most the limit of an action.
    pub(super) async fn wait_for(&self, selector: &str, limit: Option<Duration>) -> Result<Value, ActionError> {
        let waiting = async {
            loop {
                match self.find(selector).await {
                    Ok(_) => return Ok(()),
                    Err(error @ ActionError::NoSelector(_)) => return Err(error),
                    // A page that is changing causes many kinds of errors; the limit ends them.
                    Err(_) => sleep(POLL_INTERVAL).await,
                }
            }
        };
        let limit = limit.unwrap_or(self.limit).min(self.limit);
        self.within(limit, &format!("waiting for `{selector}`"), waiting).await?;
        Ok(self.with_dialogs(Value::Null))
    }

    /// Returns the page as a PNG in base64: the visible part, or the whole page up to the maximum size of a picture.
    pub(super) async fn screenshot(&self, full_page: bool) -> Result<Value, ActionError> {
        let taking = async {
            let metrics = self.page.call("Page.getLayoutMetrics", json!({})).await?;
            let size = |of: &str, width: &str, height: &str| {
                let side = |name: &str| metrics[of][name].as_f64().unwrap_or(1.0);
                (side(width), side(height))
            };
            let (mut width, mut height) = size("cssLayoutViewport", "clientWidth", "clientHeight");
            let (mut params, mut cut_off) = (json!({ "format": "png" }), None);
            if full_page {
                let all = size("cssContentSize", "width", "height");
                (width, height) = fitting(all);
                cut_off = (all.0.ceil() > width.ceil() || all.1.ceil() > height.ceil()).then_some(all);
                params["clip"] = json!({ "x": 0, "y": 0, "width": width, "height": height, "scale": 1 });
                params["captureBeyondViewport"] = json!(true);
            }
            let mut taken = self.page.call("Page.captureScreenshot", params).await?;
            let mut told = json!({ "png": taken["data"].take(), "width": width, "height": height });
            if let Some((page_width, page_height)) = cut_off {
                told["clipped"] = json!(true);
                told["page_width"] = json!(page_width);
                told["page_height"] = json!(page_height);
            }
            Ok(told)
        };
        let told = self.within(self.limit, "the screenshot", taking).await?;
        Ok(self.with_dialogs(told))
    }

    /// Returns the page as HTML.
    pub(super) async fn content(&self) -> Result<Value, ActionError> {
        const HTML: &str = "document.documentElement ? document.documentElement.outerHTML : ''";
        let reading = async {
            let params = json!({ "expression": HTML, "returnByValue": true });
            let answer = self.page.call("Runtime.evaluate", params).await?;
            let html = answer["result"]["value"].as_str().unwrap_or_default();
            let end = (0..=html.len().min(MAX_HTML)).rev().find(|at| html.is_char_boundary(*at)).unwrap_or(0);
            let mut told = json!({ "html": &html[..end] });
            if end < html.len() {
                told["clipped"] = json!(true);
            }
            Ok(told)
        };
        let told = self.within(self.limit, "reading the page", reading).await?;
        Ok(self.with_dialogs(told))
    }

    /// Returns the page as a PDF in base64.
    pub(super) async fn pdf(&self) -> Result<Value, ActionError> {
        let printing = async {
            let mut printed = self.page.call("Page.printToPDF", json!({ "printBackground": true })).await?;
            Ok(json!({ "pdf": printed["data"].take() }))
        };
        let told = self.within(self.limit, "printing the page", printing).await?;
        Ok(self.with_dialogs(told))
    }

    /// Returns the page's address, title and age.
    pub(super) async fn status(&self) -> Result<Value, ActionError> {
        let (url, title) = self.info().await?;
        let url = without_credentials(&url);
        let open_seconds = self.opened.elapsed().as_secs();
        let told = json!({ "url": short(&url), "title": short(&title), "open_seconds": open_seconds });
        Ok(self.with_dialogs(told))
    }

    async fn info(&self) -> Result<(String, String), ActionError> {
        self.within(self.limit, "asking where the page is", async { Ok(self.page.info().await?) }).await
    }

    /// Returns Chromium's id of the first matching element.
    async fn find(&self, selector: &str) -> Result<Value, ActionError> {
        let none = || ActionError::NoElement(selector.to_owned());
        let document = self.page.call("DOM.getDocument", json!({ "depth": 0 })).await?;
        let asked = json!({ "nodeId": document["root"]["nodeId"], "selector": selector });
        let found = match self.page.call("DOM.querySelector", asked).await {
            Ok(found) => found["nodeId"].clone(),
            Err(CommandError::Refused(problem)) if problem.contains("DOM Error") => {
                return Err(ActionError::NoSelector(selector.to_owned()));
            }
            // The document has been replaced meanwhile.
            Err(CommandError::Refused(_)) => return Err(none()),
            Err(error) => return Err(error.into()),
        };
        if found.as_u64().unwrap_or_default() == 0 {
            return Err(none());
        }
        match self.page.call("DOM.resolveNode", json!({ "nodeId": found })).await {
            Ok(mut resolved) => Ok(resolved["object"]["objectId"].take()),
            Err(CommandError::Refused(_)) => Err(none()),
            Err(error) => Err(error.into()),
        }
    }

    /// Runs `action` within `limit`, unless the page is lost before.
    async fn within<T>(
        &self,
        limit: Duration,
        what: &str,
        action: impl Future<Output = Result<T, ActionError>>,
    ) -> Result<T, ActionError> {
        let page = self.page.target();
        let mut losses = self.chromium.losses();
        let loss = pin!(losses.wait_for(|losses| losses.all.is_some() || losses.pages.contains_key(page)));
        let done = tokio::select! {
            biased;
            _ = loss => return Err(self.loss()),
            done = timeout(limit, action) => done,
        };
        match done {
            Err(_) => Err(ActionError::TooSlow { what: what.to_owned(), limit }),
            // The reason of the broken connection says more than the action that it interrupted.
            Ok(Err(ActionError::Browser(CommandError::Closed))) => {
                let mut losses = self.chromium.losses();
                let _ = timeout(STOP, losses.wait_for(|losses| losses.all.is_some())).await;
                Err(self.loss())
            }
            Ok(done) => done,
        }
    }

    fn loss(&self) -> ActionError {
        ActionError::Lost(self.lost().unwrap_or_else(|| CRASHED.to_owned()))
    }
}

/// Returns the size of the largest part of a page, from its upper left corner, that one picture may show.
fn fitting((width, height): (f64, f64)) -> (f64, f64) {
    let width = width.clamp(1.0, MAX_SIDE);
    (width, height.clamp(1.0, MAX_SIDE).min((MAX_AREA / width).floor()))
}

/// Returns the middle of the first of an element's boxes that has a size.
fn middle(quads: &Value) -> Option<(f64, f64)> {
    quads.as_array()?.iter().find_map(|quad| {
        let corners: Vec<f64> = quad.as_array()?.iter().filter_map(Value::as_f64).collect();
        let [x1, y1, x2, y2, x3, y3, x4, y4] = corners[..] else { return None };
        let twice_area = (x1 * y2 - x2 * y1) + (x2 * y3 - x3 * y2) + (x3 * y4 - x4 * y3) + (x4 * y1 - x1 * y4);
        (twice_area.abs() > 2.0).then_some(((x1 + x2 + x3 + x4) / 4.0, (y1 + y2 + y3 + y4) / 4.0))
    })
}

fn short(text: &str) -> String {
    text.chars().take(TOLD).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_has_at_most_so_many_pixels() {
        for (page, picture) in [
            ((1_280.0, 800.0), (1_280.0, 800.0)),
            ((1_280.0, 99_999.0), (1_280.0, 16_384.0)),
            ((8_000.0, 40_000.0), (8_000.0, 4_194.0)),
            ((99_999.0, 99_999.0), (16_384.0, 2_048.0)),
            ((0.0, 0.0), (1.0, 1.0)),
        ] {
            assert_eq!(fitting(page), picture);
            assert!(picture.0 * picture.1 <= MAX_AREA);
        }
    }

    #[test]
    fn an_element_is_clicked_in_the_middle_of_its_first_box_with_a_size() {
        let quads = json!([[0, 0, 0, 0, 0, 0, 0, 0], [10, 10, 30, 10, 30, 20, 10, 20]]);
        assert_eq!(middle(&quads), Some((20.0, 15.0)));
        assert_eq!((middle(&json!([])), middle(&json!([[1, 2]]))), (None, None));
    }
}

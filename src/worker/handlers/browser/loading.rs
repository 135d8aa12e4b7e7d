//! Loads a page, until its main document has loaded or the time is over; in the latter case the page stays as far as it
//! has loaded. Frames, pictures, downloads in a frame and other parts of the page never replace the page.

use std::time::Duration;

use serde_json::json;
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout, timeout_at},
};
use url::Url;

use super::{
    action_error::ActionError,
    devtools::CommandError,
    page::{Page, PageState},
    proxy::Proxy,
};
use crate::egress::shown;

/// Time after its load in which a page may announce a further navigation.
const SETTLING: Duration = Duration::from_millis(30);
/// Maximum time of a further navigation that the page has announced.
const LEAVING: Duration = Duration::from_secs(2);
/// Maximum further navigations of a page; after that, the shown document counts.
const MAX_REDIRECTS: usize = 10;
/// Maximum attempts to load a page, if a navigation of the page before takes its place.
const ATTEMPTS: usize = 5;
/// Address of an empty page.
const BLANK: &str = "about:blank";
/// Maximum time for a page to stop loading.
const STOP: Duration = Duration::from_secs(5);
/// Chromium's error for an error status without a body: Chromium shows a page of its own.
const EMPTY_ERROR: &str = "net::ERR_HTTP_RESPONSE_CODE_FAILURE";
/// Chromium's error for a load that was aborted.
const ABORTED: &str = "net::ERR_ABORTED";

/// Result of a load.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Loaded {
    /// HTTP status; `None` if no server was asked, as for `#fragment`.
    pub(super) status: Option<i64>,
    /// Whether everything in the page has loaded.
    pub(super) is_complete: bool,
    /// Whether Chromium shows a page of its own, in place of an error without a body.
    pub(super) is_substitute: bool,
}

/// A load that was begun.
enum Begun {
    /// The document of this loader will be shown.
    Loading(String),
    /// There is nothing to wait for.
    Done(Loaded),
}

/// Loads `url`; again if the page before, which was about to go elsewhere, has taken its place in the meantime.
pub(super) async fn load(page: &Page, url: &Url, limit: Duration, proxy: &Proxy) -> Result<Loaded, ActionError> {
    let deadline = Instant::now() + limit;
    let too_slow = || ActionError::TooSlow { what: format!("loading {}", shown(url)), limit };
    let mut state = page.state();
    let mut attempts = 0;
    let (loader, in_time) = loop {
        attempts += 1;
        // Unfinished requests of the previous page would otherwise keep the connections to its server.
        let _ = timeout(STOP.min(limit), leave(page, &mut state, url)).await;
        let begun = timeout_at(deadline, begin(page, &mut state, url, proxy)).await.map_err(|_| too_slow())??;
        let loader = match begun {
            Begun::Loading(loader) => loader,
            Begun::Done(loaded) => return Ok(loaded),
        };
        let in_time = timeout_at(deadline, until_loaded(page, &mut state, &loader)).await.is_ok();
        if !in_time || attempts == ATTEMPTS || !state.borrow().is_overtaken(&loader) {
            break (loader, in_time);
        }
    };
    let is_complete = in_time && !state.borrow().is_broken;
    if !in_time {
        // A page that is too busy for this command continues to load.
        let _ = timeout(STOP, page.call("Page.stopLoading", json!({}))).await;
        if !state.borrow().has_shown(&loader) {
            return Err(too_slow());
        }
    }
    let answer = state.borrow().answer().cloned();
    let status = answer.as_ref().map(|answer| answer.status);
    match answer.and_then(|answer| answer.problem) {
        Some(problem) => Err(ActionError::Refused(problem)),
        None => Ok(Loaded { status, is_complete, is_substitute: false }),
    }
}

/// Stops the page. A page that goes elsewhere by itself is left for a blank one, which stays: until it is replaced,
/// Chromium accepts navigations from it, and such a navigation would follow the next load. For a `url` with a fragment
/// the page is kept, because the fragment may be one of this page.
async fn leave(page: &Page, state: &mut watch::Receiver<PageState>, url: &Url) -> Result<(), CommandError> {
    page.call("Page.stopLoading", json!({})).await?;
    if url.fragment().is_none() && state.borrow().is_restless() {
        let blank = page.call("Page.navigate", json!({ "url": BLANK })).await?;
        let loader = blank["loaderId"].as_str().unwrap_or_default();
        // An error means that the page is gone, and the caller notices that by other means.
        let _ = state.wait_for(|state| state.has_shown(loader)).await;
        page.call("Page.stopLoading", json!({})).await?;
    }
    Ok(())
}

/// Begins to load `url`.
async fn begin(
    page: &Page,
    state: &mut watch::Receiver<PageState>,
    url: &Url,
    proxy: &Proxy,
) -> Result<Begun, ActionError> {
    proxy.take_problem();
    let begun = page.call("Page.navigate", json!({ "url": url.as_str() })).await?;
    let loader = begun["loaderId"].as_str().unwrap_or_default();
    if let Some(cause) = begun["errorText"].as_str() {
        let answer = state.borrow().answer_of(loader).cloned();
        if let Some(answer) = answer.filter(|answer| cause == EMPTY_ERROR && answer.problem.is_none()) {
            // Chromium's own page gets the address.
            let _ = timeout(STOP, state.wait_for(|state| state.has_shown(loader))).await;
            return Ok(Begun::Done(Loaded { status: Some(answer.status), is_complete: true, is_substitute: true }));
        }
        return Err(not_loaded(url, cause, proxy));
    }
    if loader.is_empty() {
        return Ok(Begun::Done(Loaded { status: None, is_complete: true, is_substitute: false }));
    }
    Ok(Begun::Loading(loader.to_owned()))
}

/// Waits until the page has loaded and stays where it is.
async fn until_loaded(page: &Page, state: &mut watch::Receiver<PageState>, loader: &str) {
    // An error means that the page is gone, and the caller notices that by other means.
    let _ = state.wait_for(|state| state.has_shown(loader)).await;
    for _ in 0..MAX_REDIRECTS {
        let _ = state.wait_for(|state| state.is_loaded || state.is_broken).await;
        sleep(SETTLING).await;
        // What the page announced until now has been heard when it answers.
        let _ = reacts(page).await;
        if !state.borrow().goes_on() {
            break;
        }
        let left = state.borrow().document().map(str::to_owned);
        let _ = timeout(LEAVING, state.wait_for(|state| !state.goes_on())).await;
        if state.borrow().document() == left.as_deref() {
            break;
        }
    }
}

fn not_loaded(url: &Url, cause: &str, proxy: &Proxy) -> ActionError {
    let cause = match (proxy.take_problem(), cause) {
        (Some(problem), cause) => format!("{cause} ({problem})"),
        (None, ABORTED) => format!("{ABORTED}: a download, or an answer without content"),
        (None, cause) => cause.to_owned(),
    };
    ActionError::NotLoaded { url: shown(url), cause }
}

/// Returns whether the page reacts to commands. It does not while one of its scripts runs forever.
pub(super) async fn reacts(page: &Page) -> bool {
    let asked = page.call("Runtime.evaluate", json!({ "expression": "1" }));
    matches!(timeout(STOP, asked).await, Ok(Ok(_) | Err(CommandError::Refused(_))))
}

/// Stops the load and leaves a blank page; returns whether the page reacted.
pub(super) async fn clear(page: &Page) -> bool {
    let clearing = async {
        page.call("Page.stopLoading", json!({})).await?;
        page.call("Page.navigate", json!({ "url": BLANK })).await
    };
    let cleared = matches!(timeout(STOP, clearing).await, Ok(Ok(_) | Err(CommandError::Refused(_))));
    // A page that hangs accepts the command, and does not carry it out.
    cleared && reacts(page).await
}

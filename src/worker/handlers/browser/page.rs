//! One page, as the browser reports it: the shown document, whether it has loaded, and the server's response. Answers
//! dialogs, password requests and file choosers immediately, so that no page waits for a person.

use std::{collections::VecDeque, time::Duration};

use serde_json::{Value, json};
use tokio::{sync::watch, time::timeout};

use super::{
    devtools::{CommandError, DevTools, Event},
    proxy::PROBLEM_HEADER,
};
use crate::config::BrowserSettings;

/// Maximum documents, and maximum responses, that are remembered: a page that scripts redirect has several.
const REMEMBERED: usize = 32;
/// Maximum dialogs that are reported with their text; of further dialogs only the number is reported.
const DIALOGS: usize = 10;
/// Maximum characters of a dialog's text.
const DIALOG_TEXT: usize = 500;
/// Maximum delay of a `refresh` that belongs to the load of a page.
const REFRESH_SECONDS: f64 = 1.0;
/// Maximum time for a page to tell its title.
const TITLE: Duration = Duration::from_secs(1);
/// Maximum time for setting up a page.
const SETUP: Duration = Duration::from_secs(20);

/// Response to a request for the page's main document.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) loader: String,
    pub(super) status: i64,
    /// Error of the session's own proxy, which answered in place of the server.
    pub(super) problem: Option<String>,
}

/// A document that the page has shown.
#[derive(Clone, Debug)]
struct Document {
    loader: String,
    /// Whether it has announced a further navigation, at any time.
    leads_on: bool,
}

/// What the browser has reported about a page.
#[derive(Clone, Debug, Default)]
pub(super) struct PageState {
    /// The page's main frame, which may contain others.
    frame: String,
    /// Loaders of the requests for a main document, the newest last.
    requests: VecDeque<String>,
    /// Documents that the page has shown, the current one last.
    documents: VecDeque<Document>,
    /// Whether the current document has loaded, with all its parts.
    pub(super) is_loaded: bool,
    /// Whether the current document's load was aborted and will never complete.
    pub(super) is_broken: bool,
    /// Whether the page has requested a further navigation.
    is_leaving: bool,
    /// Seconds after which a `refresh` of the current document leads elsewhere, or to itself again.
    refresh: Option<f64>,
    answers: VecDeque<Answer>,
    dialogs: Vec<Value>,
    untold_dialogs: u64,
}

impl PageState {
    /// Returns whether the page goes on to another document.
    pub(super) fn goes_on(&self) -> bool {
        self.is_leaving || self.refresh.is_some_and(|seconds| seconds <= REFRESH_SECONDS)
    }

    /// Returns whether the document of this loader is, or was, shown.
    pub(super) fn has_shown(&self, loader: &str) -> bool {
        self.documents.iter().any(|document| document.loader == loader)
    }

    /// Returns whether another document was requested after the document of this loader, which did not ask for it. The
    /// document before has: Chromium still accepts its navigation while the new document takes its place.
    pub(super) fn is_overtaken(&self, loader: &str) -> bool {
        let shown = self.documents.iter().find(|document| document.loader == loader);
        let mut later = self.requests.iter().skip_while(|request| *request != loader);
        shown.is_some_and(|document| !document.leads_on) && later.any(|request| request != loader)
    }

    /// Returns whether the current document has announced a further navigation, at any time.
    pub(super) fn is_restless(&self) -> bool {
        self.documents.back().is_some_and(|document| document.leads_on)
    }

    /// Returns the loader of the current document.
    pub(super) fn document(&self) -> Option<&str> {
        self.documents.back().map(|document| document.loader.as_str())
    }

    /// Returns the response that the current document came from.
    pub(super) fn answer(&self) -> Option<&Answer> {
        self.answer_of(self.document()?)
    }

    /// Returns the response to the request for that document, shown or not.
    pub(super) fn answer_of(&self, loader: &str) -> Option<&Answer> {
        self.answers.iter().rev().find(|answer| answer.loader == loader)
    }

    fn dialog(&mut self, params: &Value) {
        if self.dialogs.len() < DIALOGS {
            let text = params["message"].as_str().unwrap_or_default();
            let text: String = text.chars().take(DIALOG_TEXT).collect();
            self.dialogs.push(json!({ "type": params["type"], "message": text }));
        } else {
            self.untold_dialogs += 1;
        }
    }

    /// Notes that the current document has announced a further navigation.
    fn leads_on(&mut self) {
        if let Some(document) = self.documents.back_mut() {
            document.leads_on = true;
        }
    }

    fn note(&mut self, event: &Event) {
        let params = &event.params;
        let is_own = |frame: &Value| frame.as_str() == Some(self.frame.as_str());
        match event.method.as_str() {
            "Page.frameNavigated" if is_own(&params["frame"]["id"]) => {
                let document = Document { loader: text(&params["frame"]["loaderId"]), leads_on: false };
                remember(&mut self.documents, document);
                (self.is_loaded, self.is_broken) = (false, false);
                (self.is_leaving, self.refresh) = (false, None);
            }
            "Page.frameScheduledNavigation" if is_own(&params["frameId"]) => {
                self.refresh = params["delay"].as_f64();
                self.leads_on();
            }
            "Page.frameRequestedNavigation" if is_own(&params["frameId"]) => {
                self.is_leaving = true;
                self.leads_on();
            }
            "Page.frameStoppedLoading" if is_own(&params["frameId"]) => self.is_leaving = false,
            "Page.lifecycleEvent" if is_own(&params["frameId"]) && params["name"] == "load" => {
                self.is_loaded |= self.document() == params["loaderId"].as_str();
            }
            "Network.loadingFailed" => {
                self.is_broken |= self.document() == params["requestId"].as_str();
            }
            "Network.requestWillBeSent" if params["type"] == "Document" && is_own(&params["frameId"]) => {
                remember(&mut self.requests, text(&params["loaderId"]));
            }
            "Network.responseReceived" if params["type"] == "Document" && is_own(&params["frameId"]) => {
                let response = &params["response"];
                let mut headers = response["headers"].as_object().into_iter().flatten();
                let problem = headers.find(|(name, _)| name.eq_ignore_ascii_case(PROBLEM_HEADER));
                let answer = Answer {
                    loader: text(&params["loaderId"]),
                    status: response["status"].as_i64().unwrap_or_default(),
                    problem: problem.map(|(_, problem)| text(problem)),
                };
                remember(&mut self.answers, answer);
            }
            "Page.javascriptDialogOpening" => self.dialog(params),
            _ => {}
        }
    }
}

/// A page of the browser. Its target is closed with its profile, not here.
pub(super) struct Page {
    devtools: DevTools,
    target: String,
    session: String,
    state: watch::Sender<PageState>,
}

impl Page {
    /// Opens an empty page in the profile `context`.
    pub(super) async fn open(
        devtools: DevTools,
        context: &str,
        settings: &BrowserSettings,
    ) -> Result<Self, CommandError> {
        let opening = Self::open_unbounded(devtools, context, settings);
        let late = || CommandError::Refused("the browser opens no page".to_owned());
        timeout(SETUP, opening).await.unwrap_or_else(|_| Err(late()))
    }

    async fn open_unbounded(
        devtools: DevTools,
        context: &str,
        settings: &BrowserSettings,
    ) -> Result<Self, CommandError> {
        let blank = json!({ "url": "about:blank", "browserContextId": context });
        let target = text(&devtools.call("", "Target.createTarget", blank).await?["targetId"]);
        let attach = json!({ "targetId": target, "flatten": true });
        let session = text(&devtools.call("", "Target.attachToTarget", attach).await?["sessionId"]);
        let frames = devtools.call(&session, "Page.getFrameTree", json!({})).await?;
        let frame = text(&frames["frameTree"]["frame"]["id"]);
        let state = watch::Sender::new(PageState { frame, ..PageState::default() });
        let page = Self { devtools: devtools.clone(), target, session: session.clone(), state: state.clone() };
        let listener = Listener { devtools: devtools.clone(), session: session.clone(), state };
        devtools.on_event(&session, move |event| listener.hear(&event));
        let (width, height) = (settings.width, settings.height);
        for (method, params) in [
            ("Page.enable", json!({})),
            ("Page.setLifecycleEventsEnabled", json!({ "enabled": true })),
            // By default Chromium keeps the bodies of responses for inspection.
            ("Network.enable", json!({ "maxTotalBufferSize": 0, "maxResourceBufferSize": 0 })),
            ("Fetch.enable", fetch()),
            ("Page.setInterceptFileChooserDialog", json!({ "enabled": true })),
            (
                "Emulation.setDeviceMetricsOverride",
                json!({ "width": width, "height": height, "deviceScaleFactor": 0, "mobile": false }),
            ),
            ("Target.setAutoAttach", json!({ "autoAttach": true, "waitForDebuggerOnStart": false, "flatten": true })),
        ] {
            page.call(method, params).await?;
        }
        Ok(page)
    }

    /// Sends a command to the page and waits for the reply.
    pub(super) async fn call(&self, method: &str, params: Value) -> Result<Value, CommandError> {
        self.devtools.call(&self.session, method, params).await
    }

    pub(super) fn target(&self) -> &str {
        &self.target
    }

    /// Returns a receiver of the page's state, present and future.
    pub(super) fn state(&self) -> watch::Receiver<PageState> {
        self.state.subscribe()
    }

    /// Returns the address and the title. The browser learns of a new title a moment after the page, so the page is
    /// asked for it, and the browser only if the page is too busy.
    pub(super) async fn info(&self) -> Result<(String, String), CommandError> {
        let info = self.devtools.call("", "Target.getTargetInfo", json!({ "targetId": self.target })).await?;
        let info = &info["targetInfo"];
        let asked = self.call("Runtime.evaluate", json!({ "expression": "document.title" }));
        let told = timeout(TITLE, asked).await.ok().and_then(Result::ok).unwrap_or_default();
        // A document without a title is named after its address, which only the browser does.
        let title = told["result"]["value"].as_str().filter(|title| !title.is_empty());
        Ok((text(&info["url"]), title.map_or_else(|| text(&info["title"]), str::to_owned)))
    }

    /// Returns the dialogs since the last call, in the form of the result; `None` if there was none.
    pub(super) fn take_dialogs(&self) -> Option<Value> {
        let mut taken = None;
        self.state.send_if_modified(|state| {
            let mut dialogs = std::mem::take(&mut state.dialogs);
            let untold = std::mem::take(&mut state.untold_dialogs);
            if untold > 0 {
                dialogs.push(json!({ "type": "more", "message": format!("{untold} more") }));
            }
            taken = (!dialogs.is_empty()).then(|| Value::from(dialogs));
            false
        });
        taken
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        self.devtools.leave_with_joined(&self.session);
    }
}

/// Intercepts all requests, so that password requests go to the worker and not to a person.
fn fetch() -> Value {
    json!({ "handleAuthRequests": true, "patterns": [{ "urlPattern": "*" }] })
}

/// Receives the events of a page and its frames, and answers their requests.
struct Listener {
    devtools: DevTools,
    session: String,
    state: watch::Sender<PageState>,
}

impl Listener {
    fn hear(&self, event: &Event) {
        self.answer(event);
        if event.session == self.session {
            self.state.send_modify(|state| state.note(event));
        }
    }

    fn answer(&self, event: &Event) {
        let params = &event.params;
        let request = |more: Value| {
            let mut request = json!({ "requestId": params["requestId"] });
            if let (Value::Object(request), Value::Object(more)) = (&mut request, more) {
                request.extend(more);
            }
            request
        };
        let tell = |method, params| self.devtools.tell(&event.session, method, params);
        match event.method.as_str() {
            // A dialog of `beforeunload` is accepted: a page must not prevent the navigation away from it.
            "Page.javascriptDialogOpening" => {
                tell("Page.handleJavaScriptDialog", json!({ "accept": params["type"] == "beforeunload" }));
            }
            "Fetch.requestPaused" => tell("Fetch.continueRequest", request(json!({}))),
            "Fetch.authRequired" => {
                let none = json!({ "authChallengeResponse": { "response": "CancelAuth" } });
                tell("Fetch.continueWithAuth", request(none));
            }
            // A frame of another site has its own process and its own session.
            "Target.attachedToTarget" if params["targetInfo"]["type"] == "iframe" => {
                let frame = text(&params["sessionId"]);
                self.devtools.join(&self.session, &frame);
                self.devtools.tell(&frame, "Fetch.enable", fetch());
            }
            "Target.detachedFromTarget" => {
                self.devtools.leave(&text(&params["sessionId"]));
            }
            _ => {}
        }
    }
}

fn remember<T>(all: &mut VecDeque<T>, one: T) {
    all.push_back(one);
    if all.len() > REMEMBERED {
        all.pop_front();
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(events: &[(&str, Value)]) -> PageState {
        let mut state = PageState { frame: "main".to_owned(), ..PageState::default() };
        for (method, params) in events {
            let event = Event { session: "s".to_owned(), method: (*method).to_owned(), params: params.clone() };
            state.note(&event);
        }
        state
    }

    fn navigated(frame: &str, loader: &str) -> (&'static str, Value) {
        ("Page.frameNavigated", json!({ "frame": { "id": frame, "loaderId": loader } }))
    }

    fn load(frame: &str, loader: &str) -> (&'static str, Value) {
        ("Page.lifecycleEvent", json!({ "frameId": frame, "loaderId": loader, "name": "load" }))
    }

    #[test]
    fn a_page_has_loaded_when_its_newest_document_has_whatever_its_frames_do() {
        assert!(!state(&[navigated("main", "a"), load("child", "b")]).is_loaded);
        assert!(state(&[navigated("main", "a"), navigated("child", "b"), load("main", "a")]).is_loaded);
        let redirected = state(&[navigated("main", "a"), navigated("main", "b"), load("main", "a")]);
        assert!(!redirected.is_loaded && redirected.has_shown("a") && redirected.has_shown("b"));
    }

    #[test]
    fn a_page_goes_on_until_it_has_and_a_late_refresh_is_not_awaited() {
        let scheduled = |frame: &str, delay: f64| {
            ("Page.frameScheduledNavigation", json!({ "frameId": frame, "delay": delay, "reason": "metaTagRefresh" }))
        };
        let stopped = ("Page.frameStoppedLoading", json!({ "frameId": "main" }));
        let refreshing = [navigated("main", "a"), load("main", "a"), scheduled("main", 0.0), stopped.clone()];
        assert!(state(&refreshing).goes_on(), "the end of its load does not end that");
        assert!(!state(&[&refreshing[..], &[navigated("main", "b")]].concat()).goes_on());
        assert!(!state(&[navigated("main", "a"), scheduled("main", 30.0)]).goes_on());
        assert!(!state(&[navigated("main", "a"), scheduled("child", 0.0)]).goes_on());
        let leaving = [navigated("main", "a"), ("Page.frameRequestedNavigation", json!({ "frameId": "main" }))];
        assert!(state(&leaving).goes_on());
        assert!(!state(&[&leaving[..], &[stopped]].concat()).goes_on(), "a download");
    }

    #[test]
    fn a_document_is_overtaken_by_one_that_it_did_not_ask_for() {
        let document = |loader: &str| json!({ "frameId": "main", "loaderId": loader, "type": "Document" });
        let requested = |loader: &str| ("Network.requestWillBeSent", document(loader));
        let leaving = ("Page.frameRequestedNavigation", json!({ "frameId": "main" }));
        let a = [requested("a"), requested("a"), navigated("main", "a")];
        let late = [requested("b"), leaving, requested("c"), navigated("main", "b"), navigated("main", "c")];
        let both = state(&[&a[..], &late].concat());
        assert!(both.is_overtaken("b") && !both.is_overtaken("c"));
        assert!(!both.is_overtaken("a"), "it has asked for the next one");
        assert!(!state(&a).is_overtaken("a"), "a redirect is one navigation");
        assert!(state(&[&a[..], &late[..2]].concat()).is_restless() && !both.is_restless());
    }

    #[test]
    fn dialogs_are_told_up_to_a_limit() {
        let alert = ("Page.javascriptDialogOpening", json!({ "type": "alert", "message": "x".repeat(9_999) }));
        let state = state(&vec![alert; DIALOGS + 3]);
        assert_eq!((state.dialogs.len(), state.untold_dialogs), (DIALOGS, 3));
        assert_eq!(state.dialogs[0]["message"].as_str().unwrap().len(), DIALOG_TEXT);
    }
}

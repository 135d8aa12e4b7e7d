//! What a page tells while it loads: which answer its document came from, and whether it came to nothing.

use std::sync::Arc;

use chromiumoxide::{
    Page,
    cdp::browser_protocol::{
        network::{EventLoadingFailed, EventResponseReceived, ResourceType},
        page::{EventFrameNavigated, FrameId},
    },
    error::CdpError,
    listeners::EventStream,
};
use futures_util::{FutureExt, StreamExt};

use super::{proxy::PROBLEM_HEADER, session::ActionError};

/// One load of a page. Subscribed before it begins.
pub(super) struct Loading {
    frame: Option<FrameId>,
    answers: EventStream<EventResponseReceived>,
    failures: EventStream<EventLoadingFailed>,
    commits: EventStream<EventFrameNavigated>,
    /// The newest answer for the page itself, and whether the page shows it.
    newest: Option<Arc<EventResponseReceived>>,
    shown: bool,
}

impl Loading {
    pub(super) async fn listen(page: &Page) -> Result<Self, CdpError> {
        Ok(Self {
            frame: page.mainframe().await?,
            answers: page.event_listener().await?,
            failures: page.event_listener().await?,
            commits: page.event_listener().await?,
            newest: None,
            shown: false,
        })
    }

    /// Waits until the document has been answered with nothing to show, and says how. A document that is shown and then
    /// replaced by another one has not come to nothing.
    pub(super) async fn aborted(&mut self) -> String {
        loop {
            tokio::select! {
                biased;
                Some(answer) = self.answers.next() => self.note(answer),
                Some(commit) = self.commits.next() => {
                    let newest = self.newest.as_ref().map(|answer| answer.loader_id.inner().as_str());
                    self.shown |= newest == Some(commit.frame.loader_id.inner().as_str());
                }
                Some(failure) = self.failures.next() => {
                    let ours = self.newest.as_ref().is_some_and(|answer| answer.request_id == failure.request_id);
                    if ours && !self.shown {
                        return format!("{}: a download, or an answer without content", failure.error_text);
                    }
                }
                else => std::future::pending::<()>().await,
            }
        }
    }

    /// The HTTP status of what is shown, `None` if no server was asked; an error if it is the proxy's own answer.
    pub(super) fn status(mut self) -> Result<Option<i64>, ActionError> {
        while let Some(Some(answer)) = self.answers.next().now_or_never() {
            self.note(answer);
        }
        let Some(answer) = self.newest else { return Ok(None) };
        let headers = answer.response.headers.inner().as_object();
        let problem = headers
            .and_then(|headers| headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(PROBLEM_HEADER))?.1.as_str());
        problem.map_or(Ok(Some(answer.response.status)), |text| Err(ActionError::Refused(text.to_owned())))
    }

    fn note(&mut self, answer: Arc<EventResponseReceived>) {
        if answer.r#type == ResourceType::Document && answer.frame_id == self.frame {
            self.newest = Some(answer);
            self.shown = false;
        }
    }
}

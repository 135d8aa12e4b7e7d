//! The task that sends alerts to the webhooks of `[[notify]]`, in a build that can; a reload changes its webhooks.

#[cfg(feature = "notify")]
mod present {
    use std::sync::Arc;

    use tokio::{sync::watch, task::JoinSet};
    use tokio_util::sync::CancellationToken;

    use crate::{
        app::spawn,
        config::{NotifySettings, Settings},
        model::{Clock, snapshot::StatusSource},
        notify::Notifier,
    };

    /// The webhooks of the task.
    pub(in crate::app) struct Notifications(watch::Sender<Vec<NotifySettings>>);

    impl Notifications {
        /// Adds the task to `essential`.
        pub(in crate::app) fn start(
            settings: &Settings,
            status: Arc<dyn StatusSource>,
            clock: Clock,
            essential: &mut JoinSet<&'static str>,
            stop: &CancellationToken,
        ) -> Self {
            let (webhooks, current) = watch::channel(settings.notify.clone());
            spawn(essential, "notify", Notifier::new(status, clock, stop.clone()).run(current));
            Self(webhooks)
        }

        /// Puts the webhooks of new settings in force.
        pub(in crate::app) fn reload(&self, settings: &Settings) {
            self.0.send_replace(settings.notify.clone());
        }
    }
}

#[cfg(not(feature = "notify"))]
mod absent {
    use std::sync::Arc;

    use tokio::task::JoinSet;
    use tokio_util::sync::CancellationToken;

    use crate::{
        config::Settings,
        model::{Clock, snapshot::StatusSource},
    };

    /// No task; `[[notify]]` is refused before anything starts.
    pub(in crate::app) struct Notifications;

    impl Notifications {
        pub(in crate::app) fn start(
            _: &Settings,
            _: Arc<dyn StatusSource>,
            _: Clock,
            _: &mut JoinSet<&'static str>,
            _: &CancellationToken,
        ) -> Self {
            Self
        }

        #[expect(clippy::unused_self, reason = "as the task that it stands in for")]
        pub(in crate::app) fn reload(&self, _: &Settings) {}
    }
}

#[cfg(not(feature = "notify"))]
pub(super) use absent::Notifications;
#[cfg(feature = "notify")]
pub(super) use present::Notifications;

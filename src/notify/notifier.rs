//! The task that evaluates the snapshot once a second and queues each webhook's messages. Sends nothing itself, and
//! never waits for a webhook.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use super::{
    alerts::{self, Key},
    delivery::{Delivery, Queued, RateLimit},
    notification::Notification,
    sender::Sender,
    tracker::{Rules, Tracker},
};
use crate::{
    config::{AlertKind, NotifySettings},
    model::{
        Clock, Timestamp,
        snapshot::{FleetSnapshot, Role, StatusSource},
    },
    telemetry::{NotificationOutcome, NotificationSent},
};

/// Time between two evaluations of the snapshot.
const EVALUATION_INTERVAL: Duration = Duration::from_secs(1);

/// Capacity of a webhook's queue: room for one alert of every kind and several worker types. Further messages are
/// dropped and counted.
const QUEUE_CAPACITY: usize = 64;

/// Sends alerts until it is cancelled.
pub struct Notifier {
    status: Arc<dyn StatusSource>,
    clock: Clock,
    webhooks: Vec<Webhook>,
    /// Whether this autoscaler was the last one to lead.
    led: bool,
}

/// One webhook as the notifier sees it.
struct Webhook {
    name: String,
    settings: NotifySettings,
    tracker: Tracker,
    queue: mpsc::Sender<Queued>,
    dropped: Arc<AtomicU32>,
    failed: mpsc::Receiver<Key>,
}

impl Notifier {
    /// Prepares the webhooks, each with a task in `tasks`. Logs and leaves out a webhook that can't be used.
    pub fn start(
        settings: &[NotifySettings],
        status: Arc<dyn StatusSource>,
        clock: Clock,
        tasks: &mut JoinSet<()>,
        stop: &CancellationToken,
    ) -> Self {
        let mut webhooks = Vec::new();
        for (index, settings) in settings.iter().enumerate() {
            match Sender::new(settings.clone(), index) {
                Ok(sender) => webhooks.push(Webhook::start(settings.clone(), sender, tasks, stop)),
                Err(error) => tracing::warn!(webhook = settings.name(index), %error, "webhook left out"),
            }
        }
        Self { status, clock, webhooks, led: false }
    }

    /// Evaluates snapshots until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut ticks = interval(EVALUATION_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            let fleet = self.status.fleet();
            self.evaluate(&fleet);
        }
    }

    fn evaluate(&mut self, fleet: &FleetSnapshot) {
        let leads = fleet.leadership.role == Role::Leader;
        self.led = leads || (self.led && fleet.leadership.leader.is_none());
        let now = self.clock.now();
        let active = alerts::active(fleet, self.led);
        for webhook in &mut self.webhooks {
            if !self.led {
                // The leader sends the others again if they are active. It can't know what was sent about Redis while
                // nobody led.
                let stays = |kind, sent| kind == AlertKind::NobodyLeads || (sent && alerts::is_of_redis(kind));
                webhook.tracker.keep_only(stays);
            }
            webhook.evaluate(&active, fleet, now);
        }
    }
}

impl Webhook {
    fn start(settings: NotifySettings, sender: Sender, tasks: &mut JoinSet<()>, stop: &CancellationToken) -> Self {
        let name = sender.name().to_owned();
        let (queue, queued) = mpsc::channel(QUEUE_CAPACITY);
        // One entry for each message under way, so that there is always room.
        let (failed_sender, failed) = mpsc::channel(QUEUE_CAPACITY + 1);
        let dropped = Arc::new(AtomicU32::new(0));
        let limit = RateLimit::new(settings.per_minute);
        let delivery = Delivery { sender, queue: queued, limit, dropped: dropped.clone(), failed: failed_sender };
        let task = stop.clone().run_until_cancelled_owned(delivery.run());
        tasks.spawn(async move {
            let _ = task.await;
        });
        Self { name, settings, tracker: Tracker::default(), queue, dropped, failed }
    }

    fn evaluate(&mut self, active: &[alerts::Alert], fleet: &FleetSnapshot, now: Timestamp) {
        while let Ok(key) = self.failed.try_recv() {
            self.tracker.not_delivered(&key, now);
        }
        let mut wanted: Vec<_> = active.iter().filter(|alert| self.settings.wants(alert.key.0)).cloned().collect();
        let is_new = |alert: &alerts::Alert| wanted.iter().all(|of| of.key != alert.key);
        let sent = |alert: &alerts::Alert| self.tracker.has_sent(&alert.key) && is_new(alert);
        let sent: Vec<_> = alerts::of_redis(fleet).filter(sent).collect();
        wanted.extend(sent);
        let rules = Rules { after: self.settings.after(), send_resolved: self.settings.send_resolved };
        let leads = fleet.leadership.role == Role::Leader;
        let is_visible = |kind| leads || kind == AlertKind::NobodyLeads || alerts::is_of_redis(kind);
        let mut notifications = self.tracker.update(wanted, is_visible, rules, &fleet.instance, now);
        let changed = self.tracker.update_leader(fleet.leadership.leader.as_deref(), &fleet.instance, now);
        // The new leader sends it.
        notifications.extend(changed.filter(|_| leads && self.settings.wants(AlertKind::LeaderChanged)));
        for notification in notifications {
            self.put(notification, now);
        }
    }

    fn put(&mut self, notification: Notification, now: Timestamp) {
        let Err(refused) = self.queue.try_send(Queued { notification, at: Instant::now() }) else { return };
        self.dropped.fetch_add(1, Ordering::Relaxed);
        NotificationSent { webhook: &self.name, outcome: NotificationOutcome::Dropped, error: None }.emit();
        let notification = refused.into_inner().notification;
        if let Some(kind) = notification.kind {
            self.tracker.not_delivered(&(kind, notification.worker_type), now);
        }
    }
}

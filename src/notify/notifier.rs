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
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval},
};
use tokio_util::sync::{CancellationToken, DropGuard};

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
    /// Tasks that send.
    deliveries: JoinSet<()>,
    stop: CancellationToken,
}

/// One webhook as the notifier sees it.
struct Webhook {
    settings: NotifySettings,
    /// The same webhook as its delivery sees it.
    sender: watch::Sender<Arc<Sender>>,
    tracker: Tracker,
    queue: mpsc::Sender<Queued>,
    dropped: Arc<AtomicU32>,
    failed: mpsc::Receiver<Key>,
    /// Ends the delivery when the webhook is removed.
    _delivery: DropGuard,
}

impl Notifier {
    /// Returns a notifier without webhooks, which runs until `stop`.
    pub fn new(status: Arc<dyn StatusSource>, clock: Clock, stop: CancellationToken) -> Self {
        Self { status, clock, webhooks: Vec::new(), led: false, deliveries: JoinSet::new(), stop }
    }

    /// Evaluates snapshots for the webhooks of `settings`, which may change.
    pub async fn run(mut self, mut settings: watch::Receiver<Vec<NotifySettings>>) {
        settings.mark_changed();
        let mut ticks = interval(EVALUATION_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let stop = self.stop.clone();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Ok(()) = settings.changed() => {
                    let settings = settings.borrow_and_update().clone();
                    self.apply(&settings);
                }
                _ = ticks.tick(), if !self.webhooks.is_empty() => {
                    let fleet = self.status.fleet();
                    self.evaluate(&fleet);
                }
            }
        }
        self.webhooks.clear();
        while self.deliveries.join_next().await.is_some() {}
    }

    /// Replaces the webhooks. One with the same receiver keeps its memory and its messages that wait; those of a
    /// removed one are dropped. Logs and leaves out a webhook that can't be used.
    fn apply(&mut self, settings: &[NotifySettings]) {
        let before: Vec<_> = self.webhooks.iter().map(|webhook| &webhook.settings).collect();
        let kept = kept(&before, settings);
        let mut before: Vec<_> = std::mem::take(&mut self.webhooks).into_iter().map(Some).collect();
        for ((index, settings), kept) in settings.iter().enumerate().zip(kept) {
            let sender = match Sender::new(settings.clone(), index) {
                Ok(sender) => sender,
                Err(error) => {
                    tracing::warn!(webhook = settings.name(index), %error, "webhook left out");
                    continue;
                }
            };
            self.webhooks.push(match kept.and_then(|kept| before[kept].take()) {
                Some(webhook) => webhook.changed(settings.clone(), sender),
                None => Webhook::start(settings.clone(), sender, &mut self.deliveries, &self.stop),
            });
        }
        while self.deliveries.try_join_next().is_some() {}
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

/// Returns for each of the new webhooks the position of the old one whose receiver it has: first of one that has the
/// same name too, because several can have one receiver.
fn kept(before: &[&NotifySettings], now: &[NotifySettings]) -> Vec<Option<usize>> {
    let mut free = vec![true; before.len()];
    let mut kept = vec![None; now.len()];
    for same_name in [true, false] {
        for ((index, settings), kept) in now.iter().enumerate().zip(&mut kept).filter(|(_, kept)| kept.is_none()) {
            let fits = |old: &usize| {
                let named = before[*old].name(*old) == settings.name(index);
                free[*old] && before[*old].has_receiver_of(settings) && (named || !same_name)
            };
            *kept = (0..before.len()).find(fits);
            if let Some(old) = *kept {
                free[old] = false;
            }
        }
    }
    kept
}

impl Webhook {
    fn start(settings: NotifySettings, sender: Sender, deliveries: &mut JoinSet<()>, stop: &CancellationToken) -> Self {
        let (queue, queued) = mpsc::channel(QUEUE_CAPACITY);
        // One entry for each message under way, so that there is always room.
        let (failed_sender, failed) = mpsc::channel(QUEUE_CAPACITY + 1);
        let dropped = Arc::new(AtomicU32::new(0));
        let (sender, current) = watch::channel(Arc::new(sender));
        let limit = RateLimit::default();
        let delivery =
            Delivery { sender: current, queue: queued, limit, dropped: dropped.clone(), failed: failed_sender };
        let stop = stop.child_token();
        let task = stop.clone().run_until_cancelled_owned(delivery.run());
        deliveries.spawn(async move {
            let _ = task.await;
        });
        let tracker = Tracker::default();
        Self { settings, sender, tracker, queue, dropped, failed, _delivery: stop.drop_guard() }
    }

    /// Returns the same webhook with other settings. Alerts that it no longer gets are forgotten: they have not ended.
    fn changed(mut self, settings: NotifySettings, sender: Sender) -> Self {
        self.tracker.keep_only(|kind, _| settings.wants(kind));
        self.sender.send_replace(Arc::new(sender));
        Self { settings, ..self }
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
        NotificationSent { webhook: self.sender.borrow().name(), outcome: NotificationOutcome::Dropped, error: None }
            .emit();
        let notification = refused.into_inner().notification;
        if let Some(kind) = notification.kind {
            self.tracker.not_delivered(&(kind, notification.worker_type), now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::fixtures::fleet;

    fn webhooks(toml: &str) -> Vec<NotifySettings> {
        #[derive(serde::Deserialize)]
        struct File {
            #[serde(default)]
            notify: Vec<NotifySettings>,
        }
        toml::from_str::<File>(toml).expect("these are webhooks").notify
    }

    fn kept_of(before: &str, now: &str) -> Vec<Option<usize>> {
        let before = webhooks(before);
        kept(&before.iter().collect::<Vec<_>>(), &webhooks(now))
    }

    #[test]
    fn a_webhook_is_the_same_while_its_receiver_is() {
        let [one, two] = ["one", "two"].map(|path| format!("[[notify]]\nurl = \"http://127.0.0.1:1/{path}\"\n"));
        let both = format!("{one}{two}");
        assert_eq!(kept_of(&both, &both), [Some(0), Some(1)]);
        assert_eq!(kept_of(&both, &format!("{two}after_seconds = 5\n")), [Some(1)], "its place is another");
        assert_eq!(kept_of(&one, &format!("{two}{one}")), [None, Some(0)]);
        let named = |name: &str| format!("{one}name = \"{name}\"\n");
        let (a, b) = (named("a"), named("b"));
        assert_eq!(kept_of(&format!("{a}{b}"), &format!("{b}{a}")), [Some(1), Some(0)]);
        assert_eq!(kept_of(&a, &b), [Some(0)], "renamed");
        assert_eq!(kept_of(&a, &format!("{b}{a}")), [None, Some(0)]);
        assert_eq!(kept_of("", &one), [None]);
    }

    /// A notifier that sends nothing, because its webhook is the test.
    fn notifier(settings: &[NotifySettings]) -> (Notifier, mpsc::Receiver<Queued>) {
        struct Unused;
        impl StatusSource for Unused {
            fn fleet(&self) -> FleetSnapshot {
                unreachable!("the test has the snapshots")
            }
            fn not_ready(&self) -> Vec<String> {
                Vec::new()
            }
        }
        let mut notifier = Notifier::new(Arc::new(Unused), Clock::start(), CancellationToken::new());
        notifier.apply(settings);
        let (queue, queued) = mpsc::channel(QUEUE_CAPACITY);
        notifier.webhooks[0].queue = queue;
        (notifier, queued)
    }

    fn next(queued: &mut mpsc::Receiver<Queued>) -> Option<(&'static str, &'static str)> {
        let notification = queued.try_recv().ok()?.notification;
        Some((notification.alert(), notification.status.as_str()))
    }

    const ONE: &str = "[[notify]]\nurl = \"http://127.0.0.1:1/\"\nafter_seconds = 0\n";

    #[tokio::test]
    async fn what_was_sent_about_redis_ends_although_another_one_leads_by_then() {
        let (mut notifier, mut queued) = notifier(&webhooks(ONE));
        let mut seen = fleet(Role::Leader, Some("a"), Vec::new());
        seen.redis_refuses_writes = Some("NOREPLICAS".to_owned());
        notifier.evaluate(&seen);
        assert_eq!(next(&mut queued), Some(("redis_refuses_writes", "firing")));
        (seen.leadership.role, seen.leadership.leader) = (Role::Standby, Some("b".to_owned()));
        for _ in 0..3 {
            notifier.evaluate(&seen);
        }
        let key = (AlertKind::RedisRefusesWrites, None);
        assert!(notifier.webhooks[0].tracker.has_sent(&key), "it still holds, and this one has sent it");
        assert_eq!(next(&mut queued), None);
    }

    #[tokio::test]
    async fn other_settings_of_a_webhook_send_nothing_again_and_end_nothing() {
        let (mut notifier, mut queued) = notifier(&webhooks(ONE));
        let mut seen = fleet(Role::Leader, Some("a"), Vec::new());
        seen.redis_error = Some("refused".to_owned());
        notifier.evaluate(&seen);
        assert_eq!(next(&mut queued), Some(("redis_unreachable", "firing")));

        notifier.apply(&webhooks(&format!("{ONE}per_minute = 1\nname = \"other\"\n")));
        notifier.evaluate(&seen);
        assert_eq!(next(&mut queued), None, "it was sent");
        assert_eq!(notifier.webhooks[0].sender.borrow().name(), "other");

        notifier.apply(&webhooks(&format!("{ONE}alerts = [\"crash_loop\"]\n")));
        notifier.evaluate(&seen);
        assert!(!notifier.webhooks[0].tracker.has_sent(&(AlertKind::RedisUnreachable, None)), "it is not for this one");
        assert_eq!(next(&mut queued), None);

        notifier.apply(&[]);
        assert!(queued.is_closed() || queued.try_recv().is_err());
        notifier.apply(&webhooks(ONE));
        assert_eq!(notifier.webhooks.len(), 1);
    }
}

//! Remembers for one webhook which alerts are active and which were sent, so that each alert is sent once when it
//! begins and once when it ends. Pure.

use std::{collections::HashMap, time::Duration};

use super::{
    alerts::{Alert, Key},
    notification::{Notification, Status},
};
use crate::{config::AlertKind, model::Timestamp};

/// How long an alert must be inactive before it has ended: at a limit, a condition comes and goes.
const INACTIVE_FOR: Duration = Duration::from_secs(30);

/// Time until an active alert is sent again whose message did not arrive.
const RESEND_AFTER: Duration = Duration::from_secs(900);

/// Alerts of one webhook.
#[derive(Debug, Default)]
pub(super) struct Tracker {
    active: HashMap<Key, Tracked>,
    leader: Option<String>,
}

#[derive(Debug)]
struct Tracked {
    since: Timestamp,
    /// Since when the condition no longer holds.
    inactive_since: Option<Timestamp>,
    sent: bool,
    /// When it may be sent again, after a message that did not arrive.
    not_before: Option<Timestamp>,
    summary: String,
}

/// Settings of a webhook that decide what is sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// How long an alert must be active before it is sent.
    pub(super) after: Duration,
    /// Whether the end of an alert is sent.
    pub(super) send_resolved: bool,
}

impl Tracker {
    /// Takes the alerts whose condition holds now, and returns the messages about those that began or ended. Only an
    /// alert of a kind that `is_visible` can end: of the others this autoscaler does not know whether they hold.
    pub(super) fn update(
        &mut self,
        alerts: Vec<Alert>,
        is_visible: impl Fn(AlertKind) -> bool,
        rules: Rules,
        instance: &str,
        now: Timestamp,
    ) -> Vec<Notification> {
        let notification = |key: &Key, status, summary: &str, detail: String, at| Notification {
            kind: Some(key.0),
            status,
            worker_type: key.1.clone(),
            summary: summary.to_owned(),
            detail,
            instance: instance.to_owned(),
            at,
            dropped: 0,
        };
        for (_, tracked) in self.active.iter_mut().filter(|(key, _)| is_visible(key.0)) {
            tracked.inactive_since = tracked.inactive_since.or(Some(now));
        }
        let mut notifications = Vec::new();
        for alert in alerts {
            let tracked = self.active.entry(alert.key.clone()).or_insert_with(|| Tracked::new(now));
            tracked.inactive_since = None;
            tracked.summary.clone_from(&alert.summary);
            if tracked.is_due(after(alert.key.0, rules.after), now) {
                tracked.sent = true;
                notifications.push(notification(
                    &alert.key,
                    Status::Firing,
                    &alert.summary,
                    alert.detail,
                    tracked.since,
                ));
            }
        }
        self.active.retain(|key, tracked| {
            let Some(inactive_since) = tracked.inactive_since.filter(|_| is_visible(key.0)) else { return true };
            if !tracked.sent {
                return false;
            }
            if now.since(inactive_since) < INACTIVE_FOR {
                return true;
            }
            if rules.send_resolved {
                let duration = format!("it lasted {} s", inactive_since.since(tracked.since).as_secs());
                notifications.push(notification(key, Status::Resolved, &tracked.summary, duration, inactive_since));
            }
            false
        });
        notifications
    }

    /// Records that the message about an alert did not arrive: while the alert is active, it is sent again.
    pub(super) fn not_delivered(&mut self, key: &Key, now: Timestamp) {
        if let Some(tracked) = self.active.get_mut(key) {
            tracked.sent = false;
            tracked.not_before = Some(now.after(RESEND_AFTER));
        }
    }

    /// Forgets other alerts without sending that they ended. `keep` gets the kind, and whether the alert was sent.
    pub(super) fn keep_only(&mut self, keep: impl Fn(AlertKind, bool) -> bool) {
        self.active.retain(|key, tracked| keep(key.0, tracked.sent));
    }

    /// Returns whether the alert was sent and has not ended.
    pub(super) fn has_sent(&self, key: &Key) -> bool {
        self.active.get(key).is_some_and(|tracked| tracked.sent)
    }

    /// Returns a message if the leader differs from the last one that was known.
    pub(super) fn update_leader(
        &mut self,
        leader: Option<&str>,
        instance: &str,
        now: Timestamp,
    ) -> Option<Notification> {
        let leader = leader?;
        let before = self.leader.replace(leader.to_owned()).filter(|before| before != leader)?;
        Some(Notification {
            kind: Some(AlertKind::LeaderChanged),
            status: Status::Event,
            worker_type: None,
            summary: format!("autoscaler `{leader}` leads now"),
            detail: format!("previous leader: `{before}`"),
            instance: instance.to_owned(),
            at: now,
            dropped: 0,
        })
    }
}

impl Tracked {
    fn new(now: Timestamp) -> Self {
        Self { since: now, inactive_since: None, sent: false, not_before: None, summary: String::new() }
    }

    fn is_due(&self, after: Duration, now: Timestamp) -> bool {
        !self.sent && now.since(self.since) >= after && self.not_before.is_none_or(|not_before| now >= not_before)
    }
}

/// A refused configuration does not recover by itself, so there is nothing to wait for.
fn after(kind: AlertKind, usual: Duration) -> Duration {
    if kind == AlertKind::ConfigRefused { Duration::ZERO } else { usual }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::WorkerType;

    const RULES: Rules = Rules { after: Duration::from_secs(60), send_resolved: true };

    fn alert(kind: AlertKind, of: Option<&str>) -> Alert {
        let worker_type = of.map(WorkerType::new);
        Alert { key: (kind, worker_type), summary: "summary".to_owned(), detail: "detail".to_owned() }
    }

    fn at(second: u64) -> Timestamp {
        Timestamp(second * 1_000)
    }

    /// Returns kind and status of the messages, given the alerts that are active at a second.
    fn sent(tracker: &mut Tracker, rules: Rules, alerts: &[Alert], second: u64) -> Vec<(AlertKind, Status)> {
        let notifications = tracker.update(alerts.to_vec(), |_| true, rules, "a", at(second));
        notifications.into_iter().map(|notification| (notification.kind.unwrap(), notification.status)).collect()
    }

    #[test]
    fn an_alert_is_sent_once_when_it_has_lasted_and_once_when_it_has_ended() {
        let mut tracker = Tracker::default();
        let alerts = [alert(AlertKind::BackendFailing, Some("mail"))];
        for second in [0, 30, 59] {
            assert_eq!(sent(&mut tracker, RULES, &alerts, second), []);
        }
        assert_eq!(sent(&mut tracker, RULES, &alerts, 60), [(AlertKind::BackendFailing, Status::Firing)]);
        for second in 61..200 {
            assert_eq!(sent(&mut tracker, RULES, &alerts, second), [], "{second}");
        }
        assert_eq!(sent(&mut tracker, RULES, &[], 200), []);
        assert_eq!(sent(&mut tracker, RULES, &alerts, 229), [], "it came back");
        assert_eq!(sent(&mut tracker, RULES, &[], 230), []);
        assert_eq!(sent(&mut tracker, RULES, &[], 259), []);
        assert_eq!(sent(&mut tracker, RULES, &[], 260), [(AlertKind::BackendFailing, Status::Resolved)]);
        assert_eq!(sent(&mut tracker, RULES, &[], 300), []);
    }

    #[test]
    fn an_alert_that_does_not_last_is_never_sent() {
        let mut tracker = Tracker::default();
        let alerts = [alert(AlertKind::PoolAtMaximum, Some("mail"))];
        for round in 0..20 {
            assert_eq!(sent(&mut tracker, RULES, &alerts, round * 100), []);
            assert_eq!(sent(&mut tracker, RULES, &alerts, round * 100 + 50), []);
            assert_eq!(sent(&mut tracker, RULES, &[], round * 100 + 55), []);
        }
    }

    #[test]
    fn worker_types_have_alerts_of_their_own_and_ends_are_sent_only_on_request() {
        let mut tracker = Tracker::default();
        let rules = Rules { after: Duration::ZERO, send_resolved: false };
        let mail = alert(AlertKind::CrashLoop, Some("mail"));
        let shop = alert(AlertKind::CrashLoop, Some("shop"));
        assert_eq!(sent(&mut tracker, rules, std::slice::from_ref(&mail), 0).len(), 1);
        assert_eq!(sent(&mut tracker, rules, &[mail, shop], 1).len(), 1);
        assert_eq!(sent(&mut tracker, rules, &[], 2), []);
        assert_eq!(sent(&mut tracker, rules, &[], 100), []);
        let refused = [alert(AlertKind::ConfigRefused, None)];
        assert_eq!(sent(&mut tracker, RULES, &refused, 200), [(AlertKind::ConfigRefused, Status::Firing)]);
    }

    #[test]
    fn an_alert_whose_message_did_not_arrive_is_sent_again_while_it_is_active() {
        let mut tracker = Tracker::default();
        let rules = Rules { after: Duration::ZERO, ..RULES };
        let alerts = [alert(AlertKind::CrashLoop, Some("mail"))];
        assert_eq!(sent(&mut tracker, rules, &alerts, 0).len(), 1);
        tracker.not_delivered(&alerts[0].key, at(10));
        assert_eq!(sent(&mut tracker, rules, &alerts, 11), []);
        assert_eq!(sent(&mut tracker, rules, &alerts, 909), []);
        assert_eq!(sent(&mut tracker, rules, &alerts, 910).len(), 1);
        tracker.not_delivered(&alerts[0].key, at(911));
        assert_eq!(sent(&mut tracker, rules, &[], 912), [], "nobody knows of it, so nobody hears that it ended");
        assert_eq!(sent(&mut tracker, rules, &[], 2_000), []);
    }

    #[test]
    fn an_alert_does_not_end_while_nobody_can_see_whether_it_holds() {
        let mut tracker = Tracker::default();
        let rules = Rules { after: Duration::ZERO, ..RULES };
        let alerts = [alert(AlertKind::CrashLoop, Some("mail"))];
        assert_eq!(sent(&mut tracker, rules, &alerts, 0).len(), 1);
        for second in 1..100 {
            let notifications =
                tracker.update(Vec::new(), |kind| kind == AlertKind::NobodyLeads, rules, "a", at(second));
            assert_eq!(notifications, [], "{second}");
        }
        assert_eq!(sent(&mut tracker, rules, &[], 100), []);
        assert_eq!(sent(&mut tracker, rules, &[], 130), [(AlertKind::CrashLoop, Status::Resolved)]);
    }

    #[test]
    fn a_new_leader_is_an_event_and_the_first_leader_is_not() {
        let mut tracker = Tracker::default();
        let mut update = |leader| tracker.update_leader(leader, "b", Timestamp(1)).map(|of| of.summary);
        assert_eq!([update(Some("a")), update(Some("a")), update(None), update(Some("a"))], [const { None }; 4]);
        assert_eq!(update(Some("b")).as_deref(), Some("autoscaler `b` leads now"));
        assert_eq!(update(Some("b")), None);
    }
}

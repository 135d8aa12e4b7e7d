//! Checks the signal sources: keyspace notifications, client-side caching, the channel. Turns on nothing that was off.

use std::collections::HashMap;

use redis::Value;

use super::{Area, Finding};
use crate::{
    config::{Settings, Switch},
    connection::{Connection, RedisTarget},
    signal::{needed_flags, wanted_flags},
};

/// Whose settings a server has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    /// The autoscaler may extend `notify-keyspace-events`.
    Swarms,
    /// The autoscaler changes no setting.
    Others,
}

/// Whether a signal source works.
enum Wakes {
    Yes(String),
    No(String),
    /// The source is turned off.
    Off,
}

pub(super) async fn look(
    connection: &mut Connection,
    target: &RedisTarget,
    settings: &Settings,
    whose: Whose,
) -> Vec<Finding> {
    if settings.enabled().next().is_none() {
        return Vec::new();
    }
    let keyspace = keyspace(connection, settings, whose).await;
    let tracking = tracking(target, settings).await;
    let channel = !settings.signals.channel.is_empty();
    let other = matches!(tracking, Wakes::Yes(_)) || channel;
    let mut findings: Vec<Finding> = [
        told("keyspace", &keyspace, settings.signals.keyspace, other),
        told("tracking", &tracking, settings.signals.tracking, true),
    ]
    .into_iter()
    .flatten()
    .collect();
    let any = matches!(keyspace, Wakes::Yes(_)) || matches!(tracking, Wakes::Yes(_));
    let sweep = settings.scaler.sweep_interval_seconds;
    findings.push(match (any, channel) {
        (false, true) => {
            let found = format!("only messages on `{}` wake the autoscaler", settings.signals.channel);
            let cure = format!("the sweep notices other jobs within {sweep} s: turn keyspace or tracking on");
            Finding::warning(Area::Signals, found).cure(cure)
        }
        (false, false) => {
            let found = format!("nothing wakes the autoscaler but the sweep, every {sweep} s");
            Finding::problem(Area::Signals, found)
                .cure("turn a source of [signals] on; docs/redis.md says what each needs")
        }
        (true, _) => Finding::ok(Area::Signals, "a job is noticed when it comes"),
    });
    findings
}

fn told(source: &str, wakes: &Wakes, switch: Switch, other: bool) -> Option<Finding> {
    match wakes {
        Wakes::Off => None,
        Wakes::Yes(how) => Some(Finding::ok(Area::Signals, format!("{source}: {how}"))),
        Wakes::No(why) if switch == Switch::On => {
            let cure = format!("`signals.{source} = \"on\"` insists; allow it (docs/redis.md), or say \"auto\"");
            Some(Finding::problem(Area::Signals, format!("{source}: {why}")).cure(cure))
        }
        Wakes::No(why) if other => {
            Some(Finding::ok(Area::Signals, format!("{source} is unavailable, other sources work: {why}")))
        }
        Wakes::No(why) => Some(Finding::warning(Area::Signals, format!("{source}: {why}"))),
    }
}

/// Checks keyspace notifications. On a cluster each primary notifies about its own keys, so the worst answer counts.
async fn keyspace(connection: &Connection, settings: &Settings, whose: Whose) -> Wakes {
    if settings.signals.keyspace == Switch::Off {
        return Wakes::Off;
    }
    let needed = needed_flags(settings.enabled().map(|(_, of)| of.queue_kind()));
    let servers = match connection.primaries().await {
        Ok(primaries) => primaries.open,
        Err(error) => return Wakes::No(error.to_string()),
    };
    let mut worst = Wakes::No("no primary can be reached".to_owned());
    for mut server in servers {
        worst = keyspace_of(&mut server, &needed, whose).await;
        if matches!(worst, Wakes::No(_)) {
            break;
        }
    }
    worst
}

async fn keyspace_of(connection: &mut Connection, needed: &str, whose: Whose) -> Wakes {
    let mut get = redis::cmd("CONFIG");
    let get: redis::RedisResult<HashMap<String, String>> =
        get.arg("GET").arg("notify-keyspace-events").query_async(connection).await;
    let flags = match get {
        Ok(settings) => settings.into_values().next().unwrap_or_default(),
        Err(error) => return Wakes::No(format!("CONFIG GET notify-keyspace-events: {error}")),
    };
    let Some(wanted) = wanted_flags(&flags, needed) else {
        return Wakes::Yes(format!("notify-keyspace-events is \"{flags}\""));
    };
    if whose == Whose::Others {
        return Wakes::No(format!(
            "notify-keyspace-events is \"{flags}\", which needs {wanted}; set it on that server"
        ));
    }
    // Sets the present value again, which shows whether setting is allowed and changes nothing.
    let mut set = redis::cmd("CONFIG");
    let set: redis::RedisResult<Value> =
        set.arg("SET").arg("notify-keyspace-events").arg(&flags).query_async(connection).await;
    match set {
        Ok(_) => Wakes::Yes(format!("notify-keyspace-events is \"{flags}\"; an autoscaler makes it \"{wanted}\"")),
        Err(error) => Wakes::No(format!("notify-keyspace-events is \"{flags}\", and CONFIG SET is refused: {error}")),
    }
}

/// Checks client-side caching on a connection of its own, which is closed again.
async fn tracking(target: &RedisTarget, settings: &Settings) -> Wakes {
    if settings.signals.tracking == Switch::Off {
        return Wakes::Off;
    }
    let mut connection = match target.connect_with_push(|_| Ok::<(), std::convert::Infallible>(())).await {
        Ok(connection) => connection,
        Err(error) => return Wakes::No(format!("no connection with RESP3: {error}")),
    };
    let mut tracking = redis::cmd("CLIENT");
    let on: redis::RedisResult<Value> =
        tracking.arg("TRACKING").arg("ON").arg("OPTIN").query_async(&mut connection).await;
    match on {
        Ok(_) => Wakes::Yes("the server announces changes of keys that were read".to_owned()),
        Err(error) => Wakes::No(format!("CLIENT TRACKING is refused: {error}")),
    }
}

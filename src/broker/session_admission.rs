//! Limits of open sessions, for programs that open sessions on behalf of people. Owns the keys `session-openers:*`,
//! which say who opened which session. Whether a session is open is known from the session itself: one that ended by
//! itself, or died with its worker, frees its place although nobody says so.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{BrokerError, CallError, Client, session::script};
use crate::{
    connection::Connection,
    model::{Timestamp, WorkerId, WorkerType, keys},
};

const ADMIT: &str = include_str!("lua/admit_session.lua");
const SETTLE: &str = include_str!("lua/settle_session.lua");

/// A session that somebody wants to open, and the limits for it.
#[derive(Clone, Copy, Debug)]
pub struct SessionOpening<'a> {
    /// Name of the session.
    pub session: &'a str,
    /// Who wants to open it: a name without blanks.
    pub opener: &'a str,
    /// Prefix of the names of the sessions that are counted together.
    pub group: &'a str,
    /// Maximum open sessions of one opener. 0: unlimited.
    pub max_of_opener: u32,
    /// Maximum open sessions of the group. 0: unlimited.
    pub max_of_group: u32,
    /// Time after which the session is open or will not be opened any more. Until then it counts as open.
    pub within: Duration,
}

/// Whether a session may be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionAdmission {
    /// The session may be opened.
    Admitted(AdmittedSession),
    /// The opener has as many open sessions as it may: these.
    OpenerLimit(Vec<String>),
    /// The group has as many open sessions as it may.
    GroupLimit,
}

/// The note that a session is going to be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdmittedSession {
    session: String,
    value: String,
}

impl Client {
    /// Notes that somebody is going to open a session, unless a limit is reached. A session that is noted already, open
    /// or about to be opened, is admitted and stays its opener's.
    ///
    /// # Errors
    /// If Redis can't be asked.
    pub async fn admit_session(
        &self,
        worker_type: &WorkerType,
        opening: SessionOpening<'_>,
    ) -> Result<SessionAdmission, CallError> {
        self.ask(|mut connection| async move {
            let admitted = admit(&mut connection, worker_type, opening).await;
            admitted.map_err(|cause| BrokerError::new(format!("count the open sessions of `{worker_type}`"), cause))
        })
        .await
    }

    /// Notes that an admitted session is open now, or was not opened: from now on it counts while it is open.
    ///
    /// # Errors
    /// If Redis did not carry it out.
    pub async fn settle_session(&self, worker_type: &WorkerType, admitted: &AdmittedSession) -> Result<(), CallError> {
        let AdmittedSession { session, value } = admitted;
        self.ask(|mut connection| async move {
            let opener = Noted::parse(value).opener;
            let mut settle = script(SETTLE, &[&keys::session_openers(worker_type)]);
            settle.arg(session).arg(value).arg(format!("{opener} 0"));
            let settled = settle.exec_async(&mut connection).await;
            settled.map_err(|cause| BrokerError::new(format!("note who opened session `{session}`"), cause))
        })
        .await
    }
}

/// The value of a session in the hash.
struct Noted<'a> {
    opener: &'a str,
    /// Until when the session counts although it is not open.
    until: Timestamp,
}

impl<'a> Noted<'a> {
    fn parse(value: &'a str) -> Self {
        let (opener, until) = value.rsplit_once(' ').unwrap_or((value, ""));
        Self { opener, until: Timestamp(until.parse().unwrap_or_default()) }
    }
}

/// What is known about a noted session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Presence {
    /// Open, or about to be opened.
    Open,
    /// A worker without a heartbeat holds it: the session died with the worker, or the worker is only not heard.
    Silent,
    Closed,
}

async fn admit(
    connection: &mut Connection,
    worker_type: &WorkerType,
    opening: SessionOpening<'_>,
) -> redis::RedisResult<SessionAdmission> {
    let key = keys::session_openers(worker_type);
    let now = Timestamp::wall();
    let noted: BTreeMap<String, String> = redis::cmd("HGETALL").arg(&key).query_async(connection).await?;
    let presences = presences(connection, worker_type, &noted, now).await?;
    let with = |presence: Presence| {
        let noted = noted.iter().zip(&presences).filter(move |(_, is)| **is == presence);
        noted.map(|((session, value), _)| (session.as_str(), value.as_str()))
    };
    let is_openers = |value: &str| Noted::parse(value).opener == opening.opener;
    // Silent sessions are not counted, and stay noted, because they may be heard of again.
    let raised = |max: u32, silent: usize| if max == 0 { 0 } else { u64::from(max) + silent as u64 };
    let of_opener = with(Presence::Silent).filter(|(_, value)| is_openers(value)).count();
    let of_group = with(Presence::Silent).filter(|(session, _)| session.starts_with(opening.group)).count();
    let mut call = script(ADMIT, &[&key]);
    call.arg(opening.session).arg(opening.opener).arg(now.after(opening.within).0).arg(opening.group);
    call.arg(raised(opening.max_of_opener, of_opener)).arg(raised(opening.max_of_group, of_group));
    for (session, value) in with(Presence::Closed) {
        call.arg(session).arg(value);
    }
    let (verdict, value): (String, String) = call.query_async(connection).await?;
    Ok(match verdict.as_str() {
        "opener" => {
            let own = with(Presence::Open).filter(|(_, value)| is_openers(value));
            SessionAdmission::OpenerLimit(own.map(|(session, _)| session.to_owned()).collect())
        }
        "group" => SessionAdmission::GroupLimit,
        _ => SessionAdmission::Admitted(AdmittedSession { session: opening.session.to_owned(), value }),
    })
}

/// Returns what is known about each noted session, in their order.
async fn presences(
    connection: &mut Connection,
    worker_type: &WorkerType,
    noted: &BTreeMap<String, String>,
    now: Timestamp,
) -> redis::RedisResult<Vec<Presence>> {
    if noted.is_empty() {
        return Ok(Vec::new());
    }
    let mut ask = redis::pipe();
    for session in noted.keys() {
        ask.cmd("GET").arg(keys::session(worker_type, session));
    }
    let holders: Vec<Option<String>> = ask.query_async(connection).await?;
    let distinct: BTreeSet<&str> = holders.iter().flatten().map(String::as_str).collect();
    let mut heard = Vec::new();
    if !distinct.is_empty() {
        let mut ask = redis::pipe();
        for holder in &distinct {
            ask.cmd("EXISTS").arg(keys::heartbeat(worker_type, &WorkerId::new(*holder)));
        }
        heard = ask.query_async(connection).await?;
    }
    let heard: BTreeMap<&str, bool> = distinct.into_iter().zip(heard).collect();
    let presence = |(value, holder): (&String, &Option<String>)| match holder {
        _ if Noted::parse(value).until > now => Presence::Open,
        Some(holder) if heard.get(holder.as_str()) == Some(&true) => Presence::Open,
        Some(_) => Presence::Silent,
        None => Presence::Closed,
    };
    Ok(noted.values().zip(&holders).map(presence).collect())
}

//! One game session: a WebSocket that stays open. Only its task uses the socket: it sends, counts what arrives, pings,
//! and reconnects when the connection is lost. All others read its report.

use std::{future::pending, pin::Pin, time::Duration};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use futures_util::{SinkExt, StreamExt};
use serde::Serialize;
use tokio::{
    net::TcpStream,
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval_at, sleep, timeout},
};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async_with_config,
    tungstenite::{
        Bytes, Error, Message,
        error::CapacityError,
        protocol::{CloseFrame, WebSocketConfig, frame::coding::CloseCode},
    },
};
use tokio_util::sync::CancellationToken;

use crate::config::TankpitSettings;

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Maximum frames that wait to be sent; further senders wait.
const QUEUE: usize = 16;
/// First and longest pause before a reconnect.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Characters of the last text that are kept.
const TOLD: usize = 1_024;

/// State of a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum State {
    #[default]
    Connected,
    /// The connection is lost; the session waits for its next attempt, or tries.
    Reconnecting,
    /// The session has ended for good.
    Ended,
}

/// How the server or the network closed the last connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Closed {
    /// WebSocket close code; none if the connection broke without one.
    pub(super) code: Option<u16>,
    pub(super) reason: String,
}

/// What happened so far, on all connections together. Frames are those with text or data.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Report {
    pub(super) state: State,
    pub(super) frames_sent: u64,
    pub(super) frames_received: u64,
    pub(super) bytes_sent: u64,
    pub(super) bytes_received: u64,
    pub(super) reconnects: u64,
    pub(super) last_text: Option<String>,
    pub(super) last_close: Option<Closed>,
}

/// Why an operation failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum SessionProblem {
    #[error("could not connect to the game: {0}")]
    Connect(String),
    #[error("session lost: {0}; begin again with `spawn`")]
    Ended(String),
    #[error("not sent: the connection is lost and being made again; see `status`")]
    Reconnecting,
    #[error("not sent: {0}")]
    NotSent(String),
}

struct SessionCommand {
    text: String,
    sent: oneshot::Sender<Result<(), SessionProblem>>,
}

/// A running session. It is cut off when dropped; [`Session::stop`] closes it in an orderly way.
pub(super) struct Session {
    commands: mpsc::Sender<SessionCommand>,
    report: watch::Receiver<Report>,
    stop: CancellationToken,
    task: JoinHandle<()>,
    patience: Duration,
}

impl Session {
    /// Connects, and sends `hello` if there is one. From then on the connection is kept open, and `hello` is sent on
    /// each new one.
    pub(super) async fn open(settings: &TankpitSettings, hello: Option<String>) -> Result<Self, SessionProblem> {
        let (commands, inbox) = mpsc::channel(QUEUE);
        let (tell, report) = watch::channel(Report::default());
        let stop = CancellationToken::new();
        let mut task = SessionTask { settings: settings.clone(), hello, inbox, tell, stop: stop.clone() };
        let socket = task.connect().await.map_err(SessionProblem::Connect)?;
        let task = tokio::spawn(async move { task.run(socket).await });
        Ok(Self { commands, report, stop, task, patience: settings.timeout() })
    }

    pub(super) fn report(&self) -> Report {
        self.report.borrow().clone()
    }

    /// Returns why the session is over; `None` if it is not.
    pub(super) fn ended(&self) -> Option<String> {
        let report = self.report.borrow();
        let why = || report.last_close.as_ref().map_or_else(|| "it ended".to_owned(), ToString::to_string);
        (report.state == State::Ended || self.task.is_finished()).then(why)
    }

    /// Sends one text frame; returns when the frame is written.
    pub(super) async fn send(&self, text: String) -> Result<(), SessionProblem> {
        let over = || SessionProblem::Ended(self.ended().unwrap_or_else(|| "it ended".to_owned()));
        let (sent, done) = oneshot::channel();
        let sending = async {
            self.commands.send(SessionCommand { text, sent }).await.map_err(|_| over())?;
            done.await.map_err(|_| over())?
        };
        // Twice, because one earlier frame may still be being written.
        let late = || SessionProblem::NotSent(format!("the game took nothing for {:?}", self.patience * 2));
        timeout(self.patience * 2, sending).await.unwrap_or_else(|_| Err(late()))
    }

    /// Closes the connection in an orderly way, as far as the server cooperates; otherwise it is cut off when dropped.
    pub(super) async fn stop(&self) -> Report {
        self.stop.cancel();
        let mut report = self.report.clone();
        // An error means that the session took too long, or has ended already.
        let _ = timeout(self.patience, report.wait_for(|report| report.state == State::Ended)).await;
        self.report()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl std::fmt::Display for Closed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.code {
            Some(code) => write!(f, "the game closed the connection with code {code} ({})", self.reason),
            None => f.write_str(&self.reason),
        }
    }
}

/// The session's task.
struct SessionTask {
    settings: TankpitSettings,
    hello: Option<String>,
    inbox: mpsc::Receiver<SessionCommand>,
    tell: watch::Sender<Report>,
    stop: CancellationToken,
}

/// How a connection ended.
enum End {
    Stopped,
    Lost(Closed),
    /// Another connection would end in the same way.
    Hopeless(Closed),
}

impl SessionTask {
    async fn run(&mut self, mut socket: Socket) {
        let mut pauses = self.pauses();
        loop {
            let since = Instant::now();
            let (closed, final_word) = match self.serve(&mut socket).await {
                End::Stopped => break,
                End::Lost(closed) => (closed.clone(), closed.code.is_some_and(is_final)),
                End::Hopeless(closed) => (closed, true),
            };
            tracing::info!(%closed, final_word, "game connection lost");
            self.tell.send_modify(|report| {
                report.state = State::Reconnecting;
                report.last_close = Some(closed);
            });
            if final_word {
                break;
            }
            // A connection that lasted ends the series of failures.
            if since.elapsed() > self.settings.ping() {
                pauses = self.pauses();
            }
            drop(socket);
            match self.reconnect(&mut pauses).await {
                Some(next) => socket = next,
                None => break,
            }
        }
        self.tell.send_modify(|report| report.state = State::Ended);
    }

    fn pauses(&self) -> ExponentialBackoff {
        ExponentialBuilder::default()
            .with_min_delay(PAUSES.0)
            .with_max_delay(PAUSES.1)
            .with_max_times(self.settings.max_reconnects)
            .with_jitter()
            .build()
    }

    /// Connects and sends the greeting. The error is for people.
    async fn connect(&mut self) -> Result<Socket, String> {
        let limits = WebSocketConfig::default()
            .max_message_size(Some(self.settings.max_frame_bytes))
            .max_frame_size(Some(self.settings.max_frame_bytes));
        let connecting = async {
            let connecting = connect_async_with_config(self.settings.url.as_str(), Some(limits), true);
            let (mut socket, _) = connecting.await.map_err(|error| error.to_string())?;
            if let Some(hello) = self.hello.clone() {
                self.write(&mut socket, hello).await.map_err(|error| error.to_string())?;
            }
            Ok(socket)
        };
        let limit = self.settings.timeout();
        // The future borrows `self`, so the limit is read before.
        timeout(limit, Box::pin(connecting)).await.unwrap_or_else(|_| Err(format!("no answer within {limit:?}")))
    }

    /// Retries until there is a connection; `None` if the session must stop or all attempts failed.
    async fn reconnect(&mut self, pauses: &mut ExponentialBackoff) -> Option<Socket> {
        for pause in pauses.by_ref() {
            self.pause(pause).await?;
            let stop = self.stop.clone();
            let connected = stop.run_until_cancelled(self.connect()).await?;
            match connected {
                Ok(socket) => {
                    self.tell.send_modify(|report| {
                        report.state = State::Connected;
                        report.reconnects += 1;
                    });
                    return Some(socket);
                }
                Err(error) => self.tell.send_modify(|report| {
                    report.last_close = Some(broken(format!("could not connect to the game again: {error}")));
                }),
            }
        }
        None
    }

    /// Waits, and refuses requests to send meanwhile. `None` if the session must stop.
    async fn pause(&mut self, pause: Duration) -> Option<()> {
        let mut over: Pin<Box<_>> = Box::pin(sleep(pause));
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return None,
                () = &mut over => return Some(()),
                order = self.inbox.recv() => match order {
                    Some(order) => drop(order.sent.send(Err(SessionProblem::Reconnecting))),
                    None => pending().await,
                },
            }
        }
    }

    async fn serve(&mut self, socket: &mut Socket) -> End {
        let ping = self.settings.ping();
        let mut pings = interval_at(Instant::now() + ping, ping);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard = Instant::now();
        loop {
            let lost = tokio::select! {
                () = self.stop.cancelled() => {
                    self.say_goodbye(socket).await;
                    return End::Stopped;
                }
                message = socket.next() => {
                    heard = Instant::now();
                    if let Some(Err(Error::Capacity(CapacityError::MessageTooLong { size, max_size }))) = message {
                        let reason = format!(
                            "the game sent a frame of {size} bytes, more than max_frame_bytes = {max_size}; raise \
                             `max_frame_bytes` in [worker_types.NAME.tankpit]"
                        );
                        return End::Hopeless(broken(reason));
                    }
                    self.take(message)
                }
                Some(order) = self.inbox.recv() => self.carry_out(socket, order).await,
                _ = pings.tick() => {
                    if heard.elapsed() > ping * 2 {
                        Some(broken(format!("nothing came from the game for {:?}", ping * 2)))
                    } else {
                        let sent = self.bounded(socket.send(Message::Ping(Bytes::new()))).await;
                        sent.err().map(|error| broken(error.to_string()))
                    }
                }
            };
            if let Some(closed) = lost {
                return End::Lost(closed);
            }
        }
    }

    /// Counts a message; returns how the connection ended if that is the message.
    fn take(&self, message: Option<Result<Message, Error>>) -> Option<Closed> {
        let data = match message {
            Some(Ok(Message::Text(text))) => {
                let told: String = text.as_str().chars().take(TOLD).collect();
                self.tell.send_modify(|report| report.last_text = Some(told));
                text.len()
            }
            Some(Ok(Message::Binary(data))) => data.len(),
            Some(Ok(Message::Close(frame))) => return Some(closed(frame)),
            // The library answers pings.
            Some(Ok(_)) => return None,
            Some(Err(error)) => return Some(broken(format!("the connection broke: {error}"))),
            None => return Some(broken("the connection broke".to_owned())),
        };
        self.tell.send_modify(|report| {
            report.frames_received += 1;
            report.bytes_received += data as u64;
        });
        None
    }

    async fn carry_out(&self, socket: &mut Socket, order: SessionCommand) -> Option<Closed> {
        let done = self.write(socket, order.text).await;
        let problem = done.err().map(|error| error.to_string());
        let told = problem.clone().map_or(Ok(()), |problem| Err(SessionProblem::NotSent(problem)));
        // The caller may be gone.
        let _ = order.sent.send(told);
        problem.map(broken)
    }

    async fn write(&self, socket: &mut Socket, text: String) -> Result<(), WriteError> {
        let length = text.len() as u64;
        self.bounded(socket.send(Message::text(text))).await?;
        self.tell.send_modify(|report| {
            report.frames_sent += 1;
            report.bytes_sent += length;
        });
        Ok(())
    }

    async fn bounded(&self, writing: impl Future<Output = Result<(), Error>>) -> Result<(), WriteError> {
        let limit = self.settings.timeout();
        timeout(limit, writing).await.map_err(|_| WriteError::TooSlow(limit))?.map_err(WriteError::Broken)
    }

    async fn say_goodbye(&self, socket: &mut Socket) {
        let frame = CloseFrame { code: CloseCode::Normal, reason: "stopped".into() };
        let leaving = async {
            socket.close(Some(frame)).await?;
            // Waits until the server has answered, not until it disconnects; further frames are not counted.
            while let Some(Ok(message)) = socket.next().await {
                if message.is_close() {
                    break;
                }
            }
            Ok(())
        };
        // A server that does not cooperate is cut off.
        let _ = self.bounded(leaving).await;
        self.tell
            .send_modify(|report| report.last_close = Some(Closed { code: Some(1_000), reason: "stopped".to_owned() }));
    }
}

#[derive(Debug, thiserror::Error)]
enum WriteError {
    #[error("the game took nothing for {0:?}")]
    TooSlow(Duration),
    #[error("the connection broke: {0}")]
    Broken(Error),
}

fn broken(reason: String) -> Closed {
    Closed { code: None, reason }
}

fn closed(frame: Option<CloseFrame>) -> Closed {
    match frame {
        Some(frame) => Closed { code: Some(frame.code.into()), reason: frame.reason.as_str().to_owned() },
        None => broken("the game closed the connection without a code".to_owned()),
    }
}

/// Returns whether the code says that the server does not want this session again: finished, refused, or the game's
/// own.
fn is_final(code: u16) -> bool {
    matches!(code, 1_000 | 1_008 | 4_000..=4_999)
}

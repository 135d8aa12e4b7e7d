//! The DevTools protocol over Chromium's own pipe: commands with their replies, and events by session. Each message is
//! JSON that ends with a NUL. Owns the connection, the pending calls and the listeners; knows no specific command.

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::unix::pipe,
    sync::{mpsc, oneshot},
};

/// Bytes of one read: a picture has a few hundred thousand.
const CHUNK: usize = 1 << 18;
/// Largest accepted message, in bytes. A picture of the maximum size is smaller.
const MAX_MESSAGE: usize = 256 << 20;

/// Why a command was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum CommandError {
    /// Chromium refused the command.
    #[error("{0}")]
    Refused(String),
    /// The connection is closed: Chromium has ended.
    #[error("the browser's connection is closed")]
    Closed,
}

/// An event from Chromium.
#[derive(Debug)]
pub(super) struct Event {
    /// Session of the event; empty for the browser as a whole.
    pub(super) session: String,
    pub(super) method: String,
    pub(super) params: Value,
}

/// A connection. Clones share it.
#[derive(Clone)]
pub(super) struct DevTools(Arc<Inner>);

struct Inner {
    /// Messages to write. Unbounded: each message is small, and either answers a message of Chromium or a job waits for
    /// its reply.
    outbox: mpsc::UnboundedSender<Vec<u8>>,
    next: AtomicU64,
    book: Mutex<Book>,
}

/// Callback for the events of a session.
type Listener = Arc<dyn Fn(Event) + Send + Sync>;

#[derive(Default)]
struct Book {
    closed: bool,
    waiting: HashMap<u64, oneshot::Sender<Result<Value, CommandError>>>,
    listeners: HashMap<String, Listener>,
}

#[derive(Deserialize)]
struct Message {
    id: Option<u64>,
    #[serde(default)]
    result: Value,
    error: Option<Problem>,
    method: Option<String>,
    #[serde(default)]
    params: Value,
    #[serde(rename = "sessionId", default)]
    session: String,
}

#[derive(Deserialize)]
struct Problem {
    message: String,
}

impl DevTools {
    /// Returns a connection over these ends of pipes, and the future that transfers messages until the connection
    /// breaks.
    pub(super) fn new(
        reader: pipe::Receiver,
        writer: pipe::Sender,
    ) -> (Self, impl Future<Output = io::Result<()>> + Send + 'static) {
        let (outbox, to_write) = mpsc::unbounded_channel();
        let devtools = Self(Arc::new(Inner { outbox, next: AtomicU64::new(1), book: Mutex::default() }));
        let inner = Arc::downgrade(&devtools.0);
        let closing = Closing(Arc::clone(&devtools.0));
        let take = move |message: &[u8]| {
            if let (Some(inner), Ok(message)) = (inner.upgrade(), serde_json::from_slice(message)) {
                inner.take(message);
            }
        };
        let pump = async move {
            let _closing = closing;
            tokio::select! {
                read = read(reader, take) => read,
                written = write(writer, to_write) => written,
            }
        };
        (devtools, pump)
    }

    /// Sends a command, to a session or to the browser, and waits for the reply.
    pub(super) async fn call(&self, session: &str, method: &str, params: Value) -> Result<Value, CommandError> {
        let id = self.0.next.fetch_add(1, Ordering::Relaxed);
        let (tell, told) = oneshot::channel();
        {
            let mut book = self.0.lock();
            if book.closed {
                return Err(CommandError::Closed);
            }
            book.waiting.insert(id, tell);
        }
        let forgotten = Forgetting { inner: &self.0, id };
        self.send(id, session, method, params);
        let answer = told.await.unwrap_or(Err(CommandError::Closed));
        drop(forgotten);
        answer
    }

    /// Sends a command whose reply is ignored.
    pub(super) fn tell(&self, session: &str, method: &str, params: Value) {
        let id = self.0.next.fetch_add(1, Ordering::Relaxed);
        self.send(id, session, method, params);
    }

    /// Calls `listener` with each further event of a session; the empty name stands for the browser. Messages are
    /// handled in their order, so the caller of a command gets the reply only after `listener` has handled all earlier
    /// events. `listener` must not block.
    pub(super) fn on_event(&self, session: &str, listener: impl Fn(Event) + Send + Sync + 'static) {
        let mut book = self.0.lock();
        if !book.closed {
            book.listeners.insert(session.to_owned(), Arc::new(listener));
        }
    }

    /// Returns a channel with the further events of a session. The channel ends with the connection.
    pub(super) fn listen(&self, session: &str) -> mpsc::UnboundedReceiver<Event> {
        let (tell, told) = mpsc::unbounded_channel();
        self.on_event(session, move |event| {
            // The receiver may have been dropped.
            let _ = tell.send(event);
        });
        told
    }

    /// Passes the events of `other` to the listener of `session` too.
    pub(super) fn join(&self, session: &str, other: &str) {
        let mut book = self.0.lock();
        if let Some(listener) = book.listeners.get(session).cloned() {
            book.listeners.insert(other.to_owned(), listener);
        }
    }

    /// Removes the listener of this session.
    pub(super) fn leave(&self, session: &str) {
        let _listener = self.0.lock().listeners.remove(session);
    }

    /// Removes the listener of this session, and of the sessions that joined it.
    pub(super) fn leave_with_joined(&self, session: &str) {
        let mut book = self.0.lock();
        if let Some(listener) = book.listeners.remove(session) {
            book.listeners.retain(|_, other| !Arc::ptr_eq(other, &listener));
        }
    }

    fn send(&self, id: u64, session: &str, method: &str, params: Value) {
        let mut message = json!({ "id": id, "method": method });
        message["params"] = params;
        if !session.is_empty() {
            message["sessionId"] = json!(session);
        }
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        // On a closed connection the caller gets an error.
        let _ = self.0.outbox.send(bytes);
    }
}

impl Inner {
    fn take(&self, message: Message) {
        match (message.id, message.method) {
            (Some(id), _) => {
                let waiting = self.lock().waiting.remove(&id);
                if let Some(waiting) = waiting {
                    let refused = |problem: Problem| Err(CommandError::Refused(problem.message));
                    // The caller may have stopped waiting.
                    let _ = waiting.send(message.error.map_or(Ok(message.result), refused));
                }
            }
            (None, Some(method)) => {
                // The listener runs without the lock, because it sends commands.
                let listener = self.lock().listeners.get(&message.session).cloned();
                if let Some(listener) = listener {
                    listener(Event { session: message.session, method, params: message.params });
                }
            }
            (None, None) => {}
        }
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Marks the connection as closed when dropped, so that all pending calls end.
struct Closing(Arc<Inner>);

impl Drop for Closing {
    fn drop(&mut self) {
        let mut book = self.0.lock();
        *book = Book { closed: true, ..Book::default() };
    }
}

/// Removes a pending call when dropped.
struct Forgetting<'a> {
    inner: &'a Inner,
    id: u64,
}

impl Drop for Forgetting<'_> {
    fn drop(&mut self) {
        self.inner.lock().waiting.remove(&self.id);
    }
}

async fn read(mut reader: pipe::Receiver, mut take: impl FnMut(&[u8])) -> io::Result<()> {
    let (mut message, mut chunk) = (Vec::new(), vec![0; CHUNK]);
    loop {
        let length = reader.read(&mut chunk).await?;
        if length == 0 {
            return Ok(());
        }
        let mut rest = &chunk[..length];
        while let Some(end) = rest.iter().position(|byte| *byte == 0) {
            message.extend_from_slice(&rest[..end]);
            take(&message);
            message.clear();
            message.shrink_to(CHUNK);
            rest = &rest[end + 1..];
        }
        message.extend_from_slice(rest);
        if message.len() > MAX_MESSAGE {
            return Err(io::Error::other("the browser sent a message that is too large"));
        }
    }
}

async fn write(mut writer: pipe::Sender, mut messages: mpsc::UnboundedReceiver<Vec<u8>>) -> io::Result<()> {
    while let Some(message) = messages.recv().await {
        writer.write_all(&message).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use super::*;

    /// Returns a connection, and the other ends of its pipes.
    fn pair() -> (DevTools, pipe::Receiver, pipe::Sender) {
        let receiver = |end: io::PipeReader| pipe::Receiver::from_owned_fd(OwnedFd::from(end)).unwrap();
        let sender = |end: io::PipeWriter| pipe::Sender::from_owned_fd(OwnedFd::from(end)).unwrap();
        let ((commands, to_write), (to_read, events)) = (io::pipe().unwrap(), io::pipe().unwrap());
        let (devtools, pump) = DevTools::new(receiver(to_read), sender(to_write));
        tokio::spawn(pump);
        (devtools, receiver(commands), sender(events))
    }

    async fn command(from: &mut pipe::Receiver) -> Value {
        let mut message = Vec::new();
        loop {
            match from.read_u8().await.unwrap() {
                0 => return serde_json::from_slice(&message).unwrap(),
                byte => message.push(byte),
            }
        }
    }

    #[tokio::test]
    async fn answers_find_their_commands_and_events_their_sessions() {
        let (devtools, mut commands, mut events) = pair();
        let mut heard = devtools.listen("s");
        devtools.join("s", "child");
        let chromium = async {
            let (first, second) = (command(&mut commands).await, command(&mut commands).await);
            assert_eq!((&first["method"], &first["sessionId"]), (&json!("A.a"), &Value::Null));
            assert_eq!((&second["sessionId"], &second["params"]), (&json!("s"), &json!({ "x": 1 })));
            let said = format!(
                "{{\"method\":\"E.e\",\"params\":{{}},\"sessionId\":\"child\"}}\0no json\0{{\"id\":{},\"result\":{{\"y\":2}}}}\0\
                 {{\"id\":{},\"error\":{{\"code\":-1,\"message\":\"no such node\"}}}}\0",
                second["id"], first["id"]
            );
            for piece in said.as_bytes().chunks(7) {
                events.write_all(piece).await.unwrap();
            }
        };
        let (first, second, ()) =
            tokio::join!(devtools.call("", "A.a", json!({})), devtools.call("s", "B.b", json!({ "x": 1 })), chromium);
        assert_eq!(first, Err(CommandError::Refused("no such node".to_owned())));
        assert_eq!(second, Ok(json!({ "y": 2 })));
        let event = heard.recv().await.unwrap();
        assert_eq!((event.session.as_str(), event.method.as_str()), ("child", "E.e"));
    }

    /// The caller of a command wakes up in a task of its own. By then the listener must have handled every event before
    /// the reply.
    #[tokio::test]
    async fn an_event_before_an_answer_has_been_heard_when_the_answer_is_given_out() {
        let (devtools, mut commands, mut events) = pair();
        let heard = Arc::new(AtomicU64::new(0));
        let (count, within) = (Arc::clone(&heard), devtools.clone());
        devtools.on_event("s", move |event| {
            // A listener may send commands, and let other sessions join.
            within.tell(&event.session, "B.b", json!({}));
            within.join("s", "child");
            count.fetch_add(1, Ordering::Relaxed);
        });
        for round in 1..=100 {
            let chromium = async {
                let id = loop {
                    let command = command(&mut commands).await;
                    if command["method"] == "A.a" {
                        break command["id"].clone();
                    }
                };
                let said = format!("{{\"method\":\"E.e\",\"sessionId\":\"s\"}}\0{{\"id\":{id},\"result\":{{}}}}\0");
                events.write_all(said.as_bytes()).await.unwrap();
            };
            let (answer, ()) = tokio::join!(devtools.call("s", "A.a", json!({})), chromium);
            assert_eq!((answer, heard.load(Ordering::Relaxed)), (Ok(json!({})), round));
        }
        devtools.leave_with_joined("s");
        assert!(devtools.0.lock().listeners.is_empty(), "a session that joined is still heard");
    }

    #[tokio::test]
    async fn whoever_waits_is_told_that_the_connection_is_closed() {
        let (devtools, commands, events) = pair();
        let mut heard = devtools.listen("");
        let closing = async {
            tokio::task::yield_now().await;
            drop((commands, events));
        };
        let (answer, ()) = tokio::join!(devtools.call("", "A.a", json!({})), closing);
        assert_eq!(answer, Err(CommandError::Closed));
        assert!(heard.recv().await.is_none());
        assert_eq!(devtools.call("", "A.a", json!({})).await, Err(CommandError::Closed));
        assert!(devtools.listen("").recv().await.is_none());
    }
}

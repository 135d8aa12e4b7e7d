//! A collector that keeps what it is sent: OTLP over HTTP, as protobuf. Reads the few fields that tests look at, by
//! their numbers in `opentelemetry/proto/trace/v1/trace.proto`.

use std::{
    fmt::Write,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{Router, body::Bytes, extract::State, routing::post};
use tokio::{net::TcpListener, task::JoinHandle};

/// A running collector; gone when dropped.
pub(super) struct Collector {
    pub(super) url: String,
    requests: Arc<Mutex<Vec<Bytes>>>,
    server: JoinHandle<()>,
}

/// One span, and the attributes of its resource with its own.
#[derive(Clone, Debug, Default)]
pub(super) struct Span {
    pub(super) trace: String,
    pub(super) id: String,
    pub(super) parent: String,
    pub(super) name: String,
    /// In nanoseconds since 1970.
    pub(super) begin: u64,
    pub(super) end: u64,
    attributes: Vec<(String, String)>,
}

impl Span {
    /// Whether it has this text as this attribute.
    pub(super) fn has(&self, key: &str, value: &str) -> bool {
        self.attributes.iter().any(|(name, text)| name == key && text == value)
    }
}

impl Collector {
    pub(super) async fn start() -> Self {
        let requests = Arc::<Mutex<Vec<Bytes>>>::default();
        let keep = async |State(requests): State<Arc<Mutex<Vec<Bytes>>>>, body: Bytes| {
            requests.lock().unwrap_or_else(PoisonError::into_inner).push(body);
        };
        let app = Router::new().route("/v1/traces", post(keep)).with_state(requests.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { url, requests, server }
    }

    /// All spans so far, in the order in which they came.
    pub(super) fn spans(&self) -> Vec<Span> {
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        requests.iter().flat_map(|request| spans(request)).collect()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// A field of a message: its number, and its bytes or number.
enum Field<'a> {
    Bytes(u64, &'a [u8]),
    Number(u64, u64),
}

fn spans(request: &[u8]) -> Vec<Span> {
    let mut all = Vec::new();
    for resource_spans in messages(request, 1) {
        let resource: Vec<_> = messages(resource_spans, 1).into_iter().flat_map(|it| attributes(it, 1)).collect();
        for scope_spans in messages(resource_spans, 2) {
            all.extend(messages(scope_spans, 2).into_iter().map(|it| span(it, &resource)));
        }
    }
    all
}

fn span(message: &[u8], resource: &[(String, String)]) -> Span {
    let mut span = Span { attributes: resource.to_vec(), ..Span::default() };
    span.attributes.extend(attributes(message, 9));
    for field in fields(message) {
        match field {
            Field::Bytes(1, trace) => span.trace = hex(trace),
            Field::Bytes(2, id) => span.id = hex(id),
            Field::Bytes(4, parent) => span.parent = hex(parent),
            Field::Bytes(5, name) => span.name = String::from_utf8_lossy(name).into_owned(),
            Field::Number(7, at) => span.begin = at,
            Field::Number(8, at) => span.end = at,
            _ => {}
        }
    }
    span
}

/// Attributes that are text.
fn attributes(message: &[u8], number: u64) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let pair = |pair: &[u8]| {
        let key = messages(pair, 1).first().map(|key| text(key)).unwrap_or_default();
        let value = messages(pair, 2).first().and_then(|value| messages(value, 1).first().map(|value| text(value)));
        Some((key, value?))
    };
    messages(message, number).into_iter().filter_map(pair).collect()
}

fn messages(message: &[u8], wanted: u64) -> Vec<&[u8]> {
    let bytes = |field| match field {
        Field::Bytes(number, bytes) if number == wanted => Some(bytes),
        _ => None,
    };
    fields(message).into_iter().filter_map(bytes).collect()
}

/// The wire format of protobuf: a key with number and type, then a varint, eight or four bytes, or a length and that
/// number of bytes.
fn fields(mut rest: &[u8]) -> Vec<Field<'_>> {
    let mut fields = Vec::new();
    while !rest.is_empty() {
        let key = varint(&mut rest);
        let number = key >> 3;
        fields.push(match key & 7 {
            0 => Field::Number(number, varint(&mut rest)),
            1 => Field::Number(number, u64::from_le_bytes(take(&mut rest, 8).try_into().unwrap())),
            2 => {
                let length = usize::try_from(varint(&mut rest)).unwrap();
                Field::Bytes(number, take(&mut rest, length))
            }
            5 => Field::Bytes(number, take(&mut rest, 4)),
            other => panic!("no protobuf: a field of type {other}"),
        });
    }
    fields
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> &'a [u8] {
    let (taken, left) = rest.split_at(length);
    *rest = left;
    taken
}

fn varint(rest: &mut &[u8]) -> u64 {
    let (mut value, mut shift) = (0, 0);
    loop {
        let byte = take(rest, 1)[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return value;
        }
        shift += 7;
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes everything");
        text
    })
}

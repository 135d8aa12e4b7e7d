//! Traces by OTLP over HTTP. Where they go, what of them is kept and what the service is called is said by OpenTelemetry's
//! own environment variables; sending is the SDK's, in a thread of its own, and what can't be sent is dropped.

use std::{
    sync::OnceLock,
    time::{Duration, SystemTime},
};

use opentelemetry::{
    Context, KeyValue,
    trace::{
        Span, SpanBuilder, SpanContext, SpanId, SpanKind, Status, TraceContextExt, TraceFlags, TraceId, TraceState,
        Tracer, TracerProvider,
    },
};
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::{
    Resource,
    trace::{SdkTracer, SdkTracerProvider, Span as SdkSpan},
};
use tokio::time::Instant;

use super::{Acted, JobTraced};

/// Each of them turns traces on.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"];
/// What the service is called unless `OTEL_SERVICE_NAME` or `OTEL_RESOURCE_ATTRIBUTES` say otherwise.
const SERVICE: &str = "swarm";
/// The last spans may take so long to be sent.
const LAST_SPANS: Duration = Duration::from_secs(5);

static TRACER: OnceLock<SdkTracer> = OnceLock::new();

/// Sends traces until it is stopped.
#[derive(Debug)]
pub struct Traces(Option<SdkTracerProvider>);

impl Traces {
    /// Begins, if the environment names an endpoint. Once in a process; a failure is told in the log and is none of the rest.
    pub fn start() -> Self {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let disabled = variable("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"))
            || variable("OTEL_TRACES_EXPORTER").is_some_and(|value| value == "none");
        if disabled || !ENDPOINTS.iter().any(|name| variable(name).is_some()) {
            return Self(None);
        }
        // The client is built here, and wants the cryptography of the process chosen by then.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let exporter = match SpanExporter::builder().with_http().build() {
            Ok(exporter) => exporter,
            Err(error) => {
                tracing::warn!(%error, "no traces: check the OTEL_EXPORTER_OTLP_* variables");
                return Self(None);
            }
        };
        let named = variable("OTEL_SERVICE_NAME").is_some()
            || variable("OTEL_RESOURCE_ATTRIBUTES").is_some_and(|value| value.contains("service.name="));
        let resource = Resource::builder().with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
        let resource = if named { resource } else { resource.with_service_name(SERVICE) };
        let provider =
            SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource.build()).build();
        if TRACER.set(provider.tracer(SERVICE)).is_ok() {
            tracing::info!("sending traces to an OpenTelemetry collector");
        }
        Self(Some(provider))
    }

    /// Sends the last ones.
    pub async fn stop(self) {
        let Some(provider) = self.0 else { return };
        // It waits for its thread.
        let stopping = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(LAST_SPANS));
        if let Ok(Err(error)) = stopping.await {
            tracing::warn!(%error, "the last traces could not be sent");
        }
    }
}

/// The times of one evaluation. Only one that changes something becomes a trace.
#[derive(Debug, Default)]
pub struct Course {
    observing: Option<Instant>,
    observed: Option<Instant>,
    decided: Option<Instant>,
}

impl Course {
    /// The look at pool and queue begins.
    pub fn observing(&mut self) {
        *self = Self { observing: note(), ..Self::default() };
    }

    /// It has ended.
    pub fn observed(&mut self) {
        self.observed = note();
    }

    /// What to do has been decided.
    pub fn decided(&mut self) {
        self.decided = note();
    }

    /// It has been done: `scale`, and within it `wait` for the look, `observe`, `decide` and `act`.
    pub fn acted(&mut self, acted: Acted<'_>) {
        let (Some(tracer), Some(observing), Some(observed), Some(decided)) =
            (TRACER.get(), self.observing, self.observed, self.decided)
        else {
            return;
        };
        let Acted { worker_type, first_signal, sources, action, from, to, reason, error } = acted;
        let sources: Vec<_> = sources.iter().map(|source| source.as_str()).collect();
        let end = Instant::now();
        let first = first_signal.min(observing);
        let attributes = vec![
            KeyValue::new("swarm.worker_type", worker_type.to_string()),
            KeyValue::new("swarm.sources", sources.join(",")),
            KeyValue::new("swarm.action", action),
            KeyValue::new("swarm.from", i64::from(from)),
            KeyValue::new("swarm.to", i64::from(to)),
            KeyValue::new("swarm.reason", reason.to_owned()),
        ];
        let builder = SpanBuilder::from_name(format!("scale {worker_type}")).with_attributes(attributes);
        let mut root = started(tracer, builder, first, &Context::new());
        tell(&mut root, error);
        let parent = Context::new().with_remote_span_context(root.span_context().clone());
        for (name, from, to) in [
            ("wait", first, observing),
            ("observe", observing, observed),
            ("decide", observed, decided),
            ("act", decided, end),
        ] {
            let mut part = started(tracer, SpanBuilder::from_name(name), from, &parent);
            if name == "act" {
                tell(&mut part, error);
            }
            part.end_with_timestamp(wall(to));
        }
        root.end_with_timestamp(wall(end));
    }
}

/// The span of a job that is being published.
#[derive(Debug)]
pub struct Publishing(SdkSpan);

impl Publishing {
    /// Begins one, in the trace of `parent` if that is a `traceparent`.
    pub fn begin(stream: &str, job_type: &str, id: &str, parent: Option<&str>) -> Option<Self> {
        let tracer = TRACER.get()?;
        let builder = SpanBuilder::from_name(format!("publish {job_type}")).with_kind(SpanKind::Producer);
        let builder = builder.with_attributes(messaging("send", stream, id));
        Some(Self(builder.start_with_context(tracer, &context(parent))))
    }

    /// What the job is to say, so that its worker's span becomes part of this trace.
    pub fn traceparent(&self) -> String {
        let context = self.0.span_context();
        format!("00-{}-{}-{:02x}", context.trace_id(), context.span_id(), context.trace_flags().to_u8())
    }

    /// It is published, or could not be.
    pub fn end(mut self, error: Option<&str>) {
        tell(&mut self.0, error);
        self.0.end();
    }
}

/// `work TYPE.METHOD`, in the trace that the job names.
pub(super) fn job(told: JobTraced<'_>) {
    let Some(tracer) = TRACER.get() else { return };
    let JobTraced { worker_type, job_type, id, entry, attempt, parent, outcome, error, elapsed } = told;
    let mut attributes = messaging("process", worker_type.as_str(), id);
    attributes.extend([
        KeyValue::new("swarm.worker_type", worker_type.to_string()),
        KeyValue::new("swarm.entry", entry.to_owned()),
        KeyValue::new("swarm.attempt", i64::from(attempt)),
        KeyValue::new("swarm.outcome", outcome),
    ]);
    let builder = SpanBuilder::from_name(format!("work {job_type}")).with_kind(SpanKind::Consumer);
    let now = Instant::now();
    let began = now.checked_sub(elapsed).unwrap_or(now);
    let mut span = started(tracer, builder.with_attributes(attributes), began, &context(parent));
    tell(&mut span, error);
    span.end_with_timestamp(wall(now));
}

fn messaging(operation: &'static str, destination: &str, id: &str) -> Vec<KeyValue> {
    vec![
        KeyValue::new("messaging.system", "redis"),
        KeyValue::new("messaging.operation.type", operation),
        KeyValue::new("messaging.destination.name", destination.to_owned()),
        KeyValue::new("messaging.message.id", id.to_owned()),
    ]
}

/// Nothing is noted unless somebody wants to know.
fn note() -> Option<Instant> {
    TRACER.get().map(|_| Instant::now())
}

fn started(tracer: &SdkTracer, builder: SpanBuilder, at: Instant, parent: &Context) -> SdkSpan {
    tracer.build_with_context(builder.with_start_time(wall(at)), parent)
}

fn tell(span: &mut SdkSpan, error: Option<&str>) {
    if let Some(error) = error {
        span.set_status(Status::error(error.to_owned()));
    }
}

fn wall(at: Instant) -> SystemTime {
    SystemTime::now() - at.elapsed()
}

/// The context that a `traceparent` of version 00 names; a new trace for anything else.
fn context(traceparent: Option<&str>) -> Context {
    let parse = |text: &str| {
        let parts: Vec<_> = text.split('-').collect();
        let [version, trace, span, flags] = parts.as_slice() else { return None };
        let flags = u8::from_str_radix(flags, 16).ok().filter(|_| version.len() == 2 && *version != "ff")?;
        let (trace, span) = (TraceId::from_hex(trace).ok()?, SpanId::from_hex(span).ok()?);
        let context = SpanContext::new(trace, span, TraceFlags::new(flags), true, TraceState::NONE);
        context.is_valid().then_some(context)
    };
    match traceparent.and_then(parse) {
        Some(remote) => Context::new().with_remote_span_context(remote),
        None => Context::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_traceparent_names_a_trace() {
        let named = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let found = context(Some(named));
        let found = found.span().span_context().clone();
        assert_eq!(found.trace_id().to_string(), "0af7651916cd43dd8448eb211c80319c");
        assert!(found.is_sampled() && found.is_remote());
        for text in ["", "00-x-y-01", "00-00000000000000000000000000000000-b7ad6b7169203331-01", "ff-a-b-c"] {
            assert!(!context(Some(text)).span().span_context().is_valid(), "{text}");
        }
    }
}

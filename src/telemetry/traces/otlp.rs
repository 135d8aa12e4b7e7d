//! Traces by OTLP over HTTP. OpenTelemetry's own environment variables set the destination, the sampling and the name
//! of the service. The SDK sends the spans in a thread of its own and drops spans that it can't send.

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

/// Variables that turn traces on; one of them is enough.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"];
/// Default name of the service; `OTEL_SERVICE_NAME` or `OTEL_RESOURCE_ATTRIBUTES` override it.
const SERVICE: &str = "swarm";
/// Longest time to wait for the last spans to be sent.
const LAST_SPANS: Duration = Duration::from_secs(5);

static TRACER: OnceLock<SdkTracer> = OnceLock::new();

/// Exporter of traces, running until it is stopped.
#[derive(Debug)]
pub struct Traces(Option<SdkTracerProvider>);

impl Traces {
    /// Starts the exporter if the environment names an endpoint. Call it once in a process. A failure is logged and
    /// affects nothing else.
    pub fn start() -> Self {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let disabled = variable("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"))
            || variable("OTEL_TRACES_EXPORTER").is_some_and(|value| value == "none");
        if disabled || !ENDPOINTS.iter().any(|name| variable(name).is_some()) {
            return Self(None);
        }
        // The exporter builds its HTTP client here, which needs the process's cryptography provider.
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

    /// Sends the last spans and stops.
    pub async fn stop(self) {
        let Some(provider) = self.0 else { return };
        // The shutdown blocks until the SDK's thread has ended.
        let stopping = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(LAST_SPANS));
        if let Ok(Err(error)) = stopping.await {
            tracing::warn!(%error, "the last traces could not be sent");
        }
    }
}

/// Times of one evaluation. Only an evaluation that changes something becomes a trace.
#[derive(Debug, Default)]
pub struct Course {
    observing: Option<Instant>,
    observed: Option<Instant>,
    decided: Option<Instant>,
}

impl Course {
    /// Notes that the observation of pool and queue begins.
    pub fn observing(&mut self) {
        *self = Self { observing: note(), ..Self::default() };
    }

    /// Notes that the observation has ended.
    pub fn observed(&mut self) {
        self.observed = note();
    }

    /// Notes that the decision has been made.
    pub fn decided(&mut self) {
        self.decided = note();
    }

    /// Emits the trace of a change: `scale`, and within it `wait` for the evaluation, `observe`, `decide` and `act`.
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

/// Span of a job that is being published.
#[derive(Debug)]
pub struct Publishing(SdkSpan);

impl Publishing {
    /// Begins a span, in the trace of `parent` if that is a `traceparent`. Returns `None` while traces are off.
    pub fn begin(stream: &str, job_type: &str, id: &str, parent: Option<&str>) -> Option<Self> {
        let tracer = TRACER.get()?;
        let builder = SpanBuilder::from_name(format!("publish {job_type}")).with_kind(SpanKind::Producer);
        let builder = builder.with_attributes(messaging("send", stream, id));
        Some(Self(builder.start_with_context(tracer, &context(parent))))
    }

    /// Returns the `traceparent` that the job must carry, so that its worker's span becomes part of this trace.
    pub fn traceparent(&self) -> String {
        let context = self.0.span_context();
        format!("00-{}-{}-{:02x}", context.trace_id(), context.span_id(), context.trace_flags().to_u8())
    }

    /// Ends the span, with the error if publishing failed.
    pub fn end(mut self, error: Option<&str>) {
        tell(&mut self.0, error);
        self.0.end();
    }
}

/// Emits the span `work TYPE.METHOD`, in the trace that the job names.
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

/// Returns the current instant; `None` while traces are off.
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

/// Returns the context that a `traceparent` names; a new trace if the text is not a valid `traceparent`.
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

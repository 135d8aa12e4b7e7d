//! An autoscaler with `orchestrator = "keda"`, and what KEDA asks it.

use std::net::SocketAddr;

use tonic::{Code, Request, Status, Streaming, transport::Channel};

use self::proto::{
    GetMetricSpecResponse, GetMetricsRequest, IsActiveResponse, ScaledObjectRef,
    external_scaler_client::ExternalScalerClient,
};
use crate::support::{autoscaler::Autoscaler, redis::RedisServer};

/// The generated client.
pub(super) mod proto {
    #![expect(
        unreachable_pub,
        clippy::pedantic,
        reason = "the file is generated, and a test compares it with its source"
    )]
    include!("externalscaler_client.rs");
}

/// The table `[keda]` of these tests.
pub(super) const KEDA: &str = "[keda]\nlisten = \"127.0.0.1:0\"\n";

/// The flags of these tests.
pub(super) const FLAGS: &[&str] = &["--orchestrator", "keda"];

/// A worker type whose recommendation is half its depth.
pub(super) const HALF: &str = "[worker_types.t.scaling]\nstrategy = \"backlog\"\njobs_per_worker = 2\n";

/// Starts an autoscaler that serves worker type `t`, and waits until it is at rest.
pub(super) async fn start(server: &RedisServer, settings: &str) -> Autoscaler {
    let scaler = Autoscaler::start_with(&server.url(), &format!("{KEDA}{settings}{HALF}"), FLAGS).await;
    scaler.until_ready().await;
    scaler
}

/// Returns the address of the gRPC server.
pub(super) async fn address(scaler: &Autoscaler) -> SocketAddr {
    scaler.until_logged("keda server listens").await;
    let log = scaler.log();
    let line = log.lines().find(|line| line.contains("keda server listens")).unwrap();
    line.split_whitespace().find_map(|word| word.strip_prefix("listen=")?.parse().ok()).unwrap()
}

/// What KEDA is to an autoscaler.
pub(super) struct Keda(pub(super) ExternalScalerClient<Channel>);

impl Keda {
    pub(super) async fn connect(scaler: &Autoscaler) -> Self {
        Self(ExternalScalerClient::new(channel(scaler).await))
    }

    pub(super) async fn is_active(&mut self, metadata: &[(&str, &str)]) -> Result<bool, Status> {
        Ok(self.0.is_active(reference(metadata)).await?.into_inner().result)
    }

    pub(super) async fn spec(&mut self, metadata: &[(&str, &str)]) -> Result<(String, i64, f64), Status> {
        let GetMetricSpecResponse { metric_specs } = self.0.get_metric_spec(reference(metadata)).await?.into_inner();
        let [spec] = metric_specs.try_into().unwrap();
        Ok((spec.metric_name, spec.target_size, spec.target_size_float))
    }

    /// Asks for the value of the metric that the specification names, as KEDA does.
    pub(super) async fn value(&mut self, metadata: &[(&str, &str)]) -> Result<f64, Status> {
        let (metric_name, ..) = self.spec(metadata).await?;
        self.value_of(metadata, &metric_name).await
    }

    pub(super) async fn value_of(&mut self, metadata: &[(&str, &str)], metric_name: &str) -> Result<f64, Status> {
        let scaled_object_ref = Some(reference(metadata));
        let request = GetMetricsRequest { scaled_object_ref, metric_name: metric_name.to_owned() };
        let [value] = self.0.get_metrics(request).await?.into_inner().metric_values.try_into().unwrap();
        assert_eq!(value.metric_name, metric_name);
        assert!((i64_of(value.metric_value_float) - value.metric_value).abs() < 1);
        Ok(value.metric_value_float)
    }

    pub(super) async fn stream(&mut self, metadata: &[(&str, &str)]) -> Result<Streaming<IsActiveResponse>, Status> {
        Ok(self.0.stream_is_active(Request::new(reference(metadata))).await?.into_inner())
    }

    /// Opens a stream. A machine under load may have just missed an answer of Redis, so it tries again.
    pub(super) async fn open(&mut self, scaler: &Autoscaler, metadata: &[(&str, &str)]) -> Streaming<IsActiveResponse> {
        let mut stream = None;
        scaler
            .until("a stream is open", async || {
                stream = self.stream(metadata).await.ok();
                stream.is_some()
            })
            .await;
        stream.unwrap()
    }

    /// Waits until `GetMetrics` gives this number.
    pub(super) async fn until_value(&mut self, scaler: &Autoscaler, metadata: &[(&str, &str)], number: u32) {
        let is = async || self.value(metadata).await.is_ok_and(|value| value.to_bits() == f64::from(number).to_bits());
        scaler.until(&format!("GetMetrics gives {number}"), is).await;
    }

    /// Waits until `IsActive` is this.
    pub(super) async fn until_active(&mut self, scaler: &Autoscaler, metadata: &[(&str, &str)], active: bool) {
        let is = async || self.is_active(metadata).await.is_ok_and(|told| told == active);
        scaler.until(&format!("IsActive is {active}"), is).await;
    }

    /// Returns the codes of all methods.
    pub(super) async fn codes(&mut self, metadata: &[(&str, &str)]) -> [Code; 3] {
        let code = |error: Option<Status>| error.map_or(Code::Ok, |status| status.code());
        let active = code(self.is_active(metadata).await.err());
        let value = code(self.value_of(metadata, &name(metadata)).await.err());
        [active, value, code(self.stream(metadata).await.err())]
    }
}

/// Returns the name of the metric of worker type `t`.
fn name(metadata: &[(&str, &str)]) -> String {
    let depth = metadata.contains(&("metric", "depth"));
    if depth { "swarm-t-depth".to_owned() } else { "swarm-t-workers".to_owned() }
}

#[expect(clippy::cast_possible_truncation, reason = "the values of these tests are small whole numbers")]
fn i64_of(value: f64) -> i64 {
    value.round() as i64
}

pub(super) async fn channel(scaler: &Autoscaler) -> Channel {
    Channel::from_shared(format!("http://{}", address(scaler).await)).unwrap().connect().await.unwrap()
}

pub(super) fn reference(metadata: &[(&str, &str)]) -> ScaledObjectRef {
    let pairs = metadata.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    // KEDA sends its own keys too.
    let scaler_metadata = pairs.chain([("scalerAddress".to_owned(), "swarm:9001".to_owned())]).collect();
    ScaledObjectRef { name: "workers".to_owned(), namespace: "default".to_owned(), scaler_metadata }
}

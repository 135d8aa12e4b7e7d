//! The methods of the gRPC service.

use std::{pin::Pin, time::Duration};

use futures_util::{Stream, stream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Response, Status};

use super::{
    Sources,
    answer::Answer,
    metadata::{Metric, Trigger},
    proto::{
        GetMetricSpecResponse, GetMetricsRequest, GetMetricsResponse, IsActiveResponse, MetricSpec, MetricValue,
        ScaledObjectRef, external_scaler_server::ExternalScaler,
    },
    refusal::{Refusal, code_label},
};
use crate::telemetry::KedaRequested;

/// How often a stream looks whether its worker type is still configured. A removed type has no further evaluation.
const PRESENCE_INTERVAL: Duration = Duration::from_secs(5);

/// The service. Cheap to clone.
#[derive(Clone)]
pub(super) struct Service {
    pub(super) sources: Sources,
    /// Ends the streams.
    pub(super) stop: CancellationToken,
}

impl Service {
    fn is_active(&self, trigger: &Trigger) -> Result<bool, Refusal> {
        Answer::find(&self.sources.status.fleet(), trigger)?.is_active()
    }

    fn metric_spec(&self, request: &ScaledObjectRef) -> Result<GetMetricSpecResponse, Refusal> {
        let trigger = Trigger::parse(&request.scaler_metadata)?;
        Answer::find(&self.sources.status.fleet(), &trigger)?;
        let target = match trigger.metric {
            Metric::Workers => 1.0,
            Metric::Depth { target } => target,
        };
        let spec = MetricSpec {
            metric_name: trigger.metric_name(),
            target_size: at_least_one(target),
            target_size_float: target,
        };
        Ok(GetMetricSpecResponse { metric_specs: vec![spec] })
    }

    fn metrics(&self, request: &GetMetricsRequest) -> Result<GetMetricsResponse, Refusal> {
        let no_reference = || Refusal::Invalid("the request has no scaledObjectRef".to_owned());
        let reference = request.scaled_object_ref.as_ref().ok_or_else(no_reference)?;
        let trigger = Trigger::parse(&reference.scaler_metadata)?;
        let fleet = self.sources.status.fleet();
        let answer = Answer::find(&fleet, &trigger)?;
        let metric_name = trigger.metric_name();
        if !request.metric_name.is_empty() && request.metric_name != metric_name {
            let asked = &request.metric_name;
            return Err(Refusal::Invalid(format!("there is no metric `{asked}`; this trigger has `{metric_name}`")));
        }
        let value = answer.value(trigger.metric)?;
        let value = MetricValue {
            metric_name,
            metric_value: i64::try_from(value).unwrap_or(i64::MAX),
            metric_value_float: float(value),
        };
        Ok(GetMetricsResponse { metric_values: vec![value] })
    }
}

#[tonic::async_trait]
impl ExternalScaler for Service {
    type StreamIsActiveStream = Pin<Box<dyn Stream<Item = Result<IsActiveResponse, Status>> + Send>>;

    async fn is_active(&self, request: Request<ScaledObjectRef>) -> Result<Response<IsActiveResponse>, Status> {
        let answer = Trigger::parse(&request.get_ref().scaler_metadata).and_then(|trigger| self.is_active(&trigger));
        counted("IsActive", answer.map(|result| IsActiveResponse { result }))
    }

    /// Sends the current state as soon as it is known, and then each change. While it is not known, the stream is open
    /// and silent; when the autoscaler stops, it ends regularly. After a stream that was refused or has failed, KEDA
    /// waits for twice as long as the last time, up to a minute, and shortens that only after a regular end. It would
    /// miss the first job for that long.
    async fn stream_is_active(
        &self,
        request: Request<ScaledObjectRef>,
    ) -> Result<Response<Self::StreamIsActiveStream>, Status> {
        let opened = Trigger::parse(&request.get_ref().scaler_metadata).and_then(|trigger| {
            // Subscribed before the first look, so that no change falls between.
            let updates = (self.sources.updates)(&trigger.worker_type);
            Answer::find(&self.sources.status.fleet(), &trigger)?;
            Ok(Followed { service: self.clone(), trigger, updates, sent: None, ended: false })
        });
        counted("StreamIsActive", opened.map(|followed| -> Self::StreamIsActiveStream { Box::pin(followed.stream()) }))
    }

    async fn get_metric_spec(
        &self,
        request: Request<ScaledObjectRef>,
    ) -> Result<Response<GetMetricSpecResponse>, Status> {
        counted("GetMetricSpec", self.metric_spec(request.get_ref()))
    }

    async fn get_metrics(&self, request: Request<GetMetricsRequest>) -> Result<Response<GetMetricsResponse>, Status> {
        counted("GetMetrics", self.metrics(request.get_ref()))
    }
}

/// One open stream.
struct Followed {
    service: Service,
    trigger: Trigger,
    updates: watch::Receiver<()>,
    /// State that was sent last.
    sent: Option<bool>,
    ended: bool,
}

impl Followed {
    fn stream(self) -> impl Stream<Item = Result<IsActiveResponse, Status>> + Send {
        stream::unfold(self, |mut followed| async move {
            let item = followed.next().await?;
            Some((item.map(|result| IsActiveResponse { result }).map_err(Status::from), followed))
        })
    }

    /// Waits for the next state. An error is the last item.
    async fn next(&mut self) -> Option<Result<bool, Refusal>> {
        if self.ended {
            return None;
        }
        loop {
            match self.service.is_active(&self.trigger) {
                Ok(active) if Some(active) != self.sent => {
                    self.sent = Some(active);
                    return Some(Ok(active));
                }
                Ok(_) | Err(Refusal::Unavailable(_)) => {}
                Err(refusal) => {
                    self.ended = true;
                    return Some(Err(refusal));
                }
            }
            tokio::select! {
                () = self.service.stop.cancelled() => return None,
                changed = self.updates.changed() => {
                    if changed.is_err() {
                        self.updates = (self.service.sources.updates)(&self.trigger.worker_type);
                    }
                }
                () = tokio::time::sleep(PRESENCE_INTERVAL) => {}
            }
        }
    }
}

fn counted<T>(method: &'static str, answer: Result<T, Refusal>) -> Result<Response<T>, Status> {
    let answer = answer.map(Response::new).map_err(Status::from);
    let code = answer.as_ref().err().map_or(Code::Ok, Status::code);
    let error = answer.as_ref().err().map(Status::message);
    KedaRequested { method, code: code_label(code), error }.emit();
    answer
}

/// Returns a target for versions of KEDA that read whole numbers only, which divide by it.
#[expect(clippy::cast_possible_truncation, reason = "a cast of a float saturates")]
fn at_least_one(target: f64) -> i64 {
    target.round().max(1.0) as i64
}

#[expect(clippy::cast_precision_loss, reason = "no queue holds 2^53 jobs")]
fn float(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests;

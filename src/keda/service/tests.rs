use std::sync::{Arc, Mutex};

use futures_util::StreamExt;
use tokio::time::Instant;

use super::*;
use crate::{
    keda::answer::fixtures::{fleet, seen},
    model::{
        Demand,
        snapshot::{FleetSnapshot, StatusSource, TypeSnapshot},
    },
};

struct Fixed(Mutex<FleetSnapshot>);

impl StatusSource for Fixed {
    fn fleet(&self) -> FleetSnapshot {
        self.0.lock().unwrap().clone()
    }

    fn not_ready(&self) -> Vec<String> {
        Vec::new()
    }
}

/// A service whose snapshot a test replaces.
struct Harness {
    status: Arc<Fixed>,
    evaluated: watch::Sender<()>,
    service: Service,
}

impl Harness {
    fn new(first: TypeSnapshot) -> Self {
        let status = Arc::new(Fixed(Mutex::new(fleet(vec![first]))));
        let evaluated = watch::Sender::new(());
        let of_all = evaluated.clone();
        let updates = Arc::new(move |_: &_| of_all.subscribe());
        let sources = Sources { status: status.clone(), updates };
        Self { status, evaluated, service: Service { sources, stop: CancellationToken::new() } }
    }

    fn evaluate(&self, types: Vec<TypeSnapshot>) {
        *self.status.0.lock().unwrap() = fleet(types);
        self.evaluated.send_replace(());
    }

    async fn open(&self) -> Result<<Service as ExternalScaler>::StreamIsActiveStream, Status> {
        let mut reference = ScaledObjectRef::default();
        reference.scaler_metadata.insert("workerType".to_owned(), "a".to_owned());
        Ok(self.service.stream_is_active(Request::new(reference)).await?.into_inner())
    }
}

#[tokio::test(start_paused = true)]
async fn an_evaluation_pushes_without_any_wait() {
    let harness = Harness::new(seen(0, Some(0)));
    let mut stream = harness.open().await.unwrap();
    assert!(!stream.next().await.unwrap().unwrap().result);
    let opened = Instant::now();
    harness.evaluate(vec![seen(1, Some(1))]);
    assert!(stream.next().await.unwrap().unwrap().result);
    assert_eq!(opened.elapsed(), Duration::ZERO, "the clock goes on only while somebody waits for a timer");
}

#[tokio::test(start_paused = true)]
async fn the_same_state_is_sent_once_and_an_unknown_one_not_at_all() {
    let harness = Harness::new(seen(1, Some(1)));
    let mut stream = harness.open().await.unwrap();
    assert!(stream.next().await.unwrap().unwrap().result);
    let unread = || TypeSnapshot { demand: Demand::failed("away"), ..seen(0, None) };
    for types in [vec![seen(9, Some(5))], vec![unread()], vec![seen(1, Some(1))], vec![unread()]] {
        harness.evaluate(types);
        let silence = tokio::time::timeout(Duration::from_secs(60), stream.next()).await;
        assert!(silence.is_err(), "{silence:?}");
    }
    // KEDA would wait for longer each time before it opens a refused stream again.
    let mut opened_meanwhile = harness.open().await.unwrap();
    let silence = tokio::time::timeout(Duration::from_secs(60), opened_meanwhile.next()).await;
    assert!(silence.is_err(), "{silence:?}");
    harness.evaluate(vec![seen(0, Some(0))]);
    assert!(!stream.next().await.unwrap().unwrap().result);
    assert!(!opened_meanwhile.next().await.unwrap().unwrap().result);
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_with_its_type_and_with_the_autoscaler() {
    let harness = Harness::new(seen(1, Some(1)));
    let (mut one, mut other) = (harness.open().await.unwrap(), harness.open().await.unwrap());
    one.next().await.unwrap().unwrap();
    other.next().await.unwrap().unwrap();
    harness.service.stop.cancel();
    assert!(other.next().await.is_none(), "it ends regularly");
    let harness = Harness::new(seen(1, Some(1)));
    let mut removed = harness.open().await.unwrap();
    removed.next().await.unwrap().unwrap();
    // Nothing is evaluated any more, and nothing wakes the stream.
    *harness.status.0.lock().unwrap() = fleet(vec![TypeSnapshot::at_rest("b")]);
    assert_eq!(removed.next().await.unwrap().unwrap_err().code(), Code::NotFound);
    assert!(removed.next().await.is_none());
    drop(one);
}

#[test]
fn a_target_for_old_versions_is_a_whole_number_above_zero() {
    assert_eq!([0.2, 1.0, 2.5, 7.0, 1e300].map(at_least_one), [1, 1, 3, 7, i64::MAX]);
}

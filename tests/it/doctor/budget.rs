//! Worker types that the budget of all worker types holds back.

use swarm::model::Timestamp;

use super::{Report, SCALING, until_told};
use crate::support::{
    autoscaler::{Autoscaler, FAST_SWEEP, SLEEPER, pool},
    command::redis,
    redis::RedisServer,
};

#[tokio::test]
async fn a_type_that_the_budget_holds_back_is_told_with_the_budget_and_what_waits() {
    let server = RedisServer::start();
    let client = server.client().await;
    let long_ago = Timestamp::wall().0 - 600_000;
    for number in 0..3 {
        let _: String = redis(&client, &format!("XADD low:jobs {long_ago}-{number} json {{}}")).await;
    }
    let _: String = redis(&client, "XGROUP CREATE low:jobs low 0").await;
    let types = [pool("high", "min_workers = 1", SLEEPER), pool("low", SCALING, SLEEPER)].concat();
    let settings = format!("{FAST_SWEEP}max_total_workers = 2\n{types}");
    let scaler = Autoscaler::start(&server.url(), &settings).await;
    let parts = [
        "`low`: 3 jobs wait, the oldest for ",
        " s; the budget allows at most 1 (max_total_workers 2; other worker types have 1)",
        " -> raise scaler.max_total_workers, or this type's priority or min_workers",
    ];
    let found = |report: &Report| report.found("scaling", "warning");
    // Until the worker of the other type is there, its place is kept for it.
    let settled = |report: &Report| report.code == Some(0) && found(report).iter().any(|text| text.contains(parts[1]));
    let report = until_told(&scaler, "low is held back, which is only a warning", settled).await;
    report.has("scaling", "warning", &parts);
    assert_eq!(found(&report).len(), 1, "{:#}", report.json);
    let low = scaler.of("low").await;
    assert!(low.desired < low.max_workers, "its own maximum would hold it back too: {low:?}");
}

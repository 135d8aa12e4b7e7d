//! The files in `examples/keda`.

use serde_json::{Value, json};

use super::client::start;
use crate::support::{
    autoscaler::{FAST_SWEEP, SWARM},
    command::add_jobs,
    needs::repository,
    prometheus::Prometheus,
    redis::RedisServer,
};

/// Returns the documents of a file.
fn documents(name: &str) -> Vec<Value> {
    let path = repository("examples/keda").join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.split("\n---\n").map(|document| serde_saphyr::from_str(document).unwrap()).collect()
}

/// Returns the query of the rule for prometheus-adapter, for the metric and the labels of the HPA.
fn query_of_the_hpa(labels: &str) -> (String, String) {
    let rule = &documents("prometheus-adapter.yaml")[0]["externalRules"][0];
    let metric = &documents("hpa.yaml")[0]["spec"]["metrics"][0]["external"]["metric"];
    let name = metric["name"].as_str().unwrap();
    let series = rule["seriesQuery"].as_str().unwrap();
    assert!(series.starts_with(name), "the adapter offers a metric under the name of its series");
    assert!(metric["selector"]["matchLabels"]["worker_type"].is_string());
    let query = rule["metricsQuery"].as_str().unwrap();
    (series.to_owned(), query.replace("<<.Series>>", name).replace("<<.LabelMatchers>>", labels))
}

#[cfg_attr(without_prometheus, ignore = "there is no Prometheus")]
#[tokio::test]
async fn the_rule_for_prometheus_adapter_gives_the_recommendation_and_nothing_while_it_is_not_known() {
    let mut server = RedisServer::start();
    let client = server.client().await;
    let scaler = start(&server, FAST_SWEEP).await;
    let target = scaler.url().replace("http://", "");
    let scrape = json!({ "job_name": "swarm", "static_configs": [{ "targets": [target] }] });
    let prometheus = Prometheus::start_scraping(&[scrape]).await;
    let (series, query) = query_of_the_hpa("worker_type=\"t\"");
    scaler.until("the series is found", async || !prometheus.query(&series).await.is_empty()).await;
    let value = async || {
        let samples = prometheus.query(&query).await;
        samples.first().map(|sample| sample["value"][1].as_str().unwrap().to_owned())
    };
    scaler.until("0 is a value", async || value().await.as_deref() == Some("0")).await;
    add_jobs(&client, "t:jobs", 5).await;
    scaler.until("half of five are recommended", async || value().await.as_deref() == Some("3")).await;
    server.kill();
    scaler.until("an unknown number has no sample", async || value().await.is_none()).await;
}

#[test]
fn the_configuration_of_the_examples_is_valid() {
    let config = repository("examples/keda/swarm.toml");
    let check = std::process::Command::new(SWARM).args(["config", "check", "--config"]).arg(&config).output().unwrap();
    let told = String::from_utf8_lossy(&check.stdout) + String::from_utf8_lossy(&check.stderr);
    assert!(check.status.success(), "{told}");
}

#[test]
fn scaled_objects_ask_for_worker_types_at_the_address_of_the_service() {
    let text = std::fs::read_to_string(repository("examples/keda/swarm.toml")).unwrap();
    let service = &documents("swarm.yaml")[1];
    let (name, port) = (service["metadata"]["name"].as_str().unwrap(), service["spec"]["ports"][0]["port"].as_u64());
    for file in ["scaledobject.yaml", "scaledobject-depth.yaml"] {
        let trigger = &documents(file)[0]["spec"]["triggers"][0];
        assert_eq!(trigger["type"], "external-push");
        let metadata = &trigger["metadata"];
        assert_eq!(metadata["scalerAddress"], format!("{name}.default:{}", port.unwrap()));
        let worker_type = metadata["workerType"].as_str().unwrap();
        assert!(text.contains(&format!("[worker_types.{worker_type}.scaling]")));
    }
    assert!(text.contains(&format!("listen = \"0.0.0.0:{}\"", port.unwrap())));
}

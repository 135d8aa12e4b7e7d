//! `config/kubernetes/prometheus-operator/`: what the Prometheus Operator makes of these objects. A real Prometheus
//! runs the scrape configurations that the operator generates from a PodMonitor, for pods as the manifests describe
//! them.

use std::fs;

use serde_json::{Value, json};

use super::read;
use crate::support::{
    autoscaler::{Autoscaler, FAST_SWEEP, SLEEPER, pool},
    needs::repository,
    prometheus::Prometheus,
    redis::{Port, RedisServer},
    wait::{DEADLINE, eventually},
};

fn documents(file: &str) -> Vec<Value> {
    let text = read(&format!("config/kubernetes/{file}"));
    serde_saphyr::from_multiple(&text).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// The labels that Prometheus' service discovery gives a container's port of a Deployment's pods.
fn discovered(deployment: &Value, port: &Value) -> Value {
    let template = &deployment["spec"]["template"];
    let name = deployment["metadata"]["name"].as_str().unwrap();
    let mut labels = json!({
        "__meta_kubernetes_namespace": "jobs",
        "__meta_kubernetes_pod_name": format!("{name}-5d8c9b7f-x2x4v"),
        "__meta_kubernetes_pod_container_name": template["spec"]["containers"][0]["name"],
        "__meta_kubernetes_pod_container_port_name": port["name"],
        "__meta_kubernetes_pod_phase": "Running",
    });
    for (label, value) in template["metadata"]["labels"].as_object().unwrap() {
        labels[format!("__meta_kubernetes_pod_label_{}", sanitized(label))] = value.clone();
        labels[format!("__meta_kubernetes_pod_labelpresent_{}", sanitized(label))] = json!("true");
    }
    labels
}

fn sanitized(label: &str) -> String {
    label.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}

/// The scrape configurations that the operator generates for a PodMonitor, as its `generatePodMonitorConfig` does.
/// Targets are `static`, because there is no cluster.
fn scrape_configs(monitor: &Value, targets: &Value) -> Vec<Value> {
    let name = monitor["metadata"]["name"].as_str().unwrap();
    let of_endpoint = |(number, endpoint): (usize, &Value)| {
        let mut rules = vec![json!({ "source_labels": ["job"], "target_label": "__tmp_prometheus_job_name" })];
        rules.push(json!({ "action": "drop", "source_labels": ["__meta_kubernetes_pod_phase"],
            "regex": "(Failed|Succeeded)" }));
        for (label, value) in monitor["spec"]["selector"]["matchLabels"].as_object().unwrap() {
            let meta = |kind: &str| format!("__meta_kubernetes_pod_{kind}_{}", sanitized(label));
            rules.push(json!({ "action": "keep", "source_labels": [meta("label"), meta("labelpresent")],
                "regex": format!("({});true", value.as_str().unwrap()) }));
        }
        rules.push(json!({ "action": "keep", "source_labels": ["__meta_kubernetes_pod_container_port_name"],
            "regex": endpoint["port"] }));
        for (label, from) in [("namespace", "namespace"), ("container", "pod_container_name"), ("pod", "pod_name")] {
            rules.push(json!({ "source_labels": [format!("__meta_kubernetes_{from}")], "target_label": label }));
        }
        rules.push(json!({ "target_label": "job", "replacement": format!("jobs/{name}") }));
        rules.push(json!({ "target_label": "endpoint", "replacement": endpoint["port"] }));
        for rule in endpoint["relabelings"].as_array().into_iter().flatten() {
            rules.push(json!({ "target_label": rule["targetLabel"], "replacement": rule["replacement"] }));
        }
        json!({
            "job_name": format!("podMonitor/jobs/{name}/{number}"), "metrics_path": endpoint["path"],
            "static_configs": targets, "relabel_configs": rules,
        })
    };
    monitor["spec"]["podMetricsEndpoints"].as_array().unwrap().iter().enumerate().map(of_endpoint).collect()
}

#[test]
fn the_operator_gets_the_rules_that_are_tested() {
    let objects = documents("prometheus-operator/rules.yaml");
    for (object, name) in objects.iter().zip(["recording", "alerts"]) {
        let tested: Value = serde_saphyr::from_str(&read(&format!("config/prometheus/rules/{name}.yml"))).unwrap();
        assert_eq!(object["spec"], tested, "rules.yaml differs from config/prometheus/rules/{name}.yml");
        assert_eq!(object["kind"], "PrometheusRule");
    }
    assert_eq!(objects.len(), 2);
}

/// Helm packages only files below the chart.
#[test]
fn the_chart_has_copies_of_the_dashboards_and_rules() {
    let names = |directory: &str| -> Vec<String> {
        let files = fs::read_dir(repository(directory)).unwrap_or_else(|error| panic!("{directory}: {error}"));
        let mut names: Vec<String> = files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    for (original, copy) in [
        ("config/grafana/dashboards", "config/helm/swarm/files/dashboards"),
        ("config/prometheus/rules", "config/helm/swarm/files/rules"),
    ] {
        assert_eq!(names(original), names(copy), "{copy}");
        for name in names(original) {
            assert!(read(&format!("{original}/{name}")) == read(&format!("{copy}/{name}")), "copy {name} to {copy}");
        }
    }
}

#[cfg_attr(without_prometheus, ignore = "there is no Prometheus")]
#[tokio::test]
async fn pods_are_scraped_under_the_names_that_alerts_expect() {
    let server = RedisServer::start();
    let port = Port::free();
    let metrics = port.address();
    let worker = format!("worker = {{ metrics_listen = \"{metrics}\" }}\n");
    let settings = format!(
        "{FAST_SWEEP}{}[worker_types.busy]\nscaling = {{ min_workers = 1, max_workers = 1 }}\n{worker}",
        pool("idle", "max_workers = 1", SLEEPER)
    );
    let scaler = Autoscaler::start(&server.url(), &settings).await;
    let target = |file: &str, address: &str| {
        let deployment = documents(file).into_iter().find(|object| object["kind"] == "Deployment").unwrap();
        let port = deployment["spec"]["template"]["spec"]["containers"][0]["ports"][0].clone();
        json!({ "targets": [address], "labels": discovered(&deployment, &port) })
    };
    let targets = json!([
        target("scaler.yaml", scaler.url().trim_start_matches("http://")),
        target("worker-browser.yaml", &metrics),
    ]);
    let monitors = documents("prometheus-operator/podmonitors.yaml");
    let configs: Vec<Value> = monitors.iter().flat_map(|monitor| scrape_configs(monitor, &targets)).collect();
    let prometheus = Prometheus::start_scraping(&configs).await;
    for (expression, count) in [
        ("up{job=\"swarm\", pod=~\"swarm-autoscaler-.*\"} == 1", 1),
        ("up{job=\"swarm-workers\", pod=~\"discord-worker-browser-.*\"} == 1", 1),
        ("up", 2),
        ("swarm_leader{job=\"swarm\"} == 1", 1),
        ("up{job=\"swarm\"} == 0 or absent(up{job=\"swarm\"})", 0),
    ] {
        let holds = async || prometheus.query(expression).await.len() == count;
        assert!(
            eventually(DEADLINE, holds).await,
            "not {count} of `{expression}`: {:#?}\n{}",
            prometheus.query("up").await,
            prometheus.log()
        );
    }
    // It may have fired before the first scrape.
    let is_down = async || prometheus.firing().await.iter().any(|alert| alert["alertname"] == "SwarmDown");
    assert!(eventually(DEADLINE, async || !is_down().await).await, "{:#?}", prometheus.firing().await);
}

//! `config/kubernetes/`: what its pods get is enough for their work and no more: images, limits, volumes, ports,
//! identities, budgets.

use std::{collections::BTreeSet, fs, sync::Arc};

use serde_json::{Value, json};
use swarm::config::{Flags, Settings, load};

use super::manifests::{documents, object, objects};
use crate::support::{browser::memory_mib, needs::repository};

const MIB: u64 = 1024 * 1024;

fn settings() -> Arc<Settings> {
    let file = repository("config/kubernetes/swarm.toml");
    load(&Flags { config: Some(file), ..Flags::default() }, &|_| None).expect("the settings are valid").settings
}

/// The pod templates' specs, with their Deployments' names.
fn pods() -> Vec<(String, Value)> {
    let deployments = objects().into_iter().filter(|((kind, _), _)| kind == "Deployment");
    deployments.map(|((_, name), object)| (name, object["spec"]["template"]["spec"].clone())).collect()
}

/// The only container of a pod.
fn container(pod: &Value) -> &Value {
    let [container] = pod["containers"].as_array().expect("a pod has containers").as_slice() else {
        panic!("one container: {pod}");
    };
    container
}

/// A quantity of memory, in bytes.
fn bytes(quantity: &Value) -> u64 {
    let text = quantity.as_str().unwrap_or_else(|| panic!("{quantity} is a quantity"));
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let unit = match unit {
        "" => 1,
        "Mi" => MIB,
        "Gi" => 1024 * MIB,
        other => panic!("say here what `{other}` is"),
    };
    number.parse::<u64>().unwrap() * unit
}

/// The volume that a container has at a path.
fn mounted<'a>(pod: &'a Value, path: &str) -> &'a Value {
    let mounts = container(pod)["volumeMounts"].as_array().unwrap();
    let mount =
        mounts.iter().find(|mount| mount["mountPath"] == path).unwrap_or_else(|| panic!("nothing is at {path}"));
    let mut volumes = pod["volumes"].as_array().unwrap().iter();
    volumes.find(|volume| volume["name"] == mount["name"]).unwrap_or_else(|| panic!("{mount} has no volume"))
}

#[test]
fn images_are_those_of_this_version_and_no_registry_has_them() {
    let base = &documents("kustomization.yaml")[0];
    let dockerfile = fs::read_to_string(repository("Dockerfile")).unwrap();
    for (name, pod) in pods() {
        let image = container(&pod)["image"].as_str().unwrap();
        let (repository, tag) = image.split_once(':').unwrap_or_else(|| panic!("{name}: `{image}` has no tag"));
        // Without a host, the name would be one of Docker Hub's.
        let local = repository.strip_prefix("localhost/").unwrap_or_else(|| panic!("{name}: {image}"));
        assert_eq!(tag, env!("CARGO_PKG_VERSION"), "{name}");
        let replaceable = json!({ "name": repository, "newTag": tag });
        assert!(
            base["images"].as_array().unwrap().contains(&replaceable),
            "an overlay can't set the registry of {image}"
        );
        let target = local.strip_prefix("swarm-").unwrap_or(local);
        assert!(dockerfile.contains(&format!(" AS {target}\n")), "the Dockerfile has no target `{target}`");
    }
}

#[test]
fn a_browser_has_the_memory_that_the_settings_allow_it() {
    let settings = settings();
    let (_, pod) = pods().into_iter().find(|(name, _)| name == "discord-worker-browser").unwrap();
    let limit = bytes(&container(&pod)["resources"]["limits"]["memory"]);
    assert_eq!(limit, memory_mib(&settings.worker_types["browser"].browser) * MIB);
    let shared = &mounted(&pod, "/dev/shm")["emptyDir"];
    assert_eq!(shared["medium"], "Memory");
    assert!(bytes(&shared["sizeLimit"]) >= 512 * MIB, "{shared}");
    // Chromium's profile: the root file system is read-only.
    assert!(mounted(&pod, "/tmp")["emptyDir"].is_object());
}

#[test]
fn workers_hold_nothing_of_the_autoscaler() {
    let secrets = |pod: &Value| -> BTreeSet<String> {
        let variables = container(pod)["env"].as_array().unwrap().iter();
        let names = variables.filter_map(|variable| variable["valueFrom"]["secretKeyRef"]["name"].as_str());
        names.map(str::to_owned).collect()
    };
    let (scalers, workers): (Vec<_>, Vec<_>) = pods().into_iter().partition(|(name, _)| name == "swarm-autoscaler");
    let [(_, scaler)] = scalers.as_slice() else { panic!("one autoscaler") };
    assert!(!workers.is_empty());
    for (name, worker) in workers {
        assert!(secrets(&worker).is_disjoint(&secrets(scaler)), "{name}");
        assert_ne!(worker["serviceAccountName"], scaler["serviceAccountName"], "{name}");
        object("ServiceAccount", worker["serviceAccountName"].as_str().unwrap());
        assert_eq!(worker["automountServiceAccountToken"], false, "{name}");
    }
    let subjects = object("RoleBinding", "swarm-autoscaler")["subjects"].clone();
    assert_eq!(subjects, json!([{ "kind": "ServiceAccount", "name": scaler["serviceAccountName"] }]));
    let readme = fs::read_to_string(repository("docs/kubernetes.md")).unwrap();
    for secret in ["swarm-autoscaler-redis", "swarm-worker-redis"] {
        assert!(readme.contains(&format!("create secret generic {secret}")), "docs/kubernetes.md makes no `{secret}`");
    }
}

#[test]
fn no_service_of_the_namespace_sets_a_variable() {
    for (name, pod) in pods() {
        assert_eq!(pod["enableServiceLinks"], false, "{name}: a Service named `metrics` would set METRICS_PORT");
    }
}

#[test]
fn policies_let_through_what_each_part_needs() {
    let ports = |policy: &str, direction: &str| -> Vec<Value> {
        let policy = object("NetworkPolicy", policy);
        let rules = policy["spec"][direction].as_array().unwrap().iter();
        rules.flat_map(|rule| rule["ports"].as_array().unwrap().clone()).map(|port| port["port"].clone()).collect()
    };
    let out = ports("swarm-autoscaler", "egress");
    // DNS, Redis, Redis with TLS at managed services, Sentinel, the API server, OpenTelemetry over HTTP.
    for port in [53, 6379, 6380, 26379, 443, 6443, 4318] {
        assert!(out.contains(&json!(port)), "the autoscaler can't reach port {port}: {out:?}");
    }
    for (name, pod) in pods() {
        let policy = if name == "swarm-autoscaler" { "swarm-autoscaler" } else { "swarm-workers" };
        let open = ports(policy, "ingress");
        let named: Vec<Value> =
            container(&pod)["ports"].as_array().unwrap().iter().map(|port| port["name"].clone()).collect();
        assert_eq!(named, open, "{name}: its ports, and those that its policy opens");
    }
}

#[test]
fn workers_serve_metrics_on_the_port_that_they_name() {
    for (name, pod) in pods().into_iter().filter(|(name, _)| name != "swarm-autoscaler") {
        let container = container(&pod);
        let arguments: Vec<&str> =
            container["args"].as_array().unwrap().iter().map(|argument| argument.as_str().unwrap()).collect();
        let listen = arguments.iter().position(|argument| *argument == "--metrics-listen");
        let listen = arguments[listen.unwrap_or_else(|| panic!("{name} serves no metrics")) + 1];
        assert_eq!(container["ports"], json!([{ "name": "metrics", "containerPort": 9100 }]), "{name}");
        assert_eq!(listen, "0.0.0.0:9100", "{name}");
        assert_eq!(container["livenessProbe"]["httpGet"], json!({ "path": "/healthz", "port": "metrics" }), "{name}");
    }
}

#[test]
fn each_worker_type_has_a_disruption_budget_of_its_own() {
    let settings = settings();
    let label = &settings.kubernetes.label;
    for (name, worker_type) in &settings.worker_types {
        let budget = object("PodDisruptionBudget", &worker_type.kubernetes.name(name));
        assert_eq!(budget["spec"]["selector"]["matchLabels"], json!({ label.as_str(): **name }));
        assert_eq!(budget["spec"]["unhealthyPodEvictionPolicy"], "AlwaysAllow", "a sick pod must not block a drain");
    }
    let budgets = objects().into_keys().filter(|(kind, _)| kind == "PodDisruptionBudget").count();
    assert_eq!(budgets, settings.worker_types.len());
}

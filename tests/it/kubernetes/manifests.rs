//! `config/kubernetes/`: the API's types take every field of every object, files and names fit together, and the
//! rights granted are those that are used.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
    time::Duration,
};

use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::ServiceAccount,
    networking::v1::NetworkPolicy,
    policy::v1::PodDisruptionBudget,
    rbac::v1::{Role, RoleBinding},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use swarm::{
    backend::{
        Phase,
        kubernetes::{Right, needed},
    },
    config::{KubernetesSettings, TargetKind},
};

use super::{Started, TYPE, bed::Bed, controller::Behaviour};

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("config/kubernetes")
}

pub(super) fn documents(file: &str) -> Vec<Value> {
    let text = fs::read_to_string(directory().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
    serde_saphyr::from_multiple(&text).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// All objects of the base, by kind and name.
pub(super) fn objects() -> BTreeMap<(String, String), Value> {
    let base = &documents("kustomization.yaml")[0];
    let files = base["resources"].as_array().unwrap().iter().map(|file| file.as_str().unwrap());
    let all = files.flat_map(documents);
    all.map(|object| {
        let text = |value: &Value| value.as_str().expect("it is named").to_owned();
        ((text(&object["kind"]), text(&object["metadata"]["name"])), object)
    })
    .collect()
}

pub(super) fn object(kind: &str, name: &str) -> Value {
    objects().remove(&(kind.to_owned(), name.to_owned())).unwrap_or_else(|| panic!("no {kind} `{name}`"))
}

/// What the type does not keep of a document.
pub(super) fn dropped<K: DeserializeOwned + Serialize>(document: &Value) -> Vec<String> {
    let typed: K = serde_json::from_value(document.clone()).unwrap_or_else(|error| panic!("{error}: {document}"));
    let mut lost = Vec::new();
    compare("", document, &serde_json::to_value(typed).unwrap(), &mut lost);
    lost
}

fn compare(at: &str, written: &Value, kept: &Value, lost: &mut Vec<String>) {
    match written {
        Value::Object(fields) => {
            fields.iter().for_each(|(name, value)| compare(&format!("{at}.{name}"), value, &kept[name], lost));
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(i, item)| compare(&format!("{at}[{i}]"), item, &kept[i], lost));
        }
        value if value == kept => {}
        _ => lost.push(at.to_owned()),
    }
}

#[test]
fn the_api_takes_every_field_of_every_object() {
    let objects = objects();
    assert!(objects.len() >= 8, "{:?}", objects.keys());
    for ((kind, name), document) in &objects {
        let lost = match kind.as_str() {
            "Deployment" => dropped::<Deployment>(document),
            "ServiceAccount" => dropped::<ServiceAccount>(document),
            "Role" => dropped::<Role>(document),
            "RoleBinding" => dropped::<RoleBinding>(document),
            "PodDisruptionBudget" => dropped::<PodDisruptionBudget>(document),
            "NetworkPolicy" => dropped::<NetworkPolicy>(document),
            other => panic!("`{name}` is a {other}: say here which type that is"),
        };
        assert_eq!(lost, Vec::<String>::new(), "{kind} `{name}`");
    }
}

#[test]
fn a_field_that_the_api_does_not_know_is_found() {
    let mut document = object("Deployment", "swarm-autoscaler");
    document["spec"]["template"]["spec"]["containers"][0]["livenesProbe"] = json!({});
    document["spec"]["replica"] = json!(1);
    assert_eq!(dropped::<Deployment>(&document).len(), 1, "an empty table holds nothing that could get lost");
    document["spec"]["template"]["spec"]["containers"][0]["livenesProbe"] = json!({ "httpGet": { "port": 1 } });
    assert_eq!(
        dropped::<Deployment>(&document),
        [".spec.replica", ".spec.template.spec.containers[0].livenesProbe.httpGet.port"]
    );
}

#[test]
fn every_file_belongs_to_the_base() {
    let base = &documents("kustomization.yaml")[0];
    let generated = base["configMapGenerator"][0]["files"].as_array().unwrap();
    let listed: BTreeSet<String> = base["resources"]
        .as_array()
        .unwrap()
        .iter()
        .chain(generated)
        .map(|file| file.as_str().unwrap().to_owned())
        // Named in comments: who wants them takes the marks away.
        .chain(["kustomization.yaml", "lease.yaml", "jobs.yaml", "worker-report.yaml"].map(str::to_owned))
        .collect();
    let files = fs::read_dir(directory()).unwrap().map(Result::unwrap).filter(|entry| entry.path().is_file());
    let present: BTreeSet<String> = files.map(|entry| entry.file_name().into_string().unwrap()).collect();
    assert_eq!(listed, present);
}

#[test]
fn the_settings_and_the_objects_name_the_same_things() {
    let file = directory().join("swarm.toml");
    let flags = swarm::config::Flags { config: Some(file), ..swarm::config::Flags::default() };
    let loaded = swarm::config::load(&flags, &|_| None).expect("the settings are valid");
    assert_eq!(loaded.warnings, Vec::<String>::new());
    for (name, worker_type) in &loaded.settings.worker_types {
        let target = object("Deployment", &worker_type.kubernetes.name(name));
        let label = KubernetesSettings::default().label;
        assert_eq!(target["metadata"]["labels"][&label], **name);
        let template = &target["spec"]["template"];
        assert_eq!(template["metadata"]["labels"][&label], **name);
        assert!(target["spec"]["replicas"].is_null(), "applying the base must not reset the count");
        let worker_id =
            json!({ "name": "SWARM_WORKER_ID", "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } });
        let variables = template["spec"]["containers"][0]["env"].as_array().unwrap();
        assert!(variables.contains(&worker_id), "{variables:?}");
        let grace = template["spec"]["terminationGracePeriodSeconds"].as_u64().unwrap();
        let drain = worker_type.scaling.drain_timeout();
        assert!(Duration::from_secs(grace) > drain, "a pod needs {drain:?} and a little more, and has {grace} s");
    }
    let scaler = object("Deployment", "swarm-autoscaler");
    let port = loaded.settings.http.listen.rsplit_once(':').unwrap().1.parse::<u16>().unwrap();
    assert_eq!(scaler["spec"]["template"]["spec"]["containers"][0]["ports"][0]["containerPort"], port);
    let binding = object("RoleBinding", "swarm-autoscaler");
    assert_eq!(binding["subjects"][0]["name"], scaler["spec"]["template"]["spec"]["serviceAccountName"]);
    object("ServiceAccount", scaler["spec"]["template"]["spec"]["serviceAccountName"].as_str().unwrap());
}

pub(super) type Rights = BTreeSet<(String, String, String)>;

/// What a Role grants, one right for each group, resource and verb.
pub(super) fn granted(role: &Value) -> Rights {
    let texts = |value: &Value| -> Vec<String> {
        value.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
    };
    let mut granted = Rights::new();
    for rule in role["rules"].as_array().unwrap() {
        for group in texts(&rule["apiGroups"]) {
            for resource in texts(&rule["resources"]) {
                granted.extend(texts(&rule["verbs"]).into_iter().map(|verb| (group.clone(), resource.clone(), verb)));
            }
        }
    }
    granted
}

#[test]
fn the_rights_granted_are_those_asked_for() {
    let kinds = BTreeSet::from([TargetKind::Deployment, TargetKind::StatefulSet]);
    let rights = |with_lease| -> Rights {
        let named = |right: &Right| (right.group.to_owned(), right.resource.to_owned(), right.verb.to_owned());
        needed(&kinds, with_lease).iter().map(named).collect()
    };
    let of_base = granted(&object("Role", "swarm-autoscaler"));
    assert_eq!(of_base, rights(false));
    let of_lease = granted(&documents("lease.yaml")[0]);
    assert_eq!(of_base.union(&of_lease).cloned().collect::<Rights>(), rights(true));
    assert!(of_base.is_disjoint(&of_lease));
}

#[test]
fn the_rights_for_a_lease_are_a_role_of_their_own() {
    let [role, binding] = &documents("lease.yaml")[..] else { panic!("a role and its binding") };
    assert_eq!((dropped::<Role>(role), dropped::<RoleBinding>(binding)), (Vec::new(), Vec::new()));
    assert_eq!(binding["roleRef"]["name"], role["metadata"]["name"]);
    assert_eq!(binding["subjects"], object("RoleBinding", "swarm-autoscaler")["subjects"]);
    let named = "lease = \"swarm-autoscaler\"";
    assert_eq!(role["rules"][1]["resourceNames"], json!(["swarm-autoscaler"]), "the name that the examples give it");
    for file in ["config/swarm.toml", "config/kubernetes/swarm.toml", "docs/kubernetes.md"] {
        let text = fs::read_to_string(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
        assert!(text.contains(named), "{file} names it otherwise");
    }
}

/// Does everything that the backend ever does with targets of a kind, and returns the rights that it took.
async fn used(kind: TargetKind) -> Rights {
    let bed = Bed::start_fake(Behaviour::default()).await;
    let scale = match kind {
        TargetKind::Deployment => {
            bed.deployment(TYPE, 0).await;
            "deployments/scale"
        }
        TargetKind::StatefulSet => {
            bed.stateful_set(TYPE, 0).await;
            "statefulsets/scale"
        }
        TargetKind::Job => panic!("Jobs have no scale"),
    };
    let started = Started::with(&bed, kind).await;
    let conflict = crate::fake_kubernetes::Fault::Status { code: 409, message: "changed", retry_after: None };
    bed.fake().disturb("patch", scale, conflict);
    let pods = started.grow(&bed, 2).await;
    started.scale(2, &[&pods[0]]).await.unwrap();
    bed.until("it is replaced", async || started.live().await == 2 && bed.fake().count("delete", "pods") == 1).await;
    // By the API too: the backend hears of a deletion a moment later.
    let mut pods = Vec::new();
    let both_ready = async || {
        pods = bed.pod_names(TYPE).await;
        pods.len() == 2 && started.in_phase(Phase::Ready).await == pods
    };
    bed.until("both are ready", both_ready).await;
    started.scale(1, &[&pods[1]]).await.unwrap();
    for pod in &pods {
        started.drains.finish(pod);
    }
    bed.until_pods(TYPE, 1).await;
    bed.until("events are written", async || bed.fake().count("create", "events") == 2).await;
    let requests = bed.fake().requests();
    started.end(bed).await;
    // Everybody may ask for their own rights.
    let ours = requests.into_iter().filter(|request| request.resource != "selfsubjectaccessreviews");
    ours.map(|request| (request.group, request.resource, request.verb)).collect()
}

#[tokio::test]
async fn the_rights_granted_are_those_used() {
    let mut used_by_both = used(TargetKind::Deployment).await;
    used_by_both.extend(used(TargetKind::StatefulSet).await);
    assert_eq!(granted(&object("Role", "swarm-autoscaler")), used_by_both);
}

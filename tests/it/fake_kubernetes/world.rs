//! What the fake API server stores: objects as JSON, one counter of resourceVersions for all of them, and the history
//! that watches read. Written from the API conventions
//! (<https://kubernetes.io/docs/reference/using-api/api-concepts/>): a write that changes nothing makes no new
//! version, a stale version or another uid is a conflict, `spec` changes raise the generation.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// Where an object is: group, resource, name. There is one namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) group: String,
    pub(crate) resource: String,
    pub(crate) name: String,
}

/// What happened to an object.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) version: u64,
    /// `ADDED`, `MODIFIED`, `DELETED`.
    pub(crate) kind: &'static str,
    pub(crate) key: Key,
    pub(crate) object: Value,
}

/// A refusal: the API's code, reason and message.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    pub(crate) code: u16,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

impl Refusal {
    pub(crate) fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into() }
    }

    fn conflict(key: &Key) -> Self {
        let message = format!(
            "Operation cannot be fulfilled on {} \"{}\": the object has been modified; please apply your changes to the \
             latest version and try again",
            key.resource, key.name
        );
        Self::new(409, "Conflict", message)
    }

    /// As the body of an answer.
    pub(crate) fn status(&self) -> Value {
        json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "code": self.code,
        })
    }
}

/// Everything that is stored.
#[derive(Debug, Default)]
pub(crate) struct World {
    version: u64,
    /// Changes up to this version are forgotten: a watch from before it is `410 Gone`.
    pub(super) forgotten: u64,
    objects: BTreeMap<Key, Value>,
    pub(super) history: Vec<Change>,
}

impl World {
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// Forgets all history, with a version that nobody has seen: every watch is too old.
    pub(crate) fn forget(&mut self) {
        self.version += 1;
        self.forgotten = self.version;
        self.history.clear();
    }

    pub(crate) fn get(&self, key: &Key) -> Result<&Value, Refusal> {
        let missing = || Refusal::new(404, "NotFound", format!("{} \"{}\" not found", key.resource, key.name));
        self.objects.get(key).ok_or_else(missing)
    }

    /// The objects of a resource that a label selector fits.
    pub(crate) fn list(&self, group: &str, resource: &str, selector: &str) -> Vec<Value> {
        let of_resource = self.objects.iter().filter(|(key, _)| key.group == group && key.resource == resource);
        of_resource.map(|(_, object)| object.clone()).filter(|object| selects(selector, object)).collect()
    }

    pub(crate) fn create(&mut self, key: Key, mut object: Value, namespace: &str) -> Result<Value, Refusal> {
        if self.objects.contains_key(&key) {
            let message = format!("{} \"{}\" already exists", key.resource, key.name);
            return Err(Refusal::new(409, "AlreadyExists", message));
        }
        let metadata = object["metadata"].as_object_mut().expect("objects have metadata");
        metadata.insert("name".to_owned(), json!(key.name));
        metadata.insert("namespace".to_owned(), json!(namespace));
        metadata.insert("uid".to_owned(), json!(uuid::Uuid::now_v7().to_string()));
        metadata.insert("creationTimestamp".to_owned(), json!(now()));
        metadata.insert("generation".to_owned(), json!(1));
        if key.group == "apps" && object["spec"]["replicas"].is_null() {
            object["spec"]["replicas"] = json!(1);
        }
        Ok(self.store("ADDED", key, object))
    }

    /// Applies a JSON merge patch. Its `metadata.resourceVersion` and `metadata.uid` are preconditions.
    pub(crate) fn merge(&mut self, key: &Key, patch: &Value) -> Result<Value, Refusal> {
        let before = self.get(key)?.clone();
        for precondition in ["resourceVersion", "uid"] {
            let wanted = &patch["metadata"][precondition];
            if !wanted.is_null() && *wanted != before["metadata"][precondition] {
                return Err(Refusal::conflict(key));
            }
        }
        let mut after = before.clone();
        merge_patch(&mut after, patch);
        Ok(self.replace(key, &before, after))
    }

    /// Sets `spec.replicas`, as the subresource `scale` does, with who did it.
    pub(crate) fn scale(&mut self, key: &Key, patch: &Value, manager: &str) -> Result<Value, Refusal> {
        let replicas = &patch["spec"]["replicas"];
        if replicas.as_i64().is_none_or(|replicas| replicas < 0) {
            let message = format!("Scale \"{}\" is invalid: spec.replicas: must be 0 or more", key.name);
            return Err(Refusal::new(422, "Invalid", message));
        }
        let entry = json!([{
            "manager": manager, "operation": "Update", "apiVersion": "apps/v1", "time": now(),
            "fieldsType": "FieldsV1", "fieldsV1": { "f:spec": { "f:replicas": {} } }, "subresource": "scale",
        }]);
        let unchanged = self.get(key)?["spec"]["replicas"] == *replicas;
        let mut whole = json!({ "metadata": patch["metadata"], "spec": { "replicas": replicas } });
        if !whole["metadata"].is_object() {
            whole["metadata"] = json!({});
        }
        if !unchanged {
            whole["metadata"]["managedFields"] = entry;
        }
        self.merge(key, &whole)
    }

    /// Deletes. A pod that is assigned to a node first gets a `deletionTimestamp`; without grace it is gone at once.
    pub(crate) fn delete(&mut self, key: &Key, uid: Option<&str>, grace: Option<u64>) -> Result<Value, Refusal> {
        let object = self.get(key)?.clone();
        if uid.is_some_and(|uid| object["metadata"]["uid"] != uid) {
            return Err(Refusal::conflict(key));
        }
        let is_assigned = object["spec"]["nodeName"].is_string();
        if key.resource == "pods" && is_assigned && grace != Some(0) {
            return self.merge(key, &json!({ "metadata": { "deletionTimestamp": now() } }));
        }
        self.objects.remove(key);
        Ok(self.store("DELETED", key.clone(), object))
    }

    fn replace(&mut self, key: &Key, before: &Value, mut after: Value) -> Value {
        after["metadata"]["resourceVersion"] = before["metadata"]["resourceVersion"].clone();
        if after == *before {
            return after;
        }
        if after["spec"] != before["spec"] {
            let generation = before["metadata"]["generation"].as_u64().unwrap_or(0);
            after["metadata"]["generation"] = json!(generation + 1);
        }
        self.store("MODIFIED", key.clone(), after)
    }

    fn store(&mut self, kind: &'static str, key: Key, mut object: Value) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        if kind != "DELETED" {
            self.objects.insert(key.clone(), object.clone());
        }
        self.history.push(Change { version: self.version, kind, key, object: object.clone() });
        object
    }
}

/// Whether a label selector, `key` or `key=value`, fits. An empty one does.
pub(crate) fn selects(selector: &str, object: &Value) -> bool {
    let labels = &object["metadata"]["labels"];
    selector.split(',').filter(|part| !part.is_empty()).all(|part| match part.split_once('=') {
        None => labels[part].is_string(),
        Some((key, value)) => labels[key.trim_end_matches('=')] == value.trim_start_matches('='),
    })
}

/// RFC 7386.
fn merge_patch(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let target = target.as_object_mut().expect("made an object just now");
    for (name, value) in patch {
        if value.is_null() {
            target.remove(name);
        } else {
            merge_patch(target.entry(name).or_insert(Value::Null), value);
        }
    }
}

/// The time as the API writes it.
fn now() -> String {
    k8s_openapi::jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

//! `docs/command-openapi.yaml`: whether requests and answers are as it says.

use std::collections::BTreeSet;

use serde_json::{Value, json};

const METHODS: [&str; 4] = ["get", "post", "put", "delete"];

/// A request.
pub(super) struct Ask {
    pub(super) method: String,
    /// Below the base URL.
    pub(super) path: String,
    pub(super) query: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

/// The document.
pub(crate) struct Contract(Value);

impl Contract {
    pub(crate) fn load() -> Self {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/command-openapi.yaml");
        Self(serde_saphyr::from_str(&std::fs::read_to_string(file).unwrap()).expect("it is YAML"))
    }

    /// Ids of all operations.
    pub(crate) fn operations(&self) -> BTreeSet<String> {
        let paths = self.0["paths"].as_object().unwrap().values();
        let all = paths.flat_map(|path| METHODS.iter().filter_map(|method| path[method]["operationId"].as_str()));
        all.map(str::to_owned).collect()
    }

    /// Returns the id of the operation that a request asks for, if it does so as the document says.
    pub(super) fn operation_of(&self, ask: &Ask) -> Result<String, String> {
        let told = |problem: String| format!("{} {}: {problem}", ask.method, ask.path);
        let paths = self.0["paths"].as_object().unwrap();
        let found = paths.iter().find_map(|(template, path)| {
            let operation = &path[ask.method.to_lowercase()];
            Some((operation, values(template, &ask.path)?)).filter(|(operation, _)| operation.is_object())
        });
        let (operation, in_path) = found.ok_or_else(|| told("no such operation".to_owned()))?;
        self.check_parameters(operation, &in_path, &ask.query).map_err(told)?;
        let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
        if schema.is_object() {
            let body = serde_json::from_slice(&ask.body).map_err(|error| told(format!("the body: {error}")))?;
            self.check(schema, &body).map_err(told)?;
        } else if !ask.body.is_empty() {
            return Err(told("it has a body".to_owned()));
        }
        Ok(operation["operationId"].as_str().unwrap().to_owned())
    }

    /// Returns how an answer with JSON differs from the document.
    pub(super) fn check_answer(&self, operation: &str, status: u16, body: &Value) -> Result<(), String> {
        let told = |problem: String| format!("answer {status} of {operation}: {problem}");
        let paths = self.0["paths"].as_object().unwrap().values();
        let mut all = paths.flat_map(|path| METHODS.iter().map(|method| &path[method]));
        let described = all.find(|described| described["operationId"] == operation).unwrap();
        let keys = [status.to_string(), format!("{}XX", status / 100), "default".to_owned()];
        let answer = keys.iter().map(|key| &described["responses"][key]).find(|answer| answer.is_object());
        let answer = self.resolved(answer.ok_or_else(|| told("no such answer".to_owned()))?);
        let schema = &answer["content"]["application/json"]["schema"];
        if schema.is_object() { self.check(schema, body).map_err(told) } else { Ok(()) }
    }

    fn check_parameters(
        &self,
        operation: &Value,
        in_path: &[(String, String)],
        query: &[(String, String)],
    ) -> Result<(), String> {
        let none = Vec::new();
        let parameters = operation["parameters"].as_array().unwrap_or(&none);
        let mut known = BTreeSet::new();
        for parameter in parameters.iter().map(|parameter| self.resolved(parameter)) {
            let name = parameter["name"].as_str().unwrap();
            let given = if parameter["in"] == "path" { in_path } else { query };
            known.insert(name);
            match given.iter().find(|(key, _)| key == name) {
                Some((_, value)) => self.check(&parameter["schema"], &json!(value))?,
                None if parameter["required"] == true => return Err(format!("{name} is missing")),
                None => {}
            }
        }
        match query.iter().chain(in_path).find(|(key, _)| !known.contains(key.as_str())) {
            Some((key, _)) => Err(format!("{key} is not a parameter")),
            None => Ok(()),
        }
    }

    fn check(&self, schema: &Value, value: &Value) -> Result<(), String> {
        let mut schema = schema.clone();
        schema["components"] = self.0["components"].clone();
        let validator = jsonschema::validator_for(&schema).unwrap();
        let errors: Vec<String> =
            validator.iter_errors(value).map(|error| format!("{}: {error}", error.instance_path())).collect();
        if errors.is_empty() { Ok(()) } else { Err(format!("{errors:?} in {value}")) }
    }

    fn resolved<'a>(&'a self, value: &'a Value) -> &'a Value {
        match value["$ref"].as_str() {
            Some(target) => self.0.pointer(target.trim_start_matches('#')).unwrap(),
            None => value,
        }
    }
}

/// Returns the values of a template's parameters, if the path fits it.
fn values(template: &str, path: &str) -> Option<Vec<(String, String)>> {
    let (template, path): (Vec<_>, Vec<_>) = (template.split('/').collect(), path.split('/').collect());
    if template.len() != path.len() {
        return None;
    }
    let mut values = Vec::new();
    for (part, given) in template.into_iter().zip(path) {
        match part.strip_prefix('{').and_then(|name| name.strip_suffix('}')) {
            Some(name) => values.push((name.to_owned(), given.to_owned())),
            None if part == given => {}
            None => return None,
        }
    }
    Some(values)
}

//! What a session sends with its requests, and what a program may ask of its page: cookies, headers, and expressions.

use serde_json::{Map, Value, json};

use super::{ActionError, CommandError, MAX_HTML, Session};

impl Session {
    /// Returns the cookies that the page's address gets, those hidden from scripts included.
    pub(in crate::worker::handlers::browser) async fn cookies(&self) -> Result<Value, ActionError> {
        let asking = async {
            let mut told = self.page.call("Network.getCookies", json!({})).await?;
            Ok(json!({ "cookies": told["cookies"].take() }))
        };
        let told = self.within(self.limit, "reading the cookies", asking).await?;
        Ok(self.with_dialogs(told))
    }

    /// Sets cookies. Chromium says which of their fields is wrong.
    pub(in crate::worker::handlers::browser) async fn set_cookies(
        &self,
        cookies: Vec<Value>,
    ) -> Result<Value, ActionError> {
        let setting = async {
            let set = self.page.call("Network.setCookies", json!({ "cookies": cookies })).await;
            set.map_err(|error| refused("the cookies are refused", error))
        };
        self.within(self.limit, "setting cookies", setting).await?;
        Ok(self.with_dialogs(Value::Null))
    }

    /// Sends these headers with all further requests of the page, in place of the ones before.
    pub(in crate::worker::handlers::browser) async fn set_headers(
        &self,
        headers: Map<String, Value>,
    ) -> Result<Value, ActionError> {
        let setting = async {
            self.page.call("Network.setExtraHTTPHeaders", json!({ "headers": headers })).await?;
            Ok(())
        };
        self.within(self.limit, "setting headers", setting).await?;
        Ok(self.with_dialogs(Value::Null))
    }

    /// Returns the value of an expression in the page, as JSON; of a promise, what it is fulfilled with.
    pub(in crate::worker::handlers::browser) async fn evaluate(&self, expression: &str) -> Result<Value, ActionError> {
        let evaluating = async {
            let params = json!({ "expression": expression, "awaitPromise": true, "returnByValue": true });
            let answer = self.page.call("Runtime.evaluate", params).await;
            let answer = answer.map_err(|error| refused("the value is no JSON", error))?;
            value_of(answer)
        };
        let value = self.within(self.limit, "the expression", evaluating).await?;
        Ok(self.with_dialogs(json!({ "value": value })))
    }
}

/// Returns a refusal of the browser with what it means here.
fn refused(what: &str, error: CommandError) -> ActionError {
    match error {
        CommandError::Refused(problem) => ActionError::Refused(format!("{what}: {problem}")),
        closed @ CommandError::Closed => closed.into(),
    }
}

fn value_of(mut answer: Value) -> Result<Value, ActionError> {
    let thrown = &answer["exceptionDetails"];
    if !thrown.is_null() {
        let told = [&thrown["exception"]["description"], &thrown["exception"]["value"], &thrown["text"]];
        let told = told.into_iter().find_map(Value::as_str).unwrap_or_default();
        return Err(ActionError::Refused(format!("the expression has failed: {}", super::short(told))));
    }
    let value = answer["result"]["value"].take();
    if value.to_string().len() > MAX_HTML {
        return Err(ActionError::Refused("the value is longer than 4 MiB".to_owned()));
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_expression_throws_is_told() {
        for (details, says) in [
            (
                json!({ "text": "Uncaught", "exception": { "description": "Error: no\n    at <anonymous>" } }),
                "Error: no",
            ),
            (json!({ "text": "Uncaught", "exception": { "value": "just text" } }), "just text"),
            (json!({ "text": "Uncaught" }), "Uncaught"),
        ] {
            let error = value_of(json!({ "result": {}, "exceptionDetails": details })).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        assert_eq!(value_of(json!({ "result": { "type": "undefined" } })).ok(), Some(Value::Null));
        assert_eq!(value_of(json!({ "result": { "value": [1] } })).ok(), Some(json!([1])));
        assert!(value_of(json!({ "result": { "value": "x".repeat(MAX_HTML) } })).is_err());
    }
}

//! The request of a browser job, parsed from its method and arguments. Each argument can be positional or named.

use std::time::Duration;

use serde_json::{Map, Value};
use url::Url;

use crate::{broker::Job, egress::page_url, worker::JobError};

/// All methods.
pub(super) const METHODS: &[&str] = &[
    "start",
    "goto",
    "click",
    "fill",
    "wait_for",
    "screenshot",
    "content",
    "pdf",
    "cookies",
    "set_cookies",
    "set_headers",
    "evaluate",
    "status",
    "close",
    "close_channel",
    "close_all",
];
/// Named arguments with the owner of the job; they are read elsewhere.
const OWNERS: [&str; 3] = ["session", "channel", "user"];
/// Longest text of an argument, in bytes.
const MAX_TEXT: usize = 1 << 20;

/// One parsed job.
#[derive(Debug, PartialEq)]
pub(super) enum Request {
    Start { url: Option<Url> },
    Goto { url: Url },
    Click { selector: String },
    Fill { selector: String, text: String },
    WaitFor { selector: String, timeout: Option<Duration> },
    Screenshot { full_page: bool },
    Content,
    Pdf,
    Cookies,
    SetCookies { cookies: Vec<Value> },
    SetHeaders { headers: Map<String, Value> },
    Evaluate { expression: String },
    Status,
    Close,
    CloseChannel { channel: Option<String> },
    CloseAll,
}

impl Request {
    /// Parses `method` of `job`.
    pub(super) fn read(method: &str, job: &Job) -> Result<Self, JobError> {
        let with = |names| Arguments::read(job, names);
        Ok(match method {
            "start" => Self::Start { url: with(&["url"])?.url()? },
            "goto" => {
                let arguments = with(&["url"])?;
                Self::Goto { url: arguments.url()?.ok_or_else(|| arguments.missing("url", URL))? }
            }
            "click" => Self::Click { selector: with(&["selector"])?.text("selector", SELECTOR)? },
            "fill" => {
                let arguments = with(&["selector", "text"])?;
                Self::Fill {
                    selector: arguments.text("selector", SELECTOR)?,
                    text: arguments.text("text", "what to put into the field")?,
                }
            }
            "wait_for" => {
                let arguments = with(&["selector", "timeout"])?;
                Self::WaitFor {
                    selector: arguments.text("selector", SELECTOR)?,
                    timeout: arguments.seconds("timeout")?,
                }
            }
            "screenshot" => Self::Screenshot { full_page: with(&["full_page"])?.flag("full_page")? },
            "content" => with(&[]).map(|_| Self::Content)?,
            "pdf" => with(&[]).map(|_| Self::Pdf)?,
            "cookies" => with(&[]).map(|_| Self::Cookies)?,
            "set_cookies" => Self::SetCookies { cookies: with(&["cookies"])?.cookies()? },
            "set_headers" => Self::SetHeaders { headers: with(&["headers"])?.headers()? },
            "evaluate" => Self::Evaluate { expression: with(&["expression"])?.text("expression", "JavaScript")? },
            "status" => with(&[]).map(|_| Self::Status)?,
            "close" => with(&[]).map(|_| Self::Close)?,
            "close_channel" => Self::CloseChannel { channel: with(&["channel"])?.optional_text("channel")? },
            "close_all" => with(&[]).map(|_| Self::CloseAll)?,
            _ => {
                return Err(JobError::UnknownMethod {
                    job_type: job.job_type.clone(),
                    method: method.to_owned(),
                    known: METHODS.join(", "),
                });
            }
        })
    }
}

const URL: &str = "an http:// or https:// address";
const SELECTOR: &str = "a CSS selector such as \"#name\"";

const COOKIES: &str = "a list of cookies, each with `name`, `value`, and `url` or `domain`";
const HEADERS: &str = "an object of names and texts, as HTTP allows them, such as {\"X-Tenant\": \"7\"}";

/// Returns whether HTTP allows it as the name of a header (RFC 9110, section 5.1).
fn is_header_name(name: &str) -> bool {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.bytes().all(is_token)
}

/// Returns whether HTTP allows it as the value of a header (RFC 9110, section 5.5).
fn is_header_text(text: &str) -> bool {
    text.chars().all(|c| c == '\t' || (!c.is_control() && c.is_ascii()))
}

/// The arguments of one job, by name.
struct Arguments<'a> {
    job: &'a Job,
    values: Map<String, Value>,
}

impl<'a> Arguments<'a> {
    /// Combines positional and named arguments.
    fn read(job: &'a Job, names: &[&str]) -> Result<Self, JobError> {
        let known = || if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        if job.args.len() > names.len() {
            let (count, known) = (job.args.len(), known());
            return Err(JobError::arguments(job, format!("{count} arguments are too many; it takes {known}")));
        }
        let mut values: Map<String, Value> =
            names.iter().map(|name| (*name).to_owned()).zip(job.args.iter().cloned()).collect();
        for (name, value) in &job.kwargs {
            if names.contains(&name.as_str()) {
                if values.insert(name.clone(), value.clone()).is_some() {
                    return Err(JobError::arguments(job, format!("`{name}` is given twice, by place and by name")));
                }
            } else if !OWNERS.contains(&name.as_str()) {
                return Err(JobError::arguments(job, format!("there is no argument `{name}`; it takes {}", known())));
            }
        }
        values.retain(|_, value| !value.is_null());
        Ok(Self { job, values })
    }

    fn missing(&self, name: &str, what: &str) -> JobError {
        JobError::arguments(self.job, format!("`{name}` is missing: {what}"))
    }

    fn wrong(&self, name: &str, what: &str) -> JobError {
        JobError::arguments(self.job, format!("`{name}` must be {what}"))
    }

    fn optional_text(&self, name: &str) -> Result<Option<String>, JobError> {
        match self.values.get(name) {
            None => Ok(None),
            Some(Value::String(text)) if text.len() <= MAX_TEXT => Ok(Some(text.clone())),
            Some(Value::String(_)) => Err(self.wrong(name, "at most 1 MiB long")),
            Some(_) => Err(self.wrong(name, "a string")),
        }
    }

    fn text(&self, name: &str, what: &str) -> Result<String, JobError> {
        self.optional_text(name)?.ok_or_else(|| self.missing(name, what))
    }

    /// Returns the argument `url`, if there is one.
    fn url(&self) -> Result<Option<Url>, JobError> {
        let Some(text) = self.optional_text("url")? else { return Ok(None) };
        page_url(&text).map(Some).map_err(|error| self.wrong("url", &error.to_string()))
    }

    fn seconds(&self, name: &str) -> Result<Option<Duration>, JobError> {
        let Some(value) = self.values.get(name) else { return Ok(None) };
        let seconds = value.as_f64().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        seconds.map(Some).ok_or_else(|| self.wrong(name, "a number of seconds from 0"))
    }

    /// Returns the argument `cookies`, whose fields Chromium checks.
    fn cookies(&self) -> Result<Vec<Value>, JobError> {
        let named = |cookie: &Value| cookie["name"].is_string() && cookie["value"].is_string();
        match self.values.get("cookies") {
            None => Err(self.missing("cookies", COOKIES)),
            Some(Value::Array(cookies)) if cookies.iter().all(named) => Ok(cookies.clone()),
            Some(_) => Err(self.wrong("cookies", COOKIES)),
        }
    }

    fn headers(&self) -> Result<Map<String, Value>, JobError> {
        let is_fit =
            |(name, value): (&String, &Value)| is_header_name(name) && value.as_str().is_some_and(is_header_text);
        match self.values.get("headers") {
            None => Err(self.missing("headers", HEADERS)),
            Some(Value::Object(headers)) if headers.iter().all(is_fit) => Ok(headers.clone()),
            Some(_) => Err(self.wrong("headers", HEADERS)),
        }
    }

    fn flag(&self, name: &str) -> Result<bool, JobError> {
        match self.values.get(name) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(_) => Err(self.wrong(name, "true or false")),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(method: &str, args: Value, kwargs: Value) -> Result<Request, String> {
        let (Value::Array(args), Value::Object(kwargs)) = (args, kwargs) else { panic!("an array and an object") };
        Request::read(method, &Job::new(format!("browser.{method}"), args, kwargs)).map_err(|error| error.to_string())
    }

    #[test]
    fn arguments_come_by_place_or_by_name() {
        let url: Url = "https://example.org/a".parse().unwrap();
        for (args, kwargs) in [
            (json!(["https://example.org/a"]), json!({})),
            (json!([]), json!({ "url": "https://example.org/a", "session": "s", "channel": "c", "user": 1 })),
        ] {
            assert_eq!(read("goto", args, kwargs), Ok(Request::Goto { url: url.clone() }));
        }
        assert_eq!(read("start", json!([]), json!({})), Ok(Request::Start { url: None }));
        let timeout = Some(Duration::from_millis(1_500));
        let wait = Request::WaitFor { selector: "a".to_owned(), timeout };
        assert_eq!(read("wait_for", json!(["a"]), json!({ "timeout": 1.5 })), Ok(wait));
        assert_eq!(
            read("screenshot", json!([]), json!({ "full_page": true })),
            Ok(Request::Screenshot { full_page: true })
        );
        let fill = Request::Fill { selector: "#a".to_owned(), text: String::new() };
        assert_eq!(read("fill", json!(["#a", ""]), json!({})), Ok(fill));
    }

    #[test]
    fn errors_say_what_would_be_right() {
        for (method, args, kwargs, says) in [
            ("goto", json!([]), json!({}), "`url` is missing: an http:// or https:// address"),
            ("goto", json!(["example.org"]), json!({}), "`example.org` is none"),
            ("goto", json!(["file:///etc/passwd"]), json!({}), "`file:` is not opened"),
            ("goto", json!(["data:text/html,x"]), json!({}), "`data:` is not opened"),
            ("start", json!(["javascript:alert(1)"]), json!({}), "`javascript:` is not opened"),
            ("goto", json!([1]), json!({}), "`url` must be a string"),
            ("goto", json!(["http://a"]), json!({ "url": "http://a" }), "given twice"),
            ("click", json!(["a", "b"]), json!({}), "2 arguments are too many; it takes selector"),
            ("click", json!(["a"]), json!({ "button": 1 }), "there is no argument `button`; it takes selector"),
            ("fill", json!(["a"]), json!({}), "`text` is missing"),
            ("wait_for", json!(["a", -1]), json!({}), "`timeout` must be a number of seconds"),
            ("wait_for", json!(["a", 1e300]), json!({}), "`timeout` must be a number of seconds"),
            ("screenshot", json!(["yes"]), json!({}), "`full_page` must be true or false"),
            ("close", json!([1]), json!({}), "it takes none"),
            ("set_cookies", json!([]), json!({}), "`cookies` is missing: a list of cookies"),
            ("set_cookies", json!([[{ "name": "a" }]]), json!({}), "`cookies` must be a list of cookies"),
            ("set_headers", json!(["a"]), json!({}), "`headers` must be an object"),
            ("set_headers", json!([{ "a b": "c" }]), json!({}), "`headers` must be an object"),
            ("set_headers", json!([{ "a": "b\r\nc: d" }]), json!({}), "`headers` must be an object"),
            ("evaluate", json!([]), json!({}), "`expression` is missing: JavaScript"),
            ("fly", json!([]), json!({}), "knows start, goto"),
        ] {
            let error = read(method, args, kwargs).unwrap_err();
            assert!(error.contains(says), "{method}: {error}");
        }
    }
}

//! The status page, and the page of one worker type: files that are part of the program. They load nothing from
//! elsewhere.

use axum::{
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

const HTML: &str = include_str!("page/index.html");

/// The page of one worker type. Its script takes the name from the URL, so the file is the same for all.
const TYPE_HTML: &str = include_str!("page/type.html");

const HTML_TYPE: &str = "text/html; charset=utf-8";

/// The parts of the pages: path, content type, content.
pub(super) const PARTS: [(&str, &str, &str); 16] = [
    ("/page/status.css", "text/css; charset=utf-8", include_str!("page/status.css")),
    ("/page/main.js", SCRIPT, include_str!("page/main.js")),
    ("/page/cards.js", SCRIPT, include_str!("page/cards.js")),
    ("/page/chart.js", SCRIPT, include_str!("page/chart.js")),
    ("/page/controls.js", SCRIPT, include_str!("page/controls.js")),
    ("/page/dead.js", SCRIPT, include_str!("page/dead.js")),
    ("/page/events.js", SCRIPT, include_str!("page/events.js")),
    ("/page/health.js", SCRIPT, include_str!("page/health.js")),
    ("/page/link.js", SCRIPT, include_str!("page/link.js")),
    ("/page/paths.js", SCRIPT, include_str!("page/paths.js")),
    ("/page/stream.js", SCRIPT, include_str!("page/stream.js")),
    ("/page/table.js", SCRIPT, include_str!("page/table.js")),
    ("/page/token.js", SCRIPT, include_str!("page/token.js")),
    ("/page/type.js", SCRIPT, include_str!("page/type.js")),
    ("/page/why.js", SCRIPT, include_str!("page/why.js")),
    ("/page/words.js", SCRIPT, include_str!("page/words.js")),
];

const SCRIPT: &str = "text/javascript; charset=utf-8";

/// Allows nothing from elsewhere, nothing inline, and no frame around the page.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Headers of every part: browsers trust the content type, and see an update of the program immediately.
const HEADERS: [(HeaderName, HeaderValue); 4] = [
    (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
];

/// Returns one of [`PARTS`].
pub(super) fn part(content_type: &'static str, content: &'static str) -> Response {
    (HEADERS, [(header::CONTENT_TYPE, content_type)], content).into_response()
}

/// Returns the page to browsers, and `index` to all other clients.
pub(super) fn start(headers: &HeaderMap, index: &'static str) -> Response {
    let vary = [(header::VARY, "accept")];
    if wants_html(headers) {
        return (vary, part(HTML_TYPE, HTML)).into_response();
    }
    (vary, index).into_response()
}

/// Returns the page of one worker type. Of a worker type that does not exist, browsers get the same page, which says so
/// and leads back, with the code of the refusal; all other clients get the refusal.
pub(super) fn of_type(headers: &HeaderMap, refused: Option<Response>) -> Response {
    let vary = [(header::VARY, "accept")];
    let code = refused.as_ref().map_or(StatusCode::OK, Response::status);
    match refused {
        Some(refused) if code != StatusCode::NOT_FOUND || !wants_html(headers) => (vary, refused).into_response(),
        _ => (code, vary, part(HTML_TYPE, TYPE_HTML)).into_response(),
    }
}

/// Returns whether the client prefers HTML: browsers name it explicitly, `curl` accepts anything.
fn wants_html(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut ranges = accepted.flat_map(|value| value.split(','));
    ranges.any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let html = parts.next().is_some_and(|kind| kind.eq_ignore_ascii_case("text/html"));
        html && !parts.any(|parameter| matches!(parameter, "q=0" | "q=0.0" | "q=0.00" | "q=0.000"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn browsers_get_the_page_and_others_the_index() {
        for (accept, html) in [
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", true),
            ("TEXT/HTML;q=0.5", true),
            ("text/plain", false),
            ("*/*", false),
            ("text/plain, text/html;q=0", false),
        ] {
            let headers = HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(accept))]);
            assert_eq!(wants_html(&headers), html, "{accept}");
        }
        assert!(!wants_html(&HeaderMap::new()));
    }

    /// Checks that every attribute that names a file names a part, a page or data, below `root`.
    fn names_known_files(html: &str, root: &str) {
        let names = ["src=\"", "href=\""].into_iter().flat_map(|attribute| html.split(attribute).skip(1));
        for name in names.filter_map(|rest| rest.split('"').next()) {
            let Some(path) = name.strip_prefix(root) else {
                assert!(name.starts_with("data:"), "{name}");
                continue;
            };
            let is_part = PARTS.iter().any(|(part, ..)| part.strip_prefix('/') == Some(path));
            let is_known = path.is_empty() || path.starts_with("data:") || path.starts_with("v1/") || path == "metrics";
            assert!(is_part || is_known, "{name}");
        }
    }

    #[test]
    fn the_pages_name_their_parts_and_nothing_else() {
        names_known_files(HTML, "");
        names_known_files(TYPE_HTML, "../");
        for (path, _, content) in PARTS {
            for word in
                ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "http://", "https://"]
            {
                let at = content.find(word);
                let namespace = at.is_some_and(|at| content[at..].starts_with("http://www.w3.org/2000/svg"));
                assert!(at.is_none() || namespace, "{path} has {word}");
            }
            // Every module that a part imports is a part.
            for module in content.split("from \"./").skip(1).filter_map(|rest| rest.split('"').next()) {
                assert!(PARTS.iter().any(|(part, ..)| *part == format!("/page/{module}")), "{path} imports {module}");
            }
        }
    }
}

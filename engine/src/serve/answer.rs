//! Answers: JSON, bytes of the page, refusals in words; each with the headers that keep a browser from doing more with it than to
//! show it.

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    StatusCode,
    header::{self, HeaderName, HeaderValue},
};
use serde::Serialize;

/// An answer.
pub(super) type Response = hyper::Response<Full<Bytes>>;

/// On every answer. Whoever embeds the page, or reads an answer as what it is not, gets nothing; nothing is kept by a cache.
const HEADERS: [(HeaderName, &str); 6] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
];

/// Whom there is no room for, whole: it is written without anybody who would wait for the client.
pub(super) const TOO_MANY: &str = "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\n\
    x-content-type-options: nosniff\r\ncache-control: no-store\r\nconnection: close\r\ncontent-length: 56\r\n\r\n\
    {\"error\": \"too many connections: try again in a second\"}";

/// What is not done, with a status and the reason in words: what happened, and what to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) words: String,
    /// The methods that there are, if it was the wrong one.
    pub(super) allow: Option<&'static str>,
}

/// What a route gives.
pub(super) type Answered = Result<Response, Refusal>;

impl Refusal {
    pub(super) fn new(status: StatusCode, words: impl Into<String>) -> Self {
        Self { status, words: words.into(), allow: None }
    }

    pub(super) fn bad(words: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, words)
    }
}

impl From<Refusal> for Response {
    fn from(refusal: Refusal) -> Self {
        let Refusal { status, words, allow } = refusal;
        let mut response = json(status, &serde_json::json!({ "error": words }));
        let headers = response.headers_mut();
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(allow) = allow {
            headers.insert(header::ALLOW, HeaderValue::from_static(allow));
        }
        response
    }
}

/// A value as JSON.
pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(bytes) => bytes_of(status, "application/json", bytes.into()),
        Err(error) => {
            Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, format!("this cannot be written: {error}")).into()
        }
    }
}

/// A value as JSON, with nothing to be said about it.
pub(super) fn ok(value: &impl Serialize) -> Response {
    json(StatusCode::OK, value)
}

/// Bytes of some type.
pub(super) fn bytes_of(status: StatusCode, kind: &'static str, bytes: Bytes) -> Response {
    let mut response = Response::new(Full::new(bytes));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.extend(HEADERS.map(|(name, value)| (name, HeaderValue::from_static(value))));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// The answer of a route that panicked; what it said is on standard error.
pub(super) fn panicked() -> Response {
    let words = "an internal error of Windrow: this was not answered, and the job goes on. Please report what is on its standard error";
    Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, words).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_as_a_whole_says_its_length() {
        let (head, body) = TOO_MANY.split_once("\r\n\r\n").unwrap();
        assert!(head.ends_with(&format!("content-length: {}", body.len())), "{} bytes", body.len());
        serde_json::from_str::<serde_json::Value>(body).unwrap();
    }
}

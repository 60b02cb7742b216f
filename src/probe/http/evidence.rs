//! What an HTTP request leaves to look at: heads and span attributes, without what is secret.

use std::borrow::Cow;
use std::collections::BTreeMap;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, Version, header};
use url::Url;

use super::message::Message;
use crate::dial::Connection;
use crate::outcome::{Fact, Request, hex};
use crate::reading::Reading;
use crate::secret::REDACTED;
use crate::template::Scope;

/// Whether a header's value is a credential, by its name.
pub(super) fn is_sensitive(name: &str) -> bool {
    const NAMES: &[&str] =
        &["authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key"];
    const WORDS: &[&str] = &["token", "secret", "password", "api-key", "apikey"];
    NAMES.contains(&name) || WORDS.iter().any(|word| name.contains(word))
}

/// The request line and fields as the request was made.
fn request_head(request: &http::request::Parts, url: &Url, two: bool, scope: &Scope) -> String {
    let version = if two { "HTTP/2" } else { "HTTP/1.1" };
    let target = &url[url::Position::BeforePath..];
    let mut head = String::with_capacity(512);
    write_line(&mut head, &format!("{} {target} {version}", request.method));
    if two {
        write_line(&mut head, &format!("host: {}", authority(url)));
    }
    write_fields(&mut head, &request.headers);
    scope.clean(&head)
}

/// The request as it was, with what evidence and spans tell of it noted.
pub(super) fn kept(
    request: http::Request<Bytes>,
    message: &Message<'_>,
    reading: &mut Reading,
) -> http::Request<Bytes> {
    let Message { ask, scope, two, .. } = message;
    if let Some(name) = request.headers().get(header::USER_AGENT) {
        note(reading, "user_agent.original", String::from_utf8_lossy(name.as_bytes()).into_owned());
    }
    let (head, body) = request.into_parts();
    if scope.evidence {
        let (head, url, two) = (head.clone(), ask.url.clone(), *two);
        reading.evidence_later(move |evidence, scope| {
            evidence.request = Some(request_head(&head, &url, two, scope));
        });
    }
    http::Request::from_parts(head, body)
}

/// The status line and fields of an answer.
pub(super) fn response_head(response: &http::response::Parts, scope: &Scope) -> String {
    let reason = response
        .extensions
        .get::<hyper::ext::ReasonPhrase>()
        .map(|reason| String::from_utf8_lossy(reason.as_bytes()))
        .or_else(|| response.status.canonical_reason().map(Cow::Borrowed))
        .filter(|_| response.version != Version::HTTP_2);
    let mut head = String::with_capacity(512);
    let version = protocol(response.version);
    let status = response.status.as_str();
    write_line(
        &mut head,
        &format!("HTTP/{version} {status} {}", reason.as_deref().unwrap_or_default()),
    );
    write_fields(&mut head, &response.headers);
    scope.clean(&head)
}

fn write_fields(head: &mut String, headers: &HeaderMap) {
    for (name, value) in headers {
        if value.is_sensitive() || is_sensitive(name.as_str()) {
            write_line(head, &format!("{name}: {REDACTED}"));
        } else {
            let value = String::from_utf8_lossy(value.as_bytes());
            write_line(head, &format!("{name}: {value}"));
        }
    }
}

fn write_line(head: &mut String, line: &str) {
    head.push_str(line.trim_end());
    head.push('\n');
}

/// The protocol's version as facts and spans name it.
pub(super) const fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 => "0.9",
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        Version::HTTP_3 => "3",
        _ => "1.1",
    }
}

/// Host and port as the `host` field writes them.
pub(super) fn authority(url: &Url) -> &str {
    &url[url::Position::BeforeHost..url::Position::AfterPort]
}

/// Host without the brackets of an IPv6 address.
pub(super) fn bare_host(url: &Url) -> &str {
    url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']')
}

/// An address as records show it.
pub(super) fn shown(url: &Url, scope: &Scope) -> String {
    let mut url = url.clone();
    super::request::without_userinfo(&mut url);
    scope.clean(url.as_str())
}

/// Opens the record of one request: what is known before it is made.
pub(super) fn open(
    method: &Method,
    url: &Url,
    hop: u32,
    span: [u8; 8],
    reading: &mut Reading,
    scope: &Scope,
) {
    let mut attributes = BTreeMap::new();
    let mut note = |name: &'static str, fact: Fact| {
        attributes.insert(Cow::Borrowed(name), fact);
    };
    note("http.request.method", method.as_str().into());
    note("url.full", shown(url, scope).into());
    note("url.scheme", url.scheme().into());
    note("server.address", scope.clean(bare_host(url)).into());
    note("server.port", url.port_or_known_default().unwrap_or_default().into());
    if hop > 0 {
        note("http.request.resend_count", hop.into());
    }
    reading.requests.push(Request {
        name: method.as_str().to_owned(),
        span_id: hex(&span),
        start: reading.timeline.elapsed(),
        took: std::time::Duration::ZERO,
        attributes,
        error_type: None,
    });
}

/// Notes who answered the dial.
pub(super) fn connected(connection: &Connection, reading: &mut Reading) {
    note(reading, "network.peer.address", connection.peer.ip().to_string());
    note(reading, "network.peer.port", connection.peer.port());
}

/// Notes the head of the answer.
pub(super) fn answered(status: StatusCode, version: Version, reading: &mut Reading) {
    note(reading, "http.response.status_code", status.as_u16());
    note(reading, "network.protocol.name", "http");
    note(reading, "network.protocol.version", protocol(version));
}

fn note(reading: &mut Reading, name: &'static str, fact: impl Into<Fact>) {
    if let Some(request) = reading.requests.last_mut() {
        request.attributes.insert(Cow::Borrowed(name), fact.into());
    }
}

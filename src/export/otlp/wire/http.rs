//! OTLP over HTTP: one POST of a protobuf a batch.

use std::io::Write;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use flate2::Compression;
use flate2::write::GzEncoder;
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Client, Response, StatusCode};

use super::super::aside;
use super::{Way, chain, details, later, tls};
use crate::clock;
use crate::export::Refusal;

/// The most bytes that are read of an answer.
const ANSWER: usize = 64 * 1024;

/// A client for one endpoint.
#[derive(Debug)]
pub(super) struct Post {
    client: Client,
}

impl Post {
    pub(super) fn ready(way: &Way) -> Result<Self, String> {
        // reqwest finds roots of its own unless it is given them, and fails where there are none, even for plain http.
        let client = Client::builder()
            .tls_backend_preconfigured(tls::config(way)?)
            .redirect(Policy::none())
            .no_proxy()
            .timeout(way.timeout)
            .user_agent(concat!("picket/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| chain(&error))?;
        Ok(Self { client })
    }

    pub(super) async fn send(
        &self,
        way: &Way,
        headers: Vec<(String, String)>,
        body: Bytes,
    ) -> Result<Bytes, Refusal> {
        let mut request = self.client.post(&way.url);
        for (name, value) in headers {
            let (Ok(field), Ok(value)) =
                (HeaderName::try_from(&name), HeaderValue::try_from(value))
            else {
                return Err(later(format!(
                    "the header {name} has a value that no header can have"
                )));
            };
            request = request.header(field, value);
        }
        request = request.header(CONTENT_TYPE, "application/x-protobuf");
        let body = if way.gzip {
            request = request.header(CONTENT_ENCODING, "gzip");
            let squeezed = aside(move || squeeze(&body)).await?;
            squeezed.map_err(|error| later(format!("cannot compress: {error}")))?
        } else {
            body
        };
        let response = request.body(body).send().await;
        let response = response.map_err(|error| later(chain(&error.without_url())))?;
        judge(response).await
    }
}

fn squeeze(body: &[u8]) -> std::io::Result<Bytes> {
    // Level 1: a third of the time for a tenth more bytes.
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 4), Compression::fast());
    encoder.write_all(body)?;
    encoder.finish().map(Bytes::from)
}

async fn judge(response: Response) -> Result<Bytes, Refusal> {
    let status = response.status();
    let after = response
        .headers()
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok())
        .and_then(retry_after);
    let answer = read(response).await;
    if status.is_success() {
        // Taken is taken: an answer that breaks off cannot take the batch back.
        return Ok(answer);
    }
    Err(refusal(status, after, &answer))
}

async fn read(mut response: Response) -> Bytes {
    let mut answer = BytesMut::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        let room = ANSWER.saturating_sub(answer.len());
        if room == 0 {
            break;
        }
        answer.extend_from_slice(&chunk.slice(..chunk.len().min(room)));
    }
    answer.freeze()
}

/// What a status means for the batch. Statuses that the specification calls final for a request, but that say nothing
/// against the batch itself (credentials that may be renewed, a server that broke), keep it: nothing is lost to them.
fn refusal(status: StatusCode, after: Option<Duration>, answer: &[u8]) -> Refusal {
    let said = details::message(answer);
    let reason = if said.is_empty() { status.to_string() } else { format!("{status}: {said}") };
    match status.as_u16() {
        413 => Refusal::TooLarge { reason },
        401 | 403 | 408 | 429 | 500..=599 => Refusal::Later { reason, after },
        _ => Refusal::Never { reason },
    }
}

/// `Retry-After`: seconds, or a date.
fn retry_after(value: &str) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(clock::Timestamp::from(date).since(clock::now()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_status_has_its_consequence() {
        let of = |status| refusal(StatusCode::from_u16(status).unwrap(), None, b"");
        for status in [401, 403, 408, 429, 500, 502, 503, 504] {
            assert!(matches!(of(status), Refusal::Later { .. }), "{status}");
        }
        for status in [301, 307, 400, 404, 405, 415, 422] {
            assert!(matches!(of(status), Refusal::Never { .. }), "{status}");
        }
        assert!(matches!(of(413), Refusal::TooLarge { .. }));
    }

    #[test]
    fn a_wait_is_told_in_seconds_or_as_a_date() {
        assert_eq!(retry_after("7"), Some(Duration::from_secs(7)));
        assert_eq!(retry_after("Thu, 01 Jan 1970 00:00:01 GMT"), Some(Duration::ZERO));
        assert_eq!(retry_after("soon"), None);
    }
}

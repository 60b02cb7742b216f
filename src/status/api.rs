//! What programs ask: outcomes and the plan, as JSON.

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;
use serde::Serialize;
use serde_json::json;

use super::{aside, typed};
use crate::board::{Board, Query};
use crate::clock::Timestamp;

/// The most outcomes of one answer.
const MOST: usize = 1000;

/// `/api/outcomes`: an array, newest first.
pub(super) async fn outcomes(board: &dyn Board, query: &str) -> Response<Full<Bytes>> {
    let query = match parse(query) {
        Ok(query) => query,
        Err(reason) => return refused(StatusCode::BAD_REQUEST, &reason),
    };
    match board.outcomes(&query).await {
        Ok(outcomes) => aside(move || written(&outcomes)).await,
        Err(reason) => refused(StatusCode::SERVICE_UNAVAILABLE, &reason),
    }
}

/// `/api/plan`: an array, in the order of the plan.
pub(super) fn plan(board: &dyn Board) -> Response<Full<Bytes>> {
    written(&board.plan())
}

/// An answer that says why there is none.
pub(super) fn refused(status: StatusCode, reason: &str) -> Response<Full<Bytes>> {
    let mut response = written(&json!({ "error": reason }));
    *response.status_mut() = status;
    response
}

fn written(body: &impl Serialize) -> Response<Full<Bytes>> {
    match serde_json::to_string(body) {
        Ok(mut text) => {
            text.push('\n');
            typed("application/json", text)
        }
        Err(error) => {
            let mut response = typed("text/plain; charset=utf-8", format!("{error}\n"));
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            response
        }
    }
}

fn parse(text: &str) -> Result<Query, String> {
    let mut query = Query::default();
    for (key, value) in url::form_urlencoded::parse(text.as_bytes()) {
        match key.as_ref() {
            "probe" => query.probe = Some(value.into_owned()),
            "limit" => query.limit = limit(&value)?,
            "failed" => query.failed = flag(&value)?,
            "since" => query.since = Some(since(&value)?),
            other => {
                return Err(format!(
                    "no parameter is named {other:?}: there are probe, limit, failed, since"
                ));
            }
        }
    }
    Ok(query)
}

fn limit(value: &str) -> Result<usize, String> {
    let number = value.parse().ok().filter(|number| (1..=MOST).contains(number));
    number.ok_or_else(|| format!("limit={value:?} is no number from 1 to {MOST}"))
}

fn flag(value: &str) -> Result<bool, String> {
    match value {
        "1" | "true" | "" => Ok(true),
        "0" | "false" => Ok(false),
        other => Err(format!("failed={other:?} is neither 1 nor 0")),
    }
}

fn since(value: &str) -> Result<Timestamp, String> {
    // A plus sign that was not escaped has become a space.
    Timestamp::parse(&value.replace(' ', "+")).ok_or_else(|| {
        format!("since={value:?} is no RFC 3339 time: write one such as 2026-11-23T12:00:00Z")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read_whole_or_refused_with_a_reason() {
        let query =
            parse("probe=orders%20api&limit=7&failed=1&since=2026-11-23T12:00:00Z").unwrap();
        assert_eq!(query.probe.as_deref(), Some("orders api"));
        assert_eq!((query.limit, query.failed), (7, true));
        assert_eq!(query.since, Timestamp::parse("2026-11-23T12:00:00Z"));
        assert_eq!(parse(""), Ok(Query::default()));
        for wrong in ["limit=0", "limit=1001", "limit=x", "failed=maybe", "since=noon", "prob=x"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}

//! The page and the API, over HTTP: what a person, a scraper and a load balancer ask of a running agent.

use std::convert::Infallible;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use base64::Engine;
use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use sha2::{Digest, Sha256};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tracing::warn;

use crate::board::Board;

mod api;
mod page;

/// Connections at once; those beyond wait in the kernel's backlog.
const CONNECTIONS: usize = 64;
/// A request's head.
const HEAD: usize = 16 * 1024;
/// How long a client may take for its head.
const HEAD_TIME: Duration = Duration::from_secs(5);
/// How long a connection may last: the head, the answer, and a client that reads slowly.
const WHOLE_TIME: Duration = Duration::from_secs(15);
/// How long connections that are under way may go on after the stop.
const STOP_TIME: Duration = Duration::from_secs(1);

/// Answers on `listener` until `stop` is done. One request a connection; no client holds up another, or the agent.
pub async fn serve(listener: TcpListener, board: Arc<dyn Board>, stop: impl Future<Output = ()>) {
    let mut connections = JoinSet::new();
    let mut stop = std::pin::pin!(stop);
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        while connections.try_join_next().is_some() {}
        let (stream, permit) = tokio::select! {
            () = &mut stop => break,
            next = next_client(&listener, &room) => next,
        };
        connections.spawn(connection(stream, permit, Arc::clone(&board)));
    }
    drop(listener);
    let ended = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(STOP_TIME, ended).await.is_err() {
        warn!("clients of the status page were cut off at the stop");
    }
}

/// The next client, once there is room for it.
async fn next_client(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
) -> (TcpStream, Option<OwnedSemaphorePermit>) {
    // The semaphore is never closed, so there always is a permit in the end.
    let permit = Arc::clone(room).acquire_owned().await.ok();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return (stream, permit),
            Err(error) => {
                warn!(%error, "a client of the status page could not be taken");
                // Out of files, most likely: trying again at once would only burn the processor.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(
    stream: TcpStream,
    permit: Option<OwnedSemaphorePermit>,
    board: Arc<dyn Board>,
) {
    let service = service_fn(move |request| {
        let board = Arc::clone(&board);
        async move { Ok::<_, Infallible>(answer(&request, board).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(HEAD)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    // What a client does wrong is no news here; and what takes too long is cut off.
    drop(tokio::time::timeout(WHOLE_TIME, served).await);
    drop(permit);
}

/// One answer.
async fn answer(request: &Request<Incoming>, board: Arc<dyn Board>) -> Response<Full<Bytes>> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut refused = api::refused(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD");
        refused.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return guarded(refused);
    }
    let query = request.uri().query().unwrap_or_default().to_owned();
    guarded(match request.uri().path() {
        "/" => aside(move || page(board.as_ref(), &query)).await,
        "/healthz" => typed("text/plain; charset=utf-8", "ok\n".to_owned()),
        "/readyz" => ready(board.as_ref()),
        "/metrics" => metrics(request, board).await,
        "/api/outcomes" => api::outcomes(board.as_ref(), &query).await,
        "/api/plan" => aside(move || api::plan(board.as_ref())).await,
        path => api::refused(StatusCode::NOT_FOUND, &format!("nothing is at {path:?}")),
    })
}

/// Answers that take a while to write are written beside the runs, not between them: who looks makes nothing late.
async fn aside(
    write: impl FnOnce() -> Response<Full<Bytes>> + Send + 'static,
) -> Response<Full<Bytes>> {
    tokio::task::spawn_blocking(write).await.unwrap_or_else(|error| {
        warn!(%error, "an answer of the status page could not be written");
        api::refused(StatusCode::INTERNAL_SERVER_ERROR, "this answer could not be written")
    })
}

/// `/?hold` is the same page held still.
fn page(board: &dyn Board, query: &str) -> Response<Full<Bytes>> {
    typed("text/html; charset=utf-8", page::page(&board.snapshot(), query != "hold"))
}

fn ready(board: &dyn Board) -> Response<Full<Bytes>> {
    match board.ready() {
        Ok(()) => typed("text/plain; charset=utf-8", "ready\n".to_owned()),
        Err(reason) => {
            let mut later = typed("text/plain; charset=utf-8", format!("{reason}\n"));
            *later.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            later
        }
    }
}

async fn metrics(request: &Request<Incoming>, board: Arc<dyn Board>) -> Response<Full<Bytes>> {
    let accept = request.headers().get(header::ACCEPT).and_then(|value| value.to_str().ok());
    let accept = accept.unwrap_or_default().to_owned();
    let write = move || {
        let (media_type, text) = board.metrics(&accept);
        typed(&media_type, text)
    };
    aside(write).await
}

fn typed(media_type: &str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    let value = HeaderValue::from_str(media_type)
        .unwrap_or_else(|_| HeaderValue::from_static("application/octet-stream"));
    response.headers_mut().insert(header::CONTENT_TYPE, value);
    response
}

/// No scripts, no frames, nothing from elsewhere, nothing kept: what a target wrote into its answer stays text.
fn guarded(mut response: Response<Full<Bytes>>) -> Response<Full<Bytes>> {
    const GUARDS: [(HeaderName, &str); 5] = [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ];
    let headers = response.headers_mut();
    for (name, value) in GUARDS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.insert(header::CONTENT_SECURITY_POLICY, POLICY.clone());
    response
}

/// The page's one style sheet is known by its hash.
static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let hash = base64::engine::general_purpose::STANDARD.encode(Sha256::digest(page::STYLE));
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{hash}'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    HeaderValue::from_str(&policy)
        .unwrap_or_else(|_| HeaderValue::from_static("default-src 'none'"))
});

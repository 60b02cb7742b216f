//! A real OTLP receiver: HTTP/1.1 and gRPC on one port, with or without TLS, that keeps what it was sent and fails on demand.

use std::collections::VecDeque;
use std::io::Read;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::metrics::v1::Metric;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// How one request is answered.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// Taken.
    Ok,
    /// Taken but for so many items, with this message.
    Partial(i64, &'static str),
    /// An HTTP status, `Retry-After`, and a text.
    Status(u16, Option<&'static str>, &'static str),
    /// A gRPC code, a message, and the seconds that `RetryInfo` asks for.
    Code(u32, &'static str, Option<u8>),
    /// None: the request is kept waiting.
    Silence,
}

/// One request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Taken {
    /// `/v1/traces`, or a gRPC method.
    pub(crate) path: String,
    /// Its header fields.
    pub(crate) headers: HeaderMap,
    /// Whether its body was compressed.
    pub(crate) compressed: bool,
    /// The message, decompressed.
    pub(crate) message: Bytes,
    /// Whether it was answered with a success.
    pub(crate) accepted: bool,
}

/// A receiver that listens until it is dropped.
#[derive(Debug)]
pub(crate) struct Receiver {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    listening: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    answers: Mutex<VecDeque<Answer>>,
    always: Mutex<Answer>,
    taken: Mutex<Vec<Taken>>,
    count: watch::Sender<usize>,
}

impl Receiver {
    /// Listens on a free port of this host.
    pub(crate) async fn start() -> Self {
        Self::listen(None).await
    }

    /// The same behind TLS; `h2` by ALPN means gRPC.
    pub(crate) async fn start_tls(acceptor: TlsAcceptor) -> Self {
        Self::listen(Some(acceptor)).await
    }

    async fn listen(tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            answers: Mutex::default(),
            always: Mutex::new(Answer::Ok),
            taken: Mutex::default(),
            count: watch::Sender::new(0),
        });
        let serving = Arc::clone(&shared);
        let listening = tokio::spawn(async move {
            // Dropping the set ends every connection with the listener.
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(connection(stream, tls.clone(), Arc::clone(&serving)));
            }
        });
        Self { address, shared, listening }
    }

    /// Answers the next request so; the ones after it as before.
    pub(crate) fn next(&self, answer: Answer) {
        self.shared.answers.lock().unwrap().push_back(answer);
    }

    /// Answers every request so from now on.
    pub(crate) fn always(&self, answer: Answer) {
        *self.shared.always.lock().unwrap() = answer;
    }

    /// Waits until so many requests have come, refused ones included.
    pub(crate) async fn wait_for(&self, requests: usize) {
        self.shared.count.subscribe().wait_for(|count| *count >= requests).await.unwrap();
    }

    /// Every request that came, in order.
    pub(crate) fn requests(&self) -> Vec<Taken> {
        self.shared.taken.lock().unwrap().clone()
    }

    /// The spans of all requests that were taken, in order.
    pub(crate) fn spans(&self) -> Vec<Span> {
        let requests = self.decoded::<ExportTraceServiceRequest>("race");
        let resources = requests.into_iter().flat_map(|request| request.resource_spans);
        resources.flat_map(|one| one.scope_spans).flat_map(|scope| scope.spans).collect()
    }

    /// The log records of all requests that were taken, in order.
    pub(crate) fn logs(&self) -> Vec<LogRecord> {
        let requests = self.decoded::<ExportLogsServiceRequest>("ogs");
        let resources = requests.into_iter().flat_map(|request| request.resource_logs);
        resources.flat_map(|one| one.scope_logs).flat_map(|scope| scope.log_records).collect()
    }

    /// The metrics of all requests that were taken, in order.
    pub(crate) fn metrics(&self) -> Vec<Metric> {
        let requests = self.decoded::<ExportMetricsServiceRequest>("etrics");
        let resources = requests.into_iter().flat_map(|request| request.resource_metrics);
        resources.flat_map(|one| one.scope_metrics).flat_map(|scope| scope.metrics).collect()
    }

    fn decoded<M: Message + Default>(&self, signal: &str) -> Vec<M> {
        let requests = self.requests().into_iter();
        let requests = requests.filter(|taken| taken.accepted && taken.path.contains(signal));
        requests.map(|taken| M::decode(taken.message).unwrap()).collect()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

async fn connection(stream: TcpStream, tls: Option<TlsAcceptor>, shared: Arc<Shared>) {
    let Some(acceptor) = tls else {
        let mut first = [0; 3];
        let h2 = stream.peek(&mut first).await.is_ok() && &first == b"PRI";
        return serve(stream, h2, shared).await;
    };
    if let Ok(stream) = acceptor.accept(stream).await {
        let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        serve(stream, h2, shared).await;
    }
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    h2: bool,
    shared: Arc<Shared>,
) {
    let service = service_fn(move |request| {
        let shared = Arc::clone(&shared);
        async move { Ok::<_, hyper::Error>(answer(request, &shared).await) }
    });
    let stream = TokioIo::new(stream);
    // A client that hangs up is no matter for a test.
    let _ended = if h2 {
        let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        builder.serve_connection(stream, service).await
    } else {
        let mut builder = hyper::server::conn::http1::Builder::new();
        builder.timer(TokioTimer::new()).serve_connection(stream, service).await
    };
}

type Body =
    StreamBody<stream::Iter<std::vec::IntoIter<Result<Frame<Bytes>, std::convert::Infallible>>>>;

async fn answer(request: Request<Incoming>, shared: &Shared) -> Response<Body> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let grpc = head.headers.get(CONTENT_TYPE).is_some_and(|kind| kind == "application/grpc");
    let (compressed, message) = if grpc {
        (body.first() == Some(&1), body.slice(5..))
    } else {
        (head.headers.get("content-encoding").is_some_and(|kind| kind == "gzip"), body)
    };
    let message = if compressed { gunzip(&message) } else { message };
    let answer = shared.answers.lock().unwrap().pop_front();
    let answer = answer.unwrap_or_else(|| shared.always.lock().unwrap().clone());
    let accepted = matches!(answer, Answer::Ok | Answer::Partial(..));
    let path = head.uri.path().to_owned();
    let taken = Taken { path, headers: head.headers, compressed, message, accepted };
    shared.taken.lock().unwrap().push(taken);
    shared.count.send_modify(|count| *count += 1);
    if matches!(answer, Answer::Silence) {
        std::future::pending::<()>().await;
    }
    if grpc { grpc_response(&answer) } else { http_response(&answer) }
}

fn gunzip(body: &[u8]) -> Bytes {
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(body).read_to_end(&mut plain).unwrap();
    Bytes::from(plain)
}

/// All three signals' answers have this shape.
fn encoded(answer: &Answer) -> Vec<u8> {
    let partial_success = match answer {
        Answer::Partial(rejected, message) => Some(ExportTracePartialSuccess {
            rejected_spans: *rejected,
            error_message: (*message).to_owned(),
        }),
        Answer::Ok | Answer::Status(..) | Answer::Code(..) | Answer::Silence => None,
    };
    ExportTraceServiceResponse { partial_success }.encode_to_vec()
}

fn http_response(answer: &Answer) -> Response<Body> {
    let (status, after, body) = match answer {
        Answer::Status(status, after, text) => (*status, *after, text.as_bytes().to_vec()),
        Answer::Ok | Answer::Partial(..) | Answer::Code(..) | Answer::Silence => {
            (200, None, encoded(answer))
        }
    };
    let mut response = Response::builder().status(status);
    response = response.header(CONTENT_TYPE, "application/x-protobuf");
    if let Some(after) = after {
        response = response.header("retry-after", after);
    }
    response.body(frames(vec![Frame::data(Bytes::from(body))])).unwrap()
}

fn grpc_response(answer: &Answer) -> Response<Body> {
    let response = Response::builder().header(CONTENT_TYPE, "application/grpc");
    if let Answer::Code(code, message, after) = answer {
        let mut response = response.header("grpc-status", *code).header("grpc-message", *message);
        if let Some(seconds) = after {
            let details = STANDARD_NO_PAD.encode(retry_info(*seconds));
            response = response.header("grpc-status-details-bin", details);
        }
        return response.body(frames(Vec::new())).unwrap();
    }
    let message = encoded(answer);
    let mut body = BytesMut::new();
    body.put_u8(0);
    body.put_u32(u32::try_from(message.len()).unwrap());
    body.put_slice(&message);
    let trailers = HeaderMap::from_iter([(
        hyper::header::HeaderName::from_static("grpc-status"),
        HeaderValue::from_static("0"),
    )]);
    let both = vec![Frame::data(body.freeze()), Frame::trailers(trailers)];
    response.body(frames(both)).unwrap()
}

/// A `google.rpc.Status` whose details ask for a pause.
fn retry_info(seconds: u8) -> Vec<u8> {
    let tagged = |number: u8, value: &[u8]| {
        [&[number << 3 | 2, u8::try_from(value.len()).unwrap()], value].concat()
    };
    let info = tagged(1, &[0x08, seconds]);
    let any = [tagged(1, b"type.googleapis.com/google.rpc.RetryInfo"), tagged(2, &info)].concat();
    [vec![0x08, 8], tagged(3, &any)].concat()
}

fn frames(frames: Vec<Frame<Bytes>>) -> Body {
    StreamBody::new(stream::iter(frames.into_iter().map(Ok).collect::<Vec<_>>()))
}

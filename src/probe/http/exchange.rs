//! One request and its answer on one connection, polled in one task, with the phases that the socket saw.

use std::error::Error;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response, Version, header, response};
use http_body::Body as _;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::time::Instant;

use super::decode::Gathering;
use super::wire::{Seen, Wire};
use crate::dial::{Stamps, Stream};
use crate::failure::{ErrorType, Failure};
use crate::phase::{Phase, Timeline};

/// The largest head of an answer, and the most fields in it.
const MAX_HEAD: usize = 64 << 10;
const MAX_FIELDS: usize = 200;
/// The most interim (1xx) answers before the final one.
const MAX_INTERIM: u32 = 16;
/// What a target may send ahead of being read, in bytes; for one stream and for the connection.
const WINDOW: u32 = 512 << 10;

/// A request that was made on a connection of its own.
pub(super) struct Exchange {
    line: Line,
    watch: Watch,
}

enum Line {
    One(Box<One>),
    Two(Box<Two>),
}

struct One {
    /// None once it has ended.
    connection: Option<http1::Connection<TokioIo<Wire>, Full<Bytes>>>,
    /// Without it the connection would count as done with.
    _sender: http1::SendRequest<Full<Bytes>>,
    body: Option<Incoming>,
}

struct Two {
    connection: Option<h2::client::Connection<Wire, Bytes>>,
    body: Option<h2::RecvStream>,
}

/// What is known of how far the exchange has come.
struct Watch {
    stamps: Stamps,
    seen: Arc<Seen>,
    interim: Arc<AtomicU32>,
    /// Once more than this is written and flushed, the request is out.
    before_last: u64,
    /// Whether the answer's first byte is the stream's: HTTP/2 has frames of its own before it.
    bare: bool,
    answered: bool,
}

impl Exchange {
    /// Sends a request by HTTP/1.1 and reads the head of its answer.
    pub(super) async fn one(
        stream: Stream,
        request: Request<Bytes>,
        timeline: &mut Timeline,
    ) -> Result<(Self, response::Parts), Failure> {
        let wire = Wire::new(stream);
        let mut watch = Watch::new(&wire, request.body().len(), true);
        let handshake = http1::Builder::new()
            .max_headers(MAX_FIELDS)
            .max_header_size(MAX_HEAD)
            .max_buf_size(MAX_HEAD + (8 << 10))
            .handshake(TokioIo::new(wire))
            .await;
        let (mut sender, connection) = handshake.map_err(|error| watch.failure_of_one(&error))?;
        let mut connection = Some(connection);
        let mut request = request.map(Full::new);
        let interim = Arc::clone(&watch.interim);
        hyper::ext::on_informational(&mut request, move |_| {
            interim.fetch_add(1, Relaxed);
        });
        let mut response = pin!(sender.send_request(request));
        let answer = poll_fn(|cx| {
            drive(&mut connection, cx);
            let answer = response.as_mut().poll(cx);
            watch.tell(timeline);
            watch.bound_interim()?;
            if watch.seen.is_foreign() {
                return Poll::Ready(Err(watch.malformed("it is no HTTP/1")));
            }
            answer.map_err(|error| watch.failure_of_one(&error))
        });
        let (parts, body) = answer.await?.into_parts();
        watch.answered = true;
        unambiguous(&parts).map_err(|message| watch.malformed(&message))?;
        let line = One { connection, _sender: sender, body: Some(body) };
        Ok((Self { line: Line::One(Box::new(line)), watch }, parts))
    }

    /// Sends a request by HTTP/2 and reads the head of its answer.
    pub(super) async fn two(
        stream: Stream,
        request: Request<Bytes>,
        timeline: &mut Timeline,
    ) -> Result<(Self, response::Parts), Failure> {
        let wire = Wire::new(stream);
        let mut watch = Watch::new(&wire, request.body().len(), false);
        let handshake = h2::client::Builder::new()
            .enable_push(false)
            .initial_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .max_header_list_size(u32::try_from(MAX_HEAD).unwrap_or(u32::MAX))
            .handshake::<_, Bytes>(wire)
            .await;
        let (mut sender, connection) = handshake.map_err(|error| watch.failure_of_two(&error))?;
        let mut connection = Some(connection);
        watch.before_last += watch.stamps.written();
        let (head, body) = request.into_parts();
        let (mut response, mut upload) = sender
            .send_request(Request::from_parts(head, ()), body.is_empty())
            .map_err(|error| watch.failure_of_two(&error))?;
        if !body.is_empty() {
            upload.send_data(body, true).map_err(|error| watch.failure_of_two(&error))?;
        }
        let answer = poll_fn(|cx| {
            drive(&mut connection, cx);
            while let Poll::Ready(Some(Ok(_))) = response.poll_informational(cx) {
                watch.interim.fetch_add(1, Relaxed);
            }
            let answer = Pin::new(&mut response).poll(cx);
            watch.tell(timeline);
            watch.bound_interim()?;
            answer.map_err(|error| watch.failure_of_two(&error))
        });
        let (parts, body) = Response::into_parts(answer.await?);
        if parts.headers.len() > MAX_FIELDS {
            return Err(head_too_large());
        }
        watch.answered = true;
        watch.tell(timeline);
        let line = Two { connection, body: Some(body) };
        Ok((Self { line: Line::Two(Box::new(line)), watch }, parts))
    }

    /// Reads the body to its end.
    pub(super) async fn body(&mut self, gathering: &mut Gathering) -> Result<(), Failure> {
        while let Some(piece) = poll_fn(|cx| self.poll_piece(cx)).await {
            gathering.take(piece?)?;
        }
        gathering.finish()
    }

    /// When the answer's last byte came.
    pub(super) fn ended_at(&self) -> Instant {
        let Watch { stamps, .. } = &self.watch;
        let first = stamps.first_read();
        // An answer that came in one piece took the time that it took to be read.
        stamps.last_read().filter(|last| Some(*last) != first).unwrap_or_else(Instant::now)
    }

    /// The stream, where the next request may follow on it: the answer ended by its own measure and nobody closes.
    pub(super) fn into_stream(self, parts: &response::Parts) -> Option<Stream> {
        let Line::One(one) = self.line else { return None };
        let One { connection, _sender: _, body: _ } = *one;
        let may_follow = parts.version == Version::HTTP_11
            && !says_close(parts)
            && self.watch.is_out()
            && !self.watch.seen.has_ended();
        let ended = connection.filter(|_| may_follow)?.into_parts();
        ended.read_buf.is_empty().then(|| ended.io.into_inner().into_stream())
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Failure>>> {
        match &mut self.line {
            Line::One(one) => one.poll_piece(cx, &self.watch),
            Line::Two(two) => two.poll_piece(cx, &self.watch),
        }
    }
}

impl One {
    fn poll_piece(
        &mut self,
        cx: &mut Context<'_>,
        watch: &Watch,
    ) -> Poll<Option<Result<Bytes, Failure>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        // First what has come already, then what the connection has to bring.
        for turn in 0..2 {
            while let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(cx) {
                match frame.map(|frame| frame.map(http_body::Frame::into_data)) {
                    None => return Poll::Ready(None),
                    Some(Ok(Ok(piece))) => return Poll::Ready(Some(Ok(piece))),
                    Some(Ok(Err(_trailers))) => {}
                    Some(Err(error)) => {
                        return Poll::Ready(Some(Err(watch.failure_of_one(&error))));
                    }
                }
            }
            if turn == 0 {
                drive(&mut self.connection, cx);
            }
        }
        Poll::Pending
    }
}

impl Two {
    fn poll_piece(
        &mut self,
        cx: &mut Context<'_>,
        watch: &Watch,
    ) -> Poll<Option<Result<Bytes, Failure>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        drive(&mut self.connection, cx);
        body.poll_data(cx).map(|piece| {
            let piece = piece?.map_err(|error| watch.failure_of_two(&error));
            Some(piece.inspect(|piece| {
                // Refused only where more is given back than was taken.
                drop(body.flow_control().release_capacity(piece.len()));
            }))
        })
    }
}

/// Moves a connection on. How it ends is told to the request or the body on it, and to the wire.
fn drive<C: Future + Unpin>(connection: &mut Option<C>, cx: &mut Context<'_>) {
    if connection.as_mut().is_some_and(|open| Pin::new(open).poll(cx).is_ready()) {
        *connection = None;
    }
}

impl Watch {
    fn new(wire: &Wire, body: usize, bare: bool) -> Self {
        let stamps = wire.stamps();
        stamps.restart();
        let before_last = u64::try_from(body).unwrap_or(u64::MAX);
        Self {
            stamps,
            seen: wire.seen(),
            interim: Arc::default(),
            before_last,
            bare,
            answered: false,
        }
    }

    /// Moves the timeline on to where the bytes are, so that a run that is cut off tells where it stuck.
    fn tell(&self, timeline: &mut Timeline) {
        let first_read = self.stamps.first_read().filter(|_| self.bare);
        let came = if self.bare { first_read } else { self.answer_came() };
        if timeline.open() == Some(Phase::Send) && (self.is_out() || came.is_some()) {
            let sent =
                if first_read.is_some() { self.stamps.sent() } else { self.stamps.last_write() };
            timeline.begin_at(Phase::Wait, sent.unwrap_or_else(Instant::now));
        }
        if let Some(came) = came.filter(|_| timeline.open() == Some(Phase::Wait)) {
            timeline.begin_at(Phase::Receive, came);
        }
    }

    fn answer_came(&self) -> Option<Instant> {
        self.stamps.last_read().filter(|_| self.answered)
    }

    fn is_out(&self) -> bool {
        self.seen.is_flushed() && self.stamps.written() > self.before_last
    }

    fn bound_interim(&self) -> Result<(), Failure> {
        if self.interim.load(Relaxed) <= MAX_INTERIM {
            return Ok(());
        }
        let message = format!("more than {MAX_INTERIM} interim (1xx) answers before the final one");
        Err(Failure::new(ErrorType::ResponseTooLarge, message))
    }

    fn failure_of_one(&self, error: &hyper::Error) -> Failure {
        if error.is_parse_too_large() {
            return head_too_large();
        }
        if error.is_parse() {
            return self.malformed(&said(error));
        }
        if let Some(broke) = self.broke() {
            return broke;
        }
        let framing = error.source().and_then(|source| source.downcast_ref::<io::Error>());
        let cut = framing.is_none_or(|framing| framing.kind() == io::ErrorKind::UnexpectedEof);
        if self.seen.has_ended() && cut {
            return self.ended();
        }
        self.malformed(&said(error))
    }

    fn failure_of_two(&self, error: &h2::Error) -> Failure {
        if error.is_remote() {
            let reason = error.reason();
            let reason = reason.as_ref().map_or("no reason", h2::Reason::description);
            if error.is_reset() {
                let message = format!("the target reset the stream: {reason}");
                return Failure::new(ErrorType::ResponseReset, message);
            }
            let (error_type, when) = if self.answered {
                (ErrorType::ResponseTruncated, "in the middle of the answer")
            } else {
                (ErrorType::ResponseClosed, "before an answer came")
            };
            return Failure::new(error_type, format!("the target said goodbye {when}: {reason}"));
        }
        if let Some(broke) = self.broke() {
            // Frames of the connection's own are no part of an answer: without one there is nothing to be cut short.
            let closed = broke.error_type == ErrorType::ResponseTruncated && !self.answered;
            return if closed { self.ended() } else { broke };
        }
        if self.seen.has_ended() && (error.is_io() || error.reason().is_none()) {
            return self.ended();
        }
        // So h2 turns down a head above its bound, and one that has not ended far beyond it.
        let turned_down = [Some(h2::Reason::REFUSED_STREAM), Some(h2::Reason::ENHANCE_YOUR_CALM)];
        if !self.answered && turned_down.contains(&error.reason()) {
            return head_too_large();
        }
        self.malformed(&said(error))
    }

    /// How the wire broke, if it did: what broke first is what is told.
    fn broke(&self) -> Option<Failure> {
        // HTTP/2 reads frames of the target's while it still sends.
        let sending = self.stamps.read() == 0 || !(self.bare || self.is_out());
        let writing = self.seen.writing_broke().filter(|_| sending);
        writing.or_else(|| self.seen.reading_broke()).cloned()
    }

    /// The target closed its side too early.
    fn ended(&self) -> Failure {
        let interim_alone =
            self.interim.load(Relaxed) > 0 && self.seen.ends_with_blank_line() && !self.answered;
        let frames_alone = !self.bare && !self.answered;
        if self.stamps.read() == 0 || interim_alone || frames_alone {
            let message = "the connection was closed before an answer came";
            return Failure::new(ErrorType::ResponseClosed, message);
        }
        let part = if self.answered { "body" } else { "head" };
        let message = format!("the connection was closed in the middle of the answer's {part}");
        Failure::new(ErrorType::ResponseTruncated, message)
    }

    fn malformed(&self, what: &str) -> Failure {
        let message = if self.answered || self.seen.opening().is_empty() {
            format!("the answer breaks the protocol's rules: {what}")
        } else {
            let opening: String = self.opening().chars().take(40).collect();
            format!("the answer breaks the protocol's rules: {what}; it begins with \"{opening}\"")
        };
        Failure::new(ErrorType::ResponseMalformed, message)
    }

    fn opening(&self) -> String {
        self.seen.opening().escape_ascii().to_string()
    }
}

/// Refuses an answer whose end two readers may see in two places.
fn unambiguous(parts: &response::Parts) -> Result<(), String> {
    let Some(last) = parts.headers.get_all(header::TRANSFER_ENCODING).iter().next_back() else {
        return Ok(());
    };
    if parts.headers.contains_key(header::CONTENT_LENGTH) {
        return Err("both content-length and transfer-encoding".to_owned());
    }
    let last = String::from_utf8_lossy(last.as_bytes());
    let coding = last.rsplit(',').next().unwrap_or_default().trim();
    if coding.eq_ignore_ascii_case("chunked") || coding.eq_ignore_ascii_case("identity") {
        return Ok(());
    }
    Err(format!("transfer-encoding {last:?}, which nobody asked for"))
}

/// Whether an answer says that its connection closes.
fn says_close(parts: &response::Parts) -> bool {
    let fields = parts.headers.get_all(header::CONNECTION).iter();
    let mut options =
        fields.filter_map(|field| field.to_str().ok()).flat_map(|field| field.split(','));
    options.any(|option| option.trim().eq_ignore_ascii_case("close"))
}

fn head_too_large() -> Failure {
    let message =
        format!("the answer's head is larger than {MAX_HEAD} bytes or {MAX_FIELDS} fields");
    Failure::new(ErrorType::ResponseTooLarge, message)
}

/// What an error says with all its causes.
fn said(error: &dyn Error) -> String {
    let mut said = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        said = format!("{said}: {error}");
        cause = error.source();
    }
    said
}

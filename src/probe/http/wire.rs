//! The stream under HTTP: remembers how it broke, so that a failure is named by what happened on the wire.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::dial::{Stamps, Stream, failure_of_io};
use crate::failure::Failure;
use crate::phase::Phase;

/// How much of the answer's beginning is kept for those that turn out to be no HTTP.
const OPENING: usize = 256;
/// How much is read before the other probes and the timers get their turn: a flood of frames that cost more to parse
/// than to send must hold up neither.
const TURN: usize = 16 << 10;
/// How every answer of HTTP/1 begins.
const GREETING: &[u8] = b"HTTP/1.";

/// What was seen on the wire.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Everything that was written is out.
    flushed: AtomicBool,
    ended: AtomicBool,
    /// The last bytes that were read ended a head.
    blank_line: AtomicBool,
    /// The answer does not begin as HTTP/1 does.
    foreign: AtomicBool,
    opening: OnceLock<Box<[u8]>>,
    reading_broke: OnceLock<Failure>,
    writing_broke: OnceLock<Failure>,
}

impl Seen {
    /// Whether everything that was written is out.
    pub(super) fn is_flushed(&self) -> bool {
        self.flushed.load(Relaxed)
    }

    /// Whether the target has closed its side.
    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Relaxed)
    }

    /// Whether the last bytes that were read ended a head.
    pub(super) fn ends_with_blank_line(&self) -> bool {
        self.blank_line.load(Relaxed)
    }

    /// Whether the answer does not begin as HTTP/1 does. The parser looks at a head only once it is whole, which what is
    /// no HTTP may never be.
    pub(super) fn is_foreign(&self) -> bool {
        self.foreign.load(Relaxed)
    }

    /// The first bytes of the answer.
    pub(super) fn opening(&self) -> &[u8] {
        self.opening.get().map_or(&[], |opening| opening)
    }

    /// How reading broke.
    pub(super) fn reading_broke(&self) -> Option<&Failure> {
        self.reading_broke.get()
    }

    /// How writing broke.
    pub(super) fn writing_broke(&self) -> Option<&Failure> {
        self.writing_broke.get()
    }
}

/// The stream under HTTP. When writing breaks it swallows what is written and goes on reading: a target may answer and
/// close before it has read the whole request, and then the answer counts.
#[derive(Debug)]
pub(super) struct Wire {
    stream: Stream,
    stamps: Stamps,
    seen: Arc<Seen>,
    /// How many bytes of the greeting have come.
    greeted: usize,
    /// How much was read in this turn.
    turn: usize,
}

impl Wire {
    /// Nothing seen yet.
    pub(super) fn new(stream: Stream) -> Self {
        Self { stamps: stream.stamps(), stream, seen: Arc::default(), greeted: 0, turn: 0 }
    }

    /// The stream itself.
    pub(super) fn into_stream(self) -> Stream {
        self.stream
    }

    /// A handle on the stream's stamps.
    pub(super) fn stamps(&self) -> Stamps {
        self.stamps.clone()
    }

    /// A handle on what is seen.
    pub(super) fn seen(&self) -> Arc<Seen> {
        Arc::clone(&self.seen)
    }

    fn wrote<T>(&self, result: io::Result<T>, swallowed: T) -> T {
        result.unwrap_or_else(|error| {
            // What breaks when everything is out breaks the waiting.
            let phase = if self.seen.is_flushed() { Phase::Wait } else { Phase::Send };
            self.seen.writing_broke.get_or_init(|| failure_of_io(&error, phase, 0));
            swallowed
        })
    }

    fn failure_to_read(&self, error: &io::Error) -> Failure {
        let bytes = self.stamps.read();
        let phase = if bytes == 0 { Phase::Wait } else { Phase::Receive };
        let failure = failure_of_io(error, phase, bytes);
        if error.kind() != io::ErrorKind::UnexpectedEof {
            return failure;
        }
        let message = "the connection was closed without TLS's goodbye (close_notify), so that nothing says that \
                       the answer was whole";
        Failure { message: message.to_owned(), ..failure }
    }

    fn read(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            self.seen.ended.store(true, Relaxed);
            return;
        }
        self.seen.blank_line.store(bytes.ends_with(b"\r\n\r\n"), Relaxed);
        self.seen.opening.get_or_init(|| bytes.iter().take(OPENING).copied().collect());
        self.compare_greeting(bytes);
    }

    fn compare_greeting(&mut self, bytes: &[u8]) {
        for byte in bytes {
            match GREETING.get(self.greeted) {
                None => return,
                Some(expected) if expected == byte => self.greeted += 1,
                Some(_) if self.greeted == 0 && matches!(byte, b'\r' | b'\n') => {}
                Some(_) => return self.seen.foreign.store(true, Relaxed),
            }
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.turn >= TURN {
            self.turn = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let result = ready!(Pin::new(&mut self.stream).poll_read(cx, buf));
        self.turn += buf.filled().len().saturating_sub(before);
        match &result {
            Ok(()) => self.read(buf.filled().get(before..).unwrap_or_default()),
            Err(error) => {
                self.seen.reading_broke.get_or_init(|| self.failure_to_read(error));
            }
        }
        Poll::Ready(result)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.seen.flushed.store(false, Relaxed);
        if self.seen.writing_broke().is_some() {
            return Poll::Ready(Ok(buf.len()));
        }
        let result = ready!(Pin::new(&mut self.stream).poll_write(cx, buf));
        Poll::Ready(Ok(self.wrote(result, buf.len())))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.seen.flushed.store(false, Relaxed);
        let all = bufs.iter().map(|buf| buf.len()).sum();
        if self.seen.writing_broke().is_some() {
            return Poll::Ready(Ok(all));
        }
        let result = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, bufs));
        Poll::Ready(Ok(self.wrote(result, all)))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.seen.writing_broke().is_some() {
            return Poll::Ready(Ok(()));
        }
        let result = ready!(Pin::new(&mut self.stream).poll_flush(cx));
        if result.is_ok() {
            self.seen.flushed.store(true, Relaxed);
        }
        self.wrote(result, ());
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::AsyncWriteExt;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::dial::Timed;

    #[tokio::test]
    async fn a_flood_is_read_in_turns_between_which_others_run() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let here = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut there, _) = listener.accept().await.unwrap();
        let flood = tokio::spawn(async move { while there.write_all(&[0; 4096]).await.is_ok() {} });
        here.readable().await.unwrap();
        let mut wire = Wire::new(Stream::Plain(Timed::new(here)));
        for _ in 0..20 {
            let in_one_turn = poll_fn(|cx| {
                let (mut room, mut read) = ([0; 1024], 0);
                loop {
                    let mut buf = ReadBuf::new(&mut room);
                    match Pin::new(&mut wire).poll_read(cx, &mut buf) {
                        Poll::Ready(result) => result.unwrap(),
                        Poll::Pending => return Poll::Ready(read),
                    }
                    read += buf.filled().len();
                }
            });
            assert!(in_one_turn.await <= TURN + 1024);
        }
        flood.abort();
    }
}

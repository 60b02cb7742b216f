//! A stream that stamps what passes, so that phases are measured where the bytes are.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::client::TlsStream;

/// A connection's bytes as the protocol above sees them: in the clear, inside TLS if there is TLS.
#[derive(Debug)]
pub enum Stream {
    /// Without TLS.
    Plain(Timed<TcpStream>),
    /// Inside TLS.
    Tls(Box<Timed<TlsStream<TcpStream>>>),
}

impl Stream {
    /// A handle on the stamps, to be kept when the stream is given away.
    pub fn stamps(&self) -> Stamps {
        match self {
            Self::Plain(stream) => stream.stamps.clone(),
            Self::Tls(stream) => stream.stamps.clone(),
        }
    }
}

/// When the first and last bytes passed, and how many: a handle that may be asked while the stream is in use.
#[derive(Clone, Debug)]
pub struct Stamps(Arc<Marks>);

/// Moments are nanoseconds after `base`, plus one: zero is never.
#[derive(Debug)]
struct Marks {
    base: Instant,
    first_write: AtomicU64,
    sent: AtomicU64,
    last_write: AtomicU64,
    first_read: AtomicU64,
    last_read: AtomicU64,
    written: AtomicU64,
    read: AtomicU64,
}

impl Stamps {
    fn new() -> Self {
        let never = || AtomicU64::new(0);
        Self(Arc::new(Marks {
            base: Instant::now(),
            first_write: never(),
            sent: never(),
            last_write: never(),
            first_read: never(),
            last_read: never(),
            written: never(),
            read: never(),
        }))
    }

    /// When the first byte was written.
    pub fn first_write(&self) -> Option<Instant> {
        self.moment(&self.0.first_write)
    }

    /// When the last byte was written before any was read: the request is out.
    pub fn sent(&self) -> Option<Instant> {
        self.moment(&self.0.sent)
    }

    /// When the last byte was written.
    pub fn last_write(&self) -> Option<Instant> {
        self.moment(&self.0.last_write)
    }

    /// When the first byte was read.
    pub fn first_read(&self) -> Option<Instant> {
        self.moment(&self.0.first_read)
    }

    /// When the last byte was read.
    pub fn last_read(&self) -> Option<Instant> {
        self.moment(&self.0.last_read)
    }

    /// How many bytes were written.
    pub fn written(&self) -> u64 {
        self.0.written.load(Relaxed)
    }

    /// How many bytes were read.
    pub fn read(&self) -> u64 {
        self.0.read.load(Relaxed)
    }

    /// Forgets what passed: the next request on the same connection begins.
    pub fn restart(&self) {
        let Marks { base: _, first_write, sent, last_write, first_read, last_read, written, read } =
            &*self.0;
        for mark in [first_write, sent, last_write, first_read, last_read, written, read] {
            mark.store(0, Relaxed);
        }
    }

    fn moment(&self, mark: &AtomicU64) -> Option<Instant> {
        let nanos = mark.load(Relaxed).checked_sub(1)?;
        Some(self.0.base + Duration::from_nanos(nanos))
    }

    fn now(&self) -> u64 {
        u64::try_from(self.0.base.elapsed().as_nanos()).map_or(u64::MAX, |nanos| nanos + 1)
    }

    fn wrote(&self, bytes: usize) {
        let now = self.now();
        first(&self.0.first_write, now);
        self.0.last_write.store(now, Relaxed);
        if self.0.first_read.load(Relaxed) == 0 {
            self.0.sent.store(now, Relaxed);
        }
        self.0.written.fetch_add(count(bytes), Relaxed);
    }

    fn did_read(&self, bytes: usize) {
        let now = self.now();
        first(&self.0.first_read, now);
        self.0.last_read.store(now, Relaxed);
        self.0.read.fetch_add(count(bytes), Relaxed);
    }
}

/// One stream is read and written by one task, so nothing happens between the look and the mark.
fn first(mark: &AtomicU64, now: u64) {
    if mark.load(Relaxed) == 0 {
        mark.store(now, Relaxed);
    }
}

fn count(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

/// A stream whose reads and writes are stamped.
#[derive(Debug)]
pub struct Timed<S> {
    inner: S,
    stamps: Stamps,
    /// Written, but perhaps not out yet: the flush stamps it.
    unflushed: bool,
}

impl<S> Timed<S> {
    /// Nothing has passed yet.
    pub fn new(inner: S) -> Self {
        Self { inner, stamps: Stamps::new(), unflushed: false }
    }

    /// A handle on the stamps.
    pub fn stamps(&self) -> Stamps {
        self.stamps.clone()
    }

    /// The stream itself.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The stream itself, and no stamps any more.
    pub fn into_inner(self) -> S {
        self.inner
    }

    fn wrote(&mut self, bytes: usize) {
        if bytes > 0 {
            self.stamps.wrote(bytes);
            self.unflushed = true;
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Timed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        let bytes = buf.filled().len().saturating_sub(before);
        if bytes > 0 {
            self.stamps.did_read(bytes);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Timed<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let bytes = ready!(Pin::new(&mut self.inner).poll_write(cx, buf))?;
        self.wrote(bytes);
        Poll::Ready(Ok(bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let bytes = ready!(Pin::new(&mut self.inner).poll_write_vectored(cx, bufs))?;
        self.wrote(bytes);
        Poll::Ready(Ok(bytes))
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.inner).poll_flush(cx);
        // TLS may hold bytes back until the socket takes them. A flush that had nothing to wait for changes no stamp.
        match flushed {
            Poll::Pending => Poll::Pending,
            Poll::Ready(done) => {
                if std::mem::take(&mut self.unflushed) && done.is_ok() {
                    self.stamps.wrote(0);
                }
                Poll::Ready(done)
            }
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

macro_rules! either {
    ($stream:ident, $inner:ident => $call:expr) => {
        match $stream.get_mut() {
            Stream::Plain($inner) => $call,
            Stream::Tls($inner) => $call,
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        either!(self, inner => Pin::new(inner).poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        either!(self, inner => Pin::new(inner).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(self, inner => Pin::new(inner).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(inner) => inner.is_write_vectored(),
            Self::Tls(inner) => inner.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, inner => Pin::new(inner).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, inner => Pin::new(inner).poll_shutdown(cx))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn stamps_tell_the_request_from_the_answer() {
        let (here, mut there) = tokio::io::duplex(64);
        let mut stream = Timed::new(here);
        let stamps = stream.stamps();
        assert_eq!(stamps.first_write(), None);
        stream.write_all(b"ask").await.unwrap();
        let asked = Instant::now();
        tokio::time::advance(Duration::from_millis(5)).await;
        there.write_all(b"answer").await.unwrap();
        let mut answer = [0; 6];
        stream.read_exact(&mut answer).await.unwrap();
        tokio::time::advance(Duration::from_millis(5)).await;
        stream.write_all(b"more").await.unwrap();

        assert_eq!(stamps.sent(), Some(asked));
        assert_eq!(stamps.first_read(), Some(asked + Duration::from_millis(5)));
        assert_eq!(stamps.last_write(), Some(asked + Duration::from_millis(10)));
        assert_eq!((stamps.written(), stamps.read()), (7, 6));
        stamps.restart();
        assert_eq!((stamps.sent(), stamps.read()), (None, 0));
    }
}

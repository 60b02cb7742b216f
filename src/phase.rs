//! The timed parts of one run.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::failure::ErrorType;

/// A timed part of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Asking for the target's address.
    Dns,
    /// Making the TCP connection.
    Connect,
    /// Asking a proxy for a way through.
    Proxy,
    /// The TLS handshake.
    Tls,
    /// Fetching a token before the request.
    Auth,
    /// Writing the request.
    Send,
    /// From the request's last byte to the answer's first.
    Wait,
    /// From the answer's first byte to its last.
    Receive,
    /// From the acknowledgement of a message to its first sight.
    Deliver,
}

impl Phase {
    /// Every phase, in the order in which they happen.
    pub const ALL: &[Self] = &[
        Self::Dns,
        Self::Connect,
        Self::Proxy,
        Self::Tls,
        Self::Auth,
        Self::Send,
        Self::Wait,
        Self::Receive,
        Self::Deliver,
    ];

    /// The word in records, metrics and expectations.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Connect => "connect",
            Self::Proxy => "proxy",
            Self::Tls => "tls",
            Self::Auth => "auth",
            Self::Send => "send",
            Self::Wait => "wait",
            Self::Receive => "receive",
            Self::Deliver => "deliver",
        }
    }

    /// The phase of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|phase| phase.as_str() == name)
    }

    /// What it is called when time runs out in this phase.
    pub const fn timeout(self) -> ErrorType {
        match self {
            Self::Dns => ErrorType::DnsTimeout,
            Self::Connect | Self::Proxy => ErrorType::ConnectTimeout,
            Self::Tls => ErrorType::TlsTimeout,
            Self::Send => ErrorType::SendTimeout,
            Self::Auth | Self::Wait | Self::Receive => ErrorType::ResponseTimeout,
            Self::Deliver => ErrorType::DeliverTimeout,
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One phase as it was: a phase that did not happen is absent, never zero.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Timed {
    /// Which phase.
    #[serde(rename = "name")]
    pub phase: Phase,
    /// From the start of the run, in seconds.
    #[serde(rename = "start_s", with = "seconds")]
    pub start: Duration,
    /// In seconds.
    #[serde(rename = "duration_s", with = "seconds")]
    pub took: Duration,
    /// Which request of the run, counted from 0: redirects are requests of their own.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub hop: u32,
    /// Why it was cut off.
    #[serde(rename = "error_type", default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorType>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_zero(hop: &u32) -> bool {
    *hop == 0
}

/// Lengths of time in records are seconds.
pub mod seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    /// Writes seconds, to the nanosecond.
    pub fn serialize<S: Serializer>(length: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(length.as_secs_f64())
    }

    /// Reads seconds; what is no length of time is none.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let seconds = f64::deserialize(deserializer)?;
        // To the nanosecond, so that what was written is what is read.
        Ok(Duration::try_from_secs_f64((seconds * 1e9).round() / 1e9).unwrap_or_default())
    }
}

/// The phases of one run as they happen. The caller owns it, so a run that is cut off still tells where it stuck.
#[derive(Clone, Debug)]
pub struct Timeline {
    origin: Instant,
    open: Option<(Phase, Instant)>,
    hop: u32,
    past: Vec<Timed>,
}

impl Timeline {
    /// A timeline whose zero is `origin`.
    pub fn new(origin: Instant) -> Self {
        Self { origin, open: None, hop: 0, past: Vec::with_capacity(6) }
    }

    /// Its zero.
    pub fn origin(&self) -> Instant {
        self.origin
    }

    /// Since the zero.
    pub fn elapsed(&self) -> Duration {
        self.origin.elapsed()
    }

    /// The phases that follow belong to the next request.
    pub fn next_hop(&mut self) {
        self.hop += 1;
    }

    /// Which request of the run the phases belong to.
    pub fn hop(&self) -> u32 {
        self.hop
    }

    /// Opens a phase now; the one that was open ends now.
    pub fn begin(&mut self, phase: Phase) {
        self.begin_at(phase, Instant::now());
    }

    /// Opens a phase at a moment that was stamped; the one that was open ends then.
    pub fn begin_at(&mut self, phase: Phase, moment: Instant) {
        self.end_at(moment);
        self.open = Some((phase, moment));
    }

    /// Ends the open phase now.
    pub fn end(&mut self) {
        self.end_at(Instant::now());
    }

    /// Ends the open phase at a moment that was stamped.
    pub fn end_at(&mut self, moment: Instant) {
        self.close(moment, None);
    }

    /// The open phase broke, now.
    pub fn broke(&mut self, error: ErrorType) {
        self.close(Instant::now(), Some(error));
    }

    /// The phase that is open.
    pub fn open(&self) -> Option<Phase> {
        self.open.map(|(phase, _)| phase)
    }

    /// Times one piece of work; if the work is dropped the phase stays open and keeps its time.
    pub async fn time<T>(&mut self, phase: Phase, work: impl Future<Output = T>) -> T {
        self.begin(phase);
        let done = work.await;
        self.end();
        done
    }

    /// Adds a phase that was measured elsewhere.
    pub fn add(&mut self, phase: Phase, start: Instant, took: Duration) {
        let start = start.saturating_duration_since(self.origin);
        self.past.push(Timed { phase, start, took, hop: self.hop, error: None });
    }

    /// The phases so far, in the order in which they ended.
    pub fn past(&self) -> &[Timed] {
        &self.past
    }

    /// Takes the phases out, in the order in which they ended.
    pub fn take(&mut self) -> Vec<Timed> {
        std::mem::take(&mut self.past)
    }

    /// The time spent in one phase, over all requests; none if it did not happen.
    pub fn spent(&self, phase: Phase) -> Option<Duration> {
        let mut times = self
            .past
            .iter()
            .filter(|timed| timed.phase == phase)
            .map(|timed| timed.took)
            .peekable();
        times.peek()?;
        Some(times.sum())
    }

    fn close(&mut self, moment: Instant, error: Option<ErrorType>) {
        let Some((phase, began)) = self.open.take() else { return };
        let start = began.saturating_duration_since(self.origin);
        let took = moment.saturating_duration_since(began);
        self.past.push(Timed { phase, start, took, hop: self.hop, error });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_phase_that_is_cut_off_keeps_its_time() {
        let mut timeline = Timeline::new(Instant::now());
        let work = timeline.time(Phase::Connect, std::future::pending::<()>());
        assert!(tokio::time::timeout(Duration::from_millis(50), work).await.is_err());
        timeline.broke(ErrorType::ConnectTimeout);
        let [timed] = timeline.past() else { panic!("one phase") };
        assert!(timed.took >= Duration::from_millis(50));
        assert_eq!(timed.error, Some(ErrorType::ConnectTimeout));
        assert_eq!(timeline.spent(Phase::Tls), None);
    }
}

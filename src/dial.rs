//! The way to a target that kinds share: resolve, connect, ask a proxy, shake hands.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;
use tokio::net::TcpStream;

use crate::failure::{Blame, ErrorType, Failure};
use crate::phase::Phase;
use crate::reading::Reading;

mod ask;
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
    let made = make(dial, reading).await;
    if let Err(failure) = &made {
        reading.timeline.broke(failure.error_type);
    }
    made
}

async fn make(dial: &Dial, reading: &mut Reading) -> Result<Connection, Failure> {
    let mut stream = reach(dial, reading).await.map_err(|failure| dial.laid_at(failure))?;
    let peer = note_peer(&stream, reading)?;
    let through_proxy = dial.proxy.is_some();
    if let (Some(proxy), Some(_)) = (&dial.proxy, &dial.tls) {
        let (host, port) = dial.target();
        reading.timeline.begin(Phase::Proxy);
        proxy.tunnel(&mut stream, host, port).await?;
        reading.timeline.end();
    }
    let Some(tls) = &dial.tls else {
        let stream = Stream::Plain(Timed::new(stream));
        return Ok(Connection { stream, peer, alpn: None, through_proxy });
    };
    reading.timeline.begin(Phase::Tls);
    let stream = tls.handshake(&dial.host, stream, reading).await?;
    reading.timeline.end();
    let alpn = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
    let stream = Stream::Tls(Box::new(Timed::new(stream)));
    Ok(Connection { stream, peer, alpn, through_proxy })
}

/// Resolves and connects to the first stop on the way.
async fn reach(dial: &Dial, reading: &mut Reading) -> Result<TcpStream, Failure> {
    let (host, port) = dial.first_stop();
    let addresses = dns::resolve(host, dial.ip, &dial.resolver, &mut reading.timeline).await?;
    dial.guard.check(&dial.host, &addresses)?;
    let addresses: Vec<_> = addresses.iter().map(|ip| SocketAddr::new(*ip, port)).collect();
    reading.timeline.begin(Phase::Connect);
    let stream = connect::connect(&addresses).await?;
    reading.timeline.end();
    Ok(stream)
}

fn note_peer(stream: &TcpStream, reading: &mut Reading) -> Result<SocketAddr, Failure> {
    let peer = stream.peer_addr().map_err(|error| failure_of_io(&error, Phase::Connect, 0))?;
    reading.fact("ip", peer.ip().to_string());
    reading.evidence.peer = Some(peer.to_string());
    Ok(peer)
}

impl Dial {
    /// The target's own address, or what was put in its place.
    fn target(&self) -> (&str, u16) {
        self.connect.as_ref().map_or((&self.host, self.port), |(host, port)| (host, *port))
    }

    /// Where the connection goes: to the proxy, when there is one.
    fn first_stop(&self) -> (&str, u16) {
        self.proxy.as_ref().map_or_else(|| self.target(), |proxy| (&proxy.host, proxy.port))
    }

    /// A proxy that is not reached is not the target's doing.
    fn laid_at(&self, failure: Failure) -> Failure {
        if self.proxy.is_some() && failure.blame == Blame::Target {
            failure.blamed(Blame::Path)
        } else {
            failure
        }
    }
}

impl Guard {
    fn check(self, host: &str, addresses: &[IpAddr]) -> Result<(), Failure> {
        // Behind a proxy the host's own address is all that is known of where it leads.
        let named = host.parse().ok();
        let forbidden = match self {
            Self::None => None,
            Self::NotLinkLocal => addresses.iter().copied().chain(named).find(|ip| is_local(*ip)),
        };
        let Some(address) = forbidden else { return Ok(()) };
        let place = if named == Some(address) {
            address.to_string()
        } else {
            format!("{host}, which is {address}")
        };
        let message = format!("a redirect leads to {place}: a link-local or metadata address");
        Err(Failure::new(ErrorType::RedirectForbidden, message))
    }
}

/// Link-local, or where a cloud keeps the metadata of its instances.
fn is_local(address: IpAddr) -> bool {
    const METADATA: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
    match address.to_canonical() {
        IpAddr::V4(four) => four.is_link_local(),
        IpAddr::V6(six) => six.is_unicast_link_local() || six == METADATA,
    }
}

//! The way to a target that kinds share: resolve, connect, ask a proxy, shake hands.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
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

    /// Goes over to TLS as the host, at once or in the middle of a dialogue (STARTTLS). The stamps begin anew.
    pub async fn secure(
        self,
        tls: &Tls,
        host: &str,
        reading: &mut Reading,
    ) -> Result<Self, Failure> {
        let Stream::Plain(plain) = self.stream else {
            return Err(Failure::new(
                ErrorType::ConfigInvalid,
                "the connection is inside TLS already",
            ));
        };
        reading.timeline.begin(Phase::Tls);
        let shaken = tls.handshake(host, plain.into_inner(), reading).await;
        let stream = shaken.inspect_err(|failure| reading.timeline.broke(failure.error_type))?;
        reading.timeline.end();
        let alpn = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
        Ok(Self { stream: Stream::Tls(Box::new(Timed::new(stream))), alpn, ..self })
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
    let (mut stream, peer) = reach(dial, reading).await?;
    reading.fact("ip", peer.ip().to_string());
    reading.evidence.peer = Some(peer.to_string());
    if let (Some(proxy), Some(_)) = (&dial.proxy, &dial.tls) {
        let (host, port) = dial.target();
        reading.timeline.begin(Phase::Proxy);
        proxy.tunnel(&mut stream, host, port).await?;
        reading.timeline.end();
    }
    let stream = Stream::Plain(Timed::new(stream));
    let through_proxy = dial.proxy.is_some() && dial.tls.is_none();
    let connection = Connection { stream, peer, alpn: None, through_proxy };
    match &dial.tls {
        Some(tls) => connection.secure(tls, &dial.host, reading).await,
        None => Ok(connection),
    }
}

/// Resolves and connects to the first stop on the way.
async fn reach(dial: &Dial, reading: &mut Reading) -> Result<(TcpStream, SocketAddr), Failure> {
    let (host, port) = dial.first_stop();
    let resolved = dns::resolve(host, dial.ip, &dial.resolver, &mut reading.timeline).await;
    let addresses = resolved.map_err(|failure| dial.laid_at(failure))?;
    dial.guard.check(&dial.host, dial.proxy.is_none().then_some(&addresses))?;
    let addresses: Vec<_> = addresses.iter().map(|ip| SocketAddr::new(*ip, port)).collect();
    // Until one of them answers, evidence names all that are dialled.
    reading.evidence.peer = Some(named(&addresses));
    reading.timeline.begin(Phase::Connect);
    let connected = connect::connect(&addresses).await;
    let connected = connected.map_err(|failure| dial.laid_at(failure))?;
    reading.timeline.end();
    Ok(connected)
}

fn named(addresses: &[SocketAddr]) -> String {
    addresses.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(", ")
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
    /// `addresses` are the host's, where they are known: behind a proxy they are only where the host is written as one.
    fn check(self, host: &str, addresses: Option<&Vec<IpAddr>>) -> Result<(), Failure> {
        if self == Self::None {
            return Ok(());
        }
        let written = host.parse().ok();
        let forbidden = addresses.into_iter().flatten().chain(&written).find(|ip| is_local(**ip));
        let Some(address) = forbidden else { return Ok(()) };
        let message =
            format!("a redirect leads to {host} ({address}): a link-local or metadata address");
        Err(Failure::new(ErrorType::RedirectForbidden, message))
    }
}

/// Link-local, or where a cloud keeps the metadata of its instances.
fn is_local(address: IpAddr) -> bool {
    const METADATA: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
    match address.to_canonical() {
        IpAddr::V4(four) => four.is_link_local(),
        IpAddr::V6(six) => {
            let behind_nat64 = nat64(six).is_some_and(|four| four.is_link_local());
            six.is_unicast_link_local() || six == METADATA || behind_nat64
        }
    }
}

/// The IPv4 address inside one of NAT64's (RFC 6052).
fn nat64(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let [0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0, four @ ..] = address.octets() else {
        return None;
    };
    Some(Ipv4Addr::from(four))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dial::testing::{closed_port, reading, serve_bytes};

    #[tokio::test]
    async fn a_closed_port_fails_in_connect() {
        let address = closed_port();
        let host = address.ip().to_string();
        let dialled = Dial { host, port: address.port(), ..Dial::default() };
        let mut reading = reading();
        let failure = dial(&dialled, &mut reading).await.unwrap_err();
        assert_eq!(failure.error_type, ErrorType::ConnectRefused);
        let [timed] = reading.timeline.past() else { panic!("one phase") };
        assert_eq!(timed.phase, Phase::Connect);
        assert_eq!(timed.error, Some(ErrorType::ConnectRefused));
        assert_eq!(reading.evidence.peer, Some(address.to_string()));
    }

    #[tokio::test]
    async fn localhost_is_reached_by_whichever_family_listens() {
        let server = serve_bytes(b"").await;
        let mut dialled =
            Dial { host: "localhost".to_owned(), port: server.address.port(), ..Dial::default() };
        let mut reading = reading();
        assert_eq!(dial(&dialled, &mut reading).await.unwrap().peer, server.address);
        assert_eq!(reading.evidence.peer, Some(server.address.to_string()));
        dialled.ip = Family::V6;
        assert!(dial(&dialled, &mut reading).await.is_err());
    }

    #[tokio::test]
    async fn a_redirect_does_not_reach_link_local_and_metadata_addresses() {
        for host in [
            "169.254.169.254",
            "fe80::1",
            "fd00:ec2::254",
            "::ffff:169.254.1.1",
            "64:ff9b::a9fe:a9fe",
        ] {
            let dialled = Dial {
                host: host.to_owned(),
                port: 80,
                guard: Guard::NotLinkLocal,
                ..Dial::default()
            };
            let failure = dial(&dialled, &mut reading()).await.unwrap_err();
            assert_eq!(failure.error_type, ErrorType::RedirectForbidden, "{host}");
        }
        let local = vec!["169.254.1.1".parse().unwrap()];
        assert!(Guard::NotLinkLocal.check("x", Some(&local)).is_err());
        assert!(Guard::NotLinkLocal.check("169.254.1.1", None).is_err());
        assert_eq!(Guard::NotLinkLocal.check("10.0.0.1", None), Ok(()));
        assert_eq!(Guard::None.check("169.254.1.1", Some(&local)), Ok(()));
    }

    #[test]
    fn a_family_is_written_any_4_or_6() {
        #[derive(Deserialize)]
        struct Table {
            ip: Vec<Family>,
        }
        let table: Table = toml::from_str("ip = ['any', '4', '6']").unwrap();
        assert_eq!(table.ip, [Family::Any, Family::V4, Family::V6]);
    }
}

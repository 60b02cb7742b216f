//! TCP connections: the families race, the first to connect wins (happy eyeballs, RFC 8305).

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use rustix::io::Errno;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::failure::{ErrorType, Failure};

/// How long an attempt is left alone before the next address is tried beside it.
const STAGGER: Duration = Duration::from_millis(250);
/// How many addresses are tried at most.
const MAX_ATTEMPTS: usize = 16;
/// Of several addresses' failures one is told: a host that answered says more than one that is not there.
const MOST_TELLING_FIRST: &[ErrorType] = &[
    ErrorType::AgentNoFiles,
    ErrorType::ConnectRefused,
    ErrorType::ConnectReset,
    ErrorType::ConnectTimeout,
    ErrorType::AgentOverloaded,
    ErrorType::AgentNoNetwork,
    ErrorType::ConnectUnreachable,
];

/// A connection, and the address that took it: a peer that is gone again cannot be asked for it any more.
type Connected = (TcpStream, SocketAddr);

/// Connects to one of the addresses; the losers are closed.
pub(super) async fn connect(addresses: &[SocketAddr]) -> Result<Connected, Failure> {
    let mut waiting = in_turn(addresses).into_iter().take(MAX_ATTEMPTS);
    let mut attempts = FuturesUnordered::new();
    let mut failures = Vec::new();
    loop {
        match waiting.next() {
            Some(address) => attempts.push(attempt(address)),
            None if attempts.is_empty() => return Err(most_telling(failures)),
            None => {}
        }
        let done = if waiting.len() == 0 {
            attempts.next().await
        } else {
            timeout(STAGGER, attempts.next()).await.ok().flatten()
        };
        match done {
            Some(Ok(connected)) => return Ok(connected),
            Some(Err(failure)) => failures.push(failure),
            None => {}
        }
    }
}

/// IPv6 first, then the families in turn, each in the order in which the resolver gave them.
fn in_turn(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let (six, four): (Vec<SocketAddr>, Vec<_>) =
        addresses.iter().partition(|address| address.is_ipv6());
    let (mut six, mut four) = (six.into_iter(), four.into_iter());
    let mut order = Vec::with_capacity(addresses.len());
    while order.len() < addresses.len() {
        order.extend(six.next());
        order.extend(four.next());
    }
    order
}

async fn attempt(address: SocketAddr) -> Result<Connected, Failure> {
    let stream = TcpStream::connect(address).await.map_err(|error| refused(address, &error))?;
    // Requests are written whole: waiting for more to send would only bend what is measured.
    stream.set_nodelay(true).map_err(|error| refused(address, &error))?;
    Ok((stream, address))
}

fn refused(address: SocketAddr, error: &io::Error) -> Failure {
    let errno = Errno::from_io_error(error);
    let error_type = named(errno, address, has_route);
    let message = match errno {
        Some(Errno::CONNREFUSED) => format!("nothing listens on {address} (connection refused)"),
        Some(Errno::MFILE | Errno::NFILE) => format!("no socket to reach {address} with: {error}"),
        Some(Errno::ADDRNOTAVAIL) if address.is_ipv4() => {
            format!("no local port is left to reach {address} from: {error}")
        }
        _ if error_type == ErrorType::AgentNoNetwork => {
            format!("this host has no route to the world, and none to {address}: {error}")
        }
        _ => format!("cannot connect to {address}: {error}"),
    };
    Failure::new(error_type, message)
}

fn named(errno: Option<Errno>, address: SocketAddr, has_route: fn() -> bool) -> ErrorType {
    match errno {
        Some(Errno::CONNREFUSED) => ErrorType::ConnectRefused,
        Some(Errno::CONNRESET | Errno::CONNABORTED | Errno::PIPE) => ErrorType::ConnectReset,
        Some(Errno::TIMEDOUT) => ErrorType::ConnectTimeout,
        Some(Errno::MFILE | Errno::NFILE) => ErrorType::AgentNoFiles,
        // Where IPv6 is off there is no address to come from; for IPv4 it means that the ports are used up.
        Some(Errno::ADDRNOTAVAIL) if address.is_ipv4() => ErrorType::AgentOverloaded,
        Some(Errno::NETUNREACH | Errno::NETDOWN | Errno::ADDRNOTAVAIL) if !has_route() => {
            ErrorType::AgentNoNetwork
        }
        _ => ErrorType::ConnectUnreachable,
    }
}

/// Whether this host has a route to the world, by either family: the control check that tells a host without a network
/// from a target that is out of reach. To connect a UDP socket looks up a route and sends nothing; the addresses are
/// those kept for documentation, which only a default route leads to.
fn has_route() -> bool {
    const FOUR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
    const SIX: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
    let four = leads_to((Ipv4Addr::UNSPECIFIED, 0).into(), (FOUR, 9).into());
    four || leads_to((Ipv6Addr::UNSPECIFIED, 0).into(), (SIX, 9).into())
}

fn leads_to(from: SocketAddr, to: SocketAddr) -> bool {
    UdpSocket::bind(from).and_then(|socket| socket.connect(to)).is_ok()
}

fn most_telling(failures: Vec<Failure>) -> Failure {
    let count = failures.len();
    let weight = |failure: &Failure| {
        MOST_TELLING_FIRST.iter().position(|error_type| *error_type == failure.error_type)
    };
    let Some(failure) =
        failures.into_iter().min_by_key(|failure| weight(failure).unwrap_or(usize::MAX))
    else {
        return Failure::new(ErrorType::DnsNoRecords, "there is no address to connect to");
    };
    if count == 1 {
        return failure;
    }
    let message = format!("{}; none of {count} addresses took the connection", failure.message);
    Failure { message, ..failure }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;
    use crate::dial::testing::closed_port;

    #[test]
    fn families_take_turns_and_ipv6_begins() {
        let addresses: Vec<SocketAddr> = ["10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1", "[::1]:1"]
            .map(|a| a.parse().unwrap())
            .into();
        let order: Vec<_> = in_turn(&addresses).iter().map(ToString::to_string).collect();
        assert_eq!(order, ["[::1]:1", "10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1"]);
    }

    #[tokio::test]
    async fn an_address_that_refuses_does_not_stand_in_the_way_of_the_next() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addresses = [closed_port(), listener.local_addr().unwrap()];
        let (_, peer) = connect(&addresses).await.unwrap();
        assert_eq!(peer, addresses[1]);
    }

    #[tokio::test]
    async fn a_closed_port_is_refused_and_named() {
        let address = closed_port();
        let failure = connect(&[address]).await.unwrap_err();
        assert_eq!(failure.error_type, ErrorType::ConnectRefused);
        assert!(failure.message.contains(&address.to_string()), "{}", failure.message);
    }

    #[test]
    fn a_host_without_a_route_accuses_itself_and_no_target() {
        let address = "192.0.2.1:80".parse().unwrap();
        let unreachable = |has_route| named(Some(Errno::NETUNREACH), address, has_route);
        assert_eq!(unreachable(|| false), ErrorType::AgentNoNetwork);
        assert_eq!(unreachable(|| true), ErrorType::ConnectUnreachable);
        // A router that knows no way has been reached.
        assert_eq!(
            named(Some(Errno::HOSTUNREACH), address, || false),
            ErrorType::ConnectUnreachable
        );
    }

    #[test]
    fn the_control_check_tells_a_way_from_none() {
        let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        assert!(leads_to(any, closed_port()));
        assert!(!leads_to(any, "[::1]:9".parse().unwrap()));
    }
}

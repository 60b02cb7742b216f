//! Servers on the loopback for tests, most of which misbehave.

use std::net::SocketAddr;

/// A port that nobody listens on. Another process could take it, but not within a test's time: ports are given out in turn.
pub(crate) fn closed_port() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

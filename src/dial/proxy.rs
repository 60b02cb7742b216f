//! A proxy on the way: asked for a tunnel to what speaks TLS.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use url::{Host, Url};

use super::fault::failure_of_io;
use crate::failure::{Blame, ErrorType, Failure};
use crate::phase::Phase;
use crate::secret::Secret;

/// How long a proxy's answer may be.
const MAX_HEAD: usize = 16 * 1024;
/// How much of a status line a message quotes.
const QUOTED: usize = 80;

/// A proxy on the way: `http://user:password@host:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    /// Its host; IP addresses without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The value of `proxy-authorization`, when the URL has a user.
    pub authorization: Option<Secret>,
}

impl Proxy {
    /// Reads a proxy's URL; the message of a mistake says what to write, without the password.
    pub fn parse(text: &str) -> Result<Self, String> {
        const WANTED: &str = "write http://host:port, or http://user:password@host:port";
        let url =
            Url::parse(text).map_err(|error| format!("the proxy is no URL ({error}): {WANTED}"))?;
        if url.scheme() != "http" {
            return Err(format!("a proxy is spoken to by http, not {}: {WANTED}", url.scheme()));
        }
        let beyond = !matches!(url.path(), "" | "/") || url.query().is_some();
        let host = match url.host() {
            Some(host) if !beyond => plain_host(&host),
            Some(_) => return Err(format!("a proxy has no path: {WANTED}")),
            None => return Err(format!("the proxy has no host: {WANTED}")),
        };
        let port = url.port_or_known_default().unwrap_or(80);
        Ok(Self { host, port, authorization: authorization_of(&url) })
    }

    /// Asks for a tunnel to the target.
    pub(super) async fn tunnel(
        &self,
        stream: &mut TcpStream,
        host: &str,
        port: u16,
    ) -> Result<(), Failure> {
        let broke = |error| {
            let failure = failure_of_io(&error, Phase::Proxy, 0).blamed(Blame::Path);
            let message = format!("the proxy {} broke off: {}", self.address(), failure.message);
            Failure { message, ..failure }
        };
        stream.write_all(self.request(host, port).as_bytes()).await.map_err(broke)?;
        let mut answer = Vec::new();
        loop {
            let seen = answer.len();
            if seen >= MAX_HEAD {
                return Err(self.refused("sends no end of its answer"));
            }
            if stream.read_buf(&mut answer).await.map_err(broke)? == 0 {
                return Err(self.refused("closed the connection without an answer"));
            }
            if let Some(end) = end_of_head(&answer, seen) {
                let (head, rest) = answer.split_at(end);
                return self.judge(head, rest);
            }
        }
    }

    fn request(&self, host: &str, port: u16) -> String {
        let target = authority(host, port);
        let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n");
        if let Some(authorization) = &self.authorization {
            request.push_str("Proxy-Authorization: ");
            request.push_str(authorization.expose());
            request.push_str("\r\n");
        }
        request.push_str("\r\n");
        request
    }

    fn judge(&self, head: &[u8], rest: &[u8]) -> Result<(), Failure> {
        let text = String::from_utf8_lossy(head);
        let line = text.lines().next().unwrap_or_default();
        let mut words = line.split(' ');
        let version = words.next().unwrap_or_default();
        let status = words.next().filter(|status| status.len() == 3).map(str::parse::<u16>);
        match status {
            Some(Ok(200..=299)) if version.starts_with("HTTP/1.") => {
                // The tunnel's first byte is ours.
                if rest.is_empty() { Ok(()) } else { Err(self.refused("speaks inside the tunnel")) }
            }
            Some(Ok(407)) => {
                let what = format!("wants a user and a password: {}", quoted(line));
                Err(self.refused(&what).blamed(Blame::Config))
            }
            Some(Ok(_)) if version.starts_with("HTTP/1.") => {
                Err(self.refused(&format!("refused the tunnel: {}", quoted(line))))
            }
            _ => Err(self.refused(&format!("answered with what is no HTTP: {}", quoted(line)))),
        }
    }

    fn refused(&self, what: &str) -> Failure {
        let message = format!("the proxy {} {what}", self.address());
        Failure::new(ErrorType::ConnectRefused, message).blamed(Blame::Path)
    }

    fn address(&self) -> String {
        authority(&self.host, self.port)
    }
}

/// Where the head ends; what was `seen` before holds no end of its own.
fn end_of_head(answer: &[u8], seen: usize) -> Option<usize> {
    const END: &[u8] = b"\r\n\r\n";
    let from = seen.saturating_sub(END.len() - 1);
    let at = answer.get(from..)?.windows(END.len()).position(|four| four == END)?;
    Some(from + at + END.len())
}

fn plain_host(host: &Host<&str>) -> String {
    match host {
        Host::Domain(name) => (*name).to_owned(),
        Host::Ipv4(address) => address.to_string(),
        Host::Ipv6(address) => address.to_string(),
    }
}

fn authorization_of(url: &Url) -> Option<Secret> {
    if url.username().is_empty() && url.password().is_none() {
        return None;
    }
    let mut pair = unescaped(url.username());
    pair.push(b':');
    pair.extend(unescaped(url.password().unwrap_or_default()));
    Some(Secret::new(&format!("Basic {}", STANDARD.encode(pair))))
}

/// `%40` in a URL's user or password is `@`.
fn unescaped(text: &str) -> Vec<u8> {
    let mut bytes = text.as_bytes().iter();
    let mut plain = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        let code = bytes.as_slice().get(..2).filter(|_| *byte == b'%');
        let code = code.and_then(|code| std::str::from_utf8(code).ok());
        match code.and_then(|code| u8::from_str_radix(code, 16).ok()) {
            Some(escaped) => {
                plain.push(escaped);
                bytes.nth(1);
            }
            None => plain.push(*byte),
        }
    }
    plain
}

fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn quoted(line: &str) -> String {
    format!("{:?}", line.chars().take(QUOTED).collect::<String>())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tokio::io::copy_bidirectional;

    use super::*;
    use crate::dial::testing::{
        Authority, Served, closed_port, reading, serve, serve_bytes, serve_tls,
    };
    use crate::dial::{Dial, Tls, TlsSettings, dial};

    async fn serve_tunnels(to: std::net::SocketAddr) -> Served {
        serve(move |mut stream| async move {
            let mut head = Vec::new();
            while end_of_head(&head, 0).is_none() {
                assert!(stream.read_buf(&mut head).await.unwrap() > 0);
            }
            let head = String::from_utf8(head).unwrap();
            let wanted = "CONNECT api.test:443 HTTP/1.1\r\nHost: api.test:443\r\nProxy-Authorization: Basic bWU6cHc=\r\n\r\n";
            let answer = if head == wanted { "HTTP/1.1 200 Fine\r\nX: y\r\n\r\n" } else { "HTTP/1.1 400 No\r\n\r\n" };
            stream.write_all(answer.as_bytes()).await.unwrap();
            let mut target = TcpStream::connect(to).await.unwrap();
            // Either side may break off: that is the test's matter.
            drop(copy_bidirectional(&mut stream, &mut target).await);
        })
        .await
    }

    fn through(proxy: &str, tls: Option<&TlsSettings>) -> Dial {
        Dial {
            host: "api.test".to_owned(),
            port: 443,
            proxy: Some(Proxy::parse(proxy).unwrap()),
            tls: tls.map(|tls| Tls::build(tls, &[], "api.test", Path::new("/")).unwrap()),
            ..Dial::default()
        }
    }

    #[tokio::test]
    async fn tls_goes_through_a_tunnel_and_the_proxy_is_a_phase() {
        let authority = Authority::new("behind a proxy");
        let target = serve_tls(authority.issue(&["api.test"]).server()).await;
        let proxy = serve_tunnels(target.address).await;
        let settings = toml::from_str(&format!("ca = '''{}'''", authority.pem)).unwrap();
        let mut reading = reading();
        let dialled = through(&format!("http://me:pw@{}", proxy.address), Some(&settings));
        let connection = dial(&dialled, &mut reading).await.unwrap();
        assert!(!connection.through_proxy);
        let phases: Vec<_> = reading.timeline.past().iter().map(|timed| timed.phase).collect();
        assert_eq!(phases, [Phase::Connect, Phase::Proxy, Phase::Tls]);
    }

    #[tokio::test]
    async fn without_tls_the_request_itself_goes_to_the_proxy() {
        let proxy = serve_bytes(b"").await;
        let dialled = through(&format!("http://{}", proxy.address), None);
        let connection = dial(&dialled, &mut reading()).await.unwrap();
        assert!(connection.through_proxy);
    }

    #[tokio::test]
    async fn a_proxy_that_refuses_is_blamed_and_quoted() {
        let refuse = |head| async move {
            let proxy = serve_bytes(head).await;
            let settings = TlsSettings::default();
            let dialled = through(&format!("http://{}", proxy.address), Some(&settings));
            let mut reading = reading();
            let failure = dial(&dialled, &mut reading).await.unwrap_err();
            assert_eq!(reading.timeline.past().last().unwrap().phase, Phase::Proxy);
            assert_eq!(failure.error_type, ErrorType::ConnectRefused);
            failure
        };
        let failure = refuse(b"HTTP/1.1 403 Not you\r\ncontent-length: 4\r\n\r\nbody").await;
        assert_eq!(failure.blame, Blame::Path);
        assert!(failure.message.contains("403 Not you"), "{}", failure.message);
        let failure = refuse(b"HTTP/1.1 407 Who\r\n\r\n").await;
        assert_eq!(failure.blame, Blame::Config);
        assert!(refuse(b"SSH-2.0-x\r\n\r\n").await.message.contains("no HTTP"));
        assert!(refuse(b"").await.message.contains("without an answer"));
        let endless: &'static [u8] = vec![b'x'; 2 * MAX_HEAD].leak();
        assert!(refuse(endless).await.message.contains("no end"));
    }

    #[tokio::test]
    async fn a_proxy_that_is_not_there_is_not_the_targets_doing() {
        let dialled = through(&format!("http://{}", closed_port()), None);
        let failure = dial(&dialled, &mut reading()).await.unwrap_err();
        assert_eq!(failure.error_type, ErrorType::ConnectRefused);
        assert_eq!(failure.blame, Blame::Path);
    }

    #[test]
    fn a_proxy_url_gives_host_port_and_a_hidden_authorization() {
        let proxy = Proxy::parse("http://me:p%40ss@[::1]:3128").unwrap();
        assert_eq!((proxy.host.as_str(), proxy.port), ("::1", 3128));
        let expected = format!("Basic {}", STANDARD.encode("me:p@ss"));
        assert_eq!(proxy.authorization.as_ref().unwrap().expose(), expected);
        assert!(!format!("{proxy:?}").contains(&expected));
        assert_eq!(Proxy::parse("http://proxy.test").unwrap().port, 80);
    }

    #[test]
    fn what_is_no_http_proxy_is_refused_without_its_password() {
        for wrong in ["proxy:3128", "socks5://me:hush@proxy:1", "http://proxy/path", "::"] {
            let message = Proxy::parse(wrong).unwrap_err();
            assert!(message.contains("http://host:port") && !message.contains("hush"), "{message}");
        }
    }
}

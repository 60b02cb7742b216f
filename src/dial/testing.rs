//! Servers on the loopback for tests, most of which misbehave.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{RData, Record};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use crate::reading::Reading;

/// A reading in which nothing was seen yet.
pub(crate) fn reading() -> Reading {
    Reading::new("step/0/try/1".to_owned(), Instant::now())
}

/// A port that nobody listens on. Ports are given out in turn, so that no other test gets it soon.
pub(crate) fn closed_port() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

/// A server that ends, with all its connections, when this is dropped.
#[derive(Debug)]
pub(crate) struct Served {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Served {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// Treats every connection in this way.
pub(crate) async fn serve<F, R>(treat: F) -> Served
where
    F: Fn(TcpStream) -> R + Send + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    Served { address, tasks: vec![tokio::spawn(accept(listener, treat))] }
}

async fn accept<F, R>(listener: TcpListener, treat: F)
where
    F: Fn(TcpStream) -> R,
    R: Future<Output = ()> + Send + 'static,
{
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(treat(stream));
    }
}

/// Answers the first bytes with these and closes.
pub(crate) async fn serve_bytes(answer: &'static [u8]) -> Served {
    serve(move |mut stream| async move {
        let mut question = [0; 4096];
        if stream.read(&mut question).await.is_err() || stream.write_all(answer).await.is_err() {
            return;
        }
        // Closing with bytes unread would be a reset, which could overtake the answer.
        if stream.shutdown().await.is_ok() {
            while let Ok(1..) = stream.read(&mut question).await {}
        }
    })
    .await
}

/// Shakes hands and then echoes what comes.
pub(crate) async fn serve_tls(config: ServerConfig) -> Served {
    let acceptor = TlsAcceptor::from(Arc::new(config));
    serve(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            let mut bytes = [0; 1024];
            while let Ok(length @ 1..) = stream.read(&mut bytes).await {
                if stream.write_all(&bytes[..length]).await.is_err() {
                    return;
                }
            }
        }
    })
    .await
}

/// A certificate, its chain, and its key.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
    /// The chain and the key, in one PEM.
    pub(crate) pem: String,
}

impl Identity {
    /// From PEM: a chain, and a key.
    pub(crate) fn from_pem(chain: &str, key: &str) -> Self {
        let certificates = CertificateDer::pem_slice_iter(chain.as_bytes());
        Self {
            chain: certificates.collect::<Result<_, _>>().unwrap(),
            key: PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
            pem: format!("{chain}{key}"),
        }
    }

    /// A server that shows it.
    pub(crate) fn server(self) -> ServerConfig {
        ServerConfig::builder_with_provider(super::verify::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(self.chain, self.key)
            .unwrap()
    }
}

/// An authority of a test's own.
#[derive(Debug)]
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its certificate.
    pub(crate) pem: String,
}

impl Authority {
    /// Each wants a name of its own: authorities are told apart by it.
    pub(crate) fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// A certificate for these names.
    pub(crate) fn issue(&self, names: &[&str]) -> Identity {
        self.issue_with(names, |_| ())
    }

    /// A certificate for these names, changed before it is signed.
    pub(crate) fn issue_with(
        &self,
        names: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> Identity {
        let names: Vec<_> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, "leaf of a test");
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let pem = params.signed_by(&key, &self.issuer).unwrap().pem();
        Identity::from_pem(&pem, &key.serialize_pem())
    }
}

/// How a DNS question came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Udp,
    Tcp,
}

/// A DNS server that answers questions with these bytes, or not at all.
pub(crate) async fn serve_dns<F>(answer: F) -> Served
where
    F: Fn(&Message, Transport) -> Option<Vec<u8>> + Send + Sync + 'static,
{
    let (udp, tcp) = one_port().await;
    let address = udp.local_addr().unwrap();
    let answer = Arc::new(answer);
    let over_udp = Arc::clone(&answer);
    let datagrams = tokio::spawn(async move {
        let mut question = [0; 512];
        while let Ok((length, from)) = udp.recv_from(&mut question).await {
            let question = Message::from_vec(&question[..length]).unwrap();
            if let Some(bytes) = over_udp(&question, Transport::Udp) {
                udp.send_to(&bytes, from).await.unwrap();
            }
        }
    });
    let connections = tokio::spawn(accept(tcp, move |mut stream| {
        let answer = Arc::clone(&answer);
        async move {
            let mut question = vec![0; usize::from(stream.read_u16().await.unwrap())];
            stream.read_exact(&mut question).await.unwrap();
            let question = Message::from_vec(&question).unwrap();
            if let Some(bytes) = answer(&question, Transport::Tcp) {
                stream.write_u16(u16::try_from(bytes.len()).unwrap()).await.unwrap();
                stream.write_all(&bytes).await.unwrap();
            }
        }
    }));
    Served { address, tasks: vec![datagrams, connections] }
}

/// The same port number for both transports; another try where somebody has one of them.
async fn one_port() -> (UdpSocket, TcpListener) {
    loop {
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
            return (udp, tcp);
        }
    }
}

/// The answer to a question: a code, and those of the records that are of the type asked for, or aliases.
pub(crate) fn dns_answer(
    question: &Message,
    code: ResponseCode,
    records: &[(&str, RData)],
) -> Message {
    let asked = question.queries[0].query_type();
    let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
    answer.metadata.response_code = code;
    answer.add_query(question.queries[0].clone());
    for (name, data) in records {
        if data.record_type() == asked || matches!(data, RData::CNAME(_)) {
            let name = format!("{name}.").parse().unwrap();
            answer.add_answer(Record::from_rdata(name, 60, data.clone()));
        }
    }
    answer
}

/// The data of an A record.
pub(crate) fn a(address: &str) -> RData {
    RData::A(address.parse::<std::net::Ipv4Addr>().unwrap().into())
}

/// The data of an AAAA record.
pub(crate) fn aaaa(address: &str) -> RData {
    RData::AAAA(address.parse::<std::net::Ipv6Addr>().unwrap().into())
}

/// The data of an alias.
pub(crate) fn cname(name: &str) -> RData {
    RData::CNAME(hickory_proto::rr::rdata::CNAME(format!("{name}.").parse().unwrap()))
}

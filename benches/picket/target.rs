//! What is probed: an HTTP and an HTTPS server that hold as long as the path says, one that holds exactly, and
//! a receiver of exports.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::error::Error;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener as BlockingListener};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use std::{env, fs, io, thread};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};
use tokio_rustls::TlsAcceptor;

use crate::process::{Core, Process, stay_on};

/// How long the exact server holds a request.
pub(crate) const EXACTLY: Duration = Duration::from_millis(100);
/// How many requests it can hold at once.
const HOLDERS: usize = 300;

/// The servers, from outside.
#[derive(Debug)]
pub(crate) struct Target {
    _process: Process,
    pub(crate) plain: SocketAddr,
    pub(crate) tls: SocketAddr,
    pub(crate) exact: SocketAddr,
    pub(crate) sink: SocketAddr,
}

impl Target {
    /// Starts the servers in a process of their own; their root goes to `ca.pem` in the folder.
    pub(crate) fn start(folder: &Path) -> Result<Self, Box<dyn Error>> {
        let mut command = Command::new(env::current_exe()?);
        command.arg("serve").arg(folder.join("ca.pem")).stdout(Stdio::piped());
        let mut process = Process::start(Core::Rest, &mut command)?;
        let line = process.first_line()?;
        let addresses = line.split(' ').map(str::parse).collect::<Result<Vec<SocketAddr>, _>>()?;
        let [plain, tls, exact, sink] = addresses[..] else { return Err(line.into()) };
        Ok(Self { _process: process, plain, tls, exact, sink })
    }
}

impl Target {
    /// How many probes it has answered.
    pub(crate) async fn served(&self) -> Result<u32, Box<dyn Error>> {
        Ok(self.get("/served").await?.parse()?)
    }

    /// What the exact server held, in seconds, by trace id or path.
    pub(crate) async fn held(&self) -> Result<BTreeMap<String, f64>, Box<dyn Error>> {
        Ok(serde_json::from_str(&self.get("/held").await?)?)
    }

    async fn get(&self, path: &str) -> Result<String, Box<dyn Error>> {
        let mut stream = TcpStream::connect(self.plain).await?;
        stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        let (_, body) = answer.split_once("\r\n\r\n").ok_or("no answer")?;
        Ok(body.to_owned())
    }
}

/// The servers, from inside: until the other end of stdin closes.
pub(crate) fn serve(ca: &str) -> Result<(), Box<dyn Error>> {
    stay_on(Core::Rest)?;
    let held = Arc::new(Mutex::new(BTreeMap::new()));
    let exact = hold_exactly(&held)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Whoever started this holds the other end, however it ends.
    let (end, ended) = oneshot::channel::<()>();
    thread::spawn(move || {
        let closed = io::stdin().read_to_end(&mut Vec::new());
        drop((closed, end));
    });
    runtime.block_on(async {
        let tls = tls(ca)?;
        let plain_listener = TcpListener::bind("127.0.0.1:0").await?;
        let tls_listener = TcpListener::bind("127.0.0.1:0").await?;
        let sink_listener = TcpListener::bind("127.0.0.1:0").await?;
        let (plain, secure) = (plain_listener.local_addr()?, tls_listener.local_addr()?);
        println!("{plain} {secure} {exact} {}", sink_listener.local_addr()?);

        tokio::spawn(async move {
            while let Ok((stream, _)) = sink_listener.accept().await {
                tokio::spawn(take_exports(stream));
            }
        });
        tokio::spawn(async move {
            while let Ok((stream, _)) = tls_listener.accept().await {
                let accepting = tls.accept(stream);
                tokio::spawn(async move {
                    if let Ok(stream) = accepting.await {
                        answer(stream, Arc::default()).await;
                    }
                });
            }
        });
        tokio::spawn(async move {
            while let Ok((stream, _)) = plain_listener.accept().await {
                tokio::spawn(answer(stream, Arc::clone(&held)));
            }
        });
        drop(ended.await);
        Ok(())
    })
}

/// How many probes the plain and the TLS server have answered: counting here costs the subject nothing.
static SERVED: AtomicU64 = AtomicU64::new(0);

/// What the exact server held, in seconds, by trace id or path.
type Held = Arc<Mutex<BTreeMap<String, f64>>>;

/// Answers one connection: `/hold/31` after 31 ms; `/held` tells what the exact server did.
async fn answer(stream: impl AsyncRead + AsyncWrite + Unpin + 'static, held: Held) {
    let service = service_fn(move |request: Request<Incoming>| {
        let held = Arc::clone(&held);
        async move {
            let path = request.uri().path();
            if path == "/held" {
                let told = held.lock().map(|held| serde_json::json!(*held).to_string());
                return Ok::<Response<Full<Bytes>>, Infallible>(Response::new(Full::from(
                    told.unwrap_or_default(),
                )));
            }
            if path == "/served" {
                let served = SERVED.load(Ordering::Relaxed).to_string();
                return Ok(Response::new(Full::from(served)));
            }
            SERVED.fetch_add(1, Ordering::Relaxed);
            let millis: Option<u64> =
                path.strip_prefix("/hold/").and_then(|text| text.parse().ok());
            if let Some(millis @ 1..) = millis {
                sleep(Duration::from_millis(millis)).await;
            }
            Ok(Response::new(Full::from(Bytes::from_static(&[b'x'; 200]))))
        }
    });
    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    // Whoever asked may hang up: that is their business.
    drop(connection.await);
}

/// Takes whatever is exported.
async fn take_exports(stream: TcpStream) {
    let service = service_fn(|request: Request<Incoming>| async {
        drop(request.into_body().collect().await);
        let answer = Response::builder().header("content-type", "application/x-protobuf");
        answer.body(Full::<Bytes>::default())
    });
    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    drop(connection.await);
}

/// TLS 1.3 with a P-256 chain and no resumption, so that every handshake is a full one.
fn tls(ca: &str) -> Result<TlsAcceptor, Box<dyn Error>> {
    let mut root = CertificateParams::default();
    root.distinguished_name.push(DnType::CommonName, "bench CA");
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = CertifiedIssuer::self_signed(root, KeyPair::generate()?)?;
    fs::write(ca, root.pem())?;
    let key = KeyPair::generate()?;
    let leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()])?.signed_by(&key, &root)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(
            vec![leaf.der().clone()],
            PrivateKeyDer::try_from(key.serialize_der())?,
        )?;
    config.send_tls13_tickets = 0;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Threads of the system, each of which holds one request at a time: no runtime's timer stands between.
fn hold_exactly(held: &Held) -> io::Result<SocketAddr> {
    let listener = BlockingListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    for _ in 0..HOLDERS {
        let (listener, held) = (listener.try_clone()?, Arc::clone(held));
        thread::Builder::new().stack_size(64 << 10).spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let accepted = Instant::now();
                let Some(who) = hold_one(stream, accepted) else { continue };
                if let Ok(mut held) = held.lock() {
                    held.insert(who, accepted.elapsed().as_secs_f64());
                }
            }
        })?;
    }
    Ok(address)
}

/// Reads a request, holds it, answers it; tells whose it was.
fn hold_one(mut stream: std::net::TcpStream, accepted: Instant) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut part = [0; 2048];
        let read = stream.read(&mut part).ok().filter(|read| *read > 0)?;
        head.extend_from_slice(&part[..read]);
    }
    let text = String::from_utf8(head).ok()?;
    let trace = text.lines().find_map(|line| line.strip_prefix("traceparent: 00-"));
    let who = trace.and_then(|trace| trace.get(..32)).or_else(|| text.split(' ').nth(1));
    thread::sleep(EXACTLY.saturating_sub(accepted.elapsed()));
    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";
    stream.write_all(answer).ok()?;
    who.map(str::to_owned)
}

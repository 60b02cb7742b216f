//! The floor: a loop of hyper and rustls that does what a probe must do on the wire, and nothing else.

use std::error::Error;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use std::{env, fs};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::load::{Load, cost_of_each};
use crate::process::{Core, Process};
use crate::target::Target;

/// The CPU of one request of the bare loop.
pub(crate) async fn cost(
    load: &Load,
    target: &Target,
    ca: &Path,
) -> Result<Duration, Box<dyn Error>> {
    let mut command = Command::new(env::current_exe()?);
    command.arg("bare").arg(load.address.to_string()).arg(load.in_flight.to_string());
    command.arg(load.hold.as_millis().to_string());
    if load.tls {
        command.arg(ca);
    }
    let process = Process::start(Core::Subject, &mut command)?;
    cost_of_each(&process, target).await
}

/// The loop itself: so many at once, each at its turns, until it is stopped.
pub(crate) fn run(arguments: &[String]) -> Result<(), Box<dyn Error>> {
    let [address, in_flight, hold, ca @ ..] = arguments else { return Err("too few".into()) };
    let tls = ca.first().map(connector).transpose()?;
    let load = Load {
        tls: tls.is_some(),
        in_flight: in_flight.parse()?,
        hold: Duration::from_millis(hold.parse()?),
        address: address.parse()?,
    };
    let path: Arc<str> = Arc::from(format!("/hold/{hold}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        for driver in 0..load.in_flight {
            let (path, tls, address) = (Arc::clone(&path), tls.clone(), load.address);
            let mut turns = load.turns(driver);
            tokio::spawn(async move {
                loop {
                    turns.tick().await;
                    if probe(address, &path, tls.as_ref()).await.is_err() {
                        return;
                    }
                }
            });
        }
        std::future::pending::<()>().await;
        Ok(())
    })
}

fn connector(ca: &String) -> Result<TlsConnector, Box<dyn Error>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&fs::read(ca)?)?)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

async fn probe(
    address: SocketAddr,
    path: &str,
    tls: Option<&TlsConnector>,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    match tls {
        None => ask(stream, address, path).await,
        Some(tls) => {
            let name = ServerName::IpAddress(address.ip().into());
            ask(tls.connect(name, stream).await?, address, path).await
        }
    }
}

async fn ask(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    address: SocketAddr,
    path: &str,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let asking = async {
        let request = Request::get(path).header("host", address.to_string());
        let answer = sender.send_request(request.body(Empty::<Bytes>::new())?).await?;
        if answer.status() != 200 {
            return Err(answer.status().to_string().into());
        }
        answer.into_body().collect().await?;
        drop(sender);
        Ok(())
    };
    let (asked, connected) = tokio::join!(asking, connection);
    connected?;
    asked
}

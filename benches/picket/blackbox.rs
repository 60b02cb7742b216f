//! The peer: prometheus-blackbox-exporter, where it is installed, driven at the same rates.

use std::error::Error;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::load::{Load, cost_of_each};
use crate::process::{Core, Process};
use crate::target::Target;

/// The exporter, running.
#[derive(Debug)]
pub(crate) struct Blackbox {
    process: Process,
    address: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Blackbox {
    /// Starts it; none where it is not installed.
    pub(crate) async fn start(ca: &Path) -> Result<Option<Self>, Box<dyn Error>> {
        let folder = tempfile::tempdir()?;
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let file = folder.path().join("blackbox.yml");
        let text = format!(
            "modules:\n  http:\n    prober: http\n    timeout: 5s\n    http:\n      \
             preferred_ip_protocol: ip4\n      enable_http2: false\n      \
             tls_config: {{ ca_file: {} }}\n",
            ca.display()
        );
        fs::write(&file, text)?;
        let mut command = Command::new("prometheus-blackbox-exporter");
        command.arg(format!("--config.file={}", file.display()));
        command.arg(format!("--web.listen-address={address}"));
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let Ok(process) = Process::start(Core::Subject, &mut command) else { return Ok(None) };
        for _ in 0..500 {
            if TcpStream::connect(address).await.is_ok() {
                return Ok(Some(Self { process, address, _folder: folder }));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Err("the exporter does not listen".into())
    }

    /// The CPU of one probe.
    pub(crate) async fn cost(
        &self,
        load: &Load,
        target: &Target,
    ) -> Result<Duration, Box<dyn Error>> {
        let mut drivers = JoinSet::new();
        for driver in 0..load.in_flight {
            let mut exporter = self.connect().await?;
            let (url, mut turns) = (load.url(), load.turns(driver));
            drivers.spawn(async move {
                loop {
                    turns.tick().await;
                    if !probe(&mut exporter, &url).await.is_some_and(|said| said.success) {
                        return;
                    }
                }
            });
        }
        cost_of_each(&self.process, target).await
    }

    /// What it measured for each of these, asked for together.
    pub(crate) async fn durations(
        &self,
        urls: Vec<String>,
    ) -> Result<Vec<(String, f64)>, Box<dyn Error>> {
        let mut asking = JoinSet::new();
        for url in urls {
            let mut exporter = self.connect().await?;
            asking.spawn(async move { (probe(&mut exporter, &url).await, url) });
        }
        let all = asking.join_all().await.into_iter();
        Ok(all.filter_map(|(said, url)| Some((url, said?.seconds))).collect())
    }

    async fn connect(&self) -> Result<SendRequest<Empty<&'static [u8]>>, Box<dyn Error>> {
        let stream = TcpStream::connect(self.address).await?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(sender)
    }
}

struct Said {
    success: bool,
    seconds: f64,
}

async fn probe(exporter: &mut SendRequest<Empty<&'static [u8]>>, url: &str) -> Option<Said> {
    let request = http::Request::get(format!("/probe?module=http&target={url}"));
    let request = request.header("host", "exporter").body(Empty::new()).ok()?;
    let answer = exporter.send_request(request).await.ok()?;
    let body = answer.into_body().collect().await.ok()?.to_bytes();
    let metric = |name| {
        let mut lines = std::str::from_utf8(&body).unwrap_or_default().lines();
        lines.find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
    };
    let success: f64 = metric("probe_success ")?;
    Some(Said { success: success > 0.5, seconds: metric("probe_duration_seconds ")? })
}

//! A real program that a test starts, waits for, and stops whatever happens.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

/// How long anything may take on a slow machine before the test gives up.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// A program that runs until this is dropped.
#[derive(Debug)]
pub(crate) struct Service(Child);

impl Service {
    /// Starts it; what it says on stdout goes nowhere.
    pub(crate) fn start(command: &mut Command) -> Self {
        Self::start_writing(command, Stdio::null())
    }

    /// Starts it; what it says on stdout goes there.
    pub(crate) fn start_writing(command: &mut Command, output: impl Into<Stdio>) -> Self {
        let started = command.stdin(Stdio::null()).stdout(output).spawn();
        Self(started.unwrap_or_else(|error| panic!("{command:?} does not start: {error}")))
    }

    /// Asks it to end, and waits for that.
    pub(crate) fn stop(&mut self) -> Option<i32> {
        if let Ok(None) = self.0.try_wait() {
            kill_process(Pid::from_child(&self.0), Signal::TERM).unwrap();
        }
        self.0.wait().unwrap().code()
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    /// Waits until it has ended by itself.
    pub(crate) fn wait(&mut self) -> Option<i32> {
        self.0.wait().unwrap().code()
    }

    /// Ends it as a crash would.
    pub(crate) fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// Waits until it takes connections.
    pub(crate) async fn listens(&mut self, address: SocketAddr) {
        let until = Instant::now() + PATIENCE;
        while TcpStream::connect(address).await.is_err() {
            let ended = self.0.try_wait().unwrap();
            assert!(ended.is_none(), "the service on {address} ended: {ended:?}");
            assert!(Instant::now() < until, "nothing listens on {address}");
            sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The agent on these probes, with its state in the folder.
pub(crate) fn run_picket(folder: &Path, listen: SocketAddr, more: &str, probes: &str) -> Service {
    let agent = format!(
        "[agent]\nregion = 'local'\nlisten = '{listen}'\nstate = '{}'\nprobes = ['probes.toml']\n{more}",
        folder.join("state").display()
    );
    fs::write(folder.join("picket.toml"), agent).unwrap();
    fs::write(folder.join("probes.toml"), probes).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_picket"));
    command.arg("run").arg("--config").arg(folder.join("picket.toml"));
    Service::start(command.env_remove("STATE_DIRECTORY"))
}

/// A target that answers every request.
pub(crate) async fn serve_hello() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            // The head of a probe's request is one segment; what it says does not matter here.
            if stream.read(&mut [0; 4096]).await.is_ok() {
                let answer =
                    b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello";
                stream.write_all(answer).await.ok();
            }
        }
    });
    address
}

/// A program's file: on the path, or where Debian keeps what only root has on it.
pub(crate) fn program(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    let mut files = folders.map(|folder| folder.join(name));
    files.find(|file| file.is_file()).unwrap_or_else(|| panic!("no {name}: run tests/install"))
}

/// An address of this machine that nothing listens on: never the same twice, and none that the system gives to
/// whoever connects.
pub(crate) fn free_address() -> SocketAddr {
    static TURN: AtomicU32 = AtomicU32::new(0);
    loop {
        let turn = std::process::id().wrapping_mul(37) + TURN.fetch_add(1, Ordering::Relaxed);
        let port = u16::try_from(10_000 + turn % 20_000).unwrap();
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            return listener.local_addr().unwrap();
        }
    }
}

/// The status and the body of a page.
pub(crate) async fn get(address: SocketAddr, path: &str) -> std::io::Result<(u16, String)> {
    let asked = async {
        let mut stream = TcpStream::connect(address).await?;
        let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = timeout(PATIENCE, asked).await.unwrap_or_else(|_| panic!("{path} hangs"))?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok((status.unwrap_or(0), body.to_owned()))
}

/// Asks for a page until its answer will do.
pub(crate) async fn until<T>(
    address: SocketAddr,
    path: &str,
    will_do: impl Fn(u16, &str) -> Option<T>,
) -> T {
    let deadline = Instant::now() + PATIENCE;
    let mut last = String::new();
    while Instant::now() < deadline {
        match get(address, path).await {
            Ok((status, body)) => match will_do(status, &body) {
                Some(found) => return found,
                None => last = format!("{status} {body}"),
            },
            Err(error) => last = error.to_string(),
        }
        sleep(Duration::from_millis(50)).await;
    }
    panic!("http://{address}{path} never came to it; last: {last}");
}

//! The product in one command: a target that misbehaves on a script, an agent on it, the page, and a table.

use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::run::{chain, setup};
use super::{AgentFile, BAD, Files, GOOD, load, refuse, runtime, table};
use crate::agent::Agent;
use crate::board::Board;
use crate::period::Period;
use crate::status;

mod script;
mod target;
mod view;

use script::SERVICES;
use view::{Change, Watch};

/// How often the terminal is drawn anew.
const GLANCE: Duration = Duration::from_millis(250);
/// Changes that stay in sight under the table.
const CHANGES: usize = 8;

/// Shows picket at work on a target that misbehaves; needs no network, no rights and no files.
#[derive(Debug, clap::Args)]
pub(super) struct Demo {
    /// Stop by itself after this long, such as 20s
    #[arg(long = "for", value_name = "TIME")]
    stop_after: Option<Period>,
    /// Where the status page listens; by default 127.0.0.1:9464, or a free port if that is taken
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
}

/// An agent that runs.
struct Started {
    board: Arc<dyn Board>,
    /// Stops it in the order of the flow.
    stop: BoxFuture<'static, ()>,
}

/// Starts the agent on the files of the demo.
async fn start_agent(file: &Path) -> Result<Started, String> {
    let agent = AgentFile { config: Some(file.to_owned()) };
    let loaded =
        load(&Files { agent, files: Vec::new() }).await.map_err(|mistakes| mistakes.to_string())?;
    let setup = setup(&loaded);
    let plan = loaded.plan;
    let agent = Arc::new(Agent::start(plan, setup).await.map_err(|error| chain(&error))?);
    let running = Arc::clone(&agent);
    Ok(Started { board: agent, stop: async move { running.stop().await }.boxed() })
}

/// Runs the demo until it is stopped by a signal or its time is up.
pub(super) fn main(demo: &Demo) -> u8 {
    let played = runtime().map_err(|error| error.to_string()).and_then(|runtime| {
        runtime.block_on(play(demo, async |file: PathBuf| start_agent(&file).await))
    });
    match played {
        Ok(()) => GOOD,
        Err(why) => {
            refuse(&format!("error: {why}"));
            BAD
        }
    }
}

async fn play(
    demo: &Demo,
    start: impl AsyncFnOnce(PathBuf) -> Result<Started, String>,
) -> Result<(), String> {
    let listener = page_listener(demo.listen).await?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    let folder = Folder::make()?;
    let mut targets = JoinSet::new();
    let probes = start_targets(&mut targets).await?;
    folder.write("probes.toml", &probes)?;
    let file = folder.write("picket.toml", &script::agent_file(&folder.path, address))?;
    let agent = start(file).await?;
    let (stop, stopped) = oneshot::channel::<()>();
    let page = tokio::spawn(status::serve(listener, Arc::clone(&agent.board), async {
        drop(stopped.await);
    }));
    let shown = show(agent.board.as_ref(), address, demo.stop_after).await;
    agent.stop.await;
    drop(stop);
    drop(page.await);
    targets.shutdown().await;
    shown
}

/// The page's usual port, unless another picket has it.
async fn page_listener(listen: Option<SocketAddr>) -> Result<TcpListener, String> {
    let usual = SocketAddr::from(([127, 0, 0, 1], 9464));
    let address = listen.unwrap_or(usual);
    match TcpListener::bind(address).await {
        Err(_) if listen.is_none() => TcpListener::bind((usual.ip(), 0)).await,
        bound => bound,
    }
    .map_err(|error| format!("cannot listen on {address}: {error}"))
}

/// Starts the target, each service that comes and goes on a port of its own; the answer is the probe file.
async fn start_targets(targets: &mut JoinSet<()>) -> Result<String, String> {
    let began = Instant::now();
    let listener = free_port().await?;
    let shared = port_of(&listener)?;
    targets.spawn(target::target(listener, began));
    let mut ports = Vec::new();
    for service in SERVICES.iter().filter(|service| service.refuses()) {
        let listener = free_port().await?;
        let port = port_of(&listener)?;
        ports.push((service.name, port));
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        targets.spawn(target::comes_and_goes(service, address, listener, began));
    }
    Ok(script::probe_file(|service| {
        ports.iter().find(|(name, _)| *name == service.name).map_or(shared, |(_, port)| *port)
    }))
}

async fn free_port() -> Result<TcpListener, String> {
    let bound = TcpListener::bind(("127.0.0.1", 0)).await;
    bound.map_err(|error| format!("no loopback port is free: {error}"))
}

fn port_of(listener: &TcpListener) -> Result<u16, String> {
    listener.local_addr().map(|address| address.port()).map_err(|error| error.to_string())
}

/// Draws until a signal comes, the time is up, or nobody reads any more.
async fn show(
    board: &dyn Board,
    address: SocketAddr,
    stop_after: Option<Period>,
) -> Result<(), String> {
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| error.to_string())?;
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    let mut ticks = tokio::time::interval(GLANCE);
    let time = stop_after.map_or(Duration::MAX, Period::get);
    let mut end = std::pin::pin!(tokio::time::sleep(time));
    let mut screen = Screen::new(address);
    screen.begin().map_err(|error| error.to_string())?;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
            () = &mut end => break,
        }
        if screen.draw(board).is_err() {
            // The reader has gone: there is nobody left to tell.
            return Ok(());
        }
    }
    drop(screen.draw(board));
    drop(screen.end());
    Ok(())
}

/// Where the demo is seen: a terminal is drawn in place, anything else gets a line for each change.
struct Screen {
    address: SocketAddr,
    terminal: bool,
    colour: bool,
    watch: Watch,
    changes: Vec<Change>,
    drawn: usize,
}

impl Screen {
    fn new(address: SocketAddr) -> Self {
        Self {
            address,
            terminal: std::io::stdout().is_terminal(),
            colour: table::colour(),
            watch: Watch::default(),
            changes: Vec::new(),
            drawn: 0,
        }
    }

    fn begin(&self) -> std::io::Result<()> {
        let mut out = std::io::stdout().lock();
        writeln!(
            out,
            "A target misbehaves on a script of {}; picket watches it.",
            Period::from_secs(script::CYCLE.as_secs())
        )?;
        writeln!(out, "status page: http://{}/  (Ctrl-C stops)\n", self.address)?;
        if self.terminal {
            // The cursor would jump about.
            out.write_all(b"\x1b[?25l")?;
        }
        out.flush()
    }

    fn draw(&mut self, board: &dyn Board) -> std::io::Result<()> {
        let snapshot = board.snapshot();
        let news = self.watch.changes(&snapshot);
        let mut out = std::io::stdout().lock();
        if !self.terminal {
            for line in news.iter().flat_map(|change| change.lines(usize::MAX, false)) {
                writeln!(out, "{line}")?;
            }
            return out.flush();
        }
        self.changes.extend(news);
        self.changes.drain(..self.changes.len().saturating_sub(CHANGES));
        let width = table::width();
        let mut lines = view::lines(&snapshot, width, self.colour);
        lines.push(String::new());
        lines.extend(self.changes.iter().flat_map(|change| change.lines(width, self.colour)));
        // What has scrolled off the screen cannot be drawn over.
        lines.truncate(table::height().saturating_sub(1));
        if self.drawn > 0 {
            write!(out, "\x1b[{}A\r\x1b[J", self.drawn)?;
        }
        self.drawn = lines.len();
        for line in lines {
            writeln!(out, "{line}")?;
        }
        out.flush()
    }

    fn end(&self) -> std::io::Result<()> {
        let mut out = std::io::stdout().lock();
        if self.terminal {
            out.write_all(b"\x1b[?25h")?;
        }
        out.flush()
    }
}

/// A folder of the demo's own, gone with it.
struct Folder {
    path: PathBuf,
}

impl Folder {
    fn make() -> Result<Self, String> {
        use std::os::unix::fs::DirBuilderExt;
        let name = format!("picket-demo-{}-{}", std::process::id(), crate::clock::now().nanos());
        let path = std::env::temp_dir().join(name);
        // A folder that is there already is somebody else's: then this fails.
        let made = std::fs::DirBuilder::new().mode(0o700).create(&path);
        made.map_err(|error| format!("cannot make {}: {error}", path.display()))?;
        Ok(Self { path })
    }

    fn write(&self, name: &str, text: &str) -> Result<PathBuf, String> {
        let path = self.path.join(name);
        std::fs::write(&path, text)
            .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        Ok(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed is the temporary folder's to clear.
        drop(std::fs::remove_dir_all(&self.path));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::{Query, Snapshot};
    use crate::outcome::Outcome;

    /// An agent that only has a plan.
    struct Idle;

    impl Board for Idle {
        fn snapshot(&self) -> Snapshot {
            Snapshot {
                region: "local".into(),
                stage: "demo".into(),
                version: "0",
                started: crate::clock::now(),
                now: crate::clock::now(),
                probes: Vec::new(),
                left_out: Vec::new(),
                warnings: Vec::new(),
                exporters: Vec::new(),
            }
        }

        fn metrics(&self, _: &str) -> (String, String) {
            ("text/plain".to_owned(), String::new())
        }

        fn ready(&self) -> Result<(), String> {
            Ok(())
        }

        fn outcomes(&self, _: &Query) -> BoxFuture<'_, Result<Vec<Arc<Outcome>>, String>> {
            Box::pin(async { Ok(Vec::new()) })
        }

        fn plan(&self) -> serde_json::Value {
            serde_json::json!([])
        }
    }

    #[tokio::test]
    async fn the_demo_stops_by_itself_and_leaves_nothing_behind() {
        let demo = Demo {
            stop_after: Some(Period::from_millis(50)),
            listen: Some(([127, 0, 0, 1], 0).into()),
        };
        let (stopped, heard) = oneshot::channel();
        let (sender, files) = oneshot::channel();
        let start = async move |file: PathBuf| {
            let probes = std::fs::read_to_string(file.with_file_name("probes.toml")).unwrap();
            assert!(probes.contains("[probe.orders-api]"));
            sender.send(file).unwrap();
            let stop = async move { stopped.send(()).unwrap() };
            Ok(Started { board: Arc::new(Idle), stop: Box::pin(stop) })
        };
        play(&demo, start).await.unwrap();
        heard.await.expect("the agent was stopped");
        assert!(!files.await.unwrap().exists());
    }

    #[tokio::test]
    async fn a_port_that_is_taken_is_an_error_only_where_it_was_asked_for() {
        let taken = free_port().await.unwrap();
        let address = taken.local_addr().unwrap();
        assert!(page_listener(Some(address)).await.unwrap_err().contains("cannot listen on"));
        assert!(page_listener(None).await.is_ok());
    }

    #[test]
    fn the_folder_is_private_and_goes_with_the_demo() {
        use std::os::unix::fs::PermissionsExt;
        let folder = Folder::make().unwrap();
        let path = folder.path.clone();
        folder.write("a.toml", "x = 1").unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        drop(folder);
        assert!(!path.exists());
    }
}

//! The agent: from its files until SIGTERM.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tracing::{error, info, warn};

use super::{AgentFile, Files, GOOD, load, log, runtime};
use crate::agent::{Agent, Setup};
use crate::config::{Keep, Settings};
use crate::journal::Limits;
use crate::plan::Loaded;
use crate::secret::Secrets;
use crate::{health, status};

/// The agent could not start, or could not go on.
const BROKEN: u8 = 1;

pub(super) fn main(agent: &AgentFile) -> u8 {
    log::start();
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => {
            error!(%error, "cannot start");
            return BROKEN;
        }
    };
    let files = Files { agent: agent.clone(), files: Vec::new() };
    runtime.block_on(run(&files))
}

async fn run(files: &Files) -> u8 {
    let loaded = match load(files).await {
        Ok(loaded) => loaded,
        Err(mistakes) => return super::refuse(&mistakes),
    };
    let mut signals = match Signals::new() {
        Ok(signals) => signals,
        Err(error) => {
            error!(%error, "cannot listen for signals");
            return BROKEN;
        }
    };
    let settings = loaded.settings.clone();
    let (agent, page) = match start(loaded).await {
        Ok(started) => started,
        Err(code) => return code,
    };
    loop {
        tokio::select! {
            _ = signals.reload.recv() => reload(&agent, files, &settings).await,
            _ = signals.terminate.recv() => break,
            _ = signals.interrupt.recv() => break,
        }
    }
    info!("stopping");
    let clean = tokio::select! {
        () = agent.stop() => true,
        // A second signal does not wait for the rest of the drain.
        _ = signals.terminate.recv() => false,
        _ = signals.interrupt.recv() => false,
    };
    page.stop().await;
    info!(clean, "stopped");
    if clean { GOOD } else { BROKEN }
}

/// The signals that an agent knows.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    reload: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            reload: signal(SignalKind::hangup())?,
        })
    }
}

async fn start(loaded: Loaded) -> Result<(Arc<Agent>, Page), u8> {
    let setup = setup(&loaded);
    let Loaded { settings, plan, sinks: _ } = loaded;
    for warning in &plan.warnings {
        warn!("{warning}");
    }
    let probes = plan.probes.len();
    let place = plan.place.clone();
    // The address is taken before anything is started: a port in use is told at once.
    let listener = match settings.listen {
        None => None,
        Some(address) => {
            Some(TcpListener::bind(address).await.map_err(|error| no_page(address, &error))?)
        }
    };
    let agent = Agent::start(plan, setup).await.map_err(|error| {
        error!(error = %chain(&error), "cannot start");
        BROKEN
    })?;
    let agent = Arc::new(agent);
    let page = Page::start(listener, &agent);
    info!(region = %place.region, stage = %place.stage, probes, listen = page.address.map(tracing::field::display), "watching");
    Ok((agent, page))
}

fn no_page(address: SocketAddr, error: &std::io::Error) -> u8 {
    error!(%address, %error, "cannot listen: choose another address with `listen`, or \"off\"");
    BROKEN
}

/// What the agent takes from the settings.
pub(super) fn setup(loaded: &Loaded) -> Setup {
    let Loaded { settings, plan, sinks } = loaded;
    let Keep { passes, failures, max_size } = settings.journal;
    Setup {
        state: settings.state.clone(),
        limits: Limits { keep: passes, keep_failures: failures, max_bytes: max_size },
        most_running: settings.max_in_flight,
        drain: settings.drain,
        outlets: sinks.iter().map(|(_, outlet)| Arc::clone(outlet)).collect(),
        secrets: Secrets::here(),
        resource: health::resource(&plan.place, []),
    }
}

/// An error and what it came from, in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

/// A good plan is taken up by difference; a bad one changes nothing and says so.
async fn reload(agent: &Agent, files: &Files, before: &Settings) {
    match load(files).await {
        Ok(Loaded { settings, plan, sinks: _ }) => {
            for warning in &plan.warnings {
                warn!("{warning}");
            }
            for key in needs_restart(&settings, before) {
                warn!(key, "this setting is taken up at the next start only");
            }
            let probes = plan.probes.len();
            agent.reload(plan);
            info!(probes, "reloaded");
        }
        Err(mistakes) => {
            agent.refused_reload(&mistakes.to_string());
            error!("the new files were refused and the plan before them goes on:\n{mistakes}");
        }
    }
}

/// The settings that a reload does not take up.
fn needs_restart(now: &Settings, before: &Settings) -> Vec<&'static str> {
    let changed = [
        ("state", now.state != before.state),
        ("listen", now.listen != before.listen),
        ("max_in_flight", now.max_in_flight != before.max_in_flight),
        ("drain", now.drain != before.drain),
        ("journal", now.journal != before.journal),
        ("export", now.exports != before.exports),
    ];
    changed.into_iter().filter_map(|(key, changed)| changed.then_some(key)).collect()
}

/// The page while it answers.
pub(super) struct Page {
    /// Where it answers; none when it is off.
    pub(super) address: Option<SocketAddr>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Page {
    /// Answers on a listener that is bound already; without one there is no page.
    pub(super) fn start(listener: Option<TcpListener>, agent: &Arc<Agent>) -> Self {
        let (stop, stopped) = oneshot::channel::<()>();
        let board = Arc::clone(agent);
        let address = listener.as_ref().and_then(|listener| listener.local_addr().ok());
        let task = tokio::spawn(async move {
            let Some(listener) = listener else { return };
            // A sender that is dropped asks for the stop as well.
            let stop = async move { drop(stopped.await) };
            status::serve(listener, board, stop).await;
        });
        Self { address, stop, task }
    }

    /// Answers what is being asked, and no more.
    pub(super) async fn stop(self) {
        self.stop.send(()).ok();
        self.task.await.ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::place::Place;
    use crate::{config, plan};

    #[test]
    fn changed_exporters_are_told_to_wait_for_the_next_start() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("picket.toml");
        let settings = |text: &str| {
            std::fs::write(&file, text).unwrap();
            let place = Place { region: "eu-west-1".into(), stage: "prod".into() };
            plan::plan(&config::read(Some(&file), &[]), &place).unwrap().settings
        };
        let before = settings("[export.otlp]\nendpoint = 'http://127.0.0.1:4318'\n");
        let moved = settings("# A comment.\n[export]\notlp.endpoint = 'http://127.0.0.1:4318'\n");
        assert!(needs_restart(&moved, &before).is_empty());
        let other = settings("[export.otlp]\nendpoint = 'http://127.0.0.1:4317'\n");
        assert_eq!(needs_restart(&other, &before), ["export"]);
        assert_eq!(needs_restart(&settings(""), &before), ["export"]);
    }
}

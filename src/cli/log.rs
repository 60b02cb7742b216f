//! The log: on stderr, as text on a terminal and as JSON otherwise.

use std::io::{self, IsTerminal};

use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

/// Starts the log. `PICKET_LOG` names the level (error, warn, info, debug, trace); `info` without it.
pub(super) fn start() {
    let level = std::env::var("PICKET_LOG")
        .ok()
        .and_then(|level| level.parse::<Level>().ok())
        .unwrap_or(Level::INFO);
    let ours = Targets::new().with_target("picket", level).with_default(Level::WARN);
    let lines = if io::stderr().is_terminal() {
        fmt::layer().with_writer(io::stderr).with_target(false).boxed()
    } else {
        fmt::layer().with_writer(io::stderr).json().flatten_event(true).boxed()
    };
    // A second start, as in tests, keeps the first log.
    tracing_subscriber::registry().with(lines.with_filter(ours)).try_init().ok();
}

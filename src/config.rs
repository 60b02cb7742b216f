//! Reads what was written; knows no defaults of a probe; errors show the line.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use toml::de::DeValue;

use crate::place::{Place, ProbeName, Region, Stage};
pub use mistake::{Mistake, Mistakes, Source, Spot};
pub use reading::read;

pub mod glob;
pub mod keys;
mod mistake;
mod reading;
pub mod schema;
pub mod settle;
pub mod shape;
pub mod values;

/// What was written, of all files.
#[derive(Debug)]
pub struct Written {
    /// The agent's settings.
    pub settings: Settings,
    /// The files that hold probes, in order.
    pub files: Vec<File>,
    /// The file that `[agent]` is in: its labels wait for the place.
    pub agent: Option<Arc<Source>>,
    /// The file that `[export]` is in.
    pub export: Option<Arc<Source>>,
    /// What is wrong so far.
    pub mistakes: Mistakes,
    /// What is allowed but looks unmeant.
    pub warnings: Vec<String>,
}

/// The agent's settings, defaults filled in.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The file that they come from, if one was read.
    pub file: Option<PathBuf>,
    /// Where this picket stands; none to find out.
    pub region: Option<Region>,
    /// The stage that it serves.
    pub stage: Stage,
    /// The patterns of the probe files, and the folder that they start from.
    pub probes: (PathBuf, Vec<String>),
    /// The folder of the journal and the ledger.
    pub state: PathBuf,
    /// Where the page answers; none for nowhere.
    pub listen: Option<SocketAddr>,
    /// DNS servers to ask; the system's when empty.
    pub resolver: Vec<SocketAddr>,
    /// How many runs may be under way at once.
    pub max_in_flight: usize,
    /// How long runs may go on after the stop before they are cut.
    pub drain: Duration,
    /// How long outcomes are kept.
    pub journal: Keep,
    /// What is written of exporters, settled and in one spelling.
    pub exports: String,
}

/// How long outcomes are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// Passes.
    pub passes: Duration,
    /// All others.
    pub failures: Duration,
    /// The most bytes on disk.
    pub max_size: u64,
}

/// A file that holds probes.
#[derive(Debug)]
pub struct File {
    /// As it was read.
    pub source: Arc<Source>,
    /// The folder that relative paths in it start from.
    pub folder: PathBuf,
    /// The probes' names, in the order in which they are written.
    pub probes: Vec<Named>,
}

/// A probe's name and where it stands.
#[derive(Debug)]
pub struct Named {
    /// The name.
    pub name: ProbeName,
    /// Where it stands.
    pub spot: Spot,
    /// The line of that place, from 1.
    pub line: usize,
}

impl Default for Settings {
    fn default() -> Self {
        let state = std::env::var_os("STATE_DIRECTORY")
            .and_then(|folders| std::env::split_paths(&folders).next())
            .filter(|folder| !folder.as_os_str().is_empty());
        Self {
            file: None,
            region: None,
            stage: Stage::from("prod"),
            probes: (PathBuf::new(), vec!["probes/*.toml".to_owned()]),
            state: state.unwrap_or_else(|| PathBuf::from("/var/lib/picket")),
            listen: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 9464))),
            resolver: Vec::new(),
            max_in_flight: 1024,
            drain: Duration::from_secs(10),
            journal: Keep {
                passes: Duration::from_hours(7 * 24),
                failures: Duration::from_hours(30 * 24),
                max_size: 1 << 30,
            },
            exports: String::new(),
        }
    }
}

impl Settings {
    /// Where this picket stands, when `region` is what was found out.
    pub fn place(&self, found: Region) -> Place {
        Place { region: self.region.clone().unwrap_or(found), stage: self.stage.clone() }
    }
}

/// What a value is, in words.
pub fn kind_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

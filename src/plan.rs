//! What runs here, with nothing left to decide: defaults filled in, matrices spread, region and stage applied. Pure.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::aws::instance;
use crate::clock::Timestamp;
use crate::config::{self, Mistakes, Settings, Written};
use crate::expect::{Capture, Expectation};
use crate::export::Outlet;
use crate::outcome::{self, Labels};
use crate::place::{Place, ProbeName};
use crate::probe::{Action, Kind};

mod condition;
mod independence;
mod labels;
mod member;
mod planning;
mod step;

/// All that was said, and what it comes to here.
#[derive(Debug)]
pub struct Loaded {
    /// The agent's settings.
    pub settings: Settings,
    /// What runs here.
    pub plan: Plan,
    /// Where outcomes go: the tables of `[export]`, by name.
    pub sinks: Vec<(&'static str, Arc<dyn Outlet>)>,
}

/// Reads the files, finds out where this picket stands, and plans.
pub async fn load(config: Option<&Path>, probe_files: &[PathBuf]) -> Result<Loaded, Mistakes> {
    let written = config::read(config, probe_files);
    let found = match &written.settings.region {
        Some(region) => region.clone(),
        None => instance::region().await,
    };
    let place = written.settings.place(found);
    plan(&written, &place)
}

/// Plans what was written for one place; every mistake of every file is told at once.
pub fn plan(written: &Written, place: &Place) -> Result<Loaded, Mistakes> {
    let mut planning = planning::Planning::new(written, place);
    planning.agent();
    for file in &written.files {
        planning.file(file);
    }
    planning.done()
}

/// What runs here.
#[derive(Debug)]
pub struct Plan {
    /// Where this picket stands.
    pub place: Place,
    /// The probes, in the order of files and tables.
    pub probes: Vec<Arc<Planned>>,
    /// Probes that are written but do not run here, with the reason.
    pub left_out: Vec<(ProbeName, String)>,
    /// What is allowed but unwise, one line each, such as a circular dependence.
    pub warnings: Vec<String>,
}

/// One probe, or one member of its matrix.
#[derive(Debug)]
pub struct Planned {
    /// Its name.
    pub name: ProbeName,
    /// Its kind; of several steps, `journey`.
    pub kind: &'static str,
    /// Its labels: the agent's, the file's, its own, and the values of its matrix.
    pub labels: Labels,
    /// The file that it stands in, and the line.
    pub source: (PathBuf, usize),
    /// A hash of all that was written for it: a reload restarts what has another.
    pub fingerprint: u64,
    /// How often it is due.
    pub every: Duration,
    /// How long one run may take, `finally` included.
    pub timeout: Duration,
    /// The part of `timeout` that is kept for `finally`; zero when there are none.
    pub reserve: Duration,
    /// How many runs may be under way at once; a run that is due beyond that is skipped.
    pub overlap: u32,
    /// The steps.
    pub steps: Vec<Step>,
    /// The steps that always run.
    pub finally: Vec<Step>,
    /// Whether failures keep evidence.
    pub evidence: bool,
    /// Which runs are traced.
    pub trace: Trace,
    /// Planned, but skipped.
    pub paused: bool,
    /// When it is looked after: it keeps probing, and outcomes say so.
    pub maintenance: Vec<(Timestamp, Timestamp)>,
    /// The alarm's rules as they were written, for those that compile them.
    pub alarm: BTreeMap<String, String>,
}

/// Which runs are traced.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Trace {
    /// Every run.
    Always,
    /// This share of runs, between 0 and 1, chosen by trace id; failures are always exported.
    Ratio(f64),
    /// None: no context goes to the target as sampled.
    Never,
}

/// One step.
#[derive(Debug)]
pub struct Step {
    /// Its name; of a probe with one step, the probe's.
    pub name: String,
    /// Its kind.
    pub kind: &'static Kind,
    /// What it does.
    pub action: Arc<dyn Action>,
    /// What must hold.
    pub expect: Vec<Expectation>,
    /// What should hold.
    pub warn: Vec<Expectation>,
    /// What is kept for later steps.
    pub capture: Vec<Captured>,
    /// The step runs only if this holds.
    pub when: Option<When>,
    /// Its own time limit.
    pub within: Option<Duration>,
    /// How often it may be tried, and on what.
    pub attempts: Attempts,
}

/// A value that is kept for later steps.
#[derive(Debug)]
pub struct Captured {
    /// Its variable's name.
    pub name: String,
    /// Where it is found.
    pub from: Capture,
    /// Whether it must never print.
    pub secret: bool,
}

/// A step's condition, as `when` says it.
#[derive(Clone, Debug, PartialEq)]
pub enum When {
    /// `when = "order exists"`: that capture was made.
    Captured(String),
    /// `when = "not order exists"`: that capture was not made.
    NotCaptured(String),
    /// `when = "'${plan}' == 'gold'"`: two texts are the same (true) or not (false).
    Same(crate::template::Template, crate::template::Template, bool),
}

/// How often a step may be tried.
#[derive(Clone, Debug, PartialEq)]
pub struct Attempts {
    /// At the most.
    pub max: u32,
    /// Between two attempts.
    pub wait: Duration,
    /// Groups (`network`: dns, connect, tls, send, response) or error types that are tried again.
    pub on: Vec<String>,
}

impl Planned {
    /// What tells it from every other: its name and its labels, the values of its matrix among them.
    pub fn identity(&self) -> String {
        outcome::identity(&self.name, &self.labels)
    }
}

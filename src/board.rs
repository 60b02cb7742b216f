//! What a running agent shows of itself: read by the page, the API and the terminal, filled by the agent.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde_json::{Value, json};

use crate::clock::Timestamp;
use crate::outcome::{Labels, Outcome, Verdict};
use crate::place::{ProbeName, Region, Stage};
use crate::plan::Planned;

/// A running agent, as those see it who only look.
pub trait Board: Send + Sync {
    /// Everything that the page shows, as of one moment.
    fn snapshot(&self) -> Snapshot;

    /// The instruments in a text format that `accept` asks for: its media type and the text.
    fn metrics(&self, accept: &str) -> (String, String);

    /// Whether the plan is loaded and the schedule is live; if not, why not.
    fn ready(&self) -> Result<(), String>;

    /// Outcomes from the journal, newest first.
    fn outcomes(&self, query: &Query) -> BoxFuture<'_, Result<Vec<Arc<Outcome>>, String>>;

    /// The planned probes, each as `planned` writes it: a JSON array.
    fn plan(&self) -> Value;
}

/// Everything that the page shows, as of one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Where this picket stands.
    pub region: Region,
    /// The stage that it serves.
    pub stage: Stage,
    /// Its version.
    pub version: &'static str,
    /// When it was started.
    pub started: Timestamp,
    /// The moment itself.
    pub now: Timestamp,
    /// The probes, in the order of the plan.
    pub probes: Vec<Row>,
    /// Probes that are written but do not run here, with the reason.
    pub left_out: Vec<(ProbeName, String)>,
    /// What its keeper should know, one line each: a journal that fails, a reload that was refused.
    pub warnings: Vec<String>,
    /// Where outcomes go.
    pub exporters: Vec<Route>,
}

/// One probe, or one member of its matrix.
#[derive(Clone, Debug)]
pub struct Row {
    /// Its name.
    pub name: ProbeName,
    /// Its kind; of several steps, `journey`.
    pub kind: &'static str,
    /// Its labels and the values of its matrix.
    pub labels: Labels,
    /// How often it is due.
    pub every: Duration,
    /// How its last run ended; none before the first.
    pub verdict: Option<Verdict>,
    /// Since when its runs end so.
    pub since: Option<Timestamp>,
    /// Its last run.
    pub last: Option<Arc<Outcome>>,
    /// Its last run that ended in `fail` or `error`.
    pub last_failure: Option<Arc<Outcome>>,
    /// Its recent runs, oldest first.
    pub recent: Vec<Arc<Outcome>>,
    /// Half of its runs took no longer.
    pub p50: Option<Duration>,
    /// Nine in ten of its runs took no longer.
    pub p90: Option<Duration>,
    /// Ninety-nine in a hundred of its runs took no longer.
    pub p99: Option<Duration>,
    /// When it is due next.
    pub next_due: Option<Timestamp>,
    /// Planned, but skipped.
    pub paused: bool,
}

/// The way of outcomes to one exporter.
#[derive(Clone, Debug)]
pub struct Route {
    /// The exporter's name.
    pub name: String,
    /// How many records wait.
    pub depth: u64,
    /// How long the oldest of them has waited.
    pub oldest_age: Option<Duration>,
    /// Why the last batch was not taken; none when it was.
    pub failing: Option<String>,
}

/// Which outcomes are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// Of this probe only.
    pub probe: Option<String>,
    /// At the most.
    pub limit: usize,
    /// Only those that ended in `fail` or `error`.
    pub failed: bool,
    /// Only those that were due at this moment or later.
    pub since: Option<Timestamp>,
}

impl Default for Query {
    fn default() -> Self {
        Self { probe: None, limit: 100, failed: false, since: None }
    }
}

/// One probe of the plan as the API and `picket plan` write it.
pub fn planned(probe: &Planned, next_due: Option<Timestamp>) -> Value {
    let step = |step: &crate::plan::Step| {
        let texts = |list: &[crate::expect::Expectation]| -> Vec<String> {
            list.iter().map(|line| line.text().to_owned()).collect()
        };
        json!({
            "name": step.name,
            "kind": step.kind.name,
            "expect": texts(&step.expect),
            "warn": texts(&step.warn),
            "capture": step.capture.iter().map(|captured| &captured.name).collect::<Vec<_>>(),
        })
    };
    json!({
        "probe": probe.name,
        "kind": probe.kind,
        "every_s": probe.every.as_secs_f64(),
        "timeout_s": probe.timeout.as_secs_f64(),
        "labels": probe.labels,
        "next_due": next_due,
        "paused": probe.paused,
        "steps": probe.steps.iter().map(step).collect::<Vec<_>>(),
        "finally": probe.finally.iter().map(step).collect::<Vec<_>>(),
    })
}

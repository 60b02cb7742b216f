//! How many runs were planned, and how they ended: two books that have to agree.

use std::collections::HashMap;
use std::sync::Arc;

use opentelemetry::KeyValue;
use tracing::warn;

use crate::clock::Timestamp;
use crate::failure::{Blame, ErrorType};
use crate::outcome::{Fact, Outcome, StepOutcome, Verdict};
use crate::place::Place;
use crate::plan::{Plan, Planned};

/// What the ledger knew of one probe when picket started.
#[derive(Clone, Debug)]
pub struct Seed {
    /// What tells it from every other: `Planned::identity`.
    pub identity: Arc<str>,
    /// How many of its runs were planned.
    pub planned: u64,
    /// How they ended.
    pub counts: Vec<(Verdict, Option<ErrorType>, Option<Blame>, u64)>,
}

/// How a run ended, as it is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ending {
    pub(super) verdict: Verdict,
    pub(super) error_type: Option<ErrorType>,
    pub(super) blame: Option<Blame>,
}

/// The books. A probe has an entry once it has been due.
#[derive(Debug)]
pub(super) struct Totals {
    place: Place,
    plan: HashMap<Arc<str>, Arc<Planned>>,
    entries: HashMap<Arc<str>, Entry>,
}

#[derive(Debug)]
struct Entry {
    attributes: Arc<[KeyValue]>,
    /// Runs that were said to be due, and those of them that have not ended.
    due: u64,
    in_flight: u64,
    /// Runs that have ended, by how.
    ended: Vec<(Ending, u64)>,
    last: Option<Last>,
}

/// What the gauges show of a probe.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Last {
    pub(super) good: Option<bool>,
    pub(super) attempts: Option<u32>,
    pub(super) timeout: f64,
    pub(super) cert_expiry: Option<f64>,
    pub(super) residue: Option<u64>,
}

/// The books at one moment.
#[derive(Debug, Default)]
pub(super) struct Snapshot {
    /// Runs that were due and have ended.
    pub(super) planned: u64,
    pub(super) in_flight: u64,
    pub(super) probes: Vec<Seen>,
}

/// One probe at that moment.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) attributes: Arc<[KeyValue]>,
    pub(super) ended: Vec<(Ending, u64)>,
    /// None of a probe that is no longer planned.
    pub(super) last: Option<Last>,
}

impl Totals {
    pub(super) fn new(place: Place) -> Self {
        Self { place, plan: HashMap::new(), entries: HashMap::new() }
    }

    pub(super) fn set_plan(&mut self, plan: &Plan) {
        self.place = plan.place.clone();
        self.plan = plan
            .probes
            .iter()
            .map(|planned| (Arc::from(planned.identity()), Arc::clone(planned)))
            .collect();
        for (identity, entry) in &mut self.entries {
            match self.plan.get(identity) {
                Some(planned) => entry.attributes = of_planned(&self.place, planned),
                None => entry.last = None,
            }
        }
    }

    pub(super) fn seed(&mut self, seed: Seed) {
        let Seed { identity, planned, counts } = seed;
        let entry = self.entry(&identity);
        let mut ended = 0;
        for (verdict, error_type, blame, runs) in counts {
            entry.count(Ending { verdict, error_type, blame }, runs);
            ended += runs;
        }
        // What was due and has not ended yet is settled by whoever read the ledger.
        entry.due += planned.max(ended);
        entry.in_flight += planned.saturating_sub(ended);
    }

    pub(super) fn planned(&mut self, identity: &str) {
        let entry = self.entry(identity);
        entry.due += 1;
        entry.in_flight += 1;
    }

    pub(super) fn count_missed(&mut self, identity: &str, runs: u64) {
        let entry = self.entry(identity);
        entry.due += runs;
        entry.count(Ending { verdict: Verdict::Missed, error_type: None, blame: None }, runs);
    }

    /// The answer is the probe's attributes.
    pub(super) fn settle(&mut self, outcome: &Outcome) -> Arc<[KeyValue]> {
        let identity = identity(outcome);
        let watched = self.plan.is_empty() || self.plan.contains_key(identity.as_str());
        // Not in the plan any more, or no plan was ever told: the outcome knows itself.
        let entry = self.entry_or(&identity, |_| of_outcome(outcome));
        if let Some(left) = entry.in_flight.checked_sub(1) {
            entry.in_flight = left;
        } else {
            // The ledger on disk has counted it, so it counts here; but someone forgot to say that it was due.
            warn!(probe = %outcome.probe, "a run has ended that was never due");
            entry.due += 1;
        }
        let Outcome { verdict, error_type, blame, .. } = outcome;
        entry.count(Ending { verdict: *verdict, error_type: *error_type, blame: *blame }, 1);
        entry.last = watched.then(|| Last::after(entry.last.as_ref(), outcome));
        Arc::clone(&entry.attributes)
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let mut snapshot = Snapshot::default();
        for entry in self.entries.values() {
            snapshot.planned += entry.due.saturating_sub(entry.in_flight);
            snapshot.in_flight += entry.in_flight;
            snapshot.probes.push(Seen {
                attributes: Arc::clone(&entry.attributes),
                ended: entry.ended.clone(),
                last: entry.last,
            });
        }
        snapshot
    }

    fn entry(&mut self, identity: &str) -> &mut Entry {
        self.entry_or(identity, |place| of_identity(place, identity))
    }

    /// The probe's entry; a new one has the attributes that the plan gives it, else those.
    fn entry_or(
        &mut self,
        identity: &str,
        unplanned: impl FnOnce(&Place) -> Arc<[KeyValue]>,
    ) -> &mut Entry {
        let Self { place, plan, entries } = self;
        entries.entry(Arc::from(identity)).or_insert_with(|| {
            let planned = plan.get(identity).map(|planned| of_planned(place, planned));
            Entry::new(planned.unwrap_or_else(|| unplanned(place)))
        })
    }
}

impl Entry {
    fn new(attributes: Arc<[KeyValue]>) -> Self {
        Self { attributes, due: 0, in_flight: 0, ended: Vec::new(), last: None }
    }

    fn count(&mut self, ending: Ending, runs: u64) {
        match self.ended.iter_mut().find(|(known, _)| *known == ending) {
            Some((_, count)) => *count += runs,
            None => self.ended.push((ending, runs)),
        }
    }
}

impl Last {
    /// A run that did not run says nothing of attempts, certificates and residue: those stay as they were seen.
    fn after(before: Option<&Self>, outcome: &Outcome) -> Self {
        let mut last = before.copied().unwrap_or_default();
        last.good = outcome.verdict.good();
        last.timeout = outcome.timeout.as_secs_f64();
        if matches!(outcome.verdict, Verdict::Skipped | Verdict::Missed) {
            return last;
        }
        last.attempts = Some(outcome.attempts);
        last.cert_expiry = earliest_expiry(outcome).or(last.cert_expiry);
        let mut finally = outcome.steps.iter().filter(|step| step.finally).peekable();
        if finally.peek().is_some() {
            // A step that was skipped had nothing to clean: its `when` or its capture says so.
            let failed =
                |step: &&StepOutcome| matches!(step.verdict, Verdict::Fail | Verdict::Error);
            let left = finally.filter(failed).count();
            last.residue = u64::try_from(left).ok();
        }
        last
    }
}

/// The first of all certificates seen to expire, in unix seconds.
fn earliest_expiry(outcome: &Outcome) -> Option<f64> {
    let facts = outcome.steps.iter().filter_map(|step| step.facts.get("cert.not_after"));
    facts.filter_map(unix_seconds).min_by(f64::total_cmp)
}

fn unix_seconds(fact: &Fact) -> Option<f64> {
    match fact {
        Fact::Number(seconds) => Some(*seconds),
        #[expect(clippy::cast_precision_loss, reason = "a date's seconds fit 52 bits for ages")]
        Fact::Integer(seconds) => Some(*seconds as f64),
        Fact::Text(text) => Timestamp::parse(text)
            .map(|moment| std::time::Duration::from_nanos(moment.nanos()).as_secs_f64()),
        Fact::Bool(_) | Fact::List(_) => None,
    }
}

/// As `Planned::identity` has it.
fn identity(outcome: &Outcome) -> String {
    let mut identity = outcome.probe.to_string();
    for (key, value) in outcome.labels.iter() {
        identity.extend(["\u{1}", key, "\u{2}", value]);
    }
    identity
}

fn of_planned(place: &Place, planned: &Planned) -> Arc<[KeyValue]> {
    let labels = planned.labels.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    attributes(place, planned.name.as_str(), Some(planned.kind), labels)
}

fn of_outcome(outcome: &Outcome) -> Arc<[KeyValue]> {
    let place = Place { region: outcome.region.clone(), stage: outcome.stage.clone() };
    let labels = outcome.labels.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    attributes(&place, outcome.probe.as_str(), Some(outcome.kind.as_ref()), labels)
}

/// A probe that the ledger remembers and no file names any more: its kind is forgotten.
fn of_identity(place: &Place, identity: &str) -> Arc<[KeyValue]> {
    let mut parts = identity.split('\u{1}');
    let probe = parts.next().unwrap_or_default();
    attributes(place, probe, None, parts.filter_map(|pair| pair.split_once('\u{2}')))
}

/// Sorted, which spares the SDK a second copy of each set.
fn attributes<'a>(
    place: &Place,
    probe: &str,
    kind: Option<&str>,
    labels: impl Iterator<Item = (&'a str, &'a str)>,
) -> Arc<[KeyValue]> {
    const OURS: &[&str] = &[
        "probe",
        "kind",
        "step",
        "stage",
        "target.region",
        "target_region",
        "verdict",
        "error_type",
        "blame",
        "phase",
        "le",
    ];
    let text = |value: &str| Arc::<str>::from(value);
    let mut region = place.region.shared();
    let mut all =
        vec![KeyValue::new("probe", text(probe)), KeyValue::new("stage", place.stage.shared())];
    all.extend(kind.map(|kind| KeyValue::new("kind", text(kind))));
    for (key, value) in labels {
        if key == "region" {
            region = text(value);
        }
        if !OURS.contains(&key) {
            all.push(KeyValue::new(text(key), text(value)));
        }
    }
    all.push(KeyValue::new("target.region", region));
    all.sort_by(|one, other| one.key.cmp(&other.key));
    Arc::from(all)
}

//! What was last seen of each probe, in memory: the page and the terminal look here, not at the disk.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::outcome::{Outcome, Verdict};

/// Recent runs of one probe, at the most.
pub const MOST: usize = 60;

/// Recent runs of all probes together: with many probes each keeps fewer.
const MOST_OF_ALL: usize = 60_000;

/// The last runs of each probe.
#[derive(Debug, Default)]
pub struct Recent {
    probes: BTreeMap<Arc<str>, Seen>,
}

/// The last runs of one probe.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// The last run.
    pub last: Option<Arc<Outcome>>,
    /// The last run that ended in `fail` or `error`.
    pub last_failure: Option<Arc<Outcome>>,
    /// The last runs, oldest first, without their steps, phases and evidence.
    pub runs: VecDeque<Arc<Outcome>>,
}

impl Recent {
    /// Takes note of a run.
    pub fn note(&mut self, identity: &Arc<str>, outcome: &Arc<Outcome>) {
        let most = (MOST_OF_ALL / self.probes.len().max(1)).clamp(1, MOST);
        let seen = self.probes.entry(Arc::clone(identity)).or_default();
        if matches!(outcome.verdict, Verdict::Fail | Verdict::Error) {
            seen.last_failure = Some(Arc::clone(outcome));
        }
        seen.last = Some(Arc::clone(outcome));
        while seen.runs.len() >= most {
            seen.runs.pop_front();
        }
        seen.runs.push_back(Arc::new(lean(outcome)));
    }

    /// Takes over what the journal has of a probe, newest first, unless it has run again in the meantime.
    pub fn recall(&mut self, identity: &Arc<str>, newest_first: Vec<Outcome>) {
        if self.probes.contains_key(identity) {
            return;
        }
        for outcome in newest_first.into_iter().rev() {
            self.note(identity, &Arc::new(outcome));
        }
    }

    /// What was last seen of a probe.
    pub fn of(&self, identity: &str) -> Seen {
        self.probes.get(identity).cloned().unwrap_or_default()
    }

    /// Forgets every probe that is not among these.
    pub fn keep(&mut self, planned: impl Fn(&str) -> bool) {
        self.probes.retain(|identity, _| planned(identity));
    }
}

impl Seen {
    /// The time that this share of the recent judged runs did not exceed.
    pub fn percentile(&self, share: f64) -> Option<Duration> {
        let judged = self.runs.iter().filter(|run| run.verdict.good().is_some());
        let mut times: Vec<_> = judged.map(|run| run.took).collect();
        times.sort_unstable();
        let nth = nth_of(share, times.len())?;
        times.get(nth).copied()
    }
}

/// The nearest-rank percentile's place in a sorted list.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a list of at most 60"
)]
fn nth_of(share: f64, length: usize) -> Option<usize> {
    let last = length.checked_sub(1)?;
    Some(((share * length as f64).ceil() as usize).saturating_sub(1).min(last))
}

/// The record without what only the details show.
fn lean(outcome: &Outcome) -> Outcome {
    Outcome {
        probe: outcome.probe.clone(),
        kind: outcome.kind.clone(),
        region: outcome.region.clone(),
        stage: outcome.stage.clone(),
        labels: Arc::clone(&outcome.labels),
        run: Arc::clone(&outcome.run),
        trace_id: String::new(),
        message: outcome.message.clone(),
        phases: Vec::new(),
        steps: Vec::new(),
        evidence: None,
        ..*outcome
    }
}

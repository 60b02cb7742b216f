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
        let most = self.room();
        let seen = self.probes.entry(Arc::clone(identity)).or_default();
        if is_failure(outcome) {
            seen.last_failure = Some(Arc::clone(outcome));
        }
        seen.last = Some(Arc::clone(outcome));
        while seen.runs.len() >= most {
            seen.runs.pop_front();
        }
        seen.runs.push_back(Arc::new(lean(outcome)));
    }

    /// Puts what the journal has of a probe, newest first, before what has come in the meantime.
    pub fn recall(&mut self, identity: &Arc<str>, newest_first: Vec<Outcome>) {
        let most = self.room();
        let seen = self.probes.entry(Arc::clone(identity)).or_default();
        let oldest = seen.runs.front().map(|run| run.due);
        let before =
            newest_first.into_iter().filter(|run| oldest.is_none_or(|oldest| run.due < oldest));
        for outcome in before.map(Arc::new) {
            if seen.runs.len() < most {
                seen.runs.push_front(Arc::new(lean(&outcome)));
            }
            if is_failure(&outcome) {
                seen.last_failure.get_or_insert_with(|| Arc::clone(&outcome));
            }
            seen.last.get_or_insert(outcome);
        }
    }

    /// What was last seen of a probe.
    pub fn of(&self, identity: &str) -> Seen {
        self.probes.get(identity).cloned().unwrap_or_default()
    }

    /// How many runs each probe may keep.
    fn room(&self) -> usize {
        (MOST_OF_ALL / self.probes.len().max(1)).clamp(1, MOST)
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

fn is_failure(outcome: &Outcome) -> bool {
    matches!(outcome.verdict, Verdict::Fail | Verdict::Error)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;

    fn run(due: u64, verdict: &str) -> Outcome {
        let text = format!(
            r#"{{"probe":"a","kind":"http","region":"r","stage":"s","labels":{{}},"run":"{due}","trace_id":"","due":"{at}",
                "started":"{at}","duration_s":0.{due},"verdict":"{verdict}","attempts":1,"timeout_s":1,"phases":[],"steps":[]}}"#,
            at = Timestamp::from_secs(due)
        );
        serde_json::from_str(&text).unwrap()
    }

    fn dues(seen: &Seen) -> Vec<u64> {
        seen.runs.iter().map(|run| run.due.secs()).collect()
    }

    #[test]
    fn what_is_recalled_stands_before_what_came_meanwhile() {
        let (mut recent, identity) = (Recent::default(), "a".into());
        recent.note(&identity, &Arc::new(run(3, "missed")));
        recent.recall(&identity, vec![run(3, "missed"), run(2, "pass"), run(1, "fail")]);
        let seen = recent.of("a");
        assert_eq!(dues(&seen), [1, 2, 3]);
        assert_eq!(seen.last.map(|last| last.due.secs()), Some(3));
        assert_eq!(seen.last_failure.map(|last| last.due.secs()), Some(1));
    }

    #[test]
    fn only_so_many_are_kept_and_what_was_not_judged_has_no_latency() {
        let (mut recent, identity) = (Recent::default(), "a".into());
        for due in 1..=70 {
            recent
                .note(&identity, &Arc::new(run(due, if due % 2 == 0 { "pass" } else { "missed" })));
        }
        let seen = recent.of("a");
        assert_eq!(seen.runs.len(), MOST);
        assert_eq!(seen.percentile(1.0), Some(Duration::from_millis(700)));
    }
}

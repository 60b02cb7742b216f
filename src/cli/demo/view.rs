//! What the demo shows in the terminal: the probes as they stand, and what changed.

use std::collections::HashMap;
use std::sync::Arc;

use unicode_width::UnicodeWidthStr;

use crate::board::{Row, Snapshot};
use crate::cli::names::titles;
use crate::cli::table::{Paint, mark, plain, reason, wrap};
use crate::clock::Timestamp;
use crate::outcome::{Outcome, Verdict};
use crate::period::brief;

/// Runs that a probe's line shows.
const RUNS: usize = 20;

/// Notices what changes from one snapshot to the next: one line a change of state.
#[derive(Debug, Default)]
pub(super) struct Watch {
    seen: HashMap<String, Arc<Outcome>>,
}

impl Watch {
    /// The changes since the last look, oldest first.
    pub(super) fn changes(&mut self, snapshot: &Snapshot) -> Vec<Change> {
        let mut changes = Vec::new();
        for (row, title) in snapshot.probes.iter().zip(titles_of(snapshot)) {
            let seen = self.seen.get(&title);
            let known = seen.and_then(|seen| row.recent.iter().position(|run| run.run == seen.run));
            let mut before = seen.cloned();
            for run in row.recent.iter().skip(known.map_or(0, |at| at + 1)) {
                if before.as_ref().is_none_or(|before| state(before) != state(run)) {
                    changes.push(Change::of(run, &title));
                }
                before = Some(Arc::clone(run));
            }
            if let Some(last) = before {
                self.seen.insert(title, last);
            }
        }
        changes.sort_by_key(|change| change.moment);
        changes
    }
}

/// What makes a run news when it differs from the one before.
fn state(run: &Outcome) -> (Verdict, Option<crate::failure::ErrorType>) {
    (run.verdict, run.error_type)
}

/// A probe's change from one state to another.
#[derive(Clone, Debug)]
pub(super) struct Change {
    moment: Timestamp,
    title: String,
    verdict: Verdict,
    why: String,
}

impl Change {
    fn of(run: &Outcome, title: &str) -> Self {
        let mut why = String::new();
        if let Some(kind) = run.error_type {
            why.push_str(kind.as_str());
        }
        if let Some(blame) = run.blame {
            why.extend([" (", blame.as_str(), ")"]);
        }
        match &run.message {
            Some(message) if run.error_type.is_some() => why.extend([": ", &plain(message)]),
            Some(message) => why.push_str(&plain(message)),
            None => why.push_str(&brief(run.took)),
        }
        Self { moment: run.started, title: plain(title), verdict: run.verdict, why }
    }

    /// `12:00:03 orders-api  FAIL  expect.status (target): status in 200..299  (was 503)`, on as many lines as it takes.
    pub(super) fn lines(&self, width: usize, colour: bool) -> Vec<String> {
        let time = self.moment.to_string().get(11..19).unwrap_or_default().to_owned();
        let word = format!("{:<7}", self.verdict.as_str().to_uppercase());
        let head = format!("{time} {:<12} ", self.title);
        let indent = head.width() + 9;
        let painted = Paint { verdict: self.verdict, colour }.bright(&word);
        let mut parts = wrap(&self.why, width.saturating_sub(indent).max(20)).into_iter();
        let first = parts.next().unwrap_or_default();
        let mut lines = vec![format!("{head}{painted}  {first}")];
        lines.extend(parts.map(|part| format!("{:indent$}{part}", "")));
        lines
    }
}

/// The probes as they stand, for a terminal of so many columns.
pub(super) fn lines(snapshot: &Snapshot, width: usize, colour: bool) -> Vec<String> {
    let titles = titles_of(snapshot);
    let longest = titles.iter().map(|title| title.width()).max().unwrap_or_default();
    let mut lines = Vec::new();
    for (row, title) in snapshot.probes.iter().zip(&titles) {
        lines.extend(probe_lines(row, title, longest, width, colour));
    }
    lines
}

fn titles_of(snapshot: &Snapshot) -> Vec<String> {
    let pairs: Vec<_> = snapshot.probes.iter().map(|row| (&row.name, &row.labels)).collect();
    titles(&pairs)
}

/// One probe: verdict, name, recent runs, how long the last took, and the reason where there is one.
fn probe_lines(row: &Row, title: &str, longest: usize, width: usize, colour: bool) -> Vec<String> {
    let gap = longest.saturating_sub(title.width());
    let Some(last) = &row.last else {
        return vec![format!("  {:<7}  {}", "…", plain(title))];
    };
    let paint = Paint { verdict: last.verdict, colour };
    let state = paint.bright(&format!("{} {:<7}", mark(last.verdict), last.verdict));
    let runs = if width >= longest + RUNS + 60 { bar(row, colour) } else { String::new() };
    let indent = 11 + longest + if runs.is_empty() { 0 } else { RUNS + 2 } + 10;
    let mut line = format!("{state}  {}{:gap$}", plain(title), "");
    if !runs.is_empty() {
        line.extend(["  ", &runs]);
    }
    let took = format!("{:>10}", brief(last.took));
    line.push_str(&took);
    let words = match (&last.message, last.verdict) {
        (_, Verdict::Pass) | (None, _) => String::new(),
        (Some(message), _) => format!("{}  {}", plain(message), reason(last)),
    };
    // Where there is too little room beside the row, the reason stands under it.
    let (indent, mut beside) = if indent + 30 <= width { (indent + 2, true) } else { (4, false) };
    let mut lines = Vec::new();
    for part in wrap(&words, width.saturating_sub(indent)) {
        if std::mem::take(&mut beside) {
            line.extend(["  ", &part]);
        } else {
            lines.push(format!("{:indent$}{part}", ""));
        }
    }
    lines.insert(0, line);
    lines
}

/// The recent runs, oldest left: as tall as they took long; what did not pass has its mark.
fn bar(row: &Row, colour: bool) -> String {
    const STEPS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let runs = row.recent.get(row.recent.len().saturating_sub(RUNS)..).unwrap_or_default();
    let longest = runs.iter().map(|run| run.took.as_micros()).max().unwrap_or_default().max(1);
    let cell = |run: &Arc<Outcome>| {
        let step = usize::try_from(run.took.as_micros() * 7 / longest).unwrap_or(7);
        let tall = STEPS.get(step).copied().unwrap_or('█');
        let sign = if run.verdict == Verdict::Pass { tall } else { mark(run.verdict) };
        Paint { verdict: run.verdict, colour }.bright(&sign.to_string())
    };
    let cells: String = runs.iter().map(cell).collect();
    format!("{:1$}{cells}", "", RUNS - runs.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::table::tests::outcome;
    use std::time::Duration;

    fn snapshot(runs: &[Verdict]) -> Snapshot {
        let start = Timestamp::from_secs(1_795_435_200);
        let recent: Vec<_> = (0u64..)
            .zip(runs)
            .map(|(at, verdict)| {
                let started = start + Duration::from_secs(at);
                let run = Arc::from(format!("run{at}"));
                Arc::new(Outcome { run, started, ..outcome("orders-api", *verdict) })
            })
            .collect();
        let row = Row {
            name: "orders-api".into(),
            kind: "http",
            labels: crate::outcome::Labels::default(),
            every: Duration::from_secs(1),
            verdict: runs.last().copied(),
            since: None,
            last: recent.last().cloned(),
            last_failure: None,
            recent,
            p50: None,
            p90: None,
            p99: None,
            next_due: None,
            paused: false,
        };
        Snapshot {
            region: "local".into(),
            stage: "demo".into(),
            version: "0",
            started: start,
            now: start,
            probes: vec![row],
            left_out: Vec::new(),
            warnings: Vec::new(),
            exporters: Vec::new(),
        }
    }

    #[test]
    fn each_change_of_state_is_told_once() {
        use Verdict::{Fail, Pass};
        let mut watch = Watch::default();
        let mut told = |runs: &[Verdict]| -> Vec<String> {
            let changes = watch.changes(&snapshot(runs));
            changes.iter().flat_map(|change| change.lines(usize::MAX, false)).collect()
        };
        assert_eq!(
            told(&[Pass, Pass, Fail, Fail]),
            [
                "12:00:00 orders-api   PASS     48.1ms",
                "12:00:02 orders-api   FAIL     expect.status (target): status in 200..299  (was 503)",
            ]
        );
        assert!(told(&[Pass, Pass, Fail, Fail, Fail]).is_empty());
        assert_eq!(
            told(&[Pass, Pass, Fail, Fail, Fail, Pass]),
            ["12:00:05 orders-api   PASS     48.1ms"]
        );
    }

    #[test]
    fn the_view_shows_the_reason_and_keeps_to_the_width() {
        let snapshot = snapshot(&[Verdict::Pass, Verdict::Fail]);
        for width in [30, 60, 80, 100, 160] {
            let lines = lines(&snapshot, width, false);
            assert!(lines.iter().all(|line| line.width() <= width.max(32)), "{width} {lines:#?}");
            let all = lines.join(" ").split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(
                all.contains("status in 200..299 (was 503) expect.status, blame: target"),
                "{all}"
            );
        }
        assert!(lines(&snapshot, 160, false)[0].contains("█✗"));
    }
}

//! `picket history`: the runs that the journal keeps.

use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use clap::{Args, ValueEnum};
use thiserror::Error;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::table::plain;
use crate::clock;
use crate::journal::{Filter, History, JournalError};
use crate::outcome::{Outcome, Verdict};
use crate::period;

/// The narrowest table.
const WIDTH: usize = 80;

/// What can be asked of `picket history`.
#[derive(Args, Clone, Debug)]
pub(super) struct Asked {
    /// Only probes whose name matches, with `*` and `?`
    #[arg(long, value_name = "GLOB")]
    pub probe: Option<String>,
    /// Only runs that were due in this time, such as 1h
    #[arg(long, value_name = "TIME", value_parser = period::length)]
    pub since: Option<Duration>,
    /// Only runs that ended as `fail` or `error`
    #[arg(long)]
    pub failed: bool,
    /// At most so many runs: the newest
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub limit: usize,
    /// How it is written
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

/// How an answer is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people
    #[default]
    Table,
    /// One object a line
    Json,
}

/// Why there is no answer.
#[derive(Debug, Error)]
pub(super) enum Unanswered {
    /// The journal cannot be read.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The answer cannot be written.
    #[error("cannot write the answer")]
    Write(#[from] io::Error),
}

/// Writes the runs that were asked for, oldest first. `width` is the terminal's, where there is one.
pub(super) fn print(
    folder: &Path,
    asked: &Asked,
    width: Option<usize>,
    out: &mut dyn Write,
) -> Result<(), Unanswered> {
    let filter = Filter {
        since: asked.since.map(|since| clock::now() - since),
        probe: asked.probe.clone(),
        verdicts: if asked.failed { vec![Verdict::Fail, Verdict::Error] } else { Vec::new() },
        limit: Some(asked.limit),
    };
    let mut outcomes = History::open(folder)?.outcomes(&filter)?;
    outcomes.reverse();
    match asked.format {
        Format::Table => table(&outcomes, width.unwrap_or(WIDTH).max(WIDTH), out)?,
        Format::Json => {
            for outcome in &outcomes {
                serde_json::to_writer(&mut *out, outcome).map_err(io::Error::from)?;
                writeln!(out)?;
            }
        }
    }
    Ok(())
}

fn table(outcomes: &[Outcome], width: usize, out: &mut dyn Write) -> io::Result<()> {
    if outcomes.is_empty() {
        return writeln!(out, "no runs");
    }
    let longest = outcomes.iter().map(|outcome| outcome.probe.as_str().width()).max();
    let probe = longest.unwrap_or(0).clamp(5, (width - 50).max(20));
    writeln!(
        out,
        "{:<20}  {}  {:<7}  {:>6}  reason",
        "due",
        fitted("probe", probe),
        "verdict",
        "took"
    )?;
    for outcome in outcomes {
        let name = fitted(outcome.probe.as_str(), probe);
        let took = if outcome.took.is_zero() { "-".to_owned() } else { period::show(outcome.took) };
        let head = format!("{}  {name}  {:<7}  {took:>6}  ", due(outcome), outcome.verdict);
        let room = width.saturating_sub(head.width());
        writeln!(out, "{}", format!("{head}{}", cut(&reason(outcome), room)).trim_end())?;
    }
    Ok(())
}

/// The due time to the second.
fn due(outcome: &Outcome) -> String {
    let due = outcome.due.to_string();
    due.split_once('.').map_or_else(|| due.clone(), |(seconds, _)| format!("{seconds}Z"))
}

fn reason(outcome: &Outcome) -> String {
    let kind = outcome.error_type.map(|kind| kind.to_string());
    let message = outcome.message.as_deref().map(plain);
    kind.into_iter().chain(message).collect::<Vec<_>>().join("  ")
}

/// A text in exactly so many columns.
pub(super) fn fitted(text: &str, columns: usize) -> String {
    let cut = cut(text, columns);
    let missing = columns.saturating_sub(cut.width());
    cut + &" ".repeat(missing)
}

/// A text in at most so many columns; a mark says that it goes on.
fn cut(text: &str, columns: usize) -> String {
    if text.width() <= columns {
        return text.to_owned();
    }
    let mut cut = String::new();
    let mut used = 1;
    for character in text.chars() {
        used += character.width().unwrap_or(0);
        if used > columns {
            break;
        }
        cut.push(character);
    }
    if columns > 0 {
        cut.push('…');
    }
    cut
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tempfile::TempDir;

    use super::*;
    use crate::cli::report;
    use crate::clock::Timestamp;
    use crate::failure::{Blame, ErrorType};
    use crate::journal::{Journal, Limits, Settled};
    use crate::outcome::{Ids, Labels};
    use crate::place::Place;

    fn run(due: Timestamp, verdict: Verdict) -> Outcome {
        let place = Place { region: "eu-west-1".into(), stage: "prod".into() };
        let ids = Ids::of(&"orders-api".into(), &Labels::default(), &place, due, 0);
        let failed = verdict == Verdict::Fail;
        Outcome {
            probe: "orders-api".into(),
            kind: "http".into(),
            region: place.region,
            stage: place.stage,
            labels: Labels::default(),
            trace_id: ids.trace_hex(),
            run: ids.run,
            due,
            started: due,
            took: Duration::from_millis(123),
            verdict,
            blame: failed.then_some(Blame::Target),
            error_type: failed.then_some(ErrorType::ExpectStatus),
            message: failed
                .then(|| "status in 200..299\n(was 503 and a lot more to say)".to_owned()),
            attempts: 1,
            timeout: Duration::from_secs(5),
            phases: Vec::new(),
            steps: Vec::new(),
            evidence: None,
            changed_from: None,
            traced: true,
            maintenance: false,
        }
    }

    /// A journal with a pass and a failure, and nobody who writes it.
    async fn journal() -> TempDir {
        let folder = TempDir::new().unwrap();
        let (journal, _) = Journal::open(folder.path(), Limits::default()).unwrap();
        for (ago, verdict) in [(60, Verdict::Pass), (30, Verdict::Fail)] {
            let due = clock::now() - Duration::from_secs(ago);
            let outcome = Arc::new(run(due, verdict));
            let identity = outcome.probe.shared();
            journal.append(Settled { outcome, identity, settled_through: due }).await;
        }
        journal.close().await;
        folder
    }

    fn asked(format: Format) -> Asked {
        Asked { probe: None, since: None, failed: false, limit: 50, format }
    }

    #[tokio::test]
    async fn the_table_says_what_happened_in_eighty_columns() {
        let folder = journal().await;
        let mut out = Vec::new();
        print(folder.path(), &asked(Format::Table), None, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines.iter().all(|line| line.width() <= 80), "{text}");
        assert!(lines[1].contains("orders-api  pass      123ms"), "{text}");
        assert!(lines[2].contains("orders-api  fail      123ms  expect.status  "), "{text}");
        assert!(lines[2].ends_with('…'), "{text}");
    }

    #[tokio::test]
    async fn json_is_one_whole_outcome_a_line() {
        let folder = journal().await;
        let mut out = Vec::new();
        let failed = Asked { failed: true, ..asked(Format::Json) };
        print(folder.path(), &failed, None, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text.lines().count(), 1);
        let read: Outcome = serde_json::from_str(&text).unwrap();
        assert_eq!(read.error_type, Some(ErrorType::ExpectStatus));
    }

    #[tokio::test]
    async fn a_report_has_one_line_a_probe_in_eighty_columns() {
        let folder = journal().await;
        let asked = report::Asked {
            since: Duration::from_hours(1),
            probe: Some("orders*".to_owned()),
            slo: "99.9".parse().unwrap(),
            format: Format::Table,
        };
        let mut out = Vec::new();
        report::print(folder.path(), &asked, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.lines().all(|line| line.width() <= 80), "{text}");
        assert!(text.contains("50.000%"), "{text}");
        assert!(text.contains("that 99.9% allows"), "{text}");
    }

    #[test]
    fn a_folder_without_a_journal_is_said_to_be_one() {
        let folder = TempDir::new().unwrap();
        let refused = print(folder.path(), &asked(Format::Table), None, &mut Vec::new());
        assert!(refused.unwrap_err().to_string().contains("no journal in"));
    }

    #[test]
    fn a_text_that_is_too_long_is_cut_with_a_mark() {
        assert_eq!(cut("orders-api", 6), "order…");
        assert_eq!(cut("日本語", 5), "日本…");
        assert_eq!(fitted("api", 5), "api  ");
        assert_eq!(cut("api", 0), "");
    }
}

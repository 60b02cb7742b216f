//! `picket history`: the runs that the journal keeps.

use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use clap::{Args, ValueEnum};
use thiserror::Error;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

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
    let message = outcome.message.as_deref().map(one_line);
    kind.into_iter().chain(message).collect::<Vec<_>>().join("  ")
}

/// A text in one line, without what would steer a terminal.
fn one_line(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { ' ' } else { character }).collect()
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
    use super::*;

    #[test]
    fn a_text_that_is_too_long_is_cut_with_a_mark() {
        assert_eq!(cut("orders-api", 6), "order…");
        assert_eq!(cut("日本語", 5), "日本…");
        assert_eq!(fitted("api", 5), "api  ");
        assert_eq!(cut("api", 0), "");
    }
}

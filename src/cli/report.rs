//! `picket report`: what the runs of each probe came to, and what is left of its error budget.

use std::io::{self, Write};
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use unicode_width::UnicodeWidthStr;

use super::history::{Format, Unanswered, fitted};
use crate::clock;
use crate::journal::{Filter, History, Summary};
use crate::outcome::Verdict;
use crate::period;

/// What can be asked of `picket report`.
#[derive(Args, Clone, Debug)]
pub(super) struct Asked {
    /// Runs that were due in this time
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = period::length)]
    pub since: Duration,
    /// Only probes whose name matches, with `*` and `?`
    #[arg(long, value_name = "GLOB")]
    pub probe: Option<String>,
    /// The availability that was promised, in per cent
    #[arg(long, value_name = "PERCENT", default_value = "99.9")]
    pub slo: Slo,
    /// How it is written
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

/// An availability that was promised, in per cent: above 0 and below 100.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Slo(f64);

impl FromStr for Slo {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let percent = text.trim_end_matches('%').parse::<f64>().ok();
        percent.filter(|percent| *percent > 0.0 && *percent < 100.0).map(Self).ok_or_else(|| {
            format!(
                "{text:?} is no availability: write per cent above 0 and below 100, such as 99.9"
            )
        })
    }
}

impl Slo {
    /// The same as a share of all.
    fn share(self) -> f64 {
        self.0 / 100.0
    }
}

/// One probe's line of the report.
#[derive(Debug, Serialize)]
struct Line {
    probe: String,
    runs: u64,
    pass: u64,
    warn: u64,
    fail: u64,
    error: u64,
    skipped: u64,
    missed: u64,
    /// Good of judged runs; none if none was judged.
    availability: Option<f64>,
    slo: f64,
    /// What is left of the failures that the promise allows: 1 is all, below 0 is more than all.
    budget_left: Option<f64>,
    p50_s: Option<f64>,
    p90_s: Option<f64>,
    p99_s: Option<f64>,
}

/// Writes the report.
pub(super) fn print(folder: &Path, asked: &Asked, out: &mut dyn Write) -> Result<(), Unanswered> {
    let filter = Filter {
        since: Some(clock::now() - asked.since),
        probe: asked.probe.clone(),
        ..Filter::default()
    };
    let summaries = History::open(folder)?.summaries(&filter)?;
    let lines: Vec<Line> = summaries.iter().map(|summary| line(summary, asked.slo)).collect();
    match asked.format {
        Format::Table => table(&lines, asked.slo, out)?,
        Format::Json => {
            for line in &lines {
                serde_json::to_writer(&mut *out, line).map_err(io::Error::from)?;
                writeln!(out)?;
            }
        }
    }
    Ok(())
}

fn line(summary: &Summary, slo: Slo) -> Line {
    let (good, judged) = summary.good_of_judged();
    let availability = (judged > 0).then(|| ratio(good, judged));
    let seconds = |hundredths| summary.percentile(hundredths).map(|took| took.as_secs_f64());
    Line {
        probe: summary.probe.clone(),
        runs: summary.runs(),
        pass: summary.ended(Verdict::Pass),
        warn: summary.ended(Verdict::Warn),
        fail: summary.ended(Verdict::Fail),
        error: summary.ended(Verdict::Error),
        skipped: summary.ended(Verdict::Skipped),
        missed: summary.ended(Verdict::Missed),
        availability,
        slo: slo.share(),
        budget_left: availability.map(|share| 1.0 - (1.0 - share) / (1.0 - slo.share())),
        p50_s: seconds(50),
        p90_s: seconds(90),
        p99_s: seconds(99),
    }
}

#[expect(clippy::cast_precision_loss, reason = "no journal holds 2^53 runs")]
fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}

/// Two rows of heads and 80 columns: `other` is `error`, `skipped` and `missed` together.
fn table(lines: &[Line], slo: Slo, out: &mut dyn Write) -> io::Result<()> {
    if lines.is_empty() {
        return writeln!(out, "no runs");
    }
    let longest = lines.iter().map(|line| line.probe.width()).max().unwrap_or(0);
    let probe = longest.clamp(5, 22);
    writeln!(
        out,
        "{}  {:>6}  {:>5}  {:>5}  {:>8}  {:>7}  {:>5}  {:>5}  {:>5}",
        fitted("probe", probe),
        "runs",
        "fail",
        "other",
        "avail",
        "budget",
        "p50",
        "p90",
        "p99"
    )?;
    for line in lines {
        let other = line.error + line.skipped + line.missed;
        writeln!(
            out,
            "{}  {:>6}  {:>5}  {:>5}  {:>8}  {:>7}  {:>5}  {:>5}  {:>5}",
            fitted(&line.probe, probe),
            line.runs,
            line.fail,
            other,
            line.availability.map_or_else(dash, available),
            line.budget_left.map_or_else(dash, budget),
            shown(line.p50_s),
            shown(line.p90_s),
            shown(line.p99_s)
        )?;
    }
    writeln!(out, "\navail: good of judged runs")?;
    writeln!(out, "budget: what is left of the failures that {}% allows", slo.0)?;
    writeln!(out, "other: error, skipped and missed runs, which judge nothing")
}

/// Never rounded up to what was not reached.
fn available(share: f64) -> String {
    format!("{:.3}%", (share * 100_000.0).floor() / 1000.0)
}

fn budget(left: f64) -> String {
    if left < -9.99 { "<-999%".to_owned() } else { format!("{:.0}%", left * 100.0) }
}

/// A length of time in five columns.
fn shown(seconds: Option<f64>) -> String {
    let Some(seconds) = seconds else { return dash() };
    let (value, unit) = if seconds >= 1.0 { (seconds, "s") } else { (seconds * 1000.0, "ms") };
    let digits = usize::from(value < 10.0);
    format!("{value:.digits$}{unit}")
}

fn dash() -> String {
    "-".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_is_what_is_left_of_the_failures_that_are_allowed() {
        let took = (1..=1000).map(Duration::from_millis).collect();
        let verdicts =
            [(Verdict::Pass, 1998), (Verdict::Fail, 1), (Verdict::Missed, 7), (Verdict::Warn, 1)];
        let summary = Summary { probe: "api".into(), verdicts: verdicts.into(), took };
        let line = line(&summary, "99.9".parse().unwrap());
        assert_eq!(line.runs, 2007);
        assert_eq!(line.availability.map(available).unwrap(), "99.950%");
        assert_eq!(line.budget_left.map(budget).unwrap(), "50%");
        assert_eq!((line.p50_s, line.p99_s), (Some(0.5), Some(0.99)));
    }

    #[test]
    fn availability_is_not_rounded_up_to_what_was_promised() {
        assert_eq!(available(0.999_999_9), "99.999%");
    }

    #[test]
    fn what_is_no_availability_says_what_to_write() {
        for text in ["100", "0", "-1", "NaN", "high"] {
            assert!(text.parse::<Slo>().unwrap_err().contains("such as 99.9"), "{text}");
        }
    }
}

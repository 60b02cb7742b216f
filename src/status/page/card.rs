//! One probe on the page: verdict, reason, recent runs, numbers, and the details behind them.

use std::collections::HashMap;
use std::fmt::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use super::evidence;
use super::text::{Escaped, Glyph, Short, ago, moment};
use super::{Room, State};
use crate::board::Row;
use crate::clock::Timestamp;
use crate::outcome::{Outcome, Verdict};
use crate::period::{brief, show};
use crate::phase::Timed;

/// A name for each card that an address can point at: the same after each refresh, and none twice.
pub(super) fn anchors(rows: &[Row]) -> Vec<String> {
    let mut seen: HashMap<String, usize> = HashMap::new();
    let keep = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' };
    let name = |row: &Row| {
        let plain: String = row.name.as_str().chars().map(keep).collect();
        let times = seen.entry(plain.clone()).or_default();
        *times += 1;
        if *times == 1 { format!("probe-{plain}") } else { format!("probe-{plain}~{times}") }
    };
    rows.iter().map(name).collect()
}

pub(super) fn write_card(
    html: &mut String,
    row: &Row,
    anchor: &str,
    now: Timestamp,
    room: &mut Room,
) -> fmt::Result {
    let state = State::of(row);
    writeln!(html, "<article id=\"{anchor}\" class=\"is-{}\">", state.class())?;
    write_head(html, row, state, anchor, now)?;
    write_runs(html, row, room.bars)?;
    write_numbers(html, row)?;
    write_reasons(html, row, now)?;
    if room.detailed > 0 {
        room.detailed -= 1;
        write_details(html, row, now, room)?;
    }
    html.write_str("</article>\n")
}

fn write_head(
    html: &mut String,
    row: &Row,
    state: State,
    anchor: &str,
    now: Timestamp,
) -> fmt::Result {
    let class = state.class();
    write!(
        html,
        "<div><div class=\"head\"><span class=\"verdict {class}\">{}{}</span><h3><a href=\"#{anchor}\">{}</a></h3>",
        Glyph(class),
        state.word(),
        Escaped(row.name.as_str()),
    )?;
    if let Some(since) = row.since.filter(|_| !row.paused) {
        write!(html, "<span class=\"dim\">for {}</span>", ago(now.since(since)))?;
    }
    write!(
        html,
        "</div>\n<p class=\"meta\"><span>{}</span><span>every {}</span>",
        row.kind,
        show(row.every)
    )?;
    match row.next_due {
        Some(due) if due > now => write!(html, "<span>next in {}</span>", ago(due.since(now)))?,
        Some(_) => html.write_str("<span>due now</span>")?,
        None => {}
    }
    for (key, value) in row.labels.iter() {
        write!(html, "<span>{}={}</span>", Escaped(key), Escaped(value))?;
    }
    html.write_str("</p></div>\n")
}

/// The recent runs as bars: as tall as they took long, failures of full height and with a notch, the unjudged hollow.
fn write_runs(html: &mut String, row: &Row, most: usize) -> fmt::Result {
    const STEP: usize = 7;
    let skipped = row.recent.len().saturating_sub(most);
    let runs: Vec<_> = row.recent.iter().skip(skipped).collect();
    let slots = most.clamp(1, 60);
    let longest = runs.iter().map(|run| run.took).max().unwrap_or_default();
    write!(
        html,
        "<svg class=\"runs\" role=\"img\" aria-label=\"{}\" viewBox=\"0 0 {} 30\" preserveAspectRatio=\"xMaxYMid meet\"><path class=\"slot\" d=\"M0 29H{}\"/>",
        told(&runs),
        slots * STEP,
        slots * STEP,
    )?;
    for (run, place) in runs.iter().zip(slots - runs.len().min(slots)..) {
        let x = place * STEP;
        write!(
            html,
            "<path class=\"{0}\" d=\"{1}\"><title>{0} {2} {3}{4}</title></path>",
            run.verdict,
            bar(run, x, longest),
            run.started.to_string().get(11..19).unwrap_or_default(),
            brief(run.took),
            run.error_type.map(|kind| format!(" {kind}")).unwrap_or_default(),
        )?;
    }
    html.write_str("</svg>\n")
}

/// The outline of one bar.
fn bar(run: &Outcome, x: usize, longest: Duration) -> String {
    match run.verdict {
        Verdict::Pass => {
            let height = height(run.took, longest);
            format!("M{x} 28v-{height}h5v{height}z")
        }
        // A peak instead of a flat top.
        Verdict::Warn => {
            let height = height(run.took, longest).max(9) - 5;
            format!("M{x} 28v-{height}l2.5 -5l2.5 5v{height}z")
        }
        // Of full height, with a notch at the top.
        Verdict::Fail => format!("M{x} 28v-27l2.5 5l2.5 -5v27z"),
        Verdict::Error => format!("M{x}.8 27.2v-25.4h3.6v25.4z"),
        Verdict::Skipped | Verdict::Missed => format!("M{x}.7 27.4v-3h3.6v3z"),
    }
}

/// Between 4 and 26, in proportion to the longest.
fn height(took: Duration, longest: Duration) -> u128 {
    4 + 22 * took.as_micros() / longest.as_micros().max(1)
}

/// The bars in words.
fn told(runs: &[&Arc<Outcome>]) -> String {
    let mut words = format!("last {} runs", runs.len());
    for verdict in Verdict::ALL {
        let count = runs.iter().filter(|run| run.verdict == *verdict).count();
        if count > 0 {
            words.extend([", ", &count.to_string(), " ", verdict.as_str()]);
        }
    }
    words
}

fn write_numbers(html: &mut String, row: &Row) -> fmt::Result {
    html.write_str("<dl class=\"numbers\">")?;
    let last = row.last.as_ref().filter(|run| run.verdict.good().is_some()).map(|run| run.took);
    for (name, length) in [("last", last), ("p50", row.p50), ("p90", row.p90), ("p99", row.p99)] {
        match length {
            Some(length) => {
                write!(html, "<div><dt>{name}</dt><dd>{}</dd></div>", brief(length))?;
            }
            None => write!(html, "<div><dt>{name}</dt><dd>–</dd></div>")?,
        }
    }
    html.write_str("</dl>\n")
}

/// Why it does not pass now; else why it last failed.
fn write_reasons(html: &mut String, row: &Row, now: Timestamp) -> fmt::Result {
    let says = |run: &&Arc<Outcome>| run.message.is_some() || run.error_type.is_some();
    let last = row.last.as_ref().filter(|run| run.verdict != Verdict::Pass).filter(says);
    if let Some(run) = last {
        write_reason(html, run, "now", "", now)?;
    }
    match &row.last_failure {
        Some(failure) if last.is_none_or(|run| run.run != failure.run) => {
            write_reason(html, failure, "past", "last failure: ", now)
        }
        _ => Ok(()),
    }
}

fn write_reason(
    html: &mut String,
    run: &Outcome,
    class: &str,
    word: &str,
    now: Timestamp,
) -> fmt::Result {
    write!(html, "<div class=\"reason {class}\">")?;
    if let Some(message) = &run.message {
        write!(html, "<p class=\"what\">{}</p>", Short(message))?;
    }
    html.write_str("<p class=\"meta\">")?;
    write!(html, "<span>{word}{}</span>", moment(run.started, now))?;
    if let Some(kind) = run.error_type {
        write!(html, "<code title=\"{}\">{kind}</code>", Escaped(kind.entry().about))?;
    }
    if let Some(blame) = run.blame {
        write!(html, "<span>blame: {blame}</span>")?;
    }
    if let Some(step) = run.decided_by()
        && run.error_type.is_some()
        && run.steps.len() > 1
    {
        write!(html, "<span>step {}</span>", Escaped(&step.name))?;
    }
    if let Some(before) = run.changed_from {
        write!(html, "<span>was {before} before</span>")?;
    }
    if run.maintenance {
        html.write_str("<span>in maintenance</span>")?;
    }
    html.write_str("</p></div>\n")
}

fn write_details(html: &mut String, row: &Row, now: Timestamp, room: &mut Room) -> fmt::Result {
    let run = row.last.as_ref().filter(|run| !run.phases.is_empty());
    let failure = row.last_failure.as_ref().filter(|run| run.evidence.is_some());
    if run.is_none() && failure.is_none() {
        return Ok(());
    }
    let summary = match (run, failure) {
        (Some(_), Some(_)) => "phases and evidence",
        (Some(_), None) => "phases",
        _ => "evidence",
    };
    let open = if room.open && row.verdict != Some(Verdict::Pass) { " open" } else { "" };
    writeln!(html, "<details{open}><summary>{summary}</summary>")?;
    html.write_str("<div class=\"split\">\n<div>")?;
    if let Some(run) = run {
        write_phases(html, run, now)?;
    }
    if let Some(failure) = failure {
        match evidence::fitting(failure, &mut room.evidence) {
            Some(evidence) => {
                evidence::write_marks(html, failure, evidence, now)?;
                html.write_str("</div>\n<div>")?;
                evidence::write_texts(html, evidence)?;
            }
            None => evidence::write_elsewhere(html, failure)?,
        }
    }
    html.write_str("</div>\n</div>\n</details>\n")
}

fn write_phases(html: &mut String, run: &Outcome, now: Timestamp) -> fmt::Result {
    writeln!(
        html,
        "<h4>Phases of the run of {}, {} in all</h4>\n<ol class=\"phases\">",
        moment(run.started, now),
        brief(run.took),
    )?;
    for phase in run.phases.iter().take(60) {
        write_phase(html, phase, run.took)?;
    }
    html.write_str("</ol>\n")
}

fn write_phase(html: &mut String, timed: &Timed, whole: Duration) -> fmt::Result {
    let permille = |length: Duration| 1000 * length.as_micros() / whole.as_micros().max(1);
    let start = permille(timed.start).min(997);
    let width = permille(timed.took).clamp(3, 1000 - start);
    let class = if timed.error.is_some() { "cut" } else { "span" };
    write!(html, "<li><span>{}", timed.phase)?;
    if timed.hop > 0 {
        write!(html, " <span class=\"dim\">request {}</span>", timed.hop + 1)?;
    }
    write!(
        html,
        "</span><svg viewBox=\"0 0 1000 12\" preserveAspectRatio=\"none\" aria-hidden=\"true\"><rect class=\"track\" width=\"1000\" height=\"12\"/><rect class=\"{class}\" x=\"{start}\" width=\"{width}\" height=\"12\"/></svg><span>{}",
        brief(timed.took),
    )?;
    if let Some(error) = timed.error {
        write!(html, " <span class=\"fail\">cut off: {error}</span>")?;
    }
    html.write_str("</span></li>\n")
}

//! Outcomes as a `JUnit` report, for the machine that runs a pipeline.

use std::borrow::Borrow;
use std::fmt::{self, Write};
use std::time::Duration;

use super::names::titles;
use crate::failure::ErrorType;
use crate::outcome::{Evidence, Outcome, Verdict};

/// How much of a body stands in the report.
const BODY: usize = 1024;

/// The report: one suite, one case an outcome.
pub(super) fn junit(outcomes: &[impl Borrow<Outcome>]) -> String {
    let outcomes: Vec<&Outcome> = outcomes.iter().map(Borrow::borrow).collect();
    let mut xml = String::new();
    match write_report(&mut xml, &outcomes, &hostname()) {
        Ok(()) => xml,
        Err(fmt::Error) => unreachable!("a String takes all that is written to it"),
    }
}

fn hostname() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "localhost".to_owned() } else { name.to_owned() }
}

fn write_report(xml: &mut String, outcomes: &[&Outcome], hostname: &str) -> fmt::Result {
    let totals = totals(outcomes);
    let started = outcomes.iter().map(|run| run.started).min().unwrap_or_default().to_string();
    writeln!(xml, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>")?;
    writeln!(xml, "<testsuites name=\"picket\" {totals}>")?;
    // Without fraction and zone, as the schema has it; UTC.
    writeln!(
        xml,
        "  <testsuite name=\"picket\" {totals} timestamp=\"{}\" hostname=\"{}\">",
        started.get(..19).unwrap_or_default(),
        Attribute(hostname),
    )?;
    let pairs: Vec<_> = outcomes.iter().map(|run| (&run.probe, &run.labels)).collect();
    for (run, title) in outcomes.iter().zip(titles(&pairs)) {
        write_case(xml, run, &title)?;
    }
    writeln!(xml, "  </testsuite>\n</testsuites>")
}

fn totals(outcomes: &[&Outcome]) -> String {
    let count =
        |wanted: &[Verdict]| outcomes.iter().filter(|run| wanted.contains(&run.verdict)).count();
    let time: Duration = outcomes.iter().map(|run| run.took).sum();
    format!(
        "tests=\"{}\" failures=\"{}\" errors=\"{}\" skipped=\"{}\" time=\"{:.6}\"",
        outcomes.len(),
        count(&[Verdict::Fail]),
        count(&[Verdict::Error]),
        count(&[Verdict::Skipped, Verdict::Missed]),
        time.as_secs_f64(),
    )
}

fn write_case(xml: &mut String, run: &Outcome, title: &str) -> fmt::Result {
    writeln!(
        xml,
        "    <testcase name=\"{}\" classname=\"{}\" time=\"{:.6}\">",
        Attribute(title),
        Attribute(&run.kind),
        run.took.as_secs_f64(),
    )?;
    write_properties(xml, run)?;
    let message = run.message.as_deref().unwrap_or_default();
    let kind = run.error_type.map(ErrorType::as_str).unwrap_or_default();
    match run.verdict {
        Verdict::Pass => {}
        Verdict::Warn => writeln!(xml, "      <system-out>{}</system-out>", Text(&told(run)))?,
        Verdict::Fail => write_broken(xml, "failure", kind, message, run)?,
        Verdict::Error => write_broken(xml, "error", kind, message, run)?,
        Verdict::Skipped | Verdict::Missed => {
            let message = if message.is_empty() { run.verdict.as_str() } else { message };
            writeln!(xml, "      <skipped message=\"{}\"/>", Attribute(message))?;
        }
    }
    writeln!(xml, "    </testcase>")
}

fn write_broken(
    xml: &mut String,
    tag: &str,
    kind: &str,
    message: &str,
    run: &Outcome,
) -> fmt::Result {
    writeln!(
        xml,
        "      <{tag} type=\"{kind}\" message=\"{}\">{}</{tag}>",
        Attribute(message),
        Text(&told(run)),
    )
}

fn write_properties(xml: &mut String, run: &Outcome) -> fmt::Result {
    let fixed = [
        ("trace_id", run.trace_id.as_str()),
        ("run", &run.run),
        ("region", run.region.as_str()),
        ("stage", run.stage.as_str()),
        ("verdict", run.verdict.as_str()),
    ];
    writeln!(xml, "      <properties>")?;
    for (name, value) in fixed {
        writeln!(xml, "        <property name=\"{name}\" value=\"{}\"/>", Attribute(value))?;
    }
    for (name, value) in run.labels.iter() {
        writeln!(
            xml,
            "        <property name=\"label.{}\" value=\"{}\"/>",
            Attribute(name),
            Attribute(value)
        )?;
    }
    writeln!(xml, "      </properties>")
}

/// What happened, in a few lines.
fn told(run: &Outcome) -> String {
    let mut lines = Vec::new();
    lines.extend(run.message.clone());
    lines.extend(run.error_type.map(|kind| format!("error type: {kind}")));
    lines.extend(run.blame.map(|blame| format!("blame: {blame}")));
    for step in run.steps.iter().filter(|step| step.error_type.is_some() && run.steps.len() > 1) {
        lines.push(format!("step {}: {}", step.name, step.message.as_deref().unwrap_or_default()));
    }
    if let Some(evidence) = &run.evidence {
        lines.extend(shown(evidence));
    }
    lines.join("\n")
}

fn shown(evidence: &Evidence) -> Vec<String> {
    let parts = [
        ("expectation", &evidence.expectation),
        ("peer", &evidence.peer),
        ("request", &evidence.request),
        ("response", &evidence.response),
        ("body", &evidence.body),
    ];
    let line = |(name, value): (&str, &Option<String>)| {
        let value = value.as_deref()?;
        let end = value.char_indices().nth(BODY).map_or(value.len(), |(at, _)| at);
        let cut = if end < value.len() { " … (cut)" } else { "" };
        Some(format!("{name}: {}{cut}", value.get(..end).unwrap_or_default().trim_end()))
    };
    parts.into_iter().filter_map(line).collect()
}

/// Text between two tags.
struct Text<'a>(&'a str);

/// Text between two quotes: line ends would otherwise read as spaces.
struct Attribute<'a>(&'a str);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|character| write_escaped(f, character))
    }
}

impl fmt::Display for Attribute<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|character| match character {
            '"' => f.write_str("&quot;"),
            '\n' => f.write_str("&#10;"),
            '\r' => f.write_str("&#13;"),
            '\t' => f.write_str("&#9;"),
            other => write_escaped(f, other),
        })
    }
}

/// What XML forbids even escaped becomes a mark.
fn write_escaped(f: &mut fmt::Formatter<'_>, character: char) -> fmt::Result {
    match character {
        '&' => f.write_str("&amp;"),
        '<' => f.write_str("&lt;"),
        '>' => f.write_str("&gt;"),
        '\r' => f.write_str("&#13;"),
        '\n' | '\t' => f.write_char(character),
        '\u{fffe}' | '\u{ffff}' => f.write_char('\u{fffd}'),
        other if other.is_control() => f.write_char('\u{fffd}'),
        other => f.write_char(other),
    }
}

#[cfg(test)]
mod tests;

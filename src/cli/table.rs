//! Outcomes as a table for a person at a terminal.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::io::IsTerminal;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::names::titles;
use crate::outcome::{Outcome, Verdict};
use crate::period::brief;

/// The narrowest column that a message is still read in; below that it stands under its row.
const MESSAGE: usize = 32;
/// The narrowest terminal that is believed.
const NARROWEST: usize = 32;
/// Before the probe's name: a mark, the longest verdict, and spaces.
const VERDICT: usize = 11;

/// The columns of the terminal that stdout is; else of `$COLUMNS`; else 100.
pub(super) fn width() -> usize {
    let terminal = rustix::termios::tcgetwinsize(std::io::stdout()).ok();
    let told = terminal.map(|size| usize::from(size.ws_col)).filter(|columns| *columns > 0);
    let said = || std::env::var("COLUMNS").ok()?.parse().ok().filter(|columns| *columns > 0);
    told.or_else(said).unwrap_or(100).max(NARROWEST)
}

/// The lines of the terminal that stdout is; 24 where it does not say.
pub(super) fn height() -> usize {
    let terminal = rustix::termios::tcgetwinsize(std::io::stdout()).ok();
    terminal.map(|size| usize::from(size.ws_row)).filter(|rows| *rows > 0).unwrap_or(24)
}

/// Whether stdout takes colour: a terminal that is not dumb, and nobody said `NO_COLOR`.
pub(super) fn colour() -> bool {
    let said = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    std::io::stdout().is_terminal()
        && said("NO_COLOR").is_none()
        && said("TERM").is_none_or(|terminal| terminal != "dumb")
}

/// One row an outcome, and a line that counts them. Nothing is cut off: what is too long goes on in the next line.
pub(super) fn render(outcomes: &[impl Borrow<Outcome>], width: usize, colour: bool) -> String {
    let outcomes: Vec<&Outcome> = outcomes.iter().map(Borrow::borrow).collect();
    let pairs: Vec<_> = outcomes.iter().map(|run| (&run.probe, &run.labels)).collect();
    let titles: Vec<_> = titles(&pairs).iter().map(|title| plain(title)).collect();
    let columns = Columns::of(&titles, width.max(NARROWEST));
    let mut text = String::new();
    for (run, title) in outcomes.iter().zip(&titles) {
        columns.write_row(&mut text, run, title, colour);
    }
    for line in wrap(&summary(&outcomes), width.max(NARROWEST)) {
        text.extend([line.as_str(), "\n"]);
    }
    text
}

/// `7 probes: 5 pass, 1 warn, 1 fail`.
fn summary(outcomes: &[&Outcome]) -> String {
    let probes: HashSet<_> = outcomes.iter().map(|run| (&run.probe, &run.labels)).collect();
    let counted = |count: usize, word: &str| {
        if count == 1 { format!("1 {word}") } else { format!("{count} {word}s") }
    };
    let mut line = counted(probes.len(), "probe");
    if outcomes.len() != probes.len() {
        line = format!("{} of {line}", counted(outcomes.len(), "run"));
    }
    let mut before = ": ";
    for verdict in Verdict::ALL {
        let count = outcomes.iter().filter(|run| run.verdict == *verdict).count();
        if count > 0 {
            line.extend([before, &count.to_string(), " ", verdict.as_str()]);
            before = ", ";
        }
    }
    line
}

/// Where the columns stand.
struct Columns {
    probe: usize,
    message: Place,
    width: usize,
}

/// Where messages stand.
enum Place {
    Beside(usize),
    Under(usize),
}

impl Columns {
    /// Durations have eight columns, and two spaces stand between columns.
    fn of(titles: &[String], width: usize) -> Self {
        let longest = titles.iter().map(|title| title.width()).max().unwrap_or_default();
        let beside = VERDICT + longest + 2 + 8 + 2;
        if beside + MESSAGE <= width {
            return Self { probe: longest, message: Place::Beside(beside), width };
        }
        let room = width.saturating_sub(VERDICT + 2 + 8);
        let under = if width >= 50 { VERDICT } else { 4 };
        Self { probe: longest.min(room), message: Place::Under(under), width }
    }

    fn write_row(&self, text: &mut String, run: &Outcome, title: &str, colour: bool) {
        let paint = Paint { verdict: run.verdict, colour };
        text.push_str(&paint.bright(&format!("{} {:<7}", mark(run.verdict), run.verdict)));
        text.push_str("  ");
        // A name that is too long for its column goes on below; the duration stands at its end.
        let mut names = wrap(title, self.probe);
        let last = names.pop().unwrap_or_default();
        for name in names {
            text.extend([&name, "\n", &" ".repeat(VERDICT)]);
        }
        let took = if ran(run) { brief(run.took) } else { "-".to_owned() };
        let gap = self.probe.saturating_sub(last.width()) + 2;
        text.extend([last, " ".repeat(gap), format!("{took:>8}")]);
        self.write_message(text, run, &paint);
        text.push('\n');
    }

    fn write_message(&self, text: &mut String, run: &Outcome, paint: &Paint) {
        let (indent, mut beside) = match self.message {
            Place::Beside(indent) => (indent, true),
            Place::Under(indent) => (indent, false),
        };
        let room = self.width.saturating_sub(indent).max(10);
        let message = run.message.as_deref().map(plain).unwrap_or_default();
        let lines = wrap(&message, room).into_iter().map(|line| (line, false));
        let why = wrap(&reason(run), room).into_iter().map(|line| (line, true));
        for (line, dim) in lines.chain(why).filter(|(line, _)| !line.is_empty()) {
            let line = if dim { paint.dim(&line) } else { line };
            if std::mem::take(&mut beside) {
                text.extend(["  ", &line]);
            } else {
                text.extend(["\n", &" ".repeat(indent), &line]);
            }
        }
    }
}

/// Where it broke and whose doing it is, in a line; nothing for what passed.
pub(super) fn reason(run: &Outcome) -> String {
    let mut parts = Vec::new();
    parts.extend(run.error_type.map(|kind| kind.to_string()));
    parts.extend(run.blame.map(|blame| format!("blame: {blame}")));
    let of_many = run.error_type.is_some() && run.steps.len() > 1;
    parts.extend(run.decided_by().filter(|_| of_many).map(|step| format!("step {}", step.name)));
    plain(&parts.join(", "))
}

/// Whether it ran at all.
fn ran(run: &Outcome) -> bool {
    match run.verdict {
        Verdict::Pass | Verdict::Warn | Verdict::Fail | Verdict::Error => true,
        Verdict::Skipped | Verdict::Missed => false,
    }
}

/// A verdict's mark, so that nobody needs to tell colours apart.
pub(super) fn mark(verdict: Verdict) -> char {
    match verdict {
        Verdict::Pass => '✓',
        Verdict::Warn => '!',
        Verdict::Fail => '✗',
        Verdict::Error => '?',
        Verdict::Skipped => '-',
        Verdict::Missed => '○',
    }
}

/// A verdict's colour, where colour is wanted.
pub(super) struct Paint {
    pub(super) verdict: Verdict,
    pub(super) colour: bool,
}

impl Paint {
    pub(super) fn bright(&self, text: &str) -> String {
        let code = match self.verdict {
            Verdict::Pass => "32",
            Verdict::Warn => "33",
            Verdict::Fail => "1;31",
            Verdict::Error => "1;35",
            Verdict::Skipped | Verdict::Missed => "2",
        };
        self.coded(code, text)
    }

    pub(super) fn dim(&self, text: &str) -> String {
        self.coded("2", text)
    }

    fn coded(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

/// The text on one line and without power over the terminal: a target's words may be in it.
pub(super) fn plain(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => safe.push('\u{fffd}'),
            other if other.is_control() => safe.extend(other.escape_default()),
            other => safe.push(other),
        }
    }
    safe
}

/// Lines of at most so many columns, broken between words where that is possible.
pub(super) fn wrap(text: &str, width: usize) -> Vec<String> {
    let width = width.max(2);
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in text.split_inclusive(' ') {
        if line.width() + word.trim_end_matches(' ').width() > width && !line.trim().is_empty() {
            lines.push(line.trim_end().to_owned());
            line.clear();
        }
        if line.is_empty() && word == " " {
            continue;
        }
        for character in word.chars() {
            if line.width() + character.width().unwrap_or(0) > width && character != ' ' {
                lines.push(std::mem::take(&mut line).trim_end().to_owned());
            }
            line.push(character);
        }
    }
    if !line.trim().is_empty() {
        lines.push(line.trim_end().to_owned());
    }
    lines
}

#[cfg(test)]
pub(in crate::cli) mod tests;

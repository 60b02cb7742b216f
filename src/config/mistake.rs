//! A mistake in a file, shown with its place, its line and what to write instead.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use unicode_width::UnicodeWidthChar;

/// A file as it was read.
#[derive(Debug, PartialEq, Eq)]
pub struct Source {
    /// Its path, as it is shown.
    pub path: PathBuf,
    /// Its text.
    pub text: String,
}

/// A place in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spot {
    /// The file.
    pub source: Arc<Source>,
    /// Where in it, in bytes.
    pub span: Range<usize>,
}

/// A mistake in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    title: String,
    advice: String,
    place: Option<Spot>,
    first: Option<(Spot, &'static str)>,
}

/// Every mistake of every file.
#[derive(Clone, Debug, Default)]
pub struct Mistakes(Vec<Mistake>);

/// Words at which a message turns from what is wrong to what to write instead.
const TURNS: &[&str] = &[
    ": write ",
    ": did you mean ",
    ": here are ",
    ": keys here are ",
    ": give ",
    ": put ",
    ": at most ",
    ": at least ",
    ": use ",
    ": say ",
];

impl Spot {
    /// A place in a file.
    pub fn new(source: &Arc<Source>, span: Range<usize>) -> Self {
        Self { source: Arc::clone(source), span }
    }

    /// The line, from 1.
    pub fn line(&self) -> usize {
        self.source.line(self.span.start).0
    }

    /// What is written there.
    pub fn text(&self) -> &str {
        self.source.text.get(self.span.clone()).unwrap_or_default()
    }

    /// Whether it stands in the header of a table.
    pub fn is_of_a_header(&self) -> bool {
        let (_, line) = self.source.line(self.span.start);
        self.source.text.get(line).unwrap_or_default().trim_start().starts_with('[')
    }

    /// The place of `at`, counted in the value of the string that is written here.
    #[must_use]
    pub fn inside(&self, at: &Range<usize>) -> Self {
        let offset = |within: usize| self.span.start + written_offset(self.text(), within);
        Self::new(&self.source, offset(at.start)..offset(at.end))
    }
}

/// Where the byte `within` of a TOML string's value stands in the string as it is written, quotes and escapes included.
fn written_offset(written: &str, within: usize) -> usize {
    let quote = ["\"\"\"", "'''", "\"", "'"].into_iter().find(|quote| written.starts_with(quote));
    let Some(quote) = quote else { return within.min(written.len()) };
    let mut at = quote.len();
    if quote.len() == 3 {
        // A line end right after the opening quotes is not part of the value.
        at += written.get(at..).map_or(0, |rest| {
            if rest.starts_with("\r\n") { 2 } else { usize::from(rest.starts_with('\n')) }
        });
    }
    let mut value = 0;
    while let Some(rest) = written.get(at..).filter(|rest| !rest.is_empty()) {
        let letter = rest.chars().next().map_or(1, char::len_utf8);
        let escaped = rest.starts_with('\\') && quote.starts_with('"');
        let (taken, made) = if escaped { escape(rest) } else { (letter, letter) };
        // A line end behind a backslash makes nothing: what comes next is behind it.
        if value >= within && made > 0 {
            break;
        }
        at += taken;
        value += made;
    }
    at.min(written.len())
}

/// How many bytes an escape takes as it is written, and how many bytes it stands for.
fn escape(rest: &str) -> (usize, usize) {
    let digits = match rest.as_bytes().get(1) {
        Some(b'x') => 2,
        Some(b'u') => 4,
        Some(b'U') => 8,
        Some(b'\n' | b'\r' | b' ' | b'\t') => {
            let skipped = rest.get(1..).map_or(0, |after| after.len() - after.trim_start().len());
            return (1 + skipped, 0);
        }
        Some(_) => return (2, 1),
        None => return (1, 1),
    };
    let stands_for = rest
        .get(2..2 + digits)
        .and_then(|digits| u32::from_str_radix(digits, 16).ok())
        .and_then(char::from_u32);
    (2 + digits, stands_for.map_or(1, char::len_utf8))
}

impl Source {
    /// The line of a byte, from 1, and the bytes of that line.
    fn line(&self, at: usize) -> (usize, Range<usize>) {
        let before = self.text.as_bytes().get(..at.min(self.text.len())).unwrap_or_default();
        let start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let rest = self.text.as_bytes().get(start..).unwrap_or_default();
        let end = rest
            .iter()
            .position(|byte| *byte == b'\n')
            .map_or(self.text.len(), |length| start + length);
        let number = before.split(|byte| *byte == b'\n').count();
        (number, start..end)
    }
}

impl Mistake {
    /// A mistake at a place. A message such as `… is no length of time: write …` is split where the advice begins.
    pub fn at(place: Spot, message: &str) -> Self {
        let (title, advice) = split(message);
        Self { title, advice, place: Some(place), first: None }
    }

    /// A mistake at a place, with what to write instead.
    pub fn advised(place: Spot, title: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { title: title.into(), advice: advice.into(), place: Some(place), first: None }
    }

    /// A mistake that has no line, such as a file that is not there.
    pub fn of_no_line(title: impl Into<String>) -> Self {
        Self { title: title.into(), advice: String::new(), place: None, first: None }
    }

    /// The same mistake, with the other place that it is about.
    #[must_use]
    pub fn with_first(mut self, first: Spot, label: &'static str) -> Self {
        self.first = Some((first, label));
        self
    }

    /// What is wrong.
    pub fn title(&self) -> &str {
        &self.title
    }

    fn order(&self) -> (Option<PathBuf>, usize) {
        let place = self.place.as_ref();
        (place.map(|spot| spot.source.path.clone()), place.map_or(0, |spot| spot.span.start))
    }
}

fn split(message: &str) -> (String, String) {
    let turn = TURNS.iter().filter_map(|turn| message.find(turn)).min();
    match turn.and_then(|at| Some((message.get(..at)?, message.get(at + 2..)?))) {
        Some((title, advice)) => (title.to_owned(), advice.to_owned()),
        None => (message.to_owned(), String::new()),
    }
}

impl Mistakes {
    /// Notes a mistake, unless it is known: each member of a matrix finds the same ones.
    pub fn push(&mut self, mistake: Mistake) {
        if !self.0.contains(&mistake) {
            self.0.push(mistake);
        }
    }

    /// Notes the mistakes of another.
    pub fn extend(&mut self, others: Self) {
        for mistake in others.0 {
            self.push(mistake);
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &Mistake> {
        self.0.iter()
    }

    /// The answer, if nothing is wrong.
    pub fn or<T>(mut self, answer: T) -> Result<T, Self> {
        if self.0.is_empty() {
            return Ok(answer);
        }
        self.0.sort_by_key(Mistake::order);
        Err(self)
    }
}

impl std::error::Error for Mistakes {}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for mistake in &self.0 {
            writeln!(f, "{mistake}")?;
        }
        let mut files: Vec<_> = self.0.iter().map(|mistake| mistake.order().0).collect();
        files.sort();
        files.dedup();
        let count = |number: usize, what: &str| {
            format!("{number} {what}{}", if number == 1 { "" } else { "s" })
        };
        write!(f, "{} in {}", count(self.0.len(), "mistake"), count(files.len(), "file"))
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "error: {}", self.title)?;
        let Some(place) = &self.place else { return Ok(()) };
        let last = self.first.as_ref().map_or(0, |(spot, _)| spot.line()).max(place.line());
        let width = last.to_string().len() + 1;
        show(f, place, width, ("-->", '^'), &self.advice)?;
        match &self.first {
            Some((spot, label)) => show(f, spot, width, (":::", '-'), label),
            None => Ok(()),
        }
    }
}

/// The most columns of a line that are shown: a longer one is cut around the place.
const COLUMNS: usize = 120;

/// One place: where it is, its line, and a mark under it.
fn show(
    f: &mut fmt::Formatter<'_>,
    spot: &Spot,
    width: usize,
    (arrow, mark): (&str, char),
    label: &str,
) -> fmt::Result {
    let (number, line) = spot.source.line(spot.span.start);
    let text = &spot.source.text;
    let before = text.get(line.start..spot.span.start).unwrap_or_default();
    let end = spot.span.end.clamp(spot.span.start, line.end.max(spot.span.start));
    let marked = text.get(spot.span.start..end).unwrap_or_default().trim_end();
    let after = text.get(spot.span.start + marked.len()..line.end).unwrap_or_default().trim_end();
    let column = before.chars().count() + 1;
    let path = spot.source.path.display();
    let (before, marked, after) = cut(&shown(before), &shown(marked), &shown(after));
    let indent = " ".repeat(columns(&before));
    let marks = mark.to_string().repeat(columns(&marked).max(1));
    writeln!(f, "{:width$}{arrow} {path}:{number}:{column}", "")?;
    writeln!(f, "{:width$} |", "")?;
    writeln!(f, "{number:>width$} | {before}{marked}{after}")?;
    writeln!(f, "{}", format!("{:width$} | {indent}{marks} {label}", "").trim_end())
}

/// A line as a terminal shows it in known columns: tabs are four blanks, what would move the cursor is a mark.
fn shown(text: &str) -> String {
    text.chars()
        .flat_map(|letter| match letter {
            '\t' => vec![' '; 4],
            letter if letter.is_control() => vec!['\u{fffd}'],
            letter => vec![letter],
        })
        .collect()
}

fn columns(text: &str) -> usize {
    text.chars().filter_map(UnicodeWidthChar::width).sum()
}

/// A long line, cut around what is marked.
fn cut(before: &str, marked: &str, after: &str) -> (String, String, String) {
    let letters = |text: &str| text.chars().count();
    if letters(before) + letters(marked) + letters(after) <= COLUMNS {
        return (before.to_owned(), marked.to_owned(), after.to_owned());
    }
    let head = |text: &str, most: usize| -> String {
        let short: String = text.chars().take(most).collect();
        if short.len() < text.len() { short + "…" } else { short }
    };
    let skipped = letters(before).saturating_sub(COLUMNS / 2);
    let start: String = before.chars().skip(skipped).collect();
    let start = if skipped > 0 { format!("…{start}") } else { start };
    let marked = head(marked, COLUMNS);
    let left = COLUMNS.saturating_sub(letters(&start) + letters(&marked)).max(COLUMNS / 6);
    (start, marked, head(after, left))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spot(text: &str, marked: &str) -> Spot {
        let start = text.find(marked).unwrap();
        let source = Source { path: "probes/orders.toml".into(), text: text.to_owned() };
        Spot::new(&Arc::new(source), start..start + marked.len())
    }

    #[test]
    fn a_mistake_shows_its_line_and_what_to_write() {
        let place = spot("[probe.x]\nexepct = []\n", "exepct");
        let mistake = Mistake::at(place, "unknown key `exepct`: did you mean `expect`?");
        assert_eq!(
            mistake.to_string(),
            "error: unknown key `exepct`\n  --> probes/orders.toml:2:1\n   |\n 2 | exepct = []\n   | ^^^^^^ did you mean `expect`?\n"
        );
    }

    #[test]
    fn tabs_and_wide_letters_do_not_move_the_caret() {
        let place = spot("\ta = \"日本\", b = 1", "b");
        let shown = Mistake::advised(place, "no", "").to_string();
        let lines: Vec<_> = shown.lines().collect();
        assert_eq!(lines[1], "  --> probes/orders.toml:1:12");
        assert_eq!(lines[3], " 1 |     a = \"日本\", b = 1");
        assert_eq!(lines[4], format!("   | {}^", " ".repeat(16)));
    }

    #[test]
    fn a_place_in_a_string_is_found_behind_quotes_and_escapes() {
        for (written, value, wanted) in [
            (r#""a ${b}""#, "a ${b}", "${b}"),
            (r#""\t\u00e9\"${b}""#, "\té\"${b}", "${b}"),
            ("'''\n${b}'''", "${b}", "${b}"),
            ("\"\"\"a\\\n   ${b}\"\"\"", "a${b}", "${b}"),
        ] {
            let at = value.find("${b}").unwrap();
            let whole = spot(written, written);
            let found = whole.inside(&(at..at + 4));
            assert_eq!(written.get(found.span).unwrap(), wanted, "{written}");
        }
    }

    #[test]
    fn a_long_line_is_cut_around_the_place() {
        let text = format!("{}here{}", "a".repeat(500), "b".repeat(500));
        let shown = Mistake::advised(spot(&text, "here"), "no", "").to_string();
        assert!(shown.lines().all(|line| line.chars().count() < 300), "{shown}");
        assert!(shown.contains("…a") && shown.contains("here") && shown.contains("b…"));
    }
}

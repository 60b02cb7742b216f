//! The page: plain HTML that needs no script, worst news first, and no larger than a bound.

use std::fmt::{self, Write};

use crate::board::{Row, Snapshot};
use crate::clock::Timestamp;
use crate::outcome::Verdict;

mod card;
mod evidence;
mod text;

use text::{Escaped, Glyph, Short, ago, moment};

/// The page's style sheet; its hash stands in the policy.
pub(super) const STYLE: &str = include_str!("page/page.css");

/// Probes that get a card; the others are counted.
const CARDS: usize = 1000;
/// Bars of runs on the whole page: the more probes, the fewer for each.
const BARS: usize = 10_000;
/// Cards that have their details on the page.
const DETAILED: usize = 200;
/// Characters of evidence on the whole page; what is beyond is a link.
const EVIDENCE: usize = 512 * 1024;
/// Routes, warnings, and probes left out, that are listed.
const LISTED: usize = 50;

/// How much more the page may hold, and how it holds it.
struct Room {
    /// Whether the details of what does not pass are open: a page that is held still is there to be read.
    open: bool,
    bars: usize,
    detailed: usize,
    evidence: usize,
}

/// The page. One that refreshes loads itself anew every ten seconds.
pub(super) fn page(board: &Snapshot, refreshes: bool) -> String {
    let mut html = String::with_capacity(16 * 1024 + board.probes.len().min(CARDS) * 2048);
    match write_page(&mut html, board, refreshes) {
        Ok(()) => html,
        Err(fmt::Error) => unreachable!("a String takes all that is written to it"),
    }
}

fn write_page(html: &mut String, board: &Snapshot, refreshes: bool) -> fmt::Result {
    let headline = headline(board);
    html.write_str("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n")?;
    html.write_str("<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n")?;
    if refreshes {
        html.write_str("<meta http-equiv=\"refresh\" content=\"10\">\n")?;
    }
    writeln!(
        html,
        "<title>{} · picket {} {}</title>\n<link rel=\"icon\" href=\"{}\">\n<style>{STYLE}</style>\n</head>\n<body>",
        Escaped(&headline),
        Escaped(board.region.as_str()),
        Escaped(board.stage.as_str()),
        icon(board),
    )?;
    html.write_str(text::SHAPES)?;
    write_header(html, board, &headline)?;
    html.write_str("<main>\n")?;
    write_groups(html, board, refreshes)?;
    write_routes(html, board)?;
    write_left_out(html, board)?;
    html.write_str("</main>\n")?;
    write_footer(html, board, refreshes)?;
    html.write_str("</body>\n</html>\n")
}

/// The page in a sentence.
fn headline(board: &Snapshot) -> String {
    let count = |verdict| board.probes.iter().filter(|row| row.verdict == Some(verdict)).count();
    let (failing, unjudged) = (count(Verdict::Fail), count(Verdict::Error));
    let all = board.probes.len();
    match (all, failing, unjudged) {
        (0, ..) => "No probe is planned here".to_owned(),
        (1, 1, _) => "The probe fails".to_owned(),
        (all, 1, _) => format!("1 of {all} probes fails"),
        (all, 2.., _) => format!("{failing} of {all} probes fail"),
        (all, 0, 1..) => format!("{unjudged} of {all} probes could not be judged"),
        _ if count(Verdict::Warn) > 0 => {
            format!("No probe fails, {} with a warning", count(Verdict::Warn))
        }
        _ if board.probes.iter().all(|row| row.verdict == Some(Verdict::Pass)) => {
            if all == 1 {
                "The probe passes".to_owned()
            } else {
                format!("All {all} probes pass")
            }
        }
        _ => "No probe fails".to_owned(),
    }
}

/// The tab's icon tells the worst verdict, by shape too.
fn icon(board: &Snapshot) -> &'static str {
    let any = |verdict| board.probes.iter().any(|row| row.verdict == Some(verdict));
    if any(Verdict::Fail) {
        "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E%3Crect width='16' height='16' rx='3' fill='%23c0212f'/%3E%3Cpath d='M5 5l6 6M11 5l-6 6' stroke='white' stroke-width='2'/%3E%3C/svg%3E"
    } else if any(Verdict::Error) || any(Verdict::Warn) {
        "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E%3Cpath d='M8 1l7 14H1z' fill='%23b57b00'/%3E%3C/svg%3E"
    } else {
        "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E%3Ccircle cx='8' cy='8' r='8' fill='%2314804a'/%3E%3Cpath d='M4.5 8.5l2.5 2.5 4.5-5.5' fill='none' stroke='white' stroke-width='2'/%3E%3C/svg%3E"
    }
}

fn write_header(html: &mut String, board: &Snapshot, headline: &str) -> fmt::Result {
    writeln!(
        html,
        "<header>\n<p class=\"where\"><span><b>picket</b> {}</span><span>region <b>{}</b></span><span>stage <b>{}</b></span><span>up for {}, since {}</span></p>\n<h1>{}</h1>",
        Escaped(board.version),
        Escaped(board.region.as_str()),
        Escaped(board.stage.as_str()),
        ago(board.now.since(board.started)),
        moment(board.started, board.now),
        Escaped(headline),
    )?;
    write_counts(html, &board.probes)?;
    write_warnings(html, &board.warnings)?;
    html.write_str("</header>\n")
}

fn write_counts(html: &mut String, probes: &[Row]) -> fmt::Result {
    html.write_str("<ul class=\"counts\" aria-label=\"Probes by verdict\">\n")?;
    for state in State::ALL {
        let count = probes.iter().filter(|row| State::of(row) == *state).count();
        if count > 0 {
            let class = state.class();
            writeln!(
                html,
                "<li class=\"{class}\">{}<b>{count}</b> <span>{}</span></li>",
                Glyph(class),
                state.word(),
            )?;
        }
    }
    html.write_str("</ul>\n")
}

fn write_warnings(html: &mut String, warnings: &[String]) -> fmt::Result {
    if warnings.is_empty() {
        return Ok(());
    }
    html.write_str("<ul class=\"notes\" aria-label=\"Warnings\">\n")?;
    for warning in warnings.iter().take(LISTED) {
        writeln!(html, "<li>{}</li>", Short(warning))?;
    }
    write_rest(html, warnings.len(), "li")?;
    html.write_str("</ul>\n")
}

/// Says how many of a list are not shown.
fn write_rest(html: &mut String, all: usize, tag: &str) -> fmt::Result {
    match all.checked_sub(LISTED) {
        None | Some(0) => Ok(()),
        Some(more) => writeln!(html, "<{tag}>and {more} more</{tag}>"),
    }
}

/// What a card is filed under, worst first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    Fail,
    Error,
    Warn,
    Missed,
    Waiting,
    Skipped,
    Paused,
    Pass,
}

impl State {
    const ALL: &[Self] = &[
        Self::Fail,
        Self::Error,
        Self::Warn,
        Self::Missed,
        Self::Waiting,
        Self::Skipped,
        Self::Paused,
        Self::Pass,
    ];

    fn of(row: &Row) -> Self {
        if row.paused {
            return Self::Paused;
        }
        match row.verdict {
            Some(Verdict::Fail) => Self::Fail,
            Some(Verdict::Error) => Self::Error,
            Some(Verdict::Warn) => Self::Warn,
            Some(Verdict::Missed) => Self::Missed,
            Some(Verdict::Skipped) => Self::Skipped,
            Some(Verdict::Pass) => Self::Pass,
            None => Self::Waiting,
        }
    }

    /// The verdict's word where there is one: also the name of its colour and shape.
    fn word(self) -> &'static str {
        match self {
            Self::Fail => "fail",
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Missed => "missed",
            Self::Waiting => "not run yet",
            Self::Skipped => "skipped",
            Self::Paused => "paused",
            Self::Pass => "pass",
        }
    }

    fn class(self) -> &'static str {
        match self {
            Self::Waiting => "none",
            Self::Paused => "skipped",
            Self::Fail | Self::Error | Self::Warn | Self::Missed | Self::Skipped | Self::Pass => {
                self.word()
            }
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Fail => "Failing",
            Self::Error => "Could not be judged",
            Self::Warn => "Passing with a warning",
            Self::Missed => "Missed",
            Self::Waiting => "Not run yet",
            Self::Skipped => "Skipped",
            Self::Paused => "Paused",
            Self::Pass => "Passing",
        }
    }
}

fn write_groups(html: &mut String, board: &Snapshot, refreshes: bool) -> fmt::Result {
    if board.probes.is_empty() {
        return html.write_str("<div class=\"group\"><p class=\"empty\">Nothing runs here: write a probe file and reload.</p></div>\n");
    }
    let anchors = card::anchors(&board.probes);
    let mut cards: Vec<_> = board.probes.iter().zip(&anchors).collect();
    cards.sort_by_key(|(row, _)| State::of(row));
    let shown = cards.len().min(CARDS);
    let mut room = Room {
        open: !refreshes,
        bars: (BARS / shown.max(1)).min(60),
        detailed: DETAILED,
        evidence: EVIDENCE,
    };
    let mut open: Option<State> = None;
    for (row, anchor) in cards.iter().take(CARDS) {
        let state = State::of(row);
        if open != Some(state) {
            if open.is_some() {
                html.write_str("</div>\n</section>\n")?;
            }
            writeln!(
                html,
                "<section aria-labelledby=\"group-{0}\">\n<h2 id=\"group-{0}\">{1}</h2>\n<div class=\"group\">",
                state.word().replace(' ', "-"),
                state.title(),
            )?;
            open = Some(state);
        }
        card::write_card(html, row, anchor, board.now, &mut room)?;
    }
    html.write_str("</div>\n</section>\n")?;
    match cards.len() - shown {
        0 => Ok(()),
        more => writeln!(
            html,
            "<p class=\"dim\">{more} more probes are counted above and not shown: <a href=\"/api/plan\">the plan</a> has them all.</p>"
        ),
    }
}

fn write_routes(html: &mut String, board: &Snapshot) -> fmt::Result {
    if board.exporters.is_empty() {
        return Ok(());
    }
    html.write_str("<section aria-labelledby=\"exporters\">\n<h2 id=\"exporters\">Exporters</h2>\n<div class=\"group\"><table>\n<thead><tr><th scope=\"col\">exporter</th><th scope=\"col\">waiting</th><th scope=\"col\">oldest</th><th scope=\"col\">state</th></tr></thead>\n<tbody>\n")?;
    for route in board.exporters.iter().take(LISTED) {
        write!(html, "<tr><td>{}</td><td>{}</td>", Escaped(&route.name), route.depth)?;
        match route.oldest_age {
            Some(age) => write!(html, "<td>{}</td>", ago(age))?,
            None => html.write_str("<td>–</td>")?,
        }
        match &route.failing {
            Some(reason) => {
                writeln!(html, "<td class=\"fail\">{} {}</td></tr>", Glyph("fail"), Short(reason))?;
            }
            None => writeln!(html, "<td class=\"pass\">{} delivers</td></tr>", Glyph("pass"))?,
        }
    }
    html.write_str("</tbody></table></div>\n</section>\n")
}

fn write_left_out(html: &mut String, board: &Snapshot) -> fmt::Result {
    if board.left_out.is_empty() {
        return Ok(());
    }
    html.write_str("<section aria-labelledby=\"left-out\">\n<h2 id=\"left-out\">Written, but not run here</h2>\n<div class=\"group\"><ul class=\"plain\">\n")?;
    for (name, reason) in board.left_out.iter().take(LISTED) {
        writeln!(
            html,
            "<li><b>{}</b> <span class=\"dim\">{}</span></li>",
            Escaped(name.as_str()),
            Short(reason)
        )?;
    }
    write_rest(html, board.left_out.len(), "li")?;
    html.write_str("</ul></div>\n</section>\n")
}

fn write_footer(html: &mut String, board: &Snapshot, refreshes: bool) -> fmt::Result {
    let (address, word) = if refreshes {
        ("/?hold", "refreshes every 10 s: hold it still")
    } else {
        ("/", "held still: refresh it again")
    };
    writeln!(
        html,
        "<footer><span>as of {}</span><a href=\"{address}\">{word}</a><a href=\"/api/outcomes?failed=1\">failures</a><a href=\"/api/plan\">plan</a><a href=\"/metrics\">metrics</a></footer>",
        moment(board.now, Timestamp::default()),
    )
}

//! Text that others wrote, made safe to stand in the page; times and shapes as the page shows them.

use std::fmt;
use std::time::Duration;

use crate::clock::Timestamp;

/// Text that others wrote: no character of it is markup, and what would hide or turn text around shows as a mark.
pub(super) struct Escaped<'a>(pub(super) &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut plain = 0;
        for (at, character) in self.0.char_indices() {
            let Some(safe) = replaced(character) else { continue };
            f.write_str(self.0.get(plain..at).unwrap_or_default())?;
            f.write_str(safe)?;
            plain = at + character.len_utf8();
        }
        f.write_str(self.0.get(plain..).unwrap_or_default())
    }
}

fn replaced(character: char) -> Option<&'static str> {
    match character {
        '&' => Some("&amp;"),
        '<' => Some("&lt;"),
        '>' => Some("&gt;"),
        '"' => Some("&quot;"),
        '\'' => Some("&#39;"),
        '\n' | '\t' => None,
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => Some("\u{fffd}"),
        other if other.is_control() => Some("\u{fffd}"),
        _ => None,
    }
}

/// The same, cut where it would fill the page, with a mark that it was.
pub(super) struct Short<'a>(pub(super) &'a str);

impl fmt::Display for Short<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MOST: usize = 2000;
        match self.0.char_indices().nth(MOST) {
            None => Escaped(self.0).fmt(f),
            Some((end, _)) => {
                let left = self.0.get(end..).unwrap_or_default().chars().count();
                write!(
                    f,
                    "{}… ({left} more characters)",
                    Escaped(self.0.get(..end).unwrap_or_default())
                )
            }
        }
    }
}

/// A moment: the time of day, with the date where that is not today's.
pub(super) fn moment(moment: Timestamp, now: Timestamp) -> impl fmt::Display {
    let text = moment.to_string();
    let (date, time) = text.split_at_checked(10).unwrap_or(("", ""));
    let time = time.get(1..9).unwrap_or_default();
    let today = now.to_string().starts_with(date);
    let date = if today { String::new() } else { format!("{date} ") };
    format!("<time datetime=\"{text}\">{date}{time} UTC</time>")
}

/// A length of time in words, to its two largest units.
pub(super) fn ago(length: Duration) -> String {
    let seconds = length.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) if minutes < 5 && !seconds.is_multiple_of(60) => {
            format!("{minutes} min {} s", seconds % 60)
        }
        (0, 0, _) => format!("{minutes} min"),
        (0, _, 0) => format!("{hours} h"),
        (0, _, _) => format!("{hours} h {minutes} min"),
        (_, 0, _) => format!("{days} d"),
        _ => format!("{days} d {hours} h"),
    }
}

/// A verdict's shape, so that nobody needs to tell colours apart.
pub(super) struct Glyph(pub(super) &'static str);

impl fmt::Display for Glyph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<svg class=\"glyph\" aria-hidden=\"true\"><use href=\"#g-{}\"/></svg>", self.0)
    }
}

/// The shapes that glyphs refer to: a circled tick, a triangle, a filled square with a cross, a diamond, a bar, an
/// empty ring, a dashed ring.
pub(super) const SHAPES: &str = concat!(
    "<svg width=\"0\" height=\"0\" aria-hidden=\"true\" focusable=\"false\" display=\"none\">",
    "<symbol id=\"g-pass\" viewBox=\"0 0 16 16\"><circle cx=\"8\" cy=\"8\" r=\"6.8\"/><path d=\"M5 8.4l2.2 2.2L11 6\"/></symbol>",
    "<symbol id=\"g-warn\" viewBox=\"0 0 16 16\"><path d=\"M8 1.8l6.8 12H1.2z\"/><path d=\"M8 6.4v3.2M8 11.6v.1\"/></symbol>",
    "<symbol id=\"g-fail\" viewBox=\"0 0 16 16\"><rect x=\"1.2\" y=\"1.2\" width=\"13.6\" height=\"13.6\" rx=\"3\" fill=\"currentColor\"/><path d=\"M5.2 5.2l5.6 5.6M10.8 5.2l-5.6 5.6\" class=\"cross\"/></symbol>",
    "<symbol id=\"g-error\" viewBox=\"0 0 16 16\"><path d=\"M8 1.2L14.8 8 8 14.8 1.2 8z\"/><path d=\"M8 5.4v3M8 10.6v.1\"/></symbol>",
    "<symbol id=\"g-skipped\" viewBox=\"0 0 16 16\"><path d=\"M5.5 3.5v9M10.5 3.5v9\"/></symbol>",
    "<symbol id=\"g-missed\" viewBox=\"0 0 16 16\"><circle cx=\"8\" cy=\"8\" r=\"6.5\" stroke-dasharray=\"2.4 3\"/></symbol>",
    "<symbol id=\"g-none\" viewBox=\"0 0 16 16\"><circle cx=\"8\" cy=\"8\" r=\"6.5\"/></symbol>",
    "</svg>\n",
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_target_wrote_is_text_and_nothing_else() {
        let shown = Escaped("<script>alert('1')</script>&\u{202e}\u{1b}[2J\"x\"").to_string();
        assert_eq!(
            shown,
            "&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;&amp;\u{fffd}\u{fffd}[2J&quot;x&quot;"
        );
    }

    #[test]
    fn a_long_text_is_cut_and_says_so() {
        let shown = Short(&"ä".repeat(2010)).to_string();
        assert!(shown.ends_with("… (10 more characters)"));
    }

    #[test]
    fn lengths_of_time_read_as_people_say_them() {
        for (seconds, words) in [
            (7, "7 s"),
            (65, "1 min 5 s"),
            (600, "10 min"),
            (7200, "2 h"),
            (7500, "2 h 5 min"),
            (90_000, "1 d 1 h"),
            (86_400 * 3, "3 d"),
        ] {
            assert_eq!(ago(Duration::from_secs(seconds)), words);
        }
    }
}

//! A place in the text of an expectation, moving forward.

use std::ops::Range;

use super::Mistake;

/// A place in the text.
#[derive(Clone, Debug)]
pub(super) struct Cursor<'t> {
    text: &'t str,
    at: usize,
}

/// A part of the text, and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Token<'t> {
    pub(super) text: &'t str,
    pub(super) at: Range<usize>,
}

/// Text in quotes.
#[derive(Clone, Debug)]
pub(super) struct Quoted<'t> {
    /// What stands between the quotes, as written.
    pub(super) raw: &'t str,
    /// Where it stands, quotes included.
    pub(super) at: Range<usize>,
}

impl<'t> Cursor<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self { text, at: 0 }
    }

    pub(super) fn at(&self) -> usize {
        self.at
    }

    pub(super) fn rest(&self) -> &'t str {
        self.text.get(self.at..).unwrap_or_default()
    }

    pub(super) fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    pub(super) fn skip(&mut self, bytes: usize) {
        self.at = (self.at + bytes).min(self.text.len());
    }

    pub(super) fn skip_space(&mut self) {
        let rest = self.rest();
        self.skip(rest.len() - rest.trim_start().len());
    }

    pub(super) fn eat(&mut self, word: &str) -> bool {
        let there = self.rest().starts_with(word);
        if there {
            self.skip(word.len());
        }
        there
    }

    /// What stands from here as long as the characters fit.
    pub(super) fn take(&mut self, fits: impl Fn(char) -> bool) -> Token<'t> {
        let rest = self.rest();
        let end = rest.find(|c| !fits(c)).unwrap_or(rest.len());
        self.token(end)
    }

    /// The next bytes; they end between two characters.
    pub(super) fn token(&mut self, bytes: usize) -> Token<'t> {
        let text = self.rest().get(..bytes).unwrap_or_default();
        let start = self.at;
        self.skip(text.len());
        Token { text, at: start..self.at }
    }

    /// What stands from here to the next space: what a mistake is about.
    pub(super) fn word(&self) -> Token<'t> {
        self.clone().take(|c| !c.is_whitespace())
    }

    /// Text in quotes, if it begins here.
    pub(super) fn quoted(&mut self) -> Result<Option<Quoted<'t>>, Mistake> {
        let Some(quote @ ('\'' | '"')) = self.peek() else { return Ok(None) };
        let start = self.at;
        let inside = self.rest().get(1..).unwrap_or_default();
        let mut escaped = false;
        let end = inside.find(|c| {
            let ends = c == quote && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        });
        let Some(end) = end else {
            let message = format!("text without its end: write the closing {quote}");
            return Err(Mistake::new(start..self.text.len(), message));
        };
        self.skip(end + 2);
        let raw = inside.get(..end).unwrap_or_default();
        Ok(Some(Quoted { raw, at: start..self.at }))
    }
}

impl Quoted<'_> {
    /// The text that is meant: `\'`, `\"`, `\\`, `\n` and `\t` are read.
    pub(super) fn text(&self) -> Result<String, Mistake> {
        let mut text = String::with_capacity(self.raw.len());
        let mut chars = self.raw.char_indices();
        while let Some((at, c)) = chars.next() {
            if c != '\\' {
                text.push(c);
                continue;
            }
            match chars.next() {
                Some((_, c @ ('\'' | '"' | '\\'))) => text.push(c),
                Some((_, 'n')) => text.push('\n'),
                Some((_, 't')) => text.push('\t'),
                Some((_, c)) => {
                    let start = self.at.start + 1 + at;
                    let message = format!("no escape `\\{c}`: write \\\\ for a backslash");
                    return Err(Mistake::new(start..start + 1 + c.len_utf8(), message));
                }
                None => text.push('\\'),
            }
        }
        Ok(text)
    }
}

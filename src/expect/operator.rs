//! The operators, and which of them fit which values.

use std::ops::Range;

use super::cursor::Cursor;
use super::place::Found;
use super::{Mistake, Type};
use crate::near::nearest;

/// An operator as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Equal,
    Unequal,
    Less,
    AtMost,
    More,
    AtLeast,
    In,
    Contains,
    Matches,
    StartsWith,
    EndsWith,
    Exists,
}

use Operator::{
    AtLeast, AtMost, Contains, EndsWith, Equal, Exists, In, Less, Matches, More, StartsWith,
    Unequal,
};

const WORDS: &[(&str, Operator)] = &[
    ("==", Equal),
    ("!=", Unequal),
    ("<", Less),
    ("<=", AtMost),
    (">", More),
    (">=", AtLeast),
    ("in", In),
    ("contains", Contains),
    ("matches", Matches),
    ("starts_with", StartsWith),
    ("ends_with", EndsWith),
    ("exists", Exists),
];

/// What people write who come from elsewhere, and what it is here.
const FOREIGN: &[(&str, &str)] = &[
    ("=", "=="),
    ("===", "=="),
    ("is", "=="),
    ("eq", "=="),
    ("equals", "=="),
    ("equal", "=="),
    (":", "=="),
    ("!==", "!="),
    ("<>", "!="),
    ("ne", "!="),
    ("neq", "!="),
    ("=!", "!="),
    ("=~", "matches"),
    ("~=", "matches"),
    ("~", "matches"),
    ("like", "matches"),
    ("regex", "matches"),
    ("!~", "not matches"),
    ("=<", "<="),
    ("=>", ">="),
    ("lt", "<"),
    ("le", "<="),
    ("lte", "<="),
    ("under", "<"),
    ("below", "<"),
    ("gt", ">"),
    ("ge", ">="),
    ("gte", ">="),
    ("over", ">"),
    ("above", ">"),
    ("has", "contains"),
    ("includes", "contains"),
    ("include", "contains"),
    ("begins_with", "starts_with"),
    ("between", "in"),
    ("within", "in"),
    ("present", "exists"),
    ("isnt", "not =="),
    ("!exists", "not exists"),
    ("!in", "not in"),
    ("!contains", "not contains"),
    ("!matches", "not matches"),
    ("!", "not"),
    ("missing", "not exists"),
    ("absent", "not exists"),
];

impl Operator {
    /// Reads `not` and an operator.
    pub(super) fn read(cursor: &mut Cursor<'_>, found: &Found) -> Result<(bool, Self), Mistake> {
        cursor.skip_space();
        let mut token = word(cursor);
        let negated = token.text == "not";
        if negated {
            cursor.skip_space();
            token = word(cursor);
        }
        if token.text.is_empty() {
            let at = cursor.at()..cursor.at().max(cursor.word().at.end);
            return Err(Mistake::new(at, no_operator(found, negated)));
        }
        if let Some((_, operator)) = WORDS.iter().find(|(word, _)| *word == token.text) {
            operator.must_fit(found, token.at)?;
            return Ok((negated, *operator));
        }
        if token.text == "not" {
            return Err(Mistake::new(token.at, "one `not` is enough: leave out the second"));
        }
        Err(Mistake::new(token.at, unknown(token.text)))
    }

    /// As it is written.
    pub(super) fn as_str(self) -> &'static str {
        WORDS.iter().find(|(_, operator)| *operator == self).map_or("", |(word, _)| word)
    }

    fn must_fit(self, found: &Found, at: Range<usize>) -> Result<(), Mistake> {
        if self.fits(found.values) {
            return Ok(());
        }
        let fitting: Vec<_> = fitting(found.values).collect();
        let (last, others) = fitting.split_last().unwrap_or((&"exists", &[]));
        let message = format!(
            "`{}` does not fit `{}`, which is {}: write {} or {last}",
            self.as_str(),
            found.written,
            found.values.noun(),
            others.join(", "),
        );
        Err(Mistake::new(at, message))
    }

    fn fits(self, values: Type) -> bool {
        match (self, values) {
            (Equal | Unequal | Exists, _) | (_, Type::Any) => true,
            (In, values) => values != Type::Bool,
            (Less | AtMost | More | AtLeast, values) => values.is_ordered(),
            (Contains | Matches | StartsWith | EndsWith, values) => {
                matches!(values, Type::Text | Type::Texts)
            }
        }
    }
}

/// The operators that fit.
fn fitting(values: Type) -> impl Iterator<Item = &'static str> {
    WORDS.iter().filter(move |(_, operator)| operator.fits(values)).map(|(word, _)| *word)
}

impl Type {
    /// What a value of this type is called.
    pub(super) const fn noun(self) -> &'static str {
        match self {
            Self::Number => "a number",
            Self::Text => "text",
            Self::Length => "a length of time",
            Self::Size => "a size",
            Self::Bool => "true or false",
            Self::Version => "a version",
            Self::Texts => "a list of texts",
            Self::Any => "a JSON value",
        }
    }

    /// Whether its values have an order.
    pub(super) const fn is_ordered(self) -> bool {
        match self {
            Self::Number | Self::Length | Self::Size | Self::Version | Self::Any => true,
            Self::Text | Self::Bool | Self::Texts => false,
        }
    }
}

/// The next operator-like word: letters, or signs.
fn word<'t>(cursor: &mut Cursor<'t>) -> super::cursor::Token<'t> {
    const SIGNS: &str = "=!<>~&|:+*/%^";
    if cursor.peek().is_some_and(|c| SIGNS.contains(c)) {
        let mut whole = cursor.clone();
        let signs = whole.take(|c| SIGNS.contains(c));
        let letters = whole.take(char::is_alphabetic);
        // `!exists` is one word; `==true` is an operator and a value.
        let length = if signs.text == "!" { 1 + letters.text.len() } else { signs.text.len() };
        return cursor.token(length);
    }
    cursor.take(|c| c.is_alphanumeric() || c == '_' || c == '-')
}

fn no_operator(found: &Found, negated: bool) -> String {
    let subject = &found.written;
    let example = match found.values {
        Type::Number => "== 200",
        Type::Text | Type::Texts => "contains 'ok'",
        Type::Length => "< 800ms",
        Type::Size => "< 16KiB",
        Type::Bool => "== true",
        Type::Version => "== 2",
        Type::Any => "== 'ok'",
    };
    let not = if negated { "not " } else { "" };
    let after = if negated { "not" } else { subject };
    format!("no operator after `{after}`: write such as `{subject} {not}{example}`")
}

fn unknown(word: &str) -> String {
    let lower = word.to_lowercase();
    if let Some((_, ours)) = FOREIGN.iter().find(|(foreign, _)| *foreign == lower) {
        return format!("no operator `{word}`: did you mean `{ours}`?");
    }
    let words = || WORDS.iter().map(|(word, _)| *word);
    if word.starts_with(|c: char| c.is_ascii_digit()) {
        return format!("no operator before `{word}`: write such as `== {word}`");
    }
    if let Some(ours) = nearest(&lower.replace('-', "_"), words().filter(|word| word.len() > 2)) {
        return format!("no operator `{word}`: did you mean `{ours}`?");
    }
    let all: Vec<_> = words().collect();
    format!("no operator `{word}`: write one of {}, with `not` before it or without", all.join(" "))
}

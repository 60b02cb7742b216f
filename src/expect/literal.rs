//! The values that an expectation is written with, typed when the file is loaded.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::ops::Range;

use serde_json::Value;

use super::cursor::{Cursor, Quoted};
use super::decimal::Decimal;
use super::place::Found;
use super::seen::{Seen, parse_length};
use super::{Mistake, Type};
use crate::failure::Failure;
use crate::period;
use crate::template::{Scope, Template};

/// How deep lists may nest.
const NESTING: usize = 8;

/// A value as it is written.
#[derive(Debug)]
pub(super) struct Written<'t> {
    pub(super) at: Range<usize>,
    pub(super) form: Form<'t>,
}

#[derive(Debug)]
pub(super) enum Form<'t> {
    /// Begins with a digit: a number, a length of time, a size, a version.
    Figure(&'t str),
    Quoted(Quoted<'t>),
    Word(&'t str),
    List(Vec<Written<'t>>),
    Range(Box<Written<'t>>, Box<Written<'t>>),
}

/// A value as it is meant.
#[derive(Debug)]
pub(super) enum Literal {
    Null,
    Bool(bool),
    /// A number, or a size in bytes.
    Number(Number),
    /// A length of time in nanoseconds.
    Length(i128),
    Version(Vec<u64>),
    Text(Text),
    List(Vec<Literal>),
}

#[derive(Debug)]
pub(super) struct Number {
    exact: Decimal,
    // The same, where it fits: what most numbers are compared by.
    whole: Option<i64>,
}

#[derive(Debug)]
pub(super) enum Text {
    Plain(Box<str>),
    /// Only the run knows it.
    Template(Template),
}

impl<'t> Written<'t> {
    /// Reads the value that begins here; none when nothing does.
    pub(super) fn read(cursor: &mut Cursor<'t>) -> Result<Option<Self>, Mistake> {
        Self::read_at(cursor, 0)
    }

    fn read_at(cursor: &mut Cursor<'t>, depth: usize) -> Result<Option<Self>, Mistake> {
        cursor.skip_space();
        let Some(low) = single(cursor, depth)? else { return Ok(None) };
        let mut ahead = cursor.clone();
        ahead.skip_space();
        let dots = ahead.at();
        if !ahead.eat("..") {
            return Ok(Some(low));
        }
        if ahead.eat("=") || ahead.eat(".") {
            let message = "a range holds both of its ends: write two dots, such as 200..299";
            return Err(Mistake::new(dots..ahead.at(), message));
        }
        ahead.skip_space();
        *cursor = ahead;
        let Some(high) = single(cursor, depth)? else {
            let message = "a range has two ends: write such as 200..299";
            return Err(Mistake::new(low.at.start..cursor.at(), message));
        };
        let at = low.at.start..high.at.end;
        Ok(Some(Self { at, form: Form::Range(Box::new(low), Box::new(high)) }))
    }

    /// The value that is meant where the subject's values are of its type.
    pub(super) fn typed(&self, found: &Found) -> Result<Literal, Mistake> {
        let meant = match (found.values, &self.form) {
            (Type::Number | Type::Any, Form::Figure(text)) => {
                Number::parse(text).map(Literal::Number)
            }
            (Type::Size, Form::Figure(text)) => {
                let bytes = period::size(text).map(|bytes| bytes.to_string());
                Number::parse(bytes.as_deref().unwrap_or(text)).map(Literal::Number)
            }
            (Type::Length, Form::Figure(text)) => parse_length(text).ok().map(Literal::Length),
            (Type::Version, Form::Figure(text)) => version(text).map(Literal::Version),
            (Type::Version, Form::Quoted(quoted)) => version(quoted.raw).map(Literal::Version),
            (Type::Text | Type::Texts | Type::Any, Form::Quoted(quoted)) => {
                Some(Literal::Text(Text::read(quoted)?))
            }
            (Type::Bool | Type::Any, Form::Word("true")) => Some(Literal::Bool(true)),
            (Type::Bool | Type::Any, Form::Word("false")) => Some(Literal::Bool(false)),
            (Type::Any, Form::Word("null")) => Some(Literal::Null),
            (Type::Any, Form::List(items)) => {
                let items = items.iter().map(|item| item.typed(found));
                Some(Literal::List(items.collect::<Result<_, _>>()?))
            }
            (
                _,
                Form::Figure(_) | Form::Quoted(_) | Form::Word(_) | Form::List(_) | Form::Range(..),
            ) => None,
        };
        meant.ok_or_else(|| Mistake::new(self.at.clone(), self.unfit(found)))
    }

    /// What is wrong with the value, and what to write instead.
    fn unfit(&self, found: &Found) -> String {
        let subject = &found.written;
        match (&self.form, found.values) {
            (Form::Range(..), _) => {
                "a range stands after `in`: write such as `status in 200..299`".to_owned()
            }
            (Form::List(_), _) => format!("a list stands after `in`: write `{subject} in […]`"),
            (Form::Word(word), _)
                if ["true", "false", "null"].contains(&word.to_lowercase().as_str()) =>
            {
                unfit_word(word, found)
            }
            (Form::Word(word), Type::Text | Type::Texts | Type::Any) => {
                format!("text stands in quotes: write '{word}'")
            }
            (Form::Figure(text), Type::Text | Type::Texts) => {
                format!("`{subject}` is text, and a number never is: write '{text}'")
            }
            (Form::Quoted(quoted), Type::Number | Type::Length | Type::Size)
                if quoted.raw.starts_with(|c: char| c.is_ascii_digit()) =>
            {
                format!(
                    "`{subject}` is {}, and text never is: write {} without quotes",
                    found.values.noun(),
                    quoted.raw
                )
            }
            (Form::Figure(text), Type::Length) if Number::parse(text).is_some() => {
                format!(
                    "`{subject}` is a length of time: write the unit, such as {text}ms or {text}s"
                )
            }
            (Form::Figure(text), Type::Number | Type::Any)
                if parse_length(text).is_ok() || period::size(text).is_ok() =>
            {
                let digits = text.trim_end_matches(|c: char| c.is_alphabetic());
                format!("`{subject}` has no unit: write a number alone, such as {digits}")
            }
            (form, Type::Length) => format!(
                "{} is no length of time: write a number and a unit (ms, s, m, h, d, w), such as 800ms",
                form.quote()
            ),
            (form, Type::Size) => format!(
                "{} is no size: write a number of bytes, or a number and a unit (B, KiB, MiB, GiB, kB, MB, GB), such as 16KiB",
                form.quote()
            ),
            (form, Type::Number) => {
                format!("{} is no number, and `{subject}` is one: write such as 200", form.quote())
            }
            (form, Type::Version) => {
                format!("{} is no version: write such as 1.1 or 2", form.quote())
            }
            (form, Type::Bool) => format!(
                "{} is neither true nor false: write `{subject} == true` or `{subject} == false`",
                form.quote()
            ),
            (form, Type::Text | Type::Texts) => format!(
                "{} is no text, and `{subject}` is: write it in quotes, such as 'ok'",
                form.quote()
            ),
            (form, Type::Any) => format!(
                "{} is no value: write a number, 'text', true, false, null or a list",
                form.quote()
            ),
        }
    }
}

/// What is wrong with `true`, `false` or `null` where it stands.
fn unfit_word(word: &str, found: &Found) -> String {
    let lower = word.to_lowercase();
    let wanted = match found.values {
        Type::Any => true,
        Type::Bool => lower != "null",
        Type::Number | Type::Text | Type::Length | Type::Size | Type::Version | Type::Texts => {
            false
        }
    };
    match lower.as_str() {
        lower if wanted => format!("write {lower}, in lower case"),
        "null" => format!("`{0}` is never null: write `{0} not exists`", found.written),
        _ if found.values == Type::Text => format!("text stands in quotes: write '{word}'"),
        _ => format!("`{}` is {}, never {lower}", found.written, found.values.noun()),
    }
}

impl Form<'_> {
    fn quote(&self) -> String {
        match self {
            Self::Figure(text) | Self::Word(text) => format!("`{text}`"),
            Self::Quoted(quoted) => format!("'{}'", quoted.raw),
            Self::List(_) => "a list".to_owned(),
            Self::Range(..) => "a range".to_owned(),
        }
    }
}

/// A value that is no range.
fn single<'t>(cursor: &mut Cursor<'t>, depth: usize) -> Result<Option<Written<'t>>, Mistake> {
    if let Some(quoted) = cursor.quoted()? {
        return Ok(Some(Written { at: quoted.at.clone(), form: Form::Quoted(quoted) }));
    }
    match cursor.peek() {
        None => Ok(None),
        Some('[') => list(cursor, depth).map(Some),
        Some(c) if c.is_ascii_digit() || c == '-' => {
            let token = cursor.token(figure(cursor.rest()));
            Ok(Some(Written { at: token.at, form: Form::Figure(token.text) }))
        }
        Some(c) if c.is_alphabetic() || c == '_' => {
            let token = cursor.take(|c| c.is_alphanumeric() || "_-".contains(c));
            Ok(Some(Written { at: token.at, form: Form::Word(token.text) }))
        }
        Some(_) => {
            let token = cursor.word();
            let message = format!(
                "`{}` is no value: write a number, 'text', true, false, null, a list or a range",
                token.text
            );
            Err(Mistake::new(token.at, message))
        }
    }
}

/// How many bytes from here belong to a figure: `-1.5e-3`, `1m30s`, `16KiB`, though not the dots of a range.
fn figure(text: &str) -> usize {
    let bytes = text.as_bytes();
    let is = |at: usize, fits: fn(&u8) -> bool| bytes.get(at).is_some_and(fits);
    let mut end = usize::from(text.starts_with('-'));
    loop {
        let exponent = |at: usize| at > 0 && is(at - 1, |b| matches!(b, b'e' | b'E'));
        if is(end, u8::is_ascii_alphanumeric)
            || is(end, |b| *b == b'_')
            || (is(end, |b| *b == b'.') && is(end + 1, u8::is_ascii_digit))
            || (is(end, |b| matches!(b, b'+' | b'-'))
                && exponent(end)
                && is(end + 1, u8::is_ascii_digit))
        {
            end += 1;
        } else {
            return end;
        }
    }
}

fn list<'t>(cursor: &mut Cursor<'t>, depth: usize) -> Result<Written<'t>, Mistake> {
    let start = cursor.at();
    if depth == NESTING {
        return Err(Mistake::new(start..start + 1, format!("lists nest at most {NESTING} deep")));
    }
    cursor.eat("[");
    let mut items = Vec::new();
    loop {
        cursor.skip_space();
        if cursor.eat("]") {
            return Ok(Written { at: start..cursor.at(), form: Form::List(items) });
        }
        match Written::read_at(cursor, depth + 1)? {
            Some(item) => items.push(item),
            None => {
                return Err(Mistake::new(
                    start..cursor.at(),
                    "a list without its end: write the closing ]",
                ));
            }
        }
        cursor.skip_space();
        if !cursor.eat(",") && !cursor.rest().starts_with(']') {
            let at = cursor.word().at;
            let message =
                "a list's values stand between commas and end with ]: write such as [204, 404]";
            return Err(Mistake::new(at, message));
        }
    }
}

/// The numbers of a version such as `1.1`.
fn version(text: &str) -> Option<Vec<u64>> {
    let whole = |part: &str| {
        let digits = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| part.parse().ok()).flatten()
    };
    let mut parts: Vec<u64> = text.split('.').map(whole).collect::<Option<_>>()?;
    // 2 and 2.0 are the same.
    while parts.len() > 1 && parts.last() == Some(&0) {
        parts.pop();
    }
    Some(parts)
}

impl Number {
    fn parse(text: &str) -> Option<Self> {
        Some(Self { exact: Decimal::parse(text)?, whole: text.parse().ok() })
    }

    /// How what was seen compares with it; none when that is no number.
    fn order(&self, seen: &Seen<'_>) -> Option<Ordering> {
        let exact = |text: &str| Decimal::parse(text).map(|seen| seen.cmp(&self.exact));
        match seen {
            Seen::Integer(seen) => match self.whole {
                Some(whole) => Some(seen.cmp(&whole)),
                None => exact(&seen.to_string()),
            },
            Seen::Float(seen) => exact(&seen.to_string()),
            Seen::Digits(digits) => exact(digits),
            Seen::Null
            | Seen::Bool(_)
            | Seen::Nanos(_)
            | Seen::Text(_)
            | Seen::List(_)
            | Seen::Json(..) => None,
        }
    }
}

impl Text {
    fn read(quoted: &Quoted<'_>) -> Result<Self, Mistake> {
        let text = quoted.text()?;
        let template = Template::parse_line(&text)
            .map_err(|mistake| Mistake::new(quoted.at.clone(), mistake.message))?;
        Ok(match template.literal() {
            Some(text) => Self::Plain(text.into()),
            None => Self::Template(template),
        })
    }

    /// The text that is meant in this run.
    pub(super) fn get(&self, scope: &Scope) -> Result<Cow<'_, str>, Failure> {
        match self {
            Self::Plain(text) => Ok(Cow::Borrowed(text)),
            Self::Template(template) => template.render(scope).map(Cow::Owned),
        }
    }
}

impl Literal {
    /// Whether what was seen is the same value. Text is never a number.
    pub(super) fn equals(&self, seen: &Seen<'_>, scope: &Scope) -> Result<bool, Failure> {
        Ok(match (self, seen) {
            (Self::Null, Seen::Null) => true,
            (Self::Bool(meant), Seen::Bool(seen)) => meant == seen,
            (Self::Text(meant), Seen::Text(seen)) => meant.get(scope)? == *seen,
            (Self::List(meant), Seen::Json(json, Value::Array(items))) => {
                if meant.len() != items.len() {
                    return Ok(false);
                }
                for (meant, item) in meant.iter().zip(items) {
                    if !meant.equals(&Seen::of(json, item), scope)? {
                        return Ok(false);
                    }
                }
                true
            }
            (Self::Number(_) | Self::Length(_) | Self::Version(_), seen) => {
                self.order(seen) == Some(Ordering::Equal)
            }
            (Self::Null | Self::Bool(_) | Self::Text(_) | Self::List(_), _) => false,
        })
    }

    /// How what was seen compares with this; none when the two have no order.
    pub(super) fn order(&self, seen: &Seen<'_>) -> Option<Ordering> {
        match self {
            Self::Number(number) => number.order(seen),
            Self::Length(nanos) => seen.nanos().map(|seen| seen.cmp(nanos)),
            Self::Version(meant) => match seen {
                Seen::Text(text) => version(text).map(|seen| seen.cmp(meant)),
                Seen::Null
                | Seen::Bool(_)
                | Seen::Integer(_)
                | Seen::Float(_)
                | Seen::Digits(_)
                | Seen::Nanos(_)
                | Seen::List(_)
                | Seen::Json(..) => None,
            },
            Self::Null | Self::Bool(_) | Self::Text(_) | Self::List(_) => None,
        }
    }

    /// Whether one value comes after another of its type.
    pub(super) fn is_after(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Number(low), Self::Number(high)) => low.exact > high.exact,
            (Self::Length(low), Self::Length(high)) => low > high,
            (Self::Version(low), Self::Version(high)) => low > high,
            _ => false,
        }
    }
}

//! What was seen of a subject, and how a message quotes it.

use std::borrow::Cow;
use std::time::Duration;

use serde_json::Value;

use super::Type;
use super::place::nanos;
use crate::outcome::Fact;
use crate::period::{self, Size};
use crate::reading::Json;

/// How many characters of a value a message quotes.
const QUOTED: usize = 120;

/// All that was seen of a subject.
#[derive(Debug)]
pub(super) enum Sight<'r> {
    /// Nothing.
    Missing,
    /// One value.
    One(Seen<'r>),
    /// Several of which one is enough.
    Some(Vec<Seen<'r>>),
    /// Several values of a document which all count.
    Every(&'r Json, Vec<&'r Value>),
}

/// One value that was seen.
#[derive(Debug)]
pub(super) enum Seen<'r> {
    Null,
    Bool(bool),
    Integer(i64),
    Float(f64),
    /// A number as its decimal digits say.
    Digits(Cow<'r, str>),
    /// A length of time.
    Nanos(i128),
    Text(Cow<'r, str>),
    List(&'r [Fact]),
    /// An array or an object.
    Json(&'r Json, &'r Value),
}

impl<'r> Sight<'r> {
    /// Several values of which one is enough.
    pub(super) fn some(mut values: Vec<Seen<'r>>) -> Self {
        match values.len() {
            0 => Self::Missing,
            1 => values.pop().map_or(Self::Missing, Self::One),
            _ => Self::Some(values),
        }
    }

    /// Several values which all count.
    pub(super) fn every(json: &'r Json, values: Vec<&'r Value>) -> Self {
        match values.as_slice() {
            [] => Self::Missing,
            [value] => Self::One(Seen::of(json, value)),
            _ => Self::Every(json, values),
        }
    }
}

impl<'r> From<&'r Fact> for Seen<'r> {
    fn from(fact: &'r Fact) -> Self {
        match fact {
            Fact::Bool(value) => Self::Bool(*value),
            Fact::Integer(value) => Self::Integer(*value),
            Fact::Number(value) => Self::Float(*value),
            Fact::Text(text) => Self::Text(Cow::Borrowed(text)),
            Fact::List(facts) => Self::List(facts),
        }
    }
}

impl<'r> Seen<'r> {
    /// A value of a document.
    pub(super) fn of(json: &'r Json, value: &'r Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(value) => Self::Bool(*value),
            Value::String(text) => Self::Text(Cow::Borrowed(text)),
            Value::Number(number) => match number.as_i64() {
                Some(whole) => Self::Integer(whole),
                None => Self::Digits(json.number(value).unwrap_or_default()),
            },
            Value::Array(_) | Value::Object(_) => Self::Json(json, value),
        }
    }

    /// As a length of time in nanoseconds: facts are in seconds.
    pub(super) fn nanos(&self) -> Option<i128> {
        match self {
            Self::Nanos(nanos) => Some(*nanos),
            Self::Integer(seconds) => Some(i128::from(*seconds) * 1_000_000_000),
            #[expect(
                clippy::cast_possible_truncation,
                reason = "rounded, and `as` ends at the bounds"
            )]
            Self::Float(seconds) if seconds.is_finite() => Some((seconds * 1e9).round() as i128),
            Self::Float(_)
            | Self::Null
            | Self::Bool(_)
            | Self::Digits(_)
            | Self::Text(_)
            | Self::List(_)
            | Self::Json(..) => None,
        }
    }

    /// As a message quotes it. `clean` hides secrets; `beside` is the text that it will stand beside.
    pub(super) fn quote(
        &self,
        values: Type,
        beside: &str,
        clean: &dyn Fn(&str) -> String,
    ) -> String {
        let whole = match (self, values) {
            (Self::Text(text), Type::Version) => clean(text),
            (Self::Nanos(nanos), _) => length(*nanos, beside),
            (_, Type::Length) => match self.nanos() {
                Some(nanos) => length(nanos, beside),
                None => self.plain(clean),
            },
            // Written with a unit when the expectation is.
            (Self::Integer(bytes), Type::Size) if beside.contains('B') => {
                match u64::try_from(*bytes) {
                    Ok(bytes) => Size::new(bytes).to_string(),
                    Err(_) => bytes.to_string(),
                }
            }
            _ => self.plain(clean),
        };
        // Cleaned before it is cut: the first half of a secret is one too.
        shorten(clean(&whole))
    }

    /// JSON style, whatever its type.
    fn plain(&self, clean: &dyn Fn(&str) -> String) -> String {
        match self {
            Self::Null => "null".to_owned(),
            Self::Bool(value) => value.to_string(),
            Self::Integer(value) => value.to_string(),
            Self::Float(value) => value.to_string(),
            Self::Digits(digits) => digits.clone().into_owned(),
            Self::Nanos(nanos) => length(*nanos, ""),
            Self::Text(text) => quoted(&clean(text)),
            Self::List(facts) => {
                let all = facts.iter().map(|fact| Seen::from(fact).plain(clean));
                format!("[{}]", all.collect::<Vec<_>>().join(","))
            }
            Self::Json(json, value) => json.write(value, 4 * QUOTED, clean),
        }
    }

    /// As text for later steps: what a capture keeps. Null is no value.
    pub(super) fn capture(&self) -> Option<String> {
        let same = |text: &str| text.to_owned();
        match self {
            Self::Null => None,
            Self::Text(text) => Some(text.clone().into_owned()),
            Self::Nanos(nanos) => Some(seconds(*nanos)),
            Self::Json(json, value) => Some(json.write(value, usize::MAX, &same)),
            Self::Bool(_) | Self::Integer(_) | Self::Float(_) | Self::Digits(_) | Self::List(_) => {
                Some(self.plain(&same))
            }
        }
    }
}

/// Several values as a message quotes them.
pub(super) fn quote_all(
    all: &[Seen<'_>],
    values: Type,
    beside: &str,
    clean: &dyn Fn(&str) -> String,
) -> String {
    // More than a message can hold are not even written.
    let shown: Vec<_> =
        all.iter().take(QUOTED).map(|one| one.quote(values, beside, clean)).collect();
    shorten(format!("[{}]", shown.join(",")))
}

/// JSON style.
pub(super) fn show(fact: &Fact) -> String {
    shorten(Seen::from(fact).plain(&str::to_owned))
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// Cuts what is too long, and says so with a mark.
pub(super) fn shorten(mut text: String) -> String {
    if let Some((cut, _)) = text.char_indices().nth(QUOTED) {
        text.truncate(cut);
        text.push('…');
    }
    text
}

/// A length of time as people write it; to its last digit when the short form would stand beside itself.
fn length(nanos: i128, beside: &str) -> String {
    const MILLI: u64 = 1_000_000;
    const SECOND: u64 = 1000 * MILLI;
    const HOUR: u64 = 3600 * SECOND;
    const DAY: u64 = 24 * HOUR;
    let sign = if nanos < 0 { "-" } else { "" };
    let size = u64::try_from(nanos.unsigned_abs()).unwrap_or(u64::MAX);
    // Cut, not rounded: 13.99 days are not 14.
    let tenths = |unit: u64| format!("{}.{}", size / unit, size % unit / (unit / 10));
    // The odd nanosecond makes it a fraction of the unit.
    let hundredths = |unit: u64| period::show(Duration::from_nanos(size - size % (unit / 100) + 1));
    let short = match size {
        _ if size >= 2 * DAY && !size.is_multiple_of(DAY) => format!("{}d", tenths(DAY)),
        _ if size >= 2 * HOUR && !size.is_multiple_of(HOUR) => format!("{}h", tenths(HOUR)),
        _ if size >= SECOND && !size.is_multiple_of(SECOND) => hundredths(SECOND),
        _ if size >= MILLI && !size.is_multiple_of(MILLI) => hundredths(MILLI),
        _ => period::show(Duration::from_nanos(size)),
    };
    if beside.contains(&short) {
        return format!("{}s", seconds(nanos));
    }
    format!("{sign}{short}")
}

/// A length of time in seconds, to its last digit.
fn seconds(nanos: i128) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let size = nanos.unsigned_abs();
    let text = format!("{sign}{}.{:09}", size / 1_000_000_000, size % 1_000_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A length of time in nanoseconds, of text such as `800ms` or `-1d`.
pub(super) fn parse_length(text: &str) -> Result<i128, String> {
    match text.strip_prefix('-') {
        Some(text) => period::length(text).map(|length| -nanos(length)),
        None => period::length(text).map(nanos),
    }
}

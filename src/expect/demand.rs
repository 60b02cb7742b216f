//! An operator with its value: what is asked of each value that was seen.

use std::cmp::Ordering;

use regex::{Regex, RegexBuilder};
use serde_json::Value;

use super::Mistake;
use super::cursor::{Cursor, Quoted};
use super::literal::{Form, Literal, Text, Written};
use super::operator::Operator;
use super::place::Found;
use super::seen::Seen;
use crate::failure::Failure;
use crate::template::Scope;

/// The memory that a compiled pattern may take.
const PATTERN: usize = 1 << 20;

/// What is asked of a value.
#[derive(Debug)]
pub(super) enum Demand {
    Exists,
    Equals(Literal),
    Less(Literal),
    AtMost(Literal),
    More(Literal),
    AtLeast(Literal),
    /// Both ends included.
    Between(Literal, Literal),
    OneOf(Vec<Literal>),
    Contains(Literal),
    Matches(Box<Regex>),
    StartsWith(Text),
    EndsWith(Text),
}

impl Demand {
    /// Reads the value that the operator asks for, and types it.
    pub(super) fn read(
        cursor: &mut Cursor<'_>,
        operator: Operator,
        found: &Found,
    ) -> Result<Self, Mistake> {
        if operator == Operator::Exists {
            return Ok(Self::Exists);
        }
        let Some(written) = Written::read(cursor)? else {
            return Err(Mistake::new(cursor.at()..cursor.at(), no_value(operator)));
        };
        match operator {
            Operator::Exists => Ok(Self::Exists),
            Operator::Equal | Operator::Unequal => written.typed(found).map(Self::Equals),
            Operator::Less => ordered(&written, operator, found).map(Self::Less),
            Operator::AtMost => ordered(&written, operator, found).map(Self::AtMost),
            Operator::More => ordered(&written, operator, found).map(Self::More),
            Operator::AtLeast => ordered(&written, operator, found).map(Self::AtLeast),
            Operator::In => one_of(&written, found),
            Operator::Contains => written.typed(found).map(Self::Contains),
            Operator::Matches => pattern(quoted(&written, operator)?).map(Self::Matches),
            Operator::StartsWith => text(&written, operator, found).map(Self::StartsWith),
            Operator::EndsWith => text(&written, operator, found).map(Self::EndsWith),
        }
    }

    /// Whether it holds for a value; none when the value is of a type of which it cannot be asked.
    pub(super) fn ask(&self, seen: &Seen<'_>, scope: &Scope) -> Result<Option<bool>, Failure> {
        let order = |meant: &Literal, fits: fn(Ordering) -> bool| meant.order(seen).map(fits);
        Ok(match self {
            Self::Exists => Some(true),
            Self::Equals(meant) => Some(meant.equals(seen, scope)?),
            Self::Less(meant) => order(meant, Ordering::is_lt),
            Self::AtMost(meant) => order(meant, Ordering::is_le),
            Self::More(meant) => order(meant, Ordering::is_gt),
            Self::AtLeast(meant) => order(meant, Ordering::is_ge),
            Self::Between(low, high) => match (low.order(seen), high.order(seen)) {
                (Some(low), Some(high)) => Some(low.is_ge() && high.is_le()),
                (None, _) | (_, None) => None,
            },
            Self::OneOf(all) => Some(any_equals(all.iter(), seen, scope)?),
            Self::Contains(meant) => contains(meant, seen, scope)?,
            Self::Matches(pattern) => as_text(seen).map(|text| pattern.is_match(text)),
            Self::StartsWith(head) => {
                let head = head.get(scope)?;
                as_text(seen).map(|text| text.starts_with(head.as_ref()))
            }
            Self::EndsWith(tail) => {
                let tail = tail.get(scope)?;
                as_text(seen).map(|text| text.ends_with(tail.as_ref()))
            }
        })
    }
}

fn any_equals<'l>(
    all: impl Iterator<Item = &'l Literal>,
    seen: &Seen<'_>,
    scope: &Scope,
) -> Result<bool, Failure> {
    for meant in all {
        if meant.equals(seen, scope)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Text has a part, an array an item.
fn contains(meant: &Literal, seen: &Seen<'_>, scope: &Scope) -> Result<Option<bool>, Failure> {
    if let Seen::Json(json, Value::Array(items)) = seen {
        for item in items {
            if meant.equals(&Seen::of(json, item), scope)? {
                return Ok(Some(true));
            }
        }
        return Ok(Some(false));
    }
    let (Literal::Text(part), Some(text)) = (meant, as_text(seen)) else { return Ok(None) };
    Ok(Some(text.contains(part.get(scope)?.as_ref())))
}

fn as_text<'s>(seen: &'s Seen<'_>) -> Option<&'s str> {
    match seen {
        Seen::Text(text) => Some(text),
        Seen::Null
        | Seen::Bool(_)
        | Seen::Integer(_)
        | Seen::Float(_)
        | Seen::Digits(_)
        | Seen::Nanos(_)
        | Seen::List(_)
        | Seen::Json(..) => None,
    }
}

fn no_value(operator: Operator) -> String {
    let word = operator.as_str();
    let example = match operator {
        Operator::In => "200..299` or `in [204, 404]",
        Operator::Matches => "'^ok'",
        Operator::Contains | Operator::StartsWith | Operator::EndsWith => "'ok'",
        Operator::Equal
        | Operator::Unequal
        | Operator::Less
        | Operator::AtMost
        | Operator::More
        | Operator::AtLeast
        | Operator::Exists => "200",
    };
    format!("no value after `{word}`: write such as `{word} {example}`")
}

fn ordered(written: &Written<'_>, operator: Operator, found: &Found) -> Result<Literal, Mistake> {
    let word = operator.as_str();
    let refused = |message: String| Err(Mistake::new(written.at.clone(), message));
    match (written.typed(found)?, &written.form) {
        (Literal::Text(_), Form::Quoted(quoted))
            if quoted.raw.starts_with(|c: char| c.is_ascii_digit()) =>
        {
            refused(format!(
                "`{word}` compares numbers, and text is never one: write {} without quotes",
                quoted.raw
            ))
        }
        (Literal::Null | Literal::Bool(_) | Literal::Text(_) | Literal::List(_), _) => refused(
            format!("`{word}` compares numbers: write such as `{} {word} 10`", found.written),
        ),
        (meant @ (Literal::Number(_) | Literal::Length(_) | Literal::Version(_)), _) => Ok(meant),
    }
}

fn one_of(written: &Written<'_>, found: &Found) -> Result<Demand, Mistake> {
    let refused = |message: String| Err(Mistake::new(written.at.clone(), message));
    match &written.form {
        Form::List(items) if items.is_empty() => {
            refused("nothing is in an empty list: write such as [204, 404]".to_owned())
        }
        Form::List(items) => {
            let all = items.iter().map(|item| item.typed(found));
            Ok(Demand::OneOf(all.collect::<Result<_, _>>()?))
        }
        Form::Range(low, high) => {
            if !found.values.is_ordered() {
                return refused(format!(
                    "a range has no sense for `{}`, which is {}: write a list, such as ['a', 'b']",
                    found.written,
                    found.values.noun()
                ));
            }
            let (from, to) =
                (ordered(low, Operator::In, found)?, ordered(high, Operator::In, found)?);
            if from.is_after(&to) {
                return refused(format!(
                    "the range is reversed: write {}..{}",
                    end_text(high),
                    end_text(low)
                ));
            }
            Ok(Demand::Between(from, to))
        }
        Form::Figure(_) | Form::Quoted(_) | Form::Word(_) => refused(
            "`in` asks for a range or a list: write such as `in 200..299` or `in [204, 404]`"
                .to_owned(),
        ),
    }
}

/// An end of a range as it was written.
fn end_text<'t>(end: &Written<'t>) -> &'t str {
    match &end.form {
        Form::Figure(text) | Form::Word(text) => text,
        Form::Quoted(quoted) => quoted.raw,
        Form::List(_) | Form::Range(..) => "",
    }
}

fn text(written: &Written<'_>, operator: Operator, found: &Found) -> Result<Text, Mistake> {
    quoted(written, operator)?;
    match written.typed(found)? {
        Literal::Text(text) => Ok(text),
        Literal::Null
        | Literal::Bool(_)
        | Literal::Number(_)
        | Literal::Length(_)
        | Literal::Version(_)
        | Literal::List(_) => Err(Mistake::new(written.at.clone(), no_value(operator))),
    }
}

fn quoted<'w, 't>(written: &'w Written<'t>, operator: Operator) -> Result<&'w Quoted<'t>, Mistake> {
    match &written.form {
        Form::Quoted(quoted) => Ok(quoted),
        Form::Figure(_) | Form::Word(_) | Form::List(_) | Form::Range(..) => {
            let word = operator.as_str();
            let message = format!("`{word}` asks for text in quotes: write such as `{word} 'ok'`");
            Err(Mistake::new(written.at.clone(), message))
        }
    }
}

/// Compiles a pattern. Its backslashes are its own.
fn pattern(quoted: &Quoted<'_>) -> Result<Box<Regex>, Mistake> {
    let refused = |message: String| Err(Mistake::new(quoted.at.clone(), message));
    if quoted.raw.replace("$$", "").contains("${") {
        return refused("a pattern is compiled when the file is loaded, so it cannot hold what only the run knows: use contains, starts_with or ends_with".to_owned());
    }
    let text = quoted.raw.replace("$$", "$");
    let compiled = RegexBuilder::new(&text).size_limit(PATTERN).dfa_size_limit(PATTERN).build();
    match compiled {
        Ok(regex) => Ok(Box::new(regex)),
        Err(regex::Error::CompiledTooBig(_)) => refused(format!(
            "'{text}' is too large a pattern: write a smaller one, such as with fewer repetitions"
        )),
        Err(error) => {
            let told = error.to_string();
            let why = told.rsplit("error: ").next().unwrap_or(&told).replace('\n', " ");
            refused(format!("'{text}' is no pattern: {why}"))
        }
    }
}

//! What a deserializer says of a value, in our words and at its place.

use std::ops::Range;
use std::sync::Arc;

use serde_json::Value as Json;
use toml::de::DeValue;

use super::keys::{Table, Value};
use super::mistake::{Mistake, Mistakes, Source, Spot};
use crate::near::instead;
use crate::setting::{Refused, Unfit};

/// A key that is not known here.
pub fn unknown_key<'a>(
    source: &Arc<Source>,
    span: Range<usize>,
    key: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Mistake {
    let advice = instead(key, known, "keys here");
    Mistake::advised(Spot::new(source, span), format!("unknown key `{key}`"), advice)
}

/// What is left of a table whose known keys were taken out: each key is a mistake.
pub fn refuse_rest(
    source: &Arc<Source>,
    rest: &Table<'_>,
    known: &[&str],
    mistakes: &mut Mistakes,
) {
    for key in rest.keys() {
        mistakes.push(unknown_key(source, key.span(), key.get_ref(), known.iter().copied()));
    }
}

/// A value that does not fit its type. `key` is what it is the value of.
pub fn unfit(
    source: &Arc<Source>,
    key: &str,
    span: &Range<usize>,
    error: &toml::de::Error,
) -> Mistake {
    let message = error.message();
    let spot = Spot::new(source, error.span().unwrap_or_else(|| span.clone()));
    if let Some((name, known)) = unknown(message, "unknown field ") {
        return unknown_key(source, spot.span, name, known);
    }
    if let Some((name, known)) = unknown(message, "unknown variant ") {
        let advice = instead(name, known, "values here");
        return Mistake::advised(spot, format!("`{key}` cannot be {name:?}"), advice);
    }
    if let Some(missing) = message.strip_prefix("missing field ") {
        let advice = format!("write it in `{key}`");
        return Mistake::advised(spot, format!("missing key {missing}"), advice);
    }
    if let Some((found, wanted)) = wrong_type(message) {
        return Mistake::advised(
            spot,
            format!("`{key}` cannot be {found}"),
            format!("write {wanted}"),
        );
    }
    if let Some(wanted) = message.strip_prefix("wanted ") {
        let title = format!("`{key}` cannot be {}", short(spot.text()));
        return Mistake::advised(spot, title, format!("write {}", in_our_words(wanted)));
    }
    Mistake::at(spot, message)
}

/// What is written, in one line that is not long.
fn short(written: &str) -> &str {
    let is_short = written.len() <= 40 && !written.contains('\n');
    if is_short { written } else { "this" }
}

/// What was wanted where several shapes would do.
fn in_our_words(wanted: &str) -> &str {
    match wanted {
        "string or table" => "text in quotes",
        other if other.starts_with("exactly 1 element") => "one key in it, and one alone",
        other => other,
    }
}

/// The name and the known names of ``unknown field `x`, expected one of `a`, `b` ``.
fn unknown<'a>(message: &'a str, prefix: &str) -> Option<(&'a str, Vec<&'a str>)> {
    let rest = message.strip_prefix(prefix)?;
    let mut quoted = rest.split('`').skip(1).step_by(2);
    let name = quoted.next()?;
    Some((name, quoted.collect()))
}

/// What was found and what was wanted, of `invalid type: integer `30`, expected a string`.
fn wrong_type(message: &str) -> Option<(String, &str)> {
    let rest = message
        .strip_prefix("invalid type: ")
        .or_else(|| message.strip_prefix("invalid value: "))?;
    let (found, wanted) = rest.split_once(", expected ")?;
    let wanted = match wanted {
        "a string" | "a borrowed string" | "path string" => "text in quotes",
        "a sequence" => "a list",
        "a boolean" => "true or false",
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number",
        "a map" => "a table",
        other if other.starts_with("struct ") => "a table",
        other => other,
    };
    let found = match found.split_once(' ') {
        Some(("string", text)) => text.to_owned(),
        Some((_, value)) if value.contains('`') => {
            value.split('`').nth(1).unwrap_or(value).to_owned()
        }
        _ => found.replace("sequence", "a list").replace("map", "a table"),
    };
    Some((found, wanted))
}

/// What a kind or a sink says against its table.
pub fn refused(
    source: &Arc<Source>,
    name: &str,
    table: &Value<'_>,
    unfit_table: &Unfit,
    schema: &Json,
) -> Mistakes {
    let mut mistakes = Mistakes::default();
    match unfit_table {
        Unfit::Refused(Refused { key, message }) => {
            let span = find(table, key);
            mistakes.push(Mistake::at(Spot::new(source, span), message));
        }
        Unfit::Shape(error) => {
            // serde stops at its first unknown key; the schema knows the others.
            if error.message().starts_with("unknown field") {
                strangers(source, table, schema, schema, &mut mistakes);
            }
            if mistakes.is_empty() {
                let key = key_at(table, error.span()).unwrap_or_else(|| name.to_owned());
                mistakes.push(unfit(source, &key, &table.span(), error));
            }
        }
    }
    mistakes
}

/// The place of a key's value; of a key that is not there, the table that it should be in.
fn find(table: &Value<'_>, key: &str) -> Range<usize> {
    let mut value = table;
    for name in key.split('.').filter(|name| !name.is_empty()) {
        let (name, index) = match name.split_once('[') {
            Some((name, index)) => (name, index.trim_end_matches(']').parse::<usize>().ok()),
            None => (name, None),
        };
        let Some(inner) = value.get_ref().as_table().and_then(|table| table.get(name)) else {
            break;
        };
        value = index
            .and_then(|index| inner.get_ref().as_array().and_then(|items| items.get(index)))
            .unwrap_or(inner);
    }
    value.span()
}

/// The key whose value stands at a place.
fn key_at(value: &Value<'_>, span: Option<Range<usize>>) -> Option<String> {
    let span = span?;
    let table = value.get_ref().as_table()?;
    let holds = |value: &Value<'_>| {
        let own = value.span();
        own.start <= span.start && span.end <= own.end
    };
    let (key, inner) = table.iter().find(|(_, value)| holds(value))?;
    key_at(inner, Some(span.clone())).or_else(|| Some(key.get_ref().to_string()))
}

/// Every key of a table that its schema does not know, tables inside it included.
fn strangers(
    source: &Arc<Source>,
    value: &Value<'_>,
    schema: &Json,
    root: &Json,
    mistakes: &mut Mistakes,
) {
    let Some(schema) = object_schema(schema, root) else { return };
    let (DeValue::Table(table), Some(properties)) =
        (value.get_ref(), schema.get("properties").and_then(Json::as_object))
    else {
        return;
    };
    let closed = schema.get("additionalProperties") == Some(&Json::Bool(false));
    for (key, value) in table {
        match properties.get(key.get_ref().as_ref()) {
            Some(inner) => strangers(source, value, inner, root, mistakes),
            None if closed => mistakes.push(unknown_key(
                source,
                key.span(),
                key.get_ref(),
                properties.keys().map(String::as_str),
            )),
            None => {}
        }
    }
}

/// The part of a schema that speaks of a table: behind a reference, or one of several ways to write the value.
fn object_schema<'a>(schema: &'a Json, root: &'a Json) -> Option<&'a Json> {
    if let Some(reference) = schema.get("$ref").and_then(Json::as_str) {
        return object_schema(root.pointer(reference.strip_prefix('#')?)?, root);
    }
    if schema.get("properties").is_some() {
        return Some(schema);
    }
    let ways = schema.get("anyOf").or_else(|| schema.get("oneOf"))?.as_array()?;
    let mut tables = ways.iter().filter_map(|way| object_schema(way, root));
    // Of several ways to write a table none is known to be meant.
    let only = tables.next()?;
    tables.next().is_none().then_some(only)
}

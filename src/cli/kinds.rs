//! `picket kinds`: the manual of steps, printed from the code.

use std::io::{self, Write};

use serde_json::Value;

use super::columns;
use crate::config::schema;
use crate::expect::{Shape, Subject, Type};
use crate::near::instead;
use crate::probe::{KINDS, Kind};

/// Prints a kind's page, or lists the kinds (0); a kind that is none is 2.
pub(super) fn main(
    kind: Option<&str>,
    out: &mut dyn Write,
    notes: &mut dyn Write,
) -> io::Result<u8> {
    let Some(name) = kind else {
        let rows: Vec<_> =
            KINDS.iter().map(|kind| vec![kind.name.to_owned(), kind.about.to_owned()]).collect();
        columns::write(out, &rows)?;
        return Ok(0);
    };
    if let Some(kind) = Kind::named(name) {
        page(kind, out)?;
        return Ok(0);
    }
    let advice = instead(name, KINDS.iter().map(|kind| kind.name), "kinds");
    writeln!(notes, "error: no kind {name:?}: {advice}")?;
    Ok(2)
}

fn page(kind: &Kind, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{}\n\n  {}\n\nKEYS", kind.name, kind.about)?;
    columns::write(out, &keys(&schema::kind(kind)))?;
    writeln!(out, "\nSUBJECTS OF EXPECTATIONS")?;
    columns::write(out, &kind.subjects.iter().map(subject).collect::<Vec<_>>())?;
    writeln!(out, "\nEXPECTED WHEN NOTHING IS SAID")?;
    for line in kind.default_expect {
        writeln!(out, "  {line}")?;
    }
    if kind.default_expect.is_empty() {
        writeln!(out, "  nothing")?;
    }
    writeln!(out, "\nEXAMPLE")?;
    for line in kind.example.trim_matches('\n').lines() {
        writeln!(out, "{}", format!("  {line}").trim_end())?;
    }
    Ok(())
}

/// A row for each key of a table, tables inside it included.
fn keys(schema: &Value) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    walk(followed(schema, schema), schema, "", &mut rows);
    rows
}

fn walk(schema: &Value, root: &Value, prefix: &str, rows: &mut Vec<Vec<String>>) {
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else { return };
    let required: Vec<_> =
        schema.get("required").and_then(Value::as_array).into_iter().flatten().collect();
    for (name, written) in properties {
        let meant = followed(written, root);
        let about =
            [written, meant].into_iter().find_map(|schema| schema.get("description")?.as_str());
        let about = about.unwrap_or_default().replace('\n', " ");
        let must = if required.iter().any(|key| *key == name) { " (required)" } else { "" };
        rows.push(vec![format!("  {prefix}{name}"), shape(meant, root), format!("{about}{must}")]);
        // Two levels tell enough; a deeper one is in the schema.
        if prefix.is_empty() {
            walk(meant, root, &format!("{name}."), rows);
        }
    }
}

/// The schema behind a reference.
fn followed<'a>(schema: &'a Value, root: &'a Value) -> &'a Value {
    let reference = schema.get("$ref").and_then(Value::as_str);
    let found = reference.and_then(|path| root.pointer(path.strip_prefix('#')?));
    found.map_or(schema, |found| followed(found, root))
}

/// What may be written, in a word or two.
fn shape(schema: &Value, root: &Value) -> String {
    if let Some(words) = schema.get("enum").and_then(Value::as_array) {
        return words.iter().map(Value::to_string).collect::<Vec<_>>().join(" ");
    }
    if let Some(word) = schema.get("const") {
        return word.to_string();
    }
    if let Some(ways) =
        schema.get("anyOf").or_else(|| schema.get("oneOf")).and_then(Value::as_array)
    {
        let mut ways: Vec<_> = ways.iter().map(|way| shape(followed(way, root), root)).collect();
        ways.dedup();
        return ways.join(" or ");
    }
    match schema.get("type").and_then(Value::as_str) {
        Some("string") => "text".to_owned(),
        Some("integer") => "whole number".to_owned(),
        Some("boolean") => "true or false".to_owned(),
        Some("array") => "list".to_owned(),
        Some("object") => "table".to_owned(),
        Some(other) => other.to_owned(),
        None => String::new(),
    }
}

fn subject(subject: &Subject) -> Vec<String> {
    let name = subject.name;
    let written = match subject.shape {
        Shape::Plain => name.to_owned(),
        Shape::Phase => format!("{name}.NAME"),
        Shape::Header => format!("{name}[\"NAME\"]"),
        Shape::Json => format!("{name}.a.b[0], {name}[\"$.a[?@.b]\"]"),
        Shape::Named => format!("{name}.NAME, {name}[\"NAME\"]"),
    };
    vec![format!("  {written}"), values(subject.values).to_owned(), subject.about.to_owned()]
}

fn values(values: Type) -> &'static str {
    match values {
        Type::Number => "number",
        Type::Text => "text",
        Type::Length => "length of time",
        Type::Size => "size",
        Type::Bool => "true or false",
        Type::Version => "version",
        Type::Texts => "texts",
        Type::Any => "any",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_page_with_its_subjects_and_example() {
        for kind in KINDS {
            let (mut out, mut notes) = (Vec::new(), Vec::new());
            assert_eq!(main(Some(kind.name), &mut out, &mut notes).unwrap(), 0);
            let page = String::from_utf8(out).unwrap();
            assert!(kind.subjects.iter().all(|subject| page.contains(subject.about)), "{page}");
            assert!(page.contains(kind.example.trim().lines().next().unwrap()), "{page}");
            assert!(!keys(&schema::kind(kind)).is_empty(), "{page}");
        }
    }

    #[test]
    fn a_kind_that_is_none_is_bad_usage_with_the_nearest() {
        let (mut out, mut notes) = (Vec::new(), Vec::new());
        assert_eq!(main(Some("htpt"), &mut out, &mut notes).unwrap(), 2);
        assert!(String::from_utf8(notes).unwrap().contains("did you mean `http`?"));
    }
}

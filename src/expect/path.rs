//! The way to values in a JSON body: `json.a.b[0]`, or a `JSONPath` (RFC 9535) in brackets.

use std::ops::Range;

use serde_json::Value;
use serde_json_path::JsonPath;

use super::Mistake;
use super::cursor::{Cursor, Quoted};
use super::seen::{Seen, Sight};
use crate::reading::Json;

/// How many values a `JSONPath` may come to look at, counted before it starts.
const WORK: usize = 1_000_000;

/// How deep brackets may nest in a `JSONPath`.
const NESTING: usize = 32;

#[derive(Debug)]
pub(super) enum Path {
    /// One value at the most.
    Steps(Vec<Step>),
    /// Any number of values.
    Query(Query),
}

#[derive(Debug)]
pub(super) enum Step {
    Member(Box<str>),
    /// From the end when below zero.
    Index(isize),
}

#[derive(Debug)]
pub(super) struct Query {
    path: JsonPath,
    cost: Cost,
}

/// How the work of a query grows with its document.
#[derive(Debug, Default)]
struct Cost {
    /// `..`: each looks at every value below what the one before it found.
    descents: usize,
    /// `$` within a filter: asked anew for every value that is filtered.
    restarts: usize,
    /// `,`: each may find everything once more.
    repeats: usize,
}

impl Path {
    /// Reads what stands after `json`.
    pub(super) fn read(cursor: &mut Cursor<'_>) -> Result<Self, Mistake> {
        let mut steps = Vec::new();
        loop {
            let start = cursor.at();
            if cursor.eat(".") {
                let name = cursor.take(|c| c.is_alphanumeric() || c == '_' || c == '-');
                if name.text.is_empty() {
                    let end = cursor.word().at.end;
                    return Err(Mistake::new(
                        start..end,
                        "a member's name stands after the dot: write json.a, or json[\"$.…\"] for a JSONPath",
                    ));
                }
                steps.push(Step::Member(name.text.into()));
            } else if cursor.eat("[") {
                match cursor.quoted()? {
                    Some(quoted) if quoted.raw.starts_with('$') => {
                        let query = query(&quoted, steps.is_empty())?;
                        close(cursor, start)?;
                        ends(cursor)?;
                        return Ok(Self::Query(query));
                    }
                    Some(quoted) => steps.push(Step::Member(quoted.text()?.into())),
                    None => steps.push(Step::Index(index(cursor)?)),
                }
                close(cursor, start)?;
            } else {
                return Ok(Self::Steps(steps));
            }
        }
    }

    /// The values that it finds.
    pub(super) fn look<'r>(&self, json: &'r Json) -> Result<Sight<'r>, String> {
        match self {
            Self::Steps(steps) => Ok(match walk(json.root(), steps) {
                Some(value) => Sight::One(Seen::of(json, value)),
                None => Sight::Missing,
            }),
            Self::Query(query) => query.look(json),
        }
    }
}

impl Query {
    fn look<'r>(&self, json: &'r Json) -> Result<Sight<'r>, String> {
        if self.cost.of(json) > WORK {
            return Err(format!(
                "the body's JSON has too many values for this JSONPath: {}, {} deep",
                json.values(),
                json.depth()
            ));
        }
        Ok(Sight::every(json, self.path.query(json.root()).all()))
    }
}

impl Cost {
    /// Reads the marks of work that stand outside of quotes.
    fn read(path: &str) -> Self {
        let mut cost = Self::default();
        let mut quote = None;
        let mut chars = path.char_indices();
        while let Some((at, c)) = chars.next() {
            if let Some(open) = quote {
                if c == '\\' {
                    chars.next();
                } else if c == open {
                    quote = None;
                }
                continue;
            }
            match c {
                '\'' | '"' => quote = Some(c),
                '$' => cost.restarts += usize::from(at > 0),
                ',' => cost.repeats += 1,
                '.' if path.get(at..).is_some_and(|rest| rest.starts_with("..")) => {
                    cost.descents += 1;
                    chars.next();
                }
                _ => {}
            }
        }
        cost
    }

    /// At the most so many values of this document are looked at.
    fn of(&self, json: &Json) -> usize {
        let times = |base: usize, power: usize| {
            base.saturating_pow(u32::try_from(power).unwrap_or(u32::MAX))
        };
        json.values()
            .saturating_mul(times(json.depth().max(1), self.descents.saturating_sub(1)))
            .saturating_mul(times(json.values(), self.restarts))
            .saturating_mul(times(2, self.repeats))
    }
}

fn walk<'v>(root: &'v Value, steps: &[Step]) -> Option<&'v Value> {
    steps.iter().try_fold(root, |value, step| match (value, step) {
        (Value::Object(members), Step::Member(name)) => members.get(&**name),
        (Value::Array(items), Step::Index(index)) => {
            let index = if *index < 0 {
                items.len().checked_add_signed(*index)?
            } else {
                index.unsigned_abs()
            };
            items.get(index)
        }
        (
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_)
            | Value::Object(_),
            _,
        ) => None,
    })
}

fn index(cursor: &mut Cursor<'_>) -> Result<isize, Mistake> {
    let start = cursor.at();
    let token = cursor.take(|c| c.is_ascii_digit() || c == '-');
    token.text.parse().map_err(|_| {
        let end = cursor.word().at.end.max(start + token.text.len());
        let message =
            "write an index such as json.a[0], a member in quotes, or json[\"$.…\"] for a JSONPath";
        Mistake::new(start..end, message)
    })
}

fn close(cursor: &mut Cursor<'_>, start: usize) -> Result<(), Mistake> {
    if cursor.eat("]") {
        return Ok(());
    }
    Err(Mistake::new(start..cursor.word().at.end, "`[` without its `]`: write the closing ]"))
}

fn ends(cursor: &Cursor<'_>) -> Result<(), Mistake> {
    if cursor.rest().starts_with(['.', '[']) {
        let message = "nothing follows a JSONPath: write the whole way inside its quotes";
        return Err(Mistake::new(cursor.word().at, message));
    }
    Ok(())
}

fn query(quoted: &Quoted<'_>, alone: bool) -> Result<Query, Mistake> {
    if !alone {
        let message = "a JSONPath starts at the body's root: write json[\"$.…\"]";
        return Err(Mistake::new(quoted.at.clone(), message));
    }
    let refused = |at: Range<usize>, why: String| Mistake::new(at, why);
    // `$$` is a dollar, as everywhere in a probe file.
    let text = quoted.text()?.replace("$$", "$");
    let nesting = text.chars().filter(|c| "([".contains(*c)).count();
    if nesting > NESTING {
        return Err(refused(
            quoted.at.clone(),
            format!("more than {NESTING} brackets in a JSONPath: write a shorter one"),
        ));
    }
    let path = JsonPath::parse(&text).map_err(|error| {
        let inside = quoted.at.start + 1..(quoted.at.end - 1).max(quoted.at.start + 1);
        let start = quoted.at.start + error.position().max(1);
        // Escapes before it move the place, and it may be said in the middle of a character.
        let fits = quoted.raw.is_char_boundary(start - inside.start) && inside.contains(&start);
        let start = if fits { start } else { inside.start };
        refused(start..inside.end, not_understood(&error))
    })?;
    Ok(Query { path, cost: Cost::read(&text) })
}

fn not_understood(error: &serde_json_path::ParseError) -> String {
    let what = match error.message() {
        "parser error" => "it cannot be read from here on".to_owned(),
        // They would compile their pattern anew for every value.
        message if ["'match'", "'search'"].iter().any(|name| message.contains(name)) => {
            "match() and search() are left out: write the operator `matches` after it".to_owned()
        }
        message => message.replace('\n', " "),
    };
    format!("no JSONPath (RFC 9535): {what} (character {})", error.position())
}

//! Where a subject finds its values in what was seen.

use std::borrow::Cow;
use std::time::Duration;

use super::cursor::{Cursor, Token};
use super::path::Path;
use super::seen::{Seen, Sight};
use super::{Mistake, Shape, Subject, Type};
use crate::failure::ErrorType;
use crate::near::nearest;
use crate::outcome::Fact;
use crate::phase::Phase;
use crate::reading::Reading;

/// A subject as an expectation names it.
#[derive(Debug)]
pub(super) struct Found {
    /// Its name, as in the kind's table.
    pub(super) name: &'static str,
    /// What its values are.
    pub(super) values: Type,
    /// What a broken expectation on it is called.
    pub(super) error_type: ErrorType,
    /// As it was written.
    pub(super) written: Box<str>,
    place: Place,
}

#[derive(Debug)]
enum Place {
    Fact(Cow<'static, str>),
    Body,
    Phase(Phase),
    Header(Box<str>),
    Json(Path),
}

impl Found {
    /// Reads the subject that the text begins with.
    pub(super) fn read(cursor: &mut Cursor<'_>, subjects: &[Subject]) -> Result<Self, Mistake> {
        cursor.skip_space();
        let start = cursor.clone();
        let subject = known(cursor, subjects)?;
        let place = match subject.shape {
            Shape::Plain if subject.name == "body" => Place::Body,
            Shape::Plain => Place::Fact(Cow::Borrowed(subject.name)),
            Shape::Phase => Place::Phase(phase(cursor)?),
            Shape::Header => Place::Header(member(cursor, subject)?.to_lowercase().into()),
            Shape::Json => Place::Json(Path::read(cursor)?),
            Shape::Named => {
                Place::Fact(Cow::Owned(format!("{}.{}", subject.name, member(cursor, subject)?)))
            }
        };
        let length = cursor.at() - start.at();
        let written = start.clone().token(length).text.into();
        let Subject { name, values, error_type, .. } = *subject;
        Ok(Self { name, values, error_type, written, place })
    }

    /// What was seen of it. What cannot be looked into says why.
    pub(super) fn look<'r>(&self, reading: &'r Reading) -> Result<Sight<'r>, String> {
        match &self.place {
            Place::Fact(name) => Ok(of_fact(reading.facts.get(name.as_ref()))),
            Place::Body => Ok(match (reading.facts.get("body"), &reading.body) {
                (Some(fact), _) => of_fact(Some(fact)),
                (None, Some(body)) => Sight::One(Seen::Text(String::from_utf8_lossy(body))),
                (None, None) => Sight::Missing,
            }),
            Place::Phase(phase) => Ok(match reading.timeline.spent(*phase) {
                Some(took) => Sight::One(Seen::Nanos(nanos(took))),
                None => Sight::Missing,
            }),
            Place::Header(name) => {
                let fields = reading.headers.iter().filter(|(field, _)| **field == **name);
                let texts = fields.map(|(_, value)| Seen::Text(Cow::Borrowed(value.as_str())));
                Ok(Sight::some(texts.collect()))
            }
            Place::Json(path) => path.look(reading.json()?),
        }
    }
}

/// A length of time in nanoseconds.
pub(super) fn nanos(length: Duration) -> i128 {
    i128::try_from(length.as_nanos()).unwrap_or(i128::MAX)
}

fn of_fact(fact: Option<&Fact>) -> Sight<'_> {
    match fact {
        None => Sight::Missing,
        Some(Fact::List(facts)) => Sight::some(facts.iter().map(Seen::from).collect()),
        Some(fact) => Sight::One(Seen::from(fact)),
    }
}

/// The row of the kind's table that the text names.
fn known<'s>(cursor: &mut Cursor<'_>, subjects: &'s [Subject]) -> Result<&'s Subject, Mistake> {
    let word = cursor.clone().take(is_name);
    let named = subjects.iter().find(|subject| {
        let tail = cursor.rest().strip_prefix(subject.name);
        tail.is_some_and(|tail| match subject.shape {
            Shape::Plain => word.text == subject.name && !tail.starts_with('['),
            Shape::Json => tail.starts_with(['.', '[']) || !tail.starts_with(is_name),
            Shape::Phase | Shape::Header | Shape::Named => tail.starts_with(['.', '[']),
        })
    });
    match named {
        Some(subject) => {
            cursor.skip(subject.name.len());
            Ok(subject)
        }
        None => Err(unknown(cursor, word, subjects)),
    }
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '-' || c == '.'
}

fn unknown(cursor: &Cursor<'_>, word: Token<'_>, subjects: &[Subject]) -> Mistake {
    if cursor.rest().is_empty() {
        return Mistake::new(
            0..cursor.at(),
            "nothing is expected: write a subject, an operator and a value, such as `status == 200`",
        );
    }
    if word.text.is_empty() {
        let message = format!("a subject stands first: write one of {}", list(subjects));
        return Mistake::new(cursor.word().at, message);
    }
    if word.text == "not" {
        let message = "`not` stands before the operator: write such as `status not == 200`";
        return Mistake::new(word.at, message);
    }
    let (first, member) = word.text.split_once('.').map_or((word.text, false), |(a, _)| (a, true));
    let same = subjects.iter().find(|subject| subject.name == first || subject.name == word.text);
    if let Some(subject) = same {
        let message = match subject.shape {
            Shape::Plain => format!("`{}` has no parts: write `{0}` alone", subject.name),
            Shape::Phase | Shape::Header | Shape::Json | Shape::Named => {
                format!("`{}` needs a name: write {}", subject.name, example(subject))
            }
        };
        return Mistake::new(word.at, message);
    }
    let whole = nearest(word.text, subjects.iter().map(|subject| subject.name));
    let open = subjects.iter().filter(|subject| subject.shape != Shape::Plain);
    let meant = whole.or_else(|| alike(word.text, subjects)).or_else(|| {
        nearest(first, open.map(|subject| subject.name))
            .filter(|_| member || cursor.rest().contains('['))
    });
    let message = match meant {
        Some(name) => format!("no subject `{}` here: did you mean `{name}`?", word.text),
        None => format!("no subject `{}` here: write one of {}", word.text, list(subjects)),
    };
    Mistake::new(word.at, message)
}

/// A subject whose name is part of the word, or that has the word as a part: `status_code`, `expires_in`.
fn alike(word: &str, subjects: &[Subject]) -> Option<&'static str> {
    const LEAST: usize = 3;
    let word = word.to_lowercase();
    let part = |whole: &str, part: &str| part.len() > LEAST && whole.contains(part);
    let mut names = subjects.iter().map(|subject| subject.name);
    names.find(|name| part(name, &word) || part(&word, name))
}

fn list(subjects: &[Subject]) -> String {
    let all: Vec<_> = subjects.iter().map(example).collect();
    all.join(", ")
}

fn example(subject: &Subject) -> String {
    match subject.shape {
        Shape::Plain => subject.name.to_owned(),
        Shape::Phase => format!("{}.NAME", subject.name),
        Shape::Header => format!("{}[\"name\"]", subject.name),
        Shape::Json => format!("{}.a.b[0]", subject.name),
        Shape::Named => format!("{}[\"NAME\"]", subject.name),
    }
}

fn phase(cursor: &mut Cursor<'_>) -> Result<Phase, Mistake> {
    cursor.eat(".");
    let word = cursor.take(is_name);
    Phase::parse(word.text).ok_or_else(|| {
        let names = || Phase::ALL.iter().map(|phase| phase.as_str());
        let all = || names().collect::<Vec<_>>().join(", ");
        let message = nearest(word.text, names()).map_or_else(
            || format!("no phase `{}`: write phase. and one of {}", word.text, all()),
            |name| format!("no phase `{}`: did you mean `{name}`?", word.text),
        );
        let at = if word.text.is_empty() { cursor.word().at } else { word.at };
        Mistake::new(at, message)
    })
}

/// The name in `header["name"]` or `match.NAME`.
fn member(cursor: &mut Cursor<'_>, subject: &Subject) -> Result<String, Mistake> {
    let start = cursor.at();
    let wrong = |cursor: &Cursor<'_>, name: &str| {
        let end = cursor.word().at.end.max(cursor.at());
        let name = if name.is_empty() { "name" } else { name };
        Mistake::new(start..end, format!("write {}[\"{name}\"]", subject.name))
    };
    if cursor.eat(".") {
        let word = cursor.take(is_name);
        let fits = subject.shape == Shape::Named && !word.text.is_empty();
        return if fits { Ok(word.text.to_owned()) } else { Err(wrong(cursor, word.text)) };
    }
    cursor.eat("[");
    let Some(name) = cursor.quoted()? else {
        return Err(wrong(cursor, cursor.clone().take(is_name).text));
    };
    if !cursor.eat("]") || name.raw.is_empty() {
        return Err(wrong(cursor, name.raw));
    }
    name.text()
}

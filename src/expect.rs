//! What must hold: one line each, compiled when the file is loaded, judged on what was seen. Pure.

use std::ops::Range;

use crate::failure::{ErrorType, Failure};
use crate::outcome::Fact;
use crate::reading::Reading;
use crate::template::Scope;

mod cursor;
mod decimal;
mod demand;
mod literal;
mod operator;
mod path;
mod place;
mod seen;
#[cfg(test)]
mod tests;

use cursor::Cursor;
use demand::Demand;
use operator::Operator;
use place::Found;
use seen::{Seen, Sight, quote_all};

/// How long an expectation may be, in bytes.
const LENGTH: usize = 4096;

/// How a subject is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// `status`: the fact of that name; `body` is the body's text.
    Plain,
    /// `phase.NAME`: the time of a phase.
    Phase,
    /// `header["name"]`: the fields of that name in `Reading::headers`.
    Header,
    /// `json.a.b[0]` or `json["$.a[?@.b]"]`: values of `Reading::body`.
    Json,
    /// `NAME.x` or `NAME["x"]`: the fact `NAME.x`.
    Named,
}

/// What a subject's values are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// A number without a unit.
    Number,
    /// Text.
    Text,
    /// A length of time; the fact is in seconds.
    Length,
    /// A number of bytes; it may be written with a unit or without.
    Size,
    /// Yes or no.
    Bool,
    /// A version such as `1.1` or `2`, compared as numbers; the fact is text.
    Version,
    /// Several texts: an operator holds if it holds for one of them, `not` if for none.
    Texts,
    /// Whatever the JSON says.
    Any,
}

/// A subject of a kind's expectations: one row of the kind's manual.
#[derive(Debug)]
pub struct Subject {
    /// Its name, or the name before the dot or bracket.
    pub name: &'static str,
    /// How it is written.
    pub shape: Shape,
    /// What its values are.
    pub values: Type,
    /// What a broken expectation on it is called.
    pub error_type: ErrorType,
    /// What it is, in a line.
    pub about: &'static str,
}

/// A mistake in an expectation, with its place in the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Where in the text, in bytes.
    pub at: Range<usize>,
    /// What is wrong and what to write instead.
    pub message: String,
}

impl Mistake {
    fn new(at: Range<usize>, message: impl Into<String>) -> Self {
        Self { at, message: message.into() }
    }
}

/// What must hold, compiled.
#[derive(Debug)]
pub struct Expectation {
    text: Box<str>,
    found: Found,
    negated: bool,
    demand: Demand,
}

/// What an expectation came to.
#[derive(Debug, PartialEq)]
pub enum Judgement {
    /// It holds.
    Holds,
    /// It does not hold, or cannot be evaluated: a failure that quotes the expectation and what was seen.
    Broken(Failure),
}

impl Expectation {
    /// Compiles one line. `subjects` are the kind's.
    pub fn compile(text: &str, subjects: &[Subject]) -> Result<Self, Mistake> {
        let mut cursor = begin(text)?;
        let found = Found::read(&mut cursor, subjects)?;
        let (not, operator) = Operator::read(&mut cursor, &found)?;
        let demand = Demand::read(&mut cursor, operator, &found)?;
        end(
            &mut cursor,
            "one expectation is one line: write what follows as another, or leave it out",
        )?;
        // `a != b` is `a not == b`.
        let negated = not != (operator == Operator::Unequal);
        Ok(Self { text: text.trim().into(), found, negated, demand })
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The subject's name, as in the kind's table.
    pub fn subject(&self) -> &str {
        self.found.name
    }

    /// Judges it on what was seen.
    pub fn judge(&self, reading: &Reading, scope: &Scope) -> Judgement {
        match self.broken(reading, scope) {
            Ok(None) => Judgement::Holds,
            Ok(Some(why)) => {
                let message = scope.clean(&format!("{}  ({why})", self.text));
                Judgement::Broken(Failure::new(self.found.error_type, message))
            }
            Err(failure) => Judgement::Broken(failure),
        }
    }

    /// Why it does not hold; none when it does.
    fn broken(&self, reading: &Reading, scope: &Scope) -> Result<Option<String>, Failure> {
        let sight = match self.found.look(reading) {
            Ok(sight) => sight,
            Err(why) => return Ok(Some(why)),
        };
        let clean = |text: &str| scope.clean(text);
        let quote = |seen: &Seen<'_>| seen.quote(self.found.values, &self.text, &clean);
        match sight {
            Sight::Missing if self.negated && matches!(self.demand, Demand::Exists) => Ok(None),
            Sight::Missing => Ok(Some(format!("{} is missing", self.found.written))),
            Sight::One(seen) => {
                let holds = self.holds(&seen, scope)?;
                Ok((!holds).then(|| format!("was {}", quote(&seen))))
            }
            Sight::Some(all) => {
                let mut any = false;
                for seen in &all {
                    any = any || self.demand.ask(seen, scope)? == Some(true);
                }
                let broken = any == self.negated;
                Ok(broken.then(|| {
                    format!("was {}", quote_all(&all, self.found.values, &self.text, &clean))
                }))
            }
            Sight::Every(json, all) => {
                for (index, value) in all.iter().enumerate() {
                    let seen = Seen::of(json, value);
                    if !self.holds(&seen, scope)? {
                        let of = format!("value {} of {}", index + 1, all.len());
                        return Ok(Some(format!("was {}, {of}", quote(&seen))));
                    }
                }
                Ok(None)
            }
        }
    }

    /// Whether it holds for one value. What cannot be asked of the value holds neither with `not` nor without.
    fn holds(&self, seen: &Seen<'_>, scope: &Scope) -> Result<bool, Failure> {
        Ok(self.demand.ask(seen, scope)?.is_some_and(|holds| holds != self.negated))
    }
}

/// Where a capture finds its value: a subject without an operator, such as `json.id`.
#[derive(Debug)]
pub struct Capture {
    text: Box<str>,
    found: Found,
}

impl Capture {
    /// Compiles one line. `subjects` are the kind's.
    pub fn compile(text: &str, subjects: &[Subject]) -> Result<Self, Mistake> {
        let mut cursor = begin(text)?;
        let found = Found::read(&mut cursor, subjects)?;
        end(&mut cursor, "a capture is a subject alone, such as json.id: leave this out")?;
        Ok(Self { text: text.trim().into(), found })
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The subject's name, as in the kind's table.
    pub fn subject(&self) -> &str {
        self.found.name
    }

    /// The value that was seen, as text; a capture that finds nothing, or several values, is a failure that says so.
    pub fn find(&self, reading: &Reading) -> Result<String, Failure> {
        let several = |count: usize| format!("found {count} values where one is meant");
        let missing =
            |why: &str| Failure::new(self.found.error_type, format!("{}  ({why})", self.text));
        match self.found.look(reading).map_err(|why| missing(&why))? {
            Sight::Missing => Err(missing(&format!("{} is missing", self.found.written))),
            Sight::One(seen) => seen.capture().ok_or_else(|| missing("was null")),
            Sight::Some(all) => Err(missing(&several(all.len()))),
            Sight::Every(_, all) => Err(missing(&several(all.len()))),
        }
    }
}

/// Shows a fact as a message quotes it.
pub fn show(fact: &Fact) -> String {
    seen::show(fact)
}

fn begin(text: &str) -> Result<Cursor<'_>, Mistake> {
    if text.len() > LENGTH {
        let message = format!("longer than {LENGTH} bytes: write a shorter line");
        return Err(Mistake::new(0..text.len(), message));
    }
    Ok(Cursor::new(text))
}

fn end(cursor: &mut Cursor<'_>, message: &str) -> Result<(), Mistake> {
    cursor.skip_space();
    let rest = cursor.rest().trim_end();
    if rest.is_empty() {
        return Ok(());
    }
    let at = cursor.at();
    let message = format!("`{}` is too much: {message}", seen::shorten(rest.to_owned()));
    Err(Mistake::new(at..at + rest.len(), message))
}

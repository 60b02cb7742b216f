//! Fills in what is known when a file is loaded, all through a table, and finds what is not defined.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use toml::Spanned;
use toml::de::DeValue;

use super::keys::{Table, Value};
use super::mistake::{Mistake, Mistakes, Source, Spot};
use crate::secret::Secrets;
use crate::template::{self, Template, Variable};

/// The names that a text may use.
#[derive(Clone, Copy, Debug)]
pub struct Names<'a> {
    /// What is known now: region, stage, matrix keys.
    pub givens: &'a BTreeMap<String, String>,
    /// What a run will have captured by then.
    pub captures: &'a [String],
}

/// Fills in values, and remembers what it found wrong.
#[derive(Debug)]
pub struct Settler<'a> {
    source: &'a Arc<Source>,
    secrets: &'a Secrets,
    /// What is wrong.
    pub mistakes: Mistakes,
    /// Whether the environment or a secret lacked something: elsewhere it may be there.
    pub lacks: bool,
}

impl<'a> Settler<'a> {
    /// A settler of one file's values.
    pub fn new(source: &'a Arc<Source>, secrets: &'a Secrets) -> Self {
        Self { source, secrets, mistakes: Mistakes::default(), lacks: false }
    }

    /// A table with every text in it settled.
    pub fn table<'i>(&mut self, table: &Table<'i>, names: Names<'_>) -> Table<'i> {
        table.iter().map(|(key, value)| (key.clone(), self.value(value, names))).collect()
    }

    /// A value with every text in it settled; a text that has a mistake stays as it is.
    pub fn value<'i>(&mut self, value: &Value<'i>, names: Names<'_>) -> Value<'i> {
        let settled = match value.get_ref() {
            DeValue::String(text) => DeValue::String(Cow::Owned(
                self.text(text, &value.span(), names).unwrap_or_else(|| text.to_string()),
            )),
            DeValue::Array(items) => {
                DeValue::Array(items.iter().map(|item| self.value(item, names)).collect())
            }
            DeValue::Table(table) => DeValue::Table(self.table(table, names)),
            plain @ (DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)) => plain.clone(),
        };
        Spanned::new(value.span(), settled)
    }

    /// A text with what is known filled in; what waits for the run stays a variable.
    pub fn text(&mut self, text: &str, span: &Range<usize>, names: Names<'_>) -> Option<String> {
        let spot = Spot::new(self.source, span.clone());
        let template = match Template::parse(text) {
            Ok(template) => template,
            Err(mistake) => {
                self.mistakes.push(Mistake::at(spot.inside(&mistake.at), &mistake.message));
                return None;
            }
        };
        let known = self.mistakes.len();
        for (variable, at) in template.variables() {
            self.settle(variable, text.get(at.clone())?, &spot.inside(at), names);
        }
        if self.mistakes.len() > known {
            None
        } else {
            template::settle(text, names.givens, names.captures).ok()
        }
    }

    /// One variable, with what is wrong with it told at its own place.
    fn settle(
        &mut self,
        variable: &Variable,
        written: &str,
        spot: &Spot,
        names: Names<'_>,
    ) -> Option<String> {
        self.look_up(variable, spot);
        match template::settle(written, names.givens, names.captures) {
            Ok(settled) => Some(settled),
            Err(mistake) => {
                self.mistakes.push(Mistake::at(spot.clone(), &mistake.message));
                None
            }
        }
    }

    /// A secret must be there when the file is loaded; its value is not kept.
    fn look_up(&mut self, variable: &Variable, spot: &Spot) {
        match variable {
            Variable::Secret(name) => {
                if let Err(failure) = self.secrets.read(name) {
                    self.lacks = true;
                    self.mistakes.push(Mistake::at(spot.clone(), &failure.message));
                }
            }
            Variable::Env(name) => self.lacks |= std::env::var(name).is_err(),
            Variable::Run | Variable::Named(_) => {}
        }
    }

    /// An expectation's line: variables are filled in, every other dollar is the line's own.
    pub fn line(&mut self, text: &str, span: &Range<usize>, names: Names<'_>) -> Option<Line> {
        let mut line = Line::default();
        let mut quote = None;
        let mut at = 0;
        while let Some(letter) = text.get(at..).and_then(|rest| rest.chars().next()) {
            let rest = text.get(at..).unwrap_or_default();
            let end = if rest.starts_with("${") { rest.find('}') } else { None };
            let taken = match end {
                Some(end) => end + 1,
                // A dollar that is written as two is no beginning of a variable; a backslash guards what follows it.
                None if rest.starts_with("$$") => 2,
                None if letter == '\\' && quote.is_some() => {
                    1 + rest.chars().nth(1).map_or(0, char::len_utf8)
                }
                None => letter.len_utf8(),
            };
            let written = rest.get(..taken).unwrap_or_default();
            let settled = if end.is_some() {
                self.variable(written, span, at, quote.is_some(), names)?
            } else {
                quote = match quote {
                    None if letter == '\'' || letter == '"' => Some(letter),
                    Some(open) if open == letter => None,
                    unchanged => unchanged,
                };
                written.to_owned()
            };
            line.add(at, written.len(), &settled);
            at += taken;
        }
        Some(line)
    }

    fn variable(
        &mut self,
        written: &str,
        span: &Range<usize>,
        at: usize,
        quoted: bool,
        names: Names<'_>,
    ) -> Option<String> {
        let spot = Spot::new(self.source, span.clone()).inside(&(at..at + written.len()));
        let template = match Template::parse(written) {
            Ok(template) => template,
            Err(mistake) => {
                self.mistakes.push(Mistake::at(spot, &mistake.message));
                return None;
            }
        };
        let (variable, _) = template.variables().next()?;
        let settled = self.settle(variable, written, &spot, names)?;
        if quoted {
            return Some(settled);
        }
        if let Some(literal) = Template::parse(&settled).ok()?.literal() {
            return Some(literal.into_owned());
        }
        let title = format!("{written} is known only in the run");
        let advice = format!("put it in quotes: '{written}'");
        self.mistakes.push(Mistake::advised(spot, title, advice));
        None
    }
}

/// A settled line, which knows where each part of it was written.
#[derive(Debug, Default)]
pub struct Line {
    /// The line.
    pub text: String,
    /// Where each part begins: here, as written, and how long it is there.
    parts: Vec<(usize, usize, usize)>,
}

impl Line {
    fn add(&mut self, at: usize, length: usize, settled: &str) {
        self.parts.push((self.text.len(), at, length));
        self.text.push_str(settled);
    }

    /// Where a part of the line was written.
    pub fn written(&self, at: &Range<usize>) -> Range<usize> {
        let part = |offset: usize| {
            self.parts
                .iter()
                .rev()
                .find(|(here, _, _)| *here <= offset)
                .copied()
                .unwrap_or_default()
        };
        let (here, written, length) = part(at.start);
        let start = written + (at.start - here).min(length);
        let (_, written, length) = part(at.end.saturating_sub(1).max(at.start));
        let end = if at.end > at.start { written + length } else { start };
        start..end.max(start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str, captures: &[String]) -> (Option<Line>, Mistakes) {
        let source = Arc::new(Source { path: "a.toml".into(), text: format!("{text:?}") });
        let givens = BTreeMap::from([("region".to_owned(), "eu-west-1".to_owned())]);
        let secrets = Secrets::default();
        let mut settler = Settler::new(&source, &secrets);
        let names = Names { givens: &givens, captures };
        let settled = settler.line(text, &(0..source.text.len()), names);
        (settled, settler.mistakes)
    }

    #[test]
    fn a_line_keeps_its_own_dollars_and_what_waits_for_the_run() {
        let written = r#"json["$.a"] == '${order} ${region} $$'"#;
        let (settled, mistakes) = line(written, &["order".to_owned()]);
        assert!(mistakes.is_empty(), "{mistakes}");
        assert_eq!(settled.unwrap().text, r#"json["$.a"] == '${order} eu-west-1 $$'"#);
    }

    #[test]
    fn a_place_in_a_settled_line_is_found_as_it_was_written() {
        let (settled, _) = line("'${region}' == potato", &[]);
        let settled = settled.unwrap();
        let at = settled.text.find("potato").unwrap();
        assert_eq!(settled.written(&(at..at + 6)), 15..21);
    }

    #[test]
    fn what_only_the_run_knows_must_stand_in_quotes() {
        let (settled, mistakes) = line("json.id == ${order}", &["order".to_owned()]);
        assert!(settled.is_none());
        assert!(mistakes.to_string().contains("put it in quotes: '${order}'"), "{mistakes}");
    }
}

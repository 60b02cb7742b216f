//! Steps: exactly one kind each, with expectations and captures that make sense in their order.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use toml::Spanned;
use toml::de::DeValue;

use super::member::stranger;
use super::{Attempts, Captured, Step, When, condition, independence};
use crate::config::keys::{At, StepKeys, Table, Value};
use crate::config::settle::{Line, Names, Settler};
use crate::config::shape::{refused, unfit};
use crate::config::values::{AttemptsKeys, CaptureKey};
use crate::config::{Mistake, Named, Source, Spot, kind_of, schema};
use crate::expect::{Capture, Expectation};
use crate::failure::ErrorType;
use crate::near::nearest;
use crate::probe::{Action, Ground, KINDS, Kind};
use crate::setting::Unfit;

/// Keys whose texts are lines of their own small languages.
const LINES: &[&str] = &["expect", "warn", "capture", "when"];

/// The most attempts of one step.
const MOST_ATTEMPTS: u32 = 100;

/// The steps of one probe, as far as they could be read.
#[derive(Debug, Default)]
pub(super) struct Steps {
    pub(super) main: Vec<Step>,
    pub(super) finally: Vec<Step>,
    /// The steps' own time limits and where they stand.
    pub(super) within: Vec<(Range<usize>, Duration)>,
    /// Hosts that they watch.
    pub(super) watched: Vec<String>,
    /// Their kinds' tables, settled, in one spelling.
    pub(super) tables: Vec<String>,
}

/// Writes the steps of one probe, in order: what one captures, those after it may use.
#[derive(Debug)]
pub(super) struct StepWriter<'a, 's> {
    pub(super) source: &'a Arc<Source>,
    pub(super) probe: &'a Named,
    /// Whether the probe has keys that nobody knows: one of them may be meant as its kind.
    pub(super) strangers: bool,
    pub(super) ground: &'a Ground,
    pub(super) givens: &'a BTreeMap<String, String>,
    pub(super) defaults: &'a Table<'a>,
    pub(super) settler: &'a mut Settler<'s>,
    pub(super) captures: Vec<String>,
    pub(super) steps: Steps,
}

impl<'a> StepWriter<'a, '_> {
    /// The steps of a probe: the one that stands in it, or those of its lists.
    pub(super) fn probe(&mut self, own: &Table<'a>, lists: &Table<'a>) {
        if let Some(list) = lists.get("step") {
            self.refuse_own_beside_list(own);
            self.list("step", list);
        } else {
            let (span, name) = (self.probe.spot.span.clone(), self.probe.name.to_string());
            let step = self.step(own, span, name);
            self.steps.main.extend(step);
        }
        if let Some(list) = lists.get("finally") {
            self.list("finally", list);
        }
    }

    fn refuse(&mut self, span: Range<usize>, title: impl Into<String>, advice: impl Into<String>) {
        let mistake = Mistake::advised(Spot::new(self.source, span), title, advice);
        self.settler.mistakes.push(mistake);
    }

    /// With a list of steps, what belongs to a step stands in one of them.
    fn refuse_own_beside_list(&mut self, own: &Table<'_>) {
        for key in own.keys() {
            let name = key.get_ref();
            let title = format!("`{name}` beside a list of steps");
            self.refuse(key.span(), title, "write it in the step that is meant");
        }
    }

    fn list(&mut self, name: &str, list: &Value<'a>) {
        let advice = format!("write [[probe.{}.{name}]], or leave it out", self.probe.name);
        let Some(items) = list.get_ref().as_array() else {
            let title = format!("`{name}` cannot be {}", kind_of(list.get_ref()));
            return self.refuse(list.span(), title, advice);
        };
        if items.is_empty() {
            return self.refuse(list.span(), format!("`{name}` has no step"), advice);
        }
        for (index, item) in items.iter().enumerate() {
            let DeValue::Table(table) = item.get_ref() else {
                let title = format!("a step cannot be {}", kind_of(item.get_ref()));
                self.refuse(item.span(), title, "write a table");
                continue;
            };
            let Some(step) = self.step(table, item.span(), format!("{name}-{}", index + 1)) else {
                continue;
            };
            if self
                .steps
                .main
                .iter()
                .chain(&self.steps.finally)
                .any(|other| other.name == step.name)
            {
                let span = table.get("name").map_or_else(|| item.span(), Spanned::span);
                self.refuse(
                    span,
                    format!("two steps are named `{}`", step.name),
                    "rename one of the two",
                );
            }
            let steps = &mut self.steps;
            if name == "finally" { steps.finally.push(step) } else { steps.main.push(step) }
        }
    }

    fn step(&mut self, table: &Table<'a>, span: Range<usize>, name: String) -> Option<Step> {
        let mut keys = self.keys(table);
        let kind = self.kind(table, &span);
        let within = keys.within.as_ref().map(|within| within.value.get());
        if let Some(within) = &keys.within {
            self.steps.within.push((within.span.clone(), within.value.get()));
        }
        let attempts = self.attempts(keys.attempts.take());
        let when = keys.when.take().and_then(|when| self.when(&when));
        let Some((kind, value)) = kind else {
            // Without a kind its lines cannot be read, but what they would have captured is no second mistake.
            self.captures.extend(
                keys.capture
                    .into_iter()
                    .flat_map(|capture| capture.value.into_keys())
                    .map(|name| name.value),
            );
            return None;
        };
        let action = self.action(kind, value);
        let expect = match keys.expect.take() {
            Some(lines) => self.lines(&lines.value, kind, action.as_deref()),
            None => default_expect(kind),
        };
        let warn = keys.warn.take().map(|lines| self.lines(&lines.value, kind, action.as_deref()));
        let capture =
            keys.capture.take().map(|capture| self.capture(capture.value, kind, action.as_deref()));
        Some(Step {
            name: keys.name.map_or(name, |name| name.value),
            kind,
            action: action?,
            expect,
            warn: warn.unwrap_or_default(),
            capture: capture.unwrap_or_default(),
            when,
            within,
            attempts,
        })
    }

    /// The keys that every step has; the lines in them are settled when their kind is known.
    fn keys(&mut self, table: &Table<'a>) -> StepKeys {
        let mut written = Table::new();
        let names = Names { givens: self.givens, captures: &[] };
        for (key, value) in table.iter().chain(self.defaults) {
            let name = key.get_ref().as_ref();
            if written.contains_key(name) || !StepKeys::KEYS.contains(&name) {
                continue;
            }
            let value = if LINES.contains(&name) {
                value.clone()
            } else {
                self.settler.value(value, names)
            };
            written.insert(key.clone(), value);
        }
        let (source, mistakes) = (self.source, &mut self.settler.mistakes);
        StepKeys::take(&mut written, &mut |key, span, error| {
            mistakes.push(unfit(source, key, &span, error));
        })
    }

    /// The one kind that the step is of, and its table.
    fn kind<'t>(
        &mut self,
        table: &'t Table<'a>,
        span: &Range<usize>,
    ) -> Option<(&'static Kind, &'t Value<'a>)> {
        let mut found: Vec<_> = Vec::new();
        let mut strangers = self.strangers;
        for (key, value) in table {
            let name = key.get_ref().as_ref();
            if let Some(kind) = Kind::named(name) {
                found.push((key.span(), kind, value));
            } else if !StepKeys::KEYS.contains(&name) {
                strangers = true;
                let mistake = stranger(self.source, &key.span(), name, &[]);
                self.settler.mistakes.push(mistake);
            }
        }
        found.sort_by_key(|(span, _, _)| span.start);
        if let Some((span, kind, _)) = found.get(1) {
            let title = format!("a second kind, `{}`, in one step", kind.name);
            self.refuse(span.clone(), title, "write a step of its own for it");
        }
        if found.is_empty() && !strangers {
            let kinds: Vec<_> = KINDS.iter().map(|kind| kind.name).collect();
            let advice = format!("write one of these tables: {}", kinds.join(", "));
            self.refuse(span.clone(), "nothing is said of what to do", advice);
        }
        found.into_iter().next().map(|(_, kind, value)| (kind, value))
    }

    fn action(&mut self, kind: &'static Kind, value: &Value<'a>) -> Option<Arc<dyn Action>> {
        if !value.get_ref().is_table() {
            let title = format!("`{}` cannot be {}", kind.name, kind_of(value.get_ref()));
            self.refuse(value.span(), title, "write a table, see `picket kinds`");
            return None;
        }
        let known = self.settler.mistakes.len();
        let names = Names { givens: self.givens, captures: &self.captures };
        let settled = self.settler.value(value, names);
        let whole = self.settler.mistakes.len() == known;
        independence::urls(settled.get_ref(), &mut self.steps.watched);
        self.steps.tables.push(canonical(settled.get_ref()));
        match kind.parse(settled.clone(), self.ground) {
            Ok(action) => Some(action),
            // What a text with an undefined variable in it comes to is not the user's second mistake.
            Err(Unfit::Refused(_)) if !whole => None,
            Err(Unfit::Shape(error)) if !whole && !error.message().contains(" field `") => None,
            Err(error) => {
                let schema = schema::kind(kind);
                let mistakes = refused(self.source, kind.name, &settled, &error, &schema);
                self.settler.mistakes.extend(mistakes);
                None
            }
        }
    }

    fn lines(
        &mut self,
        lines: &[At<String>],
        kind: &Kind,
        action: Option<&dyn Action>,
    ) -> Vec<Expectation> {
        lines.iter().filter_map(|line| self.expectation(line, kind, action)).collect()
    }

    fn expectation(
        &mut self,
        written: &At<String>,
        kind: &Kind,
        action: Option<&dyn Action>,
    ) -> Option<Expectation> {
        let line = self.line(&written.value, &written.span)?;
        let expectation = match Expectation::compile(&line.text, kind.subjects) {
            Ok(expectation) => expectation,
            Err(mistake) => {
                self.refuse_line(&written.span, &line, &mistake.at, &mistake.message);
                return None;
            }
        };
        let subject = expectation.subject();
        if let Some(Err(why)) = action.map(|action| action.has_subject(subject)) {
            self.refuse_line(&written.span, &line, &(0..subject.len().min(line.text.len())), &why);
        }
        Some(expectation)
    }

    fn line(&mut self, text: &str, span: &Range<usize>) -> Option<Line> {
        let names = Names { givens: self.givens, captures: &self.captures };
        self.settler.line(text, span, names)
    }

    fn refuse_line(&mut self, span: &Range<usize>, line: &Line, at: &Range<usize>, message: &str) {
        let spot = Spot::new(self.source, span.clone()).inside(&line.written(at));
        self.settler.mistakes.push(Mistake::at(spot, message));
    }

    fn capture(
        &mut self,
        written: BTreeMap<At<String>, At<CaptureKey>>,
        kind: &Kind,
        action: Option<&dyn Action>,
    ) -> Vec<Captured> {
        let mut captures = Vec::new();
        let mut written: Vec<_> = written.into_iter().collect();
        written.sort_by_key(|(name, _)| name.span.start);
        for (name, key) in written {
            let (from, secret) = match key.value {
                CaptureKey::From(text) => (At { value: text, span: key.span }, false),
                CaptureKey::Detailed(detailed) => (detailed.from, detailed.secret),
            };
            // A name that is refused is known all the same: its use is no second mistake.
            let fits = self.capture_name(&name);
            captures.push((name.value, self.captured(&from, kind, action), secret, fits));
        }
        self.captures.extend(captures.iter().map(|(name, ..)| name.clone()));
        let fitting = captures.into_iter().filter(|(.., fits)| *fits);
        fitting
            .filter_map(|(name, from, secret, _)| Some(Captured { name, from: from?, secret }))
            .collect()
    }

    fn capture_name(&mut self, name: &At<String>) -> bool {
        let At { value, span } = name;
        let taken = match value.as_str() {
            "run" => Some("the run's own id"),
            "region" | "stage" => Some("where picket stands"),
            other if self.givens.contains_key(other) => Some("a value of the matrix"),
            _ => None,
        };
        if let Some(taken) = taken {
            self.refuse(
                span.clone(),
                format!("${{{value}}} is {taken} already"),
                "use another name",
            );
            return false;
        }
        let mut letters = value.chars();
        let fits = letters.next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
            && letters.all(|letter| letter.is_ascii_alphanumeric() || "_-".contains(letter));
        if !fits {
            let title = format!("{value:?} is no variable's name");
            self.refuse(
                span.clone(),
                title,
                "write letters, digits, `_` and `-`, and no digit first",
            );
        }
        fits
    }

    fn captured(
        &mut self,
        from: &At<String>,
        kind: &Kind,
        action: Option<&dyn Action>,
    ) -> Option<Capture> {
        let line = self.line(&from.value, &from.span)?;
        let subject = subject_of(&line.text, kind).unwrap_or_default();
        if let Some(Err(why)) = action.map(|action| action.has_subject(subject)) {
            self.refuse_line(&from.span, &line, &(0..subject.len()), &why);
            return None;
        }
        match Capture::compile(&line.text, kind.subjects) {
            Ok(capture) => Some(capture),
            Err(mistake) => {
                self.refuse_line(&from.span, &line, &mistake.at, &mistake.message);
                None
            }
        }
    }

    fn when(&mut self, written: &At<String>) -> Option<When> {
        let line = self.line(&written.value, &written.span)?;
        match condition::read(&line.text, &self.captures) {
            Ok(when) => Some(when),
            Err((title, advice)) => {
                self.refuse(written.span.clone(), title, advice);
                None
            }
        }
    }

    fn attempts(&mut self, keys: Option<At<AttemptsKeys>>) -> Attempts {
        let mut attempts =
            Attempts { max: 1, wait: Duration::from_secs(1), on: vec!["network".to_owned()] };
        let Some(At { value: AttemptsKeys { max, wait, on }, .. }) = keys else { return attempts };
        attempts.wait = wait.map_or(attempts.wait, crate::period::Period::get);
        match max {
            Some(max) if !(1..=MOST_ATTEMPTS).contains(&max.value) => {
                let title = format!("`max` cannot be {}", max.value);
                self.refuse(max.span, title, format!("write a number from 1 to {MOST_ATTEMPTS}"));
            }
            Some(max) => attempts.max = max.value,
            None => {}
        }
        if let Some(on) = on {
            for word in &on {
                self.attempt_word(word);
            }
            attempts.on = on.into_iter().map(|word| word.value).collect();
        }
        attempts
    }

    /// A group of error types, or one of them.
    fn attempt_word(&mut self, word: &At<String>) {
        let types = || ErrorType::ALL.iter().map(|known| known.as_str());
        let groups = || types().filter_map(|name| name.split_once('.')).map(|(group, _)| group);
        let known =
            |name: &str| name == "network" || types().chain(groups()).any(|known| known == name);
        if known(&word.value) {
            return;
        }
        let near = nearest(&word.value, types().chain(groups()).chain(["network"]));
        let advice = match near {
            Some(near) => format!("did you mean `{near}`?"),
            None => {
                "write \"network\", a group such as \"dns\", or an error type such as \"throttled\""
                    .to_owned()
            }
        };
        self.refuse(word.span.clone(), format!("no error type or group `{}`", word.value), advice);
    }
}

/// The subject that a capture's line begins with.
fn subject_of<'k>(text: &str, kind: &'k Kind) -> Option<&'k str> {
    let names = kind.subjects.iter().map(|subject| subject.name);
    names.filter(|name| text.starts_with(name)).max_by_key(|name| name.len())
}

/// What a kind expects when nothing is said.
fn default_expect(kind: &Kind) -> Vec<Expectation> {
    let lines = kind.default_expect.iter();
    lines.filter_map(|line| Expectation::compile(line, kind.subjects).ok()).collect()
}

/// A value in one spelling: what is the same is written the same.
pub(super) fn canonical(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("{text:?}"),
        DeValue::Integer(number) => format!("{}/{}", number.as_str(), number.radix()),
        DeValue::Float(number) => number.as_str().to_owned(),
        DeValue::Boolean(value) => value.to_string(),
        DeValue::Datetime(moment) => moment.to_string(),
        DeValue::Array(items) => {
            let items: Vec<_> = items.iter().map(|item| canonical(item.get_ref())).collect();
            format!("[{}]", items.join(","))
        }
        DeValue::Table(table) => {
            let mut entries: Vec<_> = table
                .iter()
                .map(|(key, value)| format!("{:?}={}", key.get_ref(), canonical(value.get_ref())))
                .collect();
            entries.sort();
            format!("{{{}}}", entries.join(","))
        }
    }
}

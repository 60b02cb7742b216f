//! The work of planning: file by file, probe by probe, member by member.

use std::collections::BTreeMap;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::independence::Watched;
use super::member::{Member, Written as WrittenProbe};
use super::step::canonical;
use super::{Loaded, Plan, Planned, independence, labels};
use crate::config::keys::{AgentKeys, At, ProbeKeys, Table, Value};
use crate::config::settle::{Names, Settler};
use crate::config::shape::{refused, unfit, unknown_key};
use crate::config::values::Scalar;
use crate::config::{File, Mistake, Mistakes, Named, Settings, Source, Spot, Written, schema};
use crate::export::{Outlet, SINKS, Sink};
use crate::near::instead;
use crate::place::{Place, ProbeName};
use crate::secret::Secrets;

/// The most members of one matrix.
const MEMBERS: usize = 10_000;

/// What planning knows and has found.
#[derive(Debug)]
pub(super) struct Planning<'a> {
    written: &'a Written,
    place: &'a Place,
    secrets: Secrets,
    /// What every text may name.
    givens: BTreeMap<String, String>,
    labels: BTreeMap<String, String>,
    sinks: Vec<(&'static str, Arc<dyn Outlet>)>,
    /// Their tables, in one spelling.
    sink_tables: Vec<String>,
    exports: Vec<independence::Export>,
    mistakes: Mistakes,
    probes: Vec<Arc<Planned>>,
    left_out: Vec<(ProbeName, String)>,
    watched: Vec<Watched>,
    warnings: Vec<String>,
}

impl<'a> Planning<'a> {
    pub(super) fn new(written: &'a Written, place: &'a Place) -> Self {
        Self {
            written,
            place,
            secrets: Secrets::here(),
            givens: BTreeMap::from([
                ("region".to_owned(), place.region.to_string()),
                ("stage".to_owned(), place.stage.to_string()),
            ]),
            labels: BTreeMap::new(),
            sinks: Vec::new(),
            sink_tables: Vec::new(),
            exports: Vec::new(),
            mistakes: written.mistakes.clone(),
            probes: Vec::new(),
            left_out: Vec::new(),
            watched: Vec::new(),
            warnings: written.warnings.clone(),
        }
    }

    /// What the agent's file says that needs the place: labels and exports.
    pub(super) fn agent(&mut self) {
        if let Some(source) = &self.written.agent
            && let Some((key, value)) =
                table_of(source, "agent").and_then(|mut agent| agent.remove_entry("labels"))
        {
            let mut settled = self.settled(source, &Table::from_iter([(key, value)]));
            let mistakes = &mut self.mistakes;
            let keys = AgentKeys::take(&mut settled, &mut |key, span, error| {
                mistakes.push(unfit(source, key, &span, error));
            });
            if let Some(written) = keys.labels {
                self.labels = labels::read(source, written.value, &mut self.mistakes);
            }
        }
        if let Some(source) = &self.written.export
            && let Some(table) = table_of(source, "export")
        {
            for (key, value) in &self.settled(source, &table) {
                self.sink(source, key, value);
            }
        }
        for sink in SINKS {
            if !self.sinks.iter().any(|(name, _)| *name == sink.name) {
                self.sinks.extend(sink.from_environment().map(|outlet| (sink.name, outlet)));
            }
        }
    }

    fn settled<'i>(&mut self, source: &Arc<Source>, table: &Table<'i>) -> Table<'i> {
        let mut settler = Settler::new(source, &self.secrets);
        let settled = settler.table(table, Names { givens: &self.givens, captures: &[] });
        self.mistakes.extend(settler.mistakes);
        settled
    }

    fn sink(
        &mut self,
        source: &Arc<Source>,
        key: &Spanned<std::borrow::Cow<'_, str>>,
        value: &Value<'_>,
    ) {
        let name = key.get_ref().as_ref();
        let Some(sink) = Sink::named(name) else {
            let known = SINKS.iter().map(|sink| sink.name);
            let advice = instead(name, known, "exporters");
            let title = format!("no exporter `{name}`");
            self.mistakes.push(Mistake::advised(Spot::new(source, key.span()), title, advice));
            return;
        };
        if !value.get_ref().is_table() {
            let title = format!("`{name}` cannot be {}", crate::config::kind_of(value.get_ref()));
            let spot = Spot::new(source, value.span());
            self.mistakes.push(Mistake::advised(spot, title, "write a table"));
            return;
        }
        match sink.parse(value.clone()) {
            Ok(outlet) => self.sinks.push((sink.name, outlet)),
            Err(error) => {
                let schema = schema::sink(sink);
                self.mistakes.extend(refused(source, name, value, &error, &schema));
            }
        }
        self.sink_tables.push(format!("{name} {}", canonical(value.get_ref())));
        self.exports.push(independence::Export::of(sink.name, value.get_ref(), self.place));
    }

    /// The probes of one file. Each one's table is let go of as soon as it is planned: with ten thousand probes the
    /// tables take as much memory as the plan, and the plan then takes their place.
    pub(super) fn file(&mut self, file: &File) {
        let mut tables = tables_of(&file.source);
        let defaults = table_among(&mut tables, "defaults").unwrap_or_default();
        for key in defaults.keys() {
            if !schema::DEFAULTS.contains(&key.get_ref().as_ref()) {
                self.mistakes.push(unknown_default(&file.source, key));
            }
        }
        if file.probes.is_empty() {
            self.defaults_alone(file, &defaults);
        }
        let Some(mut probes) = table_among(&mut tables, "probe") else { return };
        for named in &file.probes {
            if let Some(table) = table_among(&mut probes, named.name.as_str()) {
                self.probe(file, named, &defaults, &table);
            }
        }
    }

    /// Defaults are read with each probe; of a file without one they are read for their own sake.
    fn defaults_alone(&mut self, file: &File, defaults: &Table<'_>) {
        let mut settled = self.settled(&file.source, defaults);
        let mistakes = &mut self.mistakes;
        ProbeKeys::take(&mut settled, &mut |key, span, error| {
            mistakes.push(unfit(&file.source, key, &span, error));
        });
    }

    fn probe(&mut self, file: &File, named: &Named, defaults: &Table<'_>, table: &Table<'_>) {
        let written = WrittenProbe::new(file, named, defaults, table);
        self.mistakes.extend(written.strangers());
        for values in self.members(file, table) {
            let mut givens = self.givens.clone();
            givens.extend(values.iter().cloned());
            let member = Member {
                written: &written,
                place: self.place,
                secrets: &self.secrets,
                resolver: &self.written.settings.resolver,
                labels: &self.labels,
                givens: &givens,
                matrix: &values,
            };
            let made = member.plan();
            self.mistakes.extend(made.mistakes);
            self.warnings.extend(made.warnings);
            match (made.left_out, made.planned) {
                (Some(why), _) => self.leave_out(&named.name, why),
                (None, Some(planned)) => {
                    self.watched.extend(made.watched);
                    self.probes.push(Arc::new(planned));
                }
                (None, None) => {}
            }
        }
    }

    fn leave_out(&mut self, name: &ProbeName, why: String) {
        let left_out = (name.clone(), why);
        // The members of a matrix follow one another: the probe is left out once.
        if self.left_out.last() != Some(&left_out) {
            self.left_out.push(left_out);
        }
    }

    /// Each combination of a matrix's values; of a probe without a matrix, the one of none.
    fn members(&mut self, file: &File, table: &Table<'_>) -> Vec<Vec<(String, String)>> {
        let mut members = vec![Vec::new()];
        let Some((key, value)) = table.get_key_value("matrix") else { return members };
        let alone = Table::from_iter([(key.clone(), value.clone())]);
        let mut settled = self.settled(&file.source, &alone);
        let mistakes = &mut self.mistakes;
        let keys = ProbeKeys::take(&mut settled, &mut |key, span, error| {
            mistakes.push(unfit(&file.source, key, &span, error));
        });
        let Some(matrix) = keys.matrix else { return members };
        let mut written: Vec<_> = matrix.value.into_iter().collect();
        written.sort_by_key(|(name, _)| name.span.start);
        for (name, values) in written {
            if let Some(mistake) = unfit_for_matrix(&file.source, &name, &values) {
                self.mistakes.push(mistake);
                continue;
            }
            if members.len().saturating_mul(values.value.len()) > MEMBERS {
                let title = "this matrix is too large";
                let spot = Spot::new(&file.source, matrix.span);
                let advice = format!("write one of at most {MEMBERS} combinations");
                self.mistakes.push(Mistake::advised(spot, title, advice));
                return members;
            }
            members = spread(&members, &name.value, &values.value);
        }
        members
    }

    pub(super) fn done(self) -> Result<Loaded, Mistakes> {
        let mut warnings = self.warnings;
        warnings.extend(independence::warnings(&self.exports, &self.watched));
        warnings.dedup();
        if self.probes.is_empty() {
            warnings.push("no probe is planned here".to_owned());
        }
        let Self { written, place, sinks, mut sink_tables, probes, left_out, .. } = self;
        sink_tables.sort();
        let settings = Settings { exports: sink_tables.join("\n"), ..written.settings.clone() };
        let plan = Plan { place: place.clone(), probes, left_out, warnings };
        self.mistakes.or(Loaded { settings, plan, sinks })
    }
}

/// The tables of a file whose shape was looked at when it was read.
fn tables_of(source: &Source) -> Table<'_> {
    DeTable::parse(&source.text).map(Spanned::into_inner).unwrap_or_default()
}

fn table_of<'i>(source: &'i Source, name: &str) -> Option<Table<'i>> {
    table_among(&mut tables_of(source), name)
}

fn table_among<'i>(tables: &mut Table<'i>, name: &str) -> Option<Table<'i>> {
    match tables.remove(name)?.into_inner() {
        DeValue::Table(table) => Some(table),
        DeValue::String(_)
        | DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_)
        | DeValue::Array(_) => None,
    }
}

fn unknown_default(source: &Arc<Source>, key: &Spanned<std::borrow::Cow<'_, str>>) -> Mistake {
    let name = key.get_ref().as_ref();
    let known = schema::DEFAULTS.iter().copied();
    if ProbeKeys::KEYS.contains(&name) || schema::step_keys().any(|known| known == name) {
        let title = format!("`{name}` is no default");
        return Mistake::advised(
            Spot::new(source, key.span()),
            title,
            "write it in each probe that is meant",
        );
    }
    unknown_key(source, key.span(), name, known)
}

fn unfit_for_matrix(
    source: &Arc<Source>,
    name: &At<String>,
    values: &At<Vec<At<Scalar>>>,
) -> Option<Mistake> {
    if name.value == "run" {
        let spot = Spot::new(source, name.span.clone());
        return Some(Mistake::advised(spot, "`run` is the run's own id", "use another name"));
    }
    if let Some(why) = labels::no_name(&name.value) {
        return Some(Mistake::at(Spot::new(source, name.span.clone()), &why));
    }
    if values.value.is_empty() {
        let title = format!("the matrix has no `{}`", name.value);
        let advice = "write at least one value, or leave the key out";
        return Some(Mistake::advised(Spot::new(source, values.span.clone()), title, advice));
    }
    let text = |value: &At<Scalar>| value.value.to_string();
    let twice = values.value.iter().enumerate().find(|(index, value)| {
        values.value.iter().take(*index).any(|earlier| text(earlier) == text(value))
    });
    twice.map(|(_, value)| {
        let title = format!("`{}` is in the list twice", text(value));
        Mistake::advised(Spot::new(source, value.span.clone()), title, "keep one of the two")
    })
}

fn spread(
    members: &[Vec<(String, String)>],
    name: &str,
    values: &[At<Scalar>],
) -> Vec<Vec<(String, String)>> {
    let mut spread = Vec::new();
    for member in members {
        for value in values {
            let mut wider = member.clone();
            wider.push((name.to_owned(), value.value.to_string()));
            spread.push(wider);
        }
    }
    spread
}

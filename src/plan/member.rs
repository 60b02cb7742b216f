//! One probe as it runs here, or one member of its matrix.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};
use toml::de::DeValue;

use super::independence::Watched;
use super::step::{StepWriter, Steps};
use super::{Planned, Step, Trace, labels};
use crate::clock::Timestamp;
use crate::config::glob;
use crate::config::keys::{At, ProbeKeys, StepKeys, Table};
use crate::config::settle::{Names, Settler};
use crate::config::shape::{unfit, unknown_key};
use crate::config::values::{Moment, OneOrMany, OnlyKeys, TraceKey, Window};
use crate::config::{File, Mistake, Mistakes, Named, Source, Spot, schema};
use crate::outcome::Labels;
use crate::period;
use crate::place::Place;
use crate::probe::{Ground, KINDS};
use crate::secret::Secrets;

/// How often a probe is due when nobody says.
const EVERY: Duration = Duration::from_mins(1);
/// How long a run may take when nobody says and the probe is not due more often.
const TIMEOUT: Duration = Duration::from_secs(10);
/// No probe is due more often.
const SMALLEST_EVERY: Duration = Duration::from_millis(200);

/// Kinds that are to come.
const TO_COME: &[&str] = &[
    "http",
    "tcp",
    "tls",
    "dns",
    "icmp",
    "grpc",
    "websocket",
    "command",
    "lambda",
    "sqs",
    "sns",
    "events",
    "kinesis",
    "dynamodb",
    "s3",
    "states",
    "quota",
    "aws",
];

/// A probe as it is written, with its file's defaults.
#[derive(Debug)]
pub(super) struct Written<'i> {
    file: &'i File,
    named: &'i Named,
    /// Its own keys, and the defaults for those that it has not.
    probe: Table<'i>,
    /// Its steps' keys and kinds, when it has one step that stands in the probe itself.
    step: Table<'i>,
    /// The lists of steps.
    lists: Table<'i>,
    /// Defaults of steps.
    step_defaults: Table<'i>,
    strangers: Vec<(Range<usize>, String)>,
    /// Keys that the probe has of its own.
    own: Vec<String>,
}

impl<'i> Written<'i> {
    pub(super) fn new(
        file: &'i File,
        named: &'i Named,
        defaults: &Table<'i>,
        table: &Table<'i>,
    ) -> Self {
        let is_probe_key = |key: &str| ProbeKeys::KEYS.contains(&key);
        let mut written = Self {
            file,
            named,
            probe: Table::new(),
            step: Table::new(),
            lists: Table::new(),
            step_defaults: Table::new(),
            strangers: Vec::new(),
            own: table.keys().map(|key| key.get_ref().to_string()).collect(),
        };
        for (key, value) in table {
            let name = key.get_ref().as_ref();
            let place = match name {
                "matrix" => continue,
                "step" | "finally" => &mut written.lists,
                name if is_probe_key(name) => &mut written.probe,
                name if StepKeys::KEYS.contains(&name) && name != "name" => &mut written.step,
                name if KINDS.iter().any(|kind| kind.name == name) => &mut written.step,
                name => {
                    written.strangers.push((key.span(), name.to_owned()));
                    continue;
                }
            };
            place.insert(key.clone(), value.clone());
        }
        for (key, value) in defaults {
            let name = key.get_ref().as_ref();
            if !schema::DEFAULTS.contains(&name) {
                continue;
            }
            let place =
                if is_probe_key(name) { &mut written.probe } else { &mut written.step_defaults };
            match (place.get_mut(name), name) {
                // Tables of names are joined, name by name; everything else is the probe's alone.
                (Some(own), "labels" | "alarm") => join(own.get_mut(), value.get_ref()),
                (Some(_), _) => {}
                (None, _) => {
                    place.insert(key.clone(), value.clone());
                }
            }
        }
        written
    }

    /// Keys that nobody knows.
    pub(super) fn strangers(&self) -> Mistakes {
        let mut mistakes = Mistakes::default();
        for (span, name) in &self.strangers {
            mistakes.push(stranger(&self.file.source, span, name, &["step", "finally"]));
        }
        mistakes
    }
}

/// A key that no probe and no step has.
pub(super) fn stranger(
    source: &Arc<Source>,
    span: &Range<usize>,
    name: &str,
    lists: &[&'static str],
) -> Mistake {
    let spot = Spot::new(source, span.clone());
    if name == "name" {
        return Mistake::advised(
            spot,
            "a probe has its name from its table",
            "write it as [probe.NAME]",
        );
    }
    if TO_COME.contains(&name) {
        let kinds: Vec<_> = KINDS.iter().map(|kind| kind.name).collect();
        let title = format!("this version has no kind {name:?} yet");
        return Mistake::advised(spot, title, format!("kinds here are {}", kinds.join(", ")));
    }
    let of_a_probe = ProbeKeys::KEYS.iter().filter(|_| !lists.is_empty());
    let known = schema::step_keys().filter(|key| lists.is_empty() || *key != "name");
    let known = known.chain(of_a_probe.copied()).chain(lists.iter().copied());
    unknown_key(source, span.clone(), name, known)
}

fn join<'i>(own: &mut DeValue<'i>, defaults: &DeValue<'i>) {
    if let (DeValue::Table(own), DeValue::Table(defaults)) = (own, defaults) {
        for (key, value) in defaults {
            if !own.contains_key(key.get_ref().as_ref()) {
                own.insert(key.clone(), value.clone());
            }
        }
    }
}

/// What a member is made from.
#[derive(Debug)]
pub(super) struct Member<'a> {
    pub(super) written: &'a Written<'a>,
    pub(super) place: &'a Place,
    pub(super) secrets: &'a Secrets,
    pub(super) resolver: &'a [SocketAddr],
    pub(super) labels: &'a BTreeMap<String, String>,
    pub(super) givens: &'a BTreeMap<String, String>,
    pub(super) matrix: &'a [(String, String)],
}

/// What became of it.
#[derive(Debug, Default)]
pub(super) struct Made {
    pub(super) planned: Option<Planned>,
    pub(super) left_out: Option<String>,
    pub(super) mistakes: Mistakes,
    pub(super) warnings: Vec<String>,
    pub(super) watched: Vec<Watched>,
}

impl Member<'_> {
    pub(super) fn plan(&self) -> Made {
        let Written { file, probe, .. } = self.written;
        let source = &file.source;
        let mut settler = Settler::new(source, self.secrets);
        let names = Names { givens: self.givens, captures: &[] };
        let mut settled = settler.table(probe, names);
        let keys = ProbeKeys::take(&mut settled, &mut |key, span, error| {
            settler.mistakes.push(unfit(source, key, &span, error));
        });
        let left_out = keys.only.as_ref().and_then(|only| left_out(&only.value, self.place));
        let steps = self.steps(&mut settler);
        let lacks = settler.lacks;
        let mut made = Made { left_out, ..Made::default() };
        let planned = self.planned(keys, steps, &mut settler.mistakes, &mut made);
        made.mistakes = settler.mistakes;
        made.planned = planned;
        if made.left_out.is_some() {
            made.warnings.clear();
            if lacks {
                // What another place's environment and secrets give is not missing here.
                made.mistakes = Mistakes::default();
            }
        }
        // What could not be read whole has no plan; its mistakes say so.
        if !made.mistakes.is_empty() {
            made.planned = None;
        }
        made
    }

    fn steps(&self, settler: &mut Settler<'_>) -> Steps {
        let Written { file, named, step, lists, step_defaults, strangers, .. } = self.written;
        let ground = Ground { resolver: self.resolver.to_vec(), folder: file.folder.clone() };
        let mut writer = StepWriter {
            source: &file.source,
            probe: named,
            strangers: !strangers.is_empty(),
            ground: &ground,
            givens: self.givens,
            defaults: step_defaults,
            settler,
            captures: Vec::new(),
            steps: Steps::default(),
        };
        writer.probe(step, lists);
        writer.steps
    }

    fn planned(
        &self,
        keys: ProbeKeys,
        steps: Steps,
        mistakes: &mut Mistakes,
        made: &mut Made,
    ) -> Option<Planned> {
        let Written { file, named, own, .. } = self.written;
        let source = &file.source;
        let mut refuse = |span: Range<usize>, title: String, advice: String| {
            mistakes.push(Mistake::advised(Spot::new(source, span), title, advice));
        };
        let every = keys.every.as_ref().map_or(EVERY, |every| every.value.get());
        if let Some(written) = keys.every.as_ref().filter(|_| every < SMALLEST_EVERY) {
            let title = format!("`every` cannot be {}", written.value);
            refuse(written.span.clone(), title, "write 200ms or more".to_owned());
        }
        let timeout =
            keys.timeout.as_ref().map_or_else(|| TIMEOUT.min(every), |timeout| timeout.value.get());
        let reserve = match &keys.reserve {
            Some(reserve) if reserve.value.get() >= timeout => {
                let title = format!(
                    "`reserve` leaves nothing of the {} of `timeout`",
                    period::show(timeout)
                );
                refuse(reserve.span.clone(), title, "write a shorter time".to_owned());
                Duration::ZERO
            }
            Some(reserve) if steps.finally.is_empty() => {
                if own.iter().any(|key| key == "reserve") {
                    let title = "`reserve` is kept for `finally`, and there is none".to_owned();
                    refuse(
                        reserve.span.clone(),
                        title,
                        "write a `finally` step, or leave it out".to_owned(),
                    );
                }
                Duration::ZERO
            }
            Some(reserve) => reserve.value.get(),
            None if steps.finally.is_empty() => Duration::ZERO,
            None => timeout / 4,
        };
        for (span, within) in &steps.within {
            if *within > timeout {
                let title =
                    format!("`within` is longer than the {} of `timeout`", period::show(timeout));
                refuse(
                    span.clone(),
                    title,
                    "write a shorter time, or a longer `timeout`".to_owned(),
                );
            }
        }
        if timeout > every && keys.overlap.as_ref().is_none_or(|overlap| overlap.value.0 == 1) {
            made.warnings.push(format!(
                "probe `{}`: a run may take {}, longer than its period of {}: runs that are due meanwhile are skipped",
                named.name,
                period::show(timeout),
                period::show(every)
            ));
        }
        let maintenance = maintenance(source, keys.maintenance, mistakes);
        let written_labels = keys.labels.map(|labels| labels.value).unwrap_or_default();
        let mut labels = self.labels.clone();
        labels.extend(labels::read(source, written_labels, mistakes));
        labels.extend(self.matrix.iter().cloned());
        made.watched = steps.watched.iter().map(|host| Watched::new(&named.name, host)).collect();
        let kind = match steps.main.as_slice() {
            [step] if steps.finally.is_empty() => step.kind.name,
            [] => return None,
            _ => "journey",
        };
        let mut planned = Planned {
            name: named.name.clone(),
            kind,
            labels: Labels::new(labels),
            source: (source.path.clone(), named.line),
            fingerprint: 0,
            every,
            timeout,
            reserve,
            overlap: keys.overlap.map_or(1, |overlap| overlap.value.0),
            steps: steps.main,
            finally: steps.finally,
            evidence: keys.evidence.is_none_or(|evidence| evidence.value),
            trace: keys.trace.map_or(Trace::Always, |trace| trace_of(trace.value)),
            paused: keys.paused.is_some_and(|paused| paused.value),
            maintenance,
            alarm: keys.alarm.map(|alarm| alarm.value.rules()).unwrap_or_default(),
        };
        planned.fingerprint = fingerprint(&planned, &steps.tables, self.resolver);
        Some(planned)
    }
}

fn left_out(only: &OnlyKeys, place: &Place) -> Option<String> {
    let reason = |names: &Option<OneOrMany>, here: &str, what: &str| {
        let names = names.as_ref()?.names();
        if names.iter().any(|name| glob::fits(name, here)) {
            return None;
        }
        Some(format!("{what} {here} is not one of {}", names.join(", ")))
    };
    reason(&only.region, place.region.as_str(), "region")
        .or_else(|| reason(&only.stage, place.stage.as_str(), "stage"))
}

fn maintenance(
    source: &Arc<Source>,
    windows: Option<At<Vec<At<Window>>>>,
    mistakes: &mut Mistakes,
) -> Vec<(Timestamp, Timestamp)> {
    let mut planned = Vec::new();
    for At { value: window, span } in windows.map(|windows| windows.value).unwrap_or_default() {
        let mut moment = |written: &At<Moment>| {
            let text = &written.value.0;
            let moment = Timestamp::parse(text);
            if moment.is_none() {
                let title = format!("{text:?} is no time");
                let advice = "write a date, a time and an offset, such as 2026-11-23T22:00:00Z";
                let spot = Spot::new(source, written.span.clone());
                mistakes.push(Mistake::advised(spot, title, advice));
            }
            moment
        };
        let (Some(from), Some(to)) = (moment(&window.from), moment(&window.to)) else { continue };
        if from >= to {
            let title = "this window ends before it begins";
            let advice = "write `from` before `to`";
            mistakes.push(Mistake::advised(Spot::new(source, span), title, advice));
        }
        planned.push((from, to));
    }
    planned
}

fn trace_of(key: TraceKey) -> Trace {
    match key {
        TraceKey::Always => Trace::Always,
        TraceKey::Ratio(share) => Trace::Ratio(share),
        TraceKey::Never => Trace::Never,
    }
}

/// A hash of all that was written for a probe, and of nothing else: not of its place in the file.
fn fingerprint(planned: &Planned, tables: &[String], resolver: &[SocketAddr]) -> u64 {
    let Planned {
        name,
        kind,
        labels,
        source: _,
        fingerprint: _,
        every,
        timeout,
        reserve,
        overlap,
        steps,
        finally,
        evidence,
        trace,
        paused,
        maintenance,
        alarm,
    } = planned;
    let mut hash = Sha256::new();
    let mut add = |part: String| {
        hash.update(part.as_bytes());
        hash.update([0]);
    };
    add(format!("{name:?} {kind} {labels:?} {every:?} {timeout:?} {reserve:?} {overlap}"));
    add(format!("{evidence} {trace:?} {paused} {maintenance:?} {alarm:?} {resolver:?}"));
    for Step { name, kind, action: _, expect, warn, capture, when, within, attempts } in
        steps.iter().chain(finally)
    {
        add(format!("{name:?} {} {when:?} {within:?} {attempts:?}", kind.name));
        for line in expect {
            add(format!("expect {}", line.text()));
        }
        for line in warn {
            add(format!("warn {}", line.text()));
        }
        for kept in capture {
            add(format!("{} {} {}", kept.name, kept.from.text(), kept.secret));
        }
    }
    for table in tables {
        add(table.clone());
    }
    let digest: [u8; 32] = hash.finalize().into();
    digest.iter().take(8).fold(0, |sum, byte| (sum << 8) | u64::from(*byte))
}

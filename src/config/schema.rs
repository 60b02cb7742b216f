//! The JSON Schemas of both files, made from the keys' own types and the tables of kinds and sinks.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::keys::{AgentKeys, JournalKeys, ProbeKeys, StepKeys};
use crate::export::{SINKS, Sink};
use crate::probe::{KINDS, Kind};

/// Keys that `[defaults]` takes: a probe's own, and the steps' that make sense for all.
pub const DEFAULTS: &[&str] = &[
    "every",
    "timeout",
    "reserve",
    "overlap",
    "only",
    "labels",
    "alarm",
    "evidence",
    "trace",
    "maintenance",
    "expect",
    "warn",
    "attempts",
];

/// The schema of `picket.toml`; it may hold probes too.
pub fn agent() -> Value {
    let mut generator = generator();
    let mut sinks = Map::new();
    for sink in SINKS {
        sinks.insert(sink.name.to_owned(), (sink.schema)(&mut generator).to_value());
    }
    let mut properties = probe_tables(&mut generator);
    properties.insert("agent".to_owned(), keys::<AgentKeys>(&mut generator));
    properties.insert("journal".to_owned(), keys::<JournalKeys>(&mut generator));
    properties.insert("export".to_owned(), closed(sinks, "Where outcomes go."));
    whole(generator, "picket.toml", properties)
}

/// The schema of a probe file.
pub fn probes() -> Value {
    let mut generator = generator();
    let properties = probe_tables(&mut generator);
    whole(generator, "A probe file of picket", properties)
}

/// The schema of one kind's table, with what it refers to.
pub fn kind(kind: &Kind) -> Value {
    let mut generator = generator();
    let schema = (kind.schema)(&mut generator).to_value();
    with_definitions(generator, schema)
}

/// The schema of one sink's table, with what it refers to.
pub fn sink(sink: &Sink) -> Value {
    let mut generator = generator();
    let schema = (sink.schema)(&mut generator).to_value();
    with_definitions(generator, schema)
}

/// The keys of a step: those that all steps have, and the kinds.
pub fn step_keys() -> impl Iterator<Item = &'static str> {
    StepKeys::KEYS.iter().copied().chain(KINDS.iter().map(|kind| kind.name))
}

fn with_definitions(mut generator: SchemaGenerator, mut schema: Value) -> Value {
    if let Some(object) = schema.as_object_mut() {
        object.insert("$defs".to_owned(), Value::Object(generator.take_definitions(true)));
    }
    without_null(&mut schema);
    schema
}

fn generator() -> SchemaGenerator {
    SchemaSettings::draft2020_12().into_generator()
}

fn keys<T: JsonSchema>(generator: &mut SchemaGenerator) -> Value {
    T::json_schema(generator).to_value()
}

fn properties<T: JsonSchema>(generator: &mut SchemaGenerator) -> Map<String, Value> {
    match keys::<T>(generator).get_mut("properties").map(Value::take) {
        Some(Value::Object(properties)) => properties,
        _ => Map::new(),
    }
}

/// `[defaults]` and `[probe.NAME]`.
fn probe_tables(generator: &mut SchemaGenerator) -> Map<String, Value> {
    let mut step = properties::<StepKeys>(generator);
    let mut probe = properties::<ProbeKeys>(generator);
    let all = probe.iter().chain(&step);
    let defaults: Map<_, _> = all
        .filter(|(key, _)| DEFAULTS.contains(&key.as_str()))
        .map(|(key, schema)| (key.clone(), schema.clone()))
        .collect();
    for kind in KINDS {
        step.insert(kind.name.to_owned(), (kind.schema)(generator).to_value());
    }
    let of_the_probe = step.iter().filter(|(key, _)| *key != "name");
    probe.extend(of_the_probe.map(|(key, schema)| (key.clone(), schema.clone())));
    let step = closed(step, "One action: exactly one kind's table.");
    for (key, about) in [
        ("step", "The steps of a journey, in order; captures flow forward."),
        ("finally", "Steps that always run, in their own reserved time."),
    ] {
        probe.insert(
            key.to_owned(),
            json!({ "type": "array", "description": about, "items": step }),
        );
    }
    let probe = closed(probe, "A named check with a period.");
    let mut tables = Map::new();
    tables.insert(
        "defaults".to_owned(),
        closed(defaults, "What each probe of this file has, unless it says otherwise."),
    );
    tables.insert(
        "probe".to_owned(),
        json!({ "type": "object", "description": "The probes, by name.", "additionalProperties": probe }),
    );
    tables
}

fn closed(properties: Map<String, Value>, about: &str) -> Value {
    let mut schema =
        json!({ "type": "object", "description": about, "additionalProperties": false });
    if let Some(object) = schema.as_object_mut() {
        object.insert("properties".to_owned(), Value::Object(properties));
    }
    schema
}

fn whole(generator: SchemaGenerator, title: &str, properties: Map<String, Value>) -> Value {
    let mut schema = closed(properties, title);
    if let Some(object) = schema.as_object_mut() {
        let draft = "https://json-schema.org/draft/2020-12/schema";
        object.insert("$schema".to_owned(), Value::from(draft));
    }
    with_definitions(generator, schema)
}

/// TOML has no null: a key that may be left out is not one that may be null.
fn without_null(schema: &mut Value) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(without_null),
        Value::Object(object) => {
            object.values_mut().for_each(without_null);
            object.retain(|key, value| key != "default" || !value.is_null());
            if let Some(Value::Array(types)) = object.get_mut("type") {
                types.retain(|name| name != "null");
                if let [only] = types.as_slice() {
                    let only = only.clone();
                    object.insert("type".to_owned(), only);
                }
            }
            let Some(Value::Array(ways)) = object.get_mut("anyOf") else { return };
            ways.retain(|way| *way != json!({ "type": "null" }));
            if let [Value::Object(only)] = ways.as_slice() {
                let only = only.clone();
                object.remove("anyOf");
                for (key, value) in only {
                    object.entry(key).or_insert(value);
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

//! Attributes as OTLP writes them, and what every request says of its sender.

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList,
};
use opentelemetry_proto::tonic::resource::v1::Resource as WireResource;
use opentelemetry_sdk::Resource;

use crate::outcome::{Fact, Outcome};

/// Attribute names of ours: a user's label of the same name gives way.
pub(super) const OURS: &[&str] = &[
    "probe",
    "kind",
    "step",
    "stage",
    "target.region",
    "verdict",
    "blame",
    "error.type",
    "test.case.name",
    "test.case.result.status",
    "user_agent.synthetic.type",
];

/// What every request says of its sender.
#[derive(Clone, Debug)]
pub(super) struct Sender {
    /// The agent, its host and its place.
    pub(super) resource: WireResource,
}

impl Sender {
    /// From the SDK's form; sorted, so that the same outcomes are the same bytes.
    pub(super) fn of(resource: &Resource) -> Self {
        let mut resource = WireResource::from(resource);
        resource.attributes.sort_by(|one, other| one.key.cmp(&other.key));
        Self { resource }
    }
}

/// The scope of all that picket says.
pub(super) fn scope() -> InstrumentationScope {
    InstrumentationScope {
        name: env!("CARGO_PKG_NAME").to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        attributes: Vec::new(),
        dropped_attributes_count: 0,
    }
}

/// One attribute.
pub(super) fn attribute(key: impl Into<String>, value: impl Into<Value>) -> KeyValue {
    KeyValue {
        key: key.into(),
        value: Some(AnyValue { value: Some(value.into()) }),
        key_strindex: 0,
    }
}

/// An attribute that is a text.
pub(super) fn text(key: impl Into<String>, value: impl Into<String>) -> KeyValue {
    attribute(key, Value::StringValue(value.into()))
}

/// A fact as a value.
pub(super) fn fact(fact: &Fact) -> Value {
    match fact {
        Fact::Bool(value) => Value::BoolValue(*value),
        Fact::Integer(value) => Value::IntValue(*value),
        Fact::Number(value) => Value::DoubleValue(*value),
        Fact::Text(value) => Value::StringValue(value.clone()),
        Fact::List(facts) => {
            let values = facts.iter().map(|one| AnyValue { value: Some(self::fact(one)) });
            Value::ArrayValue(ArrayValue { values: values.collect() })
        }
    }
}

/// Several named values as one.
pub(super) fn map(entries: Vec<KeyValue>) -> Value {
    Value::KvlistValue(KeyValueList { values: entries })
}

/// What tells the run's probe from others: on its root span and its log records.
pub(super) fn identity(outcome: &Outcome) -> Vec<KeyValue> {
    let mut attributes = vec![
        text("probe", outcome.probe.as_str()),
        text("kind", outcome.kind.as_ref()),
        text("stage", outcome.stage.as_str()),
        text("target.region", outcome.target_region()),
        text("picket.run", outcome.run.as_ref()),
        text("verdict", outcome.verdict.as_str()),
    ];
    if let Some(blame) = outcome.blame {
        attributes.push(text("blame", blame.as_str()));
    }
    if let Some(error_type) = outcome.error_type {
        attributes.push(text("error.type", error_type.as_str()));
    }
    if outcome.maintenance {
        attributes.push(attribute("picket.maintenance", Value::BoolValue(true)));
    }
    let labels = outcome.labels.iter().filter(|(key, _)| !OURS.contains(&key.as_str()));
    attributes.extend(labels.map(|(key, value)| text(key.clone(), value.clone())));
    attributes
}

/// Text of at most so many bytes; what was cut off leaves a mark.
pub(super) fn cut(whole: &str, most: usize) -> String {
    if whole.len() <= most {
        return whole.to_owned();
    }
    let end = whole.floor_char_boundary(most.saturating_sub('…'.len_utf8()));
    let (kept, _) = whole.split_at_checked(end).unwrap_or_default();
    format!("{kept}…")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_text_keeps_whole_characters_and_says_that_it_was_cut() {
        assert_eq!(cut("short", 10), "short");
        assert_eq!(cut("ééééé", 8), "éé…");
        assert_eq!(cut("ééééé", 0), "…");
    }
}

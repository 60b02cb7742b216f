//! The keys that a user may write, each with what it means: read one by one, so that every mistake is found.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::PathBuf;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use super::values::{
    AlarmKeys, AttemptsKeys, CaptureKey, Listen, OnlyKeys, Overlap, Scalar, TraceKey, Window,
};
use crate::period::{Period, Size};

/// A table as it is written; keys and values know their places.
pub type Table<'i> = DeTable<'i>;
/// A value as it is written, and its place.
pub type Value<'i> = Spanned<DeValue<'i>>;

/// A value and where it stands in its file.
#[derive(Clone, Debug)]
pub struct At<T> {
    /// The value.
    pub value: T,
    /// Where it stands, in bytes.
    pub span: Range<usize>,
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for At<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<T>::deserialize(deserializer)?;
        Ok(Self { span: spanned.span(), value: spanned.into_inner() })
    }
}

impl<T: PartialEq> PartialEq for At<T> {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl<T: Eq> Eq for At<T> {}

impl<T: Ord> PartialOrd for At<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T: Ord> Ord for At<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.value.cmp(&other.value)
    }
}

impl<T: JsonSchema> JsonSchema for At<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn schema_id() -> Cow<'static, str> {
        T::schema_id()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

/// A table's keys: the struct, its schema, its list of names, and a reader that goes on after a mistake.
macro_rules! keys {
    ($(#[$about:meta])* pub struct $name:ident { $($(#[$doc:meta])* $key:ident: $type:ty,)* }) => {
        $(#[$about])*
        #[derive(Debug, JsonSchema)]
        #[schemars(deny_unknown_fields)]
        pub struct $name { $($(#[$doc])* pub $key: Option<At<$type>>,)* }

        impl $name {
            /// The names of the keys.
            pub const KEYS: &[&str] = &[$(stringify!($key)),*];

            /// Takes these keys out of a table; what does not fit is told to `refuse`, with the key.
            pub fn take(table: &mut Table<'_>, refuse: &mut dyn FnMut(&str, Range<usize>, &toml::de::Error)) -> Self {
                Self { $($key: take(table, stringify!($key), refuse),)* }
            }
        }
    };
}

fn take<T: DeserializeOwned>(
    table: &mut Table<'_>,
    key: &str,
    refuse: &mut dyn FnMut(&str, Range<usize>, &toml::de::Error),
) -> Option<At<T>> {
    let value = table.remove(key)?;
    let span = value.span();
    match T::deserialize(ValueDeserializer::from(value)) {
        Ok(value) => Some(At { value, span }),
        Err(error) => {
            refuse(key, span, &error);
            None
        }
    }
}

keys! {
    /// `[agent]`: where this picket stands and what it reads.
    pub struct AgentKeys {
        /// Where this picket stands; "auto" asks the instance, then `$AWS_REGION`, else it is "local".
        region: String,
        /// The stage that it serves: alpha, beta, gamma, prod, or any word. By default prod.
        stage: String,
        /// The probe files, from this file's folder; `*` and `?` stand for any text and any one letter. By default probes/*.toml.
        probes: Vec<At<String>>,
        /// The folder of the journal and the ledger. By default `$STATE_DIRECTORY`, else /var/lib/picket.
        state: PathBuf,
        /// Where the status page, /metrics and the API answer; "off" for nowhere. By default 127.0.0.1:9464.
        listen: Listen,
        /// DNS servers to ask, "ip:port". By default the system's.
        resolver: Vec<SocketAddr>,
        /// Labels of every probe.
        labels: BTreeMap<At<String>, At<String>>,
        /// How many runs may be under way at once. By default 1024.
        max_in_flight: u32,
        /// How long runs that are under way may go on after SIGTERM before their steps are cut; `finally` still runs. By default 10s.
        drain: Period,
    }
}

keys! {
    /// `[journal]`: how long outcomes are kept.
    pub struct JournalKeys {
        /// How long passes are kept. By default 7d.
        keep: Period,
        /// How long all other outcomes are kept. By default 30d.
        keep_failures: Period,
        /// The most that the journal takes on disk. By default 1GiB.
        max_size: Size,
    }
}

keys! {
    /// What a probe may say of itself.
    pub struct ProbeKeys {
        /// How often it is due, at least 200ms. By default 1m.
        every: Period,
        /// How long one run may take, `finally` included. By default 10s, or `every` if that is shorter.
        timeout: Period,
        /// The part of `timeout` that is kept for `finally`. By default a quarter.
        reserve: Period,
        /// What to do with a run that is due while another is under way: "skip" it, or how many may be at once.
        overlap: Overlap,
        /// Where it runs.
        only: OnlyKeys,
        /// One probe of each combination of these values; each is a variable and a label.
        matrix: BTreeMap<At<String>, At<Vec<At<Scalar>>>>,
        /// Its labels, added to the agent's.
        labels: BTreeMap<At<String>, At<String>>,
        /// When its outcomes are news.
        alarm: AlarmKeys,
        /// Whether failures keep evidence. By default true.
        evidence: bool,
        /// Which runs are traced: "always", "never", or a share between 0 and 1.
        trace: TraceKey,
        /// Planned, but skipped.
        paused: bool,
        /// When it is looked after: it keeps probing, and its outcomes say so.
        maintenance: Vec<At<Window>>,
    }
}

keys! {
    /// What a step may say of itself beside its kind's table.
    pub struct StepKeys {
        /// Its name. By default its number.
        name: String,
        /// What must hold, one line each. By default what the kind expects; [] for nothing.
        expect: Vec<At<String>>,
        /// What should hold: if it does not, the run passes with a warning.
        warn: Vec<At<String>>,
        /// What is kept for later steps: a variable's name and where its value is found.
        capture: BTreeMap<At<String>, At<CaptureKey>>,
        /// The step runs only if this holds: "order exists", "not order exists", "'${plan}' == 'gold'".
        when: String,
        /// Its own time limit, inside the probe's.
        within: Period,
        /// How often it may be tried.
        attempts: AttemptsKeys,
    }
}

//! What a kind of step is, and the one table of all kinds.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::DeValue;

use crate::expect::Subject;
use crate::failure::Failure;
use crate::reading::Reading;
use crate::setting::{Refused, Unfit};
use crate::template::Scope;

mod http;

/// Every kind of step.
pub const KINDS: &[Kind] = &[
    // One row a kind, one kind a file.
    Kind::of::<http::Http>(),
];

/// A kind of step. Its settings are the type's fields; everything else that is to be known of it stands here.
pub trait Probe: DeserializeOwned + JsonSchema + fmt::Debug + Send + Sync + 'static {
    /// The name of its table.
    const KIND: &'static str;
    /// What it does, in a line.
    const ABOUT: &'static str;
    /// Its manual page's example: a whole probe file, and a test.
    const EXAMPLE: &'static str;
    /// What its expectations can be about.
    const SUBJECTS: &'static [Subject];
    /// What is expected when nothing is said.
    const DEFAULT_EXPECT: &'static [&'static str];

    /// The last word on the settings when the file is loaded: what one key cannot say of itself is said here.
    /// The answer names the key that is wrong (a key of the kind's table, dots for nesting) and says what to write instead.
    fn ready(&mut self, ground: &Ground) -> Result<(), Refused>;

    /// Whether an expectation on this subject makes sense with these settings; if not, why not.
    fn has_subject(&self, subject: &str) -> Result<(), String> {
        let _ = subject;
        Ok(())
    }

    /// What a broken expectation means where the kind knows better, such as 429: the service is there, the quota is not.
    fn lay_blame(&self, reading: &Reading, broken: Failure) -> Failure {
        let _ = reading;
        broken
    }

    /// One attempt: one request, no retry. The caller keeps the time limit and drops the future at its end; what was
    /// seen until then is in `reading`.
    fn look(
        &self,
        scope: &Scope,
        reading: &mut Reading,
    ) -> impl Future<Output = Result<(), Failure>> + Send;
}

/// What the agent gives to every step: its own settings that kinds build on.
#[derive(Clone, Debug, Default)]
pub struct Ground {
    /// DNS servers to ask; the system's when empty.
    pub resolver: Vec<std::net::SocketAddr>,
    /// The folder that relative paths in a probe file start from.
    pub folder: std::path::PathBuf,
}

type Parse = fn(Spanned<DeValue<'_>>, &Ground) -> Result<Arc<dyn Action>, Unfit>;

/// One row of the table.
#[derive(Clone, Copy)]
pub struct Kind {
    /// The name of its table.
    pub name: &'static str,
    /// What it does, in a line.
    pub about: &'static str,
    /// Its manual page's example.
    pub example: &'static str,
    /// What its expectations can be about.
    pub subjects: &'static [Subject],
    /// What is expected when nothing is said.
    pub default_expect: &'static [&'static str],
    /// The schema of its table.
    pub schema: fn(&mut SchemaGenerator) -> Schema,
    parse: Parse,
}

/// A step that is ready to be run: the boxed twin of `Probe`, written once.
pub trait Action: fmt::Debug + Send + Sync {
    /// One attempt.
    fn look<'a>(
        &'a self,
        scope: &'a Scope,
        reading: &'a mut Reading,
    ) -> Pin<Box<dyn Future<Output = Result<(), Failure>> + Send + 'a>>;

    /// Whether an expectation on this subject makes sense with these settings; if not, why not.
    fn has_subject(&self, subject: &str) -> Result<(), String>;

    /// What a broken expectation means where the kind knows better.
    fn lay_blame(&self, reading: &Reading, broken: Failure) -> Failure;
}

impl<P: Probe> Action for P {
    fn look<'a>(
        &'a self,
        scope: &'a Scope,
        reading: &'a mut Reading,
    ) -> Pin<Box<dyn Future<Output = Result<(), Failure>> + Send + 'a>> {
        Box::pin(Probe::look(self, scope, reading))
    }

    fn has_subject(&self, subject: &str) -> Result<(), String> {
        Probe::has_subject(self, subject)
    }

    fn lay_blame(&self, reading: &Reading, broken: Failure) -> Failure {
        Probe::lay_blame(self, reading, broken)
    }
}

impl Kind {
    /// The row of one kind.
    pub const fn of<P: Probe>() -> Self {
        Self {
            name: P::KIND,
            about: P::ABOUT,
            example: P::EXAMPLE,
            subjects: P::SUBJECTS,
            default_expect: P::DEFAULT_EXPECT,
            schema: |generator| generator.subschema_for::<P>(),
            parse: |table, ground| {
                let deserializer = toml::de::ValueDeserializer::from(table);
                let mut probe = P::deserialize(deserializer).map_err(Unfit::Shape)?;
                probe.ready(ground).map_err(Unfit::Refused)?;
                Ok(Arc::new(probe))
            },
        }
    }

    /// Reads a kind's table; load-time variables are filled in already.
    pub fn parse(
        &self,
        table: Spanned<DeValue<'_>>,
        ground: &Ground,
    ) -> Result<Arc<dyn Action>, Unfit> {
        (self.parse)(table, ground)
    }

    /// The kind of that name.
    pub fn named(name: &str) -> Option<&'static Self> {
        KINDS.iter().find(|kind| kind.name == name)
    }
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Kind").field(&self.name).finish()
    }
}

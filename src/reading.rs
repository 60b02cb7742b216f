//! What one attempt at a step saw. The caller owns it, so an attempt that is cut off still tells what it saw.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::OnceLock;

use bytes::Bytes;
use tokio::time::Instant;

use crate::outcome::{Evidence, Fact, Request};
use crate::phase::Timeline;
use crate::template::Scope;

mod json;

pub use json::Json;

/// What one attempt at a step saw.
#[derive(Debug)]
pub struct Reading {
    /// The step's place in the run: names its spans, such as `step/0/try/1`.
    pub place: String,
    /// The phases; its zero is the start of the run.
    pub timeline: Timeline,
    /// When this attempt began; `latency` counts from here.
    pub began: Instant,
    /// Facts by the subjects' names: `status`, `http.version`, `cert.expires_in` (a length of time in seconds) …
    pub facts: BTreeMap<Cow<'static, str>, Fact>,
    /// The answer's header fields, names in lower case, in the order in which they came.
    pub headers: Vec<(String, String)>,
    /// The body, decoded; none when there was none to be read.
    pub body: Option<Bytes>,
    /// The requests made.
    pub requests: Vec<Request>,
    /// What a failure leaves to look at. Kinds fill it in as they go; it is dropped when the step passes.
    pub evidence: Evidence,
    later: Vec<Later>,
    json: OnceLock<Result<Json, String>>,
}

impl Reading {
    /// Nothing seen yet; `origin` is the start of the run.
    pub fn new(place: String, origin: Instant) -> Self {
        Self {
            place,
            timeline: Timeline::new(origin),
            began: Instant::now(),
            facts: BTreeMap::new(),
            headers: Vec::new(),
            body: None,
            requests: Vec::new(),
            evidence: Evidence::default(),
            later: Vec::new(),
            json: OnceLock::new(),
        }
    }

    /// Has a part of the evidence written once it is wanted. Most runs pass: what they saw is never written out.
    pub fn evidence_later(
        &mut self,
        write: impl FnOnce(&mut Evidence, &Scope) + Send + Sync + 'static,
    ) {
        self.later.push(Later(Box::new(write)));
    }

    /// What a failure leaves to look at: nothing that the run must hide.
    pub fn into_evidence(mut self, scope: &Scope) -> Evidence {
        for Later(write) in self.later {
            write(&mut self.evidence, scope);
        }
        if let Some(body) = self.body.filter(|_| self.evidence.body.is_none()) {
            self.evidence.keep_body(&body, |text| scope.clean(text));
        }
        let Evidence { request, response, peer, .. } = &mut self.evidence;
        for text in [request, response, peer].into_iter().flatten() {
            *text = scope.clean(text);
        }
        self.evidence
    }

    /// The body as JSON, or why it cannot be looked into. It is read once, when it is first asked for: the body must
    /// be whole by then.
    pub fn json(&self) -> Result<&Json, &str> {
        let body = self.body.as_deref().unwrap_or_default();
        self.json.get_or_init(|| Json::parse(body)).as_ref().map_err(String::as_str)
    }

    /// Notes a fact.
    pub fn fact(&mut self, name: &'static str, fact: impl Into<Fact>) {
        self.facts.insert(Cow::Borrowed(name), fact.into());
    }
}

/// Writes a part of the evidence.
struct Later(Box<Write>);
type Write = dyn FnOnce(&mut Evidence, &Scope) + Send + Sync;

impl fmt::Debug for Later {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Later")
    }
}

impl From<bool> for Fact {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<i64> for Fact {
    fn from(value: i64) -> Self {
        Self::Integer(value)
    }
}

impl From<u16> for Fact {
    fn from(value: u16) -> Self {
        Self::Integer(i64::from(value))
    }
}

impl From<u32> for Fact {
    fn from(value: u32) -> Self {
        Self::Integer(i64::from(value))
    }
}

impl From<f64> for Fact {
    fn from(value: f64) -> Self {
        Self::Number(value)
    }
}

impl From<&str> for Fact {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}

impl From<String> for Fact {
    fn from(value: String) -> Self {
        Self::Text(value)
    }
}

impl From<Vec<String>> for Fact {
    fn from(values: Vec<String>) -> Self {
        Self::List(values.into_iter().map(Self::Text).collect())
    }
}

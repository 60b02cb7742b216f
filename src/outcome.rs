//! The one record of one run: everything downstream reads it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::clock::Timestamp;
use crate::failure::{Blame, ErrorType};
use crate::phase::{Timed, seconds};
use crate::place::{Place, ProbeName, Region, Stage};

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Every expectation held.
    Pass,
    /// It passed, but a soft expectation did not hold.
    Warn,
    /// The target's doing.
    Fail,
    /// Picket could not judge.
    Error,
    /// Planned, and not run on purpose.
    Skipped,
    /// Planned, and not run in time.
    Missed,
}

impl Verdict {
    /// Every verdict.
    pub const ALL: &[Self] =
        &[Self::Pass, Self::Warn, Self::Fail, Self::Error, Self::Skipped, Self::Missed];

    /// The word in records, metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Warn => "warn",
            Self::Fail => "fail",
            Self::Error => "error",
            Self::Skipped => "skipped",
            Self::Missed => "missed",
        }
    }

    /// Whether the target was found good (true) or bad (false); none when it was not judged.
    pub const fn good(self) -> Option<bool> {
        match self {
            Self::Pass | Self::Warn => Some(true),
            Self::Fail => Some(false),
            Self::Error | Self::Skipped | Self::Missed => None,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A run's ids: worked out, not drawn, so that a replayed export is the same record.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Ids {
    /// Names the run: 26 characters, lower case, fit for names of things that a journey makes.
    pub run: Arc<str>,
    /// The trace: its first four bytes are the due time's epoch seconds, so it is a valid X-Ray id too.
    pub trace: [u8; 16],
}

impl Ids {
    /// The ids of a probe's run that is due then. `labels` tells the members of a matrix apart; `fold` is how often
    /// the wall clock had been set back, so that a repeated time of day is not a repeated run.
    pub fn of(
        probe: &ProbeName,
        labels: &Labels,
        place: &Place,
        due: Timestamp,
        fold: u64,
    ) -> Self {
        let mut hash = Sha256::new();
        for part in [probe.as_str(), place.region.as_str(), place.stage.as_str()] {
            hash.update(part.as_bytes());
            hash.update([0]);
        }
        for (key, value) in labels.iter() {
            hash.update(key.as_bytes());
            hash.update([1]);
            hash.update(value.as_bytes());
            hash.update([2]);
        }
        hash.update(due.nanos().to_be_bytes());
        hash.update(fold.to_be_bytes());
        let digest: [u8; 32] = hash.finalize().into();
        let mut trace = [0; 16];
        trace.copy_from_slice(&digest[..16]);
        let seconds = u32::try_from(due.secs()).unwrap_or(u32::MAX);
        trace[..4].copy_from_slice(&seconds.to_be_bytes());
        let mut run = String::with_capacity(26);
        let mut left = u128::from_be_bytes(digest[16..].try_into().unwrap_or_default());
        for _ in 0..26 {
            let alphabet = b"0123456789abcdefghjkmnpqrstvwxyz";
            let digit = usize::try_from(left % 32).unwrap_or(0);
            run.push(char::from(alphabet.get(digit).copied().unwrap_or(b'0')));
            left /= 32;
        }
        Self { run: Arc::from(run), trace }
    }

    /// The trace id in lower-case hexadecimal.
    pub fn trace_hex(&self) -> String {
        hex(&self.trace)
    }

    /// The id of a span of this run: `what` names it, such as `root` or `step/0/request/1`. Never all zero.
    pub fn span(&self, what: &str) -> [u8; 8] {
        let mut hash = Sha256::new();
        hash.update(self.trace);
        hash.update(self.run.as_bytes());
        hash.update(what.as_bytes());
        let digest: [u8; 32] = hash.finalize().into();
        let mut id = [0; 8];
        id.copy_from_slice(&digest[..8]);
        if id == [0; 8] { [1; 8] } else { id }
    }
}

/// Bytes in lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: [char; 16] =
        ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .filter_map(|half| DIGITS.get(usize::from(half)))
        .collect()
}

/// Labels that the user gave, and the values of a matrix.
pub type Labels = Arc<BTreeMap<String, String>>;

/// What tells a probe from every other: its name and its labels, the values of its matrix among them.
pub fn identity(probe: &ProbeName, labels: &Labels) -> String {
    let mut identity = probe.to_string();
    for (key, value) in labels.iter() {
        identity.extend(["\u{1}", key, "\u{2}", value]);
    }
    identity
}

/// The fact that an answer tells of this host's clock: how many seconds it is ahead.
pub const CLOCK_OFFSET: &str = "clock.offset";

/// A value that was seen: what expectations judge and records show.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Fact {
    /// Yes or no.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// Any other number; a length of time in seconds.
    Number(f64),
    /// Text.
    Text(String),
    /// Several values.
    List(Vec<Fact>),
}

/// One request to the target: a client span. A redirect is a request of its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// What it is called, such as `GET`.
    pub name: String,
    /// Its span's id.
    pub span_id: String,
    /// From the start of the run, in seconds.
    #[serde(rename = "start_s", with = "seconds")]
    pub start: Duration,
    /// In seconds.
    #[serde(rename = "duration_s", with = "seconds")]
    pub took: Duration,
    /// Attributes by OpenTelemetry's names; no secret.
    pub attributes: BTreeMap<Cow<'static, str>, Fact>,
    /// How it broke.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_type: Option<ErrorType>,
}

/// What a failure leaves to look at: redacted, bounded.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// The request line and headers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// The status line and headers of the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response: Option<String>,
    /// The first 16 KiB of the body, as text; what is no text is escaped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// How many bytes of the body are not shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_left_out: Option<u64>,
    /// The expectation that broke, as it was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expectation: Option<String>,
    /// The address that answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// The certificate that was shown: subject, issuer, names, validity, fingerprint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<BTreeMap<String, Fact>>,
    /// Anything else that a kind has to show.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub more: BTreeMap<String, Fact>,
}

impl Evidence {
    /// How much of a body is kept, in bytes.
    pub const BODY: usize = 16 << 10;

    /// Keeps the beginning of a body as text. `clean` takes the secrets out, before the cut, so that none is cut in two
    /// and missed.
    pub fn keep_body(&mut self, body: &[u8], clean: impl FnOnce(&str) -> String) {
        let near = body.get(..2 * Self::BODY).unwrap_or(body);
        let mut text = clean(&printable(near));
        let cut = (0..=Self::BODY.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
        text.truncate(cut.unwrap_or(0));
        let left_out = body.len().saturating_sub(Self::BODY);
        self.body_left_out = (left_out > 0).then(|| u64::try_from(left_out).unwrap_or(u64::MAX));
        self.body = Some(text);
    }

    /// Whether there is nothing to look at.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Bytes as text; what is no text is escaped.
fn printable(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for letter in chunk.valid().chars() {
            if letter.is_control() && !matches!(letter, '\n' | '\r' | '\t') {
                text.extend(letter.escape_default());
            } else {
                text.push(letter);
            }
        }
        text.extend(chunk.invalid().escape_ascii().map(char::from));
    }
    text
}

/// What one attempt that was followed by another came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// From the start of the run, in seconds.
    #[serde(rename = "start_s", with = "seconds")]
    pub start: Duration,
    /// In seconds.
    #[serde(rename = "duration_s", with = "seconds")]
    pub took: Duration,
    /// How it broke.
    pub error_type: ErrorType,
    /// What happened.
    pub message: String,
}

/// One step of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepOutcome {
    /// The step's name; of a probe with one step, the probe's.
    pub name: String,
    /// The kind of step.
    pub kind: Cow<'static, str>,
    /// How it ended.
    pub verdict: Verdict,
    /// Whose doing that is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blame: Option<Blame>,
    /// Where it broke.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_type: Option<ErrorType>,
    /// What happened, in a line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Whether it is one of the steps that always run.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub finally: bool,
    /// From the start of the run, in seconds.
    #[serde(rename = "start_s", with = "seconds")]
    pub start: Duration,
    /// In seconds.
    #[serde(rename = "duration_s", with = "seconds")]
    pub took: Duration,
    /// How often it was tried.
    pub attempts: u32,
    /// The attempts before the last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier: Vec<Attempt>,
    /// Its phases.
    pub phases: Vec<Timed>,
    /// Its requests.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requests: Vec<Request>,
    /// What was seen.
    pub facts: BTreeMap<Cow<'static, str>, Fact>,
}

/// The record of one run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The probe.
    pub probe: ProbeName,
    /// Its kind; of several steps, `journey`.
    pub kind: Cow<'static, str>,
    /// Where this picket stands.
    pub region: Region,
    /// The stage that it serves.
    pub stage: Stage,
    /// The probe's labels and matrix values.
    pub labels: Labels,
    /// The run's id.
    pub run: Arc<str>,
    /// The trace's id, in hexadecimal.
    pub trace_id: String,
    /// When it should have started.
    pub due: Timestamp,
    /// When it did; of a run that never started, when that was known.
    pub started: Timestamp,
    /// In seconds; zero for what did not run.
    #[serde(rename = "duration_s", with = "seconds")]
    pub took: Duration,
    /// How it ended.
    pub verdict: Verdict,
    /// Whose doing that is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blame: Option<Blame>,
    /// Where it broke.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_type: Option<ErrorType>,
    /// What happened, in a line; of `skipped` and `missed`, the reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// How often the step that decided was tried.
    pub attempts: u32,
    /// The run's time limit, in seconds.
    #[serde(rename = "timeout_s", with = "seconds")]
    pub timeout: Duration,
    /// The phases of all steps.
    pub phases: Vec<Timed>,
    /// The steps, in the order in which they ran.
    pub steps: Vec<StepOutcome>,
    /// What the failure leaves to look at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Box<Evidence>>,
    /// The verdict before this one, when this run changed it: alarms and logs are about changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed_from: Option<Verdict>,
    /// Whether the run's own spans are exported.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub traced: bool,
    /// Whether the run fell into a maintenance window.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub maintenance: bool,
}

fn yes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_yes(traced: &bool) -> bool {
    *traced
}

impl Outcome {
    /// How late the run started.
    pub fn delay(&self) -> Duration {
        self.started.since(self.due)
    }

    /// The run's ids, read back from the record.
    pub fn ids(&self) -> Ids {
        let mut trace = [0; 16];
        for (byte, pair) in trace.iter_mut().zip(self.trace_id.as_bytes().chunks(2)) {
            *byte = std::str::from_utf8(pair)
                .ok()
                .and_then(|pair| u8::from_str_radix(pair, 16).ok())
                .unwrap_or(0);
        }
        Ids { run: Arc::clone(&self.run), trace }
    }

    /// The step that decided the verdict: the first that ended so.
    pub fn decided_by(&self) -> Option<&StepOutcome> {
        self.steps.iter().find(|step| step.verdict == self.verdict)
    }

    /// What tells its probe from every other.
    pub fn identity(&self) -> String {
        identity(&self.probe, &self.labels)
    }

    /// The region that is probed: a matrix's or label's `region` where there is one, else this picket's own.
    pub fn target_region(&self) -> &str {
        self.labels.get("region").map_or(self.region.as_str(), String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_body_is_bounded_readable_and_clean() {
        let mut evidence = Evidence::default();
        evidence.keep_body(b"a\0b\xff token=hunter2", |text| text.replace("hunter2", "***"));
        assert_eq!(evidence.body.as_deref(), Some("a\\u{0}b\\xff token=***"));
        assert_eq!(evidence.body_left_out, None);
        // A secret across the cut goes too.
        let mut long = vec![b'x'; Evidence::BODY - 3];
        long.extend_from_slice(b"hunter2 and more");
        evidence.keep_body(&long, |text| text.replace("hunter2", "***"));
        assert!(evidence.body.is_some_and(|body| body.ends_with("x***")));
        assert_eq!(evidence.body_left_out, Some(13));
    }

    #[test]
    fn a_run_has_the_same_ids_each_time_they_are_worked_out() {
        let place = Place { region: "eu-west-1".into(), stage: "prod".into() };
        let due = Timestamp::from_secs(0x6920_0000);
        let ids = Ids::of(&"api".into(), &Labels::default(), &place, due, 0);
        assert_eq!(ids, Ids::of(&"api".into(), &Labels::default(), &place, due, 0));
        assert_ne!(ids, Ids::of(&"api".into(), &Labels::default(), &place, due, 1));
        assert!(ids.trace_hex().starts_with("69200000"));
        assert_eq!(ids.run.len(), 26);
        assert_ne!(ids.span("root"), ids.span("step/0"));
    }
}

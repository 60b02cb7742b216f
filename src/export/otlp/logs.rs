//! Failures and changes of state as log records, with the evidence, in the trace's context.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs, SeverityNumber};

use super::traces;
use super::value::{Sender, attribute, cut, fact, identity, map, scope, text};
use crate::outcome::{Evidence, Fact, Outcome, Verdict};

/// The most bytes of evidence in one record: `CloudWatch` takes 1 MB an event, and a batch has many.
const EVIDENCE: usize = 192 * 1024;
/// The most bytes of one text of it.
const ONE_TEXT: usize = 48 * 1024;
/// The most bytes of the sentence.
const SENTENCE: usize = 8 * 1024;

/// Whether a run is told as a log record: every failure, and every change of state.
pub(super) fn wanted(outcome: &Outcome) -> bool {
    matches!(outcome.verdict, Verdict::Fail | Verdict::Error) || outcome.changed_from.is_some()
}

/// The runs as one request: the same runs are the same bytes.
pub(super) fn encode<'a>(
    outcomes: impl IntoIterator<Item = &'a Outcome>,
    sender: &Sender,
) -> ExportLogsServiceRequest {
    let records = outcomes.into_iter().filter(|outcome| wanted(outcome)).map(record).collect();
    ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            resource: Some(sender.resource.clone()),
            scope_logs: vec![ScopeLogs {
                scope: Some(scope()),
                log_records: records,
                schema_url: String::new(),
            }],
            schema_url: String::new(),
        }],
    }
}

fn record(outcome: &Outcome) -> LogRecord {
    let (severity, word) = severity(outcome.verdict);
    let ended = (outcome.started + outcome.took).nanos();
    let mut attributes = identity(outcome);
    if let Some(before) = outcome.changed_from {
        attributes.push(text("picket.changed_from", before.as_str()));
    }
    attributes.extend(outcome.evidence.as_deref().map(evidence).unwrap_or_default());
    let mut record = LogRecord {
        time_unix_nano: ended,
        observed_time_unix_nano: ended,
        severity_number: severity.into(),
        severity_text: word.to_owned(),
        body: Some(AnyValue { value: Some(Value::StringValue(sentence(outcome))) }),
        attributes,
        event_name: event_name(outcome).to_owned(),
        ..LogRecord::default()
    };
    if !matches!(outcome.verdict, Verdict::Skipped | Verdict::Missed) {
        let ids = outcome.ids();
        record.trace_id = ids.trace.to_vec();
        record.span_id = ids.span("root").to_vec();
        record.flags = if traces::wanted(outcome) { traces::SAMPLED } else { 0 };
    }
    record
}

fn severity(verdict: Verdict) -> (SeverityNumber, &'static str) {
    match verdict {
        Verdict::Fail => (SeverityNumber::Error, "ERROR"),
        Verdict::Error | Verdict::Warn | Verdict::Missed => (SeverityNumber::Warn, "WARN"),
        Verdict::Pass | Verdict::Skipped => (SeverityNumber::Info, "INFO"),
    }
}

fn event_name(outcome: &Outcome) -> &'static str {
    let was_bad = matches!(outcome.changed_from, Some(Verdict::Fail | Verdict::Error));
    match outcome.verdict {
        Verdict::Fail => "probe.failed",
        Verdict::Error => "probe.error",
        Verdict::Pass | Verdict::Warn if was_bad => "probe.recovered",
        Verdict::Pass | Verdict::Warn | Verdict::Skipped | Verdict::Missed => "probe.changed",
    }
}

fn sentence(outcome: &Outcome) -> String {
    let probe = &outcome.probe;
    let happened = match outcome.verdict {
        Verdict::Pass => format!("{probe} passes"),
        Verdict::Warn => format!("{probe} passes with a warning"),
        Verdict::Fail => format!("{probe} failed"),
        Verdict::Error => format!("{probe} could not be judged"),
        Verdict::Skipped => format!("{probe} was skipped"),
        Verdict::Missed => format!("{probe} was missed"),
    };
    let message = outcome.message.as_deref().map(|message| format!(": {message}"));
    let before = outcome.changed_from.map(|before| format!(" (before: {before})"));
    let sentence = [happened, message.unwrap_or_default(), before.unwrap_or_default()].concat();
    cut(&sentence, SENTENCE)
}

/// The evidence as attributes. It was redacted when it was taken; here it is only kept within bounds.
fn evidence(evidence: &Evidence) -> Vec<KeyValue> {
    let Evidence { request, response, body, body_left_out, expectation, peer, certificate, more } =
        evidence;
    let mut room = Room { left: EVIDENCE };
    let mut attributes = Vec::new();
    for (key, value) in [
        ("evidence.expectation", expectation),
        ("evidence.peer", peer),
        ("evidence.request", request),
        ("evidence.response", response),
        ("evidence.body", body),
    ] {
        attributes.extend(value.as_deref().map(|value| text(key, room.text(value))));
    }
    if let Some(bytes) = body_left_out {
        let bytes = i64::try_from(*bytes).unwrap_or(i64::MAX);
        attributes.push(attribute("evidence.body_left_out", Value::IntValue(bytes)));
    }
    if let Some(certificate) = certificate {
        let fields = certificate.iter();
        let fields = fields.map(|(key, value)| attribute(key.clone(), room.fact(value)));
        attributes.push(attribute("evidence.certificate", map(fields.collect())));
    }
    for (key, value) in more {
        attributes.push(attribute(format!("evidence.{key}"), room.fact(value)));
    }
    attributes
}

/// How much evidence still fits into the record.
struct Room {
    left: usize,
}

impl Room {
    fn text(&mut self, whole: &str) -> String {
        let kept = cut(whole, self.left.min(ONE_TEXT));
        self.left = self.left.saturating_sub(kept.len());
        kept
    }

    fn fact(&mut self, value: &Fact) -> Value {
        match value {
            Fact::Text(whole) => Value::StringValue(self.text(whole)),
            Fact::List(facts) => {
                let shown = facts.iter().map_while(|one| {
                    (self.left > 0).then(|| AnyValue { value: Some(self.fact(one)) })
                });
                let values = shown.collect();
                Value::ArrayValue(opentelemetry_proto::tonic::common::v1::ArrayValue { values })
            }
            Fact::Bool(_) | Fact::Integer(_) | Fact::Number(_) => fact(value),
        }
    }
}

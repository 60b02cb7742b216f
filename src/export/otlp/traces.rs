//! One run as spans: a root, its steps, its requests, its phases, with the times that were measured.

use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::span::{Event, SpanKind};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, SpanFlags, Status};

use super::value::{Sender, attribute, fact, identity, scope, text};
use crate::clock::Timestamp;
use crate::failure::{Blame, ErrorType};
use crate::outcome::{Attempt, Ids, Outcome, Request, StepOutcome, Verdict};
use crate::phase::Timed;

/// The W3C flag of a trace that is recorded.
pub(super) const SAMPLED: u32 = 1;

/// Whether a run is told as a trace: what did not run has none.
pub(super) fn wanted(outcome: &Outcome) -> bool {
    match outcome.verdict {
        Verdict::Pass | Verdict::Warn | Verdict::Fail | Verdict::Error => outcome.traced,
        Verdict::Skipped | Verdict::Missed => false,
    }
}

/// The runs as one request: the same runs are the same bytes.
pub(super) fn encode<'a>(
    outcomes: impl IntoIterator<Item = &'a Outcome>,
    sender: &Sender,
) -> ExportTraceServiceRequest {
    let spans = outcomes.into_iter().filter(|outcome| wanted(outcome)).flat_map(run).collect();
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(sender.resource.clone()),
            scope_spans: vec![ScopeSpans {
                scope: Some(scope()),
                spans,
                schema_url: String::new(),
            }],
            schema_url: String::new(),
        }],
    }
}

/// All spans of one run, the root first.
fn run(outcome: &Outcome) -> Vec<Span> {
    let family = Family { ids: outcome.ids(), zero: outcome.started };
    let mut spans = vec![root(outcome, &family)];
    let root = family.ids.span("root");
    let journey = outcome.steps.len() > 1;
    for (number, step) in outcome.steps.iter().enumerate() {
        let place = format!("step/{number}");
        let parent = if journey { family.ids.span(&place) } else { root };
        if journey {
            spans.push(family.step(step, parent, root));
        }
        let requests = step.requests.iter().map(|request| family.request(request, parent));
        spans.extend(requests);
        spans.extend(family.phases(&step.phases, &step.requests, &place, parent));
    }
    if outcome.steps.is_empty() {
        spans.extend(family.phases(&outcome.phases, &[], "root", root));
    }
    spans
}

fn root(outcome: &Outcome, family: &Family) -> Span {
    let mut attributes = identity(outcome);
    attributes.extend([
        text("picket.due", outcome.due.to_string()),
        attribute("picket.schedule.delay", Value::DoubleValue(outcome.delay().as_secs_f64())),
        attribute("picket.attempts", Value::IntValue(i64::from(outcome.attempts))),
        text("test.case.name", outcome.probe.as_str()),
        text("user_agent.synthetic.type", "test"),
    ]);
    if let Some(good) = outcome.verdict.good() {
        attributes.push(text("test.case.result.status", if good { "pass" } else { "fail" }));
    }
    let mut span = family.span(family.ids.span("root"), outcome.probe.as_str());
    family.time(&mut span, Duration::ZERO, outcome.took);
    span.attributes = attributes;
    let end = Duration::ZERO + outcome.took;
    let news = News {
        verdict: outcome.verdict,
        blame: outcome.blame,
        error_type: outcome.error_type,
        message: outcome.message.as_deref(),
    };
    if let [only] = outcome.steps.as_slice() {
        span.events.extend(only.earlier.iter().map(|attempt| family.attempt(attempt)));
    }
    family.tell(&mut span, &news, end);
    span
}

/// What the spans of one run share.
struct Family {
    ids: Ids,
    zero: Timestamp,
}

/// How something ended.
struct News<'a> {
    verdict: Verdict,
    blame: Option<Blame>,
    error_type: Option<ErrorType>,
    message: Option<&'a str>,
}

impl Family {
    fn step(&self, step: &StepOutcome, id: [u8; 8], parent: [u8; 8]) -> Span {
        let mut span = self.span(id, &step.name);
        span.parent_span_id = parent.to_vec();
        self.time(&mut span, step.start, step.took);
        span.attributes = vec![
            text("step", step.name.clone()),
            text("kind", step.kind.as_ref()),
            text("verdict", step.verdict.as_str()),
            attribute("picket.attempts", Value::IntValue(i64::from(step.attempts))),
        ];
        if step.finally {
            span.attributes.push(attribute("picket.finally", Value::BoolValue(true)));
        }
        if let Some(blame) = step.blame {
            span.attributes.push(text("blame", blame.as_str()));
        }
        span.attributes.extend(error_type(step.error_type));
        span.events.extend(step.earlier.iter().map(|attempt| self.attempt(attempt)));
        let news = News {
            verdict: step.verdict,
            blame: step.blame,
            error_type: step.error_type,
            message: step.message.as_deref(),
        };
        self.tell(&mut span, &news, step.start + step.took);
        span
    }

    fn request(&self, request: &Request, parent: [u8; 8]) -> Span {
        let Request { name, span_id, start, took, attributes, error_type: broke } = request;
        let mut span = self.span([0; 8], name);
        span.span_id = bytes(span_id);
        span.parent_span_id = parent.to_vec();
        span.kind = SpanKind::Client.into();
        self.time(&mut span, *start, *took);
        span.attributes =
            attributes.iter().map(|(key, value)| attribute(key.as_ref(), fact(value))).collect();
        span.attributes.push(text("user_agent.synthetic.type", "test"));
        if !attributes.contains_key("error.type") {
            span.attributes.extend(error_type(*broke));
        }
        span.status = broke.map(failed);
        span
    }

    /// Each phase below the request that it belongs to, else below its step.
    fn phases(
        &self,
        phases: &[Timed],
        requests: &[Request],
        place: &str,
        parent: [u8; 8],
    ) -> Vec<Span> {
        let spans = phases.iter().enumerate().map(|(number, timed)| {
            let Timed { phase, start, took, hop, error } = timed;
            let id = self.ids.span(&format!("{place}/phase/{number}"));
            let mut span = self.span(id, phase.as_str());
            let request = usize::try_from(*hop).ok().and_then(|hop| requests.get(hop));
            span.parent_span_id =
                request.map_or_else(|| parent.to_vec(), |request| bytes(&request.span_id));
            self.time(&mut span, *start, *took);
            span.attributes.extend(error_type(*error));
            span.status = error.map(failed);
            span
        });
        spans.collect()
    }

    fn span(&self, id: [u8; 8], name: &str) -> Span {
        Span {
            trace_id: self.ids.trace.to_vec(),
            span_id: id.to_vec(),
            name: name.to_owned(),
            kind: SpanKind::Internal.into(),
            flags: SAMPLED | SpanFlags::ContextHasIsRemoteMask as u32,
            ..Span::default()
        }
    }

    fn time(&self, span: &mut Span, start: Duration, took: Duration) {
        span.start_time_unix_nano = (self.zero + start).nanos();
        span.end_time_unix_nano = (self.zero + start + took).nanos();
    }

    /// A failure is the span's status and an event; a warning an event alone; a pass is told by their absence.
    fn tell(&self, span: &mut Span, news: &News<'_>, at: Duration) {
        let name = match news.verdict {
            Verdict::Fail | Verdict::Error => "probe.failure",
            Verdict::Warn => "probe.warning",
            Verdict::Pass | Verdict::Skipped | Verdict::Missed => return,
        };
        let message = news.message.unwrap_or_default();
        if news.verdict != Verdict::Warn {
            let code = StatusCode::Error.into();
            span.status = Some(Status { message: message.to_owned(), code });
        }
        let mut attributes: Vec<_> = error_type(news.error_type).into_iter().collect();
        attributes.extend(news.blame.map(|blame| text("blame", blame.as_str())));
        attributes.push(text("message", message));
        span.events.push(self.event(name, at, attributes));
    }

    fn attempt(&self, attempt: &Attempt) -> Event {
        let Attempt { start, took, error_type: broke, message } = attempt;
        let attributes = vec![text("error.type", broke.as_str()), text("message", message.clone())];
        self.event("probe.attempt", *start + *took, attributes)
    }

    fn event(&self, name: &str, at: Duration, attributes: Vec<KeyValue>) -> Event {
        Event {
            time_unix_nano: (self.zero + at).nanos(),
            name: name.to_owned(),
            attributes,
            dropped_attributes_count: 0,
        }
    }
}

fn error_type(error_type: Option<ErrorType>) -> Option<KeyValue> {
    error_type.map(|error_type| text("error.type", error_type.as_str()))
}

fn failed(error_type: ErrorType) -> Status {
    Status { message: error_type.as_str().to_owned(), code: StatusCode::Error.into() }
}

/// The bytes of an id in hexadecimal; what is none is no id.
fn bytes(hexadecimal: &str) -> Vec<u8> {
    let pairs = hexadecimal.as_bytes().chunks(2).map(|pair| {
        std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok())
    });
    pairs.collect::<Option<Vec<u8>>>().unwrap_or_default()
}

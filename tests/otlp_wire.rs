//! Outcomes and instruments on their way to a real OTLP receiver, over HTTP and gRPC.

#[path = "parts/authority.rs"]
mod authority;
#[path = "support/otlp_receiver.rs"]
mod otlp_receiver;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry::KeyValue as SdkKeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_sdk::Resource;
use picket::clock::Timestamp;
use picket::export::{Exporter, Kept, Outlet, Receipt, Record, Refusal, Sink};
use picket::failure::{Blame, ErrorType};
use picket::health::Health;
use picket::outcome::{
    Attempt, Evidence, Fact, Ids, Labels, Outcome, Request, StepOutcome, Verdict, hex,
};
use picket::phase::{Phase, Timed};
use picket::place::Place;
use picket::setting::Unfit;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use authority::certificates;
use otlp_receiver::{Answer, Receiver};

#[tokio::test]
async fn a_run_arrives_as_spans_with_the_ids_and_times_that_were_measured() {
    let receiver = Receiver::start().await;
    let settings = format!(
        "endpoint = 'http://{}'\nheaders = {{ x-team = 'orders' }}\nsignals = ['traces']",
        receiver.address
    );
    let receipt = send(&settings, &[outcome(journey())]).await.unwrap();
    assert_eq!(receipt, Receipt::default());

    let requests = receiver.requests();
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0].path, "/v1/traces");
    assert_eq!(requests[0].headers["content-type"], "application/x-protobuf");
    assert_eq!(requests[0].headers["x-team"], "orders");
    assert!(requests[0].compressed);

    let run = journey();
    let spans = receiver.spans();
    let root = spans.iter().find(|span| span.parent_span_id.is_empty()).unwrap();
    assert_eq!(root.trace_id, run.ids().trace);
    assert_eq!(root.span_id, run.ids().span("root"));
    assert_eq!(root.start_time_unix_nano, run.started.nanos());
    assert_eq!(root.end_time_unix_nano, (run.started + run.took).nanos());
    let get = spans.iter().find(|span| span.name == "GET").unwrap();
    assert_eq!(hex(&get.span_id), run.steps[1].requests[0].span_id, "as the target saw it");
    insta::assert_snapshot!(shown(&spans));
}

#[tokio::test]
async fn a_failure_arrives_as_a_log_record_with_its_evidence_in_the_trace() {
    let receiver = Receiver::start().await;
    let settings = format!("endpoint = 'http://{}'\nsignals = ['logs']", receiver.address);
    let mut recovered = journey();
    recovered.verdict = Verdict::Pass;
    recovered.changed_from = Some(Verdict::Fail);
    recovered.message = None;
    recovered.evidence = None;
    send(&settings, &[outcome(journey()), outcome(recovered)]).await.unwrap();

    let logs = receiver.logs();
    assert_eq!(receiver.requests()[0].path, "/v1/logs");
    let mut text = String::new();
    for log in &logs {
        assert_eq!(log.trace_id, journey().ids().trace);
        assert_eq!(log.span_id, journey().ids().span("root"));
        let body = log.body.as_ref().map(value).unwrap_or_default();
        writeln!(text, "{} {} {body}", log.severity_text, log.event_name).unwrap();
        write!(text, "{}", attributes(&log.attributes)).unwrap();
    }
    insta::assert_snapshot!(text);
}

#[tokio::test]
async fn evidence_is_kept_within_the_bounds_of_a_record() {
    let receiver = Receiver::start().await;
    let settings = format!("endpoint = 'http://{}'\nsignals = ['logs']", receiver.address);
    let mut run = journey();
    let huge = Some("é".repeat(300_000));
    let more = (0..50).map(|n| (format!("more-{n}"), Fact::Text("x".repeat(40_000))));
    run.evidence = Some(Box::new(Evidence {
        request: huge.clone(),
        response: huge.clone(),
        body: huge,
        more: more.collect(),
        ..Evidence::default()
    }));
    send(&settings, &[outcome(run)]).await.unwrap();
    assert!(receiver.requests()[0].message.len() < 256 * 1024);
}

#[tokio::test]
async fn the_instruments_arrive_as_the_journal_kept_them() {
    let receiver = Receiver::start().await;
    let settings = format!("endpoint = 'http://{}'\nsignals = ['metrics']", receiver.address);
    let health = Health::new(&place(), resource()).unwrap();
    health.planned("order-flow");
    health.settle(&journey());
    let payloads = health.payloads().unwrap();
    assert_eq!(payloads.len(), 1);
    send(&settings, &[Record::Metrics(payloads[0].clone())]).await.unwrap();

    assert_eq!(receiver.requests()[0].path, "/v1/metrics");
    assert_eq!(receiver.requests()[0].message, payloads[0]);
    let metrics = receiver.metrics();
    let find = |name: &str| metrics.iter().find(|metric| metric.name == name).unwrap();
    let Some(Data::Histogram(phases)) = &find("probe.phase.duration").data else { panic!() };
    assert_eq!(phases.aggregation_temporality, 2, "cumulative");
    assert!(
        phases
            .data_points
            .iter()
            .all(|point| { point.attributes.iter().any(|one| one.key == "step") })
    );
    assert_eq!(find("probe.duration").unit, "s");
    let Some(Data::Sum(planned)) = &find("picket.runs.planned").data else { panic!() };
    assert_eq!(planned.data_points.len(), 1);
}

#[tokio::test]
async fn what_is_untraced_and_what_did_not_run_is_no_trace() {
    let [traces] = exporters("signals = ['traces']").try_into().unwrap();
    let mut run = journey();
    run.traced = false;
    assert!(!traces.wants(&outcome(run.clone())), "`trace = \"never\"` goes for failures too");
    run.verdict = Verdict::Pass;
    assert!(!traces.wants(&outcome(run.clone())));
    run.traced = true;
    assert!(traces.wants(&outcome(run.clone())));
    run.verdict = Verdict::Missed;
    assert!(!traces.wants(&outcome(run)));
}

#[tokio::test]
async fn each_answer_over_http_has_its_consequence() {
    let receiver = Receiver::start().await;
    let settings = format!("endpoint = 'http://{}'\nsignals = ['traces']", receiver.address);
    let later = |refusal: Refusal| match refusal.clone() {
        Refusal::Later { reason, after } => (reason, after),
        Refusal::Never { .. } | Refusal::TooLarge { .. } => panic!("{refusal:?}"),
    };

    receiver.next(Answer::Partial(3, "three were too old"));
    let receipt = send(&settings, &[outcome(journey())]).await.unwrap();
    let message = Some("three were too old".to_owned());
    assert_eq!(receipt, Receipt { rejected: 3, message });

    receiver.next(Answer::Status(429, Some("7"), "slow down"));
    let (reason, after) = later(send(&settings, &[outcome(journey())]).await.unwrap_err());
    assert_eq!(reason, "429 Too Many Requests: slow down");
    assert_eq!(after, Some(Duration::from_secs(7)));

    receiver.next(Answer::Status(503, None, ""));
    let (_, after) = later(send(&settings, &[outcome(journey())]).await.unwrap_err());
    assert_eq!(after, None);

    receiver.next(Answer::Status(400, None, "no"));
    let refusal = send(&settings, &[outcome(journey())]).await.unwrap_err();
    assert!(matches!(refusal, Refusal::Never { .. }), "{refusal:?}");

    receiver.next(Answer::Status(413, None, ""));
    let refusal = send(&settings, &[outcome(journey())]).await.unwrap_err();
    assert!(matches!(refusal, Refusal::TooLarge { .. }), "{refusal:?}");

    receiver.always(Answer::Silence);
    let hasty = format!("{settings}\ntimeout = '100ms'");
    later(send(&hasty, &[outcome(journey())]).await.unwrap_err());
    receiver.wait_for(6).await;

    drop(receiver);
    later(send(&settings, &[outcome(journey())]).await.unwrap_err());
}

#[tokio::test]
async fn grpc_carries_the_same_bytes_and_says_the_same_of_them() {
    let receiver = Receiver::start().await;
    let settings = format!(
        "endpoint = 'http://{}'\nprotocol = 'grpc'\nsignals = ['traces']\nheaders = {{ X-Team = 'orders' }}",
        receiver.address
    );
    let [exporter] = exporters(&settings).try_into().unwrap();
    let batch = batch(&[outcome(journey())]);

    receiver.next(Answer::Partial(1, "one"));
    let receipt = exporter.send(&batch).await.unwrap();
    assert_eq!(receipt, Receipt { rejected: 1, message: Some("one".to_owned()) });
    let taken = &receiver.requests()[0];
    assert_eq!(taken.path, "/opentelemetry.proto.collector.trace.v1.TraceService/Export");
    assert_eq!(taken.headers["x-team"], "orders");
    assert!(taken.compressed);
    assert_eq!(receiver.spans()[0].trace_id, journey().ids().trace);

    receiver.next(Answer::Code(8, "busy", Some(4)));
    let refusal = exporter.send(&batch).await.unwrap_err();
    let Refusal::Later { after, .. } = refusal else { panic!("{refusal:?}") };
    assert_eq!(after, Some(Duration::from_secs(4)));

    receiver.next(Answer::Code(14, "down", None));
    let refusal = exporter.send(&batch).await.unwrap_err();
    assert!(matches!(refusal, Refusal::Later { after: None, .. }), "{refusal:?}");

    receiver.next(Answer::Code(3, "bad", None));
    let refusal = exporter.send(&batch).await.unwrap_err();
    assert_eq!(refusal, Refusal::Never { reason: "InvalidArgument: bad".to_owned() });

    receiver.next(Answer::Code(8, "grpc: received message larger than max (9 vs 4)", None));
    let refusal = exporter.send(&batch).await.unwrap_err();
    assert!(matches!(refusal, Refusal::TooLarge { .. }), "{refusal:?}");

    receiver.always(Answer::Silence);
    let hasty = format!("{settings}\ntimeout = '100ms'");
    let refusal = send(&hasty, &[outcome(journey())]).await.unwrap_err();
    assert!(matches!(refusal, Refusal::Later { .. }), "{refusal:?}");

    drop(receiver);
    let refusal = exporter.send(&batch).await.unwrap_err();
    assert!(matches!(refusal, Refusal::Later { .. }), "{refusal:?}");
}

#[tokio::test]
async fn a_secret_in_a_header_is_read_anew_and_never_shown() {
    let receiver = Receiver::start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "first\n").unwrap();
    let settings = format!(
        "endpoint = 'http://{}'\nsignals = ['traces']\nheaders = {{ authorization = 'Bearer ${{secret:{}}}', x-key = 'hunter2' }}",
        receiver.address,
        file.display()
    );
    let [exporter] = exporters(&settings).try_into().unwrap();
    let batch = batch(&[outcome(journey())]);
    exporter.send(&batch).await.unwrap();
    std::fs::write(&file, "second\n").unwrap();
    exporter.send(&batch).await.unwrap();
    let sent = receiver.requests();
    assert_eq!(sent[0].headers["authorization"], "Bearer first");
    assert_eq!(sent[1].headers["authorization"], "Bearer second");
    let shown = format!("{exporter:?} {:?}", parse(&settings).unwrap());
    assert!(!shown.contains("hunter2") && !shown.contains("second"), "{shown}");
    std::fs::remove_file(&file).unwrap();
    let refusal = exporter.send(&batch).await.unwrap_err();
    assert!(matches!(refusal, Refusal::Later { .. }), "{refusal:?}");
}

#[tokio::test]
async fn tls_trusts_the_given_authority_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let (acceptor, authority) = certificates("localhost", &["h2", "http/1.1"]);
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, authority).unwrap();
    let receiver = Receiver::start_tls(acceptor).await;
    for protocol in ["http/protobuf", "grpc"] {
        let settings = format!(
            "endpoint = 'https://localhost:{}'\nprotocol = '{protocol}'\nsignals = ['traces']",
            receiver.address.port()
        );
        let refusal = send(&settings, &[outcome(journey())]).await.unwrap_err();
        assert!(matches!(refusal, Refusal::Later { .. }), "{refusal:?}");
        let settings = format!("{settings}\nca = '{}'", ca.display());
        send(&settings, &[outcome(journey())]).await.unwrap();
    }
    assert_eq!(receiver.requests().len(), 2);
}

#[test]
fn settings_that_cannot_work_are_refused_with_what_to_write() {
    for (settings, key, hint) in [
        ("aws = true", "aws", "later version"),
        ("signals = []", "signals", "\"traces\""),
        ("cert = '/a.pem'", "cert", "go together"),
        ("endpoint = 'localhost:4318'", "endpoint", "http://127.0.0.1:4318"),
        ("headers = { 'a b' = 'c' }", "headers", "no header's name"),
    ] {
        match parse(settings) {
            Err(Unfit::Refused(refused)) => {
                assert_eq!(refused.key, key, "{settings}");
                assert!(refused.message.contains(hint), "{}", refused.message);
            }
            other => panic!("{settings}: {other:?}"),
        }
    }
    assert!(matches!(parse("protocol = 'http/json'"), Err(Unfit::Shape(_))));
    assert!(matches!(parse("endpont = 'x'"), Err(Unfit::Shape(_))));
}

fn parse(settings: &str) -> Result<Arc<dyn Outlet>, Unfit> {
    let table = DeTable::parse(settings).unwrap();
    let span = table.span();
    let table = Spanned::new(span, DeValue::Table(table.into_inner()));
    Sink::named("otlp").unwrap().parse(table)
}

fn exporters(settings: &str) -> Vec<Arc<dyn Exporter>> {
    parse(settings).unwrap().exporters(&resource()).unwrap()
}

async fn send(settings: &str, records: &[Record]) -> Result<Receipt, Refusal> {
    let [exporter] = exporters(settings).try_into().unwrap();
    exporter.send(&batch(records)).await
}

fn batch(records: &[Record]) -> Vec<Kept> {
    records.iter().zip(1..).map(|(record, seq)| Kept { seq, record: record.clone() }).collect()
}

fn outcome(outcome: Outcome) -> Record {
    Record::Outcome(Arc::new(outcome))
}

fn place() -> Place {
    Place { region: "eu-west-1".into(), stage: "prod".into() }
}

fn resource() -> Resource {
    Resource::builder_empty().with_attribute(SdkKeyValue::new("service.name", "picket")).build()
}

/// A journey of two steps: the second tried twice, followed a redirect, and failed in the end.
fn journey() -> Outcome {
    let due = Timestamp::from_secs(1_800_000_000);
    let labels: Labels = Arc::new(BTreeMap::from([("team".to_owned(), "orders".to_owned())]));
    let ids = Ids::of(&"order-flow".into(), &labels, &place(), due, 0);
    let failed = Some("status in 200..299  (was 503)".to_owned());
    let place_step = StepOutcome {
        name: "place".to_owned(),
        kind: "http".into(),
        verdict: Verdict::Pass,
        blame: None,
        error_type: None,
        message: None,
        finally: false,
        start: Duration::ZERO,
        took: Duration::from_nanos(30_000_001),
        attempts: 1,
        earlier: Vec::new(),
        phases: vec![timed(Phase::Connect, 0, 2, 0), timed(Phase::Wait, 2, 28, 0)],
        requests: vec![request(&ids, "POST", "step/0/request/0", 2, None)],
        facts: BTreeMap::new(),
    };
    let check_step = StepOutcome {
        name: "check".to_owned(),
        verdict: Verdict::Fail,
        blame: Some(Blame::Target),
        error_type: Some(ErrorType::ExpectStatus),
        message: failed.clone(),
        start: Duration::from_millis(31),
        took: Duration::from_millis(60),
        attempts: 2,
        earlier: vec![Attempt {
            start: Duration::from_millis(31),
            took: Duration::from_millis(5),
            error_type: ErrorType::ConnectRefused,
            message: "connection refused".to_owned(),
        }],
        phases: vec![timed(Phase::Wait, 40, 10, 0), timed(Phase::Wait, 55, 20, 1)],
        requests: vec![
            request(&ids, "GET", "step/1/request/0", 40, None),
            request(&ids, "GET", "step/1/request/1", 55, Some(ErrorType::ExpectStatus)),
        ],
        ..place_step.clone()
    };
    let phases = [&place_step, &check_step].into_iter().flat_map(|step| step.phases.clone());
    Outcome {
        probe: "order-flow".into(),
        kind: "journey".into(),
        region: place().region,
        stage: place().stage,
        labels,
        run: Arc::clone(&ids.run),
        trace_id: ids.trace_hex(),
        due,
        started: due + Duration::from_nanos(1_500_007),
        took: Duration::from_millis(95),
        verdict: Verdict::Fail,
        blame: Some(Blame::Target),
        error_type: Some(ErrorType::ExpectStatus),
        message: failed,
        attempts: 2,
        timeout: Duration::from_secs(40),
        phases: phases.collect(),
        steps: vec![place_step, check_step],
        evidence: Some(Box::new(Evidence {
            request: Some("GET /orders HTTP/1.1\nauthorization: ***\n".to_owned()),
            response: Some("HTTP/1.1 503 Service Unavailable\n".to_owned()),
            body: Some("overloaded".to_owned()),
            expectation: Some("status in 200..299".to_owned()),
            peer: Some("192.0.2.1:443".to_owned()),
            certificate: Some(BTreeMap::from([
                ("issuer".to_owned(), "CN=Example".into()),
                ("names".to_owned(), vec!["orders.example.com".to_owned()].into()),
            ])),
            ..Evidence::default()
        })),
        changed_from: Some(Verdict::Pass),
        traced: true,
        maintenance: false,
    }
}

fn timed(phase: Phase, start: u64, took: u64, hop: u32) -> Timed {
    let (start, took) = (Duration::from_millis(start), Duration::from_millis(took));
    Timed { phase, start, took, hop, error: None }
}

fn request(
    ids: &Ids,
    name: &str,
    place: &str,
    start: u64,
    error_type: Option<ErrorType>,
) -> Request {
    Request {
        name: name.to_owned(),
        span_id: hex(&ids.span(place)),
        start: Duration::from_millis(start),
        took: Duration::from_millis(10),
        attributes: BTreeMap::from([
            ("http.request.method".into(), name.into()),
            ("http.response.status_code".into(), 503_i64.into()),
        ]),
        error_type,
    }
}

/// Spans as a tree of lines, times counted from the root's start.
fn shown(spans: &[Span]) -> String {
    let mut text = String::new();
    let roots = spans.iter().filter(|span| span.parent_span_id.is_empty());
    let zero = spans[0].start_time_unix_nano;
    for root in roots {
        show(root, spans, zero, 0, &mut text);
    }
    text
}

fn show(span: &Span, spans: &[Span], zero: u64, depth: usize, text: &mut String) {
    let indent = "  ".repeat(depth);
    let status = span.status.as_ref().map(|status| format!(" {}: {}", status.code, status.message));
    let (start, end) = (span.start_time_unix_nano - zero, span.end_time_unix_nano - zero);
    let kind = span.kind().as_str_name();
    writeln!(text, "{indent}{} {kind} {start}..{end}{}", span.name, status.unwrap_or_default())
        .unwrap();
    for line in attributes(&span.attributes).lines() {
        writeln!(text, "{indent}{line}").unwrap();
    }
    for event in &span.events {
        writeln!(text, "{indent}  * {} at {}", event.name, event.time_unix_nano - zero).unwrap();
        for line in attributes(&event.attributes).lines() {
            writeln!(text, "{indent}  {line}").unwrap();
        }
    }
    for child in spans.iter().filter(|child| child.parent_span_id == span.span_id) {
        show(child, spans, zero, depth + 1, text);
    }
}

fn attributes(attributes: &[KeyValue]) -> String {
    attributes.iter().fold(String::new(), |mut text, one| {
        let value = one.value.as_ref().map(value).unwrap_or_default();
        writeln!(text, "    {} = {value}", one.key).unwrap();
        text
    })
}

fn value(value: &AnyValue) -> String {
    match value.value.as_ref().unwrap() {
        Value::StringValue(text) => format!("{text:?}"),
        Value::BoolValue(value) => value.to_string(),
        Value::IntValue(value) => value.to_string(),
        Value::DoubleValue(value) => format!("{value:?}"),
        Value::ArrayValue(array) => {
            format!("[{}]", array.values.iter().map(self::value).collect::<Vec<_>>().join(", "))
        }
        Value::KvlistValue(list) => {
            format!(
                "{{{}}}",
                attributes(&list.values).split_whitespace().collect::<Vec<_>>().join(" ")
            )
        }
        Value::BytesValue(_) | Value::StringValueStrindex(_) => panic!("never sent"),
    }
}

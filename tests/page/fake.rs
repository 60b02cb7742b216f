//! An agent that does nothing but show what a test wants to see.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use picket::board::{Board, Query, Route, Row, Snapshot};
use picket::clock::Timestamp;
use picket::failure::{Blame, ErrorType};
use picket::outcome::{Evidence, Fact, Labels, Outcome, Verdict};
use picket::phase::{Phase, Timed};
use serde_json::{Value, json};

pub(super) struct Fake {
    pub(super) snapshot: Snapshot,
    pub(super) ready: Result<(), String>,
}

impl Board for Fake {
    fn snapshot(&self) -> Snapshot {
        self.snapshot.clone()
    }

    fn metrics(&self, accept: &str) -> (String, String) {
        let version = if accept.contains("openmetrics") { "1.0.0" } else { "0.0.4" };
        (format!("application/openmetrics-text; version={version}"), "# EOF\n".to_owned())
    }

    fn ready(&self) -> Result<(), String> {
        self.ready.clone()
    }

    fn outcomes(&self, query: &Query) -> BoxFuture<'_, Result<Vec<Arc<Outcome>>, String>> {
        let Query { probe, limit, failed, since } = query.clone();
        let mut found: Vec<_> =
            self.snapshot.probes.iter().flat_map(|row| &row.recent).cloned().collect();
        found.retain(|run| probe.as_ref().is_none_or(|name| run.probe.as_str() == name));
        found.retain(|run| !failed || matches!(run.verdict, Verdict::Fail | Verdict::Error));
        found.retain(|run| since.is_none_or(|since| run.due >= since));
        found.sort_by_key(|run| std::cmp::Reverse(run.due));
        found.truncate(limit);
        async { Ok(found) }.boxed()
    }

    fn plan(&self) -> Value {
        json!(self.snapshot.probes.iter().map(|row| row.name.as_str()).collect::<Vec<_>>())
    }
}

/// Every verdict at once, and a target that writes markup.
pub(super) fn busy() -> Fake {
    let runs = |name: &str, pattern: &str| runs(name, &labels(&[("team", "orders")]), pattern);
    let probes = vec![
        row(
            "orders-api",
            runs("orders-api", "....................................................w......."),
        ),
        row(
            "checkout",
            runs("checkout", "..................FF........................E.......FFFFFFFF"),
        ),
        row(
            "legacy-soap-gateway-with-a-name-that-goes-on",
            runs(
                "legacy-soap-gateway-with-a-name-that-goes-on",
                "...........................................................R",
            ),
        ),
        row(
            "search",
            runs("search", ".......F.................................s...m.............."),
        ),
        row(
            "queue-depth",
            runs("queue-depth", "..........................................................EE"),
        ),
        row(
            "certificate",
            runs("certificate", "wwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwww"),
        ),
        Row { paused: true, ..row("billing", runs("billing", "......ssssssss")) },
        row("new-probe", Vec::new()),
    ];
    let mut fake = fake(probes);
    fake.snapshot.warnings = vec![
        "config reload refused: probes/orders.toml:12: unknown key `expct`; the old plan goes on"
            .to_owned(),
    ];
    fake.snapshot.left_out = vec![("orders-beta".into(), "only runs in stage beta".to_owned())];
    fake.snapshot.exporters = vec![
        Route { name: "otlp.traces".into(), depth: 0, oldest_age: None, failing: None },
        Route {
            name: "otlp.metrics".into(),
            depth: 412,
            oldest_age: Some(Duration::from_secs(754)),
            failing: Some("127.0.0.1:4318 refused the connection".into()),
        },
    ];
    fake
}

/// One probe that passes.
pub(super) fn calm() -> Fake {
    fake(vec![row("orders-api", runs("orders-api", &labels(&[]), "....................."))])
}

/// So many probes, some of which fail with much to look at.
pub(super) fn crowd(count: usize) -> Fake {
    let probe = |number: usize| {
        let name = format!("service-{number}");
        let pattern = if number.is_multiple_of(7) { ".F".repeat(30) } else { ".".repeat(60) };
        row(&name, runs(&name, &labels(&[("team", "orders")]), &pattern))
    };
    fake((0..count).map(probe).collect())
}

fn now() -> Timestamp {
    Timestamp::parse("2026-11-23T12:30:00Z").unwrap()
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    Arc::new(pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect())
}

fn fake(probes: Vec<Row>) -> Fake {
    let snapshot = Snapshot {
        region: "eu-west-1".into(),
        stage: "gamma".into(),
        version: "0.1.0",
        started: Timestamp::parse("2026-11-20T09:12:44Z").unwrap(),
        now: now(),
        probes,
        left_out: Vec::new(),
        warnings: Vec::new(),
        exporters: Vec::new(),
    };
    Fake { snapshot, ready: Ok(()) }
}

fn row(name: &str, recent: Vec<Arc<Outcome>>) -> Row {
    let last = recent.last().cloned();
    let verdict = last.as_ref().map(|run| run.verdict);
    let bad = |run: &&Arc<Outcome>| matches!(run.verdict, Verdict::Fail | Verdict::Error);
    let same = recent.iter().rev().take_while(|run| Some(run.verdict) == verdict).last();
    Row {
        name: name.into(),
        kind: "http",
        labels: last.as_ref().map(|run| Arc::clone(&run.labels)).unwrap_or_default(),
        every: Duration::from_secs(30),
        verdict,
        since: same.map(|run| run.started),
        last_failure: recent.iter().rev().find(bad).cloned(),
        p50: last.as_ref().map(|_| Duration::from_micros(48_120)),
        p90: last.as_ref().map(|_| Duration::from_micros(131_044)),
        p99: last.as_ref().map(|_| Duration::from_millis(1204)),
        next_due: Some(now() + Duration::from_secs(11)),
        paused: false,
        last,
        recent,
    }
}

/// One run a character, the last 19 seconds ago.
fn runs(name: &str, labels: &Labels, pattern: &str) -> Vec<Arc<Outcome>> {
    let count = pattern.len() as u64;
    let run = |(at, how): (u64, char)| {
        let started = now() - Duration::from_secs(19 + 30 * (count - 1 - at));
        Arc::new(outcome(name, labels, started, how, at))
    };
    (0..).zip(pattern.chars()).map(run).collect()
}

fn outcome(name: &str, labels: &Labels, started: Timestamp, how: char, at: u64) -> Outcome {
    let (verdict, failure) = ending(how);
    let millis = 30 + at * 37 % 50 + if at.is_multiple_of(17) { 110 } else { 0 };
    let took =
        if matches!(how, 's' | 'm') { Duration::ZERO } else { Duration::from_millis(millis) };
    let phases = [
        (Phase::Dns, 0, 4),
        (Phase::Connect, 4, 3),
        (Phase::Tls, 7, 12),
        (Phase::Send, 19, 1),
        (Phase::Wait, 20, millis - 24),
        (Phase::Receive, millis - 4, 4),
    ]
    .map(|(phase, start, took)| Timed {
        phase,
        start: Duration::from_millis(start),
        took: Duration::from_millis(took),
        hop: 0,
        error: None,
    });
    let broken = matches!(how, 'F' | 'R' | 'E');
    Outcome {
        probe: name.into(),
        kind: "http".into(),
        region: "eu-west-1".into(),
        stage: "gamma".into(),
        labels: Arc::clone(labels),
        run: Arc::from(format!("run{at}")),
        trace_id: "6920000000112233445566778899aabb".into(),
        due: started,
        started,
        took,
        verdict,
        blame: failure.map(|(_, blame, _)| blame),
        error_type: failure.map(|(kind, _, _)| kind),
        message: failure.map(|(_, _, message)| message.to_owned()),
        attempts: 1,
        timeout: Duration::from_secs(5),
        phases: if took.is_zero() { Vec::new() } else { phases.to_vec() },
        steps: Vec::new(),
        evidence: broken.then(|| Box::new(evidence())),
        changed_from: (how == 'R').then_some(Verdict::Pass),
        traced: true,
        maintenance: false,
    }
}

fn ending(how: char) -> (Verdict, Option<(ErrorType, Blame, &'static str)>) {
    match how {
        '.' => (Verdict::Pass, None),
        'w' => (
            Verdict::Warn,
            Some((
                ErrorType::ExpectCert,
                Blame::Target,
                "cert.expires_in > 14d  (was 9d 4h): a warning",
            )),
        ),
        'F' => (
            Verdict::Fail,
            Some((ErrorType::ExpectStatus, Blame::Target, "status in 200..299  (was 503)")),
        ),
        'R' => (
            Verdict::Fail,
            Some((
                ErrorType::ConnectRefused,
                Blame::Target,
                "10.0.3.17:443 refused the connection",
            )),
        ),
        'E' => (
            Verdict::Error,
            Some((
                ErrorType::AgentNoCredentials,
                Blame::Agent,
                "secret:orders/token could not be had: no credential of that name",
            )),
        ),
        's' => (Verdict::Skipped, None),
        _ => (Verdict::Missed, None),
    }
}

fn evidence() -> Evidence {
    Evidence {
        request: Some("GET /health HTTP/1.1\nhost: checkout.eu-west-1.example.com\nuser-agent: picket/0.1.0\nauthorization: ***".into()),
        response: Some("HTTP/1.1 503 Service Unavailable\ncontent-type: text/html\nretry-after: 30".into()),
        body: Some("<h1>Sorry</h1><script>document.title='stolen'</script>\n{\"status\":\"degraded\",\"depends\":{\"db\":\"timeout\"}}".into()),
        body_left_out: Some(1204),
        expectation: Some("status in 200..299".into()),
        peer: Some("10.0.3.17:443".into()),
        certificate: Some(BTreeMap::from([
            ("subject".to_owned(), Fact::Text("CN=checkout.example.com".into())),
            ("not_after".to_owned(), Fact::Text("2027-02-01T00:00:00Z".into())),
        ])),
        more: BTreeMap::new(),
    }
}

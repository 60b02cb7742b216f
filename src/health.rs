//! What picket says of itself and of its probes in numbers: the instruments, and the two forms in which they are read.

mod instruments;
mod openmetrics;
mod payload;
mod process;
mod sources;
mod totals;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use opentelemetry::KeyValue;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::resource::EnvResourceDetector;
use sha2::{Digest, Sha256};

use self::instruments::Instruments;
use self::payload::Encoder;
pub use self::totals::Seed;
use self::totals::Totals;
use crate::clock::Timestamp;
use crate::outcome::{Outcome, hex};
use crate::place::Place;
use crate::plan::Plan;

/// How one exporter's outbox is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutboxReading {
    /// The exporter, such as `otlp.traces`.
    pub exporter: String,
    /// How many records it has still to take.
    pub depth: u64,
    /// How long the oldest of them has waited.
    pub oldest: Option<Duration>,
    /// How many records it took since the start.
    pub sent: u64,
    /// How many items it left out of what it took, or refused for good, since the start.
    pub rejected: u64,
    /// How many records the journal had to let go before it took them.
    pub lost: u64,
}

/// How the journal is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JournalReading {
    /// How many outcomes wait for the disk.
    pub backlog: u64,
    /// Whether the disk does not take them.
    pub failing: bool,
    /// How many outcomes were dropped since the start because the backlog was full.
    pub dropped: u64,
    /// The size of its files.
    pub bytes: u64,
}

/// The instruments: told of each run, read by `/metrics` and for the exporters.
pub struct Health {
    totals: Mutex<Totals>,
    instruments: Instruments,
    encoder: Encoder,
}

impl Health {
    /// Instruments that have measured nothing yet. `resource` says who is speaking.
    pub fn new(place: &Place, resource: Resource) -> Result<Arc<Self>, String> {
        Ok(Arc::new(Self {
            totals: Mutex::new(Totals::new(place.clone())),
            instruments: Instruments::new(resource),
            encoder: Encoder::new()?,
        }))
    }

    /// What runs from now on: the gauges of a probe that is no longer planned vanish, its counters stay.
    pub fn set_plan(&self, plan: &Plan) {
        self.totals().set_plan(plan);
    }

    /// What the ledger knew when picket started, and when the ledger began: counters go on from there.
    pub fn seed(&self, since: Timestamp, seeds: impl IntoIterator<Item = Seed>) {
        self.encoder.count_since(since);
        let mut totals = self.totals();
        for seed in seeds {
            totals.seed(seed);
        }
    }

    /// A run is due: it is in flight until it is settled. `identity` is `Planned::identity`.
    pub fn planned(&self, identity: &str) {
        self.totals().planned(identity);
    }

    /// A run has ended, as what its outcome says: called once for each `planned`, when the outcome is kept.
    pub fn settle(&self, outcome: &Outcome) {
        let attributes = self.totals().settle(outcome);
        self.instruments.record(outcome, &attributes);
    }

    /// Runs that were due and never begun, such as those that the host slept over: both planned and settled.
    pub fn count_missed(&self, identity: &str, runs: u64) {
        self.totals().count_missed(identity, runs);
    }

    /// How many runs were planned and are settled, and how many are in flight.
    pub fn counts(&self) -> (u64, u64) {
        let snapshot = self.totals().snapshot();
        (snapshot.planned, snapshot.in_flight)
    }

    /// Whether the last reload of the configuration was a good one.
    pub fn reloaded(&self, good: bool) {
        self.instruments.sources().reloaded(good);
    }

    /// How far this host's clock is off, once that is known.
    pub fn clock_offset(&self, seconds: f64) {
        self.instruments.sources().set_clock_offset(seconds);
    }

    /// Whom to ask about the outboxes each time the instruments are read.
    pub fn ask_outboxes(&self, ask: impl Fn() -> Vec<OutboxReading> + Send + Sync + 'static) {
        self.instruments.sources().ask_outboxes(Box::new(ask));
    }

    /// Whom to ask about the journal each time the instruments are read.
    pub fn ask_journal(&self, ask: impl Fn() -> JournalReading + Send + Sync + 'static) {
        self.instruments.sources().ask_journal(Box::new(ask));
    }

    /// The `/metrics` page and its content type: `OpenMetrics` for whom accepts it, else Prometheus' own text.
    pub fn page(&self, accept: Option<&str>) -> Result<(&'static str, String), String> {
        let form = openmetrics::Form::accepted(accept);
        Ok((form.content_type(), openmetrics::write(&self.read()?, form)))
    }

    /// Encoded `ExportMetricsServiceRequest`s for the journal, each within the limits of those who take them.
    pub fn payloads(&self) -> Result<Vec<Bytes>, String> {
        self.encoder.encode(self.read()?)
    }

    /// The instruments at one moment: what was planned is what was settled, whatever goes on meanwhile.
    fn read(&self) -> Result<ResourceMetrics, String> {
        self.instruments.read(|| self.totals().snapshot())
    }

    fn totals(&self) -> std::sync::MutexGuard<'_, Totals> {
        self.totals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Health").field("totals", &self.totals).finish_non_exhaustive()
    }
}

/// Who is speaking: the agent, its host, and its place. `extra` is what instance metadata knows, and wins;
/// `OTEL_RESOURCE_ATTRIBUTES` wins over all.
pub fn resource(place: &Place, extra: impl IntoIterator<Item = (String, String)>) -> Resource {
    let host = process::host_name();
    let attributes = [
        ("service.name", "picket".to_owned()),
        ("service.version", env!("CARGO_PKG_VERSION").to_owned()),
        ("service.instance.id", instance(place, host.as_deref())),
        ("deployment.environment.name", place.stage.to_string()),
    ];
    let mut attributes: Vec<_> =
        attributes.into_iter().map(|(key, value)| KeyValue::new(key, value)).collect();
    // `local` stands for no region at all.
    if place.region.as_str() != "local" {
        attributes.push(KeyValue::new("cloud.region", place.region.to_string()));
    }
    attributes.extend(host.map(|host| KeyValue::new("host.name", host)));
    let extra = extra.into_iter().map(|(key, value)| KeyValue::new(key, value));
    Resource::builder_empty()
        .with_attributes(attributes)
        .with_attributes(extra)
        .with_detector(Box::new(EnvResourceDetector::new()))
        .build()
}

/// The same instance after a restart: a new one each time would be a new series each time.
fn instance(place: &Place, host: Option<&str>) -> String {
    let mut hash = Sha256::new();
    for part in [host.unwrap_or_default(), place.region.as_str(), place.stage.as_str()] {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    let digest: [u8; 32] = hash.finalize().into();
    hex(digest.first_chunk::<16>().unwrap_or(&[0; 16]))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
    use opentelemetry_proto::tonic::metrics::v1::metric::Data;
    use prost::Message;

    use super::*;
    use crate::failure::{Blame, ErrorType};
    use crate::outcome::{Ids, Labels, StepOutcome, Verdict};
    use crate::phase::{Phase, Timed};
    use crate::plan::{Planned, Trace};

    fn place() -> Place {
        Place { region: "eu-west-1".into(), stage: "prod".into() }
    }

    fn labels() -> Labels {
        Arc::new(BTreeMap::from([
            ("region".to_owned(), "us-east-1".to_owned()),
            ("team".to_owned(), "or\"ders".to_owned()),
        ]))
    }

    fn health() -> Arc<Health> {
        let resource = Resource::builder_empty()
            .with_attribute(KeyValue::new("service.name", "picket"))
            .build();
        Health::new(&place(), resource).unwrap()
    }

    fn planned() -> Planned {
        Planned {
            name: "api".into(),
            kind: "http",
            labels: labels(),
            source: ("probes/api.toml".into(), 1),
            fingerprint: 0,
            every: Duration::from_secs(30),
            timeout: Duration::from_secs(5),
            reserve: Duration::ZERO,
            overlap: 1,
            steps: Vec::new(),
            finally: Vec::new(),
            evidence: true,
            trace: Trace::Always,
            paused: false,
            maintenance: Vec::new(),
            alarm: BTreeMap::new(),
        }
    }

    fn plan(probes: Vec<Planned>) -> Plan {
        let probes = probes.into_iter().map(Arc::new).collect();
        Plan { place: place(), probes, left_out: Vec::new(), warnings: Vec::new() }
    }

    fn outcome(verdict: Verdict) -> Outcome {
        let due = Timestamp::from_secs(1_800_000_000);
        let ids = Ids::of(&"api".into(), &labels(), &place(), due, 0);
        let (blame, error_type) = match verdict {
            Verdict::Fail => (Some(Blame::Target), Some(ErrorType::ExpectStatus)),
            Verdict::Pass | Verdict::Warn | Verdict::Error | Verdict::Skipped | Verdict::Missed => {
                (None, None)
            }
        };
        let phase = |phase, start, took, hop| Timed {
            phase,
            start: Duration::from_millis(start),
            took: Duration::from_millis(took),
            hop,
            error: None,
        };
        let phases = vec![phase(Phase::Connect, 0, 3, 0), phase(Phase::Connect, 10, 4, 1)];
        Outcome {
            probe: "api".into(),
            kind: "http".into(),
            region: place().region,
            stage: place().stage,
            labels: labels(),
            run: Arc::clone(&ids.run),
            trace_id: ids.trace_hex(),
            due,
            started: due + Duration::from_millis(1),
            took: Duration::from_millis(20),
            verdict,
            blame,
            error_type,
            message: None,
            attempts: 2,
            timeout: Duration::from_secs(5),
            phases: phases.clone(),
            steps: vec![StepOutcome {
                name: "api".to_owned(),
                kind: "http".into(),
                verdict,
                blame,
                error_type,
                message: None,
                finally: false,
                start: Duration::ZERO,
                took: Duration::from_millis(20),
                attempts: 2,
                earlier: Vec::new(),
                phases,
                requests: Vec::new(),
                facts: BTreeMap::from([("cert.not_after".into(), 1_900_000_000_i64.into())]),
            }],
            evidence: None,
            changed_from: None,
            traced: true,
            maintenance: false,
        }
    }

    fn page(health: &Health) -> String {
        health.page(None).unwrap().1
    }

    /// The sum of a family's samples, and the lines that make it.
    fn sum(page: &str, name: &str) -> u64 {
        let lines = page.lines().filter(|line| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
        });
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
    }

    #[test]
    fn what_was_planned_is_what_was_settled_at_every_reading() {
        let health = health();
        health.set_plan(&plan(vec![planned()]));
        let identity = planned().identity();
        for (round, verdict) in Verdict::ALL.iter().cycle().take(20).enumerate() {
            health.planned(&identity);
            let before = page(&health);
            assert_eq!(sum(&before, "picket_runs_inflight"), 1);
            assert_eq!(sum(&before, "picket_runs_planned_total"), round as u64);
            assert_eq!(sum(&before, "probe_runs_total"), round as u64);
            health.settle(&outcome(*verdict));
            assert_eq!(health.counts(), (round as u64 + 1, 0));
        }
        health.count_missed(&identity, 7);
        let after = page(&health);
        assert_eq!(sum(&after, "picket_runs_planned_total"), 27);
        assert_eq!(sum(&after, "probe_runs_total"), 27);
    }

    #[test]
    fn counters_go_on_from_the_ledger_and_over_a_reload() {
        let health = health();
        health.set_plan(&plan(vec![planned()]));
        let since = Timestamp::from_secs(1_700_000_000);
        let seed = |identity: &str, planned| Seed {
            identity: Arc::from(identity),
            planned,
            counts: vec![
                (Verdict::Pass, None, None, 90),
                (Verdict::Fail, Some(ErrorType::ExpectStatus), Some(Blame::Target), 10),
            ],
        };
        health.seed(since, [seed(&planned().identity(), 101), seed("gone", 100)]);
        assert_eq!(health.counts(), (200, 1), "a run that a crash cut is in flight");
        health.settle(&outcome(Verdict::Missed));
        health.set_plan(&plan(Vec::new()));
        assert_eq!(health.counts(), (201, 0));
        let page = page(&health);
        assert!(page.contains(
            r#"probe_runs_total{blame="target",error_type="expect.status",kind="http",probe="api",region="us-east-1",stage="prod",target_region="us-east-1",team="or\"ders",verdict="fail"} 10"#
        ), "{page}");
        assert!(page.contains(r#"probe_runs_total{probe="gone",stage="prod",target_region="eu-west-1",verdict="pass"} 90"#), "{page}");
        let payloads = health.payloads().unwrap();
        let request = ExportMetricsServiceRequest::decode(payloads[0].clone()).unwrap();
        let metrics = &request.resource_metrics[0].scope_metrics[0].metrics;
        let runs = metrics.iter().find(|metric| metric.name == "probe.runs").unwrap();
        let Some(Data::Sum(runs)) = &runs.data else { panic!("{runs:?}") };
        assert!(runs.is_monotonic);
        assert_eq!(runs.aggregation_temporality, 2, "cumulative");
        assert!(runs.data_points.iter().all(|one| one.start_time_unix_nano == since.nanos()));
    }

    #[test]
    fn success_is_absent_when_the_last_run_was_not_judged() {
        let health = health();
        let success = |verdict| {
            health.planned(&planned().identity());
            health.settle(&outcome(verdict));
            let page = page(&health);
            let line = page.lines().find(|line| line.starts_with("probe_success{"));
            line.map(|line| line.rsplit(' ').next().unwrap().to_owned())
        };
        assert_eq!(success(Verdict::Pass).as_deref(), Some("1"));
        assert_eq!(success(Verdict::Error), None);
        assert_eq!(success(Verdict::Fail).as_deref(), Some("0"));
        assert_eq!(success(Verdict::Missed), None);
        assert_eq!(success(Verdict::Warn).as_deref(), Some("1"));
    }

    #[test]
    fn the_gauges_of_a_probe_that_is_no_longer_planned_vanish() {
        let health = health();
        health.set_plan(&plan(vec![planned()]));
        health.planned(&planned().identity());
        health.settle(&outcome(Verdict::Pass));
        assert!(page(&health).contains("probe_success{"));
        let mut other = planned();
        other.name = "other".into();
        health.set_plan(&plan(vec![other]));
        let page = page(&health);
        for gone in ["probe_success{", "probe_timeout_seconds{", "probe_attempts{"] {
            assert!(!page.contains(gone), "{gone}");
        }
        assert!(page.contains("probe_runs_total{"));
    }

    #[test]
    fn the_page_has_each_instrument_under_its_name() {
        let health = health();
        health.set_plan(&plan(vec![planned()]));
        health.planned(&planned().identity());
        health.settle(&outcome(Verdict::Fail));
        health.clock_offset(0.5);
        health.reloaded(false);
        health.ask_outboxes(|| {
            let exporter = "otlp.traces".to_owned();
            let oldest = Some(Duration::from_secs(3));
            vec![OutboxReading { exporter, depth: 4, oldest, sent: 9, rejected: 2, lost: 1 }]
        });
        health.ask_journal(|| JournalReading { backlog: 1, failing: true, dropped: 0, bytes: 9 });
        // What the system says of this process is another number each time.
        let stable = |page: String| {
            let lines = page.lines().filter(|line| !line.starts_with("process_"));
            lines.collect::<Vec<_>>().join("\n")
        };
        let (kind, open) = health.page(Some("application/openmetrics-text;version=1.0.0")).unwrap();
        assert!(kind.starts_with("application/openmetrics-text"));
        insta::with_settings!({ snapshot_path => "../tests/snapshots" }, {
            insta::assert_snapshot!("metrics_prometheus", stable(page(&health)));
            insta::assert_snapshot!("metrics_openmetrics", stable(open));
        });
    }

    #[test]
    fn a_journey_tells_its_steps_apart_and_what_it_left_behind() {
        let health = health();
        let mut run = outcome(Verdict::Pass);
        let mut sent = run.steps[0].clone();
        sent.name = "sent".to_owned();
        sent.phases[0].phase = Phase::Deliver;
        let cleaning = |name: &str, verdict| {
            let (name, phases) = (name.to_owned(), Vec::new());
            StepOutcome { name, verdict, finally: true, phases, ..run.steps[0].clone() }
        };
        let skipped = cleaning("nothing to clean", Verdict::Skipped);
        let failed = cleaning("cleaned in vain", Verdict::Error);
        run.steps = vec![sent, skipped, failed];
        health.planned(&planned().identity());
        health.settle(&run);
        let page = page(&health);
        assert_eq!(sum(&page, "probe_residue"), 1);
        assert_eq!(sum(&page, "probe_deliver_duration_seconds_count"), 1);
        assert!(page.contains(
            r#"phase="connect",probe="api",region="us-east-1",stage="prod",step="sent""#
        ));
    }

    #[test]
    fn who_speaks_is_the_same_after_a_restart() {
        let extra = [("cloud.provider".to_owned(), "aws".to_owned())];
        let one = resource(&place(), extra.clone());
        assert_eq!(one, resource(&place(), extra));
        let text = |key: &'static str| one.get(&key.into()).map(|value| value.to_string());
        assert_eq!(text("service.name").as_deref(), Some("picket"));
        assert_eq!(text("cloud.region").as_deref(), Some("eu-west-1"));
        assert_eq!(text("cloud.provider").as_deref(), Some("aws"));
        assert_eq!(text("deployment.environment.name").as_deref(), Some("prod"));
    }
}

//! The instruments themselves: every name, unit and sentence that `/metrics` and OTLP show.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{AsyncInstrument, Histogram, Meter, MeterProvider};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::reader::MetricReader;
use opentelemetry_sdk::metrics::{
    Instrument, InstrumentKind, ManualReader, Pipeline, SdkMeterProvider, Stream, Temporality,
};

use super::sources::Sources;
use super::totals::{Last, Seen, Snapshot};
use super::{OutboxReading, process};
use crate::outcome::{Outcome, StepOutcome, Verdict};
use crate::phase::Phase;

/// The counter of runs by how they ended.
pub(super) const RUNS: &str = "probe.runs";
/// The counter of runs that were due and have ended.
pub(super) const RUNS_PLANNED: &str = "picket.runs.planned";

/// The name of the instrument with the most series.
const PHASES: &str = "probe.phase.duration";

/// HTTP's semantic conventions, finer below and wider above: a probe's timeout may be a minute.
const DURATIONS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    30.0, 60.0,
];
/// There are many phases, and each of them is coarser for it.
const PHASE_DURATIONS: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// A delay that matters to a schedule is far below one that matters to a user.
const DELAYS: &[f64] =
    &[0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0];

/// All instruments, and the one reader of them.
pub(super) struct Instruments {
    // Instruments measure nothing once their provider is gone.
    _provider: SdkMeterProvider,
    reader: Reader,
    reading: Mutex<()>,
    sources: Arc<Sources>,
    duration: Histogram<f64>,
    phase: Histogram<f64>,
    delay: Histogram<f64>,
    deliver: Histogram<f64>,
}

impl Instruments {
    pub(super) fn new(resource: Resource) -> Self {
        let reader = Reader(Arc::new(ManualReader::builder().build()));
        let provider = SdkMeterProvider::builder()
            .with_resource(resource)
            .with_reader(reader.clone())
            .with_view(roomy)
            .build();
        let scope = opentelemetry::InstrumentationScope::builder(env!("CARGO_PKG_NAME"))
            .with_version(env!("CARGO_PKG_VERSION"))
            .build();
        let meter = provider.meter_with_scope(scope);
        let sources = Arc::new(Sources::default());
        of_probes(&meter, &sources);
        of_picket(&meter, &sources);
        of_outboxes(&meter, &sources);
        of_journal(&meter, &sources);
        of_process(&meter);
        let duration = seconds(&meter, "probe.duration", "How long a run took.", DURATIONS);
        let phase = seconds(
            &meter,
            PHASES,
            "How long a phase of a run took, all its requests together.",
            PHASE_DURATIONS,
        );
        let delay = seconds(&meter, "probe.schedule.delay", "How late a run started.", DELAYS);
        let deliver = seconds(
            &meter,
            "probe.deliver.duration",
            "How long a message was on its way, from its acknowledgement to its first sight.",
            DURATIONS,
        );
        let reading = Mutex::new(());
        Self { _provider: provider, reader, reading, sources, duration, phase, delay, deliver }
    }

    pub(super) fn sources(&self) -> &Sources {
        &self.sources
    }

    /// Everything at one moment, which `snapshot` tells.
    pub(super) fn read(
        &self,
        snapshot: impl FnOnce() -> Snapshot,
    ) -> Result<ResourceMetrics, String> {
        // One at a time: a page and a payload that are read together each have a moment of their own.
        let _alone = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        self.sources.snapshot.store(Arc::new(snapshot()));
        let mut metrics = ResourceMetrics::default();
        let read = self.reader.collect(&mut metrics);
        self.sources.snapshot.store(Arc::default());
        read.map_err(|error| error.to_string())?;
        Ok(metrics)
    }

    /// Measures a run that ran; one that did not has nothing to measure.
    pub(super) fn record(&self, outcome: &Outcome, attributes: &[KeyValue]) {
        if matches!(outcome.verdict, Verdict::Skipped | Verdict::Missed) {
            return;
        }
        self.duration.record(outcome.took.as_secs_f64(), attributes);
        self.delay.record(outcome.delay().as_secs_f64(), attributes);
        let journey = outcome.steps.len() > 1;
        for step in &outcome.steps {
            for (phase, took) in by_phase(step) {
                let name = journey.then(|| step.name.clone());
                let attributes = with_phase(attributes, phase, name);
                self.phase.record(took.as_secs_f64(), &attributes);
                if phase == Phase::Deliver {
                    self.deliver.record(took.as_secs_f64(), &without_phase(&attributes));
                }
            }
        }
    }
}

/// A phase that comes several times in a step, as redirects make it, is one length of time.
fn by_phase(step: &StepOutcome) -> Vec<(Phase, Duration)> {
    let mut sums: Vec<(Phase, Duration)> = Vec::new();
    for timed in &step.phases {
        match sums.iter_mut().find(|(phase, _)| *phase == timed.phase) {
            Some((_, sum)) => *sum += timed.took,
            None => sums.push((timed.phase, timed.took)),
        }
    }
    sums
}

fn with_phase(attributes: &[KeyValue], phase: Phase, step: Option<String>) -> Vec<KeyValue> {
    let mut all = attributes.to_vec();
    all.push(KeyValue::new("phase", phase.as_str()));
    all.extend(step.map(|step| KeyValue::new("step", step)));
    all.sort_by(|one, other| one.key.cmp(&other.key));
    all
}

/// The instrument's own name tells the phase.
fn without_phase(attributes: &[KeyValue]) -> Vec<KeyValue> {
    attributes.iter().filter(|attribute| attribute.key.as_str() != "phase").cloned().collect()
}

fn of_probes(meter: &Meter, sources: &Arc<Sources>) {
    let at = Arc::clone(sources);
    meter
        .u64_observable_gauge("probe.success")
        .with_description("Whether the last run found the target good (1) or bad (0); absent when it was not judged.")
        .with_callback(move |gauge| each(&at, gauge, |last| last.good.map(u64::from)))
        .build();
    let at = Arc::clone(sources);
    meter
        .u64_observable_counter(RUNS)
        .with_description("Runs by how they ended.")
        .with_callback(move |counter| {
            let snapshot = at.snapshot.load();
            snapshot.probes.iter().for_each(|seen| observe_endings(seen, counter));
        })
        .build();
    let at = Arc::clone(sources);
    meter
        .f64_observable_gauge("probe.timeout")
        .with_description("How long a run may take.")
        .with_unit("s")
        .with_callback(move |gauge| each(&at, gauge, |last| Some(last.timeout)))
        .build();
    let at = Arc::clone(sources);
    meter
        .u64_observable_gauge("probe.attempts")
        .with_description("How often the deciding step of the last run was tried.")
        .with_callback(move |gauge| each(&at, gauge, |last| last.attempts.map(u64::from)))
        .build();
    let at = Arc::clone(sources);
    meter
        .f64_observable_gauge("probe.ssl.earliest_cert_expiry")
        .with_description("When the first of the certificates seen expires, in unix seconds.")
        .with_callback(move |gauge| each(&at, gauge, |last| last.cert_expiry))
        .build();
    let at = Arc::clone(sources);
    meter
        .u64_observable_gauge("probe.residue")
        .with_description("How many cleaning steps of the last run did not pass.")
        .with_callback(move |gauge| each(&at, gauge, |last| last.residue))
        .build();
}

/// One value of each probe that has one.
fn each<T>(sources: &Sources, gauge: &dyn AsyncInstrument<T>, value: impl Fn(&Last) -> Option<T>) {
    for seen in &sources.snapshot.load().probes {
        if let Some(value) = seen.last.as_ref().and_then(&value) {
            gauge.observe(value, &seen.attributes);
        }
    }
}

fn observe_endings(seen: &Seen, counter: &dyn AsyncInstrument<u64>) {
    for (ending, runs) in &seen.ended {
        let mut attributes = seen.attributes.to_vec();
        attributes.push(KeyValue::new("verdict", ending.verdict.as_str()));
        let error_type = ending.error_type.map(|known| KeyValue::new("error_type", known.as_str()));
        attributes.extend(error_type);
        attributes.extend(ending.blame.map(|blame| KeyValue::new("blame", blame.as_str())));
        attributes.sort_by(|one, other| one.key.cmp(&other.key));
        counter.observe(*runs, &attributes);
    }
}

fn of_picket(meter: &Meter, sources: &Arc<Sources>) {
    meter
        .u64_observable_gauge("picket.up")
        .with_description("Whether picket is up: 1.")
        .with_callback(|gauge| gauge.observe(1, &[]))
        .build();
    let at = Arc::clone(sources);
    meter
        .u64_observable_gauge("picket.config.reload.success")
        .with_description(
            "Whether the last reading of the configuration was a good one (1) or not (0).",
        )
        .with_callback(move |gauge| {
            gauge.observe(u64::from(at.reload_good()), &[]);
        })
        .build();
    let at = Arc::clone(sources);
    meter
        .u64_observable_counter(RUNS_PLANNED)
        .with_description("Runs that were planned and have ended: the sum of all verdicts.")
        .with_callback(move |counter| counter.observe(at.snapshot.load().planned, &[]))
        .build();
    let at = Arc::clone(sources);
    meter
        .u64_observable_gauge("picket.runs.inflight")
        .with_description("Runs that are due and have not ended.")
        .with_callback(move |gauge| gauge.observe(at.snapshot.load().in_flight, &[]))
        .build();
    let at = Arc::clone(sources);
    meter
        .f64_observable_gauge("picket.clock.offset")
        .with_description("How far this host's clock is ahead; absent while that is not known.")
        .with_unit("s")
        .with_callback(move |gauge| {
            if let Some(offset) = at.clock_offset() {
                gauge.observe(offset, &[]);
            }
        })
        .build();
}

fn of_outboxes(meter: &Meter, sources: &Arc<Sources>) {
    let at = Arc::clone(sources);
    meter
        .u64_observable_gauge("picket.outbox.depth")
        .with_description("Records that an exporter has still to take.")
        .with_callback(move |gauge| {
            for reading in at.outboxes() {
                gauge.observe(reading.depth, &exporter(reading.exporter));
            }
        })
        .build();
    let at = Arc::clone(sources);
    meter
        .f64_observable_gauge("picket.outbox.oldest.age")
        .with_description(
            "How long the oldest record has waited for an exporter; 0 when none waits.",
        )
        .with_unit("s")
        .with_callback(move |gauge| {
            for reading in at.outboxes() {
                let age = reading.oldest.unwrap_or_default().as_secs_f64();
                gauge.observe(age, &exporter(reading.exporter));
            }
        })
        .build();
    let count = |name: &'static str, about: &'static str, value: fn(&OutboxReading) -> u64| {
        let at = Arc::clone(sources);
        let observe = move |counter: &dyn AsyncInstrument<u64>| {
            for reading in at.outboxes() {
                let value = value(&reading);
                counter.observe(value, &exporter(reading.exporter));
            }
        };
        meter.u64_observable_counter(name).with_description(about).with_callback(observe).build();
    };
    count("picket.outbox.sent", "Records that an exporter took.", |reading| reading.sent);
    count(
        "picket.outbox.rejected",
        "Items that an exporter's other side left out or refused for good.",
        |reading| reading.rejected,
    );
    count(
        "picket.outbox.lost",
        "Records that the journal had no room for until the exporter would take them.",
        |reading| reading.lost,
    );
}

fn exporter(name: String) -> [KeyValue; 1] {
    [KeyValue::new("exporter", name)]
}

fn of_journal(meter: &Meter, sources: &Arc<Sources>) {
    let at = Arc::clone(sources);
    meter
        .u64_observable_gauge("picket.journal.backlog")
        .with_description("Outcomes that wait for the disk.")
        .with_callback(move |gauge| at.of_journal(gauge, |reading| reading.backlog))
        .build();
    let at = Arc::clone(sources);
    meter
        .u64_observable_gauge("picket.journal.failing")
        .with_description("Whether the disk does not take outcomes (1).")
        .with_callback(move |gauge| at.of_journal(gauge, |reading| u64::from(reading.failing)))
        .build();
    let at = Arc::clone(sources);
    meter
        .u64_observable_counter("picket.journal.dropped")
        .with_description(
            "Outcomes that were counted and not kept, because the disk did not take them.",
        )
        .with_callback(move |counter| at.of_journal(counter, |reading| reading.dropped))
        .build();
    let at = Arc::clone(sources);
    meter
        .u64_observable_gauge("picket.journal.size")
        .with_description("The journal's size on disk.")
        .with_unit("By")
        .with_callback(move |gauge| at.of_journal(gauge, |reading| reading.bytes))
        .build();
}

fn of_process(meter: &Meter) {
    meter
        .u64_observable_gauge("process.memory.usage")
        .with_description("Memory that picket holds.")
        .with_unit("By")
        .with_callback(|gauge| {
            if let Some(bytes) = process::memory() {
                gauge.observe(bytes, &[]);
            }
        })
        .build();
    meter
        .f64_observable_counter("process.cpu.time")
        .with_description("Processor time that picket has used.")
        .with_unit("s")
        .with_callback(|counter| counter.observe(process::processor_seconds(), &[]))
        .build();
}

fn seconds(
    meter: &Meter,
    name: &'static str,
    description: &'static str,
    boundaries: &[f64],
) -> Histogram<f64> {
    meter
        .f64_histogram(name)
        .with_description(description)
        .with_unit("s")
        .with_boundaries(boundaries.to_vec())
        .build()
}

/// Room for the series of 10,000 probes: beyond 2,000 the SDK would throw them into one. It makes the room at once, so
/// there is no more of it than they need.
fn roomy(instrument: &Instrument) -> Option<Stream> {
    let series = match instrument.name() {
        PHASES => 100_000,
        RUNS => 50_000,
        name if name.starts_with("probe.") => 12_000,
        _ => return None,
    };
    Stream::builder().with_cardinality_limit(series).build().ok()
}

/// The reader, shared with the provider that owns one.
#[derive(Clone, Debug)]
struct Reader(Arc<ManualReader>);

impl MetricReader for Reader {
    fn register_pipeline(&self, pipeline: Weak<Pipeline>) {
        self.0.register_pipeline(pipeline);
    }

    fn collect(&self, metrics: &mut ResourceMetrics) -> OTelSdkResult {
        self.0.collect(metrics)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.0.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.0.shutdown_with_timeout(timeout)
    }

    fn temporality(&self, kind: InstrumentKind) -> Temporality {
        self.0.temporality(kind)
    }
}

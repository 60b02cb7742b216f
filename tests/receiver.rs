//! A receiver of telemetry that is not ours takes what a running agent sends: over both protocols, after an outage,
//! and after the agent was killed.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, sleep};

use service::{PATIENCE, Service, free_address, run_picket, serve_hello, until};

#[path = "parts/service.rs"]
#[expect(dead_code, reason = "each test takes the parts that it needs")]
mod service;

#[tokio::test]
async fn traces_metrics_and_logs_arrive_over_http() {
    everything_arrives(|receiver| format!("endpoint = 'http://{}'", receiver.http)).await;
}

#[tokio::test]
async fn traces_metrics_and_logs_arrive_over_grpc() {
    everything_arrives(|receiver| {
        format!("endpoint = 'http://{}'\nprotocol = 'grpc'", receiver.grpc)
    })
    .await;
}

#[tokio::test]
async fn what_ran_while_the_receiver_was_down_arrives_once_and_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let mut receiver = Receiver::new(folder.path());
    let agent = Agent::new(folder.path(), &format!("endpoint = 'http://{}'", receiver.http)).await;
    let _picket = agent.start();
    let ran = agent.outcomes(6).await;
    let _rotel = receiver.start();
    receiver.wait_for(&ran).await;
    assert_eq!(receiver.arrived(&ran), in_order_of_each_probe(&ran));
}

#[tokio::test]
async fn what_was_kept_arrives_once_after_the_agent_was_killed() {
    let folder = tempfile::tempdir().unwrap();
    let mut receiver = Receiver::new(folder.path());
    let agent = Agent::new(folder.path(), &format!("endpoint = 'http://{}'", receiver.http)).await;
    let mut picket = agent.start();
    let ran = agent.outcomes(4).await;
    picket.kill();
    let _rotel = receiver.start();
    let _again = agent.start();
    receiver.wait_for(&ran).await;
    assert_eq!(receiver.arrived(&ran), in_order_of_each_probe(&ran));
}

async fn everything_arrives(export: impl Fn(&Receiver) -> String) {
    let folder = tempfile::tempdir().unwrap();
    let mut receiver = Receiver::new(folder.path());
    let _rotel = receiver.start();
    let export = format!("{}\nevery = '1s'", export(&receiver));
    let agent = Agent::new(folder.path(), &export).await;
    let mut picket = agent.start();
    let ran = agent.outcomes(2).await;
    receiver.wait_for(&ran).await;
    receiver.wait_until(|said| said.contains("probe.duration")).await;
    // The failure's log stands in the trace of its run.
    let failed = ran.iter().find(|outcome| outcome["verdict"] == "fail").unwrap();
    let trace = failed["trace_id"].as_str().unwrap();
    receiver.wait_until(|said| logs(said).any(|log| log.contains(trace))).await;
    assert_eq!(picket.stop(), Some(0));
}

/// An agent with a probe that passes and one that fails.
struct Agent {
    folder: PathBuf,
    page: SocketAddr,
    more: String,
    probes: String,
}

impl Agent {
    async fn new(folder: &Path, export: &str) -> Self {
        let (target, closed) = (serve_hello().await, free_address());
        let probes = format!(
            "[defaults]\nevery = '500ms'\ntimeout = '400ms'\n\
             [probe.good]\nhttp = {{ url = 'http://{target}/' }}\n\
             [probe.bad]\nhttp = {{ url = 'http://{closed}/' }}\n"
        );
        let more = format!("[export.otlp]\n{export}\n");
        Self { folder: folder.to_owned(), page: free_address(), more, probes }
    }

    fn start(&self) -> Service {
        run_picket(&self.folder, self.page, &self.more, &self.probes)
    }

    /// What ran, oldest first, once there are so many of each probe.
    async fn outcomes(&self, of_each: usize) -> Vec<Value> {
        until(self.page, "/api/outcomes?limit=100", |_, body| {
            let mut ran: Vec<Value> = serde_json::from_str(body).ok()?;
            ran.retain(|outcome| ["pass", "fail"].iter().any(|word| outcome["verdict"] == *word));
            ran.reverse();
            let count = |probe| ran.iter().filter(|outcome| outcome["probe"] == probe).count();
            (count("good") >= of_each && count("bad") >= of_each).then_some(ran)
        })
        .await
    }
}

/// Rotel, which writes down what it takes.
struct Receiver {
    http: SocketAddr,
    grpc: SocketAddr,
    notes: PathBuf,
}

impl Receiver {
    fn new(folder: &Path) -> Self {
        Self { http: free_address(), grpc: free_address(), notes: folder.join("received") }
    }

    fn start(&mut self) -> Service {
        let parts = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("parts");
        let rotel = parts.join("rotel/rotel-agent");
        assert!(rotel.is_file(), "no {}: run tests/install", rotel.display());
        let mut command = Command::new(rotel);
        command
            .args(["start", "--exporter", "blackhole", "--debug-log-verbosity", "detailed"])
            .args(["--debug-log", "traces", "--debug-log", "metrics", "--debug-log", "logs"])
            .arg(format!("--otlp-http-endpoint={}", self.http))
            .arg(format!("--otlp-grpc-endpoint={}", self.grpc));
        Service::start_writing(&mut command, File::create(&self.notes).unwrap())
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.notes).unwrap_or_default()
    }

    async fn wait_until(&self, will_do: impl Fn(&str) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !will_do(&self.said()) {
            assert!(Instant::now() < deadline, "it never arrived; received:\n{}", self.said());
            sleep(Duration::from_millis(50)).await;
        }
    }

    async fn wait_for(&self, ran: &[Value]) {
        self.wait_until(|said| {
            let roots = roots(said);
            ran.iter().all(|outcome| roots.iter().any(|root| outcome["trace_id"] == **root))
        })
        .await;
    }

    /// The probe and the trace of each root span that is one of these, probe by probe, as they came.
    fn arrived(&self, ran: &[Value]) -> Vec<(String, String)> {
        let said = self.said();
        let known = roots(&said).into_iter().filter_map(|root| {
            let outcome = ran.iter().find(|outcome| outcome["trace_id"] == *root)?;
            Some((outcome["probe"].as_str()?.to_owned(), root.to_owned()))
        });
        let mut known: Vec<_> = known.collect();
        known.sort_by(|(one, _), (other, _)| one.cmp(other));
        known
    }
}

/// The trace ids of root spans, as rotel writes them.
fn roots(said: &str) -> Vec<&str> {
    let lines: Vec<_> = said.lines().map(str::trim).collect();
    let pairs = lines.windows(2).filter_map(|pair| {
        let value = |line: &'_ str| line.split_once(':').map(|(_, value)| value.trim().len());
        let root = pair[0].starts_with("Trace ID") && pair[1].starts_with("Parent ID");
        (root && value(pair[1]) == Some(0)).then(|| pair[0].rsplit(' ').next()).flatten()
    });
    pairs.collect()
}

/// Log records, as rotel writes them.
fn logs(said: &str) -> impl Iterator<Item = &str> {
    let records = said.split("LogRecord #").skip(1);
    records.filter_map(|record| record.split("\nResource").next())
}

fn in_order_of_each_probe(ran: &[Value]) -> Vec<(String, String)> {
    let text = |outcome: &Value, key: &str| outcome[key].as_str().unwrap().to_owned();
    let mut all: Vec<_> = ran.iter().collect();
    all.sort_by_key(|outcome| (text(outcome, "probe"), text(outcome, "due")));
    all.iter().map(|outcome| (text(outcome, "probe"), text(outcome, "trace_id"))).collect()
}

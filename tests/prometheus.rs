//! A real Prometheus scrapes a running agent and answers questions about it.

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use url::form_urlencoded;

use service::{Service, free_address, get, program, run_picket, serve_hello, until};

#[path = "parts/service.rs"]
#[expect(dead_code, reason = "each test takes the parts that it needs")]
mod service;

#[tokio::test]
async fn prometheus_reads_what_the_agent_saw_and_the_ledger_adds_up() {
    let folder = tempfile::tempdir().unwrap();
    let agent = free_address();
    let mut picket = start_agent(folder.path(), agent, serve_hello().await);
    picket.listens(agent).await;
    let server = free_address();
    let mut prometheus = start_prometheus(folder.path(), server, agent);
    prometheus.listens(server).await;

    until(server, &query("probe_success"), |_, body| {
        (value_of(body, "good") == Some(1.0) && value_of(body, "bad") == Some(0.0)).then_some(())
    })
    .await;
    // At a moment when nothing is under way, every planned run has its verdict.
    let adds_up =
        "sum(probe_runs_total) == sum(picket_runs_planned_total) and sum(probe_runs_total) > 3";
    until(server, &query(adds_up), |_, body| (!answers(body).is_empty()).then_some(())).await;
    let refused = "probe_runs_total{probe='bad',verdict='fail',error_type='connect.refused'} > 0";
    until(server, &query(refused), |_, body| (!answers(body).is_empty()).then_some(())).await;
    let quantile =
        "histogram_quantile(0.5, sum by (le) (probe_duration_seconds_bucket{probe='good'})) > 0";
    until(server, &query(quantile), |_, body| (!answers(body).is_empty()).then_some(())).await;
}

#[tokio::test]
async fn promtool_finds_nothing_to_say_about_the_metrics() {
    let folder = tempfile::tempdir().unwrap();
    let agent = free_address();
    let mut picket = start_agent(folder.path(), agent, serve_hello().await);
    picket.listens(agent).await;
    let metrics = until(agent, "/metrics", |_, body| {
        let told = ["good", "bad"].map(|probe| body.contains(&format!("probe=\"{probe}\"")));
        told.iter().all(|told| *told).then(|| body.to_owned())
    })
    .await;

    let mut promtool = Command::new(program("promtool"));
    promtool.args(["check", "metrics"]).stdin(Stdio::piped());
    let mut promtool = promtool.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    promtool.stdin.take().unwrap().write_all(metrics.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success() && said.is_empty(), "{said}\n{metrics}");
}

#[tokio::test]
async fn the_agent_is_ready_answers_and_ends_cleanly() {
    let folder = tempfile::tempdir().unwrap();
    let agent = free_address();
    let mut picket = start_agent(folder.path(), agent, serve_hello().await);
    picket.listens(agent).await;
    until(agent, "/readyz", |status, _| (status == 200).then_some(())).await;
    assert_eq!(get(agent, "/healthz").await.unwrap().0, 200);
    assert_eq!(get(agent, "/no-such-page").await.unwrap().0, 404);
    assert_eq!(picket.stop(), Some(0), "a clean stop exits 0");
}

fn start_agent(folder: &Path, listen: SocketAddr, target: SocketAddr) -> Service {
    let closed = free_address();
    let probes = format!(
        "[defaults]\nevery = '1s'\ntimeout = '900ms'\n\
         [probe.good]\nhttp = {{ url = 'http://{target}/' }}\n\
         [probe.bad]\nhttp = {{ url = 'http://{closed}/' }}\n"
    );
    run_picket(folder, listen, "", &probes)
}

fn start_prometheus(folder: &Path, listen: SocketAddr, agent: SocketAddr) -> Service {
    let file = folder.join("prometheus.yml");
    let text = format!(
        "global: {{ scrape_interval: 300ms, scrape_timeout: 300ms }}\n\
         scrape_configs:\n  - job_name: picket\n    static_configs: [{{ targets: ['{agent}'] }}]\n"
    );
    fs::write(&file, text).unwrap();
    let mut command = Command::new(program("prometheus"));
    command
        .arg(format!("--config.file={}", file.display()))
        .arg(format!("--storage.tsdb.path={}", folder.join("tsdb").display()))
        .arg(format!("--web.listen-address={listen}"))
        .arg("--log.level=error");
    Service::start(&mut command)
}

fn query(question: &str) -> String {
    let query: String = form_urlencoded::byte_serialize(question.as_bytes()).collect();
    format!("/api/v1/query?query={query}")
}

fn answers(body: &str) -> Vec<Value> {
    let answer: Value = serde_json::from_str(body).unwrap_or_default();
    answer["data"]["result"].as_array().cloned().unwrap_or_default()
}

fn value_of(body: &str, probe: &str) -> Option<f64> {
    let answers = answers(body);
    let series = answers.iter().find(|series| series["metric"]["probe"] == probe)?;
    series["value"][1].as_str()?.parse().ok()
}

//! picket itself: a real agent with its journal and an exporter, told what to do by files, asked by its page.

use std::error::Error;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::load::{Load, WARM_UP, cost_of_each};
use crate::process::{Core, Process, stay_on};
use crate::quantile::Histogram;
use crate::target::Target;

/// The program under test.
pub(crate) const PICKET: &str = env!("CARGO_BIN_EXE_picket");
const PATIENCE: Duration = Duration::from_secs(20);
/// Long enough for every one of ten thousand probes.
const LONG_WINDOW: Duration = Duration::from_secs(10);

/// A running agent.
#[derive(Debug)]
pub(crate) struct Agent {
    process: Process,
    page: SocketAddr,
    _folder: tempfile::TempDir,
}

/// What so many probes come to.
#[derive(Debug)]
pub(crate) struct Steady {
    pub(crate) probes: u32,
    /// Runs a second.
    pub(crate) rate: f64,
    pub(crate) lateness: Histogram,
    /// MiB.
    pub(crate) resident: f64,
    /// Runs that did not pass.
    pub(crate) spoiled: f64,
}

/// What one run costs, and how many did not pass.
pub(crate) async fn cost(
    load: &Load,
    target: &Target,
    ca: &Path,
) -> Result<(Duration, f64), Box<dyn Error>> {
    let agent = Agent::start(&same_probes(load.rate(), "1s", &load.url(), ca), target.sink)?;
    let each = cost_of_each(&agent.process, target).await?;
    Ok((each, agent.runs()?.spoiled()))
}

/// A thousand runs a second at the most, by so many probes.
pub(crate) async fn steady(probes: u32, target: &Target) -> Result<Steady, Box<dyn Error>> {
    let every = Duration::from_millis(u64::from(probes.max(1000)));
    let url = format!("http://{}/hold/0", target.plain);
    let written = format!("{}ms", every.as_millis());
    let text = same_probes(probes, &written, &url, Path::new("unused"));
    let agent = Agent::start(&text, target.sink)?;
    sleep(WARM_UP).await;
    let (began, served_before) = (Instant::now(), target.served().await?);
    sleep(LONG_WINDOW).await;
    let served = target.served().await? - served_before;
    let rate = f64::from(served) / began.elapsed().as_secs_f64();
    // Before the page is asked: to tell ten thousand probes takes memory of its own.
    let resident = agent.process.resident()?;
    let metrics = agent.get("/metrics")?;
    Ok(Steady {
        probes,
        rate,
        lateness: lateness(&metrics),
        resident,
        spoiled: Runs::told_by(&metrics).spoiled(),
    })
}

/// How long a start takes until `/readyz` says yes, and the MiB held then, with nothing due.
pub(crate) fn start_up(probes: u32, target: &Target) -> Result<(Duration, f64), Box<dyn Error>> {
    let url = format!("http://{}/hold/0", target.plain);
    let text = same_probes(probes, "24h", &url, Path::new("unused"));
    let began = Instant::now();
    let agent = Agent::start(&text, target.sink)?;
    let took = began.elapsed();
    std::thread::sleep(Duration::from_secs(1));
    Ok((took, agent.process.resident()?))
}

/// `picket check` on these probes: its lines.
pub(crate) async fn check(text: &str, repeat: u32) -> Result<Vec<Value>, Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("probes.toml");
    fs::write(&file, text)?;
    let mut command = Command::new(PICKET);
    command.args(["check", "--format", "json"]).stdin(Stdio::null());
    command.args(["--repeat", &repeat.to_string()]).arg(&file).env("AWS_REGION", "local");
    let run = move || {
        stay_on(Core::Subject)?;
        command.output()
    };
    let ran = tokio::task::spawn_blocking(run).await??;
    let lines = String::from_utf8(ran.stdout)?;
    Ok(lines.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
}

/// Probes that differ in nothing but their names.
fn same_probes(count: u32, every: &str, url: &str, ca: &Path) -> String {
    let tls = if url.starts_with("https") {
        format!(", tls = {{ ca = '{}' }}", ca.display())
    } else {
        String::new()
    };
    let probe = |index| format!("[probe.p{index}]\nhttp = {{ url = '{url}'{tls} }}\n");
    let head = format!("[defaults]\nevery = '{every}'\ntimeout = '900ms'\n");
    (0..count).map(probe).fold(head, |text, probe| text + &probe)
}

impl Agent {
    /// Starts it and waits until it is ready.
    fn start(probes: &str, sink: SocketAddr) -> Result<Self, Box<dyn Error>> {
        let folder = tempfile::tempdir()?;
        let page = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let state: PathBuf = folder.path().join("state");
        let text = format!(
            "[agent]\nregion = 'local'\nlisten = '{page}'\nstate = '{}'\nprobes = ['probes.toml']\n\
             [export.otlp]\nendpoint = 'http://{sink}'\n",
            state.display()
        );
        fs::write(folder.path().join("picket.toml"), text)?;
        fs::write(folder.path().join("probes.toml"), probes)?;
        let mut command = Command::new(PICKET);
        command.args(["run", "--config"]).arg(folder.path().join("picket.toml"));
        command.stdout(Stdio::null()).stderr(fs::File::create(folder.path().join("log"))?);
        let process = Process::start(Core::Subject, &mut command)?;
        let mut agent = Self { process, page, _folder: folder };
        agent.wait_until_ready()?;
        Ok(agent)
    }

    fn wait_until_ready(&mut self) -> Result<(), Box<dyn Error>> {
        let began = Instant::now();
        while !self.get("/readyz").is_ok_and(|answer| answer.starts_with("HTTP/1.0 200")) {
            if !self.process.runs() || began.elapsed() > PATIENCE {
                return Err("the agent does not get ready".into());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    fn get(&self, path: &str) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(self.page)?;
        write!(stream, "GET {path} HTTP/1.0\r\nhost: {}\r\n\r\n", self.page)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    fn runs(&self) -> std::io::Result<Runs> {
        Ok(Runs::told_by(&self.get("/metrics")?))
    }
}

/// What the ledger says.
#[derive(Debug, Default)]
struct Runs {
    all: f64,
    passed: f64,
}

impl Runs {
    fn told_by(metrics: &str) -> Self {
        let mut runs = Self::default();
        for line in metrics.lines().filter(|line| line.starts_with("probe_runs_total")) {
            let count = value_of(line);
            runs.all += count;
            if line.contains("verdict=\"pass\"") {
                runs.passed += count;
            }
        }
        runs
    }

    /// How many did not pass.
    fn spoiled(&self) -> f64 {
        self.all - self.passed
    }
}

fn lateness(metrics: &str) -> Histogram {
    let mut histogram = Histogram::default();
    for line in metrics.lines().filter(|line| line.starts_with("probe_schedule_delay")) {
        let bound = line.split_once("le=\"").and_then(|(_, rest)| rest.split('"').next());
        if let Some(bound) = bound {
            histogram.add(bound.parse().unwrap_or(f64::INFINITY), value_of(line));
        }
    }
    histogram
}

fn value_of(line: &str) -> f64 {
    let after = line.rsplit_once('}').map_or(line, |(_, value)| value);
    after.split_whitespace().next().and_then(|value| value.parse().ok()).unwrap_or(0.0)
}

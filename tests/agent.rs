//! The agent as it runs: exporters that go and come back, crashes, reloads, a full disk, a stop.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use picket::outcome::hex;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use receiver::{Answer, Receiver};
use service::{Service, free_address, get, run_picket, serve_hello, until};

#[path = "support/otlp_receiver.rs"]
#[expect(dead_code, reason = "each test takes the parts that it needs")]
mod receiver;
#[path = "parts/service.rs"]
#[expect(dead_code, reason = "each test takes the parts that it needs")]
mod service;

/// Every run that the page's own API tells of, by its trace.
async fn journalled(agent: SocketAddr) -> BTreeMap<String, String> {
    let (_, body) = get(agent, "/api/outcomes?limit=1000").await.unwrap();
    let outcomes: Vec<Value> = serde_json::from_str(&body).unwrap();
    let told = |outcome: &Value| {
        let text = |key: &str| outcome[key].as_str().unwrap_or_default().to_owned();
        (text("trace_id"), text("verdict"))
    };
    outcomes.iter().map(told).collect()
}

/// A run that was skipped or missed leaves no trace.
fn ran(verdict: &str) -> bool {
    ["pass", "warn", "fail", "error"].contains(&verdict)
}

/// The trace of every root span that was taken, in order.
fn traced(receiver: &Receiver) -> Vec<String> {
    let roots = receiver.spans().into_iter().filter(|span| span.parent_span_id.is_empty());
    roots.map(|span| hex(&span.trace_id)).collect()
}

/// One whole number from `/metrics`: the sum over the series of that name.
fn total(metrics: &str, name: &str) -> u64 {
    let series = metrics
        .lines()
        .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{'])));
    series.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

fn export(receiver: &Receiver) -> String {
    format!("[export.otlp]\nendpoint = 'http://{}'\nevery = '1s'\n", receiver.address)
}

fn probe(target: SocketAddr) -> String {
    format!(
        "[probe.hello]\nevery = '200ms'\ntimeout = '1s'\nhttp = {{ url = 'http://{target}/' }}\n"
    )
}

fn signal(picket: &Service, signal: Signal) {
    kill_process(Pid::from_raw(i32::try_from(picket.id()).unwrap()).unwrap(), signal).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_was_down_gets_everything_in_order_and_once() {
    let folder = tempfile::tempdir().unwrap();
    let receiver = Receiver::start().await;
    receiver.always(Answer::Status(503, Some("0"), "down"));
    let address = free_address();
    let mut picket =
        run_picket(folder.path(), address, &export(&receiver), &probe(serve_hello().await));
    picket.listens(address).await;
    until(address, "/metrics", |_, body| (total(body, "probe_runs_total") >= 10).then_some(()))
        .await;
    assert!(receiver.spans().is_empty());

    receiver.always(Answer::Ok);
    until(address, "/metrics", |_, body| {
        (total(body, "picket_outbox_sent_total") >= 30).then_some(())
    })
    .await;
    let kept = journalled(address).await;
    assert_eq!(picket.stop(), Some(0));
    let traces = traced(&receiver);
    let mut once = traces.clone();
    once.sort();
    once.dedup();
    assert_eq!(once.len(), traces.len(), "nothing comes twice");
    for (trace, _) in kept.iter().filter(|(_, verdict)| ran(verdict)) {
        assert!(once.contains(trace), "{trace} is in the journal and never came");
    }
    let starts: Vec<_> = receiver
        .spans()
        .iter()
        .filter(|span| span.parent_span_id.is_empty())
        .map(|span| span.start_time_unix_nano)
        .collect();
    assert!(starts.is_sorted(), "in order, with the original times");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_journalled_before_a_crash_arrives_after_it_and_the_ledger_adds_up() {
    let folder = tempfile::tempdir().unwrap();
    let receiver = Receiver::start().await;
    receiver.always(Answer::Status(503, Some("0"), "down"));
    let target = serve_hello().await;
    let address = free_address();
    let mut picket = run_picket(folder.path(), address, &export(&receiver), &probe(target));
    picket.listens(address).await;
    until(address, "/metrics", |_, body| (total(body, "probe_runs_total") >= 5).then_some(()))
        .await;
    let before = journalled(address).await;
    picket.kill();

    receiver.always(Answer::Ok);
    let address = free_address();
    let mut picket = run_picket(folder.path(), address, &export(&receiver), &probe(target));
    picket.listens(address).await;
    let metrics = until(address, "/metrics", |_, body| {
        (total(body, "probe_runs_total") >= 8).then(|| body.to_owned())
    })
    .await;
    assert_eq!(total(&metrics, "picket_runs_planned_total"), total(&metrics, "probe_runs_total"));
    assert_eq!(picket.stop(), Some(0));
    let traces = traced(&receiver);
    for (trace, verdict) in &before {
        let arrived = traces.iter().filter(|one| *one == trace).count();
        assert_eq!(arrived, usize::from(ran(verdict)), "{trace} ({verdict})");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_reload_changes_nothing_and_a_good_one_only_what_changed() {
    let folder = tempfile::tempdir().unwrap();
    let address = free_address();
    let probes = probe(serve_hello().await);
    let mut picket = run_picket(folder.path(), address, "", &probes);
    picket.listens(address).await;
    let success = |wanted: u64| {
        move |_: u16, body: &str| {
            (total(body, "picket_config_reload_success") == wanted).then(|| body.to_owned())
        }
    };
    until(address, "/metrics", success(1)).await;

    fs::write(folder.path().join("probes.toml"), "[probe.hello]\nhtpp = {}\n").unwrap();
    signal(&picket, Signal::HUP);
    let refused = until(address, "/metrics", success(0)).await;
    let runs = total(&refused, "probe_runs_total");
    until(address, "/metrics", |_, body| {
        (total(body, "probe_runs_total") >= runs + 3).then_some(())
    })
    .await;
    let page = get(address, "/").await.unwrap().1;
    assert!(page.contains("did you mean `http`?"), "the page says why");

    let more = format!(
        "{probes}[probe.paused]\npaused = true\nevery = '200ms'\nhttp = {{ url = 'http://127.0.0.1:1/' }}\n"
    );
    fs::write(folder.path().join("probes.toml"), more).unwrap();
    signal(&picket, Signal::HUP);
    let after = until(address, "/metrics", |_, body| {
        body.contains("verdict=\"skipped\"").then(|| body.to_owned())
    })
    .await;
    assert_eq!(total(&after, "picket_config_reload_success"), 1);
    assert!(total(&after, "probe_runs_total") >= runs + 3, "counts go on");
    assert_eq!(total(&after, "picket_runs_planned_total"), total(&after, "probe_runs_total"));
    assert!(!after.contains("verdict=\"missed\""), "nothing was missed over a reload");
    assert_eq!(picket.stop(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_it_was_stopped_runs_are_missed_and_not_made_up_for() {
    let folder = tempfile::tempdir().unwrap();
    let address = free_address();
    let mut picket = run_picket(folder.path(), address, "", &probe(serve_hello().await));
    picket.listens(address).await;
    until(address, "/metrics", |_, body| body.contains("verdict=\"pass\"").then_some(())).await;
    signal(&picket, Signal::STOP);
    // The time that is slept over is the point here.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    signal(&picket, Signal::CONT);
    let metrics = until(address, "/metrics", |_, body| {
        body.contains("verdict=\"missed\"").then(|| body.to_owned())
    })
    .await;
    assert_eq!(total(&metrics, "picket_runs_planned_total"), total(&metrics, "probe_runs_total"));
    assert_eq!(picket.stop(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_hangs_is_cut_at_the_stop_and_its_finally_still_runs() {
    let folder = tempfile::tempdir().unwrap();
    let silent = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let (silent_at, hello) = (silent.local_addr().unwrap(), serve_hello().await);
    let probes = format!(
        "[probe.flow]\nevery = '1s'\ntimeout = '60s'\n\
         [[probe.flow.step]]\nname = 'hang'\nhttp = {{ url = 'http://{silent_at}/' }}\n\
         [[probe.flow.finally]]\nname = 'clean'\nhttp = {{ url = 'http://{hello}/' }}\n"
    );
    let address = free_address();
    let mut picket = run_picket(folder.path(), address, "drain = '200ms'\n", &probes);
    picket.listens(address).await;
    // It has connected: the step is under way.
    let held = silent.accept().await.unwrap();
    assert_eq!(picket.stop(), Some(0));
    drop(held);
    let history = Command::new(env!("CARGO_BIN_EXE_picket"))
        .args(["history", "--format", "json", "--config"])
        .arg(folder.path().join("picket.toml"))
        .output()
        .unwrap();
    let text = String::from_utf8(history.stdout).unwrap();
    let cut =
        text.lines().find(|line| line.contains("\"hang\"")).unwrap_or_else(|| panic!("{text}"));
    let outcome: Value = serde_json::from_str(cut).unwrap();
    assert_eq!(outcome["verdict"], "skipped");
    assert!(outcome["message"].as_str().unwrap().contains("drain"), "{outcome}");
    assert_eq!(outcome["steps"][1]["verdict"], "pass", "{outcome}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_told_and_costs_nothing_once_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    fs::create_dir(&state).unwrap();
    let address = free_address();
    // In a mount namespace of its own: a disk of 1 MiB, which something else fills.
    let mut picket =
        run_on_a_small_disk(folder.path(), &state, address, &probe(serve_hello().await));
    picket.listens(address).await;
    // Its journal is begun.
    until(address, "/metrics", |_, body| (total(body, "probe_runs_total") >= 1).then_some(()))
        .await;
    let filler = format!("/proc/{}/root{}/filler", picket.id(), state.display());
    // As much as there is room for.
    assert!(fs::write(&filler, vec![0; 2 << 20]).is_err(), "the disk is not full yet");
    let failing = until(address, "/metrics", |_, body| {
        (total(body, "picket_journal_failing") == 1).then(|| body.to_owned())
    })
    .await;
    let runs = total(&failing, "probe_runs_total");
    until(address, "/metrics", |_, body| {
        (total(body, "probe_runs_total") >= runs + 3).then_some(())
    })
    .await;
    assert!(get(address, "/").await.unwrap().1.contains("the journal cannot be written"));

    fs::remove_file(&filler).unwrap();
    let mended = until(address, "/metrics", |_, body| {
        let mended = total(body, "picket_journal_failing") == 0
            && total(body, "picket_journal_backlog") == 0;
        mended.then(|| body.to_owned())
    })
    .await;
    assert_eq!(total(&mended, "picket_journal_dropped_total"), 0);
    let kept = journalled(address).await;
    assert!(u64::try_from(kept.len()).is_ok_and(|kept| kept >= runs), "{} of {runs}", kept.len());
    assert_eq!(picket.stop(), Some(0));
}

fn run_on_a_small_disk(folder: &Path, state: &Path, listen: SocketAddr, probes: &str) -> Service {
    let agent = format!(
        "[agent]\nregion = 'local'\nlisten = '{listen}'\nstate = '{}'\nprobes = ['probes.toml']\n",
        state.display()
    );
    fs::write(folder.join("picket.toml"), agent).unwrap();
    fs::write(folder.join("probes.toml"), probes).unwrap();
    let script = "mount -t tmpfs -o size=1m tmpfs \"$1\" && exec \"$2\" run --config \"$3\"";
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--mount", "sh", "-c", script, "sh"]);
    command.arg(state).arg(env!("CARGO_BIN_EXE_picket")).arg(folder.join("picket.toml"));
    Service::start(&mut command)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_agent_on_the_same_state_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let address = free_address();
    let probes = probe(serve_hello().await);
    let mut first = run_picket(folder.path(), address, "", &probes);
    first.listens(address).await;
    let mut second = run_picket(folder.path(), free_address(), "", &probes);
    assert_eq!(second.wait(), Some(1));
    assert_eq!(first.stop(), Some(0));
}

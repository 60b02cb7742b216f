//! What every kind of step and every sink must keep to, found by walking their tables.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use picket::clock;
use picket::config;
use picket::expect::Expectation;
use picket::export::SINKS;
use picket::failure::Blame;
use picket::journey::{self, Job};
use picket::outcome::{Outcome, Verdict};
use picket::place::Place;
use picket::plan::{self, Planned};
use picket::probe::{KINDS, Kind};
use picket::secret::Secrets;
use regex::Regex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use authority::certificates;
use service::{PATIENCE, free_address};

#[path = "parts/authority.rs"]
mod authority;
#[path = "parts/service.rs"]
#[expect(dead_code, reason = "each test takes the parts that it needs")]
mod service;

#[test]
fn every_file_of_a_table_has_a_row() {
    let names: Vec<_> = KINDS.iter().map(|kind| kind.name).collect();
    assert_eq!(files_of("probe"), sorted(&names), "src/probe/ and KINDS differ");
    let names: Vec<_> = SINKS.iter().map(|sink| sink.name).collect();
    assert_eq!(files_of("export"), sorted(&names), "src/export/ and SINKS differ");
}

#[test]
fn every_example_of_a_kind_is_a_probe_file_that_plans() {
    for kind in KINDS {
        assert!(kind.example.contains(kind.name), "{}'s example shows another kind", kind.name);
        plans(kind.name, &["validate", "probes.toml"], "probes.toml", kind.example);
    }
}

#[test]
fn every_example_of_a_sink_is_an_agent_file_that_plans() {
    for sink in SINKS {
        let table = format!("[export.{}", sink.name);
        assert!(sink.example.contains(&table), "{}'s example shows another sink", sink.name);
        let arguments = ["validate", "--config", "picket.toml"];
        plans(sink.name, &arguments, "picket.toml", sink.example);
    }
}

#[test]
fn every_kind_says_what_it_is_and_what_can_be_expected_of_it() {
    for kind in KINDS {
        assert!(!kind.about.is_empty(), "{} says nothing of itself", kind.name);
        assert!(!kind.default_expect.is_empty(), "{} expects nothing by default", kind.name);
        for line in kind.default_expect {
            if let Err(mistake) = Expectation::compile(line, kind.subjects) {
                panic!("{}'s own default {line:?} does not compile: {mistake:?}", kind.name);
            }
        }
        let mut seen = BTreeSet::new();
        for subject in kind.subjects {
            assert!(
                !subject.about.is_empty(),
                "{} of {} is not described",
                subject.name,
                kind.name
            );
            let written = (subject.name, format!("{:?}", subject.shape));
            assert!(seen.insert(written), "{} of {} is there twice", subject.name, kind.name);
        }
    }
}

#[test]
fn the_manual_of_every_kind_is_printed_from_its_row() {
    for kind in KINDS {
        let output = picket(Path::new("."), &["kinds", kind.name]).output().unwrap();
        let manual = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "picket kinds {} does not answer", kind.name);
        for line in kind.example.lines().map(str::trim).filter(|line| !line.is_empty()) {
            assert!(manual.contains(line), "the manual of {} lacks {line:?}", kind.name);
        }
        for subject in kind.subjects {
            assert!(manual.contains(subject.name), "{}'s lacks {}", kind.name, subject.name);
        }
    }
}

/// A secret's value: it may be seen nowhere.
const SESAME: &str = "open-sesame-7f3a";

#[tokio::test]
async fn a_target_that_says_nothing_holds_no_kind_beyond_its_time_limit() {
    let limit = Duration::from_millis(50);
    let folder = tempfile::tempdir().unwrap();
    let silent = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    for kind in KINDS {
        for mut planned in aimed(kind, silent.local_addr().unwrap(), folder.path()) {
            (planned.timeout, planned.reserve) = (limit, Duration::ZERO);
            let outcome = run(planned).await;
            assert_eq!(outcome.verdict, Verdict::Fail, "{outcome:?}");
            assert!(outcome.error_type.unwrap().as_str().ends_with(".timeout"), "{outcome:?}");
            // The upper bound leaves room for a busy machine, not for another second of patience.
            assert!((limit..limit + PATIENCE / 60).contains(&outcome.took), "{outcome:?}");
            assert!(outcome.phases.iter().any(|phase| phase.error.is_some()), "{outcome:?}");
        }
    }
}

#[tokio::test]
async fn a_target_that_refuses_is_a_failure_of_every_kind_with_its_phase() {
    let folder = tempfile::tempdir().unwrap();
    for kind in KINDS {
        for planned in aimed(kind, free_address(), folder.path()) {
            let outcome = run(planned).await;
            let judged = (outcome.verdict, outcome.blame);
            assert_eq!(judged, (Verdict::Fail, Some(Blame::Target)), "{outcome:?}");
            let broken: Vec<_> = outcome.phases.iter().filter_map(|phase| phase.error).collect();
            assert_eq!(broken, [outcome.error_type.unwrap()], "{outcome:?}");
        }
    }
}

#[tokio::test]
async fn nothing_that_is_said_of_any_kind_shows_a_secret_that_the_target_says_back() {
    let folder = tempfile::tempdir().unwrap();
    let (tls, authority) = certificates("127.0.0.1", &["http/1.1"]);
    fs::write(folder.path().join("ca.pem"), authority).unwrap();
    let target = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = target.local_addr().unwrap();
    let talking = tokio::spawn(say_back(target, tls));
    for kind in KINDS {
        assert!(kind.example.contains("${secret:"), "{}'s example has no secret", kind.name);
        fs::write(folder.path().join("probes.toml"), aim(kind.example, address)).unwrap();
        for format in ["table", "json", "junit"] {
            let mut command = picket(folder.path(), &["check", "--format", format, "probes.toml"]);
            command.env("SSL_CERT_FILE", "ca.pem").envs(secrets(kind.example));
            let output = tokio::process::Command::from(command).output().await.unwrap();
            let [out, notes] =
                [output.stdout, output.stderr].map(|said| String::from_utf8(said).unwrap());
            assert_eq!(output.status.code(), Some(1), "{}: {out}{notes}", kind.name);
            assert!(format != "json" || out.contains("heard:"), "the target was not asked: {out}");
            assert!(!out.contains(SESAME) && !notes.contains(SESAME), "{out}{notes}");
        }
    }
    talking.abort();
}

#[tokio::test]
async fn nothing_of_any_kind_shows_a_secret_when_it_is_debugged() {
    let folder = tempfile::tempdir().unwrap();
    for kind in KINDS {
        for planned in aimed(kind, free_address(), folder.path()) {
            assert!(!format!("{planned:?}").contains(SESAME), "{}", kind.name);
            assert!(!format!("{:?}", run(planned).await).contains(SESAME), "{}", kind.name);
        }
    }
}

/// The probes of a kind's example, aimed at this address, with their secrets in files of this folder.
fn aimed(kind: &Kind, address: SocketAddr, folder: &Path) -> Vec<Planned> {
    let mut text = aim(kind.example, address);
    for (name, value) in secrets(kind.example) {
        let file = folder.join(&name);
        fs::write(&file, value).unwrap();
        text = text.replace(&format!("secret:{name}"), &format!("secret:file:{}", file.display()));
    }
    let file = folder.join("probes.toml");
    fs::write(&file, text).unwrap();
    let place = Place { region: "eu-west-1".into(), stage: "prod".into() };
    let loaded = plan::plan(&config::read(None, &[file]), &place);
    let plan = loaded.unwrap_or_else(|mistakes| panic!("{}: {mistakes}", kind.name)).plan;
    let probes: Vec<_> = plan.probes.into_iter().filter_map(Arc::into_inner).collect();
    assert!(!probes.is_empty(), "{}'s example has no probe", kind.name);
    probes
}

/// An example with this address for every host that it names.
fn aim(example: &str, address: SocketAddr) -> String {
    let hosts = Regex::new(r"[a-z0-9${}.-]+\.example\.com(:\d+)?|10(\.\d+){3}:\d+").unwrap();
    assert!(hosts.is_match(example), "no host of example.com in {example}");
    hosts.replace_all(example, address.to_string()).into_owned()
}

/// The secrets that a text asks for, each with the value that may not be seen.
fn secrets(text: &str) -> Vec<(String, &'static str)> {
    let asked = text.split("${secret:").skip(1).filter_map(|rest| rest.split('}').next());
    asked.map(|name| (name.to_owned(), SESAME)).collect()
}

async fn run(planned: Planned) -> Outcome {
    let (_stop, cut) = watch::channel(false);
    let place = Place { region: "eu-west-1".into(), stage: "prod".into() };
    let (planned, secrets) = (Arc::new(planned), Arc::new(Secrets::here()));
    journey::run(Job { planned, place, due: clock::now(), fold: 0, secrets, cut }).await
}

/// A target that answers with an error, and with all that it heard.
async fn say_back(target: TcpListener, tls: TlsAcceptor) {
    while let Ok((stream, _)) = target.accept().await {
        let Ok(mut stream) = tls.accept(stream).await else { continue };
        let mut heard = vec![0; 16 * 1024];
        let read = stream.read(&mut heard).await.unwrap_or_default();
        let body = format!("heard: {}", String::from_utf8_lossy(&heard[..read]));
        let head = format!("HTTP/1.1 500 No\r\ncontent-length: {}\r\n\r\n", body.len());
        drop(stream.write_all((head + &body).as_bytes()).await);
        drop(stream.shutdown().await);
    }
}

/// Writes the file into a folder of its own and has picket read it there.
fn plans(what: &str, arguments: &[&str], file: &str, text: &str) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(file), text).unwrap();
    let mut command = picket(folder.path(), arguments);
    let output = command.envs(secrets(text)).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{what}'s example does not plan:\n{said}");
}

fn picket(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_picket"));
    command.current_dir(folder).args(arguments).env("AWS_REGION", "eu-west-1");
    command
}

fn files_of(folder: &str) -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(folder);
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let files = files.filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
    let mut stems: Vec<_> =
        files.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect();
    stems.sort();
    stems
}

fn sorted(names: &[&str]) -> Vec<String> {
    let mut names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    names.sort();
    names
}

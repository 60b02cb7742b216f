//! A picket that is killed in the middle of its work: what it was told is kept is there, once.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use picket::clock::Timestamp;
use picket::journal::{Filter, History, Journal, Limits, Settled};
use picket::outcome::{Evidence, Ids, Labels, Outcome, Verdict};
use picket::place::Place;
use tempfile::TempDir;

/// Names the state folder to the writer, which is this very program started again.
const FOLDER: &str = "PICKET_TEST_JOURNAL_FOLDER";
/// Which run of the writer it is.
const ROUND: &str = "PICKET_TEST_JOURNAL_ROUND";

#[test]
fn a_killed_picket_loses_nothing_that_was_journalled_and_doubles_nothing() {
    let folder = TempDir::new().unwrap();
    let mut acknowledged = BTreeSet::new();
    for round in 0..8_u64 {
        // A different moment each time: after so many acknowledgements.
        acknowledged.extend(acknowledged_before_the_kill(folder.path(), round, 3 + round * 17));
    }
    let kept = History::open(folder.path()).unwrap().outcomes(&Filter::default()).unwrap();
    let runs: BTreeSet<String> = kept.iter().map(|run| run.run.to_string()).collect();
    assert_eq!(runs.len(), kept.len(), "no run is kept twice");
    let lost: Vec<_> = acknowledged.difference(&runs).collect();
    assert!(lost.is_empty(), "{} of {} are lost", lost.len(), acknowledged.len());

    let (journal, opened) = Journal::open(folder.path(), Limits::default()).unwrap();
    assert_eq!(opened.recovered, None, "a kill damages nothing");
    let ledger = journal.ledger().unwrap();
    let planned: u64 = ledger.iter().map(|line| line.planned).sum();
    let counted: u64 = ledger.iter().flat_map(|line| &line.counts).map(|(.., runs)| runs).sum();
    assert_eq!((planned, counted), (kept.len() as u64, kept.len() as u64), "the ledger adds up");
}

/// Starts a writer, waits until it has acknowledged so many runs, kills it, and reads what else it had said.
fn acknowledged_before_the_kill(folder: &Path, round: u64, enough: u64) -> Vec<String> {
    let mut writer = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_writer_that_is_killed", "--nocapture", "--ignored"])
        .env(FOLDER, folder)
        .env(ROUND, round.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(writer.stdout.take().unwrap()).lines();
    let mut acknowledged = Vec::new();
    let run_of = |line: String| line.split_once("kept ").map(|(_, run)| run.to_owned());
    while (acknowledged.len() as u64) < enough {
        acknowledged.extend(said.next().unwrap().ok().and_then(run_of));
    }
    writer.kill().unwrap();
    writer.wait().unwrap();
    // The last line can be cut off; a run's name has 26 characters.
    acknowledged
        .extend(said.map_while(Result::ok).filter_map(run_of).filter(|run| run.len() == 26));
    acknowledged
}

/// Not a test of its own: appends until it is killed, and says what is kept.
#[test]
#[ignore = "is started, and killed, by the test above"]
fn the_writer_that_is_killed() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let round: u64 = std::env::var(ROUND).unwrap().parse().unwrap();
    let (journal, _) = Journal::open(Path::new(&folder), Limits::default()).unwrap();
    journal.tell(Box::new(|outcomes| {
        let mut out = std::io::stdout().lock();
        for outcome in outcomes {
            writeln!(out, "kept {}", outcome.run).unwrap();
        }
        out.flush().unwrap();
    }));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        for second in 0.. {
            let due = Timestamp::from_secs(1_800_000_000 + round * 10_000_000 + second);
            let outcome = Arc::new(run_due(due));
            let identity = outcome.probe.shared();
            journal.append(Settled { outcome, identity, settled_through: due }).await;
        }
    });
}

fn run_due(due: Timestamp) -> Outcome {
    let place = Place { region: "eu-west-1".into(), stage: "prod".into() };
    let probe = format!("probe-{}", due.secs() % 7);
    let ids = Ids::of(&probe.as_str().into(), &Labels::default(), &place, due, 0);
    let verdict = if due.secs() % 5 == 0 { Verdict::Fail } else { Verdict::Pass };
    Outcome {
        probe: probe.as_str().into(),
        kind: "http".into(),
        region: place.region,
        stage: place.stage,
        labels: Labels::default(),
        trace_id: ids.trace_hex(),
        run: ids.run,
        due,
        started: due,
        took: Duration::from_millis(20),
        verdict,
        blame: None,
        error_type: None,
        message: None,
        attempts: 1,
        timeout: Duration::from_secs(5),
        phases: Vec::new(),
        steps: Vec::new(),
        evidence: Some(Box::new(Evidence { body: Some("x".repeat(700)), ..Evidence::default() })),
        changed_from: None,
        traced: true,
        maintenance: false,
    }
}

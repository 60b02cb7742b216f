use std::fs::OpenOptions;
use std::io::{Read, Seek, SeekFrom, Write};
use std::sync::mpsc;

use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use tempfile::TempDir;

use super::*;
use crate::clock;
use crate::export::Record;
use crate::outcome::{Evidence, Ids, Labels};
use crate::place::Place;

/// A run of `probe` that was due so many seconds after midnight of some day.
fn run_of(probe: &str, second: u64, verdict: Verdict) -> Arc<Outcome> {
    let day = clock::now().secs() / 86_400 * 86_400 - 86_400;
    run_due(probe, Timestamp::from_nanos((day + second) * 1_000_000_000 + 123_456_789), verdict)
}

fn run_due(probe: &str, due: Timestamp, verdict: Verdict) -> Arc<Outcome> {
    let place = Place { region: "eu-west-1".into(), stage: "prod".into() };
    let ids = Ids::of(&probe.into(), &Labels::default(), &place, due, 0);
    let failed = verdict == Verdict::Fail;
    Arc::new(Outcome {
        probe: probe.into(),
        kind: "http".into(),
        region: place.region,
        stage: place.stage,
        labels: Labels::default(),
        trace_id: ids.trace_hex(),
        run: ids.run,
        due,
        started: due + Duration::from_nanos(1_234_567),
        took: Duration::from_nanos(98_765_432),
        verdict,
        blame: failed.then_some(Blame::Target),
        error_type: failed.then_some(ErrorType::ExpectStatus),
        message: failed.then(|| "status in 200..299  (was 503)".to_owned()),
        attempts: 1,
        timeout: Duration::from_secs(5),
        phases: Vec::new(),
        steps: Vec::new(),
        evidence: failed
            .then(|| Box::new(Evidence { body: Some("x".repeat(9000)), ..Evidence::default() })),
        changed_from: None,
        traced: true,
        maintenance: false,
    })
}

fn settled(outcome: &Arc<Outcome>) -> Settled {
    Settled {
        outcome: Arc::clone(outcome),
        identity: outcome.probe.shared(),
        settled_through: outcome.due,
    }
}

fn open(folder: &TempDir) -> Journal {
    Journal::open(folder.path(), Limits::default()).unwrap().0
}

/// Everything that can be read, from the disk.
fn all(journal: &Journal) -> Vec<Arc<Outcome>> {
    let stretch = journal.read(0, usize::MAX, usize::MAX).unwrap();
    assert!(stretch.records.is_sorted_by_key(|kept| kept.seq));
    let outcomes = stretch.records.into_iter().filter_map(|kept| match kept.record {
        Record::Outcome(outcome) => Some(outcome),
        Record::Metrics(_) => None,
    });
    outcomes.collect()
}

/// Asks the writer's own connection for something.
async fn on_the_writer(journal: &Journal, statement: &'static str) {
    journal
        .hand_over(Job::Do(Box::new(move |connection| {
            connection.query_row(statement, [], |_| Ok(())).unwrap();
        })))
        .await;
    journal.settle().await;
}

#[tokio::test]
async fn what_was_kept_is_there_after_a_restart_to_the_nanosecond() {
    let folder = TempDir::new().unwrap();
    let runs = [run_of("api", 1, Verdict::Pass), run_of("api", 2, Verdict::Fail)];
    let journal = open(&folder);
    for run in &runs {
        journal.append(settled(run)).await;
    }
    journal.close().await;
    drop(journal);
    let journal = open(&folder);
    assert_eq!(all(&journal), runs);
    assert_eq!(journal.beginning(), 2);
}

#[tokio::test]
async fn a_run_is_kept_and_counted_once() {
    let folder = TempDir::new().unwrap();
    let journal = open(&folder);
    let run = run_of("api", 1, Verdict::Pass);
    let (heard, hears) = mpsc::channel();
    journal.tell(Box::new(move |outcomes| heard.send(outcomes.len()).unwrap()));
    for _ in 0..2 {
        journal.append(settled(&run)).await;
        journal.settle().await;
    }
    assert_eq!(all(&journal).len(), 1);
    assert_eq!(journal.ledger().unwrap()[0].planned, 1);
    drop(journal);
    assert_eq!(hears.iter().sum::<usize>(), 1);
}

#[tokio::test]
async fn an_outcome_is_on_disk_before_anyone_is_told_of_it() {
    let folder = TempDir::new().unwrap();
    let journal = open(&folder);
    let reader = Mutex::new(History::open(folder.path()).unwrap());
    let (heard, hears) = mpsc::channel();
    journal.tell(Box::new(move |outcomes| {
        let kept = held(&reader).outcomes(&Filter::default()).unwrap();
        heard
            .send(outcomes.iter().all(|told| kept.iter().any(|kept| kept.run == told.run)))
            .unwrap();
    }));
    for second in 0..20 {
        journal.append(settled(&run_of("api", second, Verdict::Pass))).await;
    }
    drop(journal);
    assert!(hears.iter().all(|on_disk| on_disk));
}

#[tokio::test]
async fn the_ledger_adds_up_over_restarts() {
    let folder = TempDir::new().unwrap();
    for round in 0..3 {
        let journal = open(&folder);
        journal.append(settled(&run_of("api", round * 10, Verdict::Pass))).await;
        journal.append(settled(&run_of("api", round * 10 + 1, Verdict::Fail))).await;
        journal.append(settled(&run_of("api", round * 10 + 2, Verdict::Skipped))).await;
        let through = run_of("api", round * 10 + 5, Verdict::Missed).due;
        journal.count_missed(Arc::from("api"), 3, through).await;
        journal.close().await;
    }
    let journal = open(&folder);
    let ledger = journal.ledger().unwrap();
    let line = &ledger[0];
    assert_eq!(line.planned, 18);
    assert_eq!(line.counts.iter().map(|(.., runs)| runs).sum::<u64>(), 18);
    let failed = (Verdict::Fail, Some(ErrorType::ExpectStatus), Some(Blame::Target), 3);
    assert!(line.counts.contains(&failed), "{line:?}");
    assert!(line.counts.contains(&(Verdict::Missed, None, None, 9)), "{line:?}");
    assert_eq!((line.last, line.streak), (Some(Verdict::Fail), 1));
    assert_eq!(line.settled_through, run_of("api", 25, Verdict::Missed).due);
}

#[tokio::test]
async fn a_run_that_is_settled_before_its_turn_is_remembered_until_its_turn_comes() {
    let folder = TempDir::new().unwrap();
    let journal = open(&folder);
    let due = |second| run_of("api", second, Verdict::Pass).due;
    let mut early = settled(&run_of("api", 30, Verdict::Skipped));
    early.settled_through = due(10);
    journal.append(early).await;
    journal.close().await;
    let journal = open(&folder);
    assert_eq!(journal.settled_after("api", due(10)).unwrap(), [due(30)]);
    let mut late = settled(&run_of("api", 20, Verdict::Pass));
    late.settled_through = due(30);
    journal.append(late).await;
    journal.settle().await;
    assert_eq!(journal.ledger().unwrap()[0].ahead, []);
}

#[tokio::test]
async fn fold_and_places_survive_a_restart() {
    let folder = TempDir::new().unwrap();
    let journal = open(&folder);
    let created = journal.created();
    journal.set_fold(7).await;
    journal.set_place("otlp.traces", 42);
    journal.close().await;
    drop(journal);
    let journal = open(&folder);
    assert_eq!((journal.fold(), journal.created()), (7, created));
    assert_eq!(journal.standing("otlp.traces").unwrap().seq, 42);
    assert_eq!(journal.standing("otlp.logs"), None);
    // Places never start again below one that an exporter has reached.
    journal.append(settled(&run_of("api", 1, Verdict::Pass))).await;
    journal.settle().await;
    assert_eq!(journal.state().last_seq, 43);
}

#[tokio::test]
async fn two_journals_on_one_folder_are_refused_by_name() {
    let folder = TempDir::new().unwrap();
    let journal = open(&folder);
    let refused = Journal::open(folder.path(), Limits::default()).unwrap_err().to_string();
    assert!(refused.contains(&folder.path().display().to_string()), "{refused}");
    assert!(refused.contains(&format!("process {}", std::process::id())), "{refused}");
    journal.close().await;
    open(&folder);
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let refused = Journal::open(Path::new("/dev/null/state"), Limits::default()).unwrap_err();
    assert!(refused.to_string().contains("/dev/null/state"), "{refused}");
}

#[tokio::test]
async fn on_a_full_disk_probing_goes_on_and_everything_is_written_when_there_is_room() {
    let folder = TempDir::new().unwrap();
    let journal = open(&folder);
    let (heard, hears) = mpsc::channel();
    journal.tell(Box::new(move |outcomes| heard.send(outcomes.len()).unwrap()));
    on_the_writer(&journal, "PRAGMA max_page_count = 1").await;
    let runs: Vec<_> = (0..40).map(|second| run_of("api", second, Verdict::Fail)).collect();
    for run in &runs {
        journal.append(settled(run)).await;
    }
    journal.settle().await;
    let state = journal.state();
    assert!(state.failing.as_ref().is_some_and(|why| why.contains("full")), "{state:?}");
    assert!(state.backlog > 0, "{state:?}");
    on_the_writer(&journal, "PRAGMA max_page_count = 1000000").await;
    journal.close().await;
    assert_eq!(all(&open(&folder)), runs);
    assert_eq!(open(&folder).ledger().unwrap()[0].planned, 40);
    drop(journal);
    assert_eq!(hears.iter().sum::<usize>(), 40, "each is told once");
}

#[test]
fn what_memory_has_no_room_for_keeps_its_place_in_the_ledger() {
    let mut backlog: std::collections::VecDeque<Job> = (0..100)
        .map(|second| {
            let verdict = if second % 10 == 0 { Verdict::Fail } else { Verdict::Pass };
            Job::Settled { settled: settled(&run_of("api", second, verdict)), told: true }
        })
        .collect();
    let dropped = writer::shorten(&mut backlog, 150_000);
    let counted: Vec<_> = backlog
        .iter()
        .filter_map(|job| match job {
            Job::Count { ending, runs, settled_through, .. } => {
                Some((ending.0, *runs, *settled_through))
            }
            _ => None,
        })
        .collect();
    assert_eq!(counted, [(Verdict::Pass, dropped, run_of("api", 99, Verdict::Pass).due)]);
    let failures = backlog.iter().filter(|job| {
        matches!(job, Job::Settled { settled, .. } if settled.outcome.verdict == Verdict::Fail)
    });
    assert_eq!(failures.count(), 10, "failures go last");
    assert!(backlog.iter().map(Job::weight).sum::<usize>() <= 150_000);
}

#[tokio::test]
async fn a_reader_that_keeps_up_gets_the_very_records_from_memory() {
    let folder = TempDir::new().unwrap();
    let journal = open(&folder);
    journal.set_place("exporter", 0);
    let runs: Vec<_> = (0..10).map(|second| run_of("api", second, Verdict::Pass)).collect();
    for run in &runs {
        journal.append(settled(run)).await;
    }
    journal.settle().await;
    let stretch = journal.at_hand(4, 3, usize::MAX).unwrap();
    assert_eq!(stretch.records.iter().map(|kept| kept.seq).collect::<Vec<_>>(), [5, 6, 7]);
    assert_eq!(stretch.through, 7);
    let Record::Outcome(first) = &stretch.records[0].record else { panic!("not an outcome") };
    assert!(Arc::ptr_eq(first, &runs[4]));
    journal.set_place("exporter", 10);
    assert!(journal.at_hand(4, 3, usize::MAX).is_none(), "what all have taken is let go of");
    assert_eq!(journal.at_hand(10, 3, usize::MAX).unwrap().through, 10);
}

#[tokio::test]
async fn old_passes_go_and_failures_stay() {
    let folder = TempDir::new().unwrap();
    let journal = open(&folder);
    let now = clock::now();
    let hours_ago = |hours: u64| now - Duration::from_hours(hours);
    for (hours, verdict) in
        [(800, Verdict::Fail), (201, Verdict::Pass), (200, Verdict::Fail), (1, Verdict::Pass)]
    {
        journal.append(settled(&run_due("api", hours_ago(hours), verdict))).await;
    }
    journal.close().await;
    // Each turn of the writer is one small step.
    let journal = open(&folder);
    for _ in 0..6 {
        journal.settle().await;
    }
    journal.close().await;
    let left: Vec<_> = all(&open(&folder)).iter().map(|run| (run.verdict, run.due)).collect();
    assert_eq!(left, [(Verdict::Fail, hours_ago(200)), (Verdict::Pass, hours_ago(1))]);
}

#[tokio::test]
async fn the_file_stays_near_its_bound_and_what_an_exporter_loses_is_counted() {
    let folder = TempDir::new().unwrap();
    let limits = Limits { max_bytes: 400_000, ..Limits::default() };
    let (journal, _) = Journal::open(folder.path(), limits).unwrap();
    journal.set_place("down", 0);
    for second in 0..200 {
        journal.append(settled(&run_of("api", second, Verdict::Fail))).await;
        journal.settle().await;
    }
    // Each look at the file ends with a commit; one more makes sure that the last was seen.
    journal.close().await;
    let reader = open(&folder);
    let left = all(&reader);
    let lost = reader.standing("down").unwrap().lost_outcomes;
    assert!(left.len() < 200, "{}", left.len());
    assert_eq!(left.last().unwrap().due, run_of("api", 199, Verdict::Fail).due, "the oldest go");
    assert_eq!(lost, 200 - left.len() as u64);
}

#[tokio::test]
async fn recent_runs_of_one_probe_come_newest_first() {
    let folder = TempDir::new().unwrap();
    let journal = open(&folder);
    for second in 0..20 {
        for probe in ["api", "web"] {
            journal.append(settled(&run_of(probe, second, Verdict::Pass))).await;
        }
    }
    journal.settle().await;
    let recent = journal.recent("api", 3).unwrap();
    let expected: Vec<_> = [19, 18, 17].map(|second| run_of("api", second, Verdict::Pass)).into();
    assert_eq!(
        recent.iter().collect::<Vec<_>>(),
        expected.iter().map(|run| &**run).collect::<Vec<_>>()
    );
    assert_eq!(journal.recent("nobody", 3).unwrap(), []);
}

#[tokio::test]
async fn history_is_read_beside_a_picket_that_writes_and_without_one() {
    let folder = TempDir::new().unwrap();
    assert!(matches!(History::open(folder.path()), Err(JournalError::Absent { .. })));
    let journal = open(&folder);
    journal.append(settled(&run_of("orders-api", 1, Verdict::Pass))).await;
    journal.append(settled(&run_of("orders-api", 2, Verdict::Fail))).await;
    journal.append(settled(&run_of("web", 3, Verdict::Fail))).await;
    journal.settle().await;
    let asked = |filter: Filter| {
        let found = History::open(folder.path()).unwrap().outcomes(&filter).unwrap();
        found.iter().map(|run| run.due).collect::<Vec<_>>()
    };
    let due = |second| run_of("web", second, Verdict::Pass).due;
    let failed = Filter { verdicts: vec![Verdict::Fail], ..Filter::default() };
    assert_eq!(asked(failed.clone()), [due(3), due(2)]);
    journal.close().await;
    assert_eq!(asked(failed), [due(3), due(2)]);
    assert_eq!(
        asked(Filter { probe: Some("orders-*".into()), ..Filter::default() }),
        [due(2), due(1)]
    );
    assert_eq!(asked(Filter { since: Some(due(3)), ..Filter::default() }), [due(3)]);
    assert_eq!(asked(Filter { limit: Some(1), ..Filter::default() }), [due(3)]);
}

#[tokio::test]
async fn members_of_a_matrix_are_told_apart_by_what_differs() {
    let folder = TempDir::new().unwrap();
    let journal = open(&folder);
    for (second, region) in [(1, "eu"), (2, "us")] {
        let mut member = settled(&run_of("api", second, Verdict::Pass));
        member.identity = Arc::from(format!("api\u{1}region\u{2}{region}\u{1}team\u{2}orders"));
        journal.append(member).await;
    }
    journal.settle().await;
    let summaries = journal.summaries(&Filter::default()).unwrap();
    let names: Vec<_> = summaries.iter().map(|summary| summary.probe.as_str()).collect();
    assert_eq!(names, ["api{region=eu}", "api{region=us}"]);
}

/// A file with a few hundred records, as a killed picket leaves it or as a stopped one does.
async fn file_with_runs(folder: &TempDir, killed: bool) -> u64 {
    let journal = open(folder);
    journal.set_place("otlp.traces", 17);
    for second in 0..150 {
        let verdict = if second % 25 == 0 { Verdict::Fail } else { Verdict::Pass };
        journal.append(settled(&run_of("api", second, verdict))).await;
    }
    journal.settle().await;
    if killed {
        on_the_writer(&journal, "PRAGMA wal_checkpoint(PASSIVE)").await;
        for second in 150..170 {
            journal.append(settled(&run_of("api", second, Verdict::Pass))).await;
        }
        journal.settle().await;
        let copy = TempDir::new_in(folder.path()).unwrap();
        for file in [FILE.to_owned(), format!("{FILE}-wal")] {
            std::fs::copy(folder.path().join(&file), copy.path().join(&file)).unwrap();
        }
        journal.close().await;
        for file in [FILE.to_owned(), format!("{FILE}-wal")] {
            std::fs::copy(copy.path().join(&file), folder.path().join(&file)).unwrap();
        }
        return 170;
    }
    journal.close().await;
    150
}

#[derive(Debug, Clone)]
enum Damage {
    Cut(f64),
    Flip(Vec<(f64, u8)>),
    Blank(f64, u16),
}

fn damages() -> impl Strategy<Value = Damage> {
    prop_oneof![
        (0.0..1.0).prop_map(Damage::Cut),
        proptest::collection::vec((0.0..1.0, 1_u8..), 1..8).prop_map(Damage::Flip),
        (0.0..1.0, 1_u16..9000).prop_map(|(at, length)| Damage::Blank(at, length)),
    ]
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a share of a small file"
)]
fn place_in(length: u64, share: f64) -> u64 {
    (length as f64 * share) as u64
}

impl Damage {
    fn done_to(&self, path: &Path) {
        let mut file = OpenOptions::new().read(true).write(true).open(path).unwrap();
        let length = file.metadata().unwrap().len();
        match self {
            Self::Cut(share) => file.set_len(place_in(length, *share)).unwrap(),
            Self::Flip(flips) => {
                for (share, mask) in flips {
                    let at = SeekFrom::Start(place_in(length, *share));
                    let mut byte = [0];
                    file.seek(at).unwrap();
                    file.read_exact(&mut byte).unwrap();
                    file.seek(at).unwrap();
                    file.write_all(&[byte[0] ^ mask]).unwrap();
                }
            }
            Self::Blank(share, length_of_blank) => {
                file.seek(SeekFrom::Start(place_in(length, *share))).unwrap();
                file.write_all(&vec![0; usize::from(*length_of_blank)]).unwrap();
            }
        }
    }
}

#[test]
fn a_damaged_file_is_opened_says_what_is_lost_and_goes_on() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let whole = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    let written = [false, true]
        .map(|killed| runtime.block_on(file_with_runs(&whole[usize::from(killed)], killed)));
    // The same damages each time: what fails here fails for everyone.
    let mut runner = TestRunner::new_with_rng(
        ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() },
        TestRng::deterministic_rng(RngAlgorithm::ChaCha),
    );
    let cases = (damages(), any::<bool>(), any::<bool>());
    let tried = runner.run(&cases, |(damage, killed, in_the_log)| {
        let folder = TempDir::new().unwrap();
        let from = whole[usize::from(killed)].path();
        let log = format!("{FILE}-wal");
        std::fs::copy(from.join(FILE), folder.path().join(FILE)).unwrap();
        if killed {
            std::fs::copy(from.join(&log), folder.path().join(&log)).unwrap();
        }
        let hit = if killed && in_the_log { log.as_str() } else { FILE };
        damage.done_to(&folder.path().join(hit));
        runtime.block_on(survives(&folder, written[usize::from(killed)]));
        Ok(())
    });
    tried.unwrap();
}

/// What must hold of any damaged file: what is read was written, and one more run is kept.
async fn survives(folder: &TempDir, written: u64) {
    let (journal, opened) = Journal::open(folder.path(), Limits::default()).unwrap();
    let mut kept = 0;
    if let Ok(stretch) = journal.read(0, usize::MAX, usize::MAX) {
        for Kept { record, .. } in &stretch.records {
            let Record::Outcome(run) = record else { panic!("no such record was written") };
            let original = run_due("api", run.due, run.verdict);
            assert_eq!(run.run, original.run);
            kept += 1;
        }
    }
    assert!(kept <= written);
    if let Some(recovered) = &opened.recovered {
        assert!(recovered.set_aside.exists());
        assert!(recovered.to_string().contains("journal.damaged-"));
    }
    let next = run_of("api", 5000, Verdict::Fail);
    journal.append(settled(&next)).await;
    journal.settle().await;
    let state = journal.state();
    journal.close().await;
    drop(journal);
    let journal = open(folder);
    assert!(all(&journal).contains(&next), "{:?}, {state:?}", opened.recovered);
}

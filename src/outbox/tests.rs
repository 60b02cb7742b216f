use std::pin::Pin;

use tempfile::TempDir;
use tokio::sync::mpsc;

use super::*;
use crate::journal::{self, Settled};
use crate::outcome::{Ids, Labels, Outcome, Verdict};
use crate::place::Place;

type Answer = Result<Receipt, Refusal>;
type Attempt = (Instant, Vec<u64>);

/// An exporter that answers as a test wants, and tells what it was sent.
struct Fake {
    name: &'static str,
    most: usize,
    answer: Mutex<Box<dyn FnMut(&[Kept]) -> Answer + Send>>,
    attempts: mpsc::Sender<Attempt>,
}

impl fmt::Debug for Fake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl Exporter for Fake {
    fn name(&self) -> &str {
        self.name
    }

    fn wants(&self, record: &Record) -> bool {
        matches!(record, Record::Outcome(_))
    }

    fn most(&self) -> usize {
        self.most
    }

    fn send<'a>(&'a self, batch: &'a [Kept]) -> Pin<Box<dyn Future<Output = Answer> + Send + 'a>> {
        Box::pin(async move {
            let seqs = batch.iter().map(|kept| kept.seq).collect();
            self.attempts.send((Instant::now(), seqs)).await.unwrap();
            held(&self.answer)(batch)
        })
    }
}

fn fake(
    name: &'static str,
    most: usize,
    answer: impl FnMut(&[Kept]) -> Answer + Send + 'static,
) -> (Arc<Fake>, mpsc::Receiver<Attempt>) {
    let (attempts, attempted) = mpsc::channel(10_000);
    (Arc::new(Fake { name, most, answer: Mutex::new(Box::new(answer)), attempts }), attempted)
}

fn taken(_: &[Kept]) -> Answer {
    Ok(Receipt::default())
}

fn later(after: Option<Duration>) -> Answer {
    Err(Refusal::Later { reason: "503".to_owned(), after })
}

fn seqs(attempted: &mut mpsc::Receiver<Attempt>) -> Vec<u64> {
    std::iter::from_fn(|| attempted.try_recv().ok()).flat_map(|(_, seqs)| seqs).collect()
}

/// No test waits for anything but an answer.
const QUICK: Limits = Limits {
    linger: Duration::ZERO,
    most_bytes: 1 << 20,
    first_wait: Duration::from_millis(1),
    longest_wait: Duration::from_millis(4),
    longest_asked: Duration::from_millis(5),
    patience: Duration::from_mins(1),
};
const LONG: Duration = Duration::from_mins(1);

fn open(folder: &TempDir) -> Arc<Journal> {
    Arc::new(Journal::open(folder.path(), journal::Limits::default()).unwrap().0)
}

async fn append(journal: &Journal, seconds: std::ops::Range<u64>) {
    for second in seconds {
        let place = Place { region: "eu-west-1".into(), stage: "prod".into() };
        let due = Timestamp::from_secs(1_800_000_000 + second);
        let ids = Ids::of(&"api".into(), &Labels::default(), &place, due, 0);
        let outcome = Outcome {
            probe: "api".into(),
            kind: "http".into(),
            region: place.region,
            stage: place.stage,
            labels: Labels::default(),
            trace_id: ids.trace_hex(),
            run: ids.run,
            due,
            started: due,
            took: Duration::from_millis(5),
            verdict: Verdict::Pass,
            blame: None,
            error_type: None,
            message: None,
            attempts: 1,
            timeout: Duration::from_secs(5),
            phases: Vec::new(),
            steps: Vec::new(),
            evidence: None,
            changed_from: None,
            traced: true,
            maintenance: false,
        };
        let settled = Settled {
            outcome: Arc::new(outcome),
            identity: Arc::from("api"),
            settled_through: due,
        };
        journal.append(settled).await;
    }
}

#[tokio::test]
async fn an_exporter_that_was_down_gets_everything_in_order_once() {
    let folder = TempDir::new().unwrap();
    let journal = open(&folder);
    let (delivered, mut got) = mpsc::channel(10_000);
    let mut refusals = 5;
    let (exporter, mut attempted) = fake("down", 7, move |batch| {
        if refusals > 0 {
            refusals -= 1;
            return later(None);
        }
        batch.iter().for_each(|kept| delivered.try_send(kept.seq).unwrap());
        taken(batch)
    });
    let outbox = Outbox::start(Arc::clone(&journal), exporter, QUICK);
    append(&journal, 0..50).await;
    attempted.recv().await.unwrap();
    append(&journal, 50..100).await;
    let report = outbox.flush(LONG).await;
    assert_eq!((report.left, &report.failing), (0, &None));
    let got: Vec<u64> = std::iter::from_fn(|| got.try_recv().ok()).collect();
    assert_eq!(got, (1..=100).collect::<Vec<_>>());
    assert_eq!(journal.standing("down").unwrap().seq, 100);
}

#[tokio::test]
async fn an_exporter_that_is_down_holds_up_no_other() {
    let folder = TempDir::new().unwrap();
    let journal = open(&folder);
    let (down, mut tried) = fake("down", 10, |_| later(None));
    let (up, mut attempted) = fake("up", 10, taken);
    let down = Outbox::start(
        Arc::clone(&journal),
        down,
        Limits { linger: Duration::ZERO, ..Limits::default() },
    );
    let up = Outbox::start(Arc::clone(&journal), up, QUICK);
    append(&journal, 0..30).await;
    tried.recv().await.unwrap();
    assert_eq!(up.flush(LONG).await.left, 0);
    assert_eq!(seqs(&mut attempted), (1..=30).collect::<Vec<_>>());
    let state = down.state();
    assert_eq!((state.depth, state.sent), (30, 0));
    let report = down.flush(Duration::ZERO).await;
    assert_eq!((report.left, report.sent), (30, 0));
}

#[tokio::test]
async fn a_batch_that_is_refused_for_good_is_counted_and_stepped_over() {
    let folder = TempDir::new().unwrap();
    let journal = open(&folder);
    append(&journal, 0..30).await;
    journal.settle().await;
    let (exporter, mut attempted) = fake("picky", 10, |batch| {
        if batch.iter().any(|kept| kept.seq == 15) {
            return Err(Refusal::Never { reason: "400".to_owned() });
        }
        Ok(Receipt { rejected: 1, message: Some("one span was too old".to_owned()) })
    });
    let outbox = Outbox::start(Arc::clone(&journal), exporter, QUICK);
    let progress = Arc::clone(&outbox.progress);
    assert_eq!(outbox.flush(LONG).await.left, 0);
    let progress = held(&progress);
    assert_eq!((progress.sent, progress.refused, progress.rejected), (20, 10, 2));
    assert_eq!(seqs(&mut attempted), (1..=30).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_batch_that_is_too_large_is_halved_until_only_the_one_record_is_left_out() {
    let folder = TempDir::new().unwrap();
    let journal = open(&folder);
    append(&journal, 0..8).await;
    journal.settle().await;
    let (exporter, mut attempted) = fake("small", 8, |batch| {
        if batch.iter().any(|kept| kept.seq == 4) {
            return Err(Refusal::TooLarge { reason: "413".to_owned() });
        }
        taken(batch)
    });
    let outbox = Outbox::start(Arc::clone(&journal), exporter, QUICK);
    let progress = Arc::clone(&outbox.progress);
    assert_eq!(outbox.flush(LONG).await.left, 0);
    let tried: Vec<_> =
        std::iter::from_fn(|| attempted.try_recv().ok()).map(|(_, seqs)| seqs).collect();
    let expected: [&[u64]; 7] =
        [&[1, 2, 3, 4, 5, 6, 7, 8], &[1, 2, 3, 4], &[1, 2], &[3, 4], &[3], &[4], &[5, 6, 7, 8]];
    assert_eq!(tried, expected);
    let progress = held(&progress);
    assert_eq!((progress.sent, progress.refused), (7, 1));
}

#[tokio::test]
async fn an_exporter_that_breaks_down_over_a_batch_steps_over_it() {
    let folder = TempDir::new().unwrap();
    let journal = open(&folder);
    append(&journal, 0..3).await;
    journal.settle().await;
    let (exporter, mut attempted) = fake("broken", 1, |batch| {
        assert!(batch[0].seq != 2, "it cannot bear this one");
        taken(batch)
    });
    let outbox = Outbox::start(Arc::clone(&journal), exporter, QUICK);
    assert_eq!(outbox.flush(LONG).await.left, 0);
    assert_eq!(seqs(&mut attempted), [1, 2, 3]);
}

#[tokio::test(start_paused = true)]
async fn the_other_side_says_when_to_come_back_within_a_bound() {
    let folder = TempDir::new().unwrap();
    let journal = open(&folder);
    append(&journal, 0..1).await;
    let mut asked = [120, 86_400].map(Duration::from_secs).into_iter();
    let (exporter, mut attempted) = fake("busy", 10, move |batch| match asked.next() {
        Some(after) => later(Some(after)),
        None => taken(batch),
    });
    let outbox = Outbox::start(Arc::clone(&journal), exporter, Limits::default());
    let (first, _) = attempted.recv().await.unwrap();
    let (second, _) = attempted.recv().await.unwrap();
    let (third, again) = attempted.recv().await.unwrap();
    assert_eq!((second - first).as_secs(), 120);
    assert_eq!((third - second).as_secs(), 300);
    assert_eq!(again, [1], "the same batch again");
    drop(outbox);
}

#[test]
fn waits_double_up_to_a_minute_and_are_drawn() {
    let limits = Limits::default();
    for (put_off, longest) in [(0, 2), (1, 4), (4, 32), (5, 60), (1000, 60)] {
        for _ in 0..100 {
            let wait = limits.wait(put_off, None);
            assert!(
                (Duration::from_secs(1)..=Duration::from_secs(longest)).contains(&wait),
                "{wait:?}"
            );
        }
    }
    assert_eq!(limits.wait(9, Some(Duration::ZERO)), Duration::from_secs(1), "never at once");
}

#[tokio::test]
async fn what_was_taken_is_not_sent_again_after_a_restart() {
    let folder = TempDir::new().unwrap();
    let journal = open(&folder);
    let (exporter, mut attempted) = fake("otlp", 10, taken);
    let outbox = Outbox::start(Arc::clone(&journal), exporter, QUICK);
    append(&journal, 0..15).await;
    assert_eq!(outbox.flush(LONG).await.left, 0);
    assert_eq!(seqs(&mut attempted).len(), 15);
    append(&journal, 15..20).await;
    journal.close().await;
    drop(journal);
    let journal = open(&folder);
    let (exporter, mut attempted) = fake("otlp", 10, taken);
    let outbox = Outbox::start(Arc::clone(&journal), exporter, QUICK);
    assert_eq!(outbox.flush(LONG).await.sent, 5);
    assert_eq!(seqs(&mut attempted), (16..=20).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_new_exporter_begins_with_this_run_of_the_agent_even_if_it_never_answered() {
    let folder = TempDir::new().unwrap();
    let journal = open(&folder);
    append(&journal, 0..5).await;
    journal.close().await;
    drop(journal);
    let journal = open(&folder);
    append(&journal, 5..8).await;
    journal.settle().await;
    let (exporter, _attempted) = fake("new", 10, |_| later(None));
    let outbox = Outbox::start(Arc::clone(&journal), exporter, QUICK);
    outbox.flush(Duration::ZERO).await;
    journal.close().await;
    drop(journal);
    let journal = open(&folder);
    assert_eq!(journal.beginning(), 8);
    let (exporter, mut attempted) = fake("new", 10, taken);
    let outbox = Outbox::start(Arc::clone(&journal), exporter, QUICK);
    outbox.flush(LONG).await;
    assert_eq!(seqs(&mut attempted), [6, 7, 8]);
}

#[tokio::test]
async fn an_exporter_that_hangs_does_not_keep_picket_from_stopping() {
    #[derive(Debug)]
    struct Hangs;
    impl Exporter for Hangs {
        fn name(&self) -> &str {
            "hangs"
        }
        fn wants(&self, _: &Record) -> bool {
            true
        }
        fn most(&self) -> usize {
            10
        }
        fn send<'a>(&'a self, _: &'a [Kept]) -> Pin<Box<dyn Future<Output = Answer> + Send + 'a>> {
            Box::pin(std::future::pending())
        }
    }
    let folder = TempDir::new().unwrap();
    let journal = open(&folder);
    append(&journal, 0..5).await;
    let outbox = Outbox::start(Arc::clone(&journal), Arc::new(Hangs), QUICK);
    let report = outbox.flush(Duration::from_millis(50)).await;
    assert_eq!((report.left, report.sent), (5, 0));
}

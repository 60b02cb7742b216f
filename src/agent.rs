//! Ties the words together: starts, reloads and stops them in the order of the flow.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use opentelemetry_sdk::Resource;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinHandle;
use tracing::{error, info, warn};

use crate::board::{self, Board, Query, Route, Row, Snapshot};
use crate::clock::{self, Timestamp};
use crate::export::Outlet;
use crate::health::{Health, JournalReading, OutboxReading, Seed};
use crate::journal::{Filter, Journal, JournalError, LedgerRow, Limits, Settled};
use crate::journey::{self, Job};
use crate::outbox::{self, Outbox, OutboxHandle, OutboxState};
use crate::outcome::{Outcome, Verdict};
use crate::plan::{Plan, Planned};
use crate::recent::{self, Recent};
use crate::roster::{Admission, Roster};
use crate::schedule::{self, Entry, Schedule, Tick, Timekeeper, Turn};
use crate::secret::Secrets;

/// What the page shows is recalled at the start for so many probes; others show what they do from then on.
const RECALLED: usize = 1000;

/// Due times that went by unseen become records of their own up to so many a probe; the rest is counted.
const MISSED_RECORDS: usize = 100;

/// How long outboxes may flush at the stop.
const FLUSH: Duration = Duration::from_secs(10);

/// What an agent needs besides its plan.
#[derive(Debug)]
pub struct Setup {
    /// The folder of the journal and the ledger.
    pub state: PathBuf,
    /// How long and how much the journal keeps.
    pub limits: Limits,
    /// The most runs under way at once; one that is due beyond that is missed.
    pub most_running: usize,
    /// How long runs may go on after the stop before their steps are cut.
    pub drain: Duration,
    /// Where outcomes go.
    pub outlets: Vec<Arc<dyn Outlet>>,
    /// Where secrets come from.
    pub secrets: Secrets,
    /// Who speaks.
    pub resource: Resource,
}

/// Why an agent could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The journal.
    #[error("cannot open the journal")]
    Journal(#[from] JournalError),
    /// The schedule's thread.
    #[error("cannot start the schedule's thread")]
    Thread(#[source] std::io::Error),
    /// The instruments.
    #[error("cannot set up the instruments: {0}")]
    Instruments(String),
    /// An exporter.
    #[error("cannot set up an exporter: {0}")]
    Exporter(String),
}

/// A running agent.
#[derive(Debug)]
pub struct Agent {
    core: Arc<Core>,
    timekeeper: Mutex<Option<Timekeeper>>,
    outboxes: Outboxes,
    readers: Mutex<Vec<JoinHandle<()>>>,
    started: Timestamp,
}

type Outboxes = Arc<Mutex<Vec<OutboxHandle>>>;

/// What the schedule, the runs and the page share.
#[derive(Debug)]
struct Core {
    journal: Arc<Journal>,
    health: Arc<Health>,
    plan: ArcSwap<Plan>,
    roster: Mutex<Roster>,
    secrets: Arc<Secrets>,
    room: Arc<Semaphore>,
    drain: Duration,
    runtime: Handle,
    /// Held from working out a run's place in the ledger until the journal has taken it: the two keep one order.
    gate: tokio::sync::Mutex<()>,
    fold: AtomicU64,
    cut: watch::Sender<bool>,
    /// Due times that have no outcome in the journal's queue yet.
    open: watch::Sender<u64>,
    recent: Arc<Mutex<Recent>>,
    /// Why the last reload was refused; none when it was not.
    refused: Mutex<Option<String>>,
}

impl Agent {
    /// Starts everything in the order of the flow: journal, outboxes, then the schedule.
    pub async fn start(plan: Plan, setup: Setup) -> Result<Self, StartError> {
        let Setup { state, limits, most_running, drain, outlets, secrets, resource } = setup;
        let started = clock::now();
        let health = Health::new(&plan.place, resource.clone()).map_err(StartError::Instruments)?;
        let recent = Arc::new(Mutex::new(Recent::default()));
        let (journal, opened) = Journal::open(&state, limits)?;
        if let Some(recovered) = opened.recovered {
            warn!("{recovered}");
        }
        journal.tell(told(&health, &recent));
        let journal = Arc::new(journal);
        health.ask_journal({
            let journal = Arc::clone(&journal);
            move || reading_of(&journal)
        });
        let mut roster = Roster::default();
        roster.take_up(&plan);
        health.set_plan(&plan);
        let core = Arc::new(Core {
            journal,
            health,
            plan: ArcSwap::from_pointee(plan),
            roster: Mutex::new(roster),
            secrets: Arc::new(secrets),
            room: Arc::new(Semaphore::new(most_running)),
            drain,
            runtime: Handle::current(),
            gate: tokio::sync::Mutex::new(()),
            fold: AtomicU64::new(0),
            cut: watch::Sender::new(false),
            open: watch::Sender::new(0),
            recent,
            refused: Mutex::new(None),
        });
        core.take_up_ledger(started).await?;
        let (outboxes, readers) = core.start_outlets(&outlets, &resource)?;
        let mut schedule = Schedule::default();
        schedule.replace(entries(&core.plan.load()), started);
        let keeper = Arc::clone(&core);
        let timekeeper = Timekeeper::start(schedule, move |tick| keeper.tick(tick))
            .map_err(StartError::Thread)?;
        core.recall();
        Ok(Self {
            core,
            timekeeper: Mutex::new(Some(timekeeper)),
            outboxes,
            readers: Mutex::new(readers),
            started,
        })
    }

    /// Takes up another plan by difference: what did not change keeps its schedule, its runs and its counts.
    pub fn reload(&self, plan: Plan) {
        let core = &self.core;
        core.roster().take_up(&plan);
        core.health.set_plan(&plan);
        let entries = entries(&plan);
        lock(&core.recent)
            .keep(|identity| entries.iter().any(|entry| &*entry.identity == identity));
        core.plan.store(Arc::new(plan));
        if let Some(timekeeper) = lock(&self.timekeeper).as_ref() {
            timekeeper.change(|schedule| schedule.replace(entries, clock::now()));
        }
        *lock(&core.refused) = None;
        core.health.reloaded(true);
    }

    /// A reload was refused: the plan before it goes on, and everyone is told so.
    pub fn refused_reload(&self, why: &str) {
        *lock(&self.core.refused) = Some(why.to_owned());
        self.core.health.reloaded(false);
    }

    /// Stops in the order of the flow: no new runs, running ones end or are cut, outboxes flush.
    pub async fn stop(&self) {
        let timekeeper = lock(&self.timekeeper).take();
        if let Some(timekeeper) = timekeeper {
            // Joins a thread that ends at once.
            timekeeper.stop();
        }
        self.core.drain().await;
        for reader in std::mem::take(&mut *lock(&self.readers)) {
            reader.abort();
        }
        self.core.keep_metrics().await;
        self.core.journal.settle().await;
        let outboxes = std::mem::take(&mut *lock(&self.outboxes));
        futures_util::future::join_all(outboxes.into_iter().map(|outbox| outbox.flush(FLUSH)))
            .await;
        self.core.journal.close().await;
    }
}

/// What a running agent shows of itself.
impl Board for Agent {
    fn snapshot(&self) -> Snapshot {
        let core = &self.core;
        let plan = core.plan.load();
        let row = |planned: &Arc<Planned>| self.row(planned);
        Snapshot {
            region: plan.place.region.clone(),
            stage: plan.place.stage.clone(),
            version: env!("CARGO_PKG_VERSION"),
            started: self.started,
            now: clock::now(),
            probes: plan.probes.iter().map(row).collect(),
            left_out: plan.left_out.clone(),
            warnings: self.warnings(&plan),
            exporters: lock(&self.outboxes).iter().map(|outbox| route(&outbox.state())).collect(),
        }
    }

    fn metrics(&self, accept: &str) -> (String, String) {
        match self.core.health.page(Some(accept)) {
            Ok((media_type, text)) => (media_type.to_owned(), text),
            Err(error) => ("text/plain; charset=utf-8".to_owned(), format!("# {error}\n")),
        }
    }

    fn ready(&self) -> Result<(), String> {
        match lock(&self.timekeeper).as_ref() {
            Some(_) => Ok(()),
            None => Err("draining: picket is stopping".to_owned()),
        }
    }

    fn outcomes(&self, query: &Query) -> BoxFuture<'_, Result<Vec<Arc<Outcome>>, String>> {
        let journal = Arc::clone(&self.core.journal);
        let Query { probe, limit, failed, since } = query.clone();
        let verdicts = if failed { vec![Verdict::Fail, Verdict::Error] } else { Vec::new() };
        let filter = Filter { since, probe, verdicts, limit: Some(limit) };
        async move {
            let read = tokio::task::spawn_blocking(move || journal.history(&filter)).await;
            let outcomes =
                read.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
            Ok(outcomes.into_iter().map(Arc::new).collect())
        }
        .boxed()
    }

    fn plan(&self) -> serde_json::Value {
        let timekeeper = lock(&self.timekeeper);
        let next = |planned: &Planned| {
            timekeeper.as_ref().and_then(|timekeeper| timekeeper.next_of(&planned.identity()))
        };
        self.core
            .plan
            .load()
            .probes
            .iter()
            .map(|planned| board::planned(planned, next(planned)))
            .collect()
    }
}

impl Agent {
    fn row(&self, planned: &Arc<Planned>) -> Row {
        let identity = planned.identity();
        let (verdict, since) = self.core.roster().last(&identity);
        let seen = lock(&self.core.recent).of(&identity);
        let next_due =
            lock(&self.timekeeper).as_ref().and_then(|timekeeper| timekeeper.next_of(&identity));
        Row {
            name: planned.name.clone(),
            kind: planned.kind,
            labels: Arc::clone(&planned.labels),
            every: planned.every,
            verdict,
            since,
            p50: seen.percentile(0.5),
            p90: seen.percentile(0.9),
            p99: seen.percentile(0.99),
            last: seen.last,
            last_failure: seen.last_failure,
            recent: seen.runs.into(),
            next_due,
            paused: planned.paused,
        }
    }

    fn warnings(&self, plan: &Plan) -> Vec<String> {
        let mut warnings = plan.warnings.clone();
        let journal = self.core.journal.state();
        warnings.extend(journal.failing.map(|why| {
            format!(
                "the journal cannot be written ({why}): {} outcomes wait in memory",
                journal.backlog
            )
        }));
        warnings.extend(lock(&self.core.refused).as_ref().map(|why| {
            format!("the last reload was refused and the plan before it goes on: {why}")
        }));
        warnings
    }
}

fn outbox_reading(state: &OutboxState) -> OutboxReading {
    OutboxReading {
        exporter: state.name.clone(),
        depth: state.depth,
        oldest: state.oldest_age,
        sent: state.sent,
        rejected: state.rejected + state.refused,
        lost: state.lost,
    }
}

fn route(state: &OutboxState) -> Route {
    Route {
        name: state.name.clone(),
        depth: state.depth,
        oldest_age: state.oldest_age,
        failing: state.failing.clone(),
    }
}

fn reading_of(journal: &Journal) -> JournalReading {
    let state = journal.state();
    JournalReading {
        backlog: u64::try_from(state.backlog).unwrap_or(u64::MAX),
        failing: state.failing.is_some(),
        dropped: state.dropped,
        bytes: state.bytes,
    }
}

impl Core {
    fn roster(&self) -> MutexGuard<'_, Roster> {
        lock(&self.roster)
    }

    /// What the ledger remembers: totals go on where they were, and the time since is missed.
    async fn take_up_ledger(self: &Arc<Self>, now: Timestamp) -> Result<(), StartError> {
        self.fold.store(self.journal.fold(), Ordering::Relaxed);
        let plan = self.plan.load_full();
        let mut seeds = Vec::new();
        let mut gaps = Vec::new();
        let mut rows: BTreeMap<_, _> = self
            .journal
            .ledger()?
            .into_iter()
            .map(|row| (Arc::clone(&row.identity), row))
            .collect();
        for planned in &plan.probes {
            let Some(row) = rows.remove(planned.identity().as_str()) else { continue };
            let LedgerRow { identity, planned: total, counts, .. } = row.clone();
            seeds.push(Seed { identity, planned: total, counts });
            self.roster().remember(&row.identity, row.settled_through, row.last);
            let offset = schedule::offset_of(&row.identity, &plan.place.region, planned.every);
            let between = schedule::dues_between(
                row.settled_through,
                now,
                planned.every,
                offset,
                MISSED_RECORDS,
            );
            let (count, dues) = without(between, &row.ahead);
            gaps.push((row.identity, planned, count, dues));
        }
        self.health.seed(self.journal.created(), seeds);
        for (identity, planned, count, dues) in gaps {
            self.miss(&identity, planned, now, count, &dues, "picket was not running").await;
        }
        Ok(())
    }

    /// One outbox an exporter, and one reader of the instruments an outlet.
    fn start_outlets(
        self: &Arc<Self>,
        outlets: &[Arc<dyn Outlet>],
        resource: &Resource,
    ) -> Result<(Outboxes, Vec<JoinHandle<()>>), StartError> {
        let mut exporters = Vec::new();
        let mut readers = Vec::new();
        for outlet in outlets {
            exporters.extend(outlet.exporters(resource).map_err(StartError::Exporter)?);
            readers.extend(
                outlet
                    .metrics_every()
                    .map(|every| tokio::spawn(read_metrics(Arc::clone(self), every))),
            );
        }
        let names: Vec<_> = exporters.iter().map(|exporter| exporter.name()).collect();
        self.journal.set_exporters(&names);
        let start = |exporter| {
            Outbox::start(Arc::clone(&self.journal), exporter, outbox::Limits::default())
        };
        let outboxes = Arc::new(Mutex::new(exporters.into_iter().map(start).collect::<Vec<_>>()));
        self.health.ask_outboxes({
            let outboxes = Arc::clone(&outboxes);
            move || lock(&outboxes).iter().map(|outbox| outbox_reading(&outbox.state())).collect()
        });
        Ok((outboxes, readers))
    }

    /// Fills what the page shows from the journal, beside everything else that starts.
    fn recall(self: &Arc<Self>) {
        let core = Arc::clone(self);
        self.runtime.spawn_blocking(move || {
            let plan = core.plan.load_full();
            for planned in plan.probes.iter().take(RECALLED) {
                let identity: Arc<str> = planned.identity().into();
                let Ok(outcomes) = core.journal.recent(&identity, recent::MOST) else { return };
                lock(&core.recent).recall(&identity, outcomes);
            }
        });
    }

    /// Called on the schedule's thread: it hands everything on and waits for nothing.
    fn tick(self: &Arc<Self>, tick: Tick) {
        match tick {
            Tick::Due(turns) => turns.into_iter().for_each(|turn| self.turn(turn)),
            Tick::SetBack(by) => {
                warn!(
                    seconds = by.as_secs_f64(),
                    "the wall clock was set back: times of day come again"
                );
                let fold = self.fold.fetch_add(1, Ordering::Relaxed) + 1;
                let core = Arc::clone(self);
                self.runtime.spawn(async move { core.journal.set_fold(fold).await });
            }
        }
    }

    fn turn(self: &Arc<Self>, turn: Turn) {
        match turn {
            Turn::Run { identity, due } => self.due(identity, due),
            Turn::Missed { identity, after, until } => {
                let Some(planned) = self.roster().passed_by(&identity, until) else { return };
                let region = &self.plan.load().place.region;
                let offset = schedule::offset_of(&identity, region, planned.every);
                let (count, dues) =
                    schedule::dues_between(after, until, planned.every, offset, MISSED_RECORDS);
                self.open.send_modify(|open| *open += 1);
                let core = Arc::clone(self);
                self.runtime.spawn(async move {
                    core.miss(
                        &identity,
                        &planned,
                        clock::now(),
                        count,
                        &dues,
                        "the host slept, or its clock was set forward",
                    )
                    .await;
                    core.open.send_modify(|open| *open -= 1);
                });
            }
        }
    }

    fn due(self: &Arc<Self>, identity: Arc<str>, due: Timestamp) {
        let admission = self.roster().admit(&identity, due);
        let (planned, unrun) = match admission {
            Admission::Gone => return,
            Admission::Skip(planned, why) => (planned, Some((Verdict::Skipped, why))),
            Admission::Run(planned) => (planned, None),
        };
        self.health.planned(&identity);
        self.open.send_modify(|open| *open += 1);
        let core = Arc::clone(self);
        if let Some((verdict, why)) = unrun {
            self.runtime
                .spawn(async move { core.do_not_run(identity, &planned, due, verdict, why).await });
            return;
        }
        match Arc::clone(&self.room).try_acquire_owned() {
            Ok(room) => {
                self.runtime.spawn(async move { core.run(identity, planned, due, room).await });
            }
            Err(_) => {
                self.roster().ended(&identity);
                self.runtime.spawn(async move {
                    core.do_not_run(
                        identity,
                        &planned,
                        due,
                        Verdict::Missed,
                        "no room: as many runs are under way as may be",
                    )
                    .await;
                });
            }
        }
    }

    async fn run(
        self: Arc<Self>,
        identity: Arc<str>,
        planned: Arc<Planned>,
        due: Timestamp,
        room: OwnedSemaphorePermit,
    ) {
        let place = self.plan.load().place.clone();
        let fold = self.fold.load(Ordering::Relaxed);
        let job = Job {
            planned: Arc::clone(&planned),
            place: place.clone(),
            due,
            fold,
            secrets: Arc::clone(&self.secrets),
            cut: self.cut.subscribe(),
        };
        // Each look is guarded already; this catches what a defect between the looks would cost: the ledger's sum.
        let outcome =
            AssertUnwindSafe(journey::run(job)).catch_unwind().await.unwrap_or_else(|_| {
                journey::panicked(&planned, &place, due, fold, clock::now(), "outside of a look")
            });
        drop(room);
        self.roster().ended(&identity);
        self.settle(identity, outcome).await;
    }

    async fn do_not_run(
        &self,
        identity: Arc<str>,
        planned: &Planned,
        due: Timestamp,
        verdict: Verdict,
        why: &str,
    ) {
        let place = self.plan.load().place.clone();
        let outcome = journey::unrun(
            planned,
            &place,
            due,
            self.fold.load(Ordering::Relaxed),
            clock::now(),
            verdict,
            why,
        );
        self.settle(identity, outcome).await;
    }

    /// Hands an outcome to the journal, in the order in which the ledger is worked out.
    async fn settle(&self, identity: Arc<str>, mut outcome: Outcome) {
        let gate = self.gate.lock().await;
        let (due, verdict) = (outcome.due, outcome.verdict);
        let (settled_through, changed_from) =
            self.roster().settle(&identity, due, verdict, outcome.started);
        outcome.changed_from = changed_from;
        self.journal
            .append(Settled { outcome: Arc::new(outcome), identity, settled_through })
            .await;
        drop(gate);
        self.open.send_modify(|open| *open -= 1);
    }

    /// Writes down due times that went by: the newest as records, the others as a count.
    async fn miss(
        &self,
        identity: &Arc<str>,
        planned: &Planned,
        now: Timestamp,
        count: u64,
        dues: &[Timestamp],
        why: &str,
    ) {
        let uncounted = count - u64::try_from(dues.len()).unwrap_or(count);
        let place = self.plan.load().place.clone();
        let fold = self.fold.load(Ordering::Relaxed);
        let _gate = self.gate.lock().await;
        if uncounted > 0 {
            let through = self.roster().through(identity).unwrap_or(now);
            let through =
                dues.first().map_or(through, |first| through.min(*first - Duration::from_nanos(1)));
            self.health.count_missed(identity, uncounted);
            self.journal.count_missed(Arc::clone(identity), uncounted, through).await;
        }
        for due in dues {
            self.health.planned(identity);
            let outcome = journey::unrun(planned, &place, *due, fold, now, Verdict::Missed, why);
            let (settled_through, _) = self.roster().settle(identity, *due, Verdict::Missed, now);
            self.journal
                .append(Settled {
                    outcome: Arc::new(outcome),
                    identity: Arc::clone(identity),
                    settled_through,
                })
                .await;
        }
    }

    /// Waits until every due time has its outcome; runs that take too long are cut, and their `finally` still runs.
    async fn drain(&self) {
        let mut open = self.open.subscribe();
        if tokio::time::timeout(self.drain, open.wait_for(|open| *open == 0)).await.is_ok() {
            return;
        }
        warn!(runs = self.roster().running(), "cutting the runs that are still under way");
        self.cut.send_replace(true);
        let longest =
            self.plan.load().probes.iter().map(|planned| planned.timeout).max().unwrap_or_default();
        if tokio::time::timeout(longest, open.wait_for(|open| *open == 0)).await.is_err() {
            error!(
                runs = self.roster().running(),
                "runs did not end within their own timeout: they are missed"
            );
        }
    }

    /// Reads the instruments and has the reading kept. With thousands of probes that takes long: not on
    /// the threads that start runs.
    async fn keep_metrics(&self) {
        let health = Arc::clone(&self.health);
        let read = tokio::task::spawn_blocking(move || health.payloads()).await;
        match read.unwrap_or_else(|error| Err(error.to_string())) {
            Ok(payloads) => {
                for payload in payloads {
                    self.journal.append_metrics(payload, clock::now()).await;
                }
            }
            Err(error) => error!(%error, "the instruments could not be read"),
        }
    }
}

async fn read_metrics(core: Arc<Core>, every: Duration) {
    loop {
        let now = clock::now();
        let next = schedule::next_due(now, every, Duration::ZERO);
        tokio::time::sleep(next.since(now)).await;
        core.keep_metrics().await;
    }
}

/// What happens once an outcome is kept: the instruments, the page and the log hear of it.
fn told(
    health: &Arc<Health>,
    recent: &Arc<Mutex<Recent>>,
) -> Box<dyn Fn(&[Arc<Outcome>]) + Send + Sync> {
    let (health, recent) = (Arc::clone(health), Arc::clone(recent));
    Box::new(move |outcomes| {
        let mut recent = lock(&recent);
        for outcome in outcomes {
            let identity = outcome.identity().into();
            health.settle(outcome);
            recent.note(&identity, outcome);
            log(outcome);
        }
    })
}

/// One line for each run that did not pass, and for each change.
fn log(outcome: &Outcome) {
    let Outcome { probe, verdict, blame, error_type, message, changed_from, run, .. } = outcome;
    let message = message.as_deref().unwrap_or_default();
    let (blame, error_type) =
        (blame.map(|blame| blame.as_str()), error_type.map(|error| error.as_str()));
    match (verdict, changed_from) {
        (Verdict::Fail | Verdict::Error, _) => {
            warn!(%probe, %verdict, blame, error_type, %run, %message, changed = changed_from.is_some(), "run did not pass");
        }
        (Verdict::Pass | Verdict::Warn, Some(before)) => {
            info!(%probe, %verdict, %before, %run, %message, "verdict changed");
        }
        (Verdict::Pass | Verdict::Warn | Verdict::Skipped | Verdict::Missed, _) => {}
    }
}

/// The due times that are not among those settled ahead of their turn.
fn without((count, dues): (u64, Vec<Timestamp>), ahead: &[Timestamp]) -> (u64, Vec<Timestamp>) {
    let settled = u64::try_from(ahead.len()).unwrap_or(u64::MAX);
    let dues = dues.into_iter().filter(|due| !ahead.contains(due)).collect();
    (count.saturating_sub(settled), dues)
}

fn entries(plan: &Plan) -> Vec<Entry> {
    let entry = |planned: &Arc<Planned>| {
        let identity: Arc<str> = planned.identity().into();
        let offset = schedule::offset_of(&identity, &plan.place.region, planned.every);
        Entry { identity, fingerprint: planned.fingerprint, every: planned.every, offset }
    };
    plan.probes.iter().map(entry).collect()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

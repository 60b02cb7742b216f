//! Ties the words together: starts, reloads and stops them in the order of the flow.

use std::collections::HashSet;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::FutureExt;
use opentelemetry_sdk::Resource;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinHandle;
use tracing::{error, info, warn};

use crate::clock::{self, Offset, Timestamp};
use crate::export::Outlet;
use crate::failure::{Blame, ErrorType};
use crate::health::{Health, JournalReading, OutboxReading};
use crate::journal::{Journal, JournalError, Limits, Settled, Told};
use crate::journey::{self, Job};
use crate::lag;
use crate::outbox::{self, Outbox, OutboxHandle, OutboxState};
use crate::outcome::{CLOCK_OFFSET, Fact, Outcome, Verdict};
use crate::plan::{Plan, Planned};
use crate::recent::{self, Recent};
use crate::roster::{Admission, Roster};
use crate::schedule::{self, Entry, Schedule, Tick, Timekeeper, Turn};
use crate::secret::Secrets;

mod board;
mod ledger;

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
        let planned: HashSet<_> = entries.iter().map(|entry| Arc::clone(&entry.identity)).collect();
        lock(&core.recent).keep(|identity| planned.contains(identity));
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
        let Ok(room) = Arc::clone(&self.room).try_acquire_owned() else {
            self.roster().ended(&identity);
            let why = "no room: as many runs are under way as may be";
            self.runtime.spawn(async move {
                core.do_not_run(identity, &planned, due, Verdict::Missed, why).await;
            });
            return;
        };
        self.runtime.spawn(core.run(identity, planned, due, room));
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
        let read = tokio::task::spawn_blocking(move || {
            lag::give_way();
            health.payloads()
        })
        .await;
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
fn told(health: &Arc<Health>, recent: &Arc<Mutex<Recent>>) -> Told {
    let (health, recent) = (Arc::clone(health), Arc::clone(recent));
    let offset = Mutex::new(Offset::default());
    Box::new(move |outcomes| {
        let mut recent = lock(&recent);
        for outcome in outcomes {
            let identity = outcome.identity().into();
            health.settle(outcome);
            if let Some(seconds) = told_offset(outcome).and_then(|told| lock(&offset).note(told)) {
                health.clock_offset(seconds);
            }
            recent.note(&identity, outcome);
            log(outcome);
        }
    })
}

/// What an answer told of this host's clock.
fn told_offset(outcome: &Outcome) -> Option<f64> {
    outcome.steps.iter().find_map(|step| match step.facts.get(CLOCK_OFFSET)? {
        Fact::Number(seconds) => Some(*seconds),
        Fact::Bool(_) | Fact::Integer(_) | Fact::Text(_) | Fact::List(_) => None,
    })
}

/// One line for each run that did not pass, and for each change.
fn log(outcome: &Outcome) {
    let Outcome { probe, verdict, blame, error_type, message, changed_from, run, .. } = outcome;
    let message = message.as_deref().unwrap_or_default();
    let (blame, error_type) = (blame.map(Blame::as_str), error_type.map(ErrorType::as_str));
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

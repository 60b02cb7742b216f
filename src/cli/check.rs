//! Every planned probe once, now: what a person, or a pipeline, asks before trusting a file.

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;

use clap::{Args, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, mpsc, watch};

use super::{BAD, Files, GOOD, UNJUDGED, junit, load, refuse, runtime, table};
use crate::clock;
use crate::config::glob;
use crate::journey::{self, Job};
use crate::outcome::{Outcome, Verdict};
use crate::place::Place;
use crate::plan::{Plan, Planned};
use crate::secret::Secrets;

/// Probes under way at once: enough to be quick, few enough that they do not measure one another.
const AT_ONCE: usize = 32;

#[derive(Args, Debug)]
pub(super) struct Options {
    #[command(flatten)]
    files: Files,
    /// How to show the outcomes: json is one object a line, as they end
    #[arg(long, value_enum, default_value_t = Form::Table)]
    format: Form,
    /// Only the probes whose name fits, * and ? standing for anything
    #[arg(long, value_name = "GLOB")]
    only: Vec<String>,
    /// Run each so many times, one after the other
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    repeat: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    Table,
    Json,
    Junit,
}

pub(super) fn main(options: &Options) -> u8 {
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => return refuse(&format!("cannot start: {error}")),
    };
    runtime.block_on(check(options))
}

async fn check(options: &Options) -> u8 {
    let plan = match load(&options.files).await {
        Ok(loaded) => loaded.plan,
        Err(mistakes) => return refuse(&mistakes),
    };
    for warning in &plan.warnings {
        writeln!(io::stderr(), "warning: {warning}").ok();
    }
    let wanted = |planned: &&Arc<Planned>| {
        options.only.is_empty()
            || options.only.iter().any(|only| glob::fits(only, planned.name.as_str()))
    };
    let probes: Vec<_> = plan.probes.iter().filter(wanted).cloned().collect();
    if probes.is_empty() {
        return refuse(&nothing(options, &plan));
    }
    let outcomes = run_all(&plan, &probes, options).await;
    show(options.format, &outcomes);
    answer(&outcomes)
}

/// Why there is nothing to run.
fn nothing(options: &Options, plan: &Plan) -> String {
    let asked = |name: &str| {
        options.only.is_empty() || options.only.iter().any(|only| glob::fits(only, name))
    };
    let left_out: Vec<_> = plan
        .left_out
        .iter()
        .filter(|(name, _)| asked(name.as_str()))
        .map(|(name, why)| format!("  {name}: {why}"))
        .collect();
    if !left_out.is_empty() {
        return format!("error: no probe is planned here:\n{}", left_out.join("\n"));
    }
    if !options.only.is_empty() && !plan.probes.is_empty() {
        let mut names: Vec<_> = plan.probes.iter().map(|planned| planned.name.as_str()).collect();
        names.dedup();
        return format!(
            "error: no probe fits --only {}: there are {}",
            options.only.join(" "),
            names.join(", ")
        );
    }
    "error: there is no probe to run: name a probe file, or an agent's file with --config"
        .to_owned()
}

/// Runs them, and shows each as it ends where that is asked for. In the order of the plan.
async fn run_all(plan: &Plan, probes: &[Arc<Planned>], options: &Options) -> Vec<Outcome> {
    let secrets = Arc::new(Secrets::here());
    let room = Arc::new(Semaphore::new(AT_ONCE));
    let (stop, cut) = watch::channel(false);
    let stopping = tokio::spawn(stop_on_signal(stop));
    // Full: the runs wait until the terminal has taken what is there.
    let (ended, mut outcomes) = mpsc::channel(AT_ONCE);
    for (place, planned) in probes.iter().enumerate() {
        let round = Round {
            planned: Arc::clone(planned),
            plan_place: plan.place.clone(),
            secrets: Arc::clone(&secrets),
            cut: cut.clone(),
        };
        tokio::spawn(repeat(round, place, options.repeat, Arc::clone(&room), ended.clone()));
    }
    drop(ended);
    let mut progress = Progress::new(probes.len(), options.repeat);
    let mut done = Vec::new();
    while let Some((place, outcome)) = outcomes.recv().await {
        progress.show(&outcome);
        if options.format == Form::Json {
            print_line(&outcome);
        }
        done.push((place, outcome));
    }
    progress.clear();
    stopping.abort();
    done.sort_by_key(|(place, outcome)| (*place, outcome.due));
    done.into_iter().map(|(_, outcome)| outcome).collect()
}

/// One probe's runs.
struct Round {
    planned: Arc<Planned>,
    plan_place: Place,
    secrets: Arc<Secrets>,
    cut: watch::Receiver<bool>,
}

async fn repeat(
    round: Round,
    place: usize,
    times: u32,
    room: Arc<Semaphore>,
    ended: mpsc::Sender<(usize, Outcome)>,
) {
    for _ in 0..times {
        let permit = room.acquire().await;
        let outcome = once(&round).await;
        drop(permit);
        if ended.send((place, outcome)).await.is_err() {
            return;
        }
    }
}

async fn once(round: &Round) -> Outcome {
    let Round { planned, plan_place, secrets, cut } = round;
    let due = clock::now();
    if planned.paused {
        return journey::unrun(planned, plan_place, due, 0, due, Verdict::Skipped, "paused");
    }
    let job = Job {
        planned: Arc::clone(planned),
        place: plan_place.clone(),
        due,
        fold: 0,
        secrets: Arc::clone(secrets),
        cut: cut.clone(),
    };
    journey::run(job).await
}

/// The first signal cuts the steps; `finally` still runs, so that nothing is left behind.
async fn stop_on_signal(stop: watch::Sender<bool>) {
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    stop.send_replace(true);
    // Kept open: a run that watches it must not take its end for silence.
    std::future::pending::<()>().await;
}

/// The line that tells on a terminal how far it is; nowhere else.
struct Progress {
    total: usize,
    done: usize,
    shown: bool,
}

impl Progress {
    fn new(probes: usize, times: u32) -> Self {
        let total = probes.saturating_mul(usize::try_from(times).unwrap_or(usize::MAX));
        Self { total, done: 0, shown: io::stderr().is_terminal() && total > 1 }
    }

    fn show(&mut self, outcome: &Outcome) {
        self.done += 1;
        if self.shown {
            write!(
                io::stderr(),
                "\r\x1b[2K{}/{}  {} {}",
                self.done,
                self.total,
                outcome.probe,
                outcome.verdict
            )
            .ok();
        }
    }

    fn clear(&self) {
        if self.shown {
            write!(io::stderr(), "\r\x1b[2K").ok();
        }
    }
}

fn print_line(outcome: &Outcome) {
    if let Ok(line) = serde_json::to_string(outcome) {
        // A reader that has gone away is no reason to fail.
        writeln!(io::stdout(), "{line}").ok();
    }
}

fn show(format: Form, outcomes: &[Outcome]) {
    let text = match format {
        Form::Table => table::render(outcomes, table::width(), table::colour()),
        Form::Junit => junit::junit(outcomes),
        Form::Json => return,
    };
    write!(io::stdout(), "{text}").ok();
}

/// The exit code: some fail, or else some could not be judged, or else all is good.
fn answer(outcomes: &[Outcome]) -> u8 {
    let any = |verdict| outcomes.iter().any(|outcome| outcome.verdict == verdict);
    if any(Verdict::Fail) {
        BAD
    } else if any(Verdict::Error) || outcomes.iter().any(was_cut) {
        UNJUDGED
    } else {
        GOOD
    }
}

/// A run that was cut off says nothing of its target.
fn was_cut(outcome: &Outcome) -> bool {
    outcome.verdict == Verdict::Skipped && !outcome.steps.is_empty()
}

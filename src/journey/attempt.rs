//! One attempt at a step: its time limit, what picket itself lost, and the judgement.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::expect::{Expectation, Judgement};
use crate::failure::{ErrorType, Failure};
use crate::lag::{self, Lagging};
use crate::outcome::{Attempt, Fact, StepOutcome};
use crate::period;
use crate::plan::Step;
use crate::reading::Reading;
use crate::template::Scope;

/// The time that is left, and who may cut it short.
pub(super) struct Budget<'a> {
    pub(super) origin: Instant,
    pub(super) end: Instant,
    pub(super) cut: Option<&'a mut watch::Receiver<bool>>,
}

/// How one attempt ended.
pub(super) enum Ended {
    Passed,
    /// A soft expectation did not hold.
    Warned(Failure),
    Failed(Failure),
    /// Picket stops.
    Cut,
}

/// Tries a step as often as it may be tried; every attempt but the last is told in `earlier`.
pub(super) async fn attempts(
    step: &Step,
    place: &str,
    scope: &mut Scope,
    budget: &mut Budget<'_>,
    told: &mut StepOutcome,
) -> (Ended, Reading) {
    let began = Instant::now();
    let end = step.within.map_or(budget.end, |within| budget.end.min(began + within));
    loop {
        told.attempts += 1;
        let mut reading = Reading::new(format!("{place}/try/{}", told.attempts), budget.origin);
        if began >= budget.end {
            let failure = Failure::new(
                ErrorType::JourneyTimeout,
                "the journey's time was used up before this step",
            );
            return (Ended::Failed(failure), reading);
        }
        let started = Instant::now();
        let ended = attempt(step, scope, budget, end, &mut reading).await;
        let again = match &ended {
            Ended::Failed(failure) => {
                told.attempts < step.attempts.max
                    && tried_again(&step.attempts.on, failure.error_type)
            }
            Ended::Passed | Ended::Warned(_) | Ended::Cut => false,
        };
        let next = Instant::now() + step.attempts.wait;
        let (true, Ended::Failed(failure)) = (again && next < end, &ended) else {
            return (ended, reading);
        };
        told.earlier.push(Attempt {
            start: started.saturating_duration_since(budget.origin),
            took: started.elapsed(),
            error_type: failure.error_type,
            message: failure.message.clone(),
        });
        sleep_until(next).await;
    }
}

/// Whether an attempt that broke like this is followed by another.
fn tried_again(on: &[String], error_type: ErrorType) -> bool {
    let name = error_type.as_str();
    let group = name.split('.').next().unwrap_or(name);
    let network = ["dns", "connect", "tls", "send", "response"].contains(&group);
    on.iter().any(|wanted| {
        wanted == name || wanted == group || wanted == "any" || (network && wanted == "network")
    })
}

/// One attempt under its time limit, judged.
async fn attempt(
    step: &Step,
    scope: &mut Scope,
    budget: &mut Budget<'_>,
    end: Instant,
    reading: &mut Reading,
) -> Ended {
    let began = reading.began;
    let mut lag = Duration::ZERO;
    let look = AssertUnwindSafe(step.action.look(scope, reading)).catch_unwind();
    let look = Lagging::new(look, &mut lag);
    let seen = match &mut budget.cut {
        None => timeout_at(end, look).await,
        Some(cut) => tokio::select! {
            biased;
            seen = timeout_at(end, look) => seen,
            () = stopping(cut) => return Ended::Cut,
        },
    };
    let failure = match seen {
        Ok(Ok(Ok(()))) => None,
        Ok(Ok(Err(failure))) => Some(failure),
        Ok(Err(panic)) => Some(Failure::new(
            ErrorType::AgentPanic,
            format!("a defect of picket: {}", what_panicked(&*panic)),
        )),
        Err(_) => Some(timed_out(reading, end.saturating_duration_since(began), lag)),
    };
    if lag >= lag::TELLING {
        reading.fact("picket.lag", lag.as_secs_f64());
    }
    if let Some(mut failure) = failure {
        if reading.timeline.open().is_some() {
            reading.timeline.broke(failure.error_type);
        }
        close_requests(reading, failure.error_type);
        failure.message = scope.clean(&failure.message);
        return Ended::Failed(failure);
    }
    reading.timeline.end();
    judge(step, scope, reading, lag)
}

/// Resolves when picket stops; never, if nobody can say so any more.
async fn stopping(cut: &mut watch::Receiver<bool>) {
    if cut.wait_for(|cut| *cut).await.is_err() {
        std::future::pending::<()>().await;
    }
}

fn what_panicked(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no message").to_owned()
}

/// The phase that was open tells where the time ran out; if picket itself used up most of it, that tells more.
fn timed_out(reading: &Reading, limit: Duration, lag: Duration) -> Failure {
    if lag >= lag::TELLING && lag > limit / 2 {
        let (lag, limit) = (period::show(lag), period::show(limit));
        let message = format!("picket itself was late by {lag} of the {limit} that there were");
        return Failure::new(ErrorType::AgentOverloaded, message);
    }
    let limit = period::show(Duration::from_millis(
        u64::try_from(limit.as_micros().div_ceil(1000)).unwrap_or(u64::MAX),
    ));
    match reading.timeline.open() {
        Some(phase) => Failure::new(phase.timeout(), format!("no end of `{phase}` within {limit}")),
        None => Failure::new(ErrorType::ResponseTimeout, format!("no end within {limit}")),
    }
}

/// Requests that were under way when the attempt ended end with it.
fn close_requests(reading: &mut Reading, error: ErrorType) {
    let elapsed = reading.timeline.elapsed();
    if let Some(request) =
        reading.requests.last_mut().filter(|request| request.error_type.is_none())
    {
        request.took = request.took.max(elapsed.saturating_sub(request.start));
        request.error_type = Some(error);
    }
}

/// What must hold, what is kept, and what should hold, in this order.
pub(super) fn judge(step: &Step, scope: &mut Scope, reading: &mut Reading, lag: Duration) -> Ended {
    if let Some(failure) = first_broken(&step.expect, scope, reading) {
        let failure = unless_late(step, scope, reading, lag, failure);
        let failure = step.action.lay_blame(reading, failure);
        // The request whose answer was not the expected one has failed, however well it travelled.
        if let Some(request) = reading.requests.last_mut() {
            request.error_type.get_or_insert(failure.error_type);
        }
        return Ended::Failed(failure);
    }
    for captured in &step.capture {
        match captured.from.find(reading) {
            Ok(value) => scope.capture(&captured.name, value, captured.secret),
            Err(mut failure) => {
                failure.message =
                    scope.clean(&format!("capture `{}`: {}", captured.name, failure.message));
                return Ended::Failed(failure);
            }
        }
    }
    match first_broken(&step.warn, scope, reading) {
        Some(failure) => Ended::Warned(failure),
        None => Ended::Passed,
    }
}

/// A latency that would have been good without what picket itself lost says nothing of the target.
fn unless_late(
    step: &Step,
    scope: &Scope,
    reading: &mut Reading,
    lag: Duration,
    broken: Failure,
) -> Failure {
    let Some(Fact::Number(latency)) = reading.facts.get("latency").cloned() else { return broken };
    if broken.error_type != ErrorType::ExpectLatency || lag < lag::TELLING {
        return broken;
    }
    reading.fact("latency", (latency - lag.as_secs_f64()).max(0.0));
    let holds = |expectation: &Expectation| expectation.judge(reading, scope) == Judgement::Holds;
    let in_time = step.expect.iter().all(holds);
    reading.fact("latency", latency);
    if !in_time {
        return broken;
    }
    let message =
        format!("{}; picket itself was late by {} of it", broken.message, period::show(lag));
    Failure::new(ErrorType::AgentOverloaded, message)
}

/// The first expectation that does not hold decides; the messages of the others stand beside it.
fn first_broken(
    expectations: &[Expectation],
    scope: &Scope,
    reading: &mut Reading,
) -> Option<Failure> {
    let mut first: Option<Failure> = None;
    for expectation in expectations {
        let Judgement::Broken(failure) = expectation.judge(reading, scope) else { continue };
        match &mut first {
            None => {
                reading.evidence.expectation = Some(scope.clean(expectation.text()));
                first = Some(failure);
            }
            Some(first) => {
                first.message.push_str("; ");
                first.message.push_str(&failure.message);
            }
        }
    }
    first
}

//! One run: steps in order, captures, the time budget, and `finally`.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::clock::{Anchor, Timestamp};
use crate::failure::{Blame, ErrorType, Failure};
use crate::outcome::{Evidence, Ids, Outcome, StepOutcome, Verdict};
use crate::place::Place;
use crate::plan::{Planned, Step, Trace, When};
use crate::reading::Reading;
use crate::secret::Secrets;
use crate::template::Scope;

use attempt::{Budget, Ended, attempts};

mod attempt;

/// What one run needs to know.
#[derive(Debug)]
pub struct Job {
    /// The probe.
    pub planned: Arc<Planned>,
    /// Where this picket stands.
    pub place: Place,
    /// When the run is due.
    pub due: Timestamp,
    /// How often the wall clock had been set back.
    pub fold: u64,
    /// Where secrets come from.
    pub secrets: Arc<Secrets>,
    /// Turns true when picket stops and the run must come to its end: `finally` still runs.
    pub cut: watch::Receiver<bool>,
}

/// Runs a probe once. It never takes longer than the probe's timeout, whatever the target does.
pub async fn run(job: Job) -> Outcome {
    let Job { planned, place, due, fold, secrets, mut cut } = job;
    let anchor = Anchor::now();
    let ids = Ids::of(&planned.name, &planned.labels, &place, due, fold);
    let traced = traced(planned.trace, &ids);
    let mut scope = Scope::new(planned.name.clone(), ids, secrets);
    scope.sampled = traced;
    scope.evidence = planned.evidence;
    let mut record = Record { steps: Vec::new(), worst: None, evidence: None };
    let end = anchor.steady + planned.timeout;

    let steps_end = end - planned.reserve;
    let mut budget = Budget { origin: anchor.steady, end: steps_end, cut: Some(&mut cut) };
    for (index, step) in planned.steps.iter().enumerate() {
        if !run_step(step, &format!("step/{index}"), &mut scope, &mut budget, &mut record).await {
            break;
        }
    }
    // `finally` has its own time and is not cut: what was made is cleared away also when picket stops.
    let mut budget = Budget { origin: anchor.steady, end, cut: None };
    for (index, step) in planned.finally.iter().enumerate() {
        run_step(step, &format!("finally/{index}"), &mut scope, &mut budget, &mut record).await;
    }
    record.into_outcome(&planned, place, due, anchor, &scope, traced)
}

/// What is known of a run that was planned and did not run.
pub fn unrun(
    planned: &Planned,
    place: &Place,
    due: Timestamp,
    fold: u64,
    now: Timestamp,
    verdict: Verdict,
    why: &str,
) -> Outcome {
    let ids = Ids::of(&planned.name, &planned.labels, place, due, fold);
    Outcome {
        probe: planned.name.clone(),
        kind: Cow::Borrowed(planned.kind),
        region: place.region.clone(),
        stage: place.stage.clone(),
        labels: Arc::clone(&planned.labels),
        trace_id: ids.trace_hex(),
        run: ids.run,
        due,
        started: now.max(due),
        took: Duration::ZERO,
        verdict,
        blame: (verdict == Verdict::Missed).then_some(Blame::Agent),
        error_type: None,
        message: Some(why.to_owned()),
        attempts: 0,
        timeout: planned.timeout,
        phases: Vec::new(),
        steps: Vec::new(),
        evidence: None,
        changed_from: None,
        traced: false,
        maintenance: in_maintenance(planned, due),
    }
}

/// A run that a defect of ours ended: it is told as such, and the other probes go on.
pub fn panicked(
    planned: &Planned,
    place: &Place,
    due: Timestamp,
    fold: u64,
    now: Timestamp,
    what: &str,
) -> Outcome {
    let mut outcome = unrun(
        planned,
        place,
        due,
        fold,
        now,
        Verdict::Error,
        &format!("a defect of picket ended this run: {what}"),
    );
    outcome.blame = Some(Blame::Agent);
    outcome.error_type = Some(ErrorType::AgentPanic);
    outcome.traced = told_anyway(planned.trace, outcome.verdict);
    outcome
}

fn traced(trace: Trace, ids: &Ids) -> bool {
    match trace {
        Trace::Always => true,
        Trace::Never => false,
        Trace::Ratio(share) => {
            // The last bytes of the id are as good as drawn: all agents and replays agree on the choice.
            let [.., a, b, c, d] = ids.trace;
            f64::from(u32::from_be_bytes([a, b, c, d])) < share * f64::from(u32::MAX)
        }
    }
}

/// A failure is told also where few runs are, but not where none is to be.
fn told_anyway(trace: Trace, verdict: Verdict) -> bool {
    trace != Trace::Never && matches!(verdict, Verdict::Fail | Verdict::Error)
}

fn in_maintenance(planned: &Planned, due: Timestamp) -> bool {
    planned.maintenance.iter().any(|(from, to)| (*from..*to).contains(&due))
}

/// The run as it comes together.
struct Record {
    steps: Vec<StepOutcome>,
    /// The failure that decides the run's verdict: the first one.
    worst: Option<(Failure, Verdict)>,
    evidence: Option<Box<Evidence>>,
}

/// Runs one step and records it. Says whether the next step may run.
async fn run_step(
    step: &Step,
    place: &str,
    scope: &mut Scope,
    budget: &mut Budget<'_>,
    record: &mut Record,
) -> bool {
    let began = Instant::now();
    let finally = place.starts_with("finally");
    let mut told = StepOutcome {
        name: step.name.clone(),
        kind: Cow::Borrowed(step.kind.name),
        verdict: Verdict::Skipped,
        blame: None,
        error_type: None,
        message: None,
        finally,
        start: began.saturating_duration_since(budget.origin),
        took: Duration::ZERO,
        attempts: 0,
        earlier: Vec::new(),
        phases: Vec::new(),
        requests: Vec::new(),
        facts: std::collections::BTreeMap::new(),
    };
    match holds(step.when.as_ref(), scope) {
        Ok(true) => {}
        Ok(false) => {
            told.message = Some("its `when` does not hold".to_owned());
            record.steps.push(told);
            return true;
        }
        Err(missing) => {
            told.message = Some(missing.message);
            record.steps.push(told);
            return finally;
        }
    }
    let (ended, mut reading) = attempts(step, place, scope, budget, &mut told).await;
    told.took = began.elapsed();
    told.phases = reading.timeline.take();
    told.requests = std::mem::take(&mut reading.requests);
    told.facts = std::mem::take(&mut reading.facts);
    let (verdict, failure) = match ended {
        Ended::Passed => (Verdict::Pass, None),
        Ended::Warned(failure) => (Verdict::Warn, Some(failure)),
        Ended::Failed(failure) if failure.judged() => (Verdict::Fail, Some(failure)),
        Ended::Failed(failure) => (Verdict::Error, Some(failure)),
        Ended::Cut => (
            Verdict::Skipped,
            Some(Failure::new(ErrorType::JourneyTimeout, "drain: picket stopped while this ran")),
        ),
    };
    told.verdict = verdict;
    if let Some(failure) = failure {
        note(&mut told, record, verdict, failure, reading, scope);
    }
    record.steps.push(told);
    matches!(verdict, Verdict::Pass | Verdict::Warn)
}

/// Writes a failure into the step, and into the run if it is the first that counts for more than a warning.
fn note(
    told: &mut StepOutcome,
    record: &mut Record,
    verdict: Verdict,
    failure: Failure,
    reading: Reading,
    scope: &Scope,
) {
    told.message = Some(failure.message.clone());
    if verdict != Verdict::Skipped {
        told.error_type = Some(failure.error_type);
        told.blame = Some(failure.blame);
    }
    // The first failure decides; it outweighs the warnings that came before it.
    let decides = match &record.worst {
        None => true,
        Some((_, before)) => *before == Verdict::Warn && verdict != Verdict::Warn,
    };
    if decides {
        record.evidence = scope
            .evidence
            .then(|| Box::new(reading.into_evidence(scope)))
            .filter(|evidence| !evidence.is_empty());
        record.worst = Some((failure, verdict));
    }
}

/// Whether a step's condition holds; a condition that needs a capture that was not made cannot be told.
fn holds(when: Option<&When>, scope: &Scope) -> Result<bool, Failure> {
    match when {
        None => Ok(true),
        Some(When::Captured(name)) => Ok(scope.has(name)),
        Some(When::NotCaptured(name)) => Ok(!scope.has(name)),
        Some(When::Same(left, right, same)) => {
            Ok((left.render(scope)? == right.render(scope)?) == *same)
        }
    }
}

impl Record {
    fn into_outcome(
        self,
        planned: &Planned,
        place: Place,
        due: Timestamp,
        anchor: Anchor,
        scope: &Scope,
        traced: bool,
    ) -> Outcome {
        let Self { steps, worst, evidence } = self;
        let verdict = worst.as_ref().map_or(Verdict::Pass, |(_, verdict)| *verdict);
        let failure = worst.map(|(failure, _)| failure);
        let named = verdict != Verdict::Skipped;
        let decided = steps.iter().find(|step| step.verdict == verdict);
        let attempts = decided.map_or(1, |step| step.attempts.max(1));
        let message = failure.as_ref().map(|failure| match decided {
            Some(step) if planned.steps.len() + planned.finally.len() > 1 => {
                format!("{}: {}", step.name, failure.message)
            }
            Some(_) | None => failure.message.clone(),
        });
        let mut phases: Vec<_> =
            steps.iter().flat_map(|step| step.phases.iter().cloned()).collect();
        phases.sort_by_key(|timed| timed.start);
        Outcome {
            probe: planned.name.clone(),
            kind: Cow::Borrowed(planned.kind),
            region: place.region,
            stage: place.stage,
            labels: Arc::clone(&planned.labels),
            run: Arc::clone(&scope.ids.run),
            trace_id: scope.ids.trace_hex(),
            due,
            started: anchor.wall,
            took: anchor.elapsed(),
            verdict,
            blame: failure.as_ref().filter(|_| named).map(|failure| failure.blame),
            error_type: failure.as_ref().filter(|_| named).map(|failure| failure.error_type),
            message,
            attempts,
            timeout: planned.timeout,
            phases,
            steps,
            evidence,
            changed_from: None,
            traced: traced || told_anyway(planned.trace, verdict),
            maintenance: in_maintenance(planned, due),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use schemars::JsonSchema;
    use serde::Deserialize;

    use super::attempt::judge;
    use super::*;
    use crate::expect::{Capture, Expectation, Shape, Subject, Type};
    use crate::outcome::{Fact, Labels};
    use crate::phase::Phase;
    use crate::plan::{Attempts, Captured};
    use crate::probe::{Action, Ground, Kind, Probe};
    use crate::setting::Refused;

    /// A step that does what it is told.
    #[derive(Debug, Deserialize, JsonSchema)]
    struct Told {
        does: String,
    }

    impl Probe for Told {
        const KIND: &'static str = "told";
        const ABOUT: &'static str = "does what it is told";
        const EXAMPLE: &'static str = "";
        const SUBJECTS: &'static [Subject] = &[Subject {
            name: "status",
            shape: Shape::Plain,
            values: Type::Number,
            error_type: ErrorType::ExpectStatus,
            about: "",
        }];
        const DEFAULT_EXPECT: &'static [&'static str] = &[];

        fn ready(&mut self, _: &Ground) -> Result<(), Refused> {
            Ok(())
        }

        async fn look(&self, _: &Scope, reading: &mut Reading) -> Result<(), Failure> {
            match self.does.as_str() {
                "hang" => {
                    reading
                        .timeline
                        .time(Phase::Wait, std::future::pending::<Result<(), Failure>>())
                        .await
                }
                "panic" => panic!("as it was told"),
                "refuse" => Err(Failure::new(ErrorType::ConnectRefused, "refused")),
                status => {
                    reading.fact("status", status.parse::<i64>().unwrap());
                    Ok(())
                }
            }
        }
    }

    static TOLD: Kind = Kind::of::<Told>();

    fn step(name: &str, does: &str) -> Step {
        let action: Arc<dyn Action> = Arc::new(Told { does: does.to_owned() });
        let good = Expectation::compile("status == 200", Told::SUBJECTS).unwrap();
        Step {
            name: name.to_owned(),
            kind: &TOLD,
            action,
            expect: if does.parse::<i64>().is_ok() { vec![good] } else { Vec::new() },
            warn: Vec::new(),
            capture: Vec::new(),
            when: None,
            within: None,
            attempts: Attempts {
                max: 1,
                wait: Duration::from_secs(1),
                on: vec!["network".to_owned()],
            },
        }
    }

    fn probe(steps: Vec<Step>, finally: Vec<Step>) -> Planned {
        Planned {
            name: "a".into(),
            kind: "journey",
            labels: Labels::default(),
            source: ("a.toml".into(), 1),
            fingerprint: 1,
            every: Duration::from_mins(1),
            timeout: Duration::from_secs(8),
            reserve: if finally.is_empty() { Duration::ZERO } else { Duration::from_secs(2) },
            overlap: 1,
            steps,
            finally,
            evidence: true,
            trace: Trace::Always,
            paused: false,
            maintenance: Vec::new(),
            alarm: BTreeMap::new(),
        }
    }

    async fn outcome(planned: Planned) -> Outcome {
        let (_stop, cut) = watch::channel(false);
        let place = Place { region: "r".into(), stage: "s".into() };
        let due = crate::clock::now();
        run(Job { planned: Arc::new(planned), place, due, fold: 0, secrets: Arc::default(), cut })
            .await
    }

    fn verdicts(outcome: &Outcome) -> Vec<(&str, Verdict)> {
        outcome.steps.iter().map(|step| (step.name.as_str(), step.verdict)).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_step_that_hangs_is_cut_off_and_finally_runs_in_its_own_time() {
        let outcome = outcome(probe(
            vec![step("one", "200"), step("two", "hang"), step("three", "200")],
            vec![step("clean", "200")],
        ))
        .await;
        assert_eq!(
            verdicts(&outcome),
            [("one", Verdict::Pass), ("two", Verdict::Fail), ("clean", Verdict::Pass)]
        );
        assert_eq!(outcome.error_type, Some(ErrorType::ResponseTimeout));
        assert_eq!(outcome.took.as_secs(), 6, "eight seconds, two of them reserved");
        assert!(outcome.message.unwrap().starts_with("two: no end of `wait` within"));
        assert_eq!(outcome.phases[0].error, Some(ErrorType::ResponseTimeout));
    }

    #[tokio::test(start_paused = true)]
    async fn a_finally_that_hangs_ends_with_the_timeout() {
        let outcome = outcome(probe(vec![step("one", "hang")], vec![step("clean", "hang")])).await;
        assert_eq!(outcome.took.as_secs(), 8);
        assert_eq!(verdicts(&outcome), [("one", Verdict::Fail), ("clean", Verdict::Fail)]);
    }

    #[tokio::test]
    async fn a_panic_is_an_error_of_the_agent_and_finally_still_runs() {
        let outcome = outcome(probe(vec![step("one", "panic")], vec![step("clean", "200")])).await;
        assert_eq!((outcome.verdict, outcome.blame), (Verdict::Error, Some(Blame::Agent)));
        assert_eq!(outcome.error_type, Some(ErrorType::AgentPanic));
        assert_eq!(outcome.steps.len(), 2);
    }

    #[tokio::test]
    async fn a_soft_expectation_that_does_not_hold_is_a_warning_with_its_type() {
        let mut soft = step("one", "200");
        soft.warn = vec![Expectation::compile("status == 201", Told::SUBJECTS).unwrap()];
        let outcome = outcome(probe(vec![soft, step("two", "200")], Vec::new())).await;
        assert_eq!(verdicts(&outcome), [("one", Verdict::Warn), ("two", Verdict::Pass)]);
        assert_eq!(
            (outcome.verdict, outcome.error_type),
            (Verdict::Warn, Some(ErrorType::ExpectStatus))
        );
    }

    #[tokio::test(start_paused = true)]
    async fn every_attempt_is_recorded_and_a_broken_expectation_is_not_tried_again() {
        let mut refused = step("one", "refuse");
        refused.attempts.max = 3;
        let told = outcome(probe(vec![refused], Vec::new())).await;
        assert_eq!((told.attempts, told.steps[0].earlier.len()), (3, 2));
        let mut wrong = step("one", "503");
        wrong.attempts.max = 3;
        let told = outcome(probe(vec![wrong], Vec::new())).await;
        assert_eq!((told.attempts, told.verdict), (1, Verdict::Fail));
    }

    #[tokio::test]
    async fn a_capture_that_finds_nothing_fails_the_step_and_names_itself() {
        let mut step = step("one", "refuse");
        step.action = Arc::new(Told { does: "200".to_owned() });
        let subjects = &[Subject {
            name: "json",
            shape: Shape::Json,
            values: Type::Any,
            error_type: ErrorType::ExpectJson,
            about: "",
        }];
        step.capture = vec![Captured {
            name: "order".to_owned(),
            from: Capture::compile("json.id", subjects).unwrap(),
            secret: false,
        }];
        let outcome = outcome(probe(vec![step], Vec::new())).await;
        assert_eq!(outcome.verdict, Verdict::Fail);
        assert!(outcome.message.unwrap().starts_with("capture `order`"));
    }

    #[tokio::test]
    async fn a_failure_is_traced_also_where_few_runs_are_and_never_where_none_is() {
        for (trace, does, traced) in [
            (Trace::Ratio(0.0), "200", false),
            (Trace::Ratio(0.0), "503", true),
            (Trace::Never, "503", false),
            (Trace::Never, "panic", false),
            (Trace::Always, "200", true),
        ] {
            let planned = Planned { trace, ..probe(vec![step("one", does)], Vec::new()) };
            assert_eq!(outcome(planned).await.traced, traced, "{trace:?} {does}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_cuts_the_step_and_finally_still_runs() {
        let (stop, cut) = watch::channel(false);
        let place = Place { region: "r".into(), stage: "s".into() };
        let planned = Arc::new(probe(vec![step("one", "hang")], vec![step("clean", "200")]));
        let job =
            Job { planned, place, due: crate::clock::now(), fold: 0, secrets: Arc::default(), cut };
        let running = tokio::spawn(run(job));
        tokio::task::yield_now().await;
        stop.send_replace(true);
        let outcome = running.await.unwrap();
        assert_eq!(verdicts(&outcome), [("one", Verdict::Skipped), ("clean", Verdict::Pass)]);
        assert_eq!((outcome.verdict, outcome.error_type), (Verdict::Skipped, None));
        assert!(outcome.message.unwrap().contains("drain"));
    }

    #[test]
    fn a_latency_that_only_picket_spoiled_is_not_told_of_the_target() {
        static LATENCY: &[Subject] = &[Subject {
            name: "latency",
            shape: Shape::Plain,
            values: Type::Length,
            error_type: ErrorType::ExpectLatency,
            about: "",
        }];
        let mut step = step("slow", "hang");
        step.expect = vec![Expectation::compile("latency < 100ms", LATENCY).unwrap()];
        let place = Place { region: "r".into(), stage: "s".into() };
        let ids = Ids::of(&"p".into(), &Labels::default(), &place, Timestamp::from_secs(1), 0);
        let mut scope = Scope::new("p".into(), ids, Arc::new(Secrets::default()));
        let mut told = |latency: f64, lag: u64| {
            let mut reading = Reading::new("step/0".to_owned(), Instant::now());
            reading.fact("latency", latency);
            match judge(&step, &mut scope, &mut reading, Duration::from_millis(lag)) {
                Ended::Failed(failure) => (failure.error_type, reading.facts["latency"].clone()),
                Ended::Passed | Ended::Warned(_) | Ended::Cut => panic!("it is too slow"),
            }
        };
        assert_eq!(told(0.13, 40), (ErrorType::AgentOverloaded, Fact::Number(0.13)));
        assert_eq!(told(0.13, 20).0, ErrorType::ExpectLatency);
        assert_eq!(told(0.103, 4).0, ErrorType::ExpectLatency);
    }
}

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use unicode_width::UnicodeWidthStr;

use super::*;
use crate::clock::Timestamp;
use crate::failure::{Blame, ErrorType};
use crate::outcome::{Labels, StepOutcome};

pub(in crate::cli) fn outcome(name: &str, verdict: Verdict) -> Outcome {
    let broken = match verdict {
        Verdict::Fail => {
            Some((ErrorType::ExpectStatus, Blame::Target, "status in 200..299  (was 503)"))
        }
        Verdict::Warn => Some((ErrorType::ExpectLatency, Blame::Target, "latency < 1s  (was 2s)")),
        Verdict::Error => Some((ErrorType::AgentNoFiles, Blame::Agent, "no file descriptor left")),
        Verdict::Pass | Verdict::Skipped | Verdict::Missed => None,
    };
    Outcome {
        probe: name.into(),
        kind: "http".into(),
        region: "local".into(),
        stage: "prod".into(),
        labels: Labels::default(),
        run: "7h3run".into(),
        trace_id: "6920000000112233445566778899aabb".into(),
        due: Timestamp::from_secs(1_795_435_200),
        started: Timestamp::from_secs(1_795_435_200),
        took: Duration::from_micros(48_120),
        verdict,
        blame: broken.map(|(_, blame, _)| blame),
        error_type: broken.map(|(kind, _, _)| kind),
        message: broken.map(|(_, _, message)| message.to_owned()),
        attempts: 1,
        timeout: Duration::from_secs(5),
        phases: Vec::new(),
        steps: Vec::new(),
        evidence: None,
        changed_from: None,
        traced: true,
        maintenance: false,
    }
}

fn every_verdict() -> Vec<Outcome> {
    vec![
        outcome("orders-api", Verdict::Pass),
        outcome("checkout", Verdict::Warn),
        outcome("storefront-eu", Verdict::Fail),
        outcome("quota", Verdict::Error),
        outcome("billing", Verdict::Skipped),
    ]
}

#[test]
fn a_wide_table_has_the_reason_beside_the_probe() {
    insta::assert_snapshot!(render(&every_verdict(), 100, false), @r"
    ✓ pass     orders-api       48.1ms
    ! warn     checkout         48.1ms  latency < 1s  (was 2s)
                                        expect.latency, blame: target
    ✗ fail     storefront-eu    48.1ms  status in 200..299  (was 503)
                                        expect.status, blame: target
    ? error    quota            48.1ms  no file descriptor left
                                        agent.no_files, blame: agent
    - skipped  billing               -
    5 probes: 1 pass, 1 warn, 1 fail, 1 error, 1 skipped
    ");
}

#[test]
fn a_narrow_table_has_the_reason_under_the_probe() {
    insta::assert_snapshot!(render(&every_verdict(), 60, false), @r"
    ✓ pass     orders-api       48.1ms
    ! warn     checkout         48.1ms
               latency < 1s  (was 2s)
               expect.latency, blame: target
    ✗ fail     storefront-eu    48.1ms
               status in 200..299  (was 503)
               expect.status, blame: target
    ? error    quota            48.1ms
               no file descriptor left
               agent.no_files, blame: agent
    - skipped  billing               -
    5 probes: 1 pass, 1 warn, 1 fail, 1 error, 1 skipped
    ");
}

#[test]
fn the_step_that_is_named_is_the_one_that_decided() {
    let step = |name: &str, verdict| {
        let Outcome { kind, verdict, blame, error_type, message, took, attempts, phases, .. } =
            outcome(name, verdict);
        StepOutcome {
            name: name.to_owned(),
            kind,
            verdict,
            blame,
            error_type,
            message,
            finally: false,
            start: Duration::ZERO,
            took,
            attempts,
            earlier: Vec::new(),
            phases,
            requests: Vec::new(),
            facts: BTreeMap::new(),
        }
    };
    let mut run = outcome("order-flow", Verdict::Fail);
    run.steps = vec![step("place", Verdict::Warn), step("processed", Verdict::Fail)];
    assert_eq!(reason(&run), "expect.status, blame: target, step processed");
}

#[test]
fn no_line_is_wider_than_the_terminal_and_no_word_is_lost() {
    let mut long = outcome("a-probe-with-a-long-name-that-nobody-shortens", Verdict::Fail);
    long.message = Some("json.status == 'ok'  (was \"日本語の長い値 and more\") ".repeat(4));
    for width in [32, 40, 60, 80, 120, 200] {
        let others = every_verdict();
        let runs: Vec<_> = std::iter::once(&long).chain(&others).cloned().collect();
        let table = render(&runs, width, false);
        for line in table.lines() {
            assert!(line.width() <= width, "{width}: {line:?} has {}", line.width());
        }
        let letters = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>();
        assert!(letters(&table).contains(&letters(long.message.as_deref().unwrap())), "{table}");
        assert!(letters(&table).contains(long.probe.as_str()), "{table}");
    }
}

#[test]
fn a_target_has_no_power_over_the_terminal() {
    let mut hostile = outcome("api", Verdict::Fail);
    hostile.message = Some("body contains 'x'  (was \"\u{1b}[2J\nfake pass\u{202e}\")".to_owned());
    let table = render(&[hostile], 100, false);
    assert!(!table.contains('\u{1b}') && !table.contains('\u{202e}'));
    assert!(table.contains(r"\u{1b}[2J\nfake pass"), "{table}");
}

#[test]
fn colour_is_only_added_never_relied_on() {
    let runs = every_verdict();
    let mut coloured = render(&runs, 100, true);
    for code in
        ["\u{1b}[32m", "\u{1b}[33m", "\u{1b}[1;31m", "\u{1b}[1;35m", "\u{1b}[2m", "\u{1b}[0m"]
    {
        coloured = coloured.replace(code, "");
    }
    assert_eq!(coloured, render(&runs, 100, false));
}

#[test]
fn repeated_runs_are_counted_as_runs() {
    let runs: Vec<_> = (0..3).map(|_| Arc::new(outcome("api", Verdict::Pass))).collect();
    assert!(render(&runs, 80, false).ends_with("3 runs of 1 probe: 3 pass\n"));
}

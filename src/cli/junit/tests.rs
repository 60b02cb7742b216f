use std::sync::Arc;

use super::*;
use crate::cli::table::tests::outcome;

#[test]
fn a_report_has_one_case_an_outcome_and_says_what_broke() {
    let mut runs: Vec<_> = Verdict::ALL.iter().map(|verdict| outcome("api", *verdict)).collect();
    for (run, region) in runs.iter_mut().zip(["a", "b", "c", "d", "e", "f"]) {
        run.labels = Arc::new([("region".to_owned(), region.to_owned())].into());
    }
    let mut xml = String::new();
    write_report(&mut xml, &runs.iter().collect::<Vec<_>>(), "host").unwrap();
    for shown in [
        "tests=\"6\" failures=\"1\" errors=\"1\" skipped=\"2\" time=\"0.288720\" timestamp=\"2026-11-23T12:00:00\" hostname=\"host\"",
        "<testcase name=\"api{region=c}\" classname=\"http\" time=\"0.048120\">",
        "<failure type=\"expect.status\" message=\"status in 200..299  (was 503)\">status in 200..299  (was 503)\nerror type: expect.status\nblame: target</failure>",
        "<error type=\"agent.no_files\"",
        "<skipped message=\"missed\"/>",
        "<system-out>latency &lt; 1s  (was 2s)",
        "<property name=\"trace_id\" value=\"6920000000112233445566778899aabb\"/>",
        "<property name=\"label.region\" value=\"c\"/>",
    ] {
        assert!(xml.contains(shown), "{shown} is not in\n{xml}");
    }
}

#[test]
fn hostile_text_leaves_the_report_well_formed() {
    let mut run = outcome("a\"<b>&", Verdict::Fail);
    run.message = Some("]]> \u{0}\u{1b}\u{ffff} \"<script>\" 'x'\nnext".to_owned());
    let body = "ä".repeat(BODY + 1);
    run.evidence = Some(Box::new(Evidence { body: Some(body), ..Evidence::default() }));
    let xml = junit(&[run]);
    assert!(xml.contains("name=\"a&quot;&lt;b&gt;&amp;\""));
    assert!(
        xml.contains("]]&gt; \u{fffd}\u{fffd}\u{fffd} &quot;&lt;script&gt;&quot; 'x'&#10;next")
    );
    assert!(xml.contains("ä … (cut)"));
    assert!(!xml.chars().any(|c| c.is_control() && c != '\n'));
}

//! What files come to: defaults, matrices, places, and every example that the repository shows.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use picket::config::{self, Mistakes};
use picket::expect::Expectation;
use picket::place::Place;
use picket::plan::{self, Loaded, Plan, Trace, When};

fn place() -> Place {
    Place { region: "eu-west-1".into(), stage: "prod".into() }
}

fn load(text: &str) -> Result<Loaded, Mistakes> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("probes.toml");
    fs::write(&file, text).unwrap();
    plan::plan(&config::read(None, &[file]), &place())
}

fn planned(text: &str) -> Plan {
    load(text).unwrap_or_else(|mistakes| panic!("{mistakes}")).plan
}

#[test]
fn what_nobody_says_has_a_default() {
    let plan = planned(
        "[probe.a]\nhttp = { url = \"https://example.com/\" }\n[probe.b]\nevery = \"2s\"\nhttp = { url = \"https://example.com/\" }\n",
    );
    let [a, b] = plan.probes.as_slice() else { panic!("{plan:?}") };
    assert_eq!((a.every, a.timeout), (Duration::from_mins(1), Duration::from_secs(10)));
    assert_eq!(b.timeout, Duration::from_secs(2));
    assert_eq!((a.kind, a.overlap, a.evidence, a.paused), ("http", 1, true, false));
    assert_eq!((a.trace, a.reserve), (Trace::Always, Duration::ZERO));
    let [step] = a.steps.as_slice() else { panic!("{:?}", a.steps) };
    assert_eq!((step.name.as_str(), step.attempts.max), ("a", 1));
    assert_eq!(
        step.expect.iter().map(Expectation::text).collect::<Vec<_>>(),
        ["status in 200..299"]
    );
}

#[test]
fn an_empty_list_of_expectations_expects_nothing() {
    let plan = planned("[probe.a]\nhttp = { url = \"https://example.com/\" }\nexpect = []\n");
    assert!(plan.probes[0].steps[0].expect.is_empty());
}

#[test]
fn a_file_has_defaults_for_its_probes_and_labels_are_joined() {
    let plan = planned(
        r#"
[agent]
labels = { team = "orders", where = "${region}" }
[defaults]
every   = "30s"
timeout = "5s"
labels  = { tier = "1", team = "shop" }
expect  = ["status == 204"]
alarm   = { down = "3 of 5" }
[probe.a]
http    = { url = "https://example.com/" }
timeout = "3s"
labels  = { tier = "2" }
alarm   = { slow = "p99 > 800ms for 10m" }
[probe.b]
http   = { url = "https://example.com/" }
expect = ["status == 200"]
"#,
    );
    let [a, b] = plan.probes.as_slice() else { panic!("{plan:?}") };
    assert_eq!(
        (a.every, a.timeout, b.timeout),
        (Duration::from_secs(30), Duration::from_secs(3), Duration::from_secs(5))
    );
    let labels = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    assert_eq!(*a.labels, labels(&[("team", "shop"), ("tier", "2"), ("where", "eu-west-1")]));
    assert_eq!(a.alarm, labels(&[("down", "3 of 5"), ("slow", "p99 > 800ms for 10m")]));
    assert_eq!(a.steps[0].expect[0].text(), "status == 204");
    assert_eq!(b.steps[0].expect[0].text(), "status == 200");
}

#[test]
fn a_matrix_makes_one_probe_of_each_combination_and_its_region_is_the_targets() {
    let plan = planned(
        r#"
[probe.a]
matrix = { region = ["us-east-1", "eu-west-1"], version = ["v1", 2, true] }
http   = { url = "https://${region}.example.com/${version}" }
expect = ["header[\"x\"] == '${region}'"]
"#,
    );
    let members: Vec<_> = plan
        .probes
        .iter()
        .map(|probe| (probe.labels["region"].as_str(), probe.labels["version"].as_str()))
        .collect();
    let wanted = [
        ("us-east-1", "v1"),
        ("us-east-1", "2"),
        ("us-east-1", "true"),
        ("eu-west-1", "v1"),
        ("eu-west-1", "2"),
        ("eu-west-1", "true"),
    ];
    assert_eq!(members, wanted);
    assert_eq!(plan.probes[0].steps[0].expect[0].text(), "header[\"x\"] == 'us-east-1'");
    let mut fingerprints: Vec<_> = plan.probes.iter().map(|probe| probe.fingerprint).collect();
    fingerprints.dedup();
    assert_eq!(fingerprints.len(), 6);
}

#[test]
fn a_probe_for_another_place_is_left_out_and_needs_nothing_that_is_only_there() {
    let plan = planned(
        r#"
[probe.here]
only = { region = "eu-*", stage = ["gamma", "prod"] }
http = { url = "https://example.com/" }
[probe.there]
only = { stage = "alpha" }
http = { url = "https://${env:PICKET_ONLY_IN_ALPHA}/", headers = { a = "${secret:picket-only-in-alpha}" } }
"#,
    );
    assert_eq!(plan.probes.len(), 1);
    let [(name, reason)] = plan.left_out.as_slice() else { panic!("{:?}", plan.left_out) };
    assert_eq!((name.as_str(), reason.as_str()), ("there", "stage prod is not one of alpha"));
}

#[test]
fn a_journey_passes_captures_on_and_reserves_time_for_its_end() {
    let plan = planned(
        r#"
[probe.flow]
timeout = "40s"
[[probe.flow.step]]
name    = "place"
http    = { method = "POST", url = "https://example.com/orders" }
capture = { order = "json.id", token = { from = "json.token", secret = true } }
attempts = { max = 3, wait = "200ms", on = ["dns", "throttled"] }
[[probe.flow.step]]
http   = { url = "https://example.com/orders/${order}" }
expect = ["json.id == '${order}'"]
within = "5s"
[[probe.flow.finally]]
name = "delete"
http = { method = "DELETE", url = "https://example.com/orders/${order}" }
when = "order exists"
"#,
    );
    let flow = &plan.probes[0];
    assert_eq!((flow.kind, flow.reserve), ("journey", Duration::from_secs(10)));
    let names: Vec<_> =
        flow.steps.iter().chain(&flow.finally).map(|step| step.name.as_str()).collect();
    assert_eq!(names, ["place", "step-2", "delete"]);
    let secret: Vec<_> =
        flow.steps[0].capture.iter().map(|kept| (kept.name.as_str(), kept.secret)).collect();
    assert_eq!(secret, [("order", false), ("token", true)]);
    assert_eq!(
        (flow.steps[0].attempts.max, flow.steps[1].within),
        (3, Some(Duration::from_secs(5)))
    );
    assert_eq!(flow.finally[0].when, Some(When::Captured("order".to_owned())));
}

#[test]
fn a_fingerprint_is_of_what_was_written_and_not_of_where() {
    let one = planned(
        "[probe.a]\nhttp = { url = \"https://example.com/\" }\n[probe.b]\nhttp = { url = \"https://example.com/b\" }\n",
    );
    let two = planned(
        "# moved\n\n[probe.b]\nhttp = { url = \"https://example.com/c\" }\n[probe.a]\nhttp.url = \"https://example.com/\"\n",
    );
    let of = |plan: &Plan, name: &str| {
        plan.probes.iter().find(|probe| probe.name.as_str() == name).unwrap().fingerprint
    };
    assert_eq!(of(&one, "a"), of(&two, "a"));
    assert_ne!(of(&one, "b"), of(&two, "b"));
}

#[test]
fn a_run_that_may_outlast_its_period_is_warned_of() {
    let plan = planned(
        "[probe.a]\nevery = \"5s\"\ntimeout = \"6s\"\nhttp = { url = \"https://example.com/\" }\n",
    );
    assert!(plan.warnings[0].contains("probe `a`: a run may take 6s"), "{:?}", plan.warnings);
}

#[test]
fn an_exporter_that_leans_on_what_is_watched_is_warned_of() {
    let plan = planned(
        r#"
[export.otlp]
endpoint = "https://abc.execute-api.${region}.amazonaws.com/otlp"
[probe.a]
http = { url = "https://def.execute-api.eu-west-1.amazonaws.com/prod" }
"#,
    );
    let line = plan.warnings.iter().find(|line| line.contains("execute-api in eu-west-1"));
    assert!(line.is_some(), "{:?}", plan.warnings);
}

#[test]
fn a_folder_is_an_agents_file_and_its_probes() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("probes")).unwrap();
    fs::write(
        folder.path().join("picket.toml"),
        "[agent]\nstage = \"gamma\"\nlisten = \"off\"\n[probe.own]\nhttp = { url = \"https://example.com/\" }\n",
    )
    .unwrap();
    fs::write(
        folder.path().join("probes/a.toml"),
        "[probe.a]\nhttp = { url = \"https://example.com/\" }\n",
    )
    .unwrap();
    for config in [folder.path().to_owned(), folder.path().join("picket.toml")] {
        let written = config::read(Some(&config), &[]);
        assert_eq!(written.settings.stage.as_str(), "gamma");
        assert_eq!(written.settings.listen, None);
        let place = written.settings.place("eu-west-1".into());
        let plan = plan::plan(&written, &place).unwrap().plan;
        let names: Vec<_> = plan.probes.iter().map(|probe| probe.name.as_str()).collect();
        assert_eq!(names, ["own", "a"]);
    }
}

#[test]
fn probe_files_alone_are_planned_without_the_agents_own() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("picket.toml");
    fs::create_dir(folder.path().join("probes")).unwrap();
    fs::write(&config, "[agent]\nstage = \"gamma\"\n").unwrap();
    let file = folder.path().join("probes/a.toml");
    fs::write(&file, "[probe.a]\nhttp = { url = \"https://example.com/\" }\n").unwrap();
    fs::write(
        folder.path().join("probes/b.toml"),
        "[probe.b]\nhttp = { url = \"https://example.com/\" }\n",
    )
    .unwrap();
    let written = config::read(Some(&config), std::slice::from_ref(&file));
    let place = written.settings.place("local".into());
    let plan = plan::plan(&written, &place).unwrap().plan;
    assert_eq!(plan.place.stage.as_str(), "gamma");
    assert_eq!(plan.probes.len(), 1);
}

#[test]
fn every_file_of_probes_is_planned() {
    let mut files: Vec<PathBuf> =
        fs::read_dir("probes").unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 3);
    for file in &files {
        let written = config::read(None, std::slice::from_ref(file));
        let loaded = plan::plan(&written, &place()).unwrap_or_else(|mistakes| panic!("{mistakes}"));
        assert!(!loaded.plan.probes.is_empty(), "{}", file.display());
        assert!(loaded.plan.left_out.is_empty(), "{}", file.display());
        let head = fs::read_to_string(file).unwrap();
        for word in ["Costs", "Needs", "Leaves"] {
            assert!(
                head.contains(word),
                "{} does not say what it {}",
                file.display(),
                word.to_lowercase()
            );
        }
    }
    let written = config::read(None, &files);
    assert!(plan::plan(&written, &place()).is_ok(), "together they have no name twice");
}

#[test]
fn every_block_that_the_manual_shows_is_planned() {
    let mut pages = vec![PathBuf::from("README.md")];
    pages.extend(markdown(Path::new("docs")));
    let mut blocks = 0;
    for page in pages {
        for block in toml_blocks(&fs::read_to_string(&page).unwrap()) {
            blocks += 1;
            if let Err(mistakes) = load(&block) {
                panic!("{}: {mistakes}\n{block}", page.display());
            }
        }
    }
    assert!(blocks >= 2);
}

fn markdown(folder: &Path) -> Vec<PathBuf> {
    let mut pages = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            pages.extend(markdown(&path));
        } else if path.extension().is_some_and(|extension| extension == "md") {
            pages.push(path);
        }
    }
    pages
}

/// The blocks that are whole files: they hold a probe or the agent.
fn toml_blocks(page: &str) -> Vec<String> {
    let blocks = page.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let whole =
        |block: &&str| ["[probe.", "[agent]", "[export."].iter().any(|table| block.contains(table));
    blocks.filter(whole).map(str::to_owned).collect()
}

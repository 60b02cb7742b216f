//! `picket plan`: what would run here, defaults filled in, with the times of the next runs.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde_json::json;

use super::columns;
use crate::clock::Timestamp;
use crate::period;
use crate::place::Place;
use crate::plan::{self, Plan, Planned};

/// How the plan is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people.
    #[default]
    Table,
    /// One object a line.
    Json,
}

/// When a probe is next due after a moment.
pub(super) type NextDue<'a> = &'a dyn Fn(&Planned, &Place, Timestamp) -> Timestamp;

/// Shows the plan (0), or every mistake (2).
pub(super) async fn main(
    config: Option<&Path>,
    files: &[PathBuf],
    format: Format,
    now: Timestamp,
    next_due: NextDue<'_>,
    out: &mut dyn Write,
    notes: &mut dyn Write,
) -> io::Result<u8> {
    let plan = match plan::load(config, files).await {
        Ok(loaded) => loaded.plan,
        Err(mistakes) => {
            writeln!(notes, "{mistakes}")?;
            return Ok(2);
        }
    };
    for warning in &plan.warnings {
        writeln!(notes, "warning: {warning}")?;
    }
    match format {
        Format::Table => table(&plan, now, next_due, out)?,
        Format::Json => lines(&plan, now, next_due, out)?,
    }
    Ok(0)
}

/// The next three due times.
fn next(planned: &Planned, place: &Place, now: Timestamp, next_due: NextDue<'_>) -> Vec<Timestamp> {
    let first = next_due(planned, place, now);
    let second = next_due(planned, place, first);
    vec![first, second, next_due(planned, place, second)]
}

fn table(
    plan: &Plan,
    now: Timestamp,
    next_due: NextDue<'_>,
    out: &mut dyn Write,
) -> io::Result<()> {
    writeln!(out, "region {}, stage {}", plan.place.region, plan.place.stage)?;
    let head = ["PROBE", "KIND", "EVERY", "TIMEOUT", "STEPS", "NEXT", "LABELS"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for planned in &plan.probes {
        let labels: Vec<_> =
            planned.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let next = next_due(planned, &plan.place, now).to_string();
        rows.push(vec![
            planned.name.to_string(),
            planned.kind.to_owned(),
            period::show(planned.every),
            period::show(planned.timeout),
            (planned.steps.len() + planned.finally.len()).to_string(),
            if planned.paused { "paused".to_owned() } else { next },
            labels.join(" "),
        ]);
    }
    columns::write(out, &rows)?;
    for (name, reason) in &plan.left_out {
        writeln!(out, "left out: {name}: {reason}")?;
    }
    Ok(())
}

fn lines(
    plan: &Plan,
    now: Timestamp,
    next_due: NextDue<'_>,
    out: &mut dyn Write,
) -> io::Result<()> {
    for planned in &plan.probes {
        let names = |steps: &[plan::Step]| {
            steps
                .iter()
                .map(|step| json!({ "name": step.name, "kind": step.kind.name }))
                .collect::<Vec<_>>()
        };
        let line = json!({
            "probe": planned.name,
            "kind": planned.kind,
            "region": plan.place.region,
            "stage": plan.place.stage,
            "labels": *planned.labels,
            "every_s": planned.every.as_secs_f64(),
            "timeout_s": planned.timeout.as_secs_f64(),
            "overlap": planned.overlap,
            "paused": planned.paused,
            "steps": names(&planned.steps),
            "finally": names(&planned.finally),
            "source": format!("{}:{}", planned.source.0.display(), planned.source.1),
            "next": next(planned, &plan.place, now, next_due),
        });
        writeln!(out, "{line}")?;
    }
    for (name, reason) in &plan.left_out {
        writeln!(out, "{}", json!({ "probe": name, "left_out": reason }))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn each_probe_is_one_object_with_its_next_times_and_so_is_what_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.toml");
        let text = "[probe.a]\nevery = \"30s\"\nhttp = { url = \"https://example.com/\" }\n\
                    [probe.b]\nonly = { stage = \"alpha\" }\nhttp = { url = \"https://example.com/\" }\n";
        std::fs::write(&file, text).unwrap();
        let next_due = |planned: &Planned, _: &Place, now: Timestamp| now + planned.every;
        let (mut out, mut notes) = (Vec::new(), Vec::new());
        let now = Timestamp::from_secs(1_000_000_000);
        let files = [file];
        let code = main(None, &files, Format::Json, now, &next_due, &mut out, &mut notes).await;
        assert_eq!(code.unwrap(), 0);
        let lines: Vec<serde_json::Value> = out
            .split(|byte| *byte == b'\n')
            .filter_map(|line| serde_json::from_slice(line).ok())
            .collect();
        let [a, b] = lines.as_slice() else { panic!("{lines:?}") };
        assert_eq!(
            (&a["probe"], &a["every_s"], &a["timeout_s"]),
            (&json!("a"), &json!(30.0), &json!(10.0))
        );
        let third = now + Duration::from_secs(90);
        assert_eq!(a["next"][2], json!(third));
        assert_eq!(b["left_out"], json!("stage prod is not one of alpha"));
    }
}

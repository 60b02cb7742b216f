//! `picket validate`: loads and plans, runs nothing.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::plan::{self, Plan};

/// Says `ok` and what is unwise (0), or every mistake (2).
pub(super) async fn main(
    config: Option<&Path>,
    files: &[PathBuf],
    out: &mut dyn Write,
    notes: &mut dyn Write,
) -> io::Result<u8> {
    match plan::load(config, files).await {
        Ok(loaded) => {
            say(&loaded.plan, out)?;
            Ok(0)
        }
        Err(mistakes) => {
            writeln!(notes, "{mistakes}")?;
            Ok(2)
        }
    }
}

fn say(plan: &Plan, out: &mut dyn Write) -> io::Result<()> {
    for warning in &plan.warnings {
        writeln!(out, "warning: {warning}")?;
    }
    let planned = plan.probes.len();
    let probes = if planned == 1 { "probe" } else { "probes" };
    writeln!(out, "ok: {planned} {probes} planned ({} left out here)", plan.left_out.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn told(text: &str) -> (u8, String, String) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.toml");
        std::fs::write(&file, text).unwrap();
        let (mut out, mut notes) = (Vec::new(), Vec::new());
        let code = main(None, &[file], &mut out, &mut notes).await.unwrap();
        (code, String::from_utf8(out).unwrap(), String::from_utf8(notes).unwrap())
    }

    #[tokio::test]
    async fn good_files_are_ok_and_what_is_unwise_is_said() {
        let text = "[probe.a]\nhttp = { url = \"https://example.com/\" }\ntimeout = \"2m\"\n";
        let (code, out, notes) = told(text).await;
        assert!(code == 0 && notes.is_empty(), "{notes}");
        assert!(out.starts_with("warning: probe `a`: a run may take 2m"), "{out}");
        assert!(out.ends_with("ok: 1 probe planned (0 left out here)\n"), "{out}");
    }

    #[tokio::test]
    async fn bad_files_are_two_and_nothing_is_answered() {
        let (code, out, notes) = told("[probe.a]\nevry = \"1m\"\n").await;
        assert!(code == 2 && out.is_empty(), "{out}");
        assert!(notes.contains("did you mean `every`?"), "{notes}");
    }
}

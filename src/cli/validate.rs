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

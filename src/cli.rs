//! Arguments in, exit code out.

pub mod history;
pub mod report;

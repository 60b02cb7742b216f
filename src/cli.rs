//! Arguments in, exit code out.

pub mod demo;
pub mod junit;
mod names;
pub mod table;

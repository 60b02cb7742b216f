//! Arguments in, exit code out.

mod columns;
pub mod demo;
mod explain;
mod init;
pub mod junit;
mod kinds;
mod names;
mod plan;
mod schema;
pub mod table;
mod validate;

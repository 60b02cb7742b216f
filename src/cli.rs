//! Arguments in, exit code out.

mod columns;
mod explain;
mod init;
mod kinds;
mod plan;
mod schema;
mod validate;

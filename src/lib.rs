//! picket stands watch outside the service it watches.
//!
//! ```text
//! config ──► plan ──► schedule ──► probe ──► outcome ──► journal ──► outbox ──► export
//! as written as meant   due       steps, phases,  │         kept       one place    encode + send
//!                                 expectations    └──► alarm           per exporter
//! ```
//!
//! Each layer may use the ones above it in this list, never below.
#![cfg_attr(
    not(test),
    warn(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::print_stdout,
        clippy::print_stderr
    )
)]

// Words.
pub mod clock;
pub mod failure;
pub mod lag;
pub mod near;
pub mod period;
pub mod phase;
pub mod place;
pub mod secret;
pub mod setting;
// The record, and what it is made from.
pub mod outcome;
pub mod reading;
pub mod template;
// What must hold, and the way to a target.
pub mod aws;
pub mod dial;
pub mod expect;
// Kinds of step; exporters.
pub mod export;
pub mod probe;
// From the files to what runs.
pub mod config;
pub mod plan;
// One run, and when.
pub mod board;
pub mod health;
pub mod journal;
pub mod journey;
pub mod outbox;
pub mod recent;
pub mod roster;
pub mod schedule;
// The whole.
pub mod agent;
pub mod cli;
pub mod status;

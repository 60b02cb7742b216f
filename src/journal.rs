//! Outcomes on disk, kept before anything is told; and the ledger of planned runs.

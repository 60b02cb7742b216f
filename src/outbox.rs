//! The journal's ordered way to one exporter.

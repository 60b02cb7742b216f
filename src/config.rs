//! Reads what was written; knows no defaults; errors show the line.

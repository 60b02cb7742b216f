//! One run: steps in order, captures, time budget, `finally`.

//! When each probe is due: aligned to the clock, spread by a hash, never twice.

//! Servers on the loopback for tests, most of which misbehave.

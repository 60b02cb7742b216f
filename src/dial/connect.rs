//! TCP connections: happy eyeballs.

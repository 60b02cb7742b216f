//! Resolve, connect, handshake: the phases that kinds share.

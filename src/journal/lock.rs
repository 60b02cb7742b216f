//! One picket a state folder: a lock that ends with the process, however it ends.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use super::JournalError;

/// The lock's file in the state folder.
const FILE: &str = "lock";

/// Makes the folder and locks it. The lock is held as long as the file is open.
pub(super) fn take(folder: &Path) -> Result<File, JournalError> {
    let wrong = |source| JournalError::Folder { folder: folder.to_owned(), source };
    fs::create_dir_all(folder).map_err(wrong)?;
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(folder.join(FILE))
        .map_err(wrong)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            return Err(JournalError::InUse {
                folder: folder.to_owned(),
                process: holder(&mut file),
            });
        }
        Err(errno) => return Err(wrong(errno.into())),
    }
    sign(&mut file);
    Ok(file)
}

/// The process that wrote its id into the lock's file.
fn holder(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// Writes our id into it. The lock holds without it, so a full disk is no reason to refuse.
fn sign(file: &mut File) {
    let signed = file
        .set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| writeln!(file, "{}", std::process::id()));
    if let Err(error) = signed {
        tracing::warn!(%error, "the lock's file does not say whose it is");
    }
}

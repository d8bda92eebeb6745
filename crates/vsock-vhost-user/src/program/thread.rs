// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Starting threads that must first do something that can fail, such as confining themselves.

use std::io;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

/// Starts a thread that runs `begin` and then `body`. Returns once `begin` has returned.
///
/// # Errors
///
/// The thread cannot be started, or `begin` failed or panicked. `body` does not run then.
pub(crate) fn start(
    name: &str,
    begin: impl FnOnce() -> io::Result<()> + Send + 'static,
    body: impl FnOnce() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let (report, begun) = mpsc::sync_channel(1);
    let thread = thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            let result = begin();
            let may_run = result.is_ok();
            if report.send(result).is_ok() && may_run {
                body();
            }
        })?;
    begun
        .recv()
        .unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))?;
    Ok(thread)
}

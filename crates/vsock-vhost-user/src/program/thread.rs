// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Threads of the program that do something first, without which they do not run.

use std::io;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

/// Starts a thread, and returns when it has done what it does first.
pub(crate) fn start(
    name: &str,
    begin: impl FnOnce() -> io::Result<()> + Send + 'static,
    body: impl FnOnce() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let (tell, begun) = mpsc::sync_channel(1);
    let thread = thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            let result = begin();
            let may_run = result.is_ok();
            if tell.send(result).is_ok() && may_run {
                body();
            }
        })?;
    begun
        .recv()
        .unwrap_or_else(|_| Err(io::Error::other("the thread has panicked")))?;
    Ok(thread)
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Starts the threads of a device.

use std::convert::identity;
use std::io;
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};

use rustix::process::Signal;
use vmm_sys_util::signal::block_signal;

use crate::error::VhostUserError;
use crate::panics::catch;

/// A thread of a device: see
/// [`on_thread_start`](crate::VhostUserVsockBuilder::on_thread_start).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum DeviceThread {
    /// Moves bytes between the guest and the host, and calls the backends and streams.
    Data,
    /// Waits for VMMs and answers their requests; checks and maps the files that they share. Drops
    /// the backends when the device ends.
    Requests,
}

/// The embedder's function that each thread runs first.
pub(crate) type ThreadStart = Arc<dyn Fn(DeviceThread) -> io::Result<()> + Send + Sync>;

/// The call that a thread makes first, if any.
pub(crate) struct Begin(Option<(DeviceThread, ThreadStart)>);

impl Begin {
    pub(crate) fn new(thread: DeviceThread, start: Option<ThreadStart>) -> Self {
        Self(start.map(|start| (thread, start)))
    }

    fn run(&self) -> Result<(), VhostUserError> {
        let Some((thread, start)) = &self.0 else {
            return Ok(());
        };
        catch(|| start(*thread)).and_then(|begun| begun.map_err(VhostUserError::ThreadStart))
    }
}

/// Starts a thread with SIGPIPE blocked, so that a stream whose peer has gone cannot kill the
/// process. Returns after the thread has run `begin`.
pub(crate) fn start(
    name: String,
    begin: Begin,
    body: impl FnOnce() -> Result<(), VhostUserError> + Send + 'static,
) -> Result<JoinHandle<Result<(), VhostUserError>>, VhostUserError> {
    let (tell, begun) = mpsc::sync_channel(1);
    let thread = thread::Builder::new().name(name).spawn(move || {
        if let Err(error) = block_signal(Signal::PIPE.as_raw()) {
            log::debug!("cannot block SIGPIPE: {error:?}");
        }
        let result = begin.run();
        let may_run = result.is_ok();
        // The receiver waits below, so this does not fail.
        let _told = tell.send(result);
        if !may_run {
            return Ok(());
        }
        catch(body).and_then(identity)
    });
    let thread = thread.map_err(VhostUserError::Resources)?;
    begun.recv().unwrap_or(Err(VhostUserError::Panicked))?;
    Ok(thread)
}

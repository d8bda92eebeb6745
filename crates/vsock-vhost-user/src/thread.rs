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

/// The role of a thread that serves a device: see
/// [`on_thread_start`](crate::VhostUserVsockBuilder::on_thread_start).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ThreadRole {
    /// The device thread moves bytes between the guest and the host, and calls the backends and
    /// streams.
    Device,
    /// The front-end thread waits for VMMs and answers their requests, and checks and maps the
    /// files that they share. It drops the backends when the device ends.
    FrontEnd,
}

/// The embedder's function that each thread runs first.
pub(crate) type ThreadStart = Arc<dyn Fn(ThreadRole) -> io::Result<()> + Send + Sync>;

/// The call that a thread makes first, if any.
pub(crate) struct Begin(Option<(ThreadRole, ThreadStart)>);

impl Begin {
    pub(crate) fn new(role: ThreadRole, start: Option<ThreadStart>) -> Self {
        Self(start.map(|start| (role, start)))
    }

    fn run(&self) -> Result<(), VhostUserError> {
        let Some((role, start)) = &self.0 else {
            return Ok(());
        };
        catch(|| start(*role)).and_then(|begun| begun.map_err(VhostUserError::ThreadStart))
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

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How the threads of a device start.

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
    /// It moves bytes between the guest and the host: the backends and streams are called here.
    Data,
    /// It waits for VMMs and answers their requests: what they share is checked and mapped here.
    /// When the device ends, its backends are dropped here.
    Requests,
}

/// What each thread does first.
pub(crate) type ThreadStart = Arc<dyn Fn(DeviceThread) -> io::Result<()> + Send + Sync>;

/// What a thread does first, if anything.
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

/// Starts a thread in which no stream can kill the process by writing to what has gone, whatever
/// the process does with the signal. Returns when it has begun.
pub(crate) fn start(
    name: String,
    begin: Begin,
    body: impl FnOnce() -> Result<(), VhostUserError> + Send + 'static,
) -> Result<JoinHandle<Result<(), VhostUserError>>, VhostUserError> {
    let (tell, begun) = mpsc::sync_channel(1);
    let thread = thread::Builder::new().name(name).spawn(move || {
        if let Err(error) = block_signal(Signal::PIPE.as_raw()) {
            log::debug!("SIGPIPE is not blocked: {error:?}");
        }
        let result = begin.run();
        let may_run = result.is_ok();
        // The one that waits for it is there.
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

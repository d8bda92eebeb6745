// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! One front-end after the other.

use std::os::unix::net::UnixListener;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::time::Duration;

use vhost::vhost_user::{Error as ProtocolError, Listener};
use vhost_user_backend::{Error, VhostUserDaemon};
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::signal::block_signal;

use crate::shared::Shared;
use crate::vring::Memory;
use crate::{DeviceError, Stopper};

/// How long to leave the operating system alone that lacks something.
const RECOVERY: Duration = Duration::from_millis(200);

/// Waits for front-ends and serves them, until it is stopped.
pub(crate) struct Service {
    shared: Arc<Shared>,
    listener: Listener,
    stopper: Stopper,
}

impl Service {
    pub(crate) fn new(shared: Arc<Shared>, listener: UnixListener, stopper: Stopper) -> Self {
        Self {
            shared,
            listener: listener.into(),
            stopper,
        }
    }

    /// Serves until it is stopped, and lets the backends go, so that nobody waits for the guest in
    /// vain: also after a panic.
    pub(crate) fn run(mut self) -> Result<(), DeviceError> {
        // What is shared is used after a panic as well; see `Shared::worker`.
        let ended = panic::catch_unwind(AssertUnwindSafe(|| self.serve_all()));
        self.shared.release();
        ended.unwrap_or(Err(DeviceError::Panicked))
    }

    fn serve_all(&mut self) -> Result<(), DeviceError> {
        // A thread inherits what is blocked from the one that starts it: so no stream of the device
        // can kill the process, whatever its owner does with the signal.
        if let Err(error) = block_signal(rustix::process::Signal::PIPE.as_raw()) {
            log::debug!("SIGPIPE is not blocked: {error:?}");
        }
        let cid = self.shared.cid();
        while !self.stopper.is_stopped() {
            match self.session() {
                Ok(()) => {}
                Err(_) if self.stopper.is_stopped() => {}
                Err(error) => {
                    log::error!("guest {cid}: cannot serve a VMM, trying again: {error}");
                    self.stopper.wait(RECOVERY);
                }
            }
            if self.shared.has_panicked() {
                return Err(DeviceError::Panicked);
            }
        }
        Ok(())
    }

    /// Serves one front-end, from its connection to its end.
    fn session(&mut self) -> Result<(), Error> {
        let memory = Memory::new(GuestMemoryMmap::new());
        self.shared.begin(memory.clone());
        let ended = self.serve(memory);
        self.shared.end();
        ended
    }

    fn serve(&mut self, memory: Memory) -> Result<(), Error> {
        let cid = self.shared.cid();
        let name = format!("vsock-{cid}-vmm");
        let mut daemon = VhostUserDaemon::new(name, Arc::clone(&self.shared), memory)?;
        let served = self.serve_with(&mut daemon);
        self.stopper.set_session(None);
        // The worker ends at this; dropping the daemon waits for it.
        self.shared.dismiss_worker();
        drop(daemon);
        served
    }

    fn serve_with(&mut self, daemon: &mut VhostUserDaemon<Arc<Shared>>) -> Result<(), Error> {
        let cid = self.shared.cid();
        for worker in daemon.get_epoll_handlers() {
            let watch = |(fd, event)| worker.register_listener(fd, EventSet::IN, event);
            // Without this one the worker would never end, and neither would whoever waits for it.
            while let Err(error) = watch(self.shared.dismissal()) {
                log::error!("guest {cid}: cannot set up the worker, trying again: {error}");
                self.stopper.wait(RECOVERY);
            }
            watch(self.shared.poller()).map_err(Error::StartDaemon)?;
        }
        daemon.start(&mut self.listener)?;
        log::info!("guest {cid}: a VMM has connected");
        self.stopper.set_session(daemon.shutdown_handle());
        match daemon.wait() {
            Ok(())
            | Err(Error::HandleRequest(
                ProtocolError::Disconnected | ProtocolError::PartialMessage,
            )) => log::info!("guest {cid}: the VMM has gone"),
            // It is the front-end's mistake, or its kind of goodbye: the next one may do better.
            Err(error) => log::warn!("guest {cid}: the connection to the VMM has ended: {error}"),
        }
        Ok(())
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Signals an eventfd that the front-end shares, without ever blocking.
//!
//! A `write` blocks if the counter is full and the open file description is in blocking mode. The
//! front-end shares the description, and can cause both at any time. The kernel's own way to signal
//! an eventfd never blocks, whatever the mode. Asynchronous I/O (`io_submit`) lets a process use
//! it: the kernel signals an eventfd when a request completes. So this module submits a read that
//! fails immediately.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use thiserror::Error;
use vmm_sys_util::aio::{IOCB_CMD_PREAD, IOCB_FLAG_RESFD, IoContext, IoControlBlock, IoEvent};

use crate::journal::{Journal, say};

/// How many completions the kernel can store. They contain nothing useful, and must be removed
/// before the store is full.
const COMPLETIONS: u16 = 64;

/// Why an eventfd was not signalled.
#[derive(Debug, Error)]
pub(crate) enum SignalError {
    /// The file can never be signalled.
    #[error("the file is not an eventfd")]
    NoEventfd,
    #[error(transparent)]
    Failed(io::Error),
}

/// A means to signal eventfds.
pub(crate) struct Signaller(Way);

enum Way {
    Kernel(Kernel),
    /// The process cannot use asynchronous I/O: check whether a write would block, and write. If
    /// the front-end fills the eventfd between these two calls, the write blocks.
    Write,
}

impl Signaller {
    pub(crate) fn new(journal: &Journal) -> Self {
        Self(Kernel::new().map_or_else(
            |error| {
                say!(
                    journal,
                    Warn,
                    "cannot set up asynchronous I/O: {error}; check fs.aio-max-nr and that \
                     io_setup is permitted, or a VMM that fills its eventfds can block its device"
                );
                Way::Write
            },
            Way::Kernel,
        ))
    }

    /// Adds one to the counter of an eventfd. A full counter already means that it is signalled.
    pub(crate) fn signal(&mut self, eventfd: &impl AsFd) -> Result<(), SignalError> {
        match &mut self.0 {
            Way::Kernel(kernel) => kernel.signal(eventfd),
            Way::Write => write(eventfd),
        }
    }
}

/// A context of asynchronous I/O.
struct Kernel {
    context: IoContext,
    /// An eventfd from which each read fails.
    source: OwnedFd,
    /// How many completions may be stored in the context.
    completions: u16,
}

impl Kernel {
    fn new() -> io::Result<Self> {
        let flags = EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC;
        let mut kernel = Self {
            context: IoContext::new(COMPLETIONS.into())?,
            source: eventfd(0, flags)?,
            completions: 0,
        };
        // Try it: kernels before 5.8 do not read eventfds this way, and a system call filter may
        // permit only some of these calls.
        let probe = eventfd(0, flags)?;
        kernel.submit(&probe)?;
        rustix::io::read(&probe, &mut [0; 8])?;
        kernel.take_completions()?;
        Ok(kernel)
    }

    fn signal(&mut self, eventfd: &impl AsFd) -> Result<(), SignalError> {
        // The context holds a limited number of completions. Beyond it, requests would fail.
        if self.completions == COMPLETIONS {
            self.take_completions().map_err(SignalError::Failed)?;
        }
        self.submit(eventfd).map_err(|error| {
            // The kernel's answer for a file that is not an eventfd.
            if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) {
                SignalError::NoEventfd
            } else {
                SignalError::Failed(error)
            }
        })
    }

    /// Submits a read that fails immediately, and whose completion signals `eventfd`.
    fn submit(&mut self, eventfd: &impl AsFd) -> io::Result<()> {
        let mut read = IoControlBlock {
            aio_lio_opcode: u16::try_from(IOCB_CMD_PREAD).unwrap_or_default(),
            aio_fildes: number(&self.source),
            aio_flags: IOCB_FLAG_RESFD,
            aio_resfd: number(&eventfd.as_fd()),
            ..IoControlBlock::default()
        };
        self.context.submit(&[&mut read])?;
        self.completions += 1;
        Ok(())
    }

    fn take_completions(&mut self) -> io::Result<()> {
        let mut events = [IoEvent::default(); COMPLETIONS as usize];
        self.context.get_events(0, &mut events, None)?;
        self.completions = 0;
        Ok(())
    }
}

/// Returns a descriptor's number in the form of the kernel's structure.
fn number(fd: &impl AsRawFd) -> u32 {
    u32::from_ne_bytes(fd.as_raw_fd().to_ne_bytes())
}

fn write(eventfd: &impl AsFd) -> Result<(), SignalError> {
    let mut fds = [PollFd::new(eventfd, PollFlags::OUT)];
    let now = Timespec::default();
    poll(&mut fds, Some(&now)).map_err(|error| SignalError::Failed(error.into()))?;
    // Full, so it is signalled.
    if !fds[0].revents().contains(PollFlags::OUT) {
        return Ok(());
    }
    match rustix::io::write(eventfd, &1_u64.to_ne_bytes()) {
        Ok(_) | Err(Errno::AGAIN) => Ok(()),
        Err(Errno::INVAL | Errno::BADF) => Err(SignalError::NoEventfd),
        Err(error) => Err(SignalError::Failed(error.into())),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    /// Creates an eventfd in blocking mode.
    fn blocking() -> OwnedFd {
        eventfd(0, EventfdFlags::CLOEXEC).unwrap()
    }

    fn count(eventfd: &OwnedFd) -> u64 {
        let mut count = [0; 8];
        rustix::io::read(eventfd, &mut count).unwrap();
        u64::from_ne_bytes(count)
    }

    /// Creates a signaller for each way. The kernel that runs the tests must support both.
    fn ways() -> [Signaller; 2] {
        let kernel = Kernel::new().unwrap();
        [Way::Kernel(kernel), Way::Write].map(Signaller)
    }

    #[test]
    fn each_signal_counts() {
        for mut signaller in ways() {
            let eventfd = blocking();
            let signals = 10 * u64::from(COMPLETIONS) + 1;
            for _ in 0..signals {
                signaller.signal(&eventfd).unwrap();
            }
            assert_eq!(count(&eventfd), signals);
        }
    }

    #[test]
    fn t119_a_full_blocking_eventfd_does_not_block_the_device() {
        for mut signaller in ways() {
            let eventfd = blocking();
            rustix::io::write(&eventfd, &(u64::MAX - 1).to_ne_bytes()).unwrap();
            for _ in 0..3 * COMPLETIONS {
                signaller.signal(&eventfd).unwrap();
            }
            assert!(count(&eventfd) >= u64::MAX - 1);
        }
    }

    #[test]
    fn another_kind_of_file_is_an_error_and_does_not_affect_the_next_signal() {
        let [mut signaller, _] = ways();
        let file = File::open("/dev/null").unwrap();
        let refused = signaller.signal(&file).unwrap_err();
        assert!(matches!(refused, SignalError::NoEventfd), "{refused}");
        let eventfd = blocking();
        signaller.signal(&eventfd).unwrap();
        assert_eq!(count(&eventfd), 1);
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A queue of the guest that no descriptor of a front-end can stop.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::sync::MutexGuard;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use vhost_user_backend::{VringMutex, VringState, VringStateGuard, VringStateMutGuard, VringT};
use virtio_queue::{Error, QueueT};
use vm_memory::{GuestMemoryAtomic, GuestMemoryMmap};

/// The memory of a guest, as a front-end shares it.
pub(crate) type Memory = GuestMemoryAtomic<GuestMemoryMmap>;

/// A queue, and how its front-end is told of it.
///
/// The worker thread of `vhost-user-backend` ends when a kick cannot be read, and stops where an
/// eventfd makes it wait. Either would be a device that is dead without a word, so descriptors are
/// made non-blocking, a kick that somebody else has read is no error, and one that can never be read
/// is given up with a line in the log.
///
/// A queue that stops notifies its guest, because the device may have held a notification back: whoever
/// serves the queue next does not know of it.
#[derive(Clone)]
pub(crate) struct Vring(VringMutex<Memory>);

impl<'a> VringStateGuard<'a, Memory> for Vring {
    type G = MutexGuard<'a, VringState<Memory>>;
}

impl<'a> VringStateMutGuard<'a, Memory> for Vring {
    type G = MutexGuard<'a, VringState<Memory>>;
}

impl VringT<Memory> for Vring {
    fn new(memory: Memory, max_queue_size: u16) -> Result<Self, Error> {
        VringMutex::new(memory, max_queue_size).map(Self)
    }

    fn get_ref(&self) -> MutexGuard<'_, VringState<Memory>> {
        self.0.get_ref()
    }

    fn get_mut(&self) -> MutexGuard<'_, VringState<Memory>> {
        self.0.get_mut()
    }

    fn read_kick(&self) -> io::Result<bool> {
        match self.0.read_kick() {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(self.get_ref().is_enabled()),
            Err(error) => {
                log::error!("the front-end's kick descriptor cannot be read, given up: {error}");
                self.0.set_kick(None);
                Ok(false)
            }
            enabled => enabled,
        }
    }

    fn set_kick(&self, file: Option<File>) {
        self.0.set_kick(file.map(nonblocking));
    }

    fn set_call(&self, file: Option<File>) {
        self.0.set_call(file.map(nonblocking));
    }

    fn set_err(&self, file: Option<File>) {
        self.0.set_err(file);
    }

    fn add_used(&self, desc_index: u16, len: u32) -> Result<(), Error> {
        self.0.add_used(desc_index, len)
    }

    fn signal_used_queue(&self) -> io::Result<()> {
        self.0.signal_used_queue()
    }

    fn enable_notification(&self) -> Result<bool, Error> {
        self.0.enable_notification()
    }

    fn disable_notification(&self) -> Result<(), Error> {
        self.0.disable_notification()
    }

    fn needs_notification(&self) -> Result<bool, Error> {
        self.0.needs_notification()
    }

    fn set_enabled(&self, enabled: bool) {
        self.0.set_enabled(enabled);
    }

    fn set_queue_info(
        &self,
        desc_table: u64,
        avail_ring: u64,
        used_ring: u64,
    ) -> Result<(), Error> {
        self.0.set_queue_info(desc_table, avail_ring, used_ring)
    }

    fn queue_next_avail(&self) -> u16 {
        self.0.queue_next_avail()
    }

    fn set_queue_next_avail(&self, base: u16) {
        self.0.set_queue_next_avail(base);
    }

    fn set_queue_next_used(&self, index: u16) {
        self.0.set_queue_next_used(index);
    }

    fn queue_used_idx(&self) -> Result<u16, Error> {
        self.0.queue_used_idx()
    }

    fn set_queue_size(&self, size: u16) {
        self.0.set_queue_size(size);
    }

    fn set_queue_event_idx(&self, enabled: bool) {
        self.0.set_queue_event_idx(enabled);
    }

    fn set_queue_ready(&self, ready: bool) {
        let mut state = self.0.get_mut();
        let was_ready = state.get_queue().ready();
        state.get_queue_mut().set_ready(ready);
        if was_ready
            && !ready
            && let Err(error) = state.signal_used_queue()
        {
            log::debug!("cannot notify the guest of a queue that stops: {error}");
        }
    }
}

/// The same descriptor, on which no call waits. QEMU's eventfds are so already.
fn nonblocking(file: File) -> File {
    let set = fcntl_getfl(&file).and_then(|flags| fcntl_setfl(&file, flags | OFlags::NONBLOCK));
    if let Err(error) = set {
        log::warn!("cannot make a descriptor of the front-end non-blocking: {error}");
    }
    file
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    use rustix::event::{EventfdFlags, eventfd};
    use rustix::io::{Errno, read, write};

    use super::*;

    fn enabled() -> Vring {
        let vring = Vring::new(Memory::new(GuestMemoryMmap::new()), 64).unwrap();
        vring.set_enabled(true);
        vring
    }

    /// An eventfd on which a read would wait.
    fn waiting() -> OwnedFd {
        eventfd(0, EventfdFlags::CLOEXEC).unwrap()
    }

    #[test]
    fn a_kick_is_read_once_and_one_that_is_gone_is_no_error() {
        let vring = enabled();
        let kick = waiting();
        vring.set_kick(Some(File::from(kick.try_clone().unwrap())));
        write(&kick, &1_u64.to_ne_bytes()).unwrap();
        for _ in 0..2 {
            assert!(vring.read_kick().unwrap());
        }
        vring.set_enabled(false);
        assert!(!vring.read_kick().unwrap());
    }

    #[test]
    fn a_kick_that_can_never_be_read_is_given_up() {
        let vring = enabled();
        let (kick, far) = UnixStream::pair().unwrap();
        drop(far);
        vring.set_kick(Some(File::from(OwnedFd::from(kick))));
        assert!(!vring.read_kick().unwrap());
        assert!(vring.get_ref().get_kick().is_none());
    }

    #[test]
    fn a_call_that_nobody_takes_does_not_wait() {
        let vring = enabled();
        let call = waiting();
        write(&call, &(u64::MAX - 1).to_ne_bytes()).unwrap();
        vring.set_call(Some(File::from(call)));
        let refused = vring.signal_used_queue().unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::WouldBlock);
    }

    /// How often the guest was notified since this was asked last.
    fn calls(call: &OwnedFd) -> u64 {
        let mut count = [0; 8];
        match read(call, &mut count) {
            Ok(_) => u64::from_ne_bytes(count),
            Err(error) => {
                assert_eq!(error, Errno::AGAIN);
                0
            }
        }
    }

    /// A queue that is not ready, and its call descriptor.
    fn with_call() -> (Vring, OwnedFd) {
        let (vring, call) = (enabled(), waiting());
        vring.set_call(Some(File::from(call.try_clone().unwrap())));
        (vring, call)
    }

    #[test]
    fn a_queue_that_stops_notifies_its_guest_once() {
        let (vring, call) = with_call();
        for _ in 0..2 {
            vring.set_queue_ready(true);
            assert!(vring.get_ref().get_queue().ready());
            vring.set_queue_ready(true);
            assert_eq!(calls(&call), 0, "it starts, or goes on");
            vring.set_queue_ready(false);
            assert!(!vring.get_ref().get_queue().ready());
            assert_eq!(calls(&call), 1);
        }
    }

    #[test]
    fn a_queue_that_was_not_ready_notifies_nobody_when_it_stops() {
        let (vring, call) = with_call();
        vring.set_queue_ready(false);
        assert_eq!(calls(&call), 0);
    }

    #[test]
    fn a_queue_stops_also_if_its_guest_cannot_be_notified() {
        let (vring, call) = with_call();
        vring.set_queue_ready(true);
        write(&call, &(u64::MAX - 1).to_ne_bytes()).unwrap();
        vring.set_queue_ready(false);
        assert!(!vring.get_ref().get_queue().ready());
    }
}

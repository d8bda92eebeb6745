// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A queue of the guest, and the descriptors by which both sides tell each other of it.

use std::fs::File;
use std::io;
use std::mem;
use std::sync::Arc;

use virtio_queue::{Error, Queue, QueueT};
use vm_memory::GuestAddress;
use vsock_epoll::{LoopError, MuxerDriver};

use crate::journal::{Journal, say};
use crate::signal::{SignalError, Signaller};

/// The number of each kick: the queues are to be looked at, whichever it was. So an event that was taken
/// before the kick was replaced does no harm.
const KICK: u32 = 0;

/// Descriptors of a front-end that are no longer used. To close one may take as long as its owner
/// likes, so whoever gets them drops them where nobody waits.
#[derive(Debug, Default)]
#[must_use = "dropped where nobody waits for it"]
pub(crate) struct Discarded {
    _kick: Option<File>,
    _call: Option<File>,
}

/// Where a ring is, in the guest's addresses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Addresses {
    pub(crate) descriptors: GuestAddress,
    pub(crate) available: GuestAddress,
    pub(crate) used: GuestAddress,
    /// How far the driver's memory says that the queue was used.
    pub(crate) used_index: u16,
}

struct Kick {
    file: File,
    watched: bool,
}

struct Call {
    file: File,
    /// It is an eventfd, as far as is known.
    works: bool,
}

/// A queue.
///
/// It is *started* from when it has a kick until the front-end takes it back, and *enabled* as the
/// front-end says. The kick is watched while it is both. A kick is never read: each write to an eventfd
/// is an event of the poller, and what a front-end writes to it, or reads of it, is its own affair.
pub(crate) struct Vring {
    queue: Queue,
    journal: Arc<Journal>,
    kick: Option<Kick>,
    call: Option<Call>,
    enabled: bool,
}

impl Vring {
    pub(crate) fn new(max_size: u16, journal: Arc<Journal>) -> Result<Self, Error> {
        Ok(Self {
            queue: Queue::new(max_size)?,
            journal,
            kick: None,
            call: None,
            enabled: false,
        })
    }

    /// Whether the driver has started the queue, and the front-end lets it run.
    pub(crate) fn runs(&self) -> bool {
        self.enabled && self.queue.ready()
    }

    pub(crate) fn queue_mut(&mut self) -> &mut Queue {
        &mut self.queue
    }

    /// Sets the size: a power of two up to the largest.
    pub(crate) fn set_size(&mut self, size: u16) -> Result<(), Error> {
        self.queue.try_set_size(size)
    }

    /// Sets where the ring is. How far it was used is the device's own affair once it runs.
    pub(crate) fn set_addresses(&mut self, at: &Addresses) -> Result<(), Error> {
        self.queue.try_set_desc_table_address(at.descriptors)?;
        self.queue.try_set_avail_ring_address(at.available)?;
        self.queue.try_set_used_ring_address(at.used)?;
        if !self.queue.ready() {
            self.queue.set_next_used(at.used_index);
        }
        Ok(())
    }

    /// Sets how far the device has come in what is available.
    pub(crate) fn set_base(&mut self, base: u16) {
        self.queue.set_next_avail(base);
    }

    /// Takes another kick, or none, and starts with it. It is an error if it cannot be watched.
    pub(crate) fn set_kick(
        &mut self,
        kick: Option<File>,
        poller: &mut MuxerDriver,
    ) -> (Discarded, io::Result<()>) {
        let discarded = Discarded {
            _kick: self.drop_kick(poller),
            _call: None,
        };
        self.kick = kick.map(|file| Kick {
            file,
            watched: false,
        });
        if self.kick.is_some() {
            self.queue.set_ready(true);
        }
        (discarded, self.watch(poller))
    }

    /// Takes another call, or none.
    pub(crate) fn set_call(&mut self, call: Option<File>) -> Discarded {
        let call = call.map(|file| Call { file, works: true });
        let old = mem::replace(&mut self.call, call);
        Discarded {
            _kick: None,
            _call: old.map(|call| call.file),
        }
    }

    pub(crate) fn set_enabled(
        &mut self,
        enabled: bool,
        poller: &mut MuxerDriver,
    ) -> io::Result<()> {
        self.enabled = enabled;
        self.watch(poller)
    }

    /// The front-end takes the queue back: returns how far the device has come in what is available.
    ///
    /// A queue that was started notifies its guest, because the device may have held a notification
    /// back: whoever serves the queue next does not know of it.
    pub(crate) fn stop(
        &mut self,
        poller: &mut MuxerDriver,
        signaller: &mut Signaller,
    ) -> (u16, Discarded) {
        if self.queue.ready() {
            self.queue.set_ready(false);
            self.signal(signaller);
        }
        let discarded = Discarded {
            _kick: self.drop_kick(poller),
            ..self.set_call(None)
        };
        (self.queue.next_avail(), discarded)
    }

    /// As it was made.
    pub(crate) fn reset(
        &mut self,
        poller: &mut MuxerDriver,
        signaller: &mut Signaller,
    ) -> Discarded {
        let (_, discarded) = self.stop(poller, signaller);
        self.queue.reset();
        self.enabled = false;
        discarded
    }

    /// Lets the guest know that buffers were used.
    pub(crate) fn signal(&mut self, signaller: &mut Signaller) {
        let Some(call) = self.call.as_mut().filter(|call| call.works) else {
            return;
        };
        match signaller.signal(&call.file) {
            Ok(()) => {}
            // It stays until the front-end takes it back: to close it here might take long.
            Err(SignalError::NoEventfd) => {
                call.works = false;
                say!(
                    self.journal,
                    Warn,
                    "cannot notify the driver: the VMM's call descriptor is no eventfd, give one by SET_VRING_CALL"
                );
            }
            Err(error) => say!(self.journal, Warn, "cannot notify the driver: {error}"),
        }
    }

    /// Watches the kick if the queue runs, and only then.
    fn watch(&mut self, poller: &mut MuxerDriver) -> io::Result<()> {
        let runs = self.runs();
        let Some(kick) = &mut self.kick else {
            return Ok(());
        };
        if runs && !kick.watched {
            poller.watch(KICK, &kick.file)?;
            // Something may be in it, or in its queue, by now.
            poller.wake();
        } else if !runs && kick.watched {
            unwatch(&kick.file, poller, &self.journal);
        }
        kick.watched = runs;
        Ok(())
    }

    /// Gives the kick up, which is not watched then: its owner may have kept a copy, so to close ours
    /// would not do.
    fn drop_kick(&mut self, poller: &mut MuxerDriver) -> Option<File> {
        let Kick { file, watched } = self.kick.take()?;
        if watched {
            unwatch(&file, poller, &self.journal);
        }
        Some(file)
    }
}

/// Tells of a kick no more, whoever else has it.
fn unwatch(kick: &File, poller: &mut MuxerDriver, journal: &Journal) {
    if let Err(LoopError::Unwatch { source, .. }) = poller.unwatch(kick) {
        say!(journal, Warn, "cannot unwatch a kick: {source}");
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use proptest::collection::vec;
    use proptest::prelude::{
        Just, ProptestConfig, Strategy, any, prop_assert_eq, prop_oneof, proptest,
    };
    use rustix::event::{EventfdFlags, eventfd};
    use rustix::io::{Errno, read, write};
    use vsock_proto::GuestCid;

    use super::*;

    struct Rig {
        vring: Vring,
        poller: MuxerDriver,
        signaller: Signaller,
    }

    impl Rig {
        /// A queue that the front-end lets run.
        fn new() -> Self {
            let poller = MuxerDriver::new().unwrap();
            let guest = GuestCid::try_from(3).unwrap();
            let journal = Arc::new(Journal::new(guest, poller.waker()));
            let mut rig = Self {
                vring: Vring::new(64, Arc::clone(&journal)).unwrap(),
                signaller: Signaller::new(&journal),
                poller,
            };
            rig.enable(true);
            rig
        }

        fn enable(&mut self, enabled: bool) {
            self.vring.set_enabled(enabled, &mut self.poller).unwrap();
        }

        /// Gives the queue a kick, of which this is the front-end's copy.
        fn kick(&mut self) -> OwnedFd {
            let kick = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
            let copy = File::from(kick.try_clone().unwrap());
            let (discarded, watched) = self.vring.set_kick(Some(copy), &mut self.poller);
            drop(discarded);
            watched.unwrap();
            kick
        }

        /// Gives the queue a call, of which this is the front-end's copy.
        fn call(&mut self) -> OwnedFd {
            let call = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap();
            drop(self.vring.set_call(Some(call.try_clone().unwrap().into())));
            call
        }

        fn stop(&mut self) -> Discarded {
            self.vring.stop(&mut self.poller, &mut self.signaller).1
        }

        /// Whether the poller was told of anything since this was asked last.
        fn is_told(&mut self) -> bool {
            let mut events = self.poller.events();
            events.wait(Some(std::time::Duration::ZERO)).unwrap() > 0
        }
    }

    fn notify(eventfd: &OwnedFd) {
        write(eventfd, &1_u64.to_ne_bytes()).unwrap();
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

    #[test]
    fn each_kick_is_told_once_and_none_is_read() {
        let mut rig = Rig::new();
        let kick = rig.kick();
        assert!(rig.is_told(), "there may be something in the queue already");
        for _ in 0..3 {
            assert!(!rig.is_told());
            notify(&kick);
            assert!(rig.is_told());
        }
        assert_eq!(calls(&kick), 3);
    }

    #[test]
    fn t122_a_kick_before_the_queue_is_enabled_is_told_when_it_is() {
        let mut rig = Rig::new();
        rig.enable(false);
        let kick = rig.kick();
        notify(&kick);
        assert!(!rig.is_told());
        rig.enable(true);
        assert!(rig.is_told());
        rig.enable(false);
        notify(&kick);
        assert!(!rig.is_told());
    }

    #[test]
    fn t118_the_copy_of_a_kick_that_was_replaced_is_not_heard() {
        let mut rig = Rig::new();
        let old = rig.kick();
        let new = rig.kick();
        assert!(rig.is_told());
        notify(&old);
        assert!(!rig.is_told());
        notify(&new);
        assert!(rig.is_told());
        drop(rig.stop());
        notify(&new);
        assert!(!rig.is_told());
    }

    #[test]
    fn a_queue_without_a_kick_does_not_run() {
        let mut rig = Rig::new();
        drop(rig.vring.set_kick(None, &mut rig.poller));
        assert!(!rig.vring.runs());
        let _kick = rig.kick();
        assert!(rig.vring.runs());
    }

    #[test]
    fn a_queue_that_stops_notifies_its_guest_once() {
        let mut rig = Rig::new();
        for _ in 0..2 {
            let (_kick, call) = (rig.kick(), rig.call());
            assert_eq!(calls(&call), 0, "it starts");
            drop(rig.stop());
            assert!(!rig.vring.runs());
            assert_eq!(calls(&call), 1);
            drop(rig.stop());
            assert_eq!(calls(&call), 0);
        }
    }

    #[test]
    fn a_queue_that_was_not_started_notifies_nobody_when_it_stops() {
        let mut rig = Rig::new();
        let call = rig.call();
        drop(rig.stop());
        assert_eq!(calls(&call), 0);
    }

    #[test]
    fn t119_what_is_no_eventfd_is_given_up_until_there_is_another() {
        let mut rig = Rig::new();
        let file = File::options().write(true).open("/dev/null").unwrap();
        drop(rig.vring.set_call(Some(file)));
        for _ in 0..2 {
            rig.vring.signal(&mut rig.signaller);
            assert!(!rig.vring.call.as_ref().unwrap().works);
        }
        let call = rig.call();
        rig.vring.signal(&mut rig.signaller);
        assert_eq!(calls(&call), 1);
    }

    #[test]
    fn the_addresses_of_a_queue_that_runs_do_not_set_it_back() {
        let mut rig = Rig::new();
        let addresses = |used_index| Addresses {
            descriptors: GuestAddress(0),
            available: GuestAddress(0x1000),
            used: GuestAddress(0x2000),
            used_index,
        };
        rig.vring.set_addresses(&addresses(7)).unwrap();
        let _kick = rig.kick();
        rig.vring.queue_mut().set_next_used(9);
        rig.vring.set_addresses(&addresses(8)).unwrap();
        assert_eq!(rig.vring.queue.next_used(), 9);
        drop(rig.stop());
        rig.vring.set_addresses(&addresses(8)).unwrap();
        assert_eq!(rig.vring.queue.next_used(), 8);
    }

    #[test]
    fn addresses_that_are_not_aligned_are_refused() {
        let mut rig = Rig::new();
        let addresses = Addresses {
            descriptors: GuestAddress(1),
            available: GuestAddress(0),
            used: GuestAddress(0),
            used_index: 0,
        };
        rig.vring.set_addresses(&addresses).unwrap_err();
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        /// Another kick, or none.
        Kick(bool),
        Call(bool),
        Enable(bool),
        /// The front-end takes the queue back.
        Stop,
        /// A write to a kick that was given once, counted from the newest.
        Notify(usize),
        Signal,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            any::<bool>().prop_map(Step::Kick),
            any::<bool>().prop_map(Step::Call),
            any::<bool>().prop_map(Step::Enable),
            Just(Step::Stop),
            (0..3_usize).prop_map(Step::Notify),
            Just(Step::Signal),
        ]
    }

    /// What a front-end has given, in numbers.
    #[derive(Default)]
    struct Model {
        kicks: Vec<OwnedFd>,
        kick: Option<usize>,
        call: Option<OwnedFd>,
        started: bool,
        enabled: bool,
    }

    impl Model {
        fn watched(&self) -> Option<usize> {
            self.kick.filter(|_| self.started && self.enabled)
        }

        /// Takes a step, in both. Returns how often the guest is to be notified.
        fn take(&mut self, step: Step, rig: &mut Rig) -> u64 {
            match step {
                Step::Kick(true) => {
                    self.kick = Some(self.kicks.len());
                    self.kicks.push(rig.kick());
                    self.started = true;
                }
                Step::Kick(false) => {
                    drop(rig.vring.set_kick(None, &mut rig.poller));
                    self.kick = None;
                }
                Step::Call(true) => self.call = Some(rig.call()),
                Step::Call(false) => {
                    drop(rig.vring.set_call(None));
                    self.call = None;
                }
                Step::Enable(enabled) => {
                    rig.enable(enabled);
                    self.enabled = enabled;
                }
                Step::Stop => {
                    drop(rig.stop());
                    self.kick = None;
                    return u64::from(mem::take(&mut self.started));
                }
                Step::Notify(age) => {
                    if let Some(kick) = self.kicks.iter().rev().nth(age) {
                        notify(kick);
                    }
                }
                Step::Signal => {
                    rig.vring.signal(&mut rig.signaller);
                    return 1;
                }
            }
            0
        }

        /// Whether the poller is to tell of the step, before which this kick was watched.
        fn is_told(&self, step: Step, before: Option<usize>) -> bool {
            let Some(watched) = self.watched() else {
                return false;
            };
            let written =
                matches!(step, Step::Notify(age) if watched + age + 1 == self.kicks.len());
            written || before != Some(watched)
        }
    }

    proptest! {
        // To give back what a case has of asynchronous I/O takes the kernel some 30 ms.
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn t118_t122_whatever_a_front_end_gives_its_last_kick_is_heard_and_its_last_call_made(
            steps in vec(step(), 1..40)
        ) {
            let mut rig = Rig::new();
            rig.enable(false);
            let mut model = Model::default();
            for step in steps {
                let before = model.watched();
                let notified = model.take(step, &mut rig);
                prop_assert_eq!(rig.is_told(), model.is_told(step, before), "{:?}", step);
                if let Some(call) = &model.call {
                    prop_assert_eq!(calls(call), notified, "{:?}", step);
                }
                if matches!(step, Step::Stop) {
                    model.call = None;
                }
                prop_assert_eq!(rig.vring.runs(), model.started && model.enabled);
            }
        }
    }
}

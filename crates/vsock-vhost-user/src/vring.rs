// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A queue of the guest (*vring* in vhost-user), with the file descriptors for its notifications.
//!
//! A *kick* is the descriptor that the driver writes to and the event loop watches; a *call* is the
//! one that the device signals. Both come from the front-end, which can keep copies, use them at
//! any time, and pass files of any kind.

use std::fs::File;
use std::io;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use virtio_queue::{Error, Queue, QueueT};
use vm_memory::{Bytes, GuestAddress};
use vsock_epoll::{LoopError, MuxerDriver};

use crate::journal::{Journal, say};
use crate::memory::MappedMemory;
use crate::session::{Layout, Ring};
use crate::signal::{SignalError, Signaller};

/// The event number of all kicks: after any of them, the device looks at all queues. So a late
/// event of a kick that has been replaced does no harm.
pub(crate) const KICK: u32 = 0;

/// The offset of the index in a used ring in bytes (virtio 1.3, 2.7.8).
const USED_INDEX: u64 = 2;

/// Descriptors of a front-end that are no longer used. The front-end can delay closing one for any
/// time, so drop them where no other thread waits.
#[derive(Debug, Default)]
#[must_use = "drop it without the worker's lock"]
pub(crate) struct Discarded {
    _kick: Option<File>,
    _call: Option<File>,
}

/// The guest addresses of a queue's parts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Addresses {
    pub(crate) descriptors: GuestAddress,
    pub(crate) available: GuestAddress,
    pub(crate) used: GuestAddress,
}

/// The result of replacing a kick.
#[derive(Debug)]
pub(crate) struct KickChange {
    pub(crate) discarded: Discarded,
    /// An error if the new kick should be watched and cannot be.
    pub(crate) watched: io::Result<()>,
}

/// Whether the front-end lets a queue run.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Enablement {
    Enabled,
    Disabled,
}

struct Kick {
    file: File,
    watched: bool,
}

struct Call {
    file: File,
    /// Whether the file is an eventfd, as far as is known.
    works: bool,
}

/// A queue.
///
/// It is *started* from its first kick until the front-end stops it, and *enabled* as the front-end
/// requests. It runs, and its kick is watched, while it is both. The device never reads a kick: the
/// event loop reports each write to an eventfd, regardless of what the front-end writes or reads.
pub(crate) struct Vring {
    queue: Queue,
    journal: Arc<Journal>,
    kick: Option<Kick>,
    call: Option<Call>,
    enablement: Enablement,
}

impl Vring {
    pub(crate) fn new(max_size: u16, journal: Arc<Journal>) -> Result<Self, Error> {
        Ok(Self {
            queue: Queue::new(max_size)?,
            journal,
            kick: None,
            call: None,
            enablement: Enablement::Disabled,
        })
    }

    /// Whether the queue is started and enabled.
    pub(crate) fn runs(&self) -> bool {
        self.enablement == Enablement::Enabled && self.queue.ready()
    }

    pub(crate) fn queue_mut(&mut self) -> &mut Queue {
        &mut self.queue
    }

    /// Returns the queue's layout, as far as the front-end has set it.
    pub(crate) fn layout(&self) -> Layout {
        Layout {
            size: self.queue.size(),
            descriptors: self.queue.desc_table(),
            available: self.queue.avail_ring(),
            used: self.queue.used_ring(),
        }
    }

    /// Returns the queue's addresses, as far as the front-end has set them.
    pub(crate) fn addresses(&self) -> Addresses {
        Addresses {
            descriptors: GuestAddress(self.queue.desc_table()),
            available: GuestAddress(self.queue.avail_ring()),
            used: GuestAddress(self.queue.used_ring()),
        }
    }

    /// The device's position in the used ring, which is also its position in the available ring.
    pub(crate) fn position(&self) -> u16 {
        self.queue.next_used()
    }

    /// Moves to the queue's used index, regardless of the front-end's base. Only a device moves
    /// that index, and it holds no buffer, so it is the position in both rings. Returns the ring's
    /// state.
    pub(crate) fn go_to_used_index(&mut self, mem: &MappedMemory) -> Ring {
        let layout = self.layout();
        let index = GuestAddress(layout.used.saturating_add(USED_INDEX));
        // ORDER: Relaxed; partner: none, only the device moves it, and its threads share a lock.
        let used_index = mem.load(index, Ordering::Relaxed);
        // If the ring is not readable, the device reports that when it starts.
        let used_index = used_index.map_or(0, u16::from_le);
        self.queue.set_next_avail(used_index);
        self.queue.set_next_used(used_index);
        Ring { layout, used_index }
    }

    /// Sets the size: a power of two up to the maximum.
    pub(crate) fn set_size(&mut self, size: u16) -> Result<(), Error> {
        self.queue.try_set_size(size)
    }

    /// Sets the queue's addresses.
    pub(crate) fn set_addresses(&mut self, at: &Addresses) -> Result<(), Error> {
        self.queue.try_set_desc_table_address(at.descriptors)?;
        self.queue.try_set_avail_ring_address(at.available)?;
        self.queue.try_set_used_ring_address(at.used)
    }

    /// Replaces the kick. A kick starts the queue.
    pub(crate) fn set_kick(
        &mut self,
        kick: Option<File>,
        event_loop: &mut MuxerDriver,
    ) -> KickChange {
        let discarded = Discarded {
            _kick: self.drop_kick(event_loop),
            _call: None,
        };
        // Removing the kick does not stop the queue: the device still looks at it after other
        // events.
        self.kick = kick.map(|file| Kick {
            file,
            watched: false,
        });
        if self.kick.is_some() {
            self.queue.set_ready(true);
        }
        KickChange {
            discarded,
            watched: self.watch(event_loop),
        }
    }

    /// Replaces the call.
    pub(crate) fn set_call(&mut self, call: Option<File>) -> Discarded {
        let call = call.map(|file| Call { file, works: true });
        let old = mem::replace(&mut self.call, call);
        Discarded {
            _kick: None,
            _call: old.map(|call| call.file),
        }
    }

    pub(crate) fn set_enablement(
        &mut self,
        enablement: Enablement,
        event_loop: &mut MuxerDriver,
    ) -> io::Result<()> {
        self.enablement = enablement;
        self.watch(event_loop)
    }

    /// Stops the queue for the front-end.
    ///
    /// Notifies the guest if the queue was started, because the device may have delayed a
    /// notification. The next device of this queue would not know about it.
    pub(crate) fn stop(
        &mut self,
        event_loop: &mut MuxerDriver,
        signaller: &mut Signaller,
    ) -> Discarded {
        if self.queue.ready() {
            self.queue.set_ready(false);
            self.signal(signaller);
        }
        Discarded {
            _kick: self.drop_kick(event_loop),
            ..self.set_call(None)
        }
    }

    /// Stops the queue and returns it to its initial state.
    pub(crate) fn reset(
        &mut self,
        event_loop: &mut MuxerDriver,
        signaller: &mut Signaller,
    ) -> Discarded {
        let discarded = self.stop(event_loop, signaller);
        self.queue.reset();
        self.enablement = Enablement::Disabled;
        discarded
    }

    /// Notifies the guest that buffers were used.
    pub(crate) fn signal(&mut self, signaller: &mut Signaller) {
        let Some(call) = self.call.as_mut().filter(|call| call.works) else {
            return;
        };
        match signaller.signal(&call.file) {
            Ok(()) => {}
            // The file stays open until the front-end replaces it, because closing a file of
            // another kind here can block.
            Err(SignalError::NoEventfd) => {
                call.works = false;
                say!(
                    self.journal,
                    Warn,
                    "cannot notify the driver: expected an eventfd in SET_VRING_CALL"
                );
            }
            Err(error) => say!(self.journal, Warn, "cannot notify the driver: {error}"),
        }
    }

    /// Watches the kick if and only if the queue runs.
    fn watch(&mut self, event_loop: &mut MuxerDriver) -> io::Result<()> {
        let runs = self.runs();
        let Some(kick) = &mut self.kick else {
            return Ok(());
        };
        if runs && !kick.watched {
            event_loop.watch(KICK, &kick.file)?;
            // The guest may have written to the kick, or filled its queue, before this. There is no
            // edge for that, so make the device look at the queues.
            event_loop.wake();
        } else if !runs && kick.watched {
            unwatch(&kick.file, event_loop, &self.journal);
        }
        kick.watched = runs;
        Ok(())
    }

    /// Removes the kick and stops watching it. Closing our copy is not enough: epoll watches a file
    /// until its last copy is closed, and the front-end may have kept one.
    fn drop_kick(&mut self, event_loop: &mut MuxerDriver) -> Option<File> {
        let Kick { file, watched } = self.kick.take()?;
        if watched {
            unwatch(&file, event_loop, &self.journal);
        }
        Some(file)
    }
}

/// Stops watching a kick, even if others have copies of it.
fn unwatch(kick: &File, event_loop: &mut MuxerDriver, journal: &Journal) {
    if let Err(LoopError::Unwatch { source, .. }) = event_loop.unwatch(kick) {
        say!(journal, Warn, "cannot unwatch a kick: {source}");
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use proptest::collection::vec;
    use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};
    use rustix::event::{EventfdFlags, eventfd};
    use rustix::io::{Errno, read, write};
    use vsock_properties::cases;
    use vsock_proto::GuestCid;

    use super::*;
    use crate::journal;
    use crate::memory::testing::mapped;

    struct Rig {
        vring: Vring,
        event_loop: MuxerDriver,
        signaller: Signaller,
    }

    impl Rig {
        /// Creates an enabled queue.
        fn new() -> Self {
            let event_loop = MuxerDriver::new().unwrap();
            let guest = GuestCid::try_from(3).unwrap();
            let journal = Arc::new(journal::of_guest(guest, event_loop.waker()));
            let mut rig = Self {
                vring: Vring::new(64, Arc::clone(&journal)).unwrap(),
                signaller: Signaller::new(&journal),
                event_loop,
            };
            rig.enable(Enablement::Enabled);
            rig
        }

        fn enable(&mut self, enablement: Enablement) {
            let set = self.vring.set_enablement(enablement, &mut self.event_loop);
            set.unwrap();
        }

        /// Sets a kick, and returns the front-end's copy.
        fn kick(&mut self) -> OwnedFd {
            let kick = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap();
            let copy = File::from(kick.try_clone().unwrap());
            let change = self.vring.set_kick(Some(copy), &mut self.event_loop);
            change.watched.unwrap();
            kick
        }

        /// Sets a call, and returns the front-end's copy.
        fn call(&mut self) -> OwnedFd {
            let call = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap();
            drop(self.vring.set_call(Some(call.try_clone().unwrap().into())));
            call
        }

        fn stop(&mut self) -> Discarded {
            self.vring.stop(&mut self.event_loop, &mut self.signaller)
        }

        /// Whether the event loop has had any event since the last call.
        fn is_told(&mut self) -> bool {
            let mut events = self.event_loop.events();
            events.wait(Some(std::time::Duration::ZERO)).unwrap() > 0
        }
    }

    /// How often an eventfd was written to since the last call.
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
    fn t119_a_file_that_is_not_an_eventfd_is_abandoned_until_it_is_replaced() {
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
    fn t113_a_queue_continues_at_its_used_index() {
        let mem = mapped(0x3000);
        let mut rig = Rig::new();
        let addresses = |descriptors| Addresses {
            descriptors: GuestAddress(descriptors),
            available: GuestAddress(0x1000),
            used: GuestAddress(0x2000),
        };
        rig.vring.set_addresses(&addresses(1)).unwrap_err();
        rig.vring.set_addresses(&addresses(0)).unwrap();
        mem.write_obj(7_u16.to_le(), GuestAddress(0x2002)).unwrap();
        let ring = rig.vring.go_to_used_index(&mem);
        assert_eq!((ring.used_index, ring.layout.used), (7, 0x2000));
        assert_eq!((rig.vring.position(), rig.vring.queue.next_avail()), (7, 7));
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        /// Sets or removes the kick.
        Kick(bool),
        /// Sets or removes the call.
        Call(bool),
        Enable(Enablement),
        Stop,
        /// Writes to a current or former kick, counted from the newest.
        Notify(usize),
        Signal,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            any::<bool>().prop_map(Step::Kick),
            any::<bool>().prop_map(Step::Call),
            Just(Step::Enable(Enablement::Enabled)),
            Just(Step::Enable(Enablement::Disabled)),
            Just(Step::Stop),
            (0..3_usize).prop_map(Step::Notify),
            Just(Step::Signal),
        ]
    }

    /// A model of the queue, from the front-end's point of view.
    #[derive(Default)]
    struct Model {
        /// The front-end's copies of all kicks that it has ever set.
        kicks: Vec<OwnedFd>,
        /// How often each kick was written to.
        notified: Vec<u64>,
        kick: Option<usize>,
        call: Option<OwnedFd>,
        started: bool,
        enabled: bool,
    }

    impl Model {
        fn watched(&self) -> Option<usize> {
            self.kick.filter(|_| self.started && self.enabled)
        }

        /// Takes a step with the model and the queue. Returns how often the guest must be notified.
        fn take(&mut self, step: Step, rig: &mut Rig) -> u64 {
            match step {
                Step::Kick(true) => {
                    self.kick = Some(self.kicks.len());
                    self.kicks.push(rig.kick());
                    self.notified.push(0);
                    self.started = true;
                }
                Step::Kick(false) => {
                    drop(rig.vring.set_kick(None, &mut rig.event_loop));
                    self.kick = None;
                }
                Step::Call(true) => self.call = Some(rig.call()),
                Step::Call(false) => {
                    drop(rig.vring.set_call(None));
                    self.call = None;
                }
                Step::Enable(enablement) => {
                    rig.enable(enablement);
                    self.enabled = enablement == Enablement::Enabled;
                }
                Step::Stop => {
                    drop(rig.stop());
                    self.kick = None;
                    return u64::from(mem::take(&mut self.started));
                }
                Step::Notify(age) => {
                    let mut kicks = self.kicks.iter().zip(&mut self.notified).rev();
                    if let Some((kick, notified)) = kicks.nth(age) {
                        write(kick, &1_u64.to_ne_bytes()).unwrap();
                        *notified += 1;
                    }
                }
                Step::Signal => {
                    rig.vring.signal(&mut rig.signaller);
                    return 1;
                }
            }
            0
        }

        /// Whether the event loop must have an event after the step, before which kick number
        /// `before` was watched.
        fn is_told(&self, step: Step, before: Option<usize>) -> bool {
            let Some(watched) = self.watched() else {
                return false;
            };
            let written =
                matches!(step, Step::Notify(age) if watched + age + 1 == self.kicks.len());
            written || before != Some(watched)
        }
    }

    /// Takes the steps, starting with a disabled queue, and compares the queue with the model after
    /// each one.
    fn follow(steps: &[Step]) {
        let mut rig = Rig::new();
        rig.enable(Enablement::Disabled);
        let mut model = Model::default();
        for &step in steps {
            let before = model.watched();
            let notified = model.take(step, &mut rig);
            assert_eq!(rig.is_told(), model.is_told(step, before), "{step:?}");
            if let Some(call) = &model.call {
                assert_eq!(calls(call), notified, "{step:?}");
            }
            if matches!(step, Step::Stop) {
                model.call = None;
            }
            assert_eq!(rig.vring.runs(), model.started && model.enabled);
        }
        for (kick, notified) in model.kicks.iter().zip(model.notified) {
            assert_eq!(calls(kick), notified, "no kick is read");
        }
    }

    const ON: Step = Step::Enable(Enablement::Enabled);
    const OFF: Step = Step::Enable(Enablement::Disabled);
    const GIVE: Step = Step::Kick(true);
    const NOTIFY: Step = Step::Notify(0);

    #[test]
    fn t118_t122_kicks_and_calls_in_each_order_that_matters() {
        for steps in [
            // Each kick is one event. Setting a kick is one too: the queue may not be empty.
            &[ON, GIVE, NOTIFY, NOTIFY, NOTIFY][..],
            // A kick before the queue is enabled is an event when the queue is enabled.
            &[OFF, GIVE, NOTIFY, ON, OFF, NOTIFY],
            // Writes to a kick that was replaced or removed are not events.
            &[ON, GIVE, GIVE, Step::Notify(1), NOTIFY, Step::Stop, NOTIFY],
            // A queue without a kick does not run.
            &[ON, Step::Kick(false), GIVE],
            // A queue that stops notifies its guest once.
            &[ON, GIVE, Step::Call(true), Step::Stop, Step::Stop],
            &[ON, GIVE, Step::Call(true), Step::Stop, GIVE, Step::Stop],
            // A queue that was not started does not notify its guest.
            &[ON, Step::Call(true), Step::Stop],
        ] {
            follow(steps);
        }
    }

    proptest! {
        // The kernel takes about 30 ms to release the asynchronous I/O context of each case.
        #![proptest_config(cases(64))]

        #[test]
        fn t118_t122_in_any_order_the_last_kick_is_noticed_and_the_last_call_is_signalled(
            steps in vec(step(), 1..40)
        ) {
            follow(&steps);
        }
    }
}

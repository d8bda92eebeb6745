// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A queue of the guest (a *vring*, in the words of vhost-user), and the descriptors by which both
//! sides tell each other of it.

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

/// The number of each kick: the queues are to be looked at, whichever it was. So an event that was
/// taken before the kick was replaced does no harm.
pub(crate) const KICK: u32 = 0;

/// Bytes from the beginning of a used ring to its index (virtio 1.3, 2.7.8).
const USED_INDEX: u64 = 2;

/// Descriptors of a front-end that are no longer used. To close one may take as long as its owner
/// likes, so they are to be dropped where no other thread waits.
#[derive(Debug, Default)]
#[must_use = "to be dropped without the lock"]
pub(crate) struct Discarded {
    _kick: Option<File>,
    _call: Option<File>,
}

/// Where a queue is, in the guest's addresses.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Addresses {
    pub(crate) descriptors: GuestAddress,
    pub(crate) available: GuestAddress,
    pub(crate) used: GuestAddress,
}

/// What follows from another kick.
#[derive(Debug)]
pub(crate) struct KickChange {
    pub(crate) discarded: Discarded,
    /// Whether the new one is watched, where it is to be.
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
    /// It is an eventfd, as far as is known.
    works: bool,
}

/// A queue.
///
/// It is *started* from when it has a kick until the front-end takes it back, and *enabled* as the
/// front-end says. The kick is watched while it is both. A kick is never read: each write to an
/// eventfd is an event of the loop, and what a front-end writes to it, or reads of it, is its own
/// affair.
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

    /// Whether the driver has started the queue, and the front-end lets it run.
    pub(crate) fn runs(&self) -> bool {
        self.enablement == Enablement::Enabled && self.queue.ready()
    }

    pub(crate) fn queue_mut(&mut self) -> &mut Queue {
        &mut self.queue
    }

    /// Where the queue is, as far as the front-end has said.
    pub(crate) fn layout(&self) -> Layout {
        Layout {
            size: self.queue.size(),
            descriptors: self.queue.desc_table(),
            available: self.queue.avail_ring(),
            used: self.queue.used_ring(),
        }
    }

    /// The addresses of the queue, as far as the front-end has set them.
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

    /// Moves to the queue's used index, regardless of the front-end's base: only the device moves
    /// that index, and it holds no buffer. Returns the state of the queue there.
    pub(crate) fn go_to_used_index(&mut self, mem: &MappedMemory) -> Ring {
        let layout = self.layout();
        let index = GuestAddress(layout.used.saturating_add(USED_INDEX));
        // ORDER: Relaxed; partner: none, only the device moves it, and its threads share a lock.
        let used_index = mem.load(index, Ordering::Relaxed);
        // A ring that cannot be read cannot be used, and the device reports that.
        let used_index = used_index.map_or(0, u16::from_le);
        self.queue.set_next_avail(used_index);
        self.queue.set_next_used(used_index);
        Ring { layout, used_index }
    }

    /// Sets the size: a power of two up to the largest.
    pub(crate) fn set_size(&mut self, size: u16) -> Result<(), Error> {
        self.queue.try_set_size(size)
    }

    /// Sets where the queue is.
    pub(crate) fn set_addresses(&mut self, at: &Addresses) -> Result<(), Error> {
        self.queue.try_set_desc_table_address(at.descriptors)?;
        self.queue.try_set_avail_ring_address(at.available)?;
        self.queue.try_set_used_ring_address(at.used)
    }

    /// Takes another kick, or none, and starts with it.
    pub(crate) fn set_kick(
        &mut self,
        kick: Option<File>,
        event_loop: &mut MuxerDriver,
    ) -> KickChange {
        let discarded = Discarded {
            _kick: self.drop_kick(event_loop),
            _call: None,
        };
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

    /// Takes another call, or none.
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

    /// The front-end takes the queue back.
    ///
    /// A queue that was started notifies its guest, because the device may have kept a notification
    /// back: the next device of the queue does not know of it.
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

    /// As it was made.
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

    /// Lets the guest know that buffers were used.
    pub(crate) fn signal(&mut self, signaller: &mut Signaller) {
        let Some(call) = self.call.as_mut().filter(|call| call.works) else {
            return;
        };
        match signaller.signal(&call.file) {
            Ok(()) => {}
            // It stays open until the front-end takes it back: closing a file of another kind can
            // block.
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
    fn watch(&mut self, event_loop: &mut MuxerDriver) -> io::Result<()> {
        let runs = self.runs();
        let Some(kick) = &mut self.kick else {
            return Ok(());
        };
        if runs && !kick.watched {
            event_loop.watch(KICK, &kick.file)?;
            // The guest may have written to it, or filled its queue, before it was watched: no edge
            // comes for that.
            event_loop.wake();
        } else if !runs && kick.watched {
            unwatch(&kick.file, event_loop, &self.journal);
        }
        kick.watched = runs;
        Ok(())
    }

    /// Gives the kick up and stops watching it. Closing our copy would not do: its owner may have
    /// kept one, and an epoll watches until the last copy is closed.
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
    use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_oneof, proptest};
    use rustix::event::{EventfdFlags, eventfd};
    use rustix::io::{Errno, read, write};
    use vsock_proto::GuestCid;

    use super::*;
    use crate::memory::testing::mapped;

    struct Rig {
        vring: Vring,
        event_loop: MuxerDriver,
        signaller: Signaller,
    }

    impl Rig {
        /// A queue that the front-end lets run.
        fn new() -> Self {
            let event_loop = MuxerDriver::new().unwrap();
            let guest = GuestCid::try_from(3).unwrap();
            let journal = Arc::new(Journal::new(guest, event_loop.waker()));
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

        /// Gives the queue a kick, of which this is the front-end's copy.
        fn kick(&mut self) -> OwnedFd {
            let kick = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap();
            let copy = File::from(kick.try_clone().unwrap());
            let change = self.vring.set_kick(Some(copy), &mut self.event_loop);
            change.watched.unwrap();
            kick
        }

        /// Gives the queue a call, of which this is the front-end's copy.
        fn call(&mut self) -> OwnedFd {
            let call = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap();
            drop(self.vring.set_call(Some(call.try_clone().unwrap().into())));
            call
        }

        fn stop(&mut self) -> Discarded {
            self.vring.stop(&mut self.event_loop, &mut self.signaller)
        }

        /// Whether the event loop was told of anything since this was asked last.
        fn is_told(&mut self) -> bool {
            let mut events = self.event_loop.events();
            events.wait(Some(std::time::Duration::ZERO)).unwrap() > 0
        }
    }

    /// How often an eventfd was written to since this was asked last.
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
    fn t113_a_queue_goes_on_at_its_used_index() {
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
        /// Another kick, or none.
        Kick(bool),
        Call(bool),
        Enable(Enablement),
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
            Just(Step::Enable(Enablement::Enabled)),
            Just(Step::Enable(Enablement::Disabled)),
            Just(Step::Stop),
            (0..3_usize).prop_map(Step::Notify),
            Just(Step::Signal),
        ]
    }

    /// What a front-end has given, in numbers.
    #[derive(Default)]
    struct Model {
        kicks: Vec<OwnedFd>,
        /// How often each was written to.
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

        /// Takes a step, in both. Returns how often the guest is to be notified.
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

        /// Whether the event loop is to tell of the step, before which this kick was watched.
        fn is_told(&self, step: Step, before: Option<usize>) -> bool {
            let Some(watched) = self.watched() else {
                return false;
            };
            let written =
                matches!(step, Step::Notify(age) if watched + age + 1 == self.kicks.len());
            written || before != Some(watched)
        }
    }

    /// Takes the steps, with a queue that is disabled at first, and compares the queue with the
    /// model after each.
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
            // Each kick is told once; there may be something in the queue already.
            &[ON, GIVE, NOTIFY, NOTIFY, NOTIFY][..],
            // A kick before the queue is enabled is told when it is.
            &[OFF, GIVE, NOTIFY, ON, OFF, NOTIFY],
            // The copy of a kick that was replaced, or given up, is not heard.
            &[ON, GIVE, GIVE, Step::Notify(1), NOTIFY, Step::Stop, NOTIFY],
            // A queue without a kick does not run.
            &[ON, Step::Kick(false), GIVE],
            // A queue that stops notifies its guest once.
            &[ON, GIVE, Step::Call(true), Step::Stop, Step::Stop],
            &[ON, GIVE, Step::Call(true), Step::Stop, GIVE, Step::Stop],
            // One that was not started does not notify.
            &[ON, Step::Call(true), Step::Stop],
        ] {
            follow(steps);
        }
    }

    proptest! {
        // To give back what a case has of asynchronous I/O takes the kernel some 30 ms.
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn t118_t122_whatever_a_front_end_gives_its_last_kick_is_heard_and_its_last_call_made(
            steps in vec(step(), 1..40)
        ) {
            follow(&steps);
        }
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Questions to a running device.
//!
//! An [`Inspector`] puts a question into the [`Inbox`] and rings a doorbell. The device thread,
//! which owns the device's state, answers one question after each of its steps. So a question needs
//! no lock that could delay bytes, and a busy device only delays the answer.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};
use vsock_epoll::{LoopError, MuxerDriver};
use vsock_muxer::{ConnectionId, ConnectionInfo, ListPosition, MuxerCounters, MuxerGauges};
use vsock_proto::{GuestCid, Tick};
use vsock_virtio::{DeviceCounters, PacketTap, QueueDepths};

use crate::capture::Capture;
use crate::error::VhostUserError;
use crate::inquiry::{Inquiry, InspectError, Reply, inquiry};

/// The event number of the doorbell in the event loop.
pub(crate) const INSPECTION: u32 = 1;

/// The maximum number of waiting questions.
const CAPACITY: usize = 64;

/// Figures of a device, all from the same moment.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct DeviceReport {
    /// Whether the guest's driver is up: see [`is_active`](crate::VhostUserVsock::is_active).
    pub is_active: bool,
    /// Counters of connections and packets.
    pub connections: MuxerCounters,
    /// The current numbers of connections.
    pub gauges: MuxerGauges,
    /// Counters of the queues.
    pub queues: DeviceCounters,
    /// How many chains wait in the queues.
    pub depths: QueueDepths,
    /// How many times kicks from the guest woke the device; simultaneous kicks count once.
    pub kicks: u64,
}

/// The connections of a device.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ConnectionList {
    /// When the list was completed, for [`ConnectionInfo::age`]. This clock stops while the guest
    /// is paused.
    pub at: Tick,
    /// Every connection, in no particular order.
    pub connections: Vec<ConnectionInfo>,
}

/// A question to a device.
pub(crate) enum Question {
    Report(Reply<DeviceReport>),
    List(Listing),
    Reset(ConnectionId, Reply<bool>),
    Capture(Box<dyn PacketTap>, Reply<()>),
}

/// An incomplete list of connections.
pub(crate) struct Listing {
    pub(crate) position: ListPosition,
    pub(crate) list: ConnectionList,
    pub(crate) reply: Reply<ConnectionList>,
}

impl Question {
    fn is_given_up(&self) -> bool {
        match self {
            Self::Report(reply) => reply.is_given_up(),
            Self::List(listing) => listing.reply.is_given_up(),
            Self::Reset(_, reply) => reply.is_given_up(),
            Self::Capture(_, reply) => reply.is_given_up(),
        }
    }
}

/// Questions on their way to the device thread.
pub(crate) struct Inbox {
    state: Mutex<State>,
    /// Wakes the thread. It is watched for edges, and never read.
    doorbell: EventFd,
}

#[derive(Default)]
struct State {
    questions: VecDeque<Question>,
    closed: bool,
}

impl Inbox {
    pub(crate) fn new(event_loop: &mut MuxerDriver) -> Result<Self, VhostUserError> {
        let doorbell =
            EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK).map_err(VhostUserError::Resources)?;
        let watched = event_loop.watch(INSPECTION, &doorbell);
        watched.map_err(|error: LoopError| VhostUserError::Resources(error.into()))?;
        Ok(Self {
            state: Mutex::default(),
            doorbell,
        })
    }

    /// Adds a question.
    fn put(&self, question: Question) -> Result<(), InspectError> {
        let mut state = self.state();
        if state.closed {
            return Err(InspectError::Ended);
        }
        if state.questions.len() >= CAPACITY {
            return Err(InspectError::Busy);
        }
        state.questions.push_back(question);
        // Ring after the question is in the queue and the lock is free, so that the woken thread
        // finds it without waiting.
        drop(state);
        self.ring();
        Ok(())
    }

    /// Takes the next question whose answer is still wanted. If there are more, the doorbell rings
    /// again, so that each step of the device answers only one.
    pub(crate) fn take(&self) -> Option<Question> {
        loop {
            let mut state = self.state();
            // Skip cancelled questions here, so that they do not use up the step.
            let question = state.questions.pop_front()?;
            let more = !state.questions.is_empty();
            drop(state);
            if question.is_given_up() {
                continue;
            }
            if more {
                self.ring();
            }
            return Some(question);
        }
    }

    /// Continues with a question in a later step, after those that have arrived meanwhile.
    pub(crate) fn put_back(&self, question: Question) {
        self.state().questions.push_back(question);
        self.ring();
    }

    /// Refuses all questions, because the device thread has ended.
    pub(crate) fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        let questions = std::mem::take(&mut state.questions);
        // Dropping the questions wakes the waiting threads and tasks: not under the lock.
        drop(state);
        drop(questions);
    }

    fn ring(&self) {
        // This fails only if the counter is full, which would take 2^64 rings.
        let _rung = self.doorbell.write(1);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic cannot leave the queue and the flag inconsistent.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A handle that asks a running device for figures and connections, closes connections and starts
/// captures, from any thread.
///
/// The device thread answers one question after each of its steps, and produces long lists in
/// parts, so no question delays bytes. Each method returns an [`Inquiry`] for the answer, which is
/// an error if the device has ended.
///
/// ```no_run
/// use std::time::Duration;
/// use vsock_vhost_user::VhostUserVsockBuilder;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (builder, _connector) = VhostUserVsockBuilder::new(3, "/run/vm3/vhost.sock").in_process()?;
/// let device = builder.spawn()?;
/// let inspector = device.inspector();
///
/// let second = Duration::from_secs(1);
/// let report = inspector.report().wait(second)?;
/// println!("{} bytes from the guest", report.connections.bytes_from_guest);
/// let list = inspector.connections().wait(second)?;
/// for connection in &list.connections {
///     println!("{:?}, {:?} old", connection.key, connection.age(list.at));
///     inspector.reset(connection.id).wait(second)?;
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Inspector {
    guest: GuestCid,
    inbox: Arc<Inbox>,
}

impl Inspector {
    pub(crate) const fn new(guest: GuestCid, inbox: Arc<Inbox>) -> Self {
        Self { guest, inbox }
    }

    /// Returns the guest's CID.
    #[must_use]
    pub const fn guest_cid(&self) -> GuestCid {
        self.guest
    }

    /// Asks for all figures.
    pub fn report(&self) -> Inquiry<DeviceReport> {
        self.ask(Question::Report)
    }

    /// Asks for the connections.
    pub fn connections(&self) -> Inquiry<ConnectionList> {
        self.ask(|reply| {
            Question::List(Listing {
                position: ListPosition::default(),
                list: ConnectionList::default(),
                reply,
            })
        })
    }

    /// Closes a connection on both sides: aborts the host's stream, and sends an RST to the guest.
    /// Data in flight is lost. The answer is whether the connection existed.
    pub fn reset(&self, id: ConnectionId) -> Inquiry<bool> {
        self.ask(|reply| Question::Reset(id, reply))
    }

    /// Captures every packet of the guest from the answer on, as
    /// [`start_capture`](crate::VhostUserVsock::start_capture) does, but without waiting for a busy
    /// device.
    pub fn start_capture(&self, capture: &Capture) -> Inquiry<()> {
        let tap = Box::new(capture.tap(self.guest));
        self.ask(|reply| Question::Capture(tap, reply))
    }

    fn ask<T>(&self, question: impl FnOnce(Reply<T>) -> Question) -> Inquiry<T> {
        let (reply, inquiry) = inquiry();
        match self.inbox.put(question(reply)) {
            Ok(()) => inquiry,
            Err(error) => Inquiry::refused(error),
        }
    }
}

impl fmt::Debug for Inspector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inspector")
            .field("guest_cid", &self.guest)
            .finish_non_exhaustive()
    }
}

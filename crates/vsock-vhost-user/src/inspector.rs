// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What can be asked of a running device, and of it alone: its thread answers between two steps.

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

/// The number of the doorbell's events.
pub(crate) const INSPECTION: u32 = 1;

/// Questions that wait at most.
const CAPACITY: usize = 64;

/// Figures of a device, all of one moment.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct DeviceReport {
    /// Whether the guest's driver is up: see [`is_active`](crate::VhostUserVsock::is_active).
    pub is_active: bool,
    /// What was counted of connections and packets.
    pub connections: MuxerCounters,
    /// How many connections there are.
    pub gauges: MuxerGauges,
    /// What was counted of the queues.
    pub queues: DeviceCounters,
    /// How many chains wait in them.
    pub depths: QueueDepths,
    /// Notifications from the guest, as far as each woke the device; several at a time are one.
    pub kicks: u64,
}

/// The connections of a device.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ConnectionList {
    /// When the list was complete, for [`ConnectionInfo::age`]. This time stops while the guest is
    /// paused.
    pub at: Tick,
    /// Every connection, in no particular order.
    pub connections: Vec<ConnectionInfo>,
}

/// What is asked of a device.
pub(crate) enum Question {
    Report(Reply<DeviceReport>),
    List(Listing),
    Reset(ConnectionId, Reply<bool>),
    Capture(Box<dyn PacketTap>, Reply<()>),
}

/// A list of connections, as far as it has come.
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

/// Questions on their way to the device's thread.
pub(crate) struct Inbox {
    state: Mutex<State>,
    /// Rings for the thread. It is never read: each ring is an edge.
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

    /// Asks.
    fn put(&self, question: Question) -> Result<(), InspectError> {
        let mut state = self.state();
        if state.closed {
            return Err(InspectError::Ended);
        }
        if state.questions.len() >= CAPACITY {
            return Err(InspectError::Busy);
        }
        state.questions.push_back(question);
        drop(state);
        self.ring();
        Ok(())
    }

    /// The next question that is still wanted. The doorbell rings again if there are more.
    pub(crate) fn take(&self) -> Option<Question> {
        loop {
            let mut state = self.state();
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

    /// Goes on with a question in a later step, after those that have come meanwhile.
    pub(crate) fn put_back(&self, question: Question) {
        self.state().questions.push_back(question);
        self.ring();
    }

    /// The device's thread has ended: no question is answered any more.
    pub(crate) fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        let questions = std::mem::take(&mut state.questions);
        // Not under the lock: this wakes those who wait.
        drop(state);
        drop(questions);
    }

    fn ring(&self) {
        // It fails if the counter is full, which would take as many rings as it can count.
        let _rung = self.doorbell.write(1);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A queue and a flag: whole after a panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks a running device for figures and connections, from any thread; ends connections, and starts
/// captures.
///
/// The device's thread answers one question after each of its steps, and lists long lists in parts,
/// so no question delays bytes. [`Inquiry`] is the way to the answer. A device that has ended says
/// so.
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

    /// The guest's CID.
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

    /// Ends a connection on both sides: the host's stream is aborted, and the guest gets an RST.
    /// What is in flight is lost. The answer is whether there was such a connection.
    pub fn reset(&self, id: ConnectionId) -> Inquiry<bool> {
        self.ask(|reply| Question::Reset(id, reply))
    }

    /// Shows every packet of the guest to a capture from the answer on, as
    /// [`start_capture`](crate::VhostUserVsock::start_capture) does, and does not wait for a device
    /// that is busy.
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

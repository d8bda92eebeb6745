// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The graceful shutdown of a device whose guest goes on.

use vsock_proto::Tick;

use crate::muxer::{Life, Muxer};

impl Muxer {
    /// Begins a graceful shutdown, of a device that is about to stop while its guest goes on: every connection is closed, and each that
    /// the guest knows of is owed its RST. So is whatever it asks for from now on. Backends are no
    /// longer watched, and no client is accepted. Only [`reset`](Self::reset) or
    /// [`activate`](Self::activate) ends that.
    ///
    /// The RSTs take buffers of the guest, one each, in as many calls of
    /// [`transmit`](Self::transmit) as that takes; the caller decides how long it waits for them while
    /// the muxer [owes](Self::owes_resets) some, and takes the guest's packets meanwhile: a guest may
    /// have no buffers before its own packets are taken.
    ///
    /// An RST cuts: what a host component has written and the guest has not in its buffers is lost, and
    /// so is what the guest has sent and a component has not taken. A component that must not lose
    /// anything ends its connections before the device stops. A REQUEST that the guest has not yet been
    /// given is forgotten, and its client closed.
    ///
    /// A muxer that is not active owes its guest nothing, and stays as it is.
    ///
    /// ```
    /// use vsock_muxer::{GuestBuffers, Muxer, Tick};
    ///
    /// /// The beginning of a stop. Returns whether the guest knows of the end of its
    /// /// connections; if
    /// /// not, this goes on when it has more buffers, or until the device has waited for long
    /// /// enough.
    /// fn shut_down(muxer: &mut Muxer, now: Tick, buffers: &mut dyn GuestBuffers) -> bool {
    ///     muxer.begin_shutdown(now);
    ///     while let Some(action) = muxer.next_action() {
    ///         // The event loop carries it out.
    ///         drop(action);
    ///     }
    ///     muxer.transmit(now, buffers, usize::MAX);
    ///     !muxer.owes_resets()
    /// }
    /// ```
    pub fn begin_shutdown(&mut self, now: Tick) {
        if self.life == Life::Inactive {
            return;
        }
        self.life = Life::ShuttingDown;
        self.unwatch_backends();
        self.cut(now);
    }

    /// Whether a [shutdown](Self::begin_shutdown) has begun of which the guest does not have every RST.
    #[must_use]
    pub fn owes_resets(&self) -> bool {
        self.life == Life::ShuttingDown && self.wants_transmit()
    }
}

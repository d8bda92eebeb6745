// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The graceful shutdown of a device whose guest continues to run.

use vsock_proto::Tick;

use crate::muxer::{Life, Muxer};

impl Muxer {
    /// Begins a graceful shutdown of a device that is about to stop while its guest continues.
    ///
    /// Closes every connection, and makes an RST pending for each one of which the guest has a
    /// record, and for everything that the guest requests from now on. Backends are no longer
    /// watched, and no clients are accepted. Only [`reset`](Self::reset) or
    /// [`activate`](Self::activate) ends this state.
    ///
    /// Each RST needs a buffer of the guest, so sending them may take several calls of
    /// [`transmit`](Self::transmit). While RSTs [are pending](Self::owes_resets), the caller must
    /// keep taking the guest's packets, because the guest may provide no buffers before that; the
    /// caller decides how long to wait.
    ///
    /// An RST discards data: whatever a host component has written and the guest has not received
    /// is lost, and so is whatever the guest has sent and a component has not read. A component
    /// that must not lose data must end its connections before the device stops. A REQUEST that the
    /// guest has not yet received is dropped, and its client closed.
    ///
    /// Has no effect on a muxer that is not active.
    ///
    /// ```
    /// use vsock_muxer::{GuestBuffers, Muxer, Tick};
    ///
    /// /// Begins to stop. Returns whether the guest has learned that its connections ended. If
    /// /// not, `transmit` is called again when the guest provides more buffers, until the device
    /// /// has waited long enough.
    /// fn shut_down(muxer: &mut Muxer, now: Tick, buffers: &mut dyn GuestBuffers) -> bool {
    ///     muxer.begin_shutdown(now);
    ///     while let Some(action) = muxer.next_action() {
    ///         // The event loop executes the action.
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

    /// Returns whether a [shutdown](Self::begin_shutdown) has begun and RSTs are still pending for
    /// the guest.
    #[must_use]
    pub fn owes_resets(&self) -> bool {
        self.life == Life::ShuttingDown && self.wants_transmit()
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use vsock_muxer_harness::guest::{GuestRead, SocketId, SocketState};
use vsock_proto::ShutdownFlags;

use super::rig::Rig;

/// How much the guest's program reads at once.
const PIECE: usize = 64 * 1024;

/// The service in the guest: sends back what comes, and ends when it ends.
pub(super) struct Echo {
    socket: SocketId,
    backlog: Vec<u8>,
    ended: bool,
}

impl Echo {
    pub(super) fn new(socket: SocketId) -> Self {
        Self {
            socket,
            backlog: Vec::new(),
            ended: false,
        }
    }

    pub(super) fn serve(&mut self, rig: &mut Rig) {
        let guest = &mut rig.guest;
        while guest.state(self.socket) == Some(SocketState::Connected) && !self.ended {
            if self.backlog.is_empty() {
                match guest.read(self.socket, PIECE) {
                    Ok(GuestRead::Bytes(bytes)) => self.backlog = bytes,
                    Ok(GuestRead::End) => {
                        self.ended = guest.shutdown(self.socket, ShutdownFlags::SEND).is_ok();
                        return;
                    }
                    _ => return,
                }
            }
            match guest.write(self.socket, &self.backlog) {
                Ok(0) | Err(_) => return,
                Ok(written) => drop(self.backlog.drain(..written)),
            }
        }
    }
}

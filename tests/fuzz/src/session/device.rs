// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A device that accepts front-ends, with a host component.

use std::mem::ManuallyDrop;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::mpsc::channel;
use std::thread;

use tempfile::TempDir;
use vhost::vhost_user::message::FrontendReq;
use vsock_compliance::poll::{Deadline, PollInterest, wait_ready};
use vsock_driver::{Descriptor, bytes, filled};
use vsock_proto::{Header, Op};
use vsock_vhost_user::{AccessPlatform, VhostUserVsock, VhostUserVsockBuilder};

use super::front_end::{FrontEnd, LIMIT};
use super::guest::Guest;
use crate::component::{Component, request};

/// The device that one input is run against.
pub(super) struct Rig {
    directory: TempDir,
    /// Not dropped after a failure, because that could wait for a thread that hangs.
    device: ManuallyDrop<VhostUserVsock>,
    pub(super) component: Component,
}

impl Rig {
    /// Returns `None` if the process has no descriptors left.
    pub(super) fn new() -> Option<Self> {
        let directory = TempDir::new().ok()?;
        let builder = VhostUserVsockBuilder::new(3, directory.path().join("vhost.sock"))
            .access_platform(AccessPlatform::Offered);
        let (builder, connector) = builder.in_process().ok()?;
        let component = Component::new(&connector)?;
        Some(Self {
            directory,
            device: ManuallyDrop::new(builder.spawn().ok()?),
            component,
        })
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.directory.path().join("vhost.sock")
    }

    /// Checks that a well-behaved front-end is served.
    pub(super) fn serves_again(&mut self) {
        let socket = self.socket();
        let (Some(mut front_end), Some(mut guest)) = (FrontEnd::connect(&socket), Guest::new())
        else {
            return;
        };
        // The device acknowledges requests only after this feature is negotiated.
        let mut negotiated = false;
        for message in guest.set_up() {
            match FrontendReq::try_from(message.request) {
                Ok(FrontendReq::GET_FEATURES | FrontendReq::GET_PROTOCOL_FEATURES) => {
                    front_end.ask(message, true);
                }
                _ if negotiated => front_end.ask(message, false),
                request => {
                    negotiated = request == Ok(FrontendReq::SET_PROTOCOL_FEATURES);
                    front_end.send(&message);
                }
            }
        }
        let Guest { memory, rings, .. } = &mut guest;
        let [rx, tx, _] = rings;
        // One buffer for the response, the others for a farewell: without room the device would
        // wait.
        for (head, addr) in [(0, 0x5000), (1, 0x6000), (2, 0x7000)] {
            rx.chain(memory, head, &[Descriptor::writable(addr, 4096)]);
            rx.offer(memory, head);
        }
        filled(memory, 0x4000, &request());
        tx.chain(memory, 0, &[Descriptor::readable(0x4000, 44)]);
        tx.offer(memory, 0);
        guest.kick(1);
        let deadline = Deadline::after(LIMIT);
        while guest.rings[0].used_index(&guest.memory) == 0 {
            let called = wait_ready(guest.calls[0].as_raw_fd(), PollInterest::Read, deadline);
            called.expect("the guest is notified of the response");
        }
        let answer = bytes(&guest.memory, 0x5000, Header::LEN);
        let answer = Header::decode(&answer.try_into().expect("as long as a header"));
        assert_eq!(answer.op, u16::from(Op::Response), "{answer:?}");
        front_end.finish();
    }

    /// Checks that the device stops in time and without a panic.
    pub(super) fn stop(self) {
        let (done, stopped) = channel();
        let device = ManuallyDrop::into_inner(self.device);
        let stop = thread::spawn(move || done.send(device.stop()));
        let how = stopped
            .recv_timeout(LIMIT)
            .expect("the device stops in time");
        how.expect("no device thread has panicked");
        stop.join()
            .expect("the thread does not panic")
            .expect("the receiver still exists");
    }
}

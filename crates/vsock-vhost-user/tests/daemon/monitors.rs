// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The front-ends of several VMMs: the requests that each of them sends, and their order, according
//! to its source code. Each is a script for a [`Vmm`], which implements the messages.

use vhost::VhostBackend;
use vhost::vhost_user::message::FrontendReq;
use vhost::vhost_user::{VhostUserFrontend, VhostUserProtocolFeatures};

use crate::vmm::{EVENT, RX, TX, Vmm};

/// The behaviour of one VMM.
pub(crate) struct Monitor {
    pub(crate) name: &'static str,
    /// The queues that it passes to the device.
    pub(crate) queues: &'static [usize],
    /// It has connected.
    pub(crate) connect: fn(&mut Vmm),
    /// It has reconnected while its guest continues; `None` if it never does.
    pub(crate) reconnect: Option<fn(&mut Vmm, u64)>,
    /// The guest's driver is ready, with these features.
    pub(crate) start: fn(&mut Vmm, u64),
    /// The guest's driver is reset.
    pub(crate) reset: fn(&mut Vmm),
    /// The guest is paused and then resumes with these features; `None` if the VMM sends nothing.
    pub(crate) pause: Option<Pause>,
}

#[derive(Clone, Copy)]
pub(crate) struct Pause {
    /// Returns the state that the VMM must remember.
    pub(crate) begin: fn(&mut Vmm) -> [u16; 3],
    pub(crate) end: fn(&mut Vmm, u64, [u16; 3]),
}

const PACKETS: &[usize] = &[RX, TX];
const ALL: &[usize] = &[RX, TX, EVENT];

/// The bit for protocol features, which drivers do not know.
const PROTOCOL_FEATURES: u64 = 1 << 30;

/// QEMU from 8.2 on (`vhost.c`, `vhost-user.c`, `vhost-user-vsock.c`). It serves the event queue
/// itself.
pub(crate) const QEMU: Monitor = Monitor {
    name: "QEMU",
    queues: PACKETS,
    connect: |vmm| {
        vmm.frontend.get_features().unwrap();
        vmm.agree_on(
            VhostUserProtocolFeatures::MQ
                | VhostUserProtocolFeatures::CONFIG
                | VhostUserProtocolFeatures::REPLY_ACK
                | VhostUserProtocolFeatures::RESET_DEVICE,
        );
        vmm.frontend.get_queue_num().unwrap();
        vmm.frontend.set_owner().unwrap();
        vmm.frontend.get_features().unwrap();
        for index in [RX, TX] {
            let call = &vmm.rings[index].call;
            vmm.frontend.set_vring_call(index, call).unwrap();
        }
        vmm.config(0, 8);
        // The machine is reset before its guest runs.
        assert!(vmm.request(FrontendReq::RESET_DEVICE, &[], &[]));
    },
    reconnect: None,
    start: |vmm, features| qemu_start(vmm, features, [0; 3]),
    reset: |vmm| {
        qemu_stop(vmm);
        assert!(vmm.request(FrontendReq::RESET_DEVICE, &[], &[]));
    },
    pause: Some(Pause {
        begin: qemu_stop,
        end: qemu_start,
    }),
};

/// QEMU before 8.2, which sends the same requests for a reset as for a pause.
pub(crate) const QEMU_7: Monitor = Monitor {
    name: "QEMU 7",
    reset: |vmm| {
        qemu_stop(vmm);
    },
    ..QEMU
};

fn qemu_start(vmm: &mut Vmm, features: u64, bases: [u16; 3]) {
    let frontend = &mut vmm.frontend;
    frontend.set_features(features | PROTOCOL_FEATURES).unwrap();
    vmm.share_memory().unwrap();
    for &index in PACKETS {
        set_num(vmm, index);
        vmm.frontend.set_vring_base(index, bases[index]).unwrap();
        set_addr(vmm, index);
        set_kick(vmm, index);
        set_call(vmm, index);
    }
    enable(vmm, PACKETS, true);
}

fn qemu_stop(vmm: &mut Vmm) -> [u16; 3] {
    enable(vmm, PACKETS, false);
    let [rx, tx] = [RX, TX].map(|index| get_base(vmm, index));
    [rx, tx, 0]
}

/// Cloud Hypervisor (`vu_common_ctrl.rs`, `generic_vhost_user.rs`).
pub(crate) const CLOUD_HYPERVISOR: Monitor = Monitor {
    name: "Cloud Hypervisor",
    queues: ALL,
    connect: |vmm| {
        cloud_hypervisor_owns(vmm);
        vmm.frontend.get_queue_num().unwrap();
    },
    reconnect: Some(|vmm, features| {
        cloud_hypervisor_owns(vmm);
        (CLOUD_HYPERVISOR.start)(vmm, features);
    }),
    start: |vmm, features| {
        let frontend = &mut vmm.frontend;
        frontend.set_features(features | PROTOCOL_FEATURES).unwrap();
        vmm.share_memory().unwrap();
        for &index in ALL {
            set_num(vmm, index);
        }
        for &index in ALL {
            set_addr(vmm, index);
            // The available index, regardless of how many chains were used.
            let available = vmm.rings[index].available();
            vmm.frontend.set_vring_base(index, available).unwrap();
            set_call(vmm, index);
            set_kick(vmm, index);
        }
        enable(vmm, ALL, true);
    },
    reset: |vmm| {
        for &index in ALL {
            enable(vmm, &[index], false);
            get_base(vmm, index);
        }
    },
    pause: Some(Pause {
        begin: |vmm| {
            enable(vmm, ALL, false);
            [0; 3]
        },
        end: |vmm, _, _| enable(vmm, ALL, true),
    }),
};

fn cloud_hypervisor_owns(vmm: &mut Vmm) {
    vmm.frontend.set_owner().unwrap();
    vmm.frontend.get_features().unwrap();
    vmm.agree_on(
        VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::CONFIG
            | VhostUserProtocolFeatures::REPLY_ACK,
    );
}

/// Early versions of Cloud Hypervisor, which send the same requests for a reset as for a pause.
pub(crate) const EARLY_CLOUD_HYPERVISOR: Monitor = Monitor {
    name: "early Cloud Hypervisor",
    reset: |vmm| enable(vmm, ALL, false),
    ..CLOUD_HYPERVISOR
};

/// crosvm (`vhost_user_frontend/mod.rs`).
pub(crate) const CROSVM: Monitor = Monitor {
    name: "crosvm",
    queues: ALL,
    connect: |vmm| {
        vmm.frontend.set_owner().unwrap();
        vmm.frontend.get_features().unwrap();
        vmm.frontend.set_features(PROTOCOL_FEATURES).unwrap();
        vmm.agree_on(VhostUserProtocolFeatures::MQ | VhostUserProtocolFeatures::CONFIG);
        vmm.frontend.get_queue_num().unwrap();
    },
    reconnect: None,
    start: |vmm, features| {
        // As the driver writes them: first the lower half, then all.
        let low = features & u64::from(u32::MAX) | PROTOCOL_FEATURES;
        vmm.frontend.set_features(low).unwrap();
        vmm.frontend.set_features(features | low).unwrap();
        crosvm_activate(vmm, [0; 3]);
    },
    reset: |vmm| {
        crosvm_stop(vmm);
    },
    pause: Some(Pause {
        begin: crosvm_stop,
        end: |vmm, _, bases| crosvm_activate(vmm, bases),
    }),
};

fn crosvm_activate(vmm: &mut Vmm, bases: [u16; 3]) {
    vmm.share_memory().unwrap();
    for &index in ALL {
        set_num(vmm, index);
        set_addr(vmm, index);
        vmm.frontend.set_vring_base(index, bases[index]).unwrap();
        set_call(vmm, index);
        set_kick(vmm, index);
        enable(vmm, &[index], true);
    }
}

fn crosvm_stop(vmm: &mut Vmm) -> [u16; 3] {
    [RX, TX, EVENT].map(|index| {
        enable(vmm, &[index], false);
        get_base(vmm, index)
    })
}

/// libkrun (`vhost_user/device.rs`). It does not wait for replies, and sends `SET_OWNER` for each
/// driver.
pub(crate) const LIBKRUN: Monitor = Monitor {
    name: "libkrun",
    queues: ALL,
    connect: |vmm| {
        vmm.frontend.get_features().unwrap();
        vmm.agree_on(VhostUserProtocolFeatures::MQ | VhostUserProtocolFeatures::CONFIG);
        vmm.frontend.get_queue_num().unwrap();
    },
    reconnect: None,
    start: |vmm, features| {
        vmm.frontend.set_owner().unwrap();
        vmm.share_memory().unwrap();
        let frontend = &mut vmm.frontend;
        frontend.set_features(features | PROTOCOL_FEATURES).unwrap();
        for &index in ALL {
            set_num(vmm, index);
            vmm.frontend.set_vring_base(index, 0).unwrap();
            set_addr(vmm, index);
            set_kick(vmm, index);
            set_call(vmm, index);
            enable(vmm, &[index], true);
        }
    },
    reset: |vmm| {
        enable(vmm, ALL, false);
        // libkrun does not wait for a reply. But a guest takes some time before it reuses its
        // memory.
        vmm.features();
    },
    pause: None,
};

fn set_num(vmm: &mut Vmm, index: usize) {
    let size = crate::ring::SIZE;
    vmm.frontend.set_vring_num(index, size).unwrap();
}

fn set_addr(vmm: &mut Vmm, index: usize) {
    let config = vmm.rings[index].config();
    vmm.frontend.set_vring_addr(index, &config).unwrap();
}

fn set_kick(vmm: &mut Vmm, index: usize) {
    let kick = &vmm.rings[index].kick;
    vmm.frontend.set_vring_kick(index, kick).unwrap();
}

fn set_call(vmm: &mut Vmm, index: usize) {
    let call = &vmm.rings[index].call;
    vmm.frontend.set_vring_call(index, call).unwrap();
}

fn enable(vmm: &mut Vmm, queues: &[usize], is_enabled: bool) {
    for &index in queues {
        vmm.frontend.set_vring_enable(index, is_enabled).unwrap();
    }
}

fn get_base(vmm: &mut Vmm, index: usize) -> u16 {
    let base = vmm.frontend.get_vring_base(index).unwrap();
    u16::try_from(base).unwrap()
}

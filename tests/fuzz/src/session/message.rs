// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Messages of a front-end, as bytes.

use std::os::fd::OwnedFd;

use super::guest::{Guest, USER};
use crate::bytes::Bytes;

pub(super) const GET_FEATURES: u32 = 1;
pub(super) const SET_FEATURES: u32 = 2;
pub(super) const SET_OWNER: u32 = 3;
pub(super) const SET_MEM_TABLE: u32 = 5;
const SET_LOG_BASE: u32 = 6;
const SET_LOG_FD: u32 = 7;
pub(super) const SET_VRING_NUM: u32 = 8;
pub(super) const SET_VRING_ADDR: u32 = 9;
pub(super) const SET_VRING_BASE: u32 = 10;
const GET_VRING_BASE: u32 = 11;
pub(super) const SET_VRING_KICK: u32 = 12;
pub(super) const SET_VRING_CALL: u32 = 13;
const SET_VRING_ERR: u32 = 14;
pub(super) const GET_PROTOCOL_FEATURES: u32 = 15;
pub(super) const SET_PROTOCOL_FEATURES: u32 = 16;
pub(super) const SET_VRING_ENABLE: u32 = 18;
const SET_BACKEND_REQ_FD: u32 = 21;
const GET_CONFIG: u32 = 24;
const SET_CONFIG: u32 = 25;
const GET_INFLIGHT_FD: u32 = 31;
const SET_INFLIGHT_FD: u32 = 32;
const ADD_MEM_REG: u32 = 37;
const REM_MEM_REG: u32 = 38;
const SET_DEVICE_STATE_FD: u32 = 42;

/// The version of the protocol, in the flags.
const VERSION: u32 = 1;
const NEED_REPLY: u32 = 8;

/// A message, right or wrong.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) request: u32,
    pub(super) need_reply: bool,
    /// What the header says of the body.
    pub(super) size: u32,
    pub(super) body: Vec<u8>,
    pub(super) descriptors: Vec<OwnedFd>,
}

impl Message {
    /// As it should be.
    pub(super) fn new(request: u32, body: Vec<u8>) -> Self {
        Self {
            request,
            need_reply: false,
            size: u32::try_from(body.len()).unwrap_or(u32::MAX),
            body,
            descriptors: Vec::new(),
        }
    }

    pub(super) fn with(mut self, descriptor: Option<OwnedFd>) -> Self {
        self.descriptors.extend(descriptor);
        self
    }

    /// Whether the request is one that comes with a descriptor.
    pub(super) const fn wants_descriptor(&self) -> bool {
        matches!(
            self.request,
            SET_MEM_TABLE
                | SET_LOG_BASE
                | SET_LOG_FD
                | SET_VRING_KICK
                | SET_VRING_CALL
                | SET_VRING_ERR
                | SET_BACKEND_REQ_FD
                | SET_INFLIGHT_FD
                | ADD_MEM_REG
                | SET_DEVICE_STATE_FD
        )
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let flags = VERSION | if self.need_reply { NEED_REPLY } else { 0 };
        let mut bytes = words(&[self.request, flags, self.size]);
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

/// Words as they lie in a message.
pub(super) fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// Long words as they lie in a message.
pub(super) fn longs(longs: &[u64]) -> Vec<u8> {
    longs.iter().flat_map(|long| long.to_le_bytes()).collect()
}

/// A region of memory: where the guest and the front-end have it, and where it is in its file.
pub(super) fn region(guest: u64, size: u64, offset: u64) -> Vec<u8> {
    longs(&[guest, size, USER + guest, offset])
}

/// A request with a body of its kind.
pub(super) fn any(request: u32, data: &mut Bytes<'_>, guest: &Guest) -> Message {
    let index = u32::from(data.byte()) % 4;
    let body = match request {
        SET_FEATURES | SET_PROTOCOL_FEATURES => longs(&[long(data)]),
        SET_MEM_TABLE => {
            let count = index + 1;
            let regions = (0..count).flat_map(|_| any_region(data));
            [words(&[count, 0]), regions.collect()].concat()
        }
        SET_LOG_BASE => longs(&[long(data), long(data)]),
        SET_VRING_NUM | SET_VRING_BASE | GET_VRING_BASE | SET_VRING_ENABLE => {
            words(&[index, data.number()])
        }
        SET_VRING_ADDR => {
            let parts = guest
                .parts(index as usize % 3)
                .map(|part| match data.byte() {
                    0..128 => part,
                    _ => USER.wrapping_add(long(data)),
                });
            let log = long(data);
            [
                words(&[index, data.byte().into()]),
                longs(&parts),
                longs(&[log]),
            ]
            .concat()
        }
        SET_VRING_KICK | SET_VRING_CALL | SET_VRING_ERR => {
            let none = if data.byte() < 64 { 0x100 } else { 0 };
            longs(&[u64::from(index) | none])
        }
        GET_CONFIG | SET_CONFIG => {
            let (offset, size) = (data.number(), data.number());
            [words(&[offset, size, 0]), vec![0; size as usize % 300]].concat()
        }
        GET_INFLIGHT_FD | SET_INFLIGHT_FD => {
            [longs(&[long(data), long(data)]), vec![1; 4]].concat()
        }
        ADD_MEM_REG | REM_MEM_REG => [longs(&[0]), any_region(data)].concat(),
        SET_DEVICE_STATE_FD => words(&[index, data.byte().into()]),
        _ => vec![0; usize::from(data.byte()) % 40],
    };
    Message::new(request, body)
}

fn any_region(data: &mut Bytes<'_>) -> Vec<u8> {
    let addresses = u64::from(data.byte() % 8) * 0x1_0000;
    let size = [0x1_0000, 0x4_0000, 0x1000, long(data)][usize::from(data.byte() % 4)];
    let offset = [0, 0x1000, long(data)][usize::from(data.byte() % 3)];
    region(addresses, size, offset)
}

fn long(data: &mut Bytes<'_>) -> u64 {
    let low = u64::from(data.number());
    low << (data.byte() % 64)
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A front-end's messages, as bytes.

use std::os::fd::OwnedFd;

use vhost::vhost_user::message::FrontendReq as Req;

use super::guest::{FEATURES, Guest, USER};
use crate::bytes::Bytes;

/// The protocol version in the flags.
const VERSION: u32 = 1;
const NEED_REPLY: u32 = 8;
/// `VHOST_F_LOG_ALL`
const LOG_ALL: u64 = 1 << 26;

/// A message, valid or not.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) request: u32,
    pub(super) need_reply: bool,
    /// The body's size according to the header.
    pub(super) size: u32,
    pub(super) body: Vec<u8>,
    pub(super) descriptors: Vec<OwnedFd>,
}

impl Message {
    /// Makes a valid message.
    pub(super) fn new(request: impl Into<u32>, body: Vec<u8>) -> Self {
        Self {
            request: request.into(),
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

    /// Returns whether the request comes with a descriptor.
    pub(super) fn wants_descriptor(&self) -> bool {
        matches!(
            Req::try_from(self.request),
            Ok(Req::SET_MEM_TABLE
                | Req::SET_LOG_BASE
                | Req::SET_LOG_FD
                | Req::SET_VRING_KICK
                | Req::SET_VRING_CALL
                | Req::SET_VRING_ERR
                | Req::SET_BACKEND_REQ_FD
                | Req::SET_INFLIGHT_FD
                | Req::ADD_MEM_REG
                | Req::SET_DEVICE_STATE_FD)
        )
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let flags = VERSION | if self.need_reply { NEED_REPLY } else { 0 };
        let mut bytes = words(&[self.request, flags, self.size]);
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

/// Encodes 32-bit numbers for a message.
pub(super) fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// Encodes 64-bit numbers for a message.
pub(super) fn longs(longs: &[u64]) -> Vec<u8> {
    longs.iter().flat_map(|long| long.to_le_bytes()).collect()
}

/// A memory region: its guest address, size, front-end address and file offset.
pub(super) fn region(guest: u64, size: u64, offset: u64) -> Vec<u8> {
    longs(&[guest, size, USER + guest, offset])
}

/// Makes a request with a body of the right kind.
pub(super) fn any(request: u32, data: &mut Bytes<'_>, guest: &Guest) -> Message {
    let index = u32::from(data.byte()) % 4;
    let body = match Req::try_from(request) {
        Ok(Req::SET_FEATURES) => match data.byte() % 4 {
            // The features that the guest accepts, with and without the log.
            0 => longs(&[FEATURES]),
            1..=2 => longs(&[FEATURES | LOG_ALL]),
            _ => longs(&[long(data)]),
        },
        Ok(Req::SET_PROTOCOL_FEATURES) => longs(&[long(data)]),
        Ok(Req::SET_MEM_TABLE) => {
            let count = index + 1;
            let regions = (0..count).flat_map(|_| any_region(data));
            [words(&[count, 0]), regions.collect()].concat()
        }
        Ok(Req::SET_LOG_BASE) => {
            // A log for all of the guest's memory, for a part of it, and for more.
            let size = [8, 4, 0x1000, long(data)][usize::from(data.byte() % 4)];
            let offset = [0, 0, 0x1000, long(data)][usize::from(data.byte() % 4)];
            longs(&[size, offset])
        }
        Ok(
            Req::SET_VRING_NUM | Req::SET_VRING_BASE | Req::GET_VRING_BASE | Req::SET_VRING_ENABLE,
        ) => words(&[index, data.number()]),
        Ok(Req::SET_VRING_ADDR) => {
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
        Ok(Req::SET_VRING_KICK | Req::SET_VRING_CALL | Req::SET_VRING_ERR) => {
            let none = if data.byte() < 64 { 0x100 } else { 0 };
            longs(&[u64::from(index) | none])
        }
        Ok(Req::GET_CONFIG | Req::SET_CONFIG) => {
            let (offset, size) = (data.number(), data.number());
            [words(&[offset, size, 0]), vec![0; size as usize % 300]].concat()
        }
        Ok(Req::GET_INFLIGHT_FD | Req::SET_INFLIGHT_FD) => {
            [longs(&[long(data), long(data)]), vec![1; 4]].concat()
        }
        Ok(Req::ADD_MEM_REG | Req::REM_MEM_REG) => [longs(&[0]), any_region(data)].concat(),
        Ok(Req::SET_DEVICE_STATE_FD) => words(&[index, data.byte().into()]),
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

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Messages on one connection.

use std::io::{ErrorKind, Read, Write};

use vsock_guest_program::job::{Answer, End, Messages};
use vsock_guest_program::pattern::Pattern;

use crate::moving::{moved, of};
use crate::sockets::Entry;

/// More than any message has.
const ROOM: usize = 1 << 20;

pub(crate) fn send(entry: &Entry, messages: &Messages) -> anyhow::Result<Answer> {
    let pattern = Pattern::new(messages.seed);
    let (mut count, mut at) = (0, 0);
    for size in &messages.sizes {
        let mut message = vec![0; *size as usize];
        pattern.fill(&mut message, at);
        let sent = loop {
            match (&entry.socket).write(&message) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                sent => break sent,
            }
        };
        match sent {
            Ok(len) if len == message.len() => {}
            Ok(_) => return Ok(moved(count, Some(at), End::Complete)),
            Err(error) => return Ok(moved(count, None, of(&error))),
        }
        count += 1;
        at += u64::from(*size);
    }
    Ok(moved(count, None, End::Complete))
}

pub(crate) fn receive(entry: &Entry, messages: &Messages) -> anyhow::Result<Answer> {
    let pattern = Pattern::new(messages.seed);
    let mut buffer = vec![0; ROOM];
    let (mut count, mut at) = (0, 0);
    for size in &messages.sizes {
        let len = loop {
            match (&entry.socket).read(&mut buffer) {
                Ok(len) => break len,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Ok(moved(count, None, of(&error))),
            }
        };
        if len == 0 && *size > 0 {
            return Ok(moved(count, None, End::Closed));
        }
        if len != *size as usize {
            return Ok(moved(count, Some(at), End::Complete));
        }
        if let Some(wrong) = pattern.wrong(&buffer[..len], at) {
            return Ok(moved(count, Some(wrong), End::Complete));
        }
        count += 1;
        at += u64::from(*size);
    }
    Ok(moved(count, None, End::Complete))
}

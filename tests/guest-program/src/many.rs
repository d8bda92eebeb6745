// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Many connections that carry little each.

use std::io::{Read, Write};

use anyhow::{Context, ensure};

use crate::job::{Answer, End, Group, Options, Socket};
use crate::moving::moved;
use crate::pattern::Pattern;
use crate::sockets::{self, Sockets};

/// Bytes that each connection carries.
const MESSAGE: usize = 64;

pub(crate) fn connect(
    sockets: &Sockets,
    cid: u32,
    port: u32,
    count: u32,
) -> anyhow::Result<Answer> {
    let mut opened = Vec::new();
    for index in 0..count {
        let socket = sockets::connect(cid, port, Options::default())
            .with_context(|| format!("connection {index} of {count}"))?;
        opened.push((socket, None));
    }
    Ok(Answer::Group(sockets.add_all(opened)))
}

pub(crate) fn accept(sockets: &Sockets, listener: Socket, count: u32) -> anyhow::Result<Answer> {
    let listener = sockets.entry(listener)?;
    let mut opened = Vec::new();
    for index in 0..count {
        let (socket, _) = listener
            .socket
            .accept()
            .with_context(|| format!("cannot accept connection {index} of {count}"))?;
        opened.push((socket, None));
    }
    Ok(Answer::Group(sockets.add_all(opened)))
}

/// Sends a message on each connection before reading the first answer, so that all of them carry
/// bytes at the same time.
pub(crate) fn echo_each(sockets: &Sockets, group: Group) -> anyhow::Result<Answer> {
    let mut message = [0; MESSAGE];
    for (index, socket) in (0_u64..).zip(group.sockets()) {
        Pattern::new(index).fill(&mut message, 0);
        (&sockets.entry(socket)?.socket)
            .write_all(&message)
            .with_context(|| format!("cannot send on connection {index}"))?;
    }
    for (index, socket) in (0_u64..).zip(group.sockets()) {
        (&sockets.entry(socket)?.socket)
            .read_exact(&mut message)
            .with_context(|| format!("cannot receive on connection {index}"))?;
        let wrong = Pattern::new(index).wrong(&message, 0);
        ensure!(
            wrong.is_none(),
            "connection {index} received the bytes of another"
        );
    }
    Ok(moved(group.count.into(), None, End::Complete))
}

pub(crate) fn answer_each(sockets: &Sockets, group: Group) -> anyhow::Result<Answer> {
    let mut message = [0; MESSAGE];
    for socket in group.sockets() {
        let entry = sockets.entry(socket)?;
        (&entry.socket)
            .read_exact(&mut message)
            .and_then(|()| (&entry.socket).write_all(&message))
            .with_context(|| format!("cannot answer on connection {}", socket.0 - group.first.0))?;
    }
    Ok(moved(group.count.into(), None, End::Complete))
}

/// Opens connections one after another, each closed before the next.
pub(crate) fn storm(cid: u32, port: u32, count: u32, bytes: u32) -> anyhow::Result<Answer> {
    let mut message = vec![0; bytes as usize];
    for index in 0..count {
        let mut socket = sockets::connect(cid, port, Options::default())
            .with_context(|| format!("connection {index} of {count}"))?;
        if bytes == 0 {
            continue;
        }
        let pattern = Pattern::new(index.into());
        pattern.fill(&mut message, 0);
        socket
            .write_all(&message)
            .and_then(|()| socket.read_exact(&mut message))
            .with_context(|| format!("no echo on connection {index} of {count}"))?;
        ensure!(
            pattern.wrong(&message, 0).is_none(),
            "connection {index} received the bytes of another"
        );
    }
    Ok(moved(count.into(), None, End::Complete))
}

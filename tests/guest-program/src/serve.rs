// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! An echo service for any number of connections on one thread.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;

use anyhow::Context;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::job::Answer;
use crate::sockets::Entry;

const LISTENER: u64 = 0;
const STOP: u64 = 1;
/// The size of a read.
const PIECE: usize = 64 * 1024;

/// A connection, and the bytes that could not be sent back yet.
struct Client {
    socket: socket2::Socket,
    owed: Vec<u8>,
    ended: bool,
}

/// Accepts connections and echoes until the listener is closed.
pub(crate) fn run(listener: &Entry) -> anyhow::Result<Answer> {
    let stop = listener
        .stop
        .as_ref()
        .context("the socket is not a listener")?;
    listener.socket.set_nonblocking(true)?;
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    epoll.add(
        &listener.socket,
        EpollEvent::new(EpollFlags::EPOLLIN, LISTENER),
    )?;
    epoll.add(stop, EpollEvent::new(EpollFlags::EPOLLIN, STOP))?;
    let mut clients: HashMap<u64, Client> = HashMap::new();
    let (mut next, mut connections) = (STOP + 1, 0);
    let mut events = [EpollEvent::empty(); 64];
    let mut buffer = vec![0; PIECE];
    loop {
        let count = match epoll.wait(&mut events, EpollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            other => other?,
        };
        for event in &events[..count] {
            match event.data() {
                STOP => return Ok(Answer::Served(connections)),
                LISTENER => {
                    let Ok((socket, _)) = listener.socket.accept() else {
                        continue;
                    };
                    socket.set_nonblocking(true)?;
                    epoll.add(&socket, EpollEvent::new(EpollFlags::EPOLLIN, next))?;
                    clients.insert(
                        next,
                        Client {
                            socket,
                            owed: Vec::new(),
                            ended: false,
                        },
                    );
                    connections += 1;
                    next += 1;
                }
                token => {
                    let Some(client) = clients.get_mut(&token) else {
                        continue;
                    };
                    match client.go_on(&mut buffer) {
                        Ok(true) => {
                            let interest = client.interest();
                            epoll.modify(&client.socket, &mut EpollEvent::new(interest, token))?;
                        }
                        // The connection has ended or failed. Closing the socket removes it from
                        // the epoll set.
                        Ok(false) | Err(_) => {
                            clients.remove(&token);
                        }
                    }
                }
            }
        }
    }
}

impl Client {
    /// Sends the pending bytes, or reads once if there are none. Returns whether to continue.
    fn go_on(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
        if self.owed.is_empty() {
            match self.socket.read(buffer) {
                Ok(0) => self.ended = true,
                Ok(read) => self.owed.extend_from_slice(&buffer[..read]),
                Err(error) if is_idle(&error) => return Ok(true),
                Err(error) => return Err(error),
            }
        }
        while !self.owed.is_empty() {
            match self.socket.write(&self.owed) {
                Ok(written) => drop(self.owed.drain(..written)),
                Err(error) if is_idle(&error) => return Ok(true),
                Err(error) => return Err(error),
            }
        }
        if self.ended {
            self.socket.shutdown(Shutdown::Write)?;
        }
        Ok(!self.ended)
    }

    /// Does not read while bytes are pending.
    fn interest(&self) -> EpollFlags {
        if self.owed.is_empty() {
            EpollFlags::EPOLLIN
        } else {
            EpollFlags::EPOLLOUT
        }
    }
}

fn is_idle(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

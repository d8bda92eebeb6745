// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A connection of a scenario: both applications, and what each must see.

use vsock_proto::handshake::{OkParser, Parse};

use crate::guest::{Guest, GuestRead, SocketId};
use crate::host::{HostEnd, HostRead};
use crate::pattern::Pattern;
use crate::sim::Failure;

use super::messages::Messages;

/// A connection, as far as it has come.
#[derive(Debug)]
pub(crate) struct Link {
    /// The port that was asked for: the host's, or the guest's. No other connection has it.
    pub(crate) port: u32,
    pub(crate) by_guest: bool,
    pub(crate) socket: Option<SocketId>,
    pub(crate) host: Option<HostEnd>,
    /// The line that the component of a connection by text still waits for.
    pub(super) answer: Option<OkParser>,
    pub(super) guest_sent: Pattern,
    pub(super) guest_got: Pattern,
    pub(super) host_sent: Pattern,
    pub(super) host_got: Pattern,
    /// The boundaries, if it keeps messages apart.
    pub(crate) messages: Option<Messages>,
    /// Something has happened after which not every byte need arrive.
    pub(crate) spoilt: bool,
    /// Packets that no socket of the guest has sent may have brought bytes.
    pub(crate) forged: bool,
    pub(crate) guest_deaf: bool,
    /// The guest has said that it sends no more: it needs no credit.
    pub(crate) guest_ended: bool,
    pub(crate) host_deaf: bool,
}

impl Link {
    pub(crate) fn new(port: u32, by_guest: bool, text: bool) -> Self {
        let (to_host, to_guest) = (u64::from(port), u64::from(port) << 20);
        Self {
            port,
            by_guest,
            socket: None,
            host: None,
            answer: text.then(OkParser::new),
            guest_sent: Pattern::starting_at(to_host),
            guest_got: Pattern::starting_at(to_guest),
            host_sent: Pattern::starting_at(to_guest),
            host_got: Pattern::starting_at(to_host),
            messages: None,
            spoilt: false,
            forged: false,
            guest_deaf: false,
            guest_ended: false,
            host_deaf: false,
        }
    }

    /// Messages of at most so many bytes, and no stream.
    pub(crate) fn of_messages(mut self, longest: usize) -> Self {
        self.messages = Some(Messages::new(longest));
        self
    }

    pub(crate) fn guest_writes(&mut self, guest: &mut Guest, len: usize) {
        if self.messages.is_some() {
            return self.guest_sends_message(guest, len);
        }
        if let Some(id) = self.socket
            && let Ok(written) = guest.write(id, &self.guest_sent.peek(len))
        {
            self.guest_sent.advance(written);
        }
    }

    /// Returns whether there was anything.
    pub(crate) fn guest_reads(&mut self, guest: &mut Guest, most: usize) -> Result<bool, Failure> {
        if self.messages.is_some() {
            return self.guest_receives_messages(guest);
        }
        let Some(id) = self.socket else {
            return Ok(false);
        };
        let Ok(GuestRead::Bytes(bytes)) = guest.read(id, most) else {
            return Ok(false);
        };
        self.guest_got
            .verify(&bytes)
            .map_err(|at| self.wrong("guest", at))?;
        Ok(!bytes.is_empty())
    }

    pub(crate) fn host_writes(&mut self, len: usize) {
        if self.messages.is_some() {
            return self.host_sends_message(len);
        }
        if let Some(host) = &self.host
            && let Ok(written) = host.write(&self.host_sent.peek(len))
        {
            self.host_sent.advance(written);
        }
    }

    pub(crate) fn host_reads(&mut self, most: usize) -> Result<bool, Failure> {
        if self.messages.is_some() {
            return self.host_receives_messages();
        }
        let Some(host) = &self.host else {
            return Ok(false);
        };
        let HostRead::Bytes(mut bytes) = host.read(most) else {
            return Ok(false);
        };
        let any = !bytes.is_empty();
        if self.forged {
            return Ok(any);
        }
        if let Some(parser) = &mut self.answer {
            match parser.feed(&bytes) {
                Ok(Parse::NeedMore) => bytes.clear(),
                Ok(Parse::Line { used, .. }) => {
                    bytes.drain(..used);
                    self.answer = None;
                }
                Err(error) => {
                    let text = format!("port {}: no answer but {bytes:?}: {error}", self.port);
                    return Err(Failure::new(text));
                }
            }
        }
        self.host_got
            .verify(&bytes)
            .map_err(|at| self.wrong("host", at))?;
        Ok(any)
    }

    pub(super) fn wrong(&self, who: &str, at: u64) -> Failure {
        Failure::new(format!(
            "port {}: the {who} has read a wrong byte at {at}",
            self.port
        ))
    }

    /// Whether the component has sent what the guest has not read.
    pub(super) fn owes_guest(&self) -> bool {
        let messages = self.messages.as_ref().map_or(0, |all| all.missing().1);
        messages > 0 || self.host_sent != self.guest_got
    }

    /// What must be so when everything that can be read has been read.
    pub(crate) fn check_delivered(&self) -> Result<(), Failure> {
        let left = self.host.is_none() && self.host_deaf;
        let there = self.socket.is_some() && (self.host.is_some() || left);
        if !self.spoilt && left && self.socket.is_none() && self.owes_guest() {
            let text = format!(
                "port {}: the guest was not told of what the component left for it",
                self.port
            );
            return Err(Failure::new(text));
        }
        if self.spoilt || !there {
            return Ok(());
        }
        let ways = [
            ("host", self.host_deaf, &self.guest_sent, &self.host_got),
            ("guest", self.guest_deaf, &self.host_sent, &self.guest_got),
        ];
        let (to_host, to_guest) = self.messages.as_ref().map_or((0, 0), Messages::missing);
        if to_host > 0 && !self.host_deaf || to_guest > 0 && !self.guest_deaf {
            return Err(Failure::new(format!(
                "port {}: {to_host} messages have not come to the host, {to_guest} to the guest",
                self.port
            )));
        }
        for (who, deaf, sent, got) in ways {
            if !deaf && sent != got {
                return Err(Failure::new(format!(
                    "port {}: the {who} has read up to {}, and was sent up to {}",
                    self.port,
                    got.position(),
                    sent.position()
                )));
            }
        }
        Ok(())
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! One connection of a scenario: both programs, and what each of them must see.

use vsock_compliance::pattern::Pattern;
use vsock_proto::ShutdownFlags;
use vsock_proto::handshake::{OkParser, Parse};

use super::messages::{Messages, end_of};
use crate::guest::{Guest, GuestRead, SocketId};
use crate::host::{HostEnd, HostRead, RequestForm};
use crate::sim::SimFailure;

/// The side that opens a connection, and how.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Opener {
    Guest,
    Host(RequestForm),
}

/// The component's side of a connection.
#[derive(Debug)]
pub(super) enum Component {
    /// The component has not accepted the connection yet.
    Awaited,
    There(HostEnd),
    /// The component has left.
    Gone,
}

/// The worst that was done to a connection.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Harm {
    None,
    /// Something after which not all bytes need to arrive.
    Spoilt,
    /// Forged packets, which may also have added bytes that no socket of the guest has sent.
    Forged,
}

/// A connection and its progress.
#[derive(Debug)]
pub(super) struct Link {
    /// The requested port, of the host or of the guest. No other connection has it.
    pub(super) port: u32,
    pub(super) opener: Opener,
    pub(super) socket: Option<SocketId>,
    pub(super) component: Component,
    /// The parser for the line that the component of a text connection still waits for.
    answer: Option<OkParser>,
    guest_sent: Pattern,
    guest_got: Pattern,
    host_sent: Pattern,
    host_got: Pattern,
    /// The message boundaries, on a seqpacket connection.
    pub(super) messages: Option<Messages>,
    pub(super) harm: Harm,
    /// The directions that the guest has shut down. If it sends no more, it needs no credit.
    pub(super) guest_shut: ShutdownFlags,
}

impl Link {
    pub(super) fn new(port: u32, opener: Opener) -> Self {
        let (to_host, to_guest) = (u64::from(port), u64::from(port) << 20);
        Self {
            port,
            opener,
            socket: None,
            component: Component::Awaited,
            answer: (opener == Opener::Host(RequestForm::Text)).then(OkParser::new),
            guest_sent: Pattern::starting_at(to_host),
            guest_got: Pattern::starting_at(to_guest),
            host_sent: Pattern::starting_at(to_guest),
            host_got: Pattern::starting_at(to_host),
            messages: None,
            harm: Harm::None,
            guest_shut: ShutdownFlags::NONE,
        }
    }

    pub(super) fn harm(&mut self, harm: Harm) {
        self.harm = self.harm.max(harm);
    }

    pub(super) fn harm_if(&mut self, harmed: bool) {
        if harmed {
            self.harm(Harm::Spoilt);
        }
    }

    /// Returns the component's end, if it exists.
    pub(super) fn host(&self) -> Option<&HostEnd> {
        match &self.component {
            Component::There(end) => Some(end),
            Component::Awaited | Component::Gone => None,
        }
    }

    /// Turns the connection into one of messages with at most this many bytes.
    pub(super) fn of_messages(mut self, longest: usize) -> Self {
        self.messages = Some(Messages {
            longest,
            ..Messages::default()
        });
        self
    }

    pub(super) fn guest_writes(&mut self, guest: &mut Guest, len: usize) {
        if self.messages.is_some() {
            return self.guest_sends_message(guest, len);
        }
        if let Some(id) = self.socket {
            if let Ok(written) = guest.write(id, &self.guest_sent.peek(len)) {
                self.guest_sent.advance(written);
            }
        }
    }

    /// Returns whether the guest has read anything.
    pub(super) fn guest_reads(
        &mut self,
        guest: &mut Guest,
        most: usize,
    ) -> Result<bool, SimFailure> {
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

    pub(super) fn host_writes(&mut self, len: usize) {
        if self.messages.is_some() {
            return self.host_sends_message(len);
        }
        if let Some(host) = self.host() {
            if let Ok(written) = host.write(&self.host_sent.peek(len)) {
                self.host_sent.advance(written);
            }
        }
    }

    pub(super) fn host_reads(&mut self, most: usize) -> Result<bool, SimFailure> {
        if self.messages.is_some() {
            return self.host_receives_messages();
        }
        let Some(host) = self.host() else {
            return Ok(false);
        };
        let HostRead::Bytes(mut bytes) = host.read(most) else {
            return Ok(false);
        };
        let any = !bytes.is_empty();
        if self.harm == Harm::Forged {
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
                    let text = format!("port {}: invalid answer {bytes:?}: {error}", self.port);
                    return Err(SimFailure::new(text));
                }
            }
        }
        self.host_got
            .verify(&bytes)
            .map_err(|at| self.wrong("host", at))?;
        Ok(any)
    }

    fn wrong(&self, who: &str, at: u64) -> SimFailure {
        SimFailure::new(format!(
            "port {}: the {who} has read a wrong byte at position {at}",
            self.port
        ))
    }

    fn guest_sends_message(&mut self, guest: &mut Guest, len: usize) {
        let (Some(id), Some(messages)) = (self.socket, &mut self.messages) else {
            return;
        };
        let end = end_of(len);
        if guest.send(id, &self.guest_sent.peek(len), end) == Ok(true) {
            self.guest_sent.advance(len);
            messages.to_host.sent(len, end);
        }
    }

    fn host_sends_message(&mut self, len: usize) {
        let (Component::There(host), Some(messages)) = (&self.component, &mut self.messages) else {
            return;
        };
        let (len, end) = (len.min(messages.longest), end_of(len));
        if let Ok(true) = host.send(&self.host_sent.peek(len), end) {
            self.host_sent.advance(len);
            messages.to_guest.sent(len, end);
        }
    }

    fn guest_receives_messages(&mut self, guest: &mut Guest) -> Result<bool, SimFailure> {
        let Some(id) = self.socket else {
            return Ok(false);
        };
        // A kernel whose buffer was too small for a message has reset the connection.
        self.harm_if(guest.overran(id));
        let mut any = false;
        while let Some((bytes, end)) = guest.receive_message(id) {
            any = true;
            let got = self.guest_got.verify(&bytes);
            got.map_err(|at| self.wrong("guest", at))?;
            if let Some(messages) = &mut self.messages {
                messages.to_guest.arrived(bytes.len(), end)?;
            }
        }
        Ok(any)
    }

    fn host_receives_messages(&mut self) -> Result<bool, SimFailure> {
        let mut any = false;
        while let Some(host) = self.host() {
            let Some((bytes, end)) = host.receive() else {
                break;
            };
            any = true;
            if self.harm == Harm::Forged {
                continue;
            }
            if self.answer.take().is_some() {
                if !bytes.starts_with(b"OK ") || end.ends_record() {
                    return Err(SimFailure::new(format!("invalid answer {bytes:?}")));
                }
                continue;
            }
            let got = self.host_got.verify(&bytes);
            got.map_err(|at| self.wrong("host", at))?;
            if let Some(messages) = &mut self.messages {
                messages.to_host.arrived(bytes.len(), end)?;
            }
        }
        Ok(any)
    }

    /// Returns the maximum length of a message from the host, in bytes.
    pub(super) fn longest(&self) -> usize {
        self.messages
            .as_ref()
            .map_or(0, |messages| messages.longest)
    }

    /// Drops the message that the guest is sending, because it ends its sending: the message will
    /// never be complete.
    pub(super) fn give_up_message(&mut self, guest: &Guest) {
        let (Some(id), Some(messages)) = (self.socket, &mut self.messages) else {
            return;
        };
        if guest.is_sending(id) {
            if let Some(len) = messages.to_host.give_up_last() {
                let sent = self.guest_sent.position() - len as u64;
                self.guest_sent = Pattern::starting_at(sent);
            }
        }
    }

    /// Returns whether the component has sent anything that the guest has not read.
    pub(super) fn owes_guest(&self) -> bool {
        let messages = self
            .messages
            .as_ref()
            .map_or(0, |all| all.to_guest.missing());
        messages > 0 || self.host_sent != self.guest_got
    }

    /// Checks the connection after everything that can be read has been read.
    pub(super) fn check_delivered(&self) -> Result<(), SimFailure> {
        if self.harm != Harm::None {
            return Ok(());
        }
        let left = matches!(self.component, Component::Gone);
        if left && self.socket.is_none() && self.owes_guest() {
            let text = format!(
                "port {}: the guest did not receive what the component had sent before it left",
                self.port
            );
            return Err(SimFailure::new(text));
        }
        if self.socket.is_none() || matches!(self.component, Component::Awaited) {
            return Ok(());
        }
        let deaf = self.guest_shut.contains(ShutdownFlags::RECEIVE);
        let ways = [
            ("host", left, &self.guest_sent, &self.host_got),
            ("guest", deaf, &self.host_sent, &self.guest_got),
        ];
        let (to_host, to_guest) = self.messages.as_ref().map_or((0, 0), |all| {
            (all.to_host.missing(), all.to_guest.missing())
        });
        if to_host > 0 && !left || to_guest > 0 && !deaf {
            return Err(SimFailure::new(format!(
                "port {}: {to_host} messages to the host and {to_guest} to the guest are missing",
                self.port
            )));
        }
        for (who, deaf, sent, got) in ways {
            if !deaf && sent != got {
                return Err(SimFailure::new(format!(
                    "port {}: the {who} has read up to {}, but was sent up to {}",
                    self.port,
                    got.position(),
                    sent.position()
                )));
            }
        }
        Ok(())
    }
}

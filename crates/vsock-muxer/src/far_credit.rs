// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How two muxers tell each other of their guests' credit, through the stream between them.

use std::collections::VecDeque;
use std::io;
use std::os::fd::RawFd;

use vsock_backend_api::{VsockCredit, VsockStream};
use vsock_proto::Interest;

use crate::action::Action;
use crate::token::Token;

/// What was told and heard, and how the event loop watches for more.
#[derive(Debug, Default)]
pub(crate) struct FarCredit {
    told: Option<VsockCredit>,
    known: Option<VsockCredit>,
    /// What the descriptor was last said to be known.
    awaited: Option<VsockCredit>,
    /// It has had an event since.
    pub(crate) rang: bool,
    /// The descriptor, once it is registered.
    fd: Option<RawFd>,
    /// It could not be made: nothing is heard any more.
    failed: bool,
}

impl FarCredit {
    pub(crate) fn exchange(
        &mut self,
        stream: &dyn VsockStream,
        ours: Option<VsockCredit>,
    ) -> Option<VsockCredit> {
        match ours {
            Some(ours) if self.told.replace(ours) != Some(ours) => stream.tell_credit(ours),
            _ => {}
        }
        let heard = stream.peer_credit().filter(|_| !self.failed)?;
        let is_news = self.known.replace(heard) != Some(heard);
        is_news.then_some(heard)
    }

    pub(crate) fn wait(
        &mut self,
        stream: &dyn VsockStream,
        token: Token,
        actions: &mut VecDeque<Action>,
    ) -> io::Result<()> {
        if self.failed || self.awaited == self.known && !self.rang {
            return Ok(());
        }
        let fd = stream
            .credit_fd(self.known)
            .inspect_err(|_| self.failed = true)?;
        (self.awaited, self.rang) = (self.known, false);
        if self.fd.replace(fd).is_none() {
            actions.push_back(Action::Watch {
                token: token.for_credit(),
                fd,
                interest: Interest::READ,
            });
        }
        Ok(())
    }

    /// Unregisters the descriptor, before the stream is dropped.
    pub(crate) fn unwatch(&self, token: Token, actions: &mut VecDeque<Action>) {
        if let Some(fd) = self.fd {
            actions.push_back(Action::Unwatch {
                token: token.for_credit(),
                fd,
            });
        }
    }
}

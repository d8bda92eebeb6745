// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The exchange of credit between the muxers of two guests, through the stream between them.

use std::collections::VecDeque;
use std::io;
use std::os::fd::RawFd;

use vsock_backend_api::{VsockCredit, VsockStream};
use vsock_proto::Interest;

use crate::action::Action;
use crate::token::Token;

/// The credit that was sent and received, and how the event loop watches for changes.
#[derive(Debug, Default)]
pub(crate) struct FarCredit {
    /// The credit that was last passed to the other muxer.
    told: Option<VsockCredit>,
    /// The other guest's credit, as last seen.
    known: Option<VsockCredit>,
    /// The credit for which the descriptor is armed: it signals any other value.
    awaited: Option<VsockCredit>,
    /// Whether the descriptor has signalled since it was armed.
    pub(crate) signalled: bool,
    /// The descriptor, once it is registered.
    fd: Option<RawFd>,
    /// Whether no descriptor could be created, so that credit is ignored from then on.
    failed: bool,
}

impl FarCredit {
    /// Passes on this guest's credit if it has changed, and returns the other guest's if that has.
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

    /// Arms the descriptor, unless it is already armed for the current value.
    pub(crate) fn wait(
        &mut self,
        stream: &dyn VsockStream,
        token: Token,
        actions: &mut VecDeque<Action>,
    ) -> io::Result<()> {
        if self.failed || self.awaited == self.known && !self.signalled {
            return Ok(());
        }
        let fd = stream
            .credit_fd(self.known)
            .inspect_err(|_| self.failed = true)?;
        (self.awaited, self.signalled) = (self.known, false);
        if self.fd.replace(fd).is_none() {
            actions.push_back(Action::Watch {
                token: token.for_credit(),
                fd,
                interest: Interest::READ,
            });
        }
        Ok(())
    }

    /// Unregisters the descriptor. Must be called before the stream is dropped.
    pub(crate) fn unwatch(&self, token: Token, actions: &mut VecDeque<Action>) {
        if let Some(fd) = self.fd {
            actions.push_back(Action::Unwatch {
                token: token.for_credit(),
                fd,
            });
        }
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::io;
use std::os::fd::RawFd;

use vsock_compliance::ConnectionEnd;
use vsock_compliance::poll::{PollInterest, PollReport, Watch};

use super::mismatch::{Mismatch, agree};
use crate::model::Model;

/// A descriptor that is registered in two epolls.
#[derive(Debug)]
struct Entry {
    end: ConnectionEnd,
    interest: PollInterest,
    level: Watch,
    edges: Watch,
}

impl Entry {
    fn is_ready(&self, model: &Model) -> bool {
        match self.interest {
            PollInterest::Read => model.is_readable(self.end),
            PollInterest::Write => model.is_writable(self.end),
        }
    }
}

/// The descriptors that were obtained.
#[derive(Debug, Default)]
pub(super) struct Polled(Vec<Entry>);

impl Polled {
    pub(super) fn take(
        &mut self,
        end: ConnectionEnd,
        interest: PollInterest,
        fd: RawFd,
    ) -> io::Result<()> {
        if !self
            .0
            .iter()
            .any(|entry| (entry.end, entry.interest) == (end, interest))
        {
            let (level, edges) = (Watch::level(fd, interest)?, Watch::edges(fd, interest)?);
            self.0.push(Entry {
                end,
                interest,
                level,
                edges,
            });
        }
        Ok(())
    }

    pub(super) fn forget(&mut self, end: ConnectionEnd) {
        self.0.retain(|entry| entry.end != end);
    }

    /// Returns the readiness of each descriptor in the model, with its end.
    pub(super) fn expected(&self, model: &Model) -> Vec<(ConnectionEnd, PollInterest, bool)> {
        let state = |entry: &Entry| (entry.end, entry.interest, entry.is_ready(model));
        self.0.iter().map(state).collect()
    }

    /// Compares the readiness of every descriptor with the model, and checks that every due edge
    /// was reported: after a descriptor was not ready `before`, and after its peer was `dropped`.
    pub(super) fn check(
        &mut self,
        model: &Model,
        before: &[(ConnectionEnd, PollInterest, bool)],
        dropped: Option<ConnectionEnd>,
    ) -> Result<(), Mismatch> {
        for entry in &mut self.0 {
            let (end, interest) = (entry.end, entry.interest);
            let ready = entry.is_ready(model);
            let what = format!("readiness of the descriptor of {end:?} for {interest:?}");
            agree(&what, &entry.level.now()?.is_some(), &ready)?;
            let edge = entry.edges.now()?;
            let hung_up = edge.is_some_and(PollReport::hung_up);
            agree(format!("HUP in the {what}"), &hung_up, &false)?;
            let changed = ready && before.contains(&(end, interest, false));
            let struck = interest == PollInterest::Read && dropped == Some(end.peer());
            if (changed || struck) && edge.is_none() {
                return Err(Mismatch(format!("an edge is missing in the {what}")));
            }
        }
        Ok(())
    }
}

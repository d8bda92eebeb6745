// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! After every event: what has become of a connection, and what follows from it.

use std::collections::VecDeque;
use std::net::Shutdown;

use vsock_proto::state::Phase;
use vsock_proto::{Cid, Ending, Greeting, GuestCid, HostAction, Progress, Slot, Tick};

use crate::action::Last;
use crate::backends::addr;
use crate::backoff::Backoff;
use crate::entry::{Entry, Open};
use crate::payload::write;
use crate::{Action, Counters, Muxer};

/// Writes to a stream before somebody else has his turn: each message is one.
const WRITES: usize = 64;

impl Muxer {
    /// Does what a connection wants done with its stream, has it watched and woken as it now needs,
    /// and queues it if it has something for the guest. To be called after every event; most have
    /// changed nothing.
    pub(super) fn review(&mut self, now: Tick, slot: Slot) {
        let Some(open) = self.table.open(slot) else {
            return;
        };
        if let Some(link) = &mut open.link
            && link.owes_hangup(open.conn.reads_next())
        {
            let max_message = self.config.max_message() as usize;
            open.depart(now, &mut self.reading, max_message);
        }
        open.do_actions(now, self.guest, &mut self.actions);
        open.watch_writing(now, &mut self.actions, &mut self.counters);
        let waits = open.conn.phase() == Phase::Accepting;
        let left = open.ticket.take_if(|_| !waits);
        if let Some(ticket) = open.ticket {
            open.retry = self.busy.retry(ticket);
        }
        if open.has_key && !open.conn.phase().has_tuple() {
            open.has_key = false;
            let key = open.conn.key();
            self.table.forget_key(key);
        }
        if let Some(ticket) = left {
            self.stop_waiting(now, ticket);
        }
        self.schedule(slot);
    }

    /// Sets deadline and place in the queue; takes the connection out if nothing is left of it.
    fn schedule(&mut self, slot: Slot) {
        let Some(open) = self.table.open(slot) else {
            return;
        };
        if open.conn.is_closed() {
            self.remove(slot);
            return;
        }
        match open.deadline() {
            Some(at) => self.timers.set(slot, at),
            None => self.timers.cancel(slot),
        }
        if open.conn.wants_transmit() {
            self.rxq.push(slot);
        }
    }

    /// Takes out a connection of which nothing is left.
    fn remove(&mut self, slot: Slot) {
        self.timers.cancel(slot);
        self.rxq.remove(slot);
        let Some(Entry::Open(mut open)) = self.table.take(slot) else {
            return;
        };
        if let Some(ending) = open.conn.ending() {
            self.counters.endings.count(ending);
        }
        if let Some(lease) = open.lease.take() {
            self.ports.release(lease);
        }
        if let Some(link) = open.link.take() {
            link.close(Last::Abort, &mut self.actions);
        }
        self.table.free(slot);
    }
}

impl Open {
    /// Does to the stream what is to be done. A flush may lead to more.
    fn do_actions(&mut self, now: Tick, guest: GuestCid, out: &mut VecDeque<Action>) {
        loop {
            let actions = self.conn.take_actions();
            if actions.is_empty() {
                return;
            }
            let ends_writing = actions.contains(HostAction::ShutdownWrite);
            let closes = actions.contains(HostAction::Close);
            if closes || actions.contains(HostAction::ShutdownRead) {
                // Nobody gets the rest of a message any more.
                self.held = None;
            }
            // Both ends at once are one call, and one wake-up of who has the other end.
            let both = ends_writing && actions.contains(HostAction::ShutdownRead);
            for action in actions {
                match action {
                    HostAction::Confirm => self.confirm(now, guest),
                    HostAction::ShutdownWrite | HostAction::ShutdownRead if closes => {}
                    HostAction::ShutdownWrite if both => self.shutdown(Shutdown::Both),
                    HostAction::ShutdownRead if both => {}
                    HostAction::ShutdownWrite => self.shutdown(Shutdown::Write),
                    HostAction::ShutdownRead => self.shutdown(Shutdown::Read),
                    HostAction::Close => self.close(ends_writing, out),
                }
            }
        }
    }

    fn confirm(&mut self, now: Tick, guest: GuestCid) {
        if self.conn.greeting() == Greeting::Silent {
            let key = self.conn.key();
            let (guest, host) = (addr(guest.cid(), key.peer), addr(Cid::HOST, key.local));
            // Whoever asked has left.
            if let Some(link) = &mut self.link
                && link.stream().confirm_from(guest, host).is_err()
            {
                self.conn.on_host_hangup(now);
            }
        } else {
            self.flush(now);
        }
    }

    /// Gives the stream up: with an end of what was written to it if that is owed, and as the
    /// connection has ended otherwise. Where there is no stream yet, it is not asked for again.
    fn close(&mut self, end_is_owed: bool, out: &mut VecDeque<Action>) {
        self.retry = None;
        let last = match self.conn.ending() {
            _ if end_is_owed => Last::End,
            Some(Ending::Clean) => Last::Drop,
            _ => Last::Abort,
        };
        if let Some(link) = self.link.take() {
            link.close(last, out);
        }
    }

    /// A stream that knows no half-close, or has ended already, shows the end when it is dropped.
    fn shutdown(&mut self, how: Shutdown) {
        if let Some(link) = &mut self.link {
            drop(link.stream().shutdown(how));
        }
    }

    /// Writes what waits for the stream, in so many calls as are fair at once. Where that does not
    /// suffice, time goes on with it: an edge is not reported twice.
    pub(super) fn flush(&mut self, now: Tick) {
        self.flush_at = None;
        let Some(link) = &mut self.link else {
            return;
        };
        let mut calls = 0;
        let flush_at = &mut self.flush_at;
        self.conn.flush(now, |chunk| {
            if calls == WRITES {
                *flush_at = Some(now);
                return Progress::Pending;
            }
            calls += 1;
            write(link.stream(), chunk)
        });
    }

    /// Has the stream watched for writing exactly while something waits for it.
    fn watch_writing(&mut self, now: Tick, out: &mut VecDeque<Action>, counters: &mut Counters) {
        let Some(link) = &mut self.link else {
            return;
        };
        if !self.conn.interest().write {
            self.retry = None;
            link.rest_writing(false, out);
        } else if self.retry.is_none_or(|retry| retry.at() <= now) {
            // Without a descriptor to be woken by, time does it.
            self.retry = match link.watch_writing(out) {
                Ok(()) => None,
                Err(_) => {
                    counters.watch_failures += 1;
                    Some(Backoff::after(self.retry, now))
                }
            };
        }
    }
}

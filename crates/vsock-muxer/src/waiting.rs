// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::collections::BTreeMap;

use vsock_proto::Slot;

/// Host clients whose command is not whole, and which of them makes room for the next.
///
/// Those that have said nothing and those that have said something each have half of the places for
/// sure, and who has been in a half for the longest time is its first to go. So neither a crowd that is
/// silent nor one that says a little keeps others out, or drives the other half away.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    silent: BTreeMap<u64, Slot>,
    begun: BTreeMap<u64, Slot>,
    next: u64,
}

/// The place of one client among those that wait.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Turn {
    number: u64,
    begun: bool,
}

impl Waiting {
    /// A client comes, and has said nothing or something.
    pub(crate) fn add(&mut self, slot: Slot, begun: bool) -> Turn {
        let number = self.next;
        self.next += 1;
        let turn = Turn { number, begun };
        self.of(begun).insert(number, slot);
        turn
    }

    /// A client leaves, is closed, or has given its command.
    pub(crate) fn remove(&mut self, turn: Turn) -> Option<Slot> {
        self.of(turn.begun).remove(&turn.number)
    }

    /// A client has said something. Only the first time makes a difference.
    pub(crate) fn speaks(&mut self, turn: Turn) -> Turn {
        if turn.begun {
            return turn;
        }
        match self.remove(turn) {
            Some(slot) => self.add(slot, true),
            None => turn,
        }
    }

    /// Who goes if `places` are all that there are; `None`, while one of them is free.
    pub(crate) fn first_to_go(&self, places: usize) -> Option<Slot> {
        if self.silent.len() + self.begun.len() < places {
            return None;
        }
        let crowd = if self.begun.len() > places / 2 {
            &self.begun
        } else {
            &self.silent
        };
        crowd.first_key_value().map(|(_, slot)| *slot)
    }

    const fn of(&mut self, begun: bool) -> &mut BTreeMap<u64, Slot> {
        if begun {
            &mut self.begun
        } else {
            &mut self.silent
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Waiting;
    use vsock_proto::Slot;

    fn slots(waiting: &mut Waiting, numbers: std::ops::Range<u32>, begun: bool) {
        for number in numbers {
            waiting.add(Slot::new(number), begun);
        }
    }

    #[test]
    fn none_goes_while_there_is_room() {
        let mut waiting = Waiting::default();
        slots(&mut waiting, 0..3, false);
        assert_eq!(waiting.first_to_go(4), None);
        assert_eq!(waiting.first_to_go(3), Some(Slot::new(0)));
    }

    #[test]
    fn each_half_loses_its_oldest_when_it_has_more_than_its_places() {
        for (silent, begun, first) in [(4, 0, 0), (3, 1, 0), (2, 2, 0), (1, 3, 10), (0, 4, 10)] {
            let mut waiting = Waiting::default();
            slots(&mut waiting, 0..silent, false);
            slots(&mut waiting, 10..10 + begun, true);
            assert_eq!(waiting.first_to_go(4), Some(Slot::new(first)));
        }
        let mut waiting = Waiting::default();
        slots(&mut waiting, 0..1, true);
        assert_eq!(waiting.first_to_go(1), Some(Slot::new(0)));
    }

    #[test]
    fn who_speaks_is_the_youngest_of_those_that_have() {
        let mut waiting = Waiting::default();
        let early = waiting.add(Slot::new(7), false);
        slots(&mut waiting, 10..12, true);
        let spoken = waiting.speaks(early);
        assert_eq!(waiting.speaks(spoken), spoken);
        assert_eq!(waiting.first_to_go(3), Some(Slot::new(10)));
        assert_eq!(waiting.remove(spoken), Some(Slot::new(7)));
        assert_eq!(waiting.remove(spoken), None);
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Compares the tables in the module's documentation with the code.

use std::collections::BTreeMap;

use super::{Event, Outlook, Phase, ToGuestEvent, ToGuestState, ToHostEvent, ToHostState};

const SOURCE: &str = include_str!("../state.rs");

#[rustfmt::skip]
const PHASES: [Phase; 10] = {
    use Phase as P;
    [P::Requesting, P::Requested, P::Accepting, P::Responding, P::Connected, P::Draining,
     P::Lingering, P::Finishing, P::Resetting, P::Closed]
};

#[rustfmt::skip]
const EVENTS: [Event; 18] = {
    use Event as E;
    [E::RequestSent, E::ResponseSent, E::ShutdownSent, E::ResetSent, E::GuestRequest,
     E::GuestResponse, E::GuestReset, E::GuestLeft, E::GuestClosed, E::HostConnected, E::HostGone,
     E::HostClosed, E::HalvesEnded, E::Drained, E::Expired, E::Violation, E::DeviceStops,
     E::Aborted]
};

const TO_HOST: [ToHostState; 4] = {
    use ToHostState as S;
    [S::Open, S::Flushing, S::Ended, S::Discarding]
};
const TO_HOST_EVENTS: [ToHostEvent; 3] = {
    use ToHostEvent as E;
    [E::GuestEndsSending, E::Flushed, E::HostStopsReading]
};
const TO_GUEST: [ToGuestState; 3] = {
    use ToGuestState as S;
    [S::Open, S::Ended, S::Refused]
};
const TO_GUEST_EVENTS: [ToGuestEvent; 2] = {
    use ToGuestEvent as E;
    [E::HostEndsSending, E::GuestStopsReading]
};

/// Returns the cells of the table under this heading, row by row and without the header.
fn table(heading: &str) -> Vec<Vec<String>> {
    let heading = format!("//! # {heading}");
    SOURCE
        .lines()
        .skip_while(|line| *line != heading)
        .skip(1)
        .take_while(|line| line.starts_with("//!") && !line.starts_with("//! #"))
        .filter_map(|line| line.strip_prefix("//! |"))
        .skip(2)
        .map(|row| {
            row.trim_end_matches('|')
                .split('|')
                .map(|cell| cell.replace('`', "").trim().to_owned())
                .collect()
        })
        .collect()
}

/// Returns a table with the columns state, events and next state as a map.
fn transitions(heading: &str) -> BTreeMap<(String, String), String> {
    let mut map = BTreeMap::new();
    for row in table(heading) {
        let [state, events, next] = row.as_slice() else {
            panic!("{row:?} does not have three cells");
        };
        for event in events.split(", ") {
            let key = (state.clone(), event.to_owned());
            assert_eq!(
                map.insert(key, next.clone()),
                None,
                "{row:?} repeats a pair"
            );
        }
    }
    assert!(!map.is_empty(), "no table under {heading}");
    map
}

/// Compares a function with a table, pair by pair. A row that is left over contains a typing error.
fn compare<S, E>(heading: &str, states: &[S], events: &[E], next: impl Fn(S, E) -> Option<S>)
where
    S: Copy + std::fmt::Debug,
    E: Copy + std::fmt::Debug,
{
    let mut documented = transitions(heading);
    for &state in states {
        for &event in events {
            let key = (format!("{state:?}"), format!("{event:?}"));
            let expected = documented.remove(&key);
            let actual = next(state, event).map(|next| format!("{next:?}"));
            assert_eq!(actual, expected, "{key:?}");
        }
    }
    assert!(documented.is_empty(), "unknown names: {documented:?}");
}

#[test]
fn phases_follow_their_table() {
    compare("The life of a connection", &PHASES, &EVENTS, Phase::next);
}

#[test]
fn the_direction_to_the_host_follows_its_table() {
    compare(
        "From the guest to the host",
        &TO_HOST,
        &TO_HOST_EVENTS,
        ToHostState::next,
    );
}

#[test]
fn the_direction_to_the_guest_follows_its_table() {
    compare(
        "From the host to the guest",
        &TO_GUEST,
        &TO_GUEST_EVENTS,
        ToGuestState::next,
    );
}

#[test]
fn the_outlook_follows_its_table() {
    let rows = table("Both together");
    assert_eq!(rows.len(), TO_GUEST.len());
    for (row, to_guest) in rows.iter().zip(TO_GUEST) {
        assert_eq!(row[0], format!("{to_guest:?}"));
        assert_eq!(row.len(), TO_HOST.len() + 1);
        for (cell, to_host) in row[1..].iter().zip(TO_HOST) {
            let outlook = Outlook::of(to_guest, to_host);
            assert_eq!(*cell, format!("{outlook:?}"), "{to_guest:?}, {to_host:?}");
        }
    }
}

#[test]
fn t30_an_rst_never_leads_to_an_rst() {
    for phase in PHASES {
        let next = phase.next(Event::GuestReset);
        assert!(matches!(next, None | Some(Phase::Closed)), "{phase:?}");
        let next = phase.next(Event::GuestLeft);
        assert!(matches!(next, None | Some(Phase::Draining)), "{phase:?}");
    }
}

#[test]
fn t91_no_packet_follows_the_end() {
    for event in EVENTS {
        assert_eq!(Phase::Closed.next(event), None);
        let after_reset = Phase::Resetting.next(event);
        assert!(matches!(after_reset, None | Some(Phase::Closed)));
        let drained = Phase::Draining.next(event);
        assert!(matches!(drained, None | Some(Phase::Closed)));
    }
}

#[test]
fn t84_a_direction_that_has_ended_never_opens_again() {
    for state in TO_HOST {
        for event in TO_HOST_EVENTS {
            assert_ne!(state.next(event), Some(ToHostState::Open));
            if state == ToHostState::Ended {
                assert_eq!(state.next(event), None);
            }
        }
    }
    for event in TO_GUEST_EVENTS {
        for state in TO_GUEST {
            assert_ne!(state.next(event), Some(ToGuestState::Open));
        }
        assert_eq!(ToGuestState::Refused.next(event), None);
    }
}

#[test]
fn every_phase_can_end() {
    let mut ends = vec![Phase::Closed];
    while let Some(phase) = PHASES.into_iter().find(|phase| {
        !ends.contains(phase)
            && EVENTS
                .into_iter()
                .filter_map(|event| phase.next(event))
                .any(|next| ends.contains(&next))
    }) {
        ends.push(phase);
    }
    assert_eq!(ends.len(), PHASES.len());
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The tables of promises, each with the rules that check it.

/// Defines a table of promises. Below each promise are its rules, by name: a function in braces, or
/// lists of [steps](crate::step), each of which is taken on a new pair. `steps` imports the names
/// of the steps.
macro_rules! sentences {
    (
        $words:ident $check:ident;
        $($(#[$doc:meta])* const $step_name:ident = $step:expr;)*
        $($section:literal $text:literal { $($name:ident: $body:tt;)+ })+
    ) => {
        pub(super) const SENTENCES: &[Sentence<$check>] = {
            words!($words);
            $($(#[$doc])* const $step_name: $crate::step::Step = $step;)*
            &[$(Sentence {
                section: $section,
                text: $text,
                checks: &[$((stringify!($name), check!($check $body))),+],
            }),+]
        };
    };
}

macro_rules! words {
    (functions) => {};
    (steps) => {
        use $crate::step::words::*;
    };
}

macro_rules! check {
    (BackendCheck { $function:expr }) => {
        $function
    };
    (StreamCheck { $function:expr }) => {
        StreamCheck::Custom($function)
    };
    (StreamCheck [$([$($step:expr),* $(,)?]),+ $(,)?]) => {
        StreamCheck::Steps(&[$(&[$($step),*]),+])
    };
}

mod backend;
mod blocking;
mod bytes;
mod capacity;
mod descriptors;
mod edges;
mod empty;
mod ends;
mod messages;
mod modes;
mod readable;
mod timeouts;
mod writable;

use crate::rule::{BackendRule, StreamRule, of_backends, of_streams};

/// Returns every rule about connected pairs, in the order of the promises.
#[must_use]
pub fn stream_rules() -> Vec<StreamRule> {
    of_streams(&[
        bytes::SENTENCES,
        modes::SENTENCES,
        empty::SENTENCES,
        blocking::SENTENCES,
        timeouts::SENTENCES,
        capacity::SENTENCES,
        readable::SENTENCES,
        edges::SENTENCES,
        writable::SENTENCES,
        descriptors::SENTENCES,
        ends::SENTENCES,
    ])
}

/// Returns every rule about connected pairs with message boundaries.
#[must_use]
pub fn message_rules() -> Vec<StreamRule> {
    of_streams(&[messages::SENTENCES])
}

/// Returns every rule about backends.
#[must_use]
pub fn backend_rules() -> Vec<BackendRule> {
    of_backends(backend::SENTENCES)
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What was once found stays mended, and some thousand new inputs are tried.

use std::fs;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use vsock_fuzz::TARGETS;
use vsock_fuzz::driver::Mutator;

/// One test at a time: a target counts the descriptors of the process.
static ALONE: Mutex<()> = Mutex::new(());

#[test]
fn inputs_of_the_corpus_do_no_harm() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let mut played = 0;
    for target in TARGETS {
        for entry in fs::read_dir(corpus.join(target.name)).unwrap() {
            (target.fuzz)(&fs::read(entry.unwrap().path()).unwrap());
            played += 1;
        }
    }
    assert!(played >= TARGETS.len(), "each target has an input at least");
}

#[test]
fn random_inputs_do_no_harm() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    for target in TARGETS {
        let mut mutator = Mutator::new(1, Vec::new());
        for _ in 0..target.trials {
            (target.fuzz)(&mutator.input());
        }
    }
}

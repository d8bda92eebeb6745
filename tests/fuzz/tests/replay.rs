// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Replays the corpus, so that a mended defect stays mended, and runs some thousand random inputs.

use std::fs;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use vsock_fuzz::TARGETS;
use vsock_fuzz::driver::Mutator;

/// Runs one test at a time, because targets count the process's descriptors.
static ALONE: Mutex<()> = Mutex::new(());

#[test]
fn inputs_of_the_corpus_find_no_failure() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let mut played = 0;
    for target in TARGETS {
        for entry in fs::read_dir(corpus.join(target.name)).unwrap() {
            (target.fuzz)(&fs::read(entry.unwrap().path()).unwrap());
            played += 1;
        }
    }
    assert!(
        played >= TARGETS.len(),
        "each target has at least one input"
    );
}

#[test]
fn random_inputs_find_no_failure() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    for target in TARGETS {
        let mut mutator = Mutator::new(1, Vec::new());
        for _ in 0..target.trials {
            (target.fuzz)(&mutator.input());
        }
    }
}

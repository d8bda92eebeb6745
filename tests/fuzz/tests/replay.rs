// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What was once found stays mended, and some thousand new inputs are tried.

use std::fs;
use std::path::Path;

use vsock_fuzz::TARGETS;
use vsock_fuzz::driver::Mutator;

#[test]
fn inputs_of_the_corpus_do_no_harm() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let mut played = 0;
    for (name, fuzz) in TARGETS {
        for entry in fs::read_dir(corpus.join(name)).unwrap() {
            fuzz(&fs::read(entry.unwrap().path()).unwrap());
            played += 1;
        }
    }
    assert!(played >= TARGETS.len(), "each target has an input at least");
}

#[test]
fn random_inputs_do_no_harm() {
    for (name, fuzz) in TARGETS {
        let runs = if matches!(*name, "muxer" | "device") {
            1500
        } else {
            20_000
        };
        let mut mutator = Mutator::new(1, Vec::new());
        for _ in 0..runs {
            fuzz(&mutator.input());
        }
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Runs targets for a given time: `vsock-fuzz CORPUS SECONDS SEED [TARGET]`. If a target panics,
//! the input is written to the corpus and the program fails.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::expect_used,
    reason = "a program for people"
)]

use std::fs;
use std::panic;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use vsock_fuzz::driver::Mutator;
use vsock_fuzz::{TARGETS, Target};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [corpus, seconds, seed, rest @ ..] = words.as_slice() else {
        eprintln!("usage: cargo xtask fuzz [TARGET] [--seconds N] [--seed N]");
        return ExitCode::FAILURE;
    };
    let (Ok(seconds), Ok(seed)) = (seconds.parse(), seed.parse()) else {
        eprintln!("expected numbers for the seconds and the seed");
        return ExitCode::FAILURE;
    };
    let chosen: Vec<&Target> = TARGETS
        .iter()
        .filter(|target| rest.is_empty() || rest.iter().any(|word| word == target.name))
        .collect();
    if chosen.is_empty() {
        eprintln!("unknown target; expected one of: {}", names());
        return ExitCode::FAILURE;
    }
    let mut good = true;
    for target in chosen {
        good &= run(
            target,
            Path::new(corpus),
            Duration::from_secs(seconds),
            seed,
        );
    }
    if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn names() -> String {
    let names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
    names.join(", ")
}

/// Runs one target. Returns whether it found nothing.
fn run(target: &Target, corpus: &Path, time: Duration, seed: u64) -> bool {
    let name = target.name;
    let place = corpus.join(name);
    let known = fs::read_dir(&place)
        .into_iter()
        .flatten()
        .filter_map(|entry| fs::read(entry.ok()?.path()).ok());
    let mut mutator = Mutator::new(seed, known.collect());
    let end = Instant::now() + time;
    let mut runs = 0_u64;
    let running = place.join("running");
    while Instant::now() < end {
        let input = mutator.input();
        if target.deadly {
            let kept = fs::create_dir_all(&place).and_then(|()| fs::write(&running, &input));
            kept.expect("the corpus is writable");
        }
        if panic::catch_unwind(|| (target.fuzz)(&input)).is_err() {
            let file = place.join(format!("seed-{seed}-run-{runs}"));
            let kept = fs::create_dir_all(&place).and_then(|()| fs::write(&file, &input));
            println!(
                "{name}: failed after {runs} runs, at {} ({kept:?})",
                file.display()
            );
            fs::remove_file(&running).ok();
            return false;
        }
        runs += 1;
    }
    fs::remove_file(&running).ok();
    println!(
        "{name}: {runs} runs in {} s, seed {seed}: no failure",
        time.as_secs()
    );
    true
}

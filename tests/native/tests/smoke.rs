// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A short run of every row on the library: it works, however fast that is.

use std::fs;
use std::process::Command;

/// Runs the bench with a guest that is set up so, and tells what it has kept and said.
fn run(shape: &[&str]) -> (serde_json::Value, String) {
    let out = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_vsock-native"))
        .args(["--quick", "--devices", "library", "--out"])
        .arg(out.path())
        .args(shape)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    assert!(out.path().join("bulk.svg").exists());
    let json = fs::read(out.path().join("native.json")).unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    (serde_json::from_slice(&json).unwrap(), text)
}

#[test]
fn every_row_is_measured() {
    let (results, text) = run(&[]);
    let cells = results["cells"].as_array().unwrap();
    assert_eq!(cells.len(), 27);
    for cell in cells {
        let (row, sample) = (cell["row"].as_str().unwrap(), &cell["samples"][0]);
        assert!(text.contains(row), "{row} is not in a table");
        for figure in ["units", "seconds", "kicks", "interrupts"] {
            let value = sample[figure].as_f64();
            assert!(value.is_some_and(|value| value > 0.0), "{row}: {sample}");
        }
        assert_eq!(
            sample["latencies"]["packets"].is_null(),
            row.starts_with("bulk") || row.starts_with("connect"),
            "{row}: {sample}"
        );
    }
}

#[test]
fn every_kind_of_guest_is_served() {
    for notifications in ["event-idx", "flags"] {
        for chains in ["indirect", "direct"] {
            for (size, buffer) in [("128", "4140"), ("256", "3776")] {
                let rows = "bulk,round trips";
                let shape = [
                    ["--notifications", notifications],
                    ["--chains", chains],
                    ["--queue-size", size],
                    ["--rx-buffer", buffer],
                    ["--rows", rows],
                ];
                run(shape.as_flattened());
            }
        }
    }
}

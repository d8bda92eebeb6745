// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `doc` as `ci` runs it, and `api`: the public interface of each published crate as a committed
//! text, so that a review shows every change of it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use xshell::cmd;

use crate::shell::{Env, Missing};

/// The directory of the texts.
const TEXTS: &str = "docs/api";

/// Documents the workspace without a warning, and compares each interface with its text.
///
/// # Errors
///
/// rustdoc warned, or an interface differs from its text. [`Missing`] if the reader of rustdoc's
/// output does not support the version that this compiler writes.
pub(crate) fn check(env: &Env) -> anyhow::Result<()> {
    let mut changed = Vec::new();
    for (name, file, text) in interfaces(env)? {
        let committed = fs::read_to_string(&file).unwrap_or_default();
        if committed != text {
            println!("--- {name}");
            for line in text.lines().filter(|line| !has(&committed, line)) {
                println!("+{line}");
            }
            for line in committed.lines().filter(|line| !has(&text, line)) {
                println!("-{line}");
            }
            changed.push(name);
        }
    }
    ensure!(
        changed.is_empty(),
        "the public interface of {} has changed; if this is intended, run: cargo xtask api",
        changed.join(", ")
    );
    Ok(())
}

/// Rewrites the texts.
pub(crate) fn write(env: &Env) -> anyhow::Result<()> {
    fs::create_dir_all(env.root.join(TEXTS))?;
    for (_, file, text) in interfaces(env)? {
        fs::write(&file, text)?;
    }
    Ok(())
}

fn has(text: &str, line: &str) -> bool {
    text.lines().any(|other| other == line)
}

/// Returns the name of each published crate, the file of its text, and the expected text.
fn interfaces(env: &Env) -> anyhow::Result<Vec<(String, PathBuf, String)>> {
    document(env)?;
    env.crates()?
        .into_iter()
        .map(|name| {
            let json = format!("doc/{}.json", name.replace('-', "_"));
            let text = read(&env.target.join(json))?;
            let file = env.root.join(TEXTS).join(format!("{name}.txt"));
            Ok((name, file, text))
        })
        .collect()
}

/// Makes rustdoc write its JSON output, with the same lints as for its pages.
fn document(env: &Env) -> anyhow::Result<()> {
    // The output is unstable. If cargo saw the variable, it would build all dependencies again.
    let rustdoc = env.target.join("tools/rustdoc-json");
    fs::create_dir_all(env.target.join("tools"))?;
    fs::write(
        &rustdoc,
        "#!/bin/sh\nRUSTC_BOOTSTRAP=1 exec rustdoc \"$@\"\n",
    )?;
    cmd!(env.sh, "chmod +x {rustdoc}").quiet().run()?;
    cmd!(
        env.sh,
        "cargo doc --workspace --no-deps --all-features --locked"
    )
    .env("RUSTDOC", rustdoc)
    .env(
        "RUSTDOCFLAGS",
        "--deny warnings -Z unstable-options --output-format json",
    )
    .run()?;
    Ok(())
}

/// Which derived implementations a text contains.
#[derive(Clone, Copy)]
enum Derived {
    All,
    None,
}

/// Reads the interface that rustdoc has written, one item per line. Of the derived implementations
/// it contains those of serde, which decide what users can save and exchange. The others would only
/// make the text longer.
fn read(json: &Path) -> anyhow::Result<String> {
    let (all, others) = (items(json, Derived::All)?, items(json, Derived::None)?);
    // Both have the same order. Lines can repeat, so each is used up.
    let mut others = others.lines().peekable();
    let mut text = String::new();
    for line in all.lines() {
        if is_of_serde(line) || others.next_if_eq(&line).is_some() {
            text.push_str(line);
            text.push('\n');
        }
    }
    let lost = others.next();
    ensure!(lost.is_none(), "derived items change the order of {lost:?}");
    Ok(text)
}

/// Returns whether an item is an implementation of one of serde's traits.
fn is_of_serde(item: &str) -> bool {
    let of_serde = ["serde_core::", "serde::"];
    item.starts_with("impl") && of_serde.iter().any(|name| item.contains(name))
}

fn items(json: &Path, derived: Derived) -> anyhow::Result<String> {
    let interface = public_api::Builder::from_rustdoc_json(json)
        .omit_blanket_impls(true)
        .omit_auto_trait_impls(true)
        .omit_auto_derived_impls(matches!(derived, Derived::None))
        .build();
    match interface {
        Ok(interface) => Ok(interface.to_string()),
        Err(public_api::Error::SerdeJsonError(error)) => {
            let tool = format!("a reader of this compiler's rustdoc ({error})");
            Err(Missing::new(tool, "cargo update --package public-api").into())
        }
        Err(error) => Err(error).with_context(|| format!("cannot read {}", json.display())),
    }
}

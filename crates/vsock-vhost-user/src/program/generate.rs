// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The command `generate`: writes the files that a package installs with the program. Man pages and
//! completions are generated from the definition of the command line.

use std::fs;
use std::io;
use std::iter;
use std::path::{Path, PathBuf};

use clap::{Command, CommandFactory};
use clap_complete::Shell;
use thiserror::Error;

use super::args::{Args, Generate};
use super::capabilities;

/// The path of each shell's completions, relative to a directory such as `/usr/share`.
const COMPLETIONS: [(Shell, &str); 3] = [
    (Shell::Bash, "bash-completion/completions/vsock-vhost-user"),
    (
        Shell::Fish,
        "fish/vendor_completions.d/vsock-vhost-user.fish",
    ),
    (Shell::Zsh, "zsh/site-functions/_vsock-vhost-user"),
];

/// A file that could not be written.
#[derive(Debug, Error)]
#[error("cannot write {}", path.display())]
pub(crate) struct GenerateError {
    path: PathBuf,
    source: io::Error,
}

/// The path of QEMU's description file, relative to a directory such as `/usr/share`.
const DESCRIPTION: &str = "qemu/vhost-user/50-vsock-vhost-user.json";

/// Writes all files.
pub(crate) fn run(options: &Generate) -> Result<(), GenerateError> {
    let mut command = Args::command();
    // Gives each subcommand its full name, such as `vsock-vhost-user-connect`.
    command.build();
    for (name, page) in pages(&command) {
        write(&options.share, &format!("man/man1/{name}.1"), &page)?;
    }
    for (shell, file) in COMPLETIONS {
        let mut text = Vec::new();
        clap_complete::generate(shell, &mut command, "vsock-vhost-user", &mut text);
        write(&options.share, file, &text)?;
    }
    let description = format!("{:#}\n", capabilities::description(&options.binary));
    write(&options.share, DESCRIPTION, description.as_bytes())
}

/// Returns the man pages of the program and all its subcommands, each with its name.
fn pages(command: &Command) -> Vec<(String, Vec<u8>)> {
    let name = command
        .get_display_name()
        .unwrap_or_else(|| command.get_name());
    let mut page = Vec::new();
    let rendered = clap_mangen::Man::new(command.clone()).render(&mut page);
    debug_assert!(rendered.is_ok(), "writing to memory cannot fail");
    let own = (name.to_owned(), page);
    let below = command.get_subcommands().flat_map(pages);
    iter::once(own).chain(below).collect()
}

fn write(share: &Path, name: &str, bytes: &[u8]) -> Result<(), GenerateError> {
    let path = share.join(name);
    let parent = path.parent().unwrap_or(share);
    let written = fs::create_dir_all(parent).and_then(|()| fs::write(&path, bytes));
    written.map_err(|source| GenerateError { path, source })
}

#[cfg(test)]
mod tests {
    use clap::Arg;
    use serde_json::Value;

    use super::*;

    #[test]
    fn all_files_are_written_and_cover_every_option() {
        let dir = tempfile::TempDir::new().unwrap();
        let share = dir.path().join("share");
        let options = Generate {
            binary: "/opt/a \"b\"".to_owned(),
            share: share.clone(),
        };
        run(&options).unwrap();
        let read = |name: &str| fs::read_to_string(share.join(name)).unwrap();
        let page = read("man/man1/vsock-vhost-user.1").replace('\\', "");
        let command = Args::command();
        let options = command.get_arguments().filter(|arg| !arg.is_hide_set());
        let options: Vec<_> = options.filter_map(Arg::get_long).collect();
        assert!(options.len() > 10, "{options:?}");
        for option in options {
            assert!(page.contains(&format!("--{option}")), "{option}\n{page}");
            for (_, file) in COMPLETIONS {
                assert!(read(file).contains(option), "{option} in {file}");
            }
        }
        let page = read("man/man1/vsock-vhost-user-generate.1");
        assert!(page.contains("DIRECTORY"), "{page}");
        let description: Value = serde_json::from_str(&read(DESCRIPTION)).unwrap();
        assert_eq!(description["type"], "vsock");
        assert_eq!(description["binary"], "/opt/a \"b\"");
        assert!(description["description"].is_string());
    }

    #[test]
    fn every_page_that_a_page_refers_to_is_written() {
        let mut command = Args::command();
        command.build();
        let pages = pages(&command);
        for (name, page) in &pages {
            let page = String::from_utf8_lossy(page).replace('\\', "");
            for other in page.lines().filter_map(|line| line.strip_suffix("(1)")) {
                let written = pages.iter().any(|(name, _)| name == other);
                assert!(written, "{name} refers to {other}");
            }
        }
    }

    #[test]
    fn the_error_names_the_file_that_cannot_be_written() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let share = file.path().to_owned();
        let binary = "/usr/bin/vsock-vhost-user".to_owned();
        let error = run(&Generate { binary, share }).unwrap_err();
        let expected = format!("cannot write {}/man/", file.path().display());
        assert!(error.to_string().starts_with(&expected), "{error}");
    }
}

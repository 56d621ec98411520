//! Automation that explains itself: `cargo run -p xtask -- tidy` and `cargo run -p xtask -- flaky NAME [N]`.
#![expect(clippy::print_stdout, reason = "this is a tool for people; its output is what it is for")]

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, Result, bail};

mod flaky;
mod tidy;

const USAGE: &str = "usage: cargo run -p xtask -- tidy
       cargo run -p xtask -- flaky NAME [N]     runs the tests named NAME N times (default 50), stops at the first red one";

fn main() -> Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["tidy"] => tidy::run(&root()?),
        ["flaky", name] => flaky::run(&root()?, name, flaky::RUNS),
        ["flaky", name, runs] => {
            flaky::run(&root()?, name, runs.parse().context("N must be a whole number")?)
        }
        _ => bail!(USAGE),
    }
}

/// The folder of the workspace, as `cargo run` says it: a target folder may be shared by several work trees.
fn root() -> Result<PathBuf> {
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR").context("run it by `cargo run -p xtask -- ...`")?;
    let manifest = PathBuf::from(manifest);
    manifest.ancestors().nth(2).map(PathBuf::from).context("xtask stands two folders below the root")
}

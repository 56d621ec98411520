//! Runs one test many times: a new end-to-end test goes through this before it is merged.

use std::{
    path::Path,
    process::{Command, ExitCode},
    time::Instant,
};

use anyhow::{Context, Result, bail};

/// How often, when nobody says: a race of one in twenty shows with 92 % certainty.
pub(crate) const RUNS: u32 = 50;

/// Builds once, then runs every test whose name contains `name`, `runs` times.
pub(crate) fn run(root: &Path, name: &str, runs: u32) -> Result<ExitCode> {
    cargo(root, &["build", "--workspace", "--bins", "--tests", "--quiet"])?;
    for run in 1..=runs {
        let begun = Instant::now();
        if cargo(root, &["nextest", "run", "--workspace", "--no-tests", "fail", name]).is_err() {
            println!("flaky: run {run} of {runs} was red");
            return Ok(ExitCode::FAILURE);
        }
        println!("flaky: run {run} of {runs} was green ({:.1} s)", begun.elapsed().as_secs_f64());
    }
    Ok(ExitCode::SUCCESS)
}

fn cargo(root: &Path, arguments: &[&str]) -> Result<()> {
    let status = Command::new("cargo")
        .args(arguments)
        .current_dir(root)
        .status()
        .context("cargo could not be started")?;
    if !status.success() {
        bail!("`cargo {}` failed", arguments.join(" "));
    }
    Ok(())
}

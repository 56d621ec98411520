//! The house rules that no compiler knows. Every message says what, why, and where the rule stands.
//!
//! When adding a rule, also write it down in docs/style.md.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context, Result, bail};

mod architecture;
mod dependencies;
mod sources;
mod tree;

/// A rule that is broken (or nearly) at a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    place: String,
    what: String,
    why: &'static str,
    severity: Severity,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Severity {
    Error,
    Warning,
}

impl Finding {
    fn error(place: impl Into<String>, what: impl Into<String>, why: &'static str) -> Self {
        Self { place: place.into(), what: what.into(), why, severity: Severity::Error }
    }
    fn warning(place: impl Into<String>, what: impl Into<String>, why: &'static str) -> Self {
        Self { place: place.into(), what: what.into(), why, severity: Severity::Warning }
    }
}

/// Checks the whole tree; the exit code says whether it is tidy.
pub(crate) fn run(root: &Path) -> Result<ExitCode> {
    let files = files(root)?;
    let mut findings = dependencies::check(&cargo_metadata(root)?)?;
    let lock = fs::read_to_string(root.join("Cargo.lock")).context("reading Cargo.lock")?;
    findings.extend(dependencies::check_lock(&lock));
    findings.extend(tree::check(&files));
    for file in files.iter().filter(|file| file.ends_with(".rs")) {
        let text = fs::read_to_string(root.join(file)).with_context(|| format!("reading {file}"))?;
        findings.extend(sources::check(file, &text));
    }
    let page = fs::read_to_string(root.join("ARCHITECTURE.md")).context("reading ARCHITECTURE.md")?;
    findings.extend(architecture::check(&page, |path| root.join(path).exists()));

    let mut errors = 0;
    for finding in &findings {
        let mark = match finding.severity {
            Severity::Error => {
                errors += 1;
                "error"
            }
            Severity::Warning => "warning",
        };
        println!("{mark}: {}: {}\n  why: {}", finding.place, finding.what, finding.why);
    }
    println!("tidy: {} files, {errors} errors, {} warnings", files.len(), findings.len() - errors);
    Ok(if errors == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What is or could be committed, relative to the root, sorted.
fn files(root: &Path) -> Result<Vec<String>> {
    let listed = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output()
        .context("git could not be started")?;
    if !listed.status.success() {
        bail!("`git ls-files` failed: {}", String::from_utf8_lossy(&listed.stderr));
    }
    let text = String::from_utf8(listed.stdout).context("a file name is not UTF-8")?;
    let mut files: Vec<String> = text
        .split('\0')
        .filter(|file| !file.is_empty() && root.join(PathBuf::from(file)).is_file())
        .map(str::to_owned)
        .collect();
    files.sort();
    files.dedup();
    Ok(files)
}

fn cargo_metadata(root: &Path) -> Result<serde_json::Value> {
    let output = Command::new("cargo")
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
        .current_dir(root)
        .output()
        .context("cargo could not be started")?;
    if !output.status.success() {
        bail!("`cargo metadata` failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    serde_json::from_slice(&output.stdout).context("cargo metadata is no JSON")
}

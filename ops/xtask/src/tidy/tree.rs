//! The top level of the repository: the first page of its documentation.

use std::collections::BTreeSet;

use super::Finding;

const FOLDERS: &[&str] = &["agent-cli", "docs", "domain", "e2e", "hub", "ops", "projections", "schemas"];
const FILES: &[&str] = &[
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "clippy.toml",
    "deny.toml",
    "rust-toolchain.toml",
    "rustfmt.toml",
];

const WHY: &str = "whoever opens the repository reads its top level first; a new entry there is an architectural \
                   decision: write it down, then extend the list in ops/xtask/src/tidy/tree.rs";

pub(super) fn check(files: &[String]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let top: BTreeSet<(&str, bool)> = files
        .iter()
        .map(|file| match file.split_once('/') {
            Some((folder, _)) => (folder, true),
            None => (file.as_str(), false),
        })
        .collect();
    for &(name, is_folder) in &top {
        let known = name.starts_with('.') || if is_folder { FOLDERS } else { FILES }.contains(&name);
        if !known {
            findings.push(Finding::error(name, "does not belong on the top level", WHY));
        }
    }
    let expected = FOLDERS.iter().map(|&name| (name, true)).chain(FILES.iter().map(|&name| (name, false)));
    for (name, is_folder) in expected {
        if !top.contains(&(name, is_folder)) {
            findings.push(Finding::error(name, "is missing from the top level", WHY));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complete() -> Vec<String> {
        let inside = FOLDERS.iter().map(|folder| format!("{folder}/file"));
        inside.chain(FILES.iter().map(|&file| file.to_owned())).collect()
    }

    #[test]
    fn a_stranger_on_the_top_level_is_shown() {
        let mut files = complete();
        files.push("notes.txt".to_owned());
        files.push(".config/nextest.toml".to_owned());
        let findings = check(&files);
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert_eq!(findings[0].place, "notes.txt");
    }

    #[test]
    fn a_missing_entry_is_shown() {
        let files: Vec<String> = complete().into_iter().filter(|file| file != "LICENSE").collect();
        assert_eq!(check(&files).len(), 1);
    }
}

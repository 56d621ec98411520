//! Where the binaries under test are; a binary older than its sources is refused, since it would prove nothing.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Runs the binaries of another build instead (a release build for benchmarks): a folder with `hub` and `connect`.
pub const OTHER_BUILD: &str = "E2E_BIN_DIR";

/// The path of `hub` or `connect`.
#[track_caller]
pub fn binary(name: &str) -> PathBuf {
    let folder = std::env::var_os(OTHER_BUILD).map_or_else(next_to_this_test, PathBuf::from);
    let path = folder.join(name);
    assert!(path.is_file(), "{} is missing: build it with `cargo build --workspace --bins`", path.display());
    if let Err(why) = up_to_date(&path) {
        panic!("{} is {why}: build it with `cargo build --workspace --bins`", path.display());
    }
    path
}

/// `target/debug`, seen from `target/debug/deps/this_test-0123` or `target/debug/bench`.
fn next_to_this_test() -> PathBuf {
    let this = std::env::current_exe().expect("the running program has a path");
    let folder = this.parent().expect("a program stands in a folder");
    match folder.file_name() {
        Some(name) if name == "deps" => folder.parent().expect("`deps` stands in a folder").to_owned(),
        Some(_) | None => folder.to_owned(),
    }
}

/// Cargo leaves a list of all sources beside each binary.
fn up_to_date(binary: &Path) -> Result<(), String> {
    let modified = |path: &Path| {
        fs::metadata(path)
            .and_then(|meta| meta.modified())
            .map_err(|error| format!("{}: {error}", path.display()))
    };
    let list = binary.with_extension("d");
    let Ok(text) = fs::read_to_string(&list) else {
        return Err(format!("without its list of sources {}", list.display()));
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("e2e stands in the workspace");
    let built = modified(binary)?;
    let sources = text.split_once(": ").map_or("", |(_, sources)| sources);
    // A space inside a path is written with a backslash.
    let sources = sources.trim_end().replace("\\ ", "\0");
    for source in sources.split(' ').map(|source| PathBuf::from(source.replace('\0', " "))) {
        if !source.starts_with(root) {
            return Err(format!("built from another tree ({})", source.display()));
        }
        if modified(&source).map_or(true, |changed| changed > built) {
            return Err(format!("older than {}", source.display()));
        }
    }
    Ok(())
}

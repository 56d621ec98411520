//! Who may know whom: the arrows of ARCHITECTURE.md, checked against Cargo's own view of the workspace.

use anyhow::{Context, Result};
use serde_json::Value;

use super::Finding;

/// Crate and the crates of ours that it may depend on. `hub`'s binary alone uses `agent-cli`, for `quickstart`:
/// Cargo has no dependencies per binary, so `sources` checks that part. `e2e` runs the binaries; its `many` alone holds a
/// crowd of agents in one process, and its tests of the log in a database run the log's own contract beside a server.
const ALLOWED: &[(&str, &[&str])] = &[
    ("domain", &[]),
    ("schemas", &[]),
    ("projections", &["domain", "schemas"]),
    ("wire", &["schemas"]),
    ("agent-cli", &["domain", "schemas", "wire"]),
    ("hub", &["agent-cli", "domain", "projections", "schemas", "wire"]),
    ("e2e", &["agent-cli", "domain", "hub", "schemas", "wire"]),
    ("xtask", &[]),
];

/// What must stay out of the pure crates, whoever brings it.
const IMPURE: &[&str] = &["actix", "actix-web", "hyper", "reqwest", "tokio", "rusqlite", "ring", "rand"];

/// Other ways to do TLS: a feature somewhere below can bring one in unnoticed.
const OTHER_TLS: &[&str] = &["aws-lc-rs", "aws-lc-sys", "native-tls", "openssl", "openssl-sys"];

const WHY_TLS: &str = "TLS is rustls with ring, passed explicitly (docs/adr/0007): with two providers in the build a \
                       process has no default one and panics where a library asks for it; switch the feature off";
const WHY_ARROWS: &str = "decisions are pure and stand below I/O; an arrow the wrong way makes them untestable \
                          (docs/style.md, \"Who may know whom\")";
const WHY_PURE: &str = "domain and schemas have no clock, randomness, I/O or async, so that the rules can be replayed \
                        and tested in microseconds (docs/style.md, \"Who may know whom\")";

pub(super) fn check(metadata: &Value) -> Result<Vec<Finding>> {
    let packages = metadata["packages"].as_array().context("cargo metadata names no packages")?;
    let ours: Vec<&str> = packages.iter().filter_map(|package| package["name"].as_str()).collect();
    let mut findings = Vec::new();
    for package in packages {
        let name = package["name"].as_str().context("a package has no name")?;
        let place = format!("{name}/Cargo.toml");
        let Some((_, allowed)) = ALLOWED.iter().find(|(known, _)| *known == name) else {
            findings.push(Finding::error(
                place,
                format!("crate `{name}` has no place in the picture"),
                WHY_ARROWS,
            ));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let used = dependency["name"].as_str().unwrap_or_default();
            if ours.contains(&used) && !allowed.contains(&used) {
                findings.push(Finding::error(
                    &place,
                    format!("`{name}` may not depend on `{used}`"),
                    WHY_ARROWS,
                ));
            }
            if matches!(name, "domain" | "schemas") && IMPURE.contains(&used) {
                findings.push(Finding::error(&place, format!("`{name}` may not use `{used}`"), WHY_PURE));
            }
        }
    }
    Ok(findings)
}

/// Looks for packages that must not be in the build, whoever brings them.
pub(super) fn check_lock(lock: &str) -> Vec<Finding> {
    let is_locked = |name: &&&str| lock.lines().any(|line| line == format!("name = \"{name}\""));
    let found = OTHER_TLS.iter().filter(is_locked);
    found.map(|name| Finding::error("Cargo.lock", format!("has `{name}`"), WHY_TLS)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn package(name: &str, uses: &[&str]) -> Value {
        let dependencies: Vec<Value> = uses.iter().map(|used| json!({ "name": used })).collect();
        json!({ "name": name, "dependencies": dependencies })
    }

    #[test]
    fn an_arrow_upwards_is_refused() {
        let metadata =
            json!({ "packages": [package("domain", &["schemas"]), package("schemas", &["serde"])] });
        let findings = check(&metadata).expect("the metadata has its shape");
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert_eq!(findings[0].what, "`domain` may not depend on `schemas`");
    }

    #[test]
    fn input_and_output_stay_out_of_the_domain() {
        let findings =
            check(&json!({ "packages": [package("domain", &["tokio"])] })).expect("it has its shape");
        assert_eq!(findings.len(), 1, "{findings:?}");
    }

    #[test]
    fn a_second_way_to_do_tls_is_refused() {
        let lock = "[[package]]\nname = \"aws-lc-rs\"\nversion = \"1.0.0\"\n\n[[package]]\nname = \"ring\"\n";
        let findings = check_lock(lock);
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert_eq!(findings[0].what, "has `aws-lc-rs`");
    }

    #[test]
    fn arrows_downwards_pass() {
        let metadata = json!({ "packages": [
            package("hub", &["projections", "domain", "schemas", "agent-cli", "tokio"]),
            package("projections", &["domain", "schemas", "rusqlite"]),
            package("domain", &["serde"]), package("schemas", &["bincode"]), package("agent-cli", &["schemas"]),
        ] });
        assert_eq!(check(&metadata).expect("it has its shape"), Vec::new());
    }
}

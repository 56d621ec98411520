//! What every Rust file keeps to: a first sentence, a length, no silenced lints, no loose ends, no stray frameworks.

use super::Finding;

const LINES_WARN: usize = 500;
const LINES_MAX: usize = 700;
const LONG_BECAUSE: &str = "// tidy: long because ";

/// The only places of the hub that know actix; elsewhere a channel, a port or a plain function does.
const ACTIX_PLACES: &[&str] = &[
    "hub/src/actors",
    "hub/src/gateway",
    "hub/src/api",
    "hub/src/startup",
    "hub/src/main.rs",
    "hub/tests/",
    "hub/benches/",
];

const WHY_SENTENCE: &str = "think of the person who opens only this file: its first line says what it is \
                            (docs/style.md, \"Files\")";
const WHY_LENGTH: &str = "a file fits in a head: aim at 300 lines, argue above 500 (docs/style.md, \"Files\"); \
                          split it, or say `// tidy: long because ...` in it";
const WHY_ALLOW: &str = "`#[expect(lint, reason = \"...\")]` says why and complains when it is no longer needed \
                         (docs/style.md, \"Lints\")";
const WHY_LOOSE_END: &str = "a loose end is a lie to whoever calls it; finish it, or leave it out and say so in \
                             CHANGELOG.md (docs/style.md, \"Files\")";
const WHY_ACTIX: &str = "actix is one of the given packages with a limited future: it stays in the actor, gateway, api \
                         and start-up modules (docs/adr/0004-the-given-packages.md)";
const WHY_AGENT: &str = "only `quickstart` runs an agent inside the hub; the server itself speaks to agents by the \
                         protocol in schemas (docs/style.md, \"Who may know whom\")";

pub(super) fn check(file: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !text.starts_with("//! ") {
        findings.push(Finding::error(
            format!("{file}:1"),
            "does not begin with a `//!` sentence",
            WHY_SENTENCE,
        ));
    }
    let lines = text.lines().count();
    if lines > LINES_MAX && !text.contains(LONG_BECAUSE) {
        let what = format!("has {lines} lines, more than {LINES_MAX}");
        findings.push(Finding::error(file, what, WHY_LENGTH));
    } else if lines > LINES_WARN {
        findings.push(Finding::warning(
            file,
            format!("has {lines} lines, more than {LINES_WARN}"),
            WHY_LENGTH,
        ));
    }
    // The checker names what it looks for.
    if file.starts_with("ops/xtask/") {
        return findings;
    }
    for (number, line) in text.lines().enumerate() {
        let place = || format!("{file}:{}", number + 1);
        if line.contains("#[allow(") || line.contains("#![allow(") {
            findings.push(Finding::error(place(), "silences a lint with `allow`", WHY_ALLOW));
        }
        if ["todo!", "unimplemented!", "FIXME", "TODO"].iter().any(|word| line.contains(word)) {
            findings.push(Finding::error(place(), "is a loose end", WHY_LOOSE_END));
        }
        let code = line.split("//").next().unwrap_or_default();
        if names(code, "actix") && !ACTIX_PLACES.iter().any(|place| file.starts_with(place)) {
            findings.push(Finding::error(place(), "uses actix outside its modules", WHY_ACTIX));
        }
        if names(code, "agent_cli") && file.starts_with("hub/src/") && !may_run_an_agent(file) {
            findings.push(Finding::error(place(), "uses the agent inside the hub", WHY_AGENT));
        }
    }
    findings
}

fn may_run_an_agent(file: &str) -> bool {
    file == "hub/src/main.rs" || file.contains("quickstart")
}

/// Whether code mentions a crate: its name at the start of a path (`actix_web::`, `#[actix::test]`, `use actix;`).
fn names(code: &str, name: &str) -> bool {
    code.match_indices(name).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let rest =
            code[at + name.len()..].trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '_');
        !before.is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | '"' | '-' | ':'))
            && (rest.starts_with("::") || rest.starts_with(';'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whats(file: &str, text: &str) -> Vec<String> {
        check(file, text).into_iter().map(|finding| finding.what).collect()
    }

    #[test]
    fn a_tidy_file_passes() {
        let text = "//! A thing.\n#[expect(dead_code, reason = \"shown\")]\nfn thing() {}\n";
        assert_eq!(check("domain/src/x.rs", text), Vec::new());
    }

    #[test]
    fn each_rule_is_noticed() {
        assert_eq!(whats("domain/src/x.rs", "fn x() {}\n"), ["does not begin with a `//!` sentence"]);
        assert_eq!(whats("hub/src/x.rs", "//! X.\n#[allow(dead_code)]\n"), ["silences a lint with `allow`"]);
        assert_eq!(whats("hub/src/x.rs", "//! X.\nfn x() { todo!() }\n"), ["is a loose end"]);
        assert_eq!(
            whats("hub/src/edge/x.rs", "//! X.\nuse actix_web::web;\n"),
            ["uses actix outside its modules"]
        );
        assert_eq!(
            whats("hub/src/x.rs", "//! X.\nuse agent_cli::agent;\n"),
            ["uses the agent inside the hub"]
        );
    }

    #[test]
    fn actix_is_at_home_in_its_modules_and_in_comments() {
        assert_eq!(whats("hub/src/actors/x.rs", "//! X.\nuse actix::prelude::*;\n"), Vec::<String>::new());
        assert_eq!(whats("hub/src/x.rs", "//! X.\n// like actix::Addr\n"), Vec::<String>::new());
    }

    #[test]
    fn a_long_file_argues() {
        let long = |lines: usize, extra: &str| format!("//! X.\n{extra}{}", "fn x() {}\n".repeat(lines));
        assert_eq!(check("hub/src/x.rs", &long(600, ""))[0].severity, super::super::Severity::Warning);
        assert_eq!(check("hub/src/x.rs", &long(800, ""))[0].severity, super::super::Severity::Error);
        let argued = long(800, "// tidy: long because it is one table\n");
        assert_eq!(check("hub/src/x.rs", &argued)[0].severity, super::super::Severity::Warning);
    }
}

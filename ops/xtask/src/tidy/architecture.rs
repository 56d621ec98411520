//! Paths that ARCHITECTURE.md names must exist: a page that points at nothing is worse than none.

use super::Finding;

const WHY: &str = "the code map is only worth reading while it is true; mend the page or the tree";

/// Looks at every `code span` that begins like a path of this repository.
pub(super) fn check(page: &str, exists: impl Fn(&str) -> bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (number, line) in page.lines().enumerate() {
        for span in line.split('`').skip(1).step_by(2) {
            if is_path(span) && !exists(span) {
                let place = format!("ARCHITECTURE.md:{}", number + 1);
                findings.push(Finding::error(place, format!("names `{span}`, which does not exist"), WHY));
            }
        }
    }
    findings
}

fn is_path(span: &str) -> bool {
    let ours = ["hub/", "agent-cli/", "domain/", "projections/", "schemas/", "ops/", "e2e/", "docs/"];
    ours.iter().any(|folder| span.starts_with(folder)) && !span.contains([' ', '*', '<', '{'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_missing_paths_are_shown() {
        let page =
            "`domain/src/share.rs` decides; `hub/src/gone.rs` is gone; `GET /v1/x` and `a/b` are no paths\n";
        let findings = check(page, |path| path == "domain/src/share.rs");
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert_eq!(findings[0].what, "names `hub/src/gone.rs`, which does not exist");
    }
}

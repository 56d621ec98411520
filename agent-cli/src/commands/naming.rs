//! What a service is called when nobody names it: by database port, else by project, else by port.

use std::{
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
};

use domain::{names::Name, policy::ports::protected_engine, target::default_name};

/// A project file longer than this is not read (bytes).
const PROJECT_FILE_BYTES_MAX: u64 = 1024 * 1024;

/// The name for a port that is exposed from a folder.
pub(crate) fn service_name(port: u16, folder: Option<&Path>) -> String {
    if protected_engine(port).is_some() {
        return default_name(port);
    }
    folder.and_then(project_name).unwrap_or_else(|| default_name(port))
}

/// The folder in which the command runs, unless it is one that is no project: the home folder or the root.
pub(crate) fn project_folder(home: Option<PathBuf>) -> Option<PathBuf> {
    let folder = std::env::current_dir().ok()?;
    let is_project = folder.parent().is_some() && home.is_none_or(|home| home != folder);
    is_project.then_some(folder)
}

fn project_name(folder: &Path) -> Option<String> {
    [package_json(folder), cargo_toml(folder), folder.file_name()?.to_str().map(str::to_owned)]
        .into_iter()
        .flatten()
        .find_map(|name| usable(&name))
}

fn package_json(folder: &Path) -> Option<String> {
    let package: serde_json::Value = serde_json::from_str(&read(&folder.join("package.json"))?).ok()?;
    let name = package.get("name")?.as_str()?;
    // A scope (`@company/`) says whose it is, not what it is.
    Some(name.rsplit('/').next().unwrap_or(name).to_owned())
}

fn cargo_toml(folder: &Path) -> Option<String> {
    let manifest: toml::Table = read(&folder.join("Cargo.toml"))?.parse().ok()?;
    Some(manifest.get("package")?.get("name")?.as_str()?.to_owned())
}

fn read(path: &Path) -> Option<String> {
    let mut text = String::new();
    File::open(path).ok()?.take(PROJECT_FILE_BYTES_MAX).read_to_string(&mut text).ok()?;
    Some(text)
}

// Lower case, and hyphens for what would need quoting in a shell: names are typed after `connect reach`.
fn usable(name: &str) -> Option<String> {
    let mapped: String = name
        .trim()
        .chars()
        .map(|c| match c {
            c if c.is_alphanumeric() => c.to_ascii_lowercase(),
            '-' | '_' | '.' => c,
            _ => '-',
        })
        .collect();
    let name = mapped.trim_matches(['-', '.', '_']);
    Name::parse(name).ok().map(|name| name.as_str().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> (tempfile::TempDir, PathBuf) {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("My Project");
        std::fs::create_dir(&folder).unwrap();
        for (name, text) in files {
            std::fs::write(folder.join(name), text).unwrap();
        }
        (parent, folder)
    }

    #[test]
    fn a_database_port_names_the_service_before_the_project_does() {
        let (_keep, folder) = folder(&[("package.json", r#"{"name":"my-app"}"#)]);
        assert_eq!(service_name(5432, Some(&folder)), "postgres");
        assert_eq!(service_name(6379, Some(&folder)), "redis");
    }

    #[test]
    fn package_json_comes_before_cargo_toml_and_that_before_the_folder() {
        let (package, cargo) = (
            ("package.json", r#"{"name":"@company/my-app"}"#),
            ("Cargo.toml", "[package]\nname = \"crate-app\""),
        );
        let (_a, both) = folder(&[package, cargo]);
        assert_eq!(service_name(3000, Some(&both)), "my-app");
        let (_b, cargo_only) = folder(&[cargo]);
        assert_eq!(service_name(3000, Some(&cargo_only)), "crate-app");
        let (_c, none) = folder(&[]);
        assert_eq!(service_name(3000, Some(&none)), "my-project");
    }

    #[test]
    fn broken_project_files_are_passed_over() {
        let files = [("package.json", "{\"name\": 7}"), ("Cargo.toml", "[workspace]\nmembers = []")];
        let (_keep, folder) = folder(&files);
        assert_eq!(service_name(3000, Some(&folder)), "my-project");
    }

    #[test]
    fn a_name_from_a_file_cannot_carry_control_characters_or_shell_syntax() {
        let (_keep, folder) = folder(&[("package.json", "{\"name\":\"a\\u001b[2Jb; rm $(x)\"}")]);
        assert_eq!(service_name(3000, Some(&folder)), "a--2jb--rm---x");
    }

    #[test]
    fn without_a_project_the_port_gives_the_name() {
        assert_eq!(service_name(3000, None), "web");
        assert_eq!(service_name(45_678, None), "service-45678");
    }
}

//! What was typed, set and saved, merged once: flag before environment before config before default.

use std::{collections::BTreeMap, fmt, path::PathBuf};

use reqwest::Url;
use wire::tls::trust::Trust;

use crate::{cli::Global, failure::Failure};

pub mod config_file;

use config_file::{Config, ConfigFile, SavedHub};

/// The hub when nothing names one.
pub const DEFAULT_HUB: &str = "http://127.0.0.1:7070";
/// Every variable that is read.
pub const VARIABLES: [&str; 11] = [
    "CONNECT_HUB_URL",
    "CONNECT_CA",
    "PRIVATECONNECT_TOKEN",
    "XDG_CONFIG_HOME",
    "XDG_RUNTIME_DIR",
    "HOME",
    "NO_COLOR",
    "TERM",
    "LC_ALL",
    "LC_CTYPE",
    "LANG",
];

/// The environment, read once. An empty variable counts as unset; one that is not UTF-8 too.
#[derive(Debug, Clone, Default)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// Reads the process's own.
    pub fn of_process() -> Self {
        Self::from_pairs(VARIABLES.iter().filter_map(|name| Some((*name, std::env::var(name).ok()?))))
    }
    /// From pairs of name and value.
    pub fn from_pairs<N: Into<String>, V: Into<String>>(pairs: impl IntoIterator<Item = (N, V)>) -> Self {
        Self(
            pairs
                .into_iter()
                .map(|(name, value)| (name.into(), value.into()))
                .filter(|(_, value)| !value.is_empty())
                .collect(),
        )
    }
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
    // XDG: relative paths must be ignored.
    fn folder(&self, name: &str) -> Option<PathBuf> {
        self.get(name).map(PathBuf::from).filter(|path| path.is_absolute())
    }
    /// `$XDG_CONFIG_HOME/private-connect`, else `~/.config/private-connect`; `None` without a home.
    pub fn config_folder(&self) -> Option<PathBuf> {
        let base = self.folder("XDG_CONFIG_HOME").or_else(|| Some(self.folder("HOME")?.join(".config")))?;
        Some(base.join("private-connect"))
    }
    /// `$XDG_RUNTIME_DIR/private-connect`.
    pub fn runtime_folder(&self) -> Option<PathBuf> {
        Some(self.folder("XDG_RUNTIME_DIR")?.join("private-connect"))
    }
}

/// An API key or an agent token: never shown, not even by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
    /// The secret itself, for the one place that sends or saves it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// The merged settings of one run.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Always with a path that ends in a slash.
    pub hub: Url,
    pub api_key: Option<Secret>,
    /// Whom an https hub must be vouched for by.
    pub trust: Trust,
    /// What is saved for this hub.
    pub saved: SavedHub,
    /// Targets that the agent's owner allows besides what is exposed.
    pub allow_targets: Vec<String>,
    /// Where to save; `None` without a home folder and without `--config`.
    pub config: Option<ConfigFile>,
    pub runtime_folder: Option<PathBuf>,
}

impl Settings {
    /// Merges flags, environment and config.
    ///
    /// # Errors
    /// A hub URL or key that cannot be one (exit 2), a broken or unreadable config.
    pub fn resolve(flags: &Global, environment: &Environment) -> Result<Self, Failure> {
        let config = match &flags.config {
            Some(path) => Some(ConfigFile::chosen(path.clone())),
            None => environment.config_folder().map(|folder| ConfigFile::at_home(&folder)),
        };
        let saved = match &config {
            Some(config) => config.read()?,
            None => Config::default(),
        };
        let hub = [flags.hub.as_deref(), environment.get("CONNECT_HUB_URL"), saved.hub.as_deref()]
            .into_iter()
            .flatten()
            .next()
            .unwrap_or(DEFAULT_HUB);
        let hub = hub_url(hub)?;
        let saved_hub = saved.hubs.get(hub.as_str()).cloned().unwrap_or_default();
        let api_key = [flags.api_key.as_deref(), environment.get("PRIVATECONNECT_TOKEN")]
            .into_iter()
            .flatten()
            .next()
            .or(saved_hub.api_key.as_deref())
            .map(api_key)
            .transpose()?;
        let ca = flags.ca.clone().or_else(|| environment.get("CONNECT_CA").map(PathBuf::from));
        let trust = match ca.or_else(|| saved_hub.ca.clone()) {
            Some(file) => Trust::File(file),
            None => Trust::System,
        };
        Ok(Self {
            hub,
            api_key,
            trust,
            saved: saved_hub,
            allow_targets: saved.allow_targets,
            config,
            runtime_folder: environment.runtime_folder(),
        })
    }
}

fn hub_url(text: &str) -> Result<Url, Failure> {
    let wrong = |why: &str| {
        Failure::usage(format!("\"{text}\" is no hub URL: {why}"))
            .hint("a hub URL looks like https://hub.example.com or http://127.0.0.1:7070 (--hub or CONNECT_HUB_URL)")
    };
    let text = text.trim();
    let with_scheme = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let mut url = Url::parse(&with_scheme).map_err(|error| wrong(&error.to_string()))?;
    match url.scheme() {
        "http" | "https" => {}
        _ => return Err(wrong("the scheme must be https or http")),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("it must not hold a user name or password"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("it must not have a query or fragment"));
    }
    if !url.path().ends_with('/') {
        let path = format!("{}/", url.path());
        url.set_path(&path);
    }
    Ok(url)
}

fn api_key(text: &str) -> Result<Secret, Failure> {
    let text = text.trim();
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if !text.starts_with("pc_") || !text.bytes().all(allowed) {
        return Err(Failure::usage("the API key is not one: keys are pc_ and letters, digits, - and _")
            .hint("check --api-key or PRIVATECONNECT_TOKEN"));
    }
    Ok(Secret::new(text))
}

#[cfg(test)]
mod tests;

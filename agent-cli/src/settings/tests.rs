//! Settings: precedence, and every documented variable.

use super::*;

struct Home(tempfile::TempDir);

impl Home {
    fn with_config(text: &str) -> Self {
        let home = Self(tempfile::tempdir().unwrap());
        std::fs::create_dir_all(home.file().parent().unwrap()).unwrap();
        std::fs::write(home.file(), text).unwrap();
        home
    }
    fn file(&self) -> PathBuf {
        self.0.path().join(".config/private-connect/config.toml")
    }
    fn resolve(&self, flags: &Global, pairs: &[(&str, &str)]) -> Result<Settings, Failure> {
        let home = [("HOME", self.0.path().to_str().unwrap())];
        Settings::resolve(flags, &Environment::from_pairs(home.into_iter().chain(pairs.iter().copied())))
    }
}

fn hub_flag(hub: &str) -> Global {
    Global { hub: Some(hub.to_owned()), ..Global::default() }
}

const SAVED: &str = "hub = \"http://saved:1\"\n\n[hubs.\"http://saved:1/\"]\napi_key = \"pc_saved\"\n\n\
                     [hubs.\"http://other:2/\"]\napi_key = \"pc_other\"\n";

#[test]
fn the_hub_is_flag_before_variable_before_config_before_default() {
    let home = Home::with_config(SAVED);
    let variable = [("CONNECT_HUB_URL", "http://variable:1")];
    let hub = |flags: &Global, pairs: &[(&str, &str)]| home.resolve(flags, pairs).unwrap().hub.to_string();
    assert_eq!(hub(&hub_flag("http://flag:1"), &variable), "http://flag:1/");
    assert_eq!(hub(&Global::default(), &variable), "http://variable:1/");
    assert_eq!(hub(&Global::default(), &[]), "http://saved:1/");
    let empty = Home::with_config("");
    assert_eq!(empty.resolve(&Global::default(), &[]).unwrap().hub.as_str(), "http://127.0.0.1:7070/");
}

#[test]
fn the_key_is_flag_before_variable_before_config() {
    let home = Home::with_config(SAVED);
    let key = |flags: &Global, pairs: &[(&str, &str)]| {
        home.resolve(flags, pairs).unwrap().api_key.map(|key| key.reveal().to_owned())
    };
    let flag = Global { api_key: Some("pc_flag".to_owned()), ..Global::default() };
    let variable = [("PRIVATECONNECT_TOKEN", "pc_variable\n")];
    assert_eq!(key(&flag, &variable).as_deref(), Some("pc_flag"));
    assert_eq!(key(&Global::default(), &variable).as_deref(), Some("pc_variable"));
    assert_eq!(key(&Global::default(), &[]).as_deref(), Some("pc_saved"));
}

#[test]
fn a_saved_key_goes_to_its_own_hub_only() {
    let home = Home::with_config(SAVED);
    let key =
        |hub: &str| home.resolve(&hub_flag(hub), &[]).unwrap().api_key.map(|key| key.reveal().to_owned());
    assert_eq!(key("http://other:2").as_deref(), Some("pc_other"));
    assert_eq!(key("http://evil:3"), None);
    assert_eq!(key("http://saved:1/proxied"), None, "another path can be another hub");
}

#[test]
fn the_authority_is_flag_before_variable_before_what_is_saved_for_that_hub_before_the_systems() {
    let home = Home::with_config("[hubs.\"https://own:1/\"]\nca = \"/saved.pem\"\n");
    let trust = |hub: &str, ca: Option<&str>, pairs: &[(&str, &str)]| {
        let flags = Global { ca: ca.map(PathBuf::from), ..hub_flag(hub) };
        home.resolve(&flags, pairs).unwrap().trust
    };
    let file = |path: &str| Trust::File(PathBuf::from(path));
    let variable = [("CONNECT_CA", "variable.pem")];
    assert_eq!(trust("https://own:1", Some("flag.pem"), &variable), file("flag.pem"));
    assert_eq!(trust("https://own:1", None, &variable), file("variable.pem"));
    assert_eq!(trust("https://own:1", None, &[]), file("/saved.pem"));
    assert_eq!(trust("https://other:1", None, &[]), Trust::System);
}

#[test]
fn xdg_config_home_and_the_config_flag_choose_the_file() {
    let (home, xdg) = (Home::with_config(SAVED), tempfile::tempdir().unwrap());
    let path = |flags: &Global, pairs: &[(&str, &str)]| {
        home.resolve(flags, pairs).unwrap().config.unwrap().path().to_owned()
    };
    let folder = xdg.path().to_str().unwrap();
    assert_eq!(path(&Global::default(), &[]), home.file());
    let expected = xdg.path().join("private-connect/config.toml");
    assert_eq!(path(&Global::default(), &[("XDG_CONFIG_HOME", folder)]), expected);
    assert_eq!(path(&Global::default(), &[("XDG_CONFIG_HOME", "relative")]), home.file());
    let flag = Global { config: Some(PathBuf::from("/x/y.toml")), ..Global::default() };
    assert_eq!(path(&flag, &[("XDG_CONFIG_HOME", folder)]), PathBuf::from("/x/y.toml"));
}

#[test]
fn xdg_runtime_dir_gives_the_folder_of_the_socket() {
    let home = Home::with_config("");
    let folder = |pairs: &[(&str, &str)]| home.resolve(&Global::default(), pairs).unwrap().runtime_folder;
    assert_eq!(
        folder(&[("XDG_RUNTIME_DIR", "/run/user/7")]),
        Some(PathBuf::from("/run/user/7/private-connect"))
    );
    assert_eq!(folder(&[]), None);
}

#[test]
fn without_a_home_flags_and_variables_are_enough() {
    let environment = Environment::from_pairs([("PRIVATECONNECT_TOKEN", "pc_variable")]);
    let settings = Settings::resolve(&hub_flag("hub.example:7070"), &environment).unwrap();
    assert_eq!(settings.config, None);
    assert_eq!(settings.hub.as_str(), "http://hub.example:7070/");
    assert!(settings.api_key.is_some());
}

#[test]
fn a_hub_url_that_cannot_be_one_is_a_usage_error() {
    let home = Home::with_config("");
    for wrong in ["ftp://x", "http://user:pw@x", "http://x/?a=1", "http://x/#a", "http://", "wss://x"] {
        let failure = home.resolve(&hub_flag(wrong), &[]).unwrap_err();
        assert_eq!(failure.exit.code(), 2, "{wrong}");
        assert!(failure.hint.is_some(), "{wrong}");
    }
}

#[test]
fn a_key_that_is_none_is_refused_without_repeating_it() {
    let home = Home::with_config("");
    for wrong in ["secret", "pc_with space", "pc_ü", "pc_a\r\nx: y"] {
        let flags = Global { api_key: Some(wrong.to_owned()), ..Global::default() };
        let failure = home.resolve(&flags, &[]).unwrap_err();
        assert_eq!(failure.exit.code(), 2);
        assert!(!format!("{failure:?}").contains(wrong));
    }
}

#[test]
fn debug_text_shows_no_secret() {
    let home = Home::with_config(
        "[hubs.\"http://127.0.0.1:7070/\"]\napi_key = \"pc_canary\"\n\
         agent = { id = \"a\", token = \"canary\", expires_at = \"e\", workspace_id = \"w\" }\n",
    );
    let settings = home.resolve(&Global::default(), &[]).unwrap();
    assert_eq!(settings.saved.agent.as_ref().unwrap().token, "canary");
    assert!(!format!("{settings:?}").contains("canary"));
}

//! The URLs that people see: share links and the origins of slugs.

/// How links begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Links {
    /// Without a slash at the end.
    pub api: String,
    /// Without a slash at the end.
    pub link_base: String,
    scheme: String,
    /// What follows the slug and its dot, port included: `localhost:7080`, `share.example.com`.
    slug_suffix: String,
}

impl Links {
    /// `edge` and `api` are the listening addresses' URLs; settings may name others for the world.
    pub fn new(
        api: &str,
        edge: &str,
        public_url: Option<&str>,
        link_base: Option<&str>,
        base_domain: Option<&str>,
    ) -> Self {
        let trim = |url: &str| url.trim_end_matches('/').to_owned();
        let link_base = trim(link_base.unwrap_or(edge));
        let (scheme, authority) = link_base.split_once("://").unwrap_or(("http", &link_base));
        let port = authority
            .rsplit_once(':')
            .map(|(_, port)| port)
            .filter(|port| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()));
        let domain = base_domain.unwrap_or("localhost");
        let slug_suffix = match port {
            Some(port) => format!("{domain}:{port}"),
            None => domain.to_owned(),
        };
        let scheme = scheme.to_owned();
        Self { api: trim(public_url.unwrap_or(api)), link_base, scheme, slug_suffix }
    }

    /// The link with the secret in its path.
    pub fn share(&self, token: &str) -> String {
        format!("{}/shared/{token}", self.link_base)
    }
    /// The link by host name.
    pub fn slug(&self, slug: &str) -> String {
        format!("{}://{slug}.{}", self.scheme, self.slug_suffix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_follow_the_listening_address_unless_settings_say_otherwise() {
        let here = Links::new("http://127.0.0.1:7070", "http://127.0.0.1:7080", None, None, None);
        assert_eq!(here.share("share_tok_x"), "http://127.0.0.1:7080/shared/share_tok_x");
        assert_eq!(here.slug("abc"), "http://abc.localhost:7080");
        let out = Links::new(
            "http://127.0.0.1:7070",
            "http://127.0.0.1:7080",
            Some("https://hub.example/"),
            Some("https://link.example/"),
            Some("link.example"),
        );
        assert_eq!(out.api, "https://hub.example");
        assert_eq!(out.slug("abc"), "https://abc.link.example");
    }
}

//! Where the hub is, from its URL.

use rustls::pki_types::ServerName;

/// Host and port of a hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HubAddress {
    /// Without brackets.
    pub(super) host: String,
    pub(super) port: u16,
    /// As the `Host` header and URLs need it.
    pub(super) authority: String,
    /// What the hub's certificate must name; `None`: plain HTTP.
    pub(super) certified: Option<ServerName<'static>>,
}

impl HubAddress {
    /// Reads `https://host[:port]` or `http://host[:port]`, with or without a final slash.
    ///
    /// # Errors
    /// Words for the agent's owner.
    pub(super) fn parse(url: &str) -> Result<Self, String> {
        let wrong = |why: &str| format!("`{url}` is no hub's address: {why}");
        let (port_of_scheme, rest) = match url.split_once("://") {
            Some(("http", rest)) => (80, rest),
            Some(("https", rest)) => (443, rest),
            Some((scheme, _)) => {
                return Err(wrong(&format!("`{scheme}` is not spoken, only `https` and `http`")));
            }
            None => return Err(wrong("it begins with `https://` or `http://`")),
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.contains(['/', '?', '#', '@']) || authority.contains(char::is_whitespace) {
            return Err(wrong("only a host and a port may follow the scheme"));
        }
        let (host, port) = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, "")) => (host, None),
            Some((host, port)) => {
                (host, Some(port.strip_prefix(':').ok_or_else(|| wrong("a colon is missing"))?))
            }
            None => match authority.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (authority, None),
            },
        };
        let port = match port {
            None => port_of_scheme,
            Some(port) => port.parse().map_err(|_| wrong("the port is no number up to 65535"))?,
        };
        if host.is_empty() || port == 0 {
            return Err(wrong("host or port is missing"));
        }
        let certified = match port_of_scheme {
            443 => Some(
                ServerName::try_from(host.to_owned())
                    .map_err(|_| wrong("no certificate can name this host"))?,
            ),
            _ => None,
        };
        Ok(Self { host: host.to_owned(), port, authority: authority.to_owned(), certified })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_scheme_a_host_and_a_port() {
        let cases = [
            ("http://hub.example:7070", Some(("hub.example", 7070, "hub.example:7070"))),
            ("http://hub.example/", Some(("hub.example", 80, "hub.example"))),
            ("http://[::1]:7070/", Some(("::1", 7070, "[::1]:7070"))),
            ("https://hub.example", Some(("hub.example", 443, "hub.example"))),
            ("https://[::1]:7070", Some(("::1", 7070, "[::1]:7070"))),
            ("hub.example:7070", None),
            ("https://hub..example", None),
            ("ftp://hub.example", None),
            ("http://", None),
            ("http://hub:0", None),
            ("http://hub:99999", None),
            ("http://hub:7070/path", None),
            ("http://user@hub:7070", None),
        ];
        for (url, expected) in cases {
            let found = HubAddress::parse(url).ok();
            let found = found.as_ref().map(|hub| (&*hub.host, hub.port, &*hub.authority));
            assert_eq!(found, expected, "{url}");
        }
    }

    #[test]
    fn only_a_hub_that_is_spoken_to_in_tls_needs_a_certificate() {
        let certified = |url| HubAddress::parse(url).unwrap().certified;
        assert_eq!(certified("http://hub.example"), None);
        assert_eq!(certified("https://hub.example"), Some(ServerName::try_from("hub.example").unwrap()));
        assert_eq!(certified("https://[::1]:1"), Some(ServerName::try_from("::1").unwrap()));
    }
}

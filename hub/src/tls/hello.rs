//! One address for API and edge: the name that a client asks for in its ClientHello tells whose it is, before a byte of
//! it is taken.

use rustls::server::Acceptor;

/// A ClientHello is looked at up to this length (bytes): a TLS record.
pub const HELLO_BYTES_MAX: usize = 16 * 1024 + 5;

/// The first byte of a TLS handshake; no request of HTTP begins with it.
pub const HANDSHAKE: u8 = 0x16;

/// Which names are the edge's. Any other, and none at all, is the API's, which tells nothing about links.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EdgeNames {
    /// The API's own name: it may stand below the base domain.
    pub api: Option<String>,
    pub links: Option<String>,
    pub base_domain: Option<String>,
}

impl EdgeNames {
    /// Whether a name, in lower case, is the edge's.
    pub fn is_edges(&self, name: &str) -> bool {
        let name = name.trim_end_matches('.');
        let below = |domain: &str| name.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'));
        if self.api.as_deref() == Some(name) {
            return false;
        }
        self.links.as_deref() == Some(name)
            || self.base_domain.as_deref().is_some_and(|domain| name == domain || below(domain))
            || below("localhost")
    }

    /// Whether links in path form have a name that is the edge's.
    pub fn links_are_apart(&self) -> bool {
        let links = self.links.as_deref().or(self.base_domain.as_deref());
        links.is_some_and(|links| self.is_edges(links))
    }
}

/// What the bytes of a beginning ClientHello tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// It is not complete yet.
    More,
    /// It asks for this name, or for none. Also what is no ClientHello: the handshake will say so.
    Name(Option<String>),
}

/// Reads the name that a client asks for.
pub fn asked(bytes: &[u8]) -> Asked {
    let mut acceptor = Acceptor::default();
    let mut rest = bytes;
    // It takes a buffer's worth at a time.
    while !rest.is_empty() && matches!(acceptor.read_tls(&mut rest), Ok(1..)) {}
    match acceptor.accept() {
        Ok(Some(accepted)) => Asked::Name(accepted.client_hello().server_name().map(str::to_owned)),
        Ok(None) if bytes.len() < HELLO_BYTES_MAX => Asked::More,
        Ok(None) | Err(_) => Asked::Name(None),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::{ClientConnection, pki_types::ServerName};
    use wire::tls::trust::nobody;

    use super::*;

    fn client_hello(name: &str) -> Vec<u8> {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut client = ClientConnection::new(Arc::new(nobody()), name).unwrap();
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn the_name_is_read_as_soon_as_the_hello_is_complete_and_nothing_else_is_waited_for() {
        let whole = client_hello("A-Link.example.com");
        assert_eq!(whole[0], HANDSHAKE);
        for length in 0..whole.len() {
            assert_eq!(asked(&whole[..length]), Asked::More, "{length} bytes");
        }
        let name = Asked::Name(Some("a-link.example.com".to_owned()));
        assert_eq!(asked(&whole), name);
        assert_eq!(asked(&[whole.as_slice(), b"more"].concat()), name);
        assert_eq!(asked(&client_hello("127.0.0.1")), Asked::Name(None), "an address is no name");
    }

    #[test]
    fn what_is_no_client_hello_is_nobodys_and_has_an_end() {
        assert_eq!(asked(b"GET / HTTP/1.1\r\n\r\n"), Asked::Name(None));
        assert_eq!(asked(&[HANDSHAKE; 64]), Asked::Name(None));
        // A record that announces more than it brings.
        let mut endless = vec![HANDSHAKE, 3, 1, 0x40, 0];
        endless.resize(HELLO_BYTES_MAX - 1, 0);
        endless[5..9].copy_from_slice(&[1, 0, 0xff, 0xff]);
        assert_eq!(asked(&endless), Asked::More);
        endless.push(0);
        assert_eq!(asked(&endless), Asked::Name(None));
    }

    #[test]
    fn links_are_told_from_the_api_by_name() {
        let names = EdgeNames {
            api: Some("hub.example.com".to_owned()),
            links: Some("go.other.example".to_owned()),
            base_domain: Some("example.com".to_owned()),
        };
        for edges in ["example.com", "a.example.com", "a.b.example.com", "go.other.example", "x.localhost"] {
            assert!(names.is_edges(edges), "{edges}");
        }
        for not in ["hub.example.com", "hub.example.com.", "badexample.com", "other.example", "localhost", ""]
        {
            assert!(!names.is_edges(not), "{not}");
        }
        assert!(names.links_are_apart());
        let same = EdgeNames { links: names.api.clone(), ..names };
        assert!(!same.links_are_apart(), "links would lead to the API");
        assert!(!EdgeNames::default().links_are_apart());
    }
}

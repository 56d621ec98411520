//! Whether a hub that speaks TLS is believed, and in words why not. There is no flag that believes everybody.

use rustls::{CertificateError, ClientConfig, Error, pki_types::ServerName};
use wire::tls::trust::{self, Trust};

use crate::failure::Failure;

/// Where the authority of a private certificate is named, for every message that misses it.
const CA_HINT: &str = "if the hub's certificate comes from an authority of your own, or signs itself, name its file: \
    --ca FILE or CONNECT_CA (connect up saves it)";

/// What connections to a hub believe. A plain hub needs no authorities, so nothing is read for one.
///
/// # Errors
/// The file of authorities is missing or holds none; the system has none.
pub(crate) fn config_for(scheme: &str, trust: &Trust) -> Result<ClientConfig, Failure> {
    if scheme != "https" {
        return Ok(trust::nobody());
    }
    trust.client_config().map_err(|error| {
        let failure = Failure::new("ca_unusable", "The hub's certificate cannot be checked").because(&error);
        match trust {
            Trust::File(_) => failure.hint("check --ca, CONNECT_CA or `ca` in the config"),
            Trust::System => failure.hint(CA_HINT),
        }
    })
}

/// Why a TLS connection to the hub failed, and what to do about it.
#[expect(clippy::wildcard_enum_match_arm, reason = "a list of another crate, which may grow")]
pub(crate) fn explained(error: &Error) -> (String, &'static str) {
    match error {
        Error::InvalidCertificate(reason) => certificate(reason),
        Error::InvalidMessage(_) => (
            "what answers there speaks no TLS".to_owned(),
            "if it is a hub without TLS, its address begins with http://",
        ),
        Error::AlertReceived(alert) => (
            format!("the hub refused the TLS connection ({alert:?})"),
            "the hub may have no certificate yet, or none for this name: its operator finds more in its telemetry",
        ),
        other => (format!("the TLS connection failed: {other}"), "is that the address of a hub?"),
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "a list of another crate, which may grow")]
fn certificate(reason: &CertificateError) -> (String, &'static str) {
    const DATES: &str = "the hub's operator renews it; if it should be good, check this machine's clock";
    const NAMES: &str =
        "use the name that the certificate is for, or have the hub's operator get one for this name";
    match reason {
        CertificateError::NotValidForName => ("the hub's certificate is for another name".to_owned(), NAMES),
        CertificateError::NotValidForNameContext { expected, presented } => {
            let expected = match expected {
                ServerName::DnsName(name) => name.as_ref().to_owned(),
                ServerName::IpAddress(ip) => std::net::IpAddr::from(*ip).to_string(),
                _ => "this name".to_owned(),
            };
            (format!("the hub's certificate is not for {expected} but for {}", shown(presented)), NAMES)
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            ("the hub's certificate has expired".to_owned(), DATES)
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            ("the hub's certificate is not good yet".to_owned(), DATES)
        }
        CertificateError::Revoked => ("the hub's certificate was revoked".to_owned(), DATES),
        // An authority's own certificate at a server is unknown in webpki's words, and named by nobody.
        CertificateError::UnknownIssuer | CertificateError::Other(_) | CertificateError::BadSignature => {
            ("nobody who is believed here vouches for the hub's certificate".to_owned(), CA_HINT)
        }
        other => (format!("the hub's certificate is not good: {other}"), CA_HINT),
    }
}

/// At most a few: a certificate may name hundreds.
fn shown(names: &[String]) -> String {
    const SHOWN_MAX: usize = 3;
    // rustls writes them as `DnsName("hub.example")` and `IpAddress(127.0.0.1)`.
    let plain = |name: &String| {
        let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')')).unwrap_or(name);
        inner.trim_matches('"').to_owned()
    };
    let mut text = names.iter().take(SHOWN_MAX).map(plain).collect::<Vec<_>>().join(", ");
    match names.len() {
        0 => text.push_str("no name"),
        count if count > SHOWN_MAX => text.push_str(&format!(" and {} more", count - SHOWN_MAX)),
        _ => {}
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_be_not_believed_says_what_to_do() {
        let name = |presented: &[&str]| CertificateError::NotValidForNameContext {
            expected: ServerName::try_from("hub.example").unwrap(),
            presented: presented.iter().map(|name| (*name).to_owned()).collect(),
        };
        let cases = [
            (CertificateError::UnknownIssuer, "nobody who is believed here", "--ca FILE"),
            (CertificateError::Expired, "has expired", "clock"),
            (CertificateError::NotValidYet, "not good yet", "clock"),
            (
                name(&["DnsName(\"a.example\")", "IpAddress(127.0.0.1)"]),
                "not for hub.example but for a.example, 127.0.0.1",
                "use the name",
            ),
            (name(&[]), "not for hub.example but for no name", "use the name"),
            (name(&["DnsName(\"a\")"; 5]), "a, a, a and 2 more", "use the name"),
            (CertificateError::BadEncoding, "is not good", "--ca FILE"),
        ];
        for (reason, what, hint) in cases {
            let said = explained(&Error::InvalidCertificate(reason.clone()));
            assert!(said.0.contains(what) && said.1.contains(hint), "{reason:?}: {said:?}");
        }
    }

    #[test]
    fn a_plain_hub_needs_no_authorities() {
        let missing = Trust::File("/no/such/file".into());
        assert!(config_for("http", &missing).is_ok());
        let failure = config_for("https", &missing).unwrap_err();
        assert!(failure.hint.is_some_and(|hint| hint.contains("--ca")), "{:?}", failure.causes);
    }
}

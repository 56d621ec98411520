//! What stands in a certificate, for people who look for what is wrong with it.

use std::net::{Ipv4Addr, Ipv6Addr};

use jiff::Timestamp;
use schemas::rest::Certificate;
use x509_parser::{
    extensions::GeneralName, parse_x509_certificate, prelude::X509Certificate, time::ASN1Time,
};

/// Names of people and hosts are cut here (characters), and so many of them are told: it is somebody else's text.
const NAME_CHARS_MAX: usize = 300;
const NAMES_MAX: usize = 100;

/// `None`: it is no certificate.
pub(super) fn facts(der: &[u8], is_trusted: bool) -> Option<Certificate> {
    let (_, certificate) = parse_x509_certificate(der).ok()?;
    Some(Certificate {
        subject: cut(&certificate.subject().to_string()),
        issuer: cut(&certificate.issuer().to_string()),
        subject_alt_names: names(&certificate),
        valid_from: moment(certificate.validity().not_before),
        expires_at: moment(certificate.validity().not_after),
        is_trusted,
    })
}

fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else { return Vec::new() };
    extension.value.general_names.iter().filter_map(name).take(NAMES_MAX).collect()
}

#[expect(clippy::wildcard_enum_match_arm, reason = "of many kinds of names these can be a target's")]
fn name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some(cut(name)),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes).ok().map(|four| Ipv4Addr::from(four).to_string()),
            _ => <[u8; 16]>::try_from(*bytes).ok().map(|six| Ipv6Addr::from(six).to_string()),
        },
        _ => None,
    }
}

fn cut(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(NAME_CHARS_MAX).collect()
}

fn moment(time: ASN1Time) -> String {
    match Timestamp::from_second(time.timestamp()) {
        Ok(moment) => moment.strftime("%Y-%m-%dT%H:%M:%S.000Z").to_string(),
        Err(_) => String::new(),
    }
}

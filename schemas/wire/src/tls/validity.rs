//! From when to when a certificate is good (RFC 5280, section 4.1.2.5), which rustls does not tell.

use x509_parser::{extensions::GeneralName, parse_x509_certificate};

/// The end of the year 9999, in seconds since 1970: what certificates without an end say.
const FOR_EVER: i64 = 253_402_300_799;

/// A certificate's first and last second, in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    pub not_before: i64,
    pub not_after: i64,
}

impl Validity {
    /// Reads a certificate; `None`: the bytes are none.
    pub fn of(certificate: &[u8]) -> Option<Self> {
        let (_, certificate) = parse_x509_certificate(certificate).ok()?;
        let (from, to) = (certificate.validity().not_before, certificate.validity().not_after);
        Some(Self { not_before: from.timestamp(), not_after: to.timestamp() })
    }

    /// Whether it is good at that second.
    pub fn holds(&self, second: i64) -> bool {
        (self.not_before..=self.not_after).contains(&second)
    }

    /// When two thirds of its life are over: the time to renew it.
    pub fn two_thirds(&self) -> i64 {
        self.not_before + self.not_after.min(FOR_EVER).saturating_sub(self.not_before) / 3 * 2
    }
}

/// The first host name that a certificate is for, wildcards left out.
pub fn first_host(certificate: &[u8]) -> Option<String> {
    let (_, certificate) = parse_x509_certificate(certificate).ok()?;
    let names = certificate.subject_alternative_name().ok()??;
    names.value.general_names.iter().find_map(|name| {
        if let GeneralName::DNSName(name) = name { Some(*name) } else { None }
            .filter(|name| !name.starts_with('*'))
            .map(str::to_owned)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(from: (i32, u8, u8), to: (i32, u8, u8)) -> Vec<u8> {
        let mut params = rcgen::CertificateParams::new(vec!["hub.example".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(from.0, from.1, from.2);
        params.not_after = rcgen::date_time_ymd(to.0, to.1, to.2);
        params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn both_ends_are_read_from_either_form_of_time() {
        // `date -u -d 2026-02-28 +%s` and so on.
        let cases = [
            ((1970, 1, 1), (2026, 2, 28), 0, 1_772_236_800),
            ((2024, 2, 29), (2049, 12, 31), 1_709_164_800, 2_524_521_600),
            ((2000, 3, 1), (2050, 1, 1), 951_868_800, 2_524_608_000),
            ((1999, 12, 31), (4096, 1, 1), 946_598_400, 67_090_118_400),
        ];
        for (from, to, not_before, not_after) in cases {
            let read = Validity::of(&certificate(from, to));
            assert_eq!(read, Some(Validity { not_before, not_after }), "{from:?} {to:?}");
        }
    }

    #[test]
    fn a_certificate_is_good_from_its_first_second_to_its_last_and_due_after_two_thirds() {
        let validity = Validity { not_before: 100, not_after: 190 };
        assert!(!validity.holds(99) && validity.holds(100) && validity.holds(190) && !validity.holds(191));
        assert_eq!(validity.two_thirds(), 160);
    }

    #[test]
    fn the_first_host_is_a_name_that_can_be_asked_for() {
        let named = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            let params = rcgen::CertificateParams::new(names).unwrap();
            first_host(params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().der())
        };
        assert_eq!(named(&["127.0.0.1", "*.links.example", "hub.example"]).as_deref(), Some("hub.example"));
        assert_eq!(named(&["127.0.0.1"]), None);
        assert_eq!(first_host(b"nonsense"), None);
    }

    #[test]
    fn what_is_no_certificate_is_none_however_it_is_cut() {
        let whole = certificate((2020, 1, 1), (2030, 1, 1));
        assert!(Validity::of(b"").is_none() && Validity::of(&[0x30; 64]).is_none());
        for length in 0..whole.len() {
            assert_eq!(Validity::of(&whole[..length]), None, "cut at {length}");
        }
        let mut garbled = whole.clone();
        for at in 0..whole.len() {
            garbled[at] ^= 0xff;
            // Anything but a panic.
            let _ = Validity::of(&garbled);
            garbled[at] ^= 0xff;
        }
    }
}

//! Whole numbers as JSON has them: `1000.0` is the same number as `1000` (RFC 8259 knows one kind of numbers, and to JSON
//! Schema both are integers).

use serde::{Deserialize, Deserializer};

/// Below this every whole number has a floating point value of its own, 2^53.
const EXACT_BELOW: f64 = 9_007_199_254_740_992.0;

#[derive(Deserialize)]
#[serde(untagged)]
enum Number {
    Whole(i64),
    Point(f64),
}

impl Number {
    fn whole(self) -> Option<i64> {
        match self {
            Self::Whole(number) => Some(number),
            // Exact, so its text is the whole number's.
            Self::Point(number) if number.fract() == 0.0 && number.abs() < EXACT_BELOW => {
                format!("{number:.0}").parse().ok()
            }
            Self::Point(_) => None,
        }
    }
}

/// For `#[serde(deserialize_with)]`.
///
/// # Errors
/// It is no whole number.
pub(super) fn whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    let number = Number::deserialize(deserializer).map_err(|_| wrong())?;
    number.whole().ok_or_else(wrong)
}

/// The same where it may be left out.
///
/// # Errors
/// It is no whole number.
pub(super) fn maybe_whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    let number = Option::<Number>::deserialize(deserializer).map_err(|_| wrong())?;
    number.map(|number| number.whole().ok_or_else(wrong)).transpose()
}

fn wrong<E: serde::de::Error>() -> E {
    E::custom("expected a whole number")
}

#[cfg(test)]
mod tests {
    use super::super::{ConnectTunnel, TargetParts};

    #[test]
    fn a_whole_number_may_be_written_with_a_point() {
        for (text, port) in [("80", Some(80)), ("80.0", Some(80)), ("8e1", Some(80)), ("-1.0", Some(-1))] {
            let body = format!(r#"{{ "host": "h", "port": {text} }}"#);
            let parts = serde_json::from_str::<TargetParts>(&body).ok();
            assert_eq!(parts.map(|parts| parts.port), port, "{text}");
            let body = format!(r#"{{ "agentId": "a", "localPort": {text} }}"#);
            let connect: ConnectTunnel = serde_json::from_str(&body).unwrap();
            assert_eq!(connect.local_port, port, "{text}");
        }
        for text in ["80.5", "\"80\"", "true", "[]", "1e300", "18446744073709551616"] {
            let body = format!(r#"{{ "host": "h", "port": {text} }}"#);
            assert!(serde_json::from_str::<TargetParts>(&body).is_err(), "{text}");
            let body = format!(r#"{{ "agentId": "a", "localPort": {text} }}"#);
            assert!(serde_json::from_str::<ConnectTunnel>(&body).is_err(), "{text}");
        }
        for body in [r#"{ "agentId": "a" }"#, r#"{ "agentId": "a", "localPort": null }"#] {
            let connect: ConnectTunnel = serde_json::from_str(body).unwrap();
            assert_eq!(connect.local_port, None, "{body}");
        }
    }
}

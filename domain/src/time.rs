//! Moments and spans as values; nobody here asks what time it is.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// A moment: milliseconds since the Unix epoch, UTC. Shown as `2026-03-02T10:00:00.000Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// From milliseconds since the Unix epoch, held to what four digits of a year can show (and jiff can print): year
    /// 0000 to the last hours but two of 9999.
    pub const fn from_millis(millis: i64) -> Self {
        const MIN: i64 = -62_167_219_200_000;
        const MAX: i64 = 253_402_207_200_000;
        Self(if millis < MIN {
            MIN
        } else if millis > MAX {
            MAX
        } else {
            millis
        })
    }
    /// Milliseconds since the Unix epoch.
    pub const fn millis(self) -> i64 {
        self.0
    }
    /// The moment `span_ms` milliseconds later (earlier when negative); saturates.
    pub const fn plus_ms(self, span_ms: i64) -> Self {
        Self::from_millis(self.0.saturating_add(span_ms))
    }
    /// The day since the Unix epoch, UTC: what personal-data keys and segment files are named by.
    pub const fn day(self) -> i64 {
        self.0.div_euclid(86_400_000)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let moment = jiff::Timestamp::from_millisecond(self.0).expect("held to four-digit years on creation");
        write!(f, "{moment:.3}")
    }
}

/// The text is no RFC 3339 moment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a moment in RFC 3339 form, such as 2026-03-02T10:00:00.000Z")]
pub struct InvalidTimestamp;

impl std::str::FromStr for Timestamp {
    type Err = InvalidTimestamp;
    fn from_str(text: &str) -> Result<Self, InvalidTimestamp> {
        match text.parse::<jiff::Timestamp>() {
            Ok(moment) => Ok(Self::from_millis(moment.as_millisecond())),
            Err(_) if lies_beyond(text) => Ok(Self::from_millis(i64::MAX)),
            Err(_) => Err(InvalidTimestamp),
        }
    }
}

// RFC 3339 goes on to the end of 9999, which lies beyond jiff's last moment by some hours.
fn lies_beyond(text: &str) -> bool {
    let pieces = jiff::fmt::temporal::Pieces::parse(text);
    pieces.is_ok_and(|it| it.date().year() == 9999 && it.time().is_some() && it.offset().is_some())
}

/// A day, UTC: days since the Unix epoch. Shown as `2026-03-02`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(i64);

impl Day {
    /// From days since the Unix epoch.
    pub const fn new(number: i64) -> Self {
        Self(number)
    }
    /// The day of a moment.
    pub const fn of(at: Timestamp) -> Self {
        Self(at.day())
    }
    /// Days since the Unix epoch.
    pub const fn number(self) -> i64 {
        self.0
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let noon = Timestamp::from_millis(self.0.saturating_mul(86_400_000).saturating_add(43_200_000));
        f.write_str(noon.to_string().get(..10).unwrap_or_default())
    }
}

/// The text is no day.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be a day, such as 2026-03-02")]
pub struct InvalidDay;

impl std::str::FromStr for Day {
    type Err = InvalidDay;
    fn from_str(text: &str) -> Result<Self, InvalidDay> {
        let noon: Timestamp = format!("{text}T12:00:00Z").parse().map_err(|_| InvalidDay)?;
        let day = Self::of(noon);
        // One day has one spelling.
        if day.to_string() == text { Ok(day) } else { Err(InvalidDay) }
    }
}

impl Serialize for Day {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
impl<'de> Deserialize<'de> for Day {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        std::borrow::Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        std::borrow::Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_read_as_rfc_3339_has_it_up_to_the_end_of_its_years() {
        for (text, shown) in [
            ("2026-03-02T10:00:00Z", "2026-03-02T10:00:00.000Z"),
            ("2026-03-02t12:00:00.0009+02:00", "2026-03-02T10:00:00.000Z"),
            ("0000-01-01T00:00:00Z", "0000-01-01T00:00:00.000Z"),
            ("9999-12-31T23:59:59.999Z", "9999-12-30T22:00:00.000Z"),
            ("9999-12-31T23:59:59-23:59", "9999-12-30T22:00:00.000Z"),
        ] {
            assert_eq!(text.parse::<Timestamp>().unwrap().to_string(), shown, "{text}");
        }
        for text in [
            "",
            "2026-03-02",
            "9999-12-31",
            "9999-12-31T23:59:59",
            "10000-01-01T00:00:00Z",
            "2026-02-30T00:00:00Z",
        ] {
            assert_eq!(text.parse::<Timestamp>(), Err(InvalidTimestamp), "{text}");
        }
    }

    #[test]
    fn a_day_has_one_spelling() {
        for (text, number) in [("1970-01-01", 0), ("1969-12-31", -1), ("2026-03-02", 20_514)] {
            let day: Day = text.parse().unwrap();
            assert_eq!((day.number(), day.to_string()), (number, text.to_owned()));
        }
        for text in
            ["", "2026-3-2", "2026-02-30", "20260302", "2026-03-02T00:00:00Z", " 2026-03-02", "+2026-03-02"]
        {
            assert_eq!(text.parse::<Day>(), Err(InvalidDay), "{text}");
        }
    }
}

//! How long a link lives: `1h`, `24h`, `7d`, `30d`, `never`, any `<n>m|h|d` up to 365 days.

use crate::time::Timestamp;

/// The longest life that is not for ever (milliseconds).
pub const LIFE_MS_MAX: i64 = 365 * 86_400_000;

/// The unit a life was given in; it is shown in the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    Minutes,
    Hours,
    Days,
}

impl Unit {
    const fn millis(self) -> i64 {
        match self {
            Self::Minutes => 60_000,
            Self::Hours => 3_600_000,
            Self::Days => 86_400_000,
        }
    }
    const fn word(self) -> &'static str {
        match self {
            Self::Minutes => "minutes",
            Self::Hours => "hours",
            Self::Days => "days",
        }
    }
}

/// A life as somebody asked for it: a span of 1 minute to 365 days, or for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetime(Option<(i64, Unit)>);

/// Why a text is no [`Lifetime`]; the message fits after the field's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidLifetime {
    #[error("must be `never` or a number with m, h or d, such as 30m, 24h or 7d")]
    Form,
    #[error("must be at least 1m")]
    Zero,
    #[error("must be at most 365d, or `never`")]
    TooLong,
    #[error("must have an end, at most {0} days")]
    Never(i64),
}

impl Lifetime {
    /// What a link gets when nobody says otherwise.
    pub const DEFAULT: Self = Self(Some((24, Unit::Hours)));
    /// No end.
    pub const NEVER: Self = Self(None);

    /// Reads `1h`, `24h`, `7d`, `30d`, `45m`, `never`.
    ///
    /// # Errors
    /// [`InvalidLifetime`] says which rule is broken.
    pub fn parse(text: &str) -> Result<Self, InvalidLifetime> {
        if text == "never" {
            return Ok(Self::NEVER);
        }
        let (digits, unit) = [('m', Unit::Minutes), ('h', Unit::Hours), ('d', Unit::Days)]
            .into_iter()
            .find_map(|(letter, unit)| text.strip_suffix(letter).map(|digits| (digits, unit)))
            .ok_or(InvalidLifetime::Form)?;
        if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
            return Err(InvalidLifetime::Form);
        }
        // Only digits are left: what does not fit is too long.
        let count: i64 = digits.parse().map_err(|_| InvalidLifetime::TooLong)?;
        match count.checked_mul(unit.millis()) {
            Some(0) => Err(InvalidLifetime::Zero),
            Some(millis) if millis <= LIFE_MS_MAX => Ok(Self(Some((count, unit)))),
            Some(_) | None => Err(InvalidLifetime::TooLong),
        }
    }

    /// Like [`Lifetime::parse`] where the thing must end after `days` at the latest.
    ///
    /// # Errors
    /// [`InvalidLifetime::Never`] for `never` and for what is longer.
    pub fn parse_within(text: &str, days: i64) -> Result<Self, InvalidLifetime> {
        let lifetime = Self::parse(text)?;
        match lifetime.millis() {
            Some(millis) if millis <= days * Unit::Days.millis() => Ok(lifetime),
            Some(_) | None => Err(InvalidLifetime::Never(days)),
        }
    }

    /// Its length in milliseconds; `None`: for ever.
    pub fn millis(self) -> Option<i64> {
        self.0.map(|(count, unit)| count * unit.millis())
    }

    /// The moment it ends when it begins now; `None`: never.
    pub fn ends_at(self, now: Timestamp) -> Option<Timestamp> {
        self.millis().map(|millis| now.plus_ms(millis))
    }

    /// As the command line says it after "Expires in": `24 hours`, `7 days` and, as the seeds print it, `1 hours`.
    /// `None`: never.
    pub fn in_words(self) -> Option<String> {
        self.0.map(|(count, unit)| format!("{count} {}", unit.word()))
    }
}

/// A rest of time as lists show it: `23h`, `45m`, from two days on `6d`; `0m` once it is over. Cut, not rounded:
/// nobody is promised more than there is.
pub fn rest_in_short(rest_ms: i64) -> String {
    let minutes = rest_ms.max(0) / Unit::Minutes.millis();
    match minutes {
        0..60 => format!("{minutes}m"),
        60..2880 => format!("{}h", minutes / 60),
        _ => format!("{}d", minutes / 1440),
    }
}

#[cfg(test)]
mod tests;

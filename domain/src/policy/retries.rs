//! When a failed delivery is tried again: a schedule, a little jitter, and what the receiver asks for itself.

use std::{fmt, str::FromStr};

/// The schedule unless the operator says otherwise.
pub const DEFAULT: &str = "5s,5m,30m,2h,5h,10h,14h,20h,24h";
/// The most retries of one delivery.
pub const RETRIES_MAX: usize = 20;
/// The longest pause before a retry, and the longest that a receiver can ask for (milliseconds): a day. Who needs longer
/// is down, and has the backlog when it is up again.
pub const PAUSE_MS_MAX: i64 = 86_400_000;
/// A pause is up to a tenth shorter or longer than its schedule says, so that what failed together does not come back
/// together (thousandths).
pub const JITTER: i64 = 100;

/// The pauses before the first, second, third… retry, in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule(Vec<i64>);

/// The text is no schedule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be 1-20 pauses as in 5s,5m,30m,2h: a number with ms, s, m or h, at most 24h")]
pub struct InvalidSchedule;

impl Default for Schedule {
    fn default() -> Self {
        DEFAULT.parse().expect("the default is a schedule")
    }
}

impl FromStr for Schedule {
    type Err = InvalidSchedule;
    fn from_str(text: &str) -> Result<Self, InvalidSchedule> {
        let pauses: Option<Vec<i64>> = text.split(',').map(|pause| millis(pause.trim())).collect();
        let pauses = pauses.filter(|pauses| pauses.len() <= RETRIES_MAX).ok_or(InvalidSchedule)?;
        Ok(Self(pauses))
    }
}

fn millis(text: &str) -> Option<i64> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let unit = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    let pause = number.parse::<i64>().ok()?.checked_mul(unit)?;
    (1..=PAUSE_MS_MAX).contains(&pause).then_some(pause)
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, pause) in self.0.iter().enumerate() {
            let (number, unit) = match *pause {
                pause if pause % 3_600_000 == 0 => (pause / 3_600_000, "h"),
                pause if pause % 60_000 == 0 => (pause / 60_000, "m"),
                pause if pause % 1_000 == 0 => (pause / 1_000, "s"),
                pause => (pause, "ms"),
            };
            write!(f, "{}{number}{unit}", if place == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

impl Schedule {
    /// How many retries there are.
    pub fn retries(&self) -> usize {
        self.0.len()
    }

    /// The pause after the `tries`-th try has failed; `None` after the last one. `random` is any number: the jitter.
    /// `asked_ms`: what the receiver asked for, which counts when it is longer.
    pub fn pause_ms(&self, tries: usize, random: u32, asked_ms: Option<i64>) -> Option<i64> {
        let pause = *self.0.get(tries.checked_sub(1)?)?;
        let thousandths = 1_000 - JITTER + i64::from(random) % (2 * JITTER + 1);
        let jittered = (pause * thousandths / 1_000).max(1);
        Some(jittered.max(asked_ms.unwrap_or(0).min(PAUSE_MS_MAX)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_schedule_is_the_one_of_the_documentation() {
        let schedule = Schedule::default();
        assert_eq!(schedule.to_string(), DEFAULT);
        assert_eq!(schedule.retries(), 9);
        let middle = u32::try_from(JITTER).unwrap();
        assert_eq!(schedule.pause_ms(1, middle, None), Some(5_000));
        assert_eq!(schedule.pause_ms(9, middle, None), Some(86_400_000));
        assert_eq!(schedule.pause_ms(10, middle, None), None, "the tenth try was the last");
        assert_eq!(schedule.pause_ms(0, middle, None), None, "nothing has failed");
    }

    #[test]
    fn a_receiver_can_ask_for_more_time_and_not_for_less_nor_for_ever() {
        let schedule = Schedule::default();
        let middle = u32::try_from(JITTER).unwrap();
        assert_eq!(schedule.pause_ms(1, middle, Some(120_000)), Some(120_000));
        assert_eq!(schedule.pause_ms(2, middle, Some(1_000)), Some(300_000));
        assert_eq!(schedule.pause_ms(1, middle, Some(i64::MAX)), Some(PAUSE_MS_MAX));
        assert_eq!(schedule.pause_ms(10, middle, Some(1_000)), None);
    }

    #[test]
    fn what_is_no_schedule_is_refused() {
        for text in ["", ",", "5", "s", "5d", "0s", "-5s", "25h", "5s,", "5 s", "99999999999999999999s"] {
            assert_eq!(text.parse::<Schedule>(), Err(InvalidSchedule), "{text}");
        }
        assert!(vec!["1s"; RETRIES_MAX + 1].join(",").parse::<Schedule>().is_err());
        assert_eq!("100ms, 2s".parse::<Schedule>().unwrap().to_string(), "100ms,2s");
    }

    proptest! {
        #[test]
        fn a_pause_is_within_a_tenth_of_its_schedule(tries in 1_usize..=9, random in any::<u32>()) {
            let (schedule, middle) = (Schedule::default(), u32::try_from(JITTER).unwrap());
            let planned = schedule.pause_ms(tries, middle, None).unwrap();
            let pause = schedule.pause_ms(tries, random, None).unwrap();
            prop_assert!((pause - planned).abs() * 10 <= planned, "{pause} for {planned}");
        }

        #[test]
        fn a_schedule_reads_as_it_is_shown(pauses in proptest::collection::vec(1_i64..=PAUSE_MS_MAX, 1..=RETRIES_MAX)) {
            let schedule = Schedule(pauses);
            prop_assert_eq!(schedule.to_string().parse::<Schedule>().unwrap(), schedule);
        }
    }
}

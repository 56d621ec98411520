//! When looks at a service amount to a change: one failure in between is none.

/// So many looks in a row have to fail before a service counts as unhealthy.
pub const FAILURES_MIN: u8 = 3;
/// So many have to succeed before it counts as healthy again.
pub const SUCCESSES_MIN: u8 = 2;

/// The looks in a row that all ended alike.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Damper {
    failures: u8,
    successes: u8,
}

impl Damper {
    /// Takes in a look; answers what the service counts as now. `known`: what it counted as before, if anything; the
    /// first success needs no second one.
    pub fn note(&mut self, known: Option<bool>, is_well: bool) -> Option<bool> {
        *self = if is_well {
            Self { failures: 0, successes: self.successes.saturating_add(1) }
        } else {
            Self { failures: self.failures.saturating_add(1), successes: 0 }
        };
        if self.failures >= FAILURES_MIN {
            Some(false)
        } else if self.successes >= SUCCESSES_MIN || (is_well && known.is_none()) {
            Some(true)
        } else {
            known
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a service counts as after each of the looks.
    fn verdicts(mut known: Option<bool>, looks: &[bool]) -> Vec<Option<bool>> {
        let mut damper = Damper::default();
        let mut note = |look: &bool| {
            known = damper.note(known, *look);
            known
        };
        looks.iter().map(&mut note).collect()
    }

    #[test]
    fn a_service_is_unhealthy_after_three_failures_in_a_row() {
        let (yes, no) = (Some(true), Some(false));
        assert_eq!(verdicts(yes, &[false, false, true, false, false, false]), [yes, yes, yes, yes, yes, no]);
        assert_eq!(verdicts(None, &[false, false, false]), [None, None, no]);
    }

    #[test]
    fn it_is_healthy_at_the_first_success_and_again_after_two() {
        let (yes, no) = (Some(true), Some(false));
        assert_eq!(verdicts(None, &[true]), [yes]);
        assert_eq!(verdicts(no, &[true, false, true, true]), [no, no, no, yes]);
    }
}

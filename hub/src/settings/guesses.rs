//! How many guesses of codes are let pass, as an operator sets it.

use domain::policy::lockout::Budget;

use super::Settings;
use crate::device_login::DeviceLimits;

/// The time of each wrong code of late is remembered, so their number has an end.
pub(super) fn wrong_codes() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(0..=10_000)
}

impl Settings {
    /// How many wrong environment codes are let pass.
    pub fn wrong_codes(&self) -> Budget {
        let number = |limit: u32| usize::try_from(limit).expect("at most 10,000");
        Budget {
            key: number(self.limit_wrong_codes_per_key),
            address: number(self.limit_wrong_codes_per_address),
            workspace: number(self.limit_wrong_codes_per_workspace),
        }
    }

    /// How many machines and wrong codes a device login bears.
    pub fn device_limits(&self) -> DeviceLimits {
        DeviceLimits {
            wrong_codes: self.limit_wrong_device_codes,
            waiting_per_address: self.limit_devices_per_address,
        }
    }
}

//! Device login (RFC 8628 in spirit): a machine without a key shows a code to a person, who lets it in with a key.
//!
//! Everything is in memory, for a quarter of an hour: a hub that restarts forgets who was waiting, and they begin anew.
//! The machine's own code has 256 bits and is kept as a hash. The person's code is short, so guessing it is made
//! hopeless: only a key may try, and after [`DeviceLimits::wrong_codes`] wrong ones its whole workspace has to wait.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use domain::{
    ids::{KeyId, WorkspaceId},
    names::Name,
    time::Timestamp,
};
use parking_lot::Mutex;

use crate::secrets::{random_bytes, sha256};

/// How long a code is good (seconds).
pub const EXPIRES_IN_S: u64 = 900;
/// How long a machine waits between two questions (seconds), and how much longer each time it does not.
pub const INTERVAL_S: u64 = 5;
/// How many machines may wait at once: some hundred kilobytes; with more the chance of a lucky guess would grow.
pub const WAITING_MAX: usize = 1_000;
/// For how long wrong codes count, and at most how long a lock-out lasts (milliseconds).
pub const LOCK_MS: i64 = 15 * 60_000;
/// Consonants that look and sound unlike each other; no words come out. 20^8 codes are 34 bits: with 1,000 machines waiting
/// and 10 tries a quarter of an hour, a hit takes a guesser about 70 years.
const ALPHABET: &[u8; 20] = b"BCDFGHJKLMNPQRSTVWXZ";
const USER_CODE_CHARS: usize = 8;

/// What an operator may set; 0 switches a limit off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceLimits {
    /// How many wrong codes a workspace may try in [`LOCK_MS`] before its keys approve nothing for the rest of it.
    pub wrong_codes: u32,
    /// How many machines may wait at one address (of IPv6: in one network of 64 bits), so that one does not take all
    /// places.
    pub waiting_per_address: u32,
}

impl Default for DeviceLimits {
    fn default() -> Self {
        Self { wrong_codes: 10, waiting_per_address: 20 }
    }
}

/// What a machine says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Device {
    pub label: Option<Name>,
    pub agent_name: Option<Name>,
}

/// Who let a machine in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Approver {
    pub workspace: WorkspaceId,
    pub key: KeyId,
}

/// Why a login does not begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// Too many machines wait.
    All,
    /// Too many of them come from this address.
    Address,
}

/// A login that begins.
#[derive(Clone, PartialEq, Eq)]
pub struct Begun {
    pub device_code: String,
    pub user_code: String,
}

impl std::fmt::Debug for Begun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Begun(…)")
    }
}

/// What a machine that asks is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    Pending,
    /// It asks too often: wait so many seconds from now on.
    SlowDown(u64),
    Denied,
    /// Unknown, over, or its key was given out.
    Expired,
    /// This once: make its key, in the approver's name. Whoever cannot puts it back with [`DeviceLogins::put_back`].
    Approved(Approver),
}

/// Why a code was not decided upon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Undecided {
    Unknown,
    /// Too many wrong codes: wait so many seconds.
    LockedOut(u64),
    /// Somebody else was faster.
    Decided,
}

/// What becomes of a waiting machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    Approve(Approver),
    Deny(Approver),
}

impl Decision {
    fn workspace(self) -> WorkspaceId {
        match self {
            Self::Approve(by) | Self::Deny(by) => by.workspace,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    Approved(Approver),
    Denied,
    /// Its key was given out, or is being made.
    Taken,
}

#[derive(Debug)]
struct Login {
    device: Device,
    user_code: String,
    ends_at: Timestamp,
    state: State,
    interval_s: u64,
    asked_at: Option<Timestamp>,
    from: Option<IpAddr>,
}

/// Wrong codes of a workspace.
#[derive(Debug, Clone, Copy)]
struct Wrong {
    since: Timestamp,
    count: u32,
}

#[derive(Debug, Default)]
struct Inner {
    by_device: HashMap<[u8; 32], Login>,
    by_user_code: HashMap<String, [u8; 32]>,
    wrong: HashMap<WorkspaceId, Wrong>,
}

/// All machines that wait for a key.
#[derive(Debug, Default)]
pub struct DeviceLogins {
    limits: DeviceLimits,
    inner: Mutex<Inner>,
}

impl DeviceLogins {
    pub fn new(limits: DeviceLimits) -> Self {
        Self { limits, inner: Mutex::default() }
    }

    /// Begins a login of a machine at an address.
    ///
    /// # Errors
    /// [`Full`].
    pub fn begin(&self, device: Device, from: Option<IpAddr>, now: Timestamp) -> Result<Begun, Full> {
        let mut inner = self.inner.lock();
        inner.forget_ended(now);
        if inner.by_device.len() >= WAITING_MAX {
            return Err(Full::All);
        }
        let from = from.map(network);
        let of_address = inner.by_device.values().filter(|login| from.is_some() && login.from == from);
        let room = usize::try_from(self.limits.waiting_per_address).unwrap_or(usize::MAX);
        if room > 0 && of_address.count() >= room {
            return Err(Full::Address);
        }
        let user_code = loop {
            let code = user_code();
            if !inner.by_user_code.contains_key(&code) {
                break code;
            }
        };
        let device_code = format!("pcd_{}", URL_SAFE_NO_PAD.encode(random_bytes()));
        let digest = sha256(device_code.as_bytes());
        let ends_at = now.plus_ms(i64::try_from(EXPIRES_IN_S).expect("a constant") * 1_000);
        let login = Login {
            device,
            user_code: user_code.clone(),
            ends_at,
            state: State::Waiting,
            interval_s: INTERVAL_S,
            asked_at: None,
            from,
        };
        inner.by_device.insert(digest, login);
        inner.by_user_code.insert(user_code.clone(), digest);
        Ok(Begun { device_code, user_code: shown(&user_code) })
    }

    /// A machine asks.
    pub fn ask(&self, device_code: &str, now: Timestamp) -> Told {
        let mut inner = self.inner.lock();
        let digest = sha256(device_code.as_bytes());
        let Some(login) = inner.by_device.get_mut(&digest) else { return Told::Expired };
        if login.ends_at <= now {
            inner.remove(&digest);
            return Told::Expired;
        }
        // Half a second for the way: whoever waits as told must not be told to wait longer.
        let wait_ms = i64::try_from(login.interval_s).unwrap_or(i64::MAX / 1_000) * 1_000 - 500;
        let is_early = login.asked_at.is_some_and(|at| at.plus_ms(wait_ms) > now);
        login.asked_at = Some(now);
        match login.state {
            State::Waiting if is_early => {
                login.interval_s += INTERVAL_S;
                Told::SlowDown(login.interval_s)
            }
            State::Waiting => Told::Pending,
            State::Denied => {
                inner.remove(&digest);
                Told::Denied
            }
            State::Approved(by) => {
                login.state = State::Taken;
                Told::Approved(by)
            }
            State::Taken => Told::Expired,
        }
    }

    /// What the machine says of itself, for the name of its key.
    pub fn device(&self, device_code: &str) -> Option<Device> {
        let digest = sha256(device_code.as_bytes());
        self.inner.lock().by_device.get(&digest).map(|login| login.device.clone())
    }

    /// The key could not be made: the machine may ask again.
    pub fn put_back(&self, device_code: &str, by: Approver) {
        let digest = sha256(device_code.as_bytes());
        if let Some(login) =
            self.inner.lock().by_device.get_mut(&digest).filter(|it| it.state == State::Taken)
        {
            login.state = State::Approved(by);
        }
    }

    /// Somebody with a key lets a machine in or turns it away; answers what the machine said of itself.
    ///
    /// # Errors
    /// [`Undecided`]; an unknown code counts against the workspace.
    pub fn decide(&self, text: &str, decision: Decision, now: Timestamp) -> Result<Device, Undecided> {
        let mut inner = self.inner.lock();
        let workspace = decision.workspace();
        if let Some(wait_ms) = inner.locked_for(workspace, self.limits.wrong_codes, now) {
            return Err(Undecided::LockedOut(u64::try_from(wait_ms / 1_000 + 1).unwrap_or(1)));
        }
        let digest = normal(text).and_then(|code| inner.by_user_code.get(&code).copied());
        let login = digest.and_then(|digest| inner.by_device.get_mut(&digest)).filter(|it| it.ends_at > now);
        let Some(login) = login else {
            let wrong = inner.wrong.entry(workspace).or_insert(Wrong { since: now, count: 0 });
            wrong.count = wrong.count.saturating_add(1);
            return Err(Undecided::Unknown);
        };
        match login.state {
            State::Waiting => {
                login.state = match decision {
                    Decision::Approve(by) => State::Approved(by),
                    Decision::Deny(_) => State::Denied,
                };
                Ok(login.device.clone())
            }
            // Said twice is said once.
            State::Approved(by) if decision == Decision::Approve(by) => Ok(login.device.clone()),
            State::Denied if matches!(decision, Decision::Deny(_)) => Ok(login.device.clone()),
            State::Approved(_) | State::Denied | State::Taken => Err(Undecided::Decided),
        }
    }

    #[cfg(test)]
    fn waiting(&self) -> usize {
        self.inner.lock().by_device.len()
    }
}

impl Inner {
    fn remove(&mut self, digest: &[u8; 32]) {
        if let Some(login) = self.by_device.remove(digest) {
            self.by_user_code.remove(&login.user_code);
        }
    }
    fn forget_ended(&mut self, now: Timestamp) {
        self.by_device.retain(|_, login| login.ends_at > now);
        let Self { by_device, by_user_code, .. } = self;
        by_user_code.retain(|_, digest| by_device.contains_key(digest));
    }
    /// For how long a workspace has to wait (milliseconds); forgets what is long ago.
    fn locked_for(&mut self, workspace: WorkspaceId, wrong_max: u32, now: Timestamp) -> Option<i64> {
        let wrong = self.wrong.get(&workspace).copied()?;
        let left = wrong.since.plus_ms(LOCK_MS).millis() - now.millis();
        if left <= 0 {
            self.wrong.remove(&workspace);
            return None;
        }
        (wrong_max > 0 && wrong.count >= wrong_max).then_some(left)
    }
}

/// What counts as one address.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(four) => four.into(),
        IpAddr::V6(six) => Ipv6Addr::from_bits(six.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

fn user_code() -> String {
    let mut code = String::with_capacity(USER_CODE_CHARS);
    while code.len() < USER_CODE_CHARS {
        // What lies above a multiple of the alphabet's length is thrown away: every character is as likely.
        let usable = random_bytes().into_iter().filter(|byte| *byte < 240);
        let left = USER_CODE_CHARS - code.len();
        code.extend(usable.take(left).map(|byte| char::from(ALPHABET[usize::from(byte) % ALPHABET.len()])));
    }
    code
}

fn shown(code: &str) -> String {
    let (one, two) = code.split_at(USER_CODE_CHARS / 2);
    format!("{one}-{two}")
}

/// A code as people type it: any case, with spaces and hyphens or without.
fn normal(text: &str) -> Option<String> {
    let code: String = text
        .chars()
        .filter(|c| !c.is_whitespace() && *c != '-')
        .take(USER_CODE_CHARS + 1)
        .map(|c| c.to_ascii_uppercase())
        .collect();
    (code.len() == USER_CODE_CHARS).then_some(code)
}

#[cfg(test)]
mod tests;

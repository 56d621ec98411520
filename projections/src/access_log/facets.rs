//! Which status codes and methods a packed event has, as the bits of one integer: enough to pass by most of those that
//! a filter is not about, without unpacking them. Bits may promise too much, never too little.

use domain::access::Access;

/// Status codes share these bits by their remainder.
const CODE_BITS: u16 = 40;
/// Then come the classes, 1xx to 5xx and whatever else.
const CLASS_BITS: u16 = 6;
/// Then the methods that have a bit of their own; all others share the one after them.
const METHODS: [&str; 7] = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"];

/// The bits of what is in an event.
pub(super) fn of(accesses: &[Access]) -> i64 {
    accesses.iter().fold(0, |bits, access| {
        bits | code(access.status_code) | class(access.status_code) | method(&access.method)
    })
}

/// What a filter asks for: an event may hold it only if it has one bit of each.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted([i64; 3]);

impl Wanted {
    /// A range of status codes, ends included, and a method.
    pub(super) fn new(statuses: Option<(u16, u16)>, wanted_method: Option<&str>) -> Self {
        let any = -1;
        let (codes, classes) = statuses.map_or((any, any), |(from, to)| {
            // As many codes in a row as there are bits have them all.
            let codes = (from..=to).take(CODE_BITS.into()).fold(0, |bits, status| bits | code(status));
            let classes = (from..=to).fold(0, |bits, status| bits | class(status));
            (codes, classes)
        });
        Self([codes, classes, wanted_method.map_or(any, method)])
    }

    pub(super) fn may_be_in(self, bits: i64) -> bool {
        self.0.iter().all(|wanted| bits & wanted != 0)
    }
}

fn code(status: u16) -> i64 {
    1 << (status % CODE_BITS)
}

fn class(status: u16) -> i64 {
    1 << (CODE_BITS + (status / 100).min(CLASS_BITS - 1))
}

fn method(method: &str) -> i64 {
    let place = METHODS.iter().position(|known| *known == method).unwrap_or(METHODS.len());
    1 << (usize::from(CODE_BITS + CLASS_BITS) + place)
}

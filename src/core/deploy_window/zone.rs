//! How far the clock of a place is from UTC. The tables (TZif, RFC 8536) and rules (POSIX `TZ`)
//! are read by `jiff`. Pure: the bytes of a table are an argument.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::{Offset, TimeZone};

/// The clock of a place; without anything else, UTC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone(TimeZone);

impl Default for Zone {
    fn default() -> Self {
        Self(TimeZone::UTC)
    }
}

impl Zone {
    /// Reads a table; `None` for what is none.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        TimeZone::tzif("table", bytes).ok().map(Self)
    }

    /// Reads a rule such as `EST5EDT,M3.2.0,M11.1.0`; `None` for what is none.
    pub fn of_rule(text: &str) -> Option<Self> {
        TimeZone::posix(text).ok().map(Self)
    }

    /// Returns what its clock shows at a moment in seconds since 1970, and how far in seconds that
    /// is from UTC. A moment beyond the calendar is taken for its end.
    pub fn clock(&self, at: i64) -> (DateTime, i64) {
        let end = if at < 0 {
            Timestamp::MIN
        } else {
            Timestamp::MAX
        };
        let moment = Timestamp::from_second(at).unwrap_or(end);
        let offset: Offset = self.0.to_offset(moment);
        (offset.to_datetime(moment), i64::from(offset.seconds()))
    }
}

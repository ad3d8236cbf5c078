//! Time stamps at the begin of a log's lines. Pure: a text in, a time out.
//!
//! Read are ISO 8601 (`2026-11-21T16:50:00.123+01:00`, also with a space or a comma), that of
//! syslog (`Nov 21 16:50:00`) and the common log format (`[21/Nov/2026:16:50:00 +0100]`), each
//! also in brackets. What is no stamp has no time; what names no zone is in that of its host.

use jiff::civil::Date;

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// A host's clock: seconds since 1970, and how far its zone is east of Greenwich.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StampClock {
    /// Seconds since 1970.
    pub now: i64,
    /// Seconds that local time is ahead.
    pub zone: i64,
}

impl StampClock {
    /// Reads what `date +%s` and `date +%z` print.
    pub fn parse(now: &str, zone: &str) -> Self {
        Self {
            now: now.parse().unwrap_or(0),
            zone: Reader(zone).zone().unwrap_or(0),
        }
    }
}

/// Returns the time at the begin of a line, in milliseconds since 1970, and where the rest of
/// the line begins.
pub fn stamp(line: &str, clock: StampClock) -> Option<(i64, usize)> {
    let mut reader = Reader(line);
    let is_bracketed = reader.take("[").is_some();
    let ways = [Reader::iso, Reader::common, Reader::syslog];
    let (time, mut reader) = ways.iter().find_map(|way| way(reader, clock))?;
    if is_bracketed {
        reader.take("]")?;
    }
    Some((time, line.len() - reader.0.len()))
}

/// What is still to be read.
#[derive(Clone, Copy)]
struct Reader<'a>(&'a str);

impl<'a> Reader<'a> {
    fn take(&mut self, word: &str) -> Option<()> {
        self.0 = self.0.strip_prefix(word)?;
        Some(())
    }

    /// Takes a number of exactly so many digits.
    fn digits(&mut self, count: usize) -> Option<i64> {
        let digits = self.0.get(..count)?;
        if !digits.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        self.0 = self.0.get(count..)?;
        digits.parse().ok()
    }

    fn month(&mut self) -> Option<i64> {
        let name = self.0.get(..3)?;
        let month = MONTHS.iter().position(|m| *m == name)?;
        self.0 = self.0.get(3..)?;
        i64::try_from(month + 1).ok()
    }

    /// Takes `HH:MM:SS` and a fraction; milliseconds of the day.
    fn clock_time(&mut self) -> Option<i64> {
        let hours = self.digits(2)?;
        self.take(":")?;
        let minutes = self.digits(2)?;
        self.take(":")?;
        let seconds = self.digits(2)?;
        if hours > 23 || minutes > 59 || seconds > 60 {
            return None;
        }
        let mut ms = 0;
        let mut rest = *self;
        if (rest.take(".").is_some() || rest.take(",").is_some())
            && rest.0.starts_with(|c: char| c.is_ascii_digit())
        {
            let end = rest.0.find(|c: char| !c.is_ascii_digit());
            let (digits, tail) = rest.0.split_at(end.unwrap_or(rest.0.len()));
            ms = format!("{digits:0<3}").get(..3)?.parse().ok()?;
            self.0 = tail;
        }
        Some(((hours * 60 + minutes) * 60 + seconds) * 1000 + ms)
    }

    /// Takes `Z`, `+0100` or `+01:00`; seconds.
    fn zone(&mut self) -> Option<i64> {
        if self.take("Z").is_some() {
            return Some(0);
        }
        let mut rest = *self;
        let sign = match (rest.take("+"), rest.0) {
            (Some(()), _) => 1,
            _ => {
                rest.take("-")?;
                -1
            }
        };
        let hours = rest.digits(2)?;
        let _ = rest.take(":");
        let minutes = rest.digits(2)?;
        *self = rest;
        Some(sign * (hours * 60 + minutes) * 60)
    }

    fn iso(mut self, clock: StampClock) -> Option<(i64, Self)> {
        let rest = &mut self;
        let year = rest.digits(4)?;
        rest.take("-")?;
        let month = rest.digits(2)?;
        rest.take("-")?;
        let day = rest.digits(2)?;
        rest.take("T").or_else(|| rest.take(" "))?;
        let time = rest.clock_time()?;
        let zone = rest.zone().unwrap_or(clock.zone);
        let time = days(year, month, day)? * 86_400_000 + time - zone * 1000;
        Some((time, self))
    }

    fn common(mut self, clock: StampClock) -> Option<(i64, Self)> {
        let day = self.digits(2)?;
        self.take("/")?;
        let month = self.month()?;
        self.take("/")?;
        let year = self.digits(4)?;
        self.take(":")?;
        let time = self.clock_time()?;
        let mut zoned = self;
        let zone = zoned.take(" ").and_then(|()| zoned.zone());
        let rest = match zone {
            Some(_) => zoned,
            None => self,
        };
        let zone = zone.unwrap_or(clock.zone);
        let time = days(year, month, day)? * 86_400_000 + time - zone * 1000;
        Some((time, rest))
    }

    /// It names no year: the last one in which it is not in the future.
    fn syslog(mut self, clock: StampClock) -> Option<(i64, Self)> {
        let month = self.month()?;
        self.take(" ")?;
        let day = match self.take(" ") {
            Some(()) => self.digits(1)?,
            None => self.digits(2)?,
        };
        self.take(" ")?;
        let time = self.clock_time()?;
        let this_year = 1970 + clock.now / 31_556_952;
        let in_year =
            |year: i64| Some(days(year, month, day)? * 86_400_000 + time - clock.zone * 1000);
        let found = [this_year + 1, this_year, this_year - 1]
            .into_iter()
            .filter_map(in_year)
            .find(|t| *t <= (clock.now + 86_400) * 1000)?;
        Some((found, self))
    }
}

/// Returns the days since 1970 of a date; `None` for one that no calendar has.
fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    let (year, month) = (i16::try_from(year).ok()?, i8::try_from(month).ok()?);
    let date = Date::new(year, month, i8::try_from(day).ok()?).ok()?;
    Some(date.duration_since(Date::new(1970, 1, 1).ok()?).as_hours() / 24)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-21T16:50:00Z, seen from an hour east of it.
    const CLOCK: StampClock = StampClock {
        now: 1_795_279_800,
        zone: 3600,
    };

    #[track_caller]
    fn check(line: &str, expected: Option<(i64, &str)>) {
        let found = stamp(line, CLOCK).map(|(ms, at)| (ms - CLOCK.now * 1000, &line[at..]));
        assert_eq!(found, expected, "{line}");
    }

    #[test]
    fn stamps_are_read_as_they_are_commonly_written() {
        check("2026-11-21T16:50:00Z up", Some((0, " up")));
        check("2026-11-21T17:50:00+01:00 up", Some((0, " up")));
        check("2026-11-21 17:50:01,250 up", Some((1250, " up")));
        check("[2026-11-21 17:50:00.5] up", Some((500, " up")));
        check("2026-11-21T08:50:00-0800", Some((0, "")));
        check("Nov 21 17:50:00 web1 up", Some((0, " web1 up")));
        check("Nov  1 17:50:00 up", Some((-20 * 86_400_000, " up")));
        check("Dec 21 17:50:00 up", Some((-335 * 86_400_000, " up")));
        check("[21/Nov/2026:16:50:00 +0000] GET", Some((0, " GET")));
        check("21/Nov/2026:17:50:00 GET", Some((0, " GET")));
    }

    #[test]
    fn what_is_no_stamp_has_no_time() {
        for line in [
            "",
            "up",
            "2026-11-21",
            "2026-13-21T16:50:00Z",
            "2026-02-29T16:50:00Z",
            "2026-11-21T25:50:00Z",
            "[2026-11-21 17:50:00 up",
            "November 21",
            "1/Nov/2026:17:50:00",
            "202ö-11-21T16:50:00Z",
        ] {
            check(line, None);
        }
    }

    #[test]
    fn clocks_of_hosts_are_read() {
        let east = StampClock::parse("12", "+0130");
        assert_eq!((east.now, east.zone), (12, 5400));
        assert_eq!(StampClock::parse("x", "x"), StampClock::default());
    }
}

//! How far the clock of a place is from UTC: the system's own tables (TZif, RFC 8536), and the
//! rule behind their end. Pure: the bytes of a table are an argument.

/// The clock of a place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Zone {
    /// Moments at which the offset became another.
    changes: Vec<(i64, i64)>,
    /// Before the first of them.
    first: i64,
    /// Behind the last of them.
    rule: Option<Rule>,
}

/// `EST5EDT,M3.2.0,M11.1.0`: offsets, and the days of each year on which they change.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    standard: i64,
    summer: Option<Summer>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Summer {
    offset: i64,
    start: Turn,
    end: Turn,
}

/// A day of each year, and seconds since its midnight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Turn {
    day: Day,
    seconds: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Day {
    /// Month, week (5 is the last), weekday (0 is Sunday).
    Month(i64, i64, i64),
    /// From 1 on; 29 February is never counted.
    Julian(i64),
    /// From 0 on.
    Ordinal(i64),
}

impl Zone {
    /// Reads a table; `None` for what is none.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let mut bytes = Bytes(bytes);
        let head = Head::read(&mut bytes)?;
        if head.version == 0 {
            return table(&mut bytes, &head, 4);
        }
        // The first part is for readers of 32 bits.
        bytes.take(head.size(4))?;
        let head = Head::read(&mut bytes)?;
        let mut zone = table(&mut bytes, &head, 8)?;
        let footer = std::str::from_utf8(bytes.0).ok()?;
        zone.rule = Rule::read(footer.trim_matches('\n'));
        Some(zone)
    }

    /// Reads a rule, as the variable `TZ` may hold one.
    pub fn of_rule(text: &str) -> Option<Self> {
        let rule = Rule::read(text)?;
        Some(Self {
            first: rule.standard,
            rule: Some(rule),
            ..Self::default()
        })
    }

    /// Returns the seconds that its clock is ahead of UTC at a moment.
    pub fn offset(&self, at: i64) -> i64 {
        let behind = self.changes.partition_point(|(moment, _)| *moment <= at);
        let last = behind.checked_sub(1).and_then(|i| self.changes.get(i));
        match (last, &self.rule) {
            (_, Some(rule)) if behind == self.changes.len() => rule.offset(at),
            (Some((_, offset)), _) => *offset,
            (None, _) => self.first,
        }
    }
}

struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }
}

struct Head {
    version: u8,
    utc: usize,
    standard: usize,
    leaps: usize,
    changes: usize,
    kinds: usize,
    letters: usize,
}

impl Head {
    fn read(bytes: &mut Bytes<'_>) -> Option<Self> {
        let head = bytes.take(44)?;
        if &head[..4] != b"TZif" {
            return None;
        }
        let count = |at: usize| usize::try_from(number(&head[at..at + 4])).ok();
        Some(Self {
            version: head[4],
            utc: count(20)?,
            standard: count(24)?,
            leaps: count(28)?,
            changes: count(32)?,
            kinds: count(36)?,
            letters: count(40)?,
        })
    }

    /// Bytes of the part behind it, with moments of so many bytes.
    fn size(&self, width: usize) -> usize {
        let changes = self.changes.saturating_mul(width + 1);
        let others = self.kinds * 6 + self.letters + self.leaps * (width + 4);
        changes.saturating_add(others + self.standard + self.utc)
    }
}

/// A signed number, highest byte first.
fn number(bytes: &[u8]) -> i64 {
    let is_negative = bytes.first().is_some_and(|b| b & 0x80 != 0);
    let start = if is_negative { -1 } else { 0 };
    bytes.iter().fold(start, |n, b| (n << 8) | i64::from(*b))
}

fn table(bytes: &mut Bytes<'_>, head: &Head, width: usize) -> Option<Zone> {
    let mut part = Bytes(bytes.take(head.size(width))?);
    let moments = part.take(head.changes.checked_mul(width)?)?;
    let indices = part.take(head.changes)?;
    let kinds = part.take(head.kinds.checked_mul(6)?)?;
    let kinds: Vec<i64> = kinds.chunks(6).map(|kind| number(&kind[..4])).collect();
    let changes = moments.chunks(width).zip(indices);
    let changes = changes.map(|(moment, index)| {
        let offset = kinds.get(usize::from(*index));
        Some((number(moment), *offset?))
    });
    Some(Zone {
        changes: changes.collect::<Option<_>>()?,
        first: *kinds.first()?,
        rule: None,
    })
}

impl Rule {
    fn read(text: &str) -> Option<Self> {
        let mut rest = text;
        name(&mut rest)?;
        let standard = -time(&mut rest)?;
        if rest.is_empty() {
            return Some(Self {
                standard,
                summer: None,
            });
        }
        name(&mut rest)?;
        let offset = match rest.starts_with(',') {
            true => standard + 3600,
            false => -time(&mut rest)?,
        };
        let mut turns = rest.strip_prefix(',')?.split(',').map(Turn::read);
        let (start, end) = (turns.next()??, turns.next()??);
        let summer = Summer { offset, start, end };
        turns.next().is_none().then_some(Self {
            standard,
            summer: Some(summer),
        })
    }

    fn offset(&self, at: i64) -> i64 {
        let Some(summer) = &self.summer else {
            return self.standard;
        };
        let (year, ..) = date((at + self.standard).div_euclid(86_400));
        let start = summer.start.moment(year) - self.standard;
        let end = summer.end.moment(year) - summer.offset;
        // In the south summer goes over the end of the year.
        let is_summer = match start < end {
            true => (start..end).contains(&at),
            false => !(end..start).contains(&at),
        };
        if is_summer {
            summer.offset
        } else {
            self.standard
        }
    }
}

/// Takes the name of a clock: letters, or anything in angle brackets.
fn name(rest: &mut &str) -> Option<()> {
    let end = match rest.starts_with('<') {
        true => rest.find('>')? + 1,
        false => {
            let is_other = |c: char| !c.is_ascii_alphabetic();
            let end = rest.find(is_other).unwrap_or(rest.len());
            (end >= 3).then_some(end)?
        }
    };
    *rest = &rest[end..];
    Some(())
}

/// Takes `-5`, `02:30` or `1:2:3`, in seconds.
fn time(rest: &mut &str) -> Option<i64> {
    let is_other = |c: char| !c.is_ascii_digit() && !"+-:".contains(c);
    let (text, behind) = rest.split_at(rest.find(is_other).unwrap_or(rest.len()));
    *rest = behind;
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let mut seconds = 0;
    let parts = digits.split(':').map(|p| p.parse::<i64>().ok());
    for (part, unit) in parts.zip([3600, 60, 1]) {
        seconds += part.filter(|p| (0..=167).contains(p))? * unit;
    }
    Some(sign * seconds)
}

impl Turn {
    fn read(text: &str) -> Option<Self> {
        let (day, at) = text.split_once('/').unwrap_or((text, "2"));
        let seconds = time(&mut &*at)?;
        let number = |t: &str| t.parse::<i64>().ok();
        let day = if let Some(text) = day.strip_prefix('M') {
            let mut parts = text.split('.').map(number);
            let (month, week) = (parts.next()??, parts.next()??);
            let weekday = parts.next()??;
            let is_good = (1..=12).contains(&month) && (1..=5).contains(&week);
            (is_good && (0..=6).contains(&weekday)).then_some(Day::Month(month, week, weekday))?
        } else if let Some(text) = day.strip_prefix('J') {
            Day::Julian(number(text).filter(|n| (1..=365).contains(n))?)
        } else {
            Day::Ordinal(number(day).filter(|n| (0..=365).contains(n))?)
        };
        Some(Self { day, seconds })
    }

    /// Seconds since 1970, by the clock of the place.
    fn moment(&self, year: i64) -> i64 {
        let day = match self.day {
            Day::Ordinal(n) => days(year, 1, 1) + n,
            Day::Julian(n) => {
                let is_leap = days(year, 3, 1) - days(year, 2, 1) == 29;
                days(year, 1, 1) + n - i64::from(!(is_leap && n >= 60))
            }
            Day::Month(month, week, weekday) => {
                let first = days(year, month, 1);
                // 1 January 1970 was a Thursday.
                let ahead = (weekday - (first + 4)).rem_euclid(7);
                let next = match month {
                    12 => days(year + 1, 1, 1),
                    _ => days(year, month + 1, 1),
                };
                let mut day = first + ahead + (week - 1) * 7;
                while day >= next {
                    day -= 7;
                }
                day
            }
        };
        day * 86_400 + self.seconds
    }
}

/// Days since 1970 of a date. A year that begins in March has its odd day at the end.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let month = (month + 9) % 12;
    let of_year = (153 * month + 2) / 5 + day - 1;
    let leaps = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    year * 365 + leaps + of_year - 719_468
}

/// The date of a day since 1970: year, month, day.
pub fn date(day: i64) -> (i64, i64, i64) {
    // Never too late: from there on it is a step or two in a century.
    let mut year = 1970 + day.div_euclid(if day < 0 { 365 } else { 366 });
    while days(year + 1, 1, 1) <= day {
        year += 1;
    }
    let is_past = |month: &i64| days(year, *month, 1) <= day;
    let month = (1..=12).rev().find(is_past).unwrap_or(1);
    (year, month, day - days(year, month, 1) + 1)
}

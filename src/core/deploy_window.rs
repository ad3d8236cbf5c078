//! Hours of the week in which something may be done, and when they come next. Pure: the
//! present moment is an argument.
//!
//! `Mon-Thu 09:00-16:00` means the clock on the wall of a place. How far that is from UTC, and
//! since when, is the matter of [`zone`].

pub mod zone;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::core::deploy_window::zone::Zone;

/// Minutes of a day.
const DAY: u32 = 1440;
/// Minutes of a week.
const WEEK: u32 = 7 * DAY;
/// So far ahead an opening is looked for: clocks that are set make no hour longer than that.
const AHEAD: i64 = 15 * DAY as i64;
const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

/// No wait and no limit is longer: a clock that such a time is added to must not run over.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 86_400);

/// The message for a time that is longer.
pub const TOO_LONG: &str = "it is longer than 100 years";

/// Reads how long something takes, as people write it: `30s`, `1h 30m`.
pub fn duration(text: &str) -> Result<Duration, String> {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads them")]
    match humantime::parse_duration(text) {
        Ok(duration) if duration > LONGEST => Err(TOO_LONG.into()),
        read => read.map_err(|e| e.to_string()),
    }
}

/// Part of a week, in minutes since Monday, 00:00.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HourSpan {
    /// Its first minute.
    pub from: u32,
    /// So long.
    pub minutes: u32,
}

/// Hours of the week, by the clock of one place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// When it is open.
    pub spans: Vec<HourSpan>,
    /// `UTC`, `local`, or a name such as `America/Montreal`.
    pub zone: String,
}

impl Window {
    /// Returns it as people write it: `Mon,Tue 09:00-16:00 (UTC)`.
    pub fn shown(&self) -> String {
        let time = |minute: u32| format!("{:02}:{:02}", minute / 60, minute % 60);
        let mut hours: Vec<(String, Vec<&str>)> = Vec::new();
        for span in &self.spans {
            let from = span.from % DAY;
            let text = format!("{}-{}", time(from), time((from + span.minutes) % DAY));
            let day = usize::try_from(span.from / DAY).unwrap_or(0);
            let day = DAYS[day % DAYS.len()];
            match hours.iter_mut().find(|(other, _)| *other == text) {
                Some((_, days)) => days.push(day),
                None => hours.push((text, vec![day])),
            }
        }
        let parts = hours.iter().map(|(hours, days)| match days.len() {
            7 => hours.clone(),
            _ => format!("{} {hours}", days.join(",")),
        });
        format!("{} ({})", parts.collect::<Vec<_>>().join("; "), self.zone)
    }
}

/// Reads `Mon-Thu 09:00-16:00`; days may be lists, and are all of them where none is stated. An
/// end that is not behind the start is on the next day.
pub fn spans(text: &str) -> Result<Vec<HourSpan>, String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let (days, hours) = match words.as_slice() {
        [hours] => ((0..7).collect(), *hours),
        [days, hours] => (days_of(days)?, *hours),
        _ => return Err(format!("`{text}` is not a day and its hours")),
    };
    let (from, to) = hours
        .split_once('-')
        .ok_or_else(|| format!("`{hours}` is not a range of hours"))?;
    let (from, to) = (minutes(from)?, minutes(to)?);
    let minutes = if to > from {
        to - from
    } else {
        to + DAY - from
    };
    let span = |day: u32| HourSpan {
        from: (day * DAY + from) % WEEK,
        minutes,
    };
    Ok(days.into_iter().map(span).collect())
}

fn days_of(text: &str) -> Result<Vec<u32>, String> {
    let day = |name: &str| {
        let found = DAYS.iter().position(|d| d.eq_ignore_ascii_case(name));
        let found = found.and_then(|d| u32::try_from(d).ok());
        found.ok_or_else(|| format!("`{name}` is not a day: there are {}", DAYS.join(" ")))
    };
    let mut all = Vec::new();
    for part in text.split(',') {
        match part.split_once('-') {
            None => all.push(day(part)?),
            Some((first, last)) => {
                let (first, last) = (day(first)?, day(last)?);
                let count = (last + 7 - first) % 7;
                all.extend((0..=count).map(|n| (first + n) % 7));
            }
        }
    }
    Ok(all)
}

fn minutes(text: &str) -> Result<u32, String> {
    let wrong = || format!("`{text}` is not a time of day, such as `09:00`");
    let (hours, minutes) = text.split_once(':').ok_or_else(wrong)?;
    let number = |t: &str| match t.len() {
        1 | 2 if t.bytes().all(|b| b.is_ascii_digit()) => t.parse::<u32>().ok(),
        _ => None,
    };
    match (number(hours), number(minutes)) {
        (Some(24), Some(0)) => Ok(DAY),
        (Some(h), Some(m)) if h < 24 && m < 60 && minutes.len() == 2 => Ok(h * 60 + m),
        _ => Err(wrong()),
    }
}

/// A window with the clock that it goes by.
#[derive(Clone, Debug)]
pub struct ZonedWindow<'a> {
    /// The hours.
    pub window: &'a Window,
    /// The clock.
    pub zone: &'a Zone,
}

impl ZonedWindow<'_> {
    /// Returns whether it is open at a moment, in seconds since 1970.
    pub fn is_open(&self, now: i64) -> bool {
        let (clock, _) = self.zone.clock(now);
        let number = |part: i8| u32::try_from(part).unwrap_or(0);
        let day = number(clock.weekday().to_monday_zero_offset());
        let minute = day * DAY + number(clock.hour()) * 60 + number(clock.minute());
        let mut spans = self.window.spans.iter();
        spans.any(|span| (minute + WEEK - span.from) % WEEK < span.minutes)
    }

    /// Returns a moment by its clock: `Mon 2026-11-23 09:00`.
    pub fn shown(&self, at: i64) -> String {
        let (clock, _) = self.zone.clock(at);
        format!(
            "{} ({})",
            clock.strftime("%a %Y-%m-%d %H:%M"),
            self.window.zone
        )
    }
}

/// Returns whether one window of each set is open; a set without any always is.
pub fn is_open(sets: &[Vec<ZonedWindow<'_>>], now: i64) -> bool {
    let is_one = |set: &Vec<ZonedWindow<'_>>| set.is_empty() || set.iter().any(|w| w.is_open(now));
    sets.iter().all(is_one)
}

/// Returns when they are open next, to the minute; `None` for never.
pub fn next_opening(sets: &[Vec<ZonedWindow<'_>>], now: i64) -> Option<i64> {
    let next = now.div_euclid(60) + 1;
    let mut moments = (next..=next + AHEAD).map(|minute| minute * 60);
    moments.find(|moment| is_open(sets, *moment))
}

#[cfg(test)]
mod tests;

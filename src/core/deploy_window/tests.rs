//! Windows by tables: what is open when, and when it opens next, where clocks are set too.

use super::*;

/// Montreal since 2007, as the system's table ends.
const MONTREAL: &str = "EST5EDT,M3.2.0,M11.1.0";

fn offset(zone: &Zone, at: i64) -> i64 {
    zone.clock(at).1
}

fn at(zone: &Zone, text: &str) -> i64 {
    let text = text.replace(' ', "T");
    let utc = humantime::parse_rfc3339(&format!("{text}:00Z")).expect("a time");
    let since = utc.duration_since(std::time::UNIX_EPOCH);
    let local = i64::try_from(since.expect("later").as_secs()).expect("fits");
    // Twice: the first guess may be on the other side of a change.
    let guess = local - offset(zone, local);
    local - offset(zone, guess)
}

/// `expected` is `open`, or when it opens by its own clock.
#[track_caller]
fn check(hours: &str, rule: &str, moment: &str, expected: &str) {
    let zone = Zone::of_rule(rule).expect("a rule");
    let window = Window {
        spans: spans(hours).expect("spans"),
        zone: String::from("x"),
    };
    let timed = ZonedWindow {
        window: &window,
        zone: &zone,
    };
    let now = at(&zone, moment);
    let sets = [vec![timed.clone()]];
    let found = match is_open(&sets, now) {
        true => String::from("open"),
        false => match next_opening(&sets, now) {
            Some(next) => timed.shown(next).replace(" (x)", ""),
            None => String::from("never"),
        },
    };
    assert_eq!(found, expected, "{hours} {rule} {moment}");
}

#[test]
fn hours_are_those_of_the_clock_on_the_wall() {
    let week = "Mon-Thu 09:00-16:00";
    // 2026-11-21 is a Saturday.
    check(week, "UTC0", "2026-11-21 10:00", "Mon 2026-11-23 09:00");
    check(week, "UTC0", "2026-11-23 08:59", "Mon 2026-11-23 09:00");
    check(week, "UTC0", "2026-11-23 09:00", "open");
    check(week, "UTC0", "2026-11-23 15:59", "open");
    check(week, "UTC0", "2026-11-23 16:00", "Tue 2026-11-24 09:00");
    check(week, "UTC0", "2026-11-26 16:00", "Mon 2026-11-30 09:00");
    check("22:00-02:00", "UTC0", "2026-11-22 23:00", "open");
    check("22:00-02:00", "UTC0", "2026-11-23 01:59", "open");
    check(
        "22:00-02:00",
        "UTC0",
        "2026-11-23 02:00",
        "Mon 2026-11-23 22:00",
    );
    // Over the end of the week.
    check("Sun 22:00-02:00", "UTC0", "2026-11-23 01:00", "open");
    check(
        "Sun 22:00-02:00",
        "UTC0",
        "2026-11-24 01:00",
        "Sun 2026-11-29 22:00",
    );
    check("fri-mon 00:00-24:00", "UTC0", "2026-11-22 12:00", "open");
    check(
        "fri-mon 00:00-24:00",
        "UTC0",
        "2026-11-24 00:00",
        "Fri 2026-11-27 00:00",
    );
    check(
        "Tue,Sat 10:00-10:01",
        "UTC0",
        "2026-11-21 10:01",
        "Tue 2026-11-24 10:00",
    );
    check("00:00-00:00", "UTC0", "2026-11-21 10:01", "open");
}

#[test]
fn clocks_that_are_set_move_the_hours_along() {
    let daily = "09:00-16:00";
    check(daily, MONTREAL, "2026-03-07 08:00", "Sat 2026-03-07 09:00");
    check(daily, MONTREAL, "2026-03-07 16:00", "Sun 2026-03-08 09:00");
    check(daily, MONTREAL, "2026-10-31 16:00", "Sun 2026-11-01 09:00");
    // Two o'clock is not there on that day: what begins then begins with the next hour.
    check(
        "Sun 02:00-04:00",
        MONTREAL,
        "2026-03-07 12:00",
        "Sun 2026-03-08 03:00",
    );
    // Summer over the end of the year, and a rule by days.
    let sydney = "<+10>-10<+11>-11,M10.1.0,M4.1.0/3";
    check(daily, sydney, "2026-12-31 17:00", "Fri 2027-01-01 09:00");
    let of_rule = |rule: &str, utc: &str| {
        let zone = Zone::of_rule(rule).expect("a rule");
        offset(&zone, at(&Zone::default(), utc))
    };
    assert_eq!(of_rule(MONTREAL, "2026-03-08 06:59"), -5 * 3600);
    assert_eq!(of_rule(MONTREAL, "2026-03-08 07:00"), -4 * 3600);
    assert_eq!(of_rule(MONTREAL, "2026-11-01 05:59"), -4 * 3600);
    assert_eq!(of_rule(MONTREAL, "2026-11-01 06:00"), -5 * 3600);
    assert_eq!(of_rule(sydney, "2026-04-04 15:59"), 11 * 3600);
    assert_eq!(of_rule(sydney, "2026-04-04 16:00"), 10 * 3600);
    // In Ireland it is winter that is not the standard.
    let dublin = "IST-1GMT0,M10.5.0,M3.5.0/1";
    assert_eq!(of_rule(dublin, "2026-07-01 00:00"), 3600);
    assert_eq!(of_rule(dublin, "2026-12-01 00:00"), 0);
}

#[test]
fn what_is_no_window_or_rule_is_refused() {
    for bad in [
        "",
        "Mon",
        "Mon 9-10",
        "Mon 09:00",
        "Foo 09:00-10:00",
        "Mon- 09:00-10:00",
        "Mon 25:00-26:00",
        "Mon 09:60-10:00",
        "Mon 9:0-10:00",
        "Mon 09:00-10:00 x",
        "Mon, 09:00-10:00",
        "24:01-25:00",
    ] {
        assert!(spans(bad).is_err(), "{bad}");
    }
    for bad in [
        "",
        "UT0",
        "ABC",
        "ABC1DEF",
        "ABC1DEF,M13.1.0,M1.1.0",
        "ABC1DEF,M3.2.0",
        "ABCx",
    ] {
        assert!(Zone::of_rule(bad).is_none(), "{bad}");
    }
}

#[test]
fn a_table_is_read_as_it_was_written() {
    // Version 2: the first part is empty, the second has one change and a rule behind it.
    let head = |changes: u32, kinds: u32, letters: u32| {
        let mut head = b"TZif2".to_vec();
        head.extend([0; 15]);
        for count in [0, 0, 0, changes, kinds, letters] {
            head.extend(u32::to_be_bytes(count));
        }
        head
    };
    let mut bytes = head(0, 1, 1);
    bytes.extend([0; 7]);
    bytes.extend(head(1, 2, 8));
    bytes.extend(i64::to_be_bytes(1_000_000));
    bytes.push(1);
    bytes.extend(i32::to_be_bytes(-17_632));
    bytes.extend([0, 0]);
    bytes.extend(i32::to_be_bytes(-18_000));
    bytes.extend([0, 4]);
    bytes.extend(b"LMT\0EST\0");
    bytes.extend(format!("\n{MONTREAL}\n").bytes());
    let zone = Zone::read(&bytes).expect("a table");
    assert_eq!(offset(&zone, 999_999), -17_632);
    assert_eq!(offset(&zone, 1_000_000), -18_000);
    assert_eq!(
        offset(&zone, at(&Zone::default(), "2040-07-01 12:00")),
        -4 * 3600
    );
    for cut in 0..bytes.len() - MONTREAL.len() - 2 {
        assert!(Zone::read(&bytes[..cut]).is_none(), "{cut}");
    }
    assert!(Zone::read(b"no table at all, but as long as the head of one is").is_none());
}

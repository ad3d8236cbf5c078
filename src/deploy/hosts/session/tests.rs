//! Sessions with hosts that say whatever a test wants.

use std::process::Command;

use super::*;

use crate::source::Place;

/// A host that says what it likes, and listens to nobody.
struct Fake<'a>(&'a str);

impl Transport for Fake<'_> {
    fn command(&self, _: &Host) -> Command {
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!(
            "printf '\\036n0 hello /srv\\n'; {}; cat >/dev/null",
            self.0
        ));
        command
    }

    fn try_it(&self, _: &Host) -> String {
        "ssh fake".into()
    }
}

fn open(says: &str) -> Session {
    let host = Host {
        name: "h".into(),
        reach: Reach::Local,
        root: "/srv".into(),
        into_foreign: false,
        vars: std::collections::BTreeMap::new(),
        place: Place::default(),
    };
    let header = Header {
        nonce: "n0".into(),
        root: "/srv".into(),
        state: "/srv/.rel/e".into(),
        name: String::new(),
        run: "r".into(),
        who: "me".into(),
        purpose: "e".into(),
        lease: Duration::from_secs(60),
        may_write_foreign: false,
        project_uid: None,
        checkout: None,
    };
    Session::open(&Fake(says), &host, &header).expect("opens")
}

fn run(says: &str, interrupted: &AtomicBool) -> Box<Error> {
    match open(says).run("", interrupted, &mut |_| None) {
        Ok(status) => panic!("ended with {status}"),
        Err(error) => error,
    }
}

#[test]
fn what_took_too_long_is_ended_by_its_number() {
    // A silent step, and one that prints all the time.
    for prints in [":", "while :; do printf 'x\\n'; sleep 0.005; done"] {
        let says = format!(
            "printf '\\036n0 start 7\\n'; {prints} & p=$!; grep -am1 '^stop 7'; kill $p; \
             printf '\\036n0 over\\n\\036n0 ended 1\\n'"
        );
        let end = Instant::now() + Duration::from_secs(60);
        let mut is_ended = false;
        let status = open(&says).run("", &AtomicBool::new(false), &mut |frame| {
            assert!(Instant::now() < end, "{prints}: is not ended");
            is_ended |= matches!(frame, Frame::Output(line) if line.ends_with(b"stop 7"));
            matches!(frame, Frame::Event(text) if text.starts_with("start")).then(Instant::now)
        });
        assert_eq!((status.expect("ends"), is_ended), (0, true), "{prints}");
    }
}

#[test]
fn a_host_that_talks_nonsense_is_named() {
    for says in [
        "printf '\\036n0 answers\\n\\036n0 answer x 0\\n'",
        "printf '\\036n0 data 99999999999\\n'",
    ] {
        let error = run(says, &AtomicBool::new(false));
        assert_eq!(error.message, "host `h` sent what makes no sense");
    }
}

#[test]
fn waiting_for_announced_bytes_ends_with_an_interrupt() {
    // One announces more than it sends; one never stops.
    for says in [
        "printf '\\036n0 data 500000\\n'",
        "( while :; do echo x; done ) & p=$!; cat >/dev/null; kill $p",
    ] {
        let interrupted = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(300));
                interrupted.store(true, Ordering::SeqCst);
            });
            let error = run(says, &interrupted);
            assert_eq!(error.kind, ErrorKind::Interrupted);
        });
    }
}

#[test]
fn more_answers_than_questions_are_none() {
    let says = "i=0; while [ $i -lt 9 ]; do printf '\\036n0 answers\\n\\036n0 answer 0 0\\n'; i=$((i + 1)); done";
    let limit = |number| (number < 2).then_some(1 << 20);
    let asked = open(says).ask("", &limit, &AtomicBool::new(false));
    let error = asked.expect_err("two were asked");
    assert_eq!(error.message, "host `h` sent what makes no sense");
}

#[test]
fn a_guard_that_does_not_come_to_an_end_is_not_waited_for() {
    // Silence, text, and a transfer of nothing.
    let talks = "while :; do printf 'x\\n'; sleep 0.01; done";
    let empties = "while :; do printf '\\036n0 data 0\\n'; sleep 0.01; done";
    // At once: each session gives its guard some seconds for its end.
    std::thread::scope(|threads| {
        for says in [":", talks, empties] {
            for how in ["call", "ask", "fetch"] {
                threads.spawn(move || is_not_waited_for(says, how));
            }
        }
    });
}

fn is_not_waited_for(says: &str, how: &str) {
    let flag = AtomicBool::new(false);
    let mut session = open(says);
    session.patience = Duration::from_millis(300);
    let answer = match how {
        "call" => session.call("", &flag).map(drop),
        "ask" => session.ask("", &|_| Some(1), &flag).map(drop),
        _ => session.fetch("", "/x", &flag, &mut |_| Ok(())).map(drop),
    };
    let error = answer.expect_err("no end");
    assert!(error.message.contains("does not"), "{how} {says}: {error}");
    assert!(error.to_string().contains("300ms"), "{how} {says}: {error}");
}

//! Sessions with hosts that say whatever a test wants.

use std::process::Command;
use std::sync::atomic::Ordering;

use super::*;
use crate::core::cancel::Cancel;
use crate::core::diagnostics::Span;
use crate::core::error::ErrorKind;
use crate::deploy::remote::transfer_target::UploadTarget;

/// A host that says what it likes, and listens to nobody.
struct Fake(String);

impl Transport for Fake {
    fn command(&self, _: &Host) -> Command {
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!(
            "printf '\\036n0 hello /srv\\n'; {}; cat >/dev/null",
            self.0
        ));
        command
    }

    fn gate(&self, _: &Host) -> Option<String> {
        None
    }

    fn try_it(&self, _: &Host) -> String {
        "ssh fake".into()
    }
}

/// Returns a host that is reached by ssh.
fn by_ssh() -> Host {
    Host {
        reach: Reach::Ssh {
            destination: "h".into(),
            port: None,
            jump: None,
            options: Vec::new(),
        },
        ..open(":").host.clone()
    }
}

fn header() -> Header {
    Header {
        nonce: "n0".into(),
        root: "/srv".into(),
        state: "/srv/.rel/e".into(),
        project: String::new(),
        name: String::new(),
        run: "r".into(),
        who: "me".into(),
        purpose: "e".into(),
        lease: Duration::from_secs(60),
        may_write_foreign: false,
        project_uid: None,
        checkout: None,
    }
}

fn open(says: &str) -> Session {
    let host = Host {
        name: "h".into(),
        reach: Reach::Local,
        root: "/srv".into(),
        into_foreign: false,
        vars: std::collections::BTreeMap::new(),
        place: Span::default(),
    };
    Session::new(
        Arc::new(Fake(says.to_owned())),
        Gates::new(1),
        &host,
        &header(),
    )
}

fn run(says: &str, cancel: &Cancel) -> Box<Error> {
    match open(says).run("", cancel, &mut |_| None) {
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
        let status = open(&says).run("", &Cancel::default(), &mut |frame| {
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
        let error = run(says, &Cancel::default());
        assert_eq!(error.message, "host `h` sent an unexpected reply");
    }
}

#[test]
fn waiting_for_announced_bytes_ends_with_an_interrupt() {
    // One announces more than it sends; one never stops.
    for says in [
        "printf '\\036n0 data 500000\\n'",
        "( while :; do echo x; done ) & p=$!; cat >/dev/null; kill $p",
    ] {
        let cancel = Cancel::default();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(300));
                cancel.set();
            });
            let error = run(says, &cancel);
            assert_eq!(error.kind, ErrorKind::Interrupted);
        });
    }
}

#[test]
fn more_answers_than_questions_are_none() {
    let says = "printf '\\036n0 answers\\n'; \
                i=0; while [ $i -lt 9 ]; do printf '\\036n0 answer %s 0\\n' $i; i=$((i + 1)); done";
    let limit = |number| (number < 2).then_some(1 << 20);
    let asked = open(says).ask("", &limit, &Cancel::default());
    let error = asked.expect_err("two were asked");
    assert_eq!(error.message, "host `h` sent an unexpected reply");
    let event = error.facts.iter().find(|(name, _)| name == "event");
    assert_eq!(event.expect("is reported").1, "more replies than queries");
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
    let flag = Cancel::default();
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

/// A way to a host that fails some times, with these words, before it leads there.
struct Refusing {
    words: &'static str,
    times: usize,
    tries: std::sync::atomic::AtomicUsize,
}

impl Transport for Refusing {
    fn command(&self, _: &Host) -> Command {
        let mut command = Command::new("sh");
        let answer = "IFS= read -r n; dd bs=$n count=1 iflag=fullblock 2>/dev/null >&2; printf '\\036n0 hello /srv\\n'; \
                      grep -am1 '^ask' >&2; printf '\\036n0 answers\\n\\036n0 asked\\n'; cat >/dev/null";
        let script = match self.tries.fetch_add(1, Ordering::SeqCst) < self.times {
            true => format!("echo '{}' >&2; exit 255", self.words),
            false => answer.to_owned(),
        };
        command.args(["-c", &script]);
        command
    }

    fn gate(&self, _: &Host) -> Option<String> {
        Some("gate".into())
    }

    fn try_it(&self, _: &Host) -> String {
        "ssh fake".into()
    }
}

#[test]
fn what_a_server_refuses_before_anybody_logs_in_is_tried_again() {
    let closed = "kex_exchange_identification: Connection closed by remote host";
    // Words, how often they are sent, tries, and whether it comes to an answer.
    for (words, times, tries, is_answered) in [
        ("", 0, 1, true),
        (closed, 2, 3, true),
        (
            "ssh: connect to host h port 22: Connection refused",
            1,
            2,
            true,
        ),
        (
            "ssh: connect to host h port 22: Connection refused",
            9,
            4,
            false,
        ),
        ("me@h: Permission denied (publickey).", 1, 1, false),
        ("Host key verification failed.", 1, 1, false),
    ] {
        let transport = Arc::new(Refusing {
            words,
            times,
            tries: Default::default(),
        });
        let host = by_ssh();
        let gates = Gates::new(1);
        let mut session = Session::new(transport.clone(), gates, &host, &header());
        session.patience = Duration::from_secs(20);
        let asked = session.ask("", &|_| None, &Cancel::default());
        let error = asked.as_ref().err().map(ToString::to_string);
        assert_eq!(asked.is_ok(), is_answered, "{words}: {error:?}");
        assert_eq!(transport.tries.load(Ordering::SeqCst), tries, "{words}");
        if !is_answered {
            assert!(error.is_some_and(|error| error.contains(words)), "{words}");
        }
    }
}

/// A host whose guard is on this machine, and which keeps what it is sent behind the guard.
struct Elsewhere(std::path::PathBuf);

impl Transport for Elsewhere {
    fn command(&self, _: &Host) -> Command {
        let mut command = Command::new("sh");
        command.args([
            "-c",
            "IFS= read -r n; dd bs=$n count=1 iflag=fullblock >/dev/null 2>&1; \
            printf '\\036n0 machine 00000000000000000000000000000001 -\\n\\036n0 hello /srv\\n'; \
            cat >>\"$0\"",
        ]);
        command.arg(&self.0);
        command
    }

    fn gate(&self, _: &Host) -> Option<String> {
        None
    }

    fn try_it(&self, _: &Host) -> String {
        "ssh fake".into()
    }
}

type Telling = fn(&mut Session, &Cancel) -> Result<()>;

/// All that a host can be told.
const TELLING: [(&str, Telling); 7] = [
    ("call", |s, stop| {
        s.call("rel_lock 0 break\n", stop).map(drop)
    }),
    ("run", |s, stop| s.run("x\n", stop, &mut |_| None).map(drop)),
    ("keep", |s, stop| s.keep(1, b"secret", stop)),
    ("fetch", |s, stop| {
        s.fetch("x\n", "/x", stop, &mut |_| Ok(()))
    }),
    ("send", |s, stop| {
        let landing = UploadTarget {
            to: "/srv/x",
            ..UploadTarget::default()
        };
        s.send_archive(&landing, stop, &mut |to| to.write_all(b"secret"))
            .map(drop)
    }),
    ("ask nothing", |s, stop| {
        s.ask("", &|_| None, stop).map(drop)
    }),
    ("ask", |s, stop| {
        s.ask("rel_ask 0 :\n", &|_| Some(1), stop).map(drop)
    }),
];

#[test]
fn nothing_is_sent_to_a_machine_before_it_was_checked() {
    for (what, tell) in TELLING {
        let dir = tempfile::tempdir().expect("a directory");
        let sent = dir.path().join("sent");
        let host = by_ssh();
        let transport = Arc::new(Elsewhere(sent.clone()));
        let mut session = Session::new(transport, Gates::new(1), &host, &header());
        session.known = Some(HostIdentity::new("00000000000000000000000000000002", "-"));
        // The first time, and whatever is tried after it.
        for (again, tell) in [(what, tell), ("again", tell), ("call", TELLING[0].1)] {
            let error = tell(&mut session, &Cancel::default()).expect_err("is refused");
            let message = "host `h` is another machine than before";
            assert_eq!(error.message, message, "{what} {again}");
        }
        drop(session);
        let sent = std::fs::read_to_string(&sent).expect("it was reached");
        assert_eq!(sent.replace("beat\n", ""), "", "{what}");
    }
}

//! Clients of the responder: polite, slow, rude and many.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;

use super::*;

const PATIENCE: Duration = Duration::from_secs(30);

fn answer(status: &str, body: &str) -> MaintenanceReply {
    MaintenanceReply {
        status: status.into(),
        headers: vec![("X-Weave-Backoff".into(), "600".into())],
        body: body.into(),
    }
}

/// Starts a responder that lives as long as the tests.
fn start(answer: MaintenanceReply) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listens");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || serve(&listener, &answer));
    address
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("connects");
    stream.set_read_timeout(Some(PATIENCE)).expect("sets");
    stream
}

/// Sends bytes and returns all that comes until the responder closes.
fn all(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = connect(address);
    stream.write_all(bytes).expect("sends");
    let mut text = String::new();
    let _ = stream.read_to_string(&mut text);
    text
}

#[test]
fn every_path_and_method_has_the_same_answer() {
    let address = start(answer("503", "back soon\n"));
    let expected = "HTTP/1.1 503 Service Unavailable\r\nX-Weave-Backoff: 600\r\n\
                    Content-Type: text/plain; charset=utf-8\r\nContent-Length: 10\r\n\
                    Connection: close\r\n\r\nback soon\n";
    for request in [
        &b"GET / HTTP/1.0\r\n\r\n"[..],
        b"GET /a/b?c HTTP/1.1\r\nConnection: Close\r\n\r\n",
        b"GET /\n\n",
        b"\r\nDELETE * HTTP/1.1\r\nconnection: x, close\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc",
        b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n",
        b"\xff\xfe nonsense\r\n\r\n",
    ] {
        let shown = String::from_utf8_lossy(request);
        assert_eq!(all(address, request), expected, "{shown}");
    }
    let head = all(address, b"HEAD / HTTP/1.0\r\n\r\n");
    let (head, rest) = head.split_at(head.len() - 4);
    assert!(
        head.ends_with("Content-Length: 10\r\nConnection: close"),
        "{head}"
    );
    assert_eq!(rest, "\r\n\r\n");
    // What may have no body has none.
    let empty = all(start(answer("204", "x")), b"GET / HTTP/1.0\r\n\r\n");
    assert!(
        !empty.contains("Content-Length") && empty.ends_with("\r\n\r\n"),
        "{empty}"
    );
}

#[test]
fn a_connection_is_kept_and_requests_may_come_in_any_pieces() {
    let address = start(answer("503", "x"));
    let mut stream = connect(address);
    let mut reader = BufReader::new(stream.try_clone().expect("clones"));
    let mut one = || {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).expect("reads");
            match line.trim() {
                "" => break,
                line => lines.push(line.to_owned()),
            }
        }
        let mut body = [0];
        reader.read_exact(&mut body).expect("reads");
        assert_eq!(body, *b"x");
        lines
    };
    for _ in 0..3 {
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("sends");
        assert_eq!(
            one().last().map(String::as_str),
            Some("Connection: keep-alive")
        );
    }
    // Several at once, and one in drips.
    let two = b"GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n";
    stream.write_all(two).expect("sends");
    one();
    one();
    for byte in b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n" {
        stream.write_all(&[*byte]).expect("sends");
    }
    assert_eq!(one().last().map(String::as_str), Some("Connection: close"));
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).expect("ends");
}

#[test]
fn whoever_is_slow_rude_or_many_keeps_nobody_else_waiting() {
    let address = start(answer("503", "x"));
    // More than there is room for: they say half a word, or nothing at all.
    let silent: Vec<TcpStream> = (0..CLIENTS_MAX + 50)
        .map(|number| {
            let mut stream = connect(address);
            if number % 2 == 0 {
                stream.write_all(b"GET / HT").expect("sends");
            }
            stream
        })
        .collect();
    for _ in 0..5 {
        let answer = all(address, b"GET / HTTP/1.0\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    }
    drop(silent);
    // One who never stops talking, and one who hangs up in the middle of the answer.
    let mut endless = connect(address);
    let line = vec![b'a'; 1 << 16];
    while endless.write_all(&line).is_ok() {}
    let mut gone = connect(address);
    gone.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("sends");
    drop(gone);
    let answer = all(address, b"GET / HTTP/1.0\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
}

#[test]
fn an_answer_that_nobody_reads_in_time_waits_in_pieces() {
    let body = "y".repeat(8 << 20);
    let address = start(answer("503", &body));
    let mut slow = connect(address);
    slow.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("sends");
    let other = all(address, b"HEAD / HTTP/1.0\r\n\r\n");
    assert!(other.starts_with("HTTP/1.1 503 "), "{other}");
    let mut text = String::new();
    slow.read_to_string(&mut text).expect("reads");
    assert!(text.ends_with(&body));
}

//! Somebody who looks at the site: logs in, reads pages, and counts what goes wrong.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Pause between two questions to one site.
const EVERY: Duration = Duration::from_millis(20);

/// Limit on one answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// An answer, whole.
pub struct Answer {
    pub status: u16,
    head: String,
    pub body: String,
}

/// A browser at one customer's site.
#[derive(Clone)]
pub struct Browser {
    port: u16,
    home: String,
    cookie: Option<String>,
}

impl Browser {
    /// Returns a browser that is not logged in.
    pub fn new(port: u16, customer: &str) -> Self {
        Self {
            port,
            home: format!("/branch2/{customer}/"),
            cookie: None,
        }
    }

    /// Logs in as `demo`; the site must let it.
    #[track_caller]
    pub fn log_in(&mut self) {
        let body = "user=demo&password=demo";
        let path = format!("{}login", self.home);
        let answer = self.ask("POST", &path, body).expect("answers");
        assert_eq!(answer.status, 303, "{}", answer.body);
        let cookie = answer.field("set-cookie").expect("a cookie");
        let cookie = cookie.split(';').next().expect("a value");
        self.cookie = Some(cookie.to_owned());
    }

    /// Returns the first page.
    pub fn home(&self) -> Result<String, String> {
        let answer = self.ask("GET", &self.home, "")?;
        match answer.status {
            200 => Ok(answer.body),
            status => Err(format!("{status} {}", answer.body)),
        }
    }

    /// Returns the heading of the first page, which tells one release from another.
    /// Fails for a page that is not all there or shows data that did not evolve.
    fn heading(&self) -> Result<String, String> {
        let page = self.home()?;
        for part in ["Evolved:", "You are logged in as demo", "</html>"] {
            if !page.contains(part) {
                return Err(format!("no `{part}` in {page}"));
            }
        }
        let heading = page
            .split("<h1>")
            .nth(1)
            .and_then(|p| p.split("</h1>").next());
        heading.map(str::to_owned).ok_or(page)
    }

    fn ask(&self, method: &str, path: &str, body: &str) -> Result<Answer, String> {
        let fail = |e: std::io::Error| format!("{method} {path}: {e}");
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).map_err(fail)?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(fail)?;
        let cookie = self.cookie.iter().map(|c| format!("Cookie: {c}\r\n"));
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: karl\r\nConnection: close\r\n{}\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}",
            cookie.collect::<String>(),
            body.len()
        );
        stream.write_all(request.as_bytes()).map_err(fail)?;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).map_err(fail)?;
        Answer::parse(&String::from_utf8_lossy(&bytes))
    }
}

impl Answer {
    fn parse(text: &str) -> Result<Self, String> {
        let (head, body) = text
            .split_once("\r\n\r\n")
            .ok_or_else(|| format!("no whole answer: `{text}`"))?;
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok());
        let answer = Self {
            status: status.ok_or_else(|| head.to_owned())?,
            head: head.to_owned(),
            body: body.to_owned(),
        };
        match answer.field("content-length") {
            Some(length) if length != body.len().to_string() => {
                Err(format!("{} of {length} bytes", body.len()))
            }
            _ => Ok(answer),
        }
    }

    fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (field, value) = line.split_once(':')?;
            field.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// What a prober saw.
#[derive(Debug, Default)]
pub struct Seen {
    /// Heading -> how many answers had it.
    pub headings: BTreeMap<String, usize>,
    /// What was not answered, or wrongly.
    pub failed: Vec<String>,
    /// The longest that an answer took.
    pub slowest: Duration,
}

impl Seen {
    /// Asserts that no answer was lost and that each came from one of these releases; all
    /// of them were seen.
    #[track_caller]
    pub fn only(&self, headings: &[&str]) -> usize {
        assert!(self.failed.is_empty(), "{:#?}", self.failed);
        let mut seen: Vec<&str> = self.headings.keys().map(String::as_str).collect();
        let mut headings = headings.to_vec();
        headings.sort_unstable();
        seen.sort_unstable();
        assert_eq!(seen, headings, "{self:?}");
        self.headings.values().sum()
    }
}

/// Asks the sites again and again, each from a thread of its own.
pub struct Prober {
    is_over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Seen>>,
}

impl Prober {
    /// Starts asking.
    pub fn start(browsers: Vec<Browser>) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let start = |browser: Browser| {
            let is_over = is_over.clone();
            std::thread::spawn(move || {
                let mut seen = Seen::default();
                while !is_over.load(Ordering::Relaxed) {
                    let asked = Instant::now();
                    match browser.heading() {
                        Ok(heading) => *seen.headings.entry(heading).or_default() += 1,
                        Err(e) => seen.failed.push(e),
                    }
                    seen.slowest = seen.slowest.max(asked.elapsed());
                    std::thread::sleep(EVERY.saturating_sub(asked.elapsed()));
                }
                seen
            })
        };
        let threads = browsers.into_iter().map(start).collect();
        Self { is_over, threads }
    }

    /// Ends it and returns what all of them saw.
    pub fn stop(self) -> Seen {
        self.is_over.store(true, Ordering::Relaxed);
        let mut all = Seen::default();
        for thread in self.threads {
            let seen = thread.join().expect("ends well");
            for (heading, count) in seen.headings {
                *all.headings.entry(heading).or_default() += count;
            }
            all.failed.extend(seen.failed);
            all.slowest = all.slowest.max(seen.slowest);
        }
        all
    }
}

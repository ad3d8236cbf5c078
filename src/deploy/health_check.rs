//! Asking a site: one GET, judged; or a port, tried. From the operator's machine.
//!
//! Redirects are not followed and no proxy is used: what answers at the address is
//! judged, not what a log-in page or a proxy says in its place. Each try has its own
//! time limit inside the whole one.

mod tls_trust;

use std::collections::BTreeMap;
use std::net::{TcpStream, ToSocketAddrs};
use std::path::Path;
use std::time::{Duration, Instant};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{self, PemObject};
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{Connector, TcpConnector};

use self::tls_trust::Trust;
use crate::core::cancel::Cancel;
use crate::core::error::{Error, ErrorKind, Result, plural};

/// No single try takes longer.
const TRY_MAX: Duration = Duration::from_secs(5);
/// Of an answer's body, so much is looked at.
const BODY_MAX: u64 = 4 << 20;

/// Something to wait for from here.
#[derive(Clone, Debug, PartialEq)]
pub struct HealthCheck {
    what: Endpoint,
    /// For how long.
    pub within: Duration,
    /// Pause between tries.
    pub every: Duration,
}

#[derive(Clone, Debug, PartialEq)]
enum Endpoint {
    Http(HttpCheck),
    Port(String),
}

/// What a URL must answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HttpCheck {
    /// The URL.
    pub url: String,
    /// Expected status.
    pub status: u16,
    /// Text that the answer must have.
    pub contains: Option<String>,
    /// Name and value of a header to send.
    pub header: Option<(String, String)>,
    /// Path or URL of a form that is posted to first; its cookies are sent along.
    pub login: Option<String>,
    /// Fields of that form.
    pub user: Option<String>,
    /// Fields of that form.
    pub password: Option<String>,
    /// PEM file of the authority to trust.
    pub ca: Option<String>,
}

impl HttpCheck {
    /// Returns the check that a recipe's properties describe.
    pub fn from_texts(mut texts: BTreeMap<String, String>) -> Result<Self> {
        let wrong = |text: String| Error::new(ErrorKind::Releasefile, text);
        let status = texts.remove("status").unwrap_or_else(|| "200".into());
        let header = match texts.remove("header") {
            None => None,
            Some(text) => match text.split_once(':') {
                Some((name, value)) => Some((name.trim().to_owned(), value.trim().to_owned())),
                None => return Err(wrong(format!("header `{text}` is not `Name: value`"))),
            },
        };
        Ok(Self {
            url: texts.remove("http").unwrap_or_default(),
            status: status
                .parse()
                .map_err(|_| wrong(format!("`{status}` is not an HTTP status")))?,
            contains: texts.remove("contains"),
            header,
            login: texts.remove("login"),
            user: texts.remove("user"),
            password: texts.remove("password"),
            ca: texts.remove("ca"),
        })
    }
}

impl HealthCheck {
    /// Waits for an answer.
    pub fn http(check: HttpCheck, within: Duration, every: Duration) -> Self {
        Self {
            what: Endpoint::Http(check),
            within,
            every,
        }
    }

    /// Waits for a port, as `HOST:PORT`.
    pub fn port(address: String, within: Duration, every: Duration) -> Self {
        Self {
            what: Endpoint::Port(address),
            within,
            every,
        }
    }

    /// Returns the URL that is asked.
    pub fn url(&self) -> Option<&str> {
        match &self.what {
            Endpoint::Http(check) => Some(&check.url),
            Endpoint::Port(_) => None,
        }
    }

    /// Returns one line that says what is waited for; never the password.
    pub fn describe(&self) -> String {
        match &self.what {
            Endpoint::Http(check) => {
                let mut text = format!("{} answers {}", check.url, check.status);
                if let Some(contains) = &check.contains {
                    text.push_str(&format!(" with `{contains}`"));
                }
                if let Some(user) = &check.user {
                    text.push_str(&format!(" for {user}"));
                }
                text
            }
            Endpoint::Port(address) => format!("{address} takes connections"),
        }
    }

    /// Tries until it holds; fails with what the last try found.
    pub fn wait_until_ok(&self, cancel: &Cancel) -> Result<()> {
        let start = Instant::now();
        let mut tries = 0;
        loop {
            tries += 1;
            let left = self.within.saturating_sub(start.elapsed());
            let limit = left.clamp(Duration::from_millis(500), TRY_MAX);
            let found = match &self.what {
                Endpoint::Http(check) => ask(check, limit)?,
                Endpoint::Port(address) => try_port(address, limit),
            };
            let Some(found) = found else {
                return Ok(());
            };
            cancel.check()?;
            if start.elapsed() + self.every >= self.within {
                return Err(Error::host(format!("{}: it does not", self.describe()))
                    .note("found", found)
                    .note(
                        "within",
                        humantime::format_duration(self.within).to_string(),
                    )
                    .note("tried", format!("{tries} {}", plural(tries, "time"))));
            }
            cancel.sleep(self.every)?;
        }
    }
}

fn try_port(address: &str, limit: Duration) -> Option<String> {
    let addresses = match address.to_socket_addrs() {
        Ok(addresses) => addresses,
        Err(e) => return Some(e.to_string()),
    };
    let mut found = String::from("the name has no address");
    for address in addresses {
        match TcpStream::connect_timeout(&address, limit) {
            Ok(_) => return None,
            Err(e) => found = crate::core::error::os_text(&e),
        }
    }
    Some(found)
}

/// Asks once: `None` when the answer is right, else what was found instead.
fn ask(check: &HttpCheck, limit: Duration) -> Result<Option<String>> {
    let agent = agent(check, limit)?;
    let cookies = match &check.login {
        Some(login) => match log_in(&agent, check, login) {
            Ok(cookies) => cookies,
            Err(found) => return Ok(Some(found)),
        },
        None => String::new(),
    };
    let mut request = agent.get(&check.url);
    if let Some((name, value)) = &check.header {
        request = request.header(name, value);
    }
    if !cookies.is_empty() {
        request = request.header("cookie", &cookies);
    }
    let mut response = match request.call() {
        Ok(response) => response,
        Err(e) => return Ok(Some(e.to_string())),
    };
    let status = response.status().as_u16();
    if status != check.status {
        let location = response.headers().get("location");
        return Ok(Some(match location.and_then(|l| l.to_str().ok()) {
            Some(location) => format!("status {status} to {location}"),
            None => format!("status {status}"),
        }));
    }
    let Some(wanted) = &check.contains else {
        return Ok(None);
    };
    let body = response
        .body_mut()
        .with_config()
        .limit(BODY_MAX)
        .read_to_vec();
    Ok(match body {
        Ok(body) if String::from_utf8_lossy(&body).contains(wanted) => None,
        Ok(body) => Some(format!(
            "status {status}, {} bytes without `{wanted}`",
            body.len()
        )),
        Err(e) => Some(e.to_string()),
    })
}

fn agent(check: &HttpCheck, limit: Duration) -> Result<ureq::Agent> {
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .proxy(None)
        .timeout_global(Some(limit))
        .user_agent(concat!("rel/", env!("CARGO_PKG_VERSION")))
        .build();
    let Some(path) = &check.ca else {
        return Ok(config.into());
    };
    let pem = crate::core::fs::read_regular(Path::new(path)).map_err(|e| {
        Error::usage(format!(
            "cannot read `{path}`: {}",
            crate::core::error::os_text(&e)
        ))
    })?;
    let none =
        |e: &dyn std::fmt::Display| Error::usage(format!("`{path}` holds no certificate: {e}"));
    let certificates = certificates(&pem).map_err(|e| none(&e))?;
    let trust = Trust::new(certificates).map_err(|e| none(&e))?;
    let connector = ().chain(TcpConnector::default()).chain(trust);
    Ok(ureq::Agent::with_parts(
        config,
        connector,
        DefaultResolver::default(),
    ))
}

/// Returns all certificates of a file; a bundle has many.
fn certificates(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, pem::Error> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(text).collect::<Result<_, _>>()?;
    match found.is_empty() {
        true => Err(pem::Error::NoItemsFound),
        false => Ok(found),
    }
}

/// Posts the form and returns the cookies it sets.
fn log_in(agent: &ureq::Agent, check: &HttpCheck, login: &str) -> Result<String, String> {
    let url = absolute(&check.url, login);
    let fields = [
        ("user", check.user.as_deref().unwrap_or("")),
        ("password", check.password.as_deref().unwrap_or("")),
    ];
    let response = agent
        .post(&url)
        .send_form(fields)
        .map_err(|e| format!("the log-in at {url}: {e}"))?;
    let status = response.status().as_u16();
    let cookies: Vec<String> = response
        .headers()
        .get_all("set-cookie")
        .iter()
        .filter_map(|v| v.to_str().ok())
        .filter_map(|v| v.split(';').next())
        .map(|pair| pair.trim().to_owned())
        .collect();
    match status < 400 && !cookies.is_empty() {
        true => Ok(cookies.join("; ")),
        false if status >= 400 => Err(format!("the log-in at {url} answers status {status}")),
        false => Err(format!(
            "the log-in at {url} sets no cookie (status {status})"
        )),
    }
}

/// Returns `path` as a URL: on the site of `url` where it starts with a slash, beside
/// it where it is relative.
fn absolute(url: &str, path: &str) -> String {
    if path.contains("://") {
        return path.to_owned();
    }
    let after_scheme = url.find("://").map_or(0, |at| at + 3);
    let site_end = url[after_scheme..]
        .find(['/', '?', '#'])
        .map_or(url.len(), |at| at + after_scheme);
    if path.starts_with('/') {
        return format!("{}{path}", &url[..site_end]);
    }
    let dir_end = url[site_end..]
        .rfind('/')
        .map_or(site_end, |at| at + site_end);
    format!("{}/{path}", &url[..dir_end])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::TcpListener;

    #[test]
    fn a_login_path_is_found_from_the_url() {
        for (url, path, expected) in [
            ("http://h:1/b/c/", "/login", "http://h:1/login"),
            ("http://h:1/b/c/", "login", "http://h:1/b/c/login"),
            ("http://h:1", "login", "http://h:1/login"),
            ("http://h/x?y", "https://other/l", "https://other/l"),
        ] {
            assert_eq!(absolute(url, path), expected, "{url} {path}");
        }
    }

    /// A site that wants a cookie; fails its first `failures` answers with 503.
    fn site(failures: usize) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
        let address = listener.local_addr().expect("has one");
        std::thread::spawn(move || {
            let mut left = failures;
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let mut reader = BufReader::new(stream.try_clone().expect("clones"));
                let (mut head, mut length) = (String::new(), 0);
                loop {
                    let mut line = String::new();
                    if reader.read_line(&mut line).unwrap_or(0) <= 2 {
                        break;
                    }
                    if let Some(n) = line.to_lowercase().strip_prefix("content-length:") {
                        length = n.trim().parse().unwrap_or(0);
                    }
                    head.push_str(&line);
                }
                let mut body = vec![0; length];
                let _ = reader.read_exact(&mut body);
                let body = String::from_utf8_lossy(&body).into_owned();
                let answer = if left > 0 {
                    left -= 1;
                    "503 Busy\r\n"
                } else if head.starts_with("POST /login") && body == "user=ann&password=a%26b" {
                    "303 See Other\r\nset-cookie: id=7; Path=/\r\nlocation: /\r\n"
                } else if head.starts_with("POST") {
                    "403 No\r\n"
                } else if head.contains("cookie: id=7") {
                    "200 OK\r\n"
                } else {
                    "302 Found\r\nlocation: /login\r\n"
                };
                let text = "hello ann";
                let _ = write!(
                    stream,
                    "HTTP/1.1 {answer}content-length: {}\r\nconnection: close\r\n\r\n{text}",
                    text.len()
                );
            }
        });
        format!("http://{address}/page")
    }

    fn check(url: &str, texts: &[(&str, &str)], within_ms: u64) -> String {
        let mut map: BTreeMap<String, String> = texts
            .iter()
            .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
            .collect();
        map.insert("http".into(), url.into());
        let check = HttpCheck::from_texts(map).expect("reads");
        let wait = HealthCheck::http(
            check,
            Duration::from_millis(within_ms),
            Duration::from_millis(10),
        );
        match wait.wait_until_ok(&Cancel::default()) {
            Ok(()) => String::from("ok"),
            Err(e) => e.facts[0].1.clone(),
        }
    }

    #[test]
    fn a_page_behind_a_form_is_asked_with_its_cookie() {
        let ann = [("login", "/login"), ("user", "ann"), ("password", "a&b")];
        assert_eq!(check(&site(0), &ann, 100), "ok");
        assert_eq!(check(&site(3), &ann, 3000), "ok");
        assert_eq!(check(&site(0), &[], 50), "status 302 to /login");
        assert_eq!(check(&site(0), &[("status", "302")], 50), "ok");
        let text = [&ann[..], &[("contains", "hello")]].concat();
        assert_eq!(check(&site(0), &text, 100), "ok");
        let text = [&ann[..], &[("contains", "bye")]].concat();
        assert_eq!(
            check(&site(0), &text, 50),
            "status 200, 9 bytes without `bye`"
        );
    }

    #[test]
    fn every_certificate_of_a_bundle_counts() {
        let one =
            |text| format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n");
        let bundle = format!("# comment\n{}{}", one("AAAA"), one("AAAB"));
        let found = certificates(bundle.as_bytes()).expect("reads");
        assert_eq!(found.len(), 2);
        assert!(certificates(b"nothing").is_err());
    }

    #[test]
    fn a_wait_says_how_often_it_was_tried() {
        let address = String::from("127.0.0.1:1");
        let wait = HealthCheck::port(address, Duration::from_millis(1), Duration::from_millis(10));
        let error = wait
            .wait_until_ok(&Cancel::default())
            .expect_err("no server listens");
        let tried = ("tried".to_owned(), "1 time".to_owned());
        assert!(error.facts.contains(&tried), "{:?}", error.facts);
    }

    #[test]
    fn a_port_is_tried() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
        let address = listener.local_addr().expect("has one").to_string();
        assert_eq!(try_port(&address, TRY_MAX), None);
        drop(listener);
        assert!(try_port(&address, TRY_MAX).is_some());
    }
}

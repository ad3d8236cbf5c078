//! `examples/karl` as it is: staged, asked, broken, fixed, rolled back.
//!
//! The ground of the modules below: a copy of the example with ports of its own, a browser
//! that logs in, and a prober that asks both customers' sites all the time. Whatever runs
//! out of the copy ends with it.

mod browser;
mod data;
mod local;
mod ssh;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use serde_json::Value;

use crate::hosts::free_port;
use crate::space::{Output, Space, end_all_below};
use browser::{Browser, Prober};

/// The customers of the example.
pub const CUSTOMERS: [&str; 2] = ["osf", "anothercustomer"];

/// A copy of the example.
pub struct Karl {
    pub space: Space,
    site_port: u16,
    database_port: u16,
    hosts_file: Option<&'static str>,
}

impl Karl {
    /// Returns a fresh copy, never built, with hosts on this machine.
    pub fn new() -> Self {
        let space = Space::empty();
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/karl");
        copy(&example, &space.path("."));
        Self {
            space,
            site_port: free_port(),
            database_port: free_port(),
            hosts_file: None,
        }
    }

    /// Takes the hosts from a file of the checkout from now on.
    pub fn hosts_from(&mut self, file: &'static str) {
        self.hosts_file = Some(file);
    }

    /// Returns all words of a call: what the test wants, then ports and hosts.
    pub fn words(&self, args: &[&str]) -> Vec<String> {
        let mut words: Vec<String> = args.iter().map(|&a| a.to_owned()).collect();
        for (name, port) in [
            ("site-port", self.site_port),
            ("database-port", self.database_port),
        ] {
            words.extend([String::from("--var"), format!("{name}={port}")]);
        }
        if let Some(file) = self.hosts_file {
            words.extend([String::from("--hosts"), file.to_owned()]);
        }
        words
    }

    /// Runs `rel` to its end.
    pub fn run(&self, args: &[&str]) -> Output {
        self.space.run(self.words(args))
    }

    /// Runs `rel staging branch2` to its end.
    pub fn stage(&self, args: &[&str]) -> Output {
        self.run(&[&["staging", "branch2"], args].concat())
    }

    /// Runs `rel staging branch2 --json`, which must succeed.
    #[track_caller]
    pub fn told(&self, args: &[&str]) -> Value {
        let output = self.stage(&[&["--json"], args].concat()).ok();
        serde_json::from_str(&output.stdout).unwrap_or_else(|e| panic!("{e} in\n{output}"))
    }

    /// Builds and returns how each target was settled, with the number of processes.
    #[track_caller]
    pub fn build(&self, target: &str) -> (Value, u64) {
        let told = self.space.build([target]).ok();
        (told.0["targets"].clone(), told.processes())
    }

    /// Changes a file of the checkout; what is to be replaced must be there.
    #[track_caller]
    pub fn edit(&self, path: &str, from: &str, to: &str) -> &Self {
        let text = self.space.read(path);
        assert!(text.contains(from), "no `{from}` in {path}");
        self.space.write(path, text.replacen(from, to, 1));
        self
    }

    /// Returns the URL of a customer's site, as `rel` prints it.
    pub fn url(&self, customer: &str) -> String {
        format!("http://127.0.0.1:{}/branch2/{customer}/", self.site_port)
    }

    /// Returns a browser that is logged in at a customer's site.
    #[track_caller]
    pub fn browser(&self, customer: &str) -> Browser {
        let mut browser = Browser::new(self.site_port, customer);
        browser.log_in();
        browser
    }

    /// Starts asking both customers' sites.
    pub fn prober(&self) -> Prober {
        Prober::start(CUSTOMERS.map(|customer| self.browser(customer)).into())
    }

    /// Asserts that both sites show evolved data to who is logged in.
    #[track_caller]
    pub fn answers(&self) {
        for customer in CUSTOMERS {
            let page = self.browser(customer).home().expect("answers");
            assert!(page.contains("Evolved:"), "{page}");
        }
    }
}

impl Drop for Karl {
    fn drop(&mut self) {
        end_all_below(self.space.base());
    }
}

/// Copies a directory, without what was built in it.
fn copy(from: &Path, to: &Path) {
    let made = ["build", "dist", ".rel", "__pycache__"];
    let files = walkdir::WalkDir::new(from)
        .into_iter()
        .filter_entry(|e| !made.iter().any(|name| e.file_name() == *name));
    for entry in files {
        let entry = entry.expect("reads the example");
        let target = to.join(entry.path().strip_prefix(from).expect("is below"));
        match entry.file_type().is_dir() {
            true => fs::create_dir_all(target).expect("creates"),
            false => drop(fs::copy(entry.path(), target).expect("copies")),
        }
    }
}

/// Returns all that lies below a directory: path -> mode, kind and content. What services
/// write while they run is left out.
pub fn tree(dir: &Path) -> BTreeMap<String, String> {
    let live = ["log", "run", "__pycache__"];
    let files = walkdir::WalkDir::new(dir)
        .sort_by_file_name()
        .into_iter()
        .filter_entry(|e| !live.iter().any(|name| e.file_name() == *name));
    let describe = |entry: walkdir::DirEntry| {
        let path = entry.path();
        let meta = entry.metadata().expect("asks");
        let content = match (meta.is_file(), meta.is_symlink()) {
            (true, _) => blake3::hash(&fs::read(path).expect("reads")).to_string(),
            (_, true) => fs::read_link(path).expect("reads").display().to_string(),
            _ => String::from("directory"),
        };
        let what = format!(
            "{:o} {}:{} {content}",
            meta.permissions().mode(),
            meta.uid(),
            meta.gid()
        );
        (path.display().to_string(), what)
    };
    files.map(|e| describe(e.expect("lists"))).collect()
}

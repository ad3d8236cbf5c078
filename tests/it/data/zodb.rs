//! ZODB behind ZEO, with blobs.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use super::{Database, Ground, beside, start, words_of};
use crate::hosts::free_port;
use crate::space::Space;

/// A ZEO on the database below `hosts/db/live`, which is a link.
pub struct Zodb {
    port: u16,
    dir: PathBuf,
}

/// Where `tests/run` has put ZODB and ZEO.
fn venv() -> PathBuf {
    let tmp = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let venv = tmp.parent().expect("a parent").join("tools/zodb");
    assert!(
        venv.join("bin/repozo").exists(),
        "there is no {}: run tests/run, which makes it",
        venv.display()
    );
    venv
}

impl Zodb {
    pub fn new(space: &Space) -> Self {
        // Missing, it fails here: where there is a server, its end needs it too.
        let python = venv().join("bin/python");
        let server = Self {
            port: free_port(),
            dir: space.path("hosts/db"),
        };
        let dir = server.dir.display();
        let mut python = space.program(python);
        python
            .arg(beside("zodb_new.py"))
            .arg(server.dir.join("first"));
        let _ = space.finish(&mut python).ok();
        space.write("hosts/db/first/mode.conf", "%define readonly false\n");
        space.write(
            "hosts/db/zeo.conf",
            format!(
                "%include {dir}/live/mode.conf\n<zeo>\n  address 127.0.0.1:{}\n</zeo>\n\
                 <filestorage 1>\n  path {dir}/live/Data.fs\n  blob-dir {dir}/live/blobs\n  \
                 read-only $readonly\n</filestorage>\n",
                server.port
            ),
        );
        space.shell(&format!(
            "cd hosts/db && ln -s first live && {}",
            server.restart()
        ));
        server
    }

    fn restart(&self) -> String {
        format!(
            "{} {} {} {}",
            venv().join("bin/python").display(),
            beside("zeo.py").display(),
            self.dir.display(),
            self.port
        )
    }
}

impl Drop for Zodb {
    fn drop(&mut self) {
        let stop = format!("{} stop", self.restart());
        let _ = Command::new("sh").args(["-c", &stop]).status();
    }
}

impl Database for Zodb {
    fn arguments(&self) -> String {
        format!(
            "driver=\"zodb\" data=\"{{host.root}}/live\" bin=\"{}\" server=\"{}\"",
            venv().join("bin").display(),
            self.restart()
        )
    }

    fn script(&self, number: usize, is_bad: bool) -> (String, String) {
        let name = format!("{number:03}.py");
        let end = if is_bad {
            "raise SystemExit('told to fail')\n"
        } else {
            ""
        };
        let text = format!(
            "import sys\nimport transaction\nfrom ZODB import DB\nfrom ZODB.FileStorage import FileStorage\n\
             db = DB(FileStorage(sys.argv[1], blob_dir=sys.argv[2]))\nroot = db.open().root()\n\
             root['evolved'] = root.get('evolved', []) + ['{name}']\ntransaction.commit()\n{end}db.close()\n"
        );
        (name, text)
    }

    fn writer(&self, space: &Space, acks: &Path) -> Child {
        let mut python = space.program(venv().join("bin/python"));
        python
            .arg(beside("zodb_writer.py"))
            .arg(self.port.to_string());
        start(
            python.arg(acks).arg(space.base().join("client-blobs")),
            &words_of(acks),
        )
    }

    fn content(&self, space: &Space) -> (BTreeSet<u64>, Vec<String>) {
        let mut python = space.program(venv().join("bin/python"));
        python.arg(beside("zodb_words.py"));
        python.args([self.dir.join("live/Data.fs"), self.dir.join("live/blobs")]);
        let said = space.finish(&mut python).ok().stdout;
        let mut words = BTreeSet::new();
        let mut done = Vec::new();
        for line in said.lines() {
            match line.strip_prefix("evolved ") {
                Some(name) => done.push(name.to_owned()),
                None => drop(words.insert(line.parse().expect("a number"))),
            }
        }
        (words, done)
    }
}

#[test]
fn zodb_evolves_and_loses_nothing() {
    Ground::new(Zodb::new).walk();
}

//! The ground of the model: brings a world about on a disk, in the way that an operation says.
//!
//! How matters: a file may be written in place or renamed over, keep its time or not.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime};

use super::oracle::Thing;
use super::world::{Node, Out, TEXTS, Tree, World};
use crate::space::{PATIENCE, REL, Space};

/// A program in C, compiled once for all tests.
pub type Program = LazyLock<(tempfile::TempDir, PathBuf)>;

/// The command of all targets.
pub static ACT: Program = LazyLock::new(|| compile("act"));

/// What lets `rel` fail at its n-th change to a file system.
pub static FAULTS: Program = LazyLock::new(|| compile("faults"));

fn compile(name: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a directory");
    let program = dir.path().join(name);
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/model");
    let status = Command::new("cc")
        .args(["-O1", "-static", "-Wall", "-Werror", "-o"])
        .arg(&program)
        .arg(sources.join(format!("{name}.c")))
        .status()
        .expect("starts cc: run tests/run");
    assert!(status.success());
    (dir, program)
}

/// A checkout with what lies outside of it.
pub struct Ground {
    pub space: Space,
    /// The cache of somebody else, to be used instead of its own.
    pub shared: Option<PathBuf>,
}

/// Names of directories that two checkouts are in; one is how another one begins.
const CHECKOUTS: [&str; 4] = ["work", "work-2", "w \u{fc}", "w"];

/// How files are written when a branch is switched to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writing {
    /// What differs, as git does.
    Different,
    /// All, as a fresh clone has it.
    All,
    /// What differs, with the times of long ago, as `rsync -t` does.
    KeepingTimes,
}

impl Ground {
    pub fn new(world: &World, is_on_disk: bool) -> Self {
        let space = match is_on_disk {
            true => Space::empty(),
            false => Space::in_memory(),
        };
        fs::create_dir(space.base().join("outside")).expect("creates");
        let ground = Self {
            space,
            shared: None,
        };
        ground.write_tree(&world.tree);
        ground.write_outside(world);
        ground
    }

    /// Returns the path of the checkout, as commands that run there see it.
    pub fn root(&self) -> String {
        let root = fs::canonicalize(self.space.path("")).expect("is there");
        root.display().to_string()
    }

    /// Moves the checkout to another place.
    pub fn move_checkout(&mut self, n: usize) {
        let former = self.space.path("");
        self.space.work_in(self.free_name(n));
        fs::rename(former, self.space.path("")).expect("renames");
    }

    /// Goes on in another checkout, at `other` or at a new place, with the sources of a tree.
    pub fn go_elsewhere(&mut self, other: Option<PathBuf>, tree: &Tree, n: usize) {
        match &other {
            Some(other) => {
                let name = other.file_name().unwrap_or_default();
                self.space.work_in(&name.to_string_lossy());
            }
            None => {
                self.space.work_in(self.free_name(n));
                fs::create_dir(self.space.path("")).expect("creates");
            }
        }
        for entry in fs::read_dir(self.space.path("")).expect("lists") {
            let path = entry.expect("lists").path();
            // What stays is the state of that checkout.
            if !path.ends_with(".rel") && !path.ends_with("out") {
                let _ = fs::remove_dir_all(&path).or_else(|_| fs::remove_file(&path));
            }
        }
        self.write_tree(tree);
    }

    fn free_name(&self, n: usize) -> &'static str {
        let is_free = |name: &&&str| !self.space.base().join(name).exists();
        let mut names = CHECKOUTS.iter().cycle().skip(n % CHECKOUTS.len());
        names.find(is_free).expect("two of them are used")
    }

    pub fn write_tree(&self, tree: &Tree) {
        for (path, node) in &tree.sources {
            self.put(path, node);
        }
        self.write_releasefiles(tree, Writing::All);
    }

    pub fn write_outside(&self, world: &World) {
        let outside = self.space.base().join("outside");
        for (n, version) in world.tools.iter().enumerate() {
            fs::write(outside.join(format!("tool{n}")), format!("{version}\n")).expect("writes");
        }
        for (n, answer) in world.probes.iter().enumerate() {
            let path = outside.join(format!("probe{n}"));
            match answer {
                Some(answer) => fs::write(path, format!("{answer}\n")).expect("writes"),
                None => drop(fs::remove_file(path)),
            }
        }
    }

    pub fn write_releasefiles(&self, tree: &Tree, how: Writing) {
        let act = ACT.1.display().to_string();
        for (name, text) in ["Releasefile.kdl", "more.kdl"]
            .iter()
            .zip(tree.releasefiles(&act))
        {
            let path = self.space.path(name);
            let is_same = fs::read_to_string(&path).is_ok_and(|now| now == text);
            if how == Writing::All || !is_same {
                fs::write(path, text).expect("writes");
            }
        }
    }

    /// Writes a node in place; what stands above or below it gives way.
    pub fn put(&self, path: &str, node: &Node) {
        let absolute = self.space.path(path);
        self.make_way(path);
        match node {
            Node::File {
                text,
                is_executable,
            } => {
                if fs::symlink_metadata(&absolute).is_ok_and(|m| m.is_symlink()) {
                    fs::remove_file(&absolute).expect("removes");
                }
                fs::write(&absolute, TEXTS[*text]).expect("writes");
                set_executable(&absolute, *is_executable);
            }
            Node::Link(text) => {
                let _ = fs::remove_file(&absolute);
                std::os::unix::fs::symlink(text, &absolute).expect("links");
            }
        }
    }

    /// Makes directories above a path, and removes a directory at it.
    pub fn make_way(&self, path: &str) {
        let absolute = self.space.path(path);
        let above = Path::new(path).parent().unwrap_or(Path::new(""));
        let mut at = self.space.path("");
        for part in above {
            at.push(part);
            if !at.is_dir() {
                let _ = fs::remove_file(&at);
                fs::create_dir(&at).expect("creates");
            }
        }
        if fs::symlink_metadata(&absolute).is_ok_and(|m| m.is_dir()) {
            fs::remove_dir_all(&absolute).expect("removes");
        }
    }

    /// Removes what stands at a path, and directories above that are left empty.
    pub fn delete(&self, path: &str) {
        let absolute = self.space.path(path);
        match fs::symlink_metadata(&absolute) {
            Ok(meta) if meta.is_dir() => fs::remove_dir_all(&absolute).expect("removes"),
            Ok(_) => fs::remove_file(&absolute).expect("removes"),
            Err(_) => return,
        }
        self.prune_above(path);
    }

    pub fn prune_above(&self, path: &str) {
        for above in Path::new(path).ancestors().skip(1) {
            let is_root = above.as_os_str().is_empty();
            if is_root || fs::remove_dir(self.space.path(above)).is_err() {
                break;
            }
        }
    }

    pub fn time_of(&self, path: &str) -> Option<SystemTime> {
        let meta = fs::symlink_metadata(self.space.path(path)).ok()?;
        meta.modified().ok()
    }

    pub fn set_time(&self, path: &str, time: SystemTime) {
        let path = self.space.path(path);
        if fs::symlink_metadata(&path).is_ok_and(|m| m.is_file()) {
            let file = File::options().write(true).open(path).expect("opens");
            file.set_modified(time).expect("sets");
        }
    }

    /// Turns the sources of one tree into those of another.
    pub fn switch(
        &self,
        from: &Tree,
        to: &Tree,
        how: Writing,
        times: &BTreeMap<String, SystemTime>,
    ) {
        for path in from.sources.keys().filter(|p| !to.sources.contains_key(*p)) {
            self.delete(path);
        }
        for (path, node) in &to.sources {
            if how == Writing::All || from.sources.get(path) != Some(node) {
                self.put(path, node);
            }
        }
        self.write_releasefiles(to, how);
        if how == Writing::KeepingTimes {
            times
                .iter()
                .for_each(|(path, time)| self.set_time(path, *time));
        }
    }

    /// Returns what stands where an instance's outputs belong.
    pub fn outputs(&self, path: &str, out: Out) -> BTreeMap<String, Thing> {
        let mut found = BTreeMap::new();
        let absolute = self.space.path(path);
        match out {
            Out::File => found.extend(thing(&absolute).map(|t| (path.to_owned(), t))),
            Out::Dir => self.tree(path, &mut found),
            Out::Glob => {
                self.tree(path, &mut found);
                found.retain(|p, _| p.ends_with(".o"));
            }
            Out::Product | Out::Nothing | Out::Group => {}
        }
        found
    }

    fn tree(&self, path: &str, found: &mut BTreeMap<String, Thing>) {
        let absolute = self.space.path(path);
        let is_dir = fs::symlink_metadata(&absolute).is_ok_and(|m| m.is_dir());
        if !is_dir {
            found.extend(thing(&absolute).map(|t| (path.to_owned(), t)));
            return;
        }
        let mut is_empty = true;
        for entry in fs::read_dir(&absolute).expect("lists") {
            let name = entry.expect("lists").file_name();
            self.tree(&format!("{path}/{}", name.to_string_lossy()), found);
            is_empty = false;
        }
        if is_empty {
            found.insert(path.to_owned(), Thing::EmptyDir);
        }
    }

    /// Starts `rel`; what it says goes into a file beside the checkout.
    pub fn start(&self, world: &World, args: &[&str]) -> Child {
        self.spawn(world, self.space.rel(args))
    }

    /// Starts `rel` so that its `n`th change to a file system fails, `how` says in which way.
    pub fn start_hindered(&self, world: &World, n: usize, how: &str, args: &[&str]) -> Child {
        let mut command = self.space.program(&FAULTS.1);
        let report = self.space.base().join("report");
        command.arg(n.to_string()).arg(how).arg(report);
        command.arg(REL).args(args);
        self.spawn(world, command)
    }

    fn spawn(&self, world: &World, mut command: Command) -> Child {
        let said = File::create(self.space.base().join("said")).expect("creates");
        for (n, value) in world.env.iter().enumerate() {
            if let Some(value) = value {
                command.env(format!("E{n}"), format!("env{value}"));
            }
        }
        if let Some(cache) = &self.shared {
            command.env("REL_CACHE_DIR", cache);
        }
        command.stdout(Stdio::null()).stderr(said);
        command.spawn().expect("starts rel")
    }

    /// Waits for its end and returns the exit code; `None` when it never ends or was killed.
    pub fn wait(&self, mut child: Child) -> Option<i32> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = child.try_wait().expect("asks") {
                return status.code();
            }
            if Instant::now() > deadline {
                let _ = child.kill();
                return None;
            }
            std::thread::sleep(Duration::from_micros(500));
        }
    }

    pub fn said(&self) -> String {
        fs::read_to_string(self.space.base().join("said")).unwrap_or_default()
    }

    /// Copies all that a build may change to one side, or back. `.rel` stays the directory that
    /// it was, for `rel` believes no other.
    pub fn keep(&self, is_back: bool) {
        let script = match is_back {
            false => "rm -rf kept; mkdir kept; cp -a work outside cache kept",
            true => {
                "rm -rf outside cache
                find work -mindepth 1 -maxdepth 1 ! -name .rel -exec rm -rf {} +
                if [ -d kept/work/.rel ]; then find work/.rel -mindepth 1 -delete
                else rm -rf work/.rel; fi
                cp -a kept/. ."
            }
        };
        let mut command = Command::new("sh");
        command
            .args(["-euc", script])
            .current_dir(self.space.base());
        assert!(command.status().expect("starts").success());
    }

    /// Returns how often each instance's commands were started since the last call.
    pub fn take_log(&self) -> BTreeMap<String, usize> {
        let path = self.space.base().join("log");
        let text = fs::read_to_string(&path).unwrap_or_default();
        let _ = fs::remove_file(path);
        let mut counts = BTreeMap::new();
        for id in text.lines() {
            *counts.entry(id.to_owned()).or_default() += 1;
        }
        counts
    }

    /// Returns the finished files of the cache: `cas` or `ac`.
    pub fn cache_files(&self, part: &str) -> Vec<PathBuf> {
        let dir = self.space.cache().join("v1").join(part);
        let entries = walkdir::WalkDir::new(dir).sort_by_file_name().into_iter();
        let files = entries.flatten().filter(|e| e.file_type().is_file());
        files.map(walkdir::DirEntry::into_path).collect()
    }

    /// Returns the files that hold the state.
    pub fn state_files(&self) -> Vec<PathBuf> {
        let names = ["fresh.v1", "graph.v1", "records.v1", "stat.v1"];
        let paths = names.map(|name| self.space.path(".rel").join(name));
        paths.into_iter().filter(|p| p.exists()).collect()
    }
}

pub fn set_executable(path: &Path, is_executable: bool) {
    use std::os::unix::fs::PermissionsExt;
    let mode = if is_executable { 0o755 } else { 0o644 };
    let now = fs::metadata(path).expect("is there").permissions();
    if now.mode() & 0o777 != mode {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("sets");
    }
}

fn thing(path: &Path) -> Option<Thing> {
    use std::os::unix::fs::PermissionsExt;
    let meta = fs::symlink_metadata(path).ok()?;
    if meta.is_symlink() {
        let text = fs::read_link(path).expect("reads");
        return Some(Thing::Link(text.to_string_lossy().into_owned()));
    }
    if meta.is_dir() {
        return Some(Thing::EmptyDir);
    }
    let text = String::from_utf8_lossy(&fs::read(path).expect("reads")).into_owned();
    Some(match meta.permissions().mode() & 0o100 {
        0 => Thing::File(text),
        _ => Thing::Executable(text),
    })
}

/// Replaces a file's bytes, also those of a read-only one.
pub fn overwrite(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).expect("reads");
    change(&mut bytes);
    fs::remove_file(path).expect("removes");
    fs::write(path, bytes).expect("writes");
}

/// Copies a directory with all that is in it.
pub fn copy_dir(from: &Path, to: &Path) {
    // The directory itself stays: `rel` believes no other `.rel` than the one that it made.
    for entry in fs::read_dir(to).into_iter().flatten().flatten() {
        let _ = fs::remove_dir_all(entry.path()).or_else(|_| fs::remove_file(entry.path()));
    }
    for entry in walkdir::WalkDir::new(from).into_iter().flatten() {
        let path = to.join(entry.path().strip_prefix(from).expect("below"));
        match fs::read_link(entry.path()) {
            Ok(text) => std::os::unix::fs::symlink(text, path).expect("links"),
            Err(_) if entry.file_type().is_dir() => fs::create_dir_all(path).expect("creates"),
            Err(_) => drop(fs::copy(entry.path(), path).expect("copies")),
        }
    }
}

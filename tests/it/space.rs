//! A space to work in: a directory, an empty environment, and `rel` run in it.
//!
//! Nothing of the machine leaks in: home, cache and runtime directory are the space's own,
//! and no variable is passed on. What comes out is filtered, so that snapshots hold on any
//! machine: paths, times, process ids and keys are replaced by their names.

use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use regex::Regex;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// The program under test.
pub const REL: &str = env!("CARGO_BIN_EXE_rel");

/// Where commands are found; no directory of a person. PostgreSQL's own programs come first: what
/// Debian has in `/usr/bin` is a script that looks for them, which takes eight times as long.
pub static PATH: LazyLock<String> = LazyLock::new(|| {
    let usual = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin";
    match postgres_programs() {
        Some(dir) => format!("{}:{usual}", dir.display()),
        None => usual.to_owned(),
    }
});

/// Returns where the newest PostgreSQL has its programs.
pub fn postgres_programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
    let versions = versions.map(|entry| entry.expect("lists").path());
    Some(versions.max()?.join("bin"))
}

/// Limit on whatever a test waits for; reached only when the test fails.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A directory to work in, with a home, a cache and a checkout.
pub struct Space {
    dir: tempfile::TempDir,
    work: PathBuf,
}

impl Space {
    /// Returns a space whose checkout holds this Releasefile.
    pub fn new(releasefile: &str) -> Self {
        let space = Self::empty();
        space.write("Releasefile.kdl", releasefile);
        space
    }

    /// Returns a space whose environment `e` does the steps of a recipe `r` on a host `h` of this
    /// machine. They find the variable `v`, which is 1, as `{v}`.
    pub fn with_steps(steps: &str) -> Self {
        let space = Self::new(
            r#"
var "v" "1"
host "h" local=#true root="hosts/h"
environment "e" { use "r" on="h" v="{v}"; }
"#,
        );
        let text = format!("recipe \"r\" {{\n param \"v\"\n{steps}\n}}\n");
        space.write("recipes/r.kdl", text);
        fs::create_dir_all(space.path("hosts/h")).expect("creates");
        space
    }

    /// Returns a space with an empty checkout.
    pub fn empty() -> Self {
        Self::below(&std::env::temp_dir())
    }

    /// Returns a space with an empty checkout in memory, where the machine has such a place:
    /// for tests that write thousands of small files.
    pub fn in_memory() -> Self {
        let memory = Path::new("/dev/shm");
        match memory.is_dir() {
            true => Self::below(memory),
            false => Self::empty(),
        }
    }

    /// Returns a space with an empty checkout, below this directory.
    pub fn below(parent: &Path) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("rel-it-")
            .tempdir_in(parent)
            .expect("a directory");
        let work = dir.path().join("work");
        for name in ["work", "home", "run"] {
            fs::create_dir(dir.path().join(name)).expect("creates");
        }
        let private = fs::Permissions::from_mode(0o700);
        fs::set_permissions(dir.path().join("run"), private).expect("sets");
        Self { dir, work }
    }

    /// Returns the directory that holds the checkout, the home and the cache.
    pub fn base(&self) -> &Path {
        self.dir.path()
    }

    /// Returns a path in the checkout.
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        self.work.join(path)
    }

    /// Lets the checkout be another directory at the same place.
    pub fn work_in(&mut self, name: &str) {
        self.work = self.dir.path().join(name);
    }

    /// Returns the cache's directory.
    pub fn cache(&self) -> PathBuf {
        self.dir.path().join("cache")
    }

    /// Writes a file of the checkout, with the directories above it.
    pub fn write(&self, path: impl AsRef<Path>, text: impl AsRef<[u8]>) -> &Self {
        let path = self.path(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("creates");
        fs::write(path, text).expect("writes");
        self
    }

    /// Reads a file of the checkout.
    #[track_caller]
    pub fn read(&self, path: impl AsRef<Path>) -> String {
        let path = self.path(path);
        match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) => panic!("{}: {e}", path.display()),
        }
    }

    /// Returns whether something is at a path of the checkout.
    pub fn has(&self, path: impl AsRef<Path>) -> bool {
        fs::symlink_metadata(self.path(path)).is_ok()
    }

    /// Removes a file or a whole directory of the checkout.
    pub fn remove(&self, path: impl AsRef<Path>) -> &Self {
        let path = self.path(path);
        match fs::symlink_metadata(&path).expect("is there").is_dir() {
            true => fs::remove_dir_all(path).expect("removes"),
            false => fs::remove_file(path).expect("removes"),
        }
        self
    }

    /// Returns the lines of a file that commands append to; none when it is not there.
    pub fn lines(&self, path: impl AsRef<Path>) -> Vec<String> {
        let text = fs::read_to_string(self.path(path)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Returns a shell script that root runs in the checkout: whoever is not root is it in a user
    /// namespace, with other users at hand. `$REL` is the program; `$BASE`, `$WORK` and `$CACHE` are
    /// the space, its checkout and its cache.
    pub fn by_root(&self, script: &str) -> Command {
        self.by_root_in(&[], script)
    }

    /// Returns a shell script as [`by_root`](Self::by_root) does, whose mounts nobody else sees.
    pub fn with_mounts(&self, script: &str) -> Command {
        self.by_root_in(&["--mount"], script)
    }

    fn by_root_in(&self, namespaces: &[&str], script: &str) -> Command {
        let mut command = self.program("unshare");
        if !rustix::process::getuid().is_root() {
            command.args(["--map-root-user", "--map-auto"]);
        }
        command
            .args(namespaces)
            .args(["sh", "-euc", script])
            .env("REL", REL)
            .env("BASE", self.base())
            .env("WORK", &self.work)
            .env("CACHE", self.cache());
        command
    }

    /// Runs `rel build` where `setup` has been done to the mounts, for this command alone.
    pub fn build_with_mounts(&self, setup: &str) -> Output {
        let script = format!("{setup}\nexec \"$REL\" build");
        self.finish(&mut self.with_mounts(&script))
    }

    /// Runs `rel` in a directory as another user of this machine, of this number.
    pub fn run_by(&self, user: &str, dir: &Path, args: &[&str]) -> Output {
        let mut unshare = self.program("unshare");
        let numbers = [format!("--map-user={user}"), format!("--map-group={user}")];
        unshare.current_dir(dir).arg("--user").args(numbers);
        self.finish(unshare.arg(REL).args(args))
    }

    /// Runs `rel` and returns its greatest size in memory, or that of what it started, in KiB; at least
    /// that of the program that measures it, some mebibytes, which Linux counts in. Its
    /// standard output is thrown away, and its standard error unless that is wanted.
    pub fn peak(&self, args: &[&str], wants_errors: bool) -> (u64, Output) {
        const MEASURED: &str = r#"
import resource, subprocess, sys
null = subprocess.DEVNULL
errors = None if sys.argv[2] == "True" else null
code = subprocess.run(sys.argv[3:], stdout=null, stderr=errors).returncode
open(sys.argv[1], "w").write(str(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss))
sys.exit(code)
"#;
        let file = self.dir.path().join("peak");
        let mut python = self.program("python3");
        python.args(["-c", MEASURED]).arg(&file);
        python.arg(if wants_errors { "True" } else { "" });
        let output = self.finish(python.arg(REL).args(args));
        let text = fs::read_to_string(file).expect("reads");
        (text.parse().expect("a number"), output)
    }

    /// Returns a shell script that runs in a PID namespace of its own, as root. Numbers come round
    /// there at once: the function `come_round NUMBER` sets `daemon` to a process in a session of
    /// that number, whose leader has ended. `$REL` is the program.
    pub fn with_own_numbers(&self, script: &str) -> Command {
        const COME_ROUND: &str = r#"
mount -t proc proc /proc
come_round() {
    for i in $(seq 200); do
        echo $(($1 - 1)) > /proc/sys/kernel/ns_last_pid
        setsid sh -c 'sleep 1000 & echo $$ $! > daemon'
        read leader daemon < daemon
        test "$leader" != "$1" || return 0
        kill -9 $daemon
    done
    echo "the number did not come round"
    exit 2
}
"#;
        let mut command = self.program("unshare");
        if !rustix::process::getuid().is_root() {
            command.arg("-Ur");
        }
        command.args(["--pid", "--fork", "--kill-child", "--mount", "sh", "-uc"]);
        command.arg(format!("{COME_ROUND}{script}")).env("REL", REL);
        command
    }

    /// Returns any program, to be run in the checkout with the space's environment.
    pub fn program(&self, program: impl AsRef<OsStr>) -> Command {
        let base = self.dir.path();
        let mut command = Command::new(program);
        command
            .current_dir(&self.work)
            .env_clear()
            .env("PATH", &*PATH)
            .env("HOME", base.join("home"))
            .env("USER", "tester")
            .env("LC_ALL", "C.UTF-8")
            .env("REL_CACHE_DIR", base.join("cache"))
            .env("XDG_RUNTIME_DIR", base.join("run"))
            // git asks for a name when it commits.
            .env("GIT_CONFIG_COUNT", "3")
            .env("GIT_CONFIG_KEY_0", "user.name")
            .env("GIT_CONFIG_VALUE_0", "tester")
            .env("GIT_CONFIG_KEY_1", "user.email")
            .env("GIT_CONFIG_VALUE_1", "tester@example.org")
            .env("GIT_CONFIG_KEY_2", "init.defaultBranch")
            .env("GIT_CONFIG_VALUE_2", "main")
            .stdin(Stdio::null());
        command
    }

    /// Returns `rel`, to be run in the checkout.
    pub fn rel<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Command {
        let mut command = self.program(REL);
        command.args(args);
        command
    }

    /// Runs `rel` to its end.
    pub fn run<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Output {
        self.finish(&mut self.rel(args))
    }

    /// Runs a command to its end.
    #[track_caller]
    pub fn finish(&self, command: &mut Command) -> Output {
        self.start(command).finish()
    }

    /// Starts `rel` and does not wait for it.
    pub fn begin<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Job<'_> {
        self.start(&mut self.rel(args))
    }

    /// Starts a command and does not wait for it. It prints into files, so that a process
    /// that it leaves behind keeps no pipe open.
    pub fn start(&self, command: &mut Command) -> Job<'_> {
        let [stdout, stderr] = [(), ()].map(|()| tempfile::tempfile().expect("a file"));
        command.stdout(stdout.try_clone().expect("a handle"));
        command.stderr(stderr.try_clone().expect("a handle"));
        let child = command
            .spawn()
            .unwrap_or_else(|e| panic!("{command:?}: {e}: run tests/run"));
        Job {
            space: self,
            child,
            stdout,
            stderr,
        }
    }

    /// Runs a shell script in the checkout; it must succeed.
    #[track_caller]
    pub fn shell(&self, script: &str) -> String {
        let output = self.finish(self.program("sh").args(["-euc", script]));
        output.ok().stdout
    }

    /// Builds with `--json` and returns the answer, whatever the exit code.
    #[track_caller]
    pub fn build<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Told {
        let output = self.run(["--json", "build"].into_iter().chain(args));
        match serde_json::from_str(&output.stdout) {
            Ok(value) => Told(value),
            Err(e) => panic!("{e} in the answer:\n{output}"),
        }
    }

    /// Asks a question with `--json`; it must be answered.
    #[track_caller]
    pub fn ask<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Value {
        let output = self.run(["--json"].into_iter().chain(args)).ok();
        match serde_json::from_str(&output.stdout) {
            Ok(value) => value,
            Err(e) => panic!("{e} in the answer:\n{output}"),
        }
    }

    /// Replaces what differs from run to run.
    pub fn filtered(&self, text: &str) -> String {
        static FILTERS: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
            [
                (r"\b\d+ (min|h) \d+ (s|min)\b|\b\d+(\.\d+) s\b", "[TIME]"),
                (r"\.rel/backup/\w+", ".rel/backup/[BACKUP]"),
                (r"\(pid \d+\)", "(pid [PID])"),
                (r"\btried \d+ times?\b", "tried [TIMES]"),
                (r"(?m)^( +tried +)\d+ times?$", "$1[TIMES]"),
                (r"(?m)^( +key +)[0-9a-f]{16}$", "$1[KEY]"),
                (r"\bkey [0-9a-f]{16}\b", "key [KEY]"),
                (r"\brun [0-9a-f]{8}-[0-9a-f]{1,8}\b", "run [RUN]"),
                (r"\b(ac|cas)/[0-9a-f]{2}(/[0-9a-f]{64})?", "$1/[HEX]"),
                // Blanks at the end of a line do not survive editors.
                (r"(?m) +$", ""),
            ]
            .map(|(from, to)| (Regex::new(from).expect("a pattern"), to))
            .into()
        });
        let work = self.work.display().to_string();
        let base = self.dir.path().display().to_string();
        let text = text.replace(&work, "[work]").replace(&base, "[space]");
        FILTERS.iter().fold(text, |text, (from, to)| {
            from.replace_all(&text, *to).into_owned()
        })
    }

    /// Waits until a file of the checkout exists and ends with a line end.
    #[track_caller]
    pub fn wait_for(&self, path: &str) -> String {
        let path = self.path(path);
        wait_until(&format!("{}", path.display()), || {
            fs::read_to_string(&path)
                .ok()
                .filter(|text| text.ends_with('\n'))
        })
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        // Connections that `rel` keeps open for the next run end with the space.
        let sockets = fs::read_dir(self.dir.path().join("run/rel"));
        for socket in sockets.into_iter().flatten().flatten() {
            let _ = Command::new("ssh")
                .args(["-O", "exit", "-o"])
                .arg(format!("ControlPath={}", socket.path().display()))
                .arg("none")
                .stderr(Stdio::null())
                .status();
        }
    }
}

/// A command at work.
pub struct Job<'a> {
    space: &'a Space,
    child: Child,
    stdout: File,
    stderr: File,
}

impl Job<'_> {
    /// Returns the process id.
    pub fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(&self.child)
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        rustix::process::kill_process(self.pid(), signal).expect("is there");
    }

    /// Returns what was printed so far on standard output.
    pub fn stdout(&self) -> String {
        self.space.filtered(&text_of(&self.stdout))
    }

    /// Returns what was printed so far on standard error.
    pub fn stderr(&self) -> String {
        self.space.filtered(&text_of(&self.stderr))
    }

    /// Waits for the end.
    #[track_caller]
    pub fn finish(mut self) -> Output {
        use std::os::unix::process::ExitStatusExt;
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("asks") {
                break status;
            }
            if Instant::now() > deadline {
                let _ = self.child.kill();
                panic!("it does not end:\n{}", self.stderr());
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        let signal = status.signal().unwrap_or(0);
        Output {
            // A signal counts as a shell counts it.
            code: status.code().unwrap_or(128 + signal),
            stdout: self.space.filtered(&text_of(&self.stdout)),
            stderr: self.space.filtered(&text_of(&self.stderr)),
        }
    }
}

/// Returns all that is in a file, which others go on writing to.
fn text_of(file: &File) -> String {
    let mut bytes = vec![0; file.metadata().expect("asks").len() as usize];
    file.read_exact_at(&mut bytes, 0).expect("reads");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Asks again and again until there is an answer.
#[track_caller]
pub fn wait_until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Returns whether a process is there and not only waiting to be reaped.
pub fn is_alive(pid: &str) -> bool {
    fs::read_to_string(format!("/proc/{}/status", pid.trim()))
        .is_ok_and(|status| !status.contains("\nState:\tZ"))
}

/// How a command ended and what it printed, filtered.
#[must_use = "snapshot what it printed, or assert how it ended"]
#[derive(Debug)]
pub struct Output {
    /// Exit code.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Output {
    /// Asserts that it succeeded.
    #[track_caller]
    pub fn ok(self) -> Self {
        self.fails(0)
    }

    /// Asserts that it ended with this code.
    #[track_caller]
    pub fn fails(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self}");
        self
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.stdout)?;
        if !self.stderr.is_empty() {
            write!(f, "--- stderr\n{}", self.stderr)?;
        }
        match self.code {
            0 => Ok(()),
            code => write!(f, "--- exit code {code}"),
        }
    }
}

/// What a build tells machines.
#[derive(Debug)]
pub struct Told(pub Value);

impl Told {
    /// Asserts that all is well.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.0["ok"], true, "{:#}", self.0);
        self
    }

    /// Returns how many commands and questions were started.
    #[track_caller]
    pub fn processes(&self) -> u64 {
        self.counter("processes")
    }

    /// Returns a counter.
    #[track_caller]
    pub fn counter(&self, name: &str) -> u64 {
        let counter = self.0["counters"][name].as_u64();
        counter.unwrap_or_else(|| panic!("no counter `{name}` in {:#}", self.0))
    }

    /// Returns how a target was settled.
    #[track_caller]
    pub fn how(&self, target: &str) -> &str {
        self.0["targets"][target].as_str().unwrap_or("not wanted")
    }

    /// Asserts how each target was settled: `a ran, b fresh`.
    #[track_caller]
    pub fn is(self, expected: &str) -> Self {
        let targets = self.0["targets"].as_object().expect("targets");
        let mut found: Vec<String> = targets
            .iter()
            .map(|(name, how)| format!("{name} {}", how.as_str().unwrap_or("?")))
            .collect();
        found.sort();
        assert_eq!(found.join(", "), expected, "{:#}", self.0);
        self
    }
}

/// Ends what runs out of a space when a test ends: rel leaves services running.
pub struct Ends<'a>(pub &'a Space);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        end_all_below(self.0.base());
    }
}

/// Ends every process that works below a directory or names it.
pub fn end_all_below(dir: &Path) {
    let name = dir.display().to_string();
    let is_of_it = |process: &Path| {
        fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd.starts_with(dir))
            || fs::read(process.join("cmdline"))
                .is_ok_and(|words| String::from_utf8_lossy(&words).contains(&name))
    };
    wait_until("the end of all services", || {
        let mut is_quiet = true;
        for entry in fs::read_dir("/proc").ok()?.flatten() {
            let pid = entry.file_name().to_string_lossy().into_owned();
            let Some(pid) = pid.parse().ok().and_then(Pid::from_raw) else {
                continue;
            };
            if is_alive(&pid.as_raw_nonzero().to_string()) && is_of_it(&entry.path()) {
                is_quiet = false;
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        is_quiet.then_some(())
    });
}

//! End to end on local hosts: real shells, real files, temporary directories.

mod docs;
mod names;
mod table;
mod windows;
mod wraps;

/// They need busybox, or take longer: `tests/run fast` leaves them out.
#[path = ""]
mod host_tests {
    mod guard;
    mod release;
    mod shell;
    mod shipped;
    mod text;
}

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::*;
use crate::build::model::{Arg, Axis, Host, Param, Reach, Use};
use crate::core::cancel::Cancel;
use crate::core::diagnostics::Span;
use crate::core::progress::{Event, StepStatus};
use crate::core::template::{Mode, Template};
use crate::deploy::protocol::words::hex;

/// A project with local hosts, put together by hand.
pub struct Space {
    pub dir: tempfile::TempDir,
    pub project: Project,
    pub environment: Environment,
    pub params: BTreeMap<String, String>,
    pub artifacts: BTreeMap<String, Artifact>,
    pub cancel: Cancel,
    pub is_forced: bool,
    pub log: Arc<Log>,
    pub clock: Box<dyn Fn() -> u64 + Send + Sync>,
    runs: AtomicU64,
}

/// Returns options that know no machine.
pub fn connection_options(control_dir: PathBuf) -> ConnectionOptions<'static> {
    ConnectionOptions {
        control_dir,
        ssh: "ssh".into(),
        secret_vars: Vec::new(),
        variable: &|_| None,
        machines: Arc::default(),
    }
}

/// Writes down what was reported.
#[derive(Default)]
pub struct Log(pub Mutex<Vec<String>>);

impl Progress for Log {
    fn event(&self, event: &Event<'_>) {
        let line = match event {
            Event::StepFinished { step, how, .. } => match how {
                StepStatus::Fresh => return,
                how => format!("{step} {how:?}"),
            },
            Event::StepOutput { line, .. } => format!("| {}", String::from_utf8_lossy(line)),
            _ => return,
        };
        self.0.lock().expect("no panic").push(line);
    }
}

impl Space {
    pub fn new(hosts: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let hosts = hosts.iter().map(|name| {
            let host = Host {
                name: (*name).to_owned(),
                reach: Reach::Local,
                root: format!("hosts/{name}"),
                into_foreign: false,
                vars: BTreeMap::from([("port".into(), "8080".into())]),
                place: Span::default(),
            };
            ((*name).to_owned(), host)
        });
        let project = Project {
            name: "karl".into(),
            hosts: hosts.collect(),
            ..Project::default()
        };
        let environment = Environment {
            name: "staging".into(),
            ..Environment::default()
        };
        Self {
            dir,
            project,
            environment,
            params: BTreeMap::new(),
            artifacts: BTreeMap::new(),
            cancel: Cancel::default(),
            log: Arc::default(),
            clock: Box::new(|| 0),
            is_forced: false,
            runs: AtomicU64::new(0),
        }
    }

    pub fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    /// Writes a recipe of the project; `text` is what stands between its braces.
    pub fn recipe(&self, name: &str, text: &str) {
        let path = self.path(&format!("recipes/{name}.kdl"));
        std::fs::create_dir_all(path.parent().expect("one")).expect("makes");
        std::fs::write(path, format!("recipe \"{name}\" {{\n{text}\n}}\n")).expect("writes");
    }

    pub fn param(&mut self, name: &str, value: &str) {
        self.environment.params.push(Param {
            name: name.into(),
            one_of: Vec::new(),
            default: None,
            desc: None,
            place: Span::default(),
        });
        self.params.insert(name.into(), value.into());
    }

    pub fn axis(&mut self, name: &str, values: &[&str]) {
        self.environment.axes.push(Axis {
            name: name.into(),
            values: values.iter().map(|v| (*v).to_owned()).collect(),
        });
    }

    /// `recipe as label on host from host after x`, and arguments.
    pub fn uses(&mut self, text: &str, args: &[(&str, &str)]) {
        let words: Vec<&str> = text.split(' ').collect();
        let get = |name: &str| {
            let at = words.iter().position(|w| *w == name)?;
            words.get(at + 1).copied()
        };
        let template = |text: &str| Template::parse(text, Mode::Plain).expect("parses");
        self.environment.uses.push(Use {
            rollout: None,
            is_gate: false,
            recipe: words[0].into(),
            label: get("as").unwrap_or(words[0]).into(),
            on: get("on")
                .map(|on| on.split(',').map(template).collect())
                .unwrap_or_default(),
            from: get("from").map(template),
            wraps: get("wraps").map(|a| vec![a.to_owned()]).unwrap_or_default(),
            after: get("after").map(|a| vec![a.to_owned()]).unwrap_or_default(),
            max_age: get("max-age").map(|a| crate::core::deploy_window::duration(a).expect("one")),
            into_foreign: get("into-foreign").is_some(),
            args: args
                .iter()
                .map(|(name, text)| {
                    let arg = Arg {
                        text: (*text).to_owned(),
                        place: Span::default(),
                    };
                    ((*name).to_owned(), arg)
                })
                .collect(),
            place: Span::default(),
        });
    }

    /// Replaces an argument of the first use.
    pub fn arg(&mut self, name: &str, text: &str) {
        let arg = Arg {
            text: text.into(),
            place: Span::default(),
        };
        self.environment.uses[0].args.insert(name.into(), arg);
    }

    /// Makes the file of the target `name`.
    pub fn artifact(&mut self, name: &str, file: &str, content: &str) {
        let path = self.path("build").join(file);
        std::fs::create_dir_all(path.parent().expect("one")).expect("makes");
        std::fs::write(&path, content).expect("writes");
        let artifact = Artifact {
            contents: BTreeMap::from([(
                path.clone(),
                *blake3::hash(content.as_bytes()).as_bytes(),
            )]),
            paths: vec![path],
            sha256: hex(content.as_bytes()),
            is_one_file: true,
        };
        self.makes(name, artifact);
    }

    /// Enters what the needed target `name` made.
    pub fn makes(&mut self, name: &str, artifact: Artifact) {
        self.artifacts.insert(name.into(), artifact);
        self.needs(name);
    }

    /// Lets the environment need a target, made or not.
    pub fn needs(&mut self, name: &str) {
        let need = Template::parse(name, Mode::Plain).expect("parses");
        let needs = &mut self.environment.needs;
        if !needs.iter().any(|(n, _)| *n == need) {
            needs.push((need, Span::default()));
        }
    }

    /// Returns what a run may do: all that it does by itself, and nothing that must be asked for.
    fn policy(&self) -> DeployPolicy<'_> {
        DeployPolicy {
            is_question: false,
            is_forced: self.is_forced,
            overrides: Default::default(),
            confirm: &|_| Ok(()),
            except: Vec::new(),
            promoted: crate::deploy::Promoted::None,
            saved: None,
        }
    }

    pub fn with<T>(&self, act: impl FnOnce(&DeployRequest<'_>) -> T) -> T {
        let (recipes, sources) =
            Recipes::load(Some(&self.path("recipes"))).expect("recipes are read");
        let mistakes: Vec<String> = recipes
            .mistakes
            .iter()
            .map(|m| format!("{}: {} ({:?})", sources.locate(m.place), m.message, m.help))
            .collect();
        assert_eq!(mistakes, Vec::<String>::new());
        let run = self.runs.fetch_add(1, Ordering::SeqCst) + 1;
        act(&DeployRequest {
            project: &self.project,
            environment: &self.environment,
            params: self.params.clone(),
            artifacts: &|names| {
                let base = names.first()?.split('[').next()?;
                self.artifacts.get(base).cloned()
            },
            version: Some("1.0".into()),
            root: self.dir.path(),
            recipes: &recipes,
            purpose: "staging".into(),
            secrets: &BTreeMap::new(),
            run_id: format!("run{run}"),
            operator: Operator {
                who: "ann@here".into(),
                clock: ZoneClock {
                    now: &*self.clock,
                    tz: None,
                },
                program: PathBuf::new(),
                connection: connection_options(self.path("control")),
            },
            policy: self.policy(),
        })
    }

    pub fn plan(&self) -> Plan {
        self.with(|r| plan(r, &*self.log, &self.cancel))
            .unwrap_or_else(|e| panic!("{e}"))
    }

    pub fn try_apply(&self) -> Result<DeployOutcome> {
        self.with(|r| apply(r, &*self.log, &self.cancel))
    }

    pub fn apply(&self) -> DeployOutcome {
        self.try_apply().unwrap_or_else(|e| panic!("{e}"))
    }

    pub fn fails(&self) -> Box<Error> {
        match self.try_apply() {
            Ok(outcome) => panic!("it did not fail: {outcome:?}"),
            Err(error) => error,
        }
    }

    pub fn rollback(&self) -> DeployOutcome {
        self.with(|r| rollback(r, &*self.log, &self.cancel))
            .unwrap_or_else(|e| panic!("{e}"))
    }

    /// Takes what was reported since the last time.
    pub fn told(&self) -> Vec<String> {
        std::mem::take(&mut *self.log.0.lock().expect("no panic"))
    }

    pub fn read(&self, path: &str) -> String {
        let path = self.path(path);
        std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }

    pub fn link(&self, path: &str) -> String {
        let path = self.path(path);
        std::fs::read_link(&path)
            .unwrap_or_else(|e| panic!("{}: {e}", path.display()))
            .to_string_lossy()
            .into_owned()
    }

    /// Events of a journal: `event step`.
    pub fn journal(&self, host: &str) -> Vec<String> {
        let text = self.read(&format!("hosts/{host}/.rel/staging/journal"));
        text.lines()
            .map(|l| {
                let c: Vec<&str> = l.split('\t').collect();
                format!("{} {}", c[1], c[5])
            })
            .collect()
    }
}

/// Waits until something is there; a test that waits in vain must end.
pub fn wait_for(path: &Path) {
    for _ in 0..2000 {
        if exists(path) {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    panic!("{} never came", path.display());
}

pub fn exists(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok()
}

//! Changes to the world and to what `rel` keeps: done on the disk and in the model alike.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::ground::{Writing, copy_dir, overwrite, set_executable};
use super::history::{Kind, Op, file_paths, other_text};
use super::oracle::{Expected, Fate, Thing, expect};
use super::walk::{Outcome, Walk, settle};
use super::world::{FILES, LINK_TEXTS, LINKS, Node, Out};

impl Walk {
    /// Returns one of the files that are there.
    fn a_file(&self, n: usize) -> Option<String> {
        let is_file = |node: &Node| matches!(node, Node::File { .. });
        let files = self.world.tree.sources.iter().filter(|(_, n)| is_file(n));
        let files: Vec<&String> = files.map(|(path, _)| path).collect();
        (!files.is_empty()).then(|| files[n % files.len()].clone())
    }

    pub fn change_source(&mut self, op: Op) {
        let places = file_paths();
        let place = places[op.b % places.len()];
        let present = self.a_file(op.a);
        let path = present.clone().unwrap_or_else(|| place.to_owned());
        let now = self.world.tree.sources.get(&path).cloned();
        let Some(Node::File {
            text,
            is_executable,
        }) = now
        else {
            let node = Node::File {
                text: 0,
                is_executable: false,
            };
            return self.put(&path, node);
        };
        let file = |text, is_executable| Node::File {
            text,
            is_executable,
        };
        let hour = Duration::from_secs(3600);
        match op.kind {
            Kind::Edit if op.b.is_multiple_of(3) => {
                let text = other_text(0, op.a, false);
                self.put(place, file(text, op.a.is_multiple_of(7)));
            }
            Kind::Edit => self.put(&path, file(other_text(text, op.b, false), is_executable)),
            Kind::Sneak => {
                let time = self.ground.time_of(&path);
                self.put(&path, file(other_text(text, op.b, true), is_executable));
                time.into_iter()
                    .for_each(|t| self.ground.set_time(&path, t));
            }
            Kind::Touch => self.ground.set_time(&path, SystemTime::now()),
            Kind::TouchOld => self.ground.set_time(&path, SystemTime::now() - hour),
            Kind::TouchFuture => self.ground.set_time(&path, SystemTime::now() + hour),
            Kind::Delete => {
                self.world.tree.sources.remove(&path);
                self.ground.delete(&path);
            }
            Kind::Rename if place != path => {
                self.world.tree.sources.remove(&path);
                self.world.tree.put(place, file(text, is_executable));
                let aside = self.ground.space.base().join("renamed");
                fs::rename(self.ground.space.path(&path), &aside).expect("renames");
                self.ground.prune_above(&path);
                self.ground.make_way(place);
                fs::rename(aside, self.ground.space.path(place)).expect("renames");
            }
            Kind::ToDir => {
                let path = FILES[op.b % FILES.len()];
                let inner = format!("{path}/a.txt");
                match self.world.tree.sources.contains_key(path) {
                    true => self.put(&inner, file(text, false)),
                    false => self.put(path, file(text, false)),
                }
            }
            Kind::Chmod => self.put(&path, file(text, !is_executable)),
            Kind::Replace => self.replace(
                &path,
                other_text(text, op.b, op.a.is_multiple_of(2)),
                is_executable,
            ),
            Kind::Relink => {
                let link = LINKS[op.a % LINKS.len()];
                let text = LINK_TEXTS[op.b % LINK_TEXTS.len()];
                self.put(link, Node::Link(text));
            }
            _ => {}
        }
    }

    fn put(&mut self, path: &str, node: Node) {
        self.ground.put(path, &node);
        self.world.tree.put(path, node);
    }

    /// Renames another file with an older time over a path.
    fn replace(&mut self, path: &str, text: usize, is_executable: bool) {
        let node = Node::File {
            text,
            is_executable,
        };
        let aside = self.ground.space.base().join("renamed");
        fs::write(&aside, super::world::TEXTS[text]).expect("writes");
        set_executable(&aside, is_executable);
        let time = self.ground.time_of(path).unwrap_or(SystemTime::UNIX_EPOCH);
        let file = fs::File::options().write(true).open(&aside);
        let older = time - Duration::from_secs(100);
        file.expect("opens").set_modified(older).expect("sets");
        fs::rename(aside, self.ground.space.path(path)).expect("renames");
        self.world.tree.put(path, node);
    }

    pub fn change_declared(&mut self, op: Op) {
        let count = self.world.tree.targets.len();
        let target = &mut self.world.tree.targets[op.a % count];
        match op.kind {
            Kind::Command => target.salt = (target.salt + 1) % 3,
            Kind::NameTarget => target.renamed = (target.renamed + 1) % 3,
            Kind::DropTarget => target.is_dropped = !target.is_dropped,
            Kind::Var => self.world.tree.vars[op.a % 2] = op.b % 3,
            Kind::Env => {
                let value = op.b % 4;
                self.world.env[op.a % 2] = (value > 0).then_some(value);
            }
            Kind::Tool => self.world.tools[op.a % 2] = op.b % 3,
            Kind::Probe => self.world.probes[op.a % 2] = Some(op.b % 3),
            Kind::NoProbe => self.world.probes[op.a % 2] = None,
            _ => {}
        }
        self.ground.write_outside(&self.world);
        self.ground
            .write_releasefiles(&self.world.tree, Writing::Different);
    }

    pub fn change_branch(&mut self, op: Op) {
        let slot = op.a % 2;
        let paths = self.world.tree.sources.keys();
        let times = paths.filter_map(|p| Some((p.clone(), self.ground.time_of(p)?)));
        let now = Some((self.world.tree.clone(), times.collect()));
        let former = std::mem::replace(&mut self.branches[slot], now);
        if let Some((tree, times)) = former.filter(|_| op.kind != Kind::Save) {
            let how = match op.kind {
                Kind::Switch => Writing::Different,
                Kind::SwitchRewritingAll => Writing::All,
                _ => Writing::KeepingTimes,
            };
            self.ground.switch(&self.world.tree, &tree, how, &times);
            self.world.tree = tree;
        }
    }

    pub fn change_output(&mut self, op: Op) {
        if op.kind == Kind::DeleteAllOutputs {
            self.past.standing.clear();
            let _ = fs::remove_dir_all(self.ground.space.path("out"));
            return;
        }
        let expected = expect(&self.world);
        let chosen: Vec<&Expected> = match op.kind {
            Kind::ChangeProduct => {
                let is_product = |e: &&Expected| matches!(e.fate, Fate::Product(_));
                expected.iter().filter(is_product).collect()
            }
            _ => {
                let has = |e: &&Expected| matches!(&e.fate, Fate::Made(o) if !o.is_empty());
                expected.iter().filter(has).collect()
            }
        };
        let Some(e) = chosen.get(op.a % chosen.len().max(1)) else {
            return;
        };
        let id = &e.instance.id;
        if let Fate::Product(_) = e.fate {
            let path = self.ground.space.base().join(format!("outside/engine{id}"));
            let _ = match op.b % 2 {
                0 => fs::write(path, "somebody's\n"),
                _ => fs::remove_file(path),
            };
            self.past.products.remove(id);
            return;
        }
        let Fate::Made(outputs) = &e.fate else { return };
        let out = self.world.tree.targets[e.instance.target].out;
        let path = outputs.keys().nth(op.b % outputs.len()).cloned();
        let path = path.unwrap_or_default();
        let absolute = self.ground.space.path(&path);
        let Ok(meta) = fs::symlink_metadata(&absolute) else {
            return;
        };
        // A glob names files: only a record tells that a directory stands where one was.
        let name = &e.instance.name;
        let is_known = self.past.recorded.contains_key(name) && !self.past.rotted.contains(name);
        match op.kind {
            Kind::DirOutput if out == Out::Glob && !is_known => return,
            Kind::DirOutput if out == Out::Glob => self.past.dirs.push(absolute.clone()),
            _ => {}
        }
        match op.kind {
            Kind::TouchOutput => return self.ground.set_time(&path, SystemTime::now()),
            Kind::ChmodOutput if meta.is_file() => {
                set_executable(&absolute, !matches!(outputs[&path], Thing::Executable(_)));
            }
            Kind::ExtraOutput => {
                let dir = self.world.tree.output(id, out);
                match out {
                    Out::Dir | Out::Glob => {
                        let _ = fs::write(self.ground.space.path(dir).join("extra.o"), "more\n");
                    }
                    _ => return,
                }
            }
            Kind::ChmodOutput => return,
            kind => {
                match meta.is_dir() {
                    true => fs::remove_dir_all(&absolute).expect("removes"),
                    false => fs::remove_file(&absolute).expect("removes"),
                }
                match kind {
                    Kind::EditOutput => fs::write(&absolute, "edited\n").expect("writes"),
                    Kind::LinkOutput => {
                        std::os::unix::fs::symlink("../src/0", &absolute).expect("links");
                    }
                    Kind::DirOutput => {
                        fs::create_dir(&absolute).expect("creates");
                        fs::write(absolute.join("mine"), "mine\n").expect("writes");
                    }
                    _ => {}
                }
            }
        }
        self.past.standing.remove(id);
    }

    /// Moves the checkout, or goes on in the other one.
    pub fn change_checkout(&mut self, op: Op) -> Outcome {
        if !self.past.late.is_empty() {
            // What a killed run left is ended by the next one in its checkout.
            self.check(2)?;
        }
        if op.kind == Kind::Move && op.b.is_multiple_of(2) {
            // What was looked at is trusted then, unless it counts where it is.
            settle();
            self.check(2)?;
        }
        let former = self.ground.space.path("");
        if op.kind == Kind::Move {
            self.ground.move_checkout(op.a);
            for dir in &mut self.past.dirs {
                let inside = dir.strip_prefix(&former).map(Path::to_owned);
                *dir = self.ground.space.path(inside.unwrap_or_default());
            }
        } else {
            let other = self.elsewhere.1.take();
            self.ground.go_elsewhere(other, &self.world.tree, op.a);
            self.elsewhere.1 = Some(former);
            self.past.swap(&mut self.elsewhere.0);
            self.turns += 1;
        }
        self.world.root = self.ground.root();
        Ok(())
    }

    pub fn harm_cache(&mut self, op: Op) {
        let part = match op.kind {
            Kind::DeleteResults | Kind::CutResults => "ac",
            _ => "cas",
        };
        let mut files = self.ground.cache_files(part);
        if op.kind == Kind::FlipBlobs {
            // Small ones are inside of results.
            files.extend(self.ground.cache_files("ac"));
        }
        let chosen = files.iter().skip(op.a % 3).step_by(1 + op.b % 4);
        self.past.cached.clear();
        match op.kind {
            Kind::FlipBlobs => {
                self.past.is_cache_lying = true;
                chosen.for_each(|file| {
                    overwrite(file, |bytes| bytes.iter_mut().for_each(|b| *b ^= 1));
                });
            }
            Kind::CutBlobs | Kind::CutResults => chosen.for_each(|file| {
                overwrite(file, |bytes| bytes.truncate(bytes.len() / 2));
            }),
            Kind::DeleteCache => drop(fs::remove_dir_all(self.ground.space.cache())),
            _ => chosen.for_each(|file| fs::remove_file(file).expect("removes")),
        }
    }

    pub fn harm_state(&mut self, op: Op) {
        let state = self.ground.space.path(".rel");
        // No state is believed in another checkout.
        let kept = format!("kept{}", self.turns % 2);
        let kept = self.ground.space.base().join(kept);
        for dir in self.past.dirs.drain(..).filter(|dir| dir.is_dir()) {
            fs::remove_dir_all(dir).expect("removes");
        }
        match op.kind {
            Kind::DeleteState => {
                self.past.recorded.clear();
                let _ = fs::remove_dir_all(state);
                return;
            }
            Kind::KeepState => return copy_dir(&state, &kept),
            Kind::RestoreState if kept.exists() => {
                self.past.recorded.clear();
                return copy_dir(&kept, &state);
            }
            Kind::RestoreState => return,
            _ => {}
        }
        let files = self.ground.state_files();
        let Some(file) = files.get(op.a % files.len().max(1)) else {
            return;
        };
        if file.ends_with("records.v1") {
            let names = self.past.recorded.drain().map(|(name, _)| name);
            self.past.rotted.extend(names);
        }
        let at = op.b;
        match op.kind {
            Kind::RestoreStateFile => {
                // An older one among newer ones, written in place.
                let older = kept.join(file.file_name().unwrap_or_default());
                if older.exists() {
                    fs::copy(older, file).expect("copies");
                }
            }
            Kind::DeleteStateFile => fs::remove_file(file).expect("removes"),
            Kind::CutStateFile => overwrite(file, |bytes| bytes.truncate(at % (bytes.len() + 1))),
            _ => overwrite(file, |bytes| {
                if !bytes.is_empty() {
                    let at = at % bytes.len();
                    bytes[at] ^= 0x20;
                }
            }),
        }
    }
}

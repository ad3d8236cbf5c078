//! Saved plans: `--plan-out`, `rel approve FILE`, `rel apply FILE`.
//!
//! What a plan holds and when it is refused is decided in `deploy`; here it is read
//! and written, and held against the files of this machine.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::built_artifacts::Artifacts;
use super::confirm::{Confirmations, ConsentArgs};
use super::environment_run::{EnvironmentRun, RunOptions, find_environment, params, to_json};
use super::process_env::system_user;
use super::workspace::Workspace;
use super::{query, secrets};
use crate::build::graph::{Target, TargetId};
use crate::build::key::TargetOutputs;
use crate::build::model::{Artifact, Project};
use crate::cli::ui;
use crate::cli::ui::approval_view::{ApprovalView, ArtifactCheck};
use crate::core::cancel::Cancel;
use crate::core::error::{EXIT_OK, Error, IoContext, Result, plural};
use crate::core::fs;
use crate::core::progress::NullProgress;
use crate::deploy::plan::expand_uses::PlanContext;
use crate::deploy::plan::guards::Overrides;
use crate::deploy::report::approval_check::{self, mismatch};
use crate::deploy::report::plan_changes;
use crate::deploy::report::plan_file::{PlanContents, PlanFile, is_allowed};
use crate::deploy::{self, DeployRequest, Plan, Promoted, StepVerdict};

#[derive(Debug, clap::Args)]
pub struct ApplyArgs {
    /// The saved plan
    #[arg(value_name = "FILE")]
    saved: PathBuf,
    /// Show the plan and whether it still holds, changing nothing
    #[arg(long)]
    plan: bool,
    #[command(flatten)]
    consent: ConsentArgs,
}

#[derive(Debug, clap::Args)]
pub struct ApproveArgs {
    /// The saved plan
    #[arg(value_name = "FILE")]
    saved: PathBuf,
    /// Why; kept in the plan and in the journals of its hosts
    #[arg(long, required_unless_present = "plan")]
    reason: Option<String>,
    /// Show what would be approved, changing nothing
    #[arg(long)]
    plan: bool,
    /// Approve without a question, and only the plan of this digest, as it was shown before
    #[arg(long, value_name = "HEX", conflicts_with = "plan")]
    digest: Option<String>,
}

/// So many digits of a digest name a plan in a sentence. They are no proof: the maker of plans can
/// make two that share them.
const DIGITS_SHOWN: usize = 12;

/// Runs `rel apply`.
pub fn apply(context: &mut Workspace, args: &ApplyArgs) -> Result<u8> {
    let saved = open(context, &args.saved)?;
    let root = context.root()?;
    let (context, project) = context.with_project()?;
    let job = job(context, project, &root, &saved)?;
    let mut consent = args.consent.of(job.environment)?;
    let name = &job.environment.name;
    if job.environment.approval.is_some() && !consent.overrides.guards.is_empty() {
        return Err(Error::usage(format!(
            "`{name}` takes overrides only from the plan that was approved"
        ))
        .help(format!(
            "save a plan that has them: `rel {name} ... --plan-out FILE --override GUARD --reason ...`"
        )));
    }
    let Overrides { guards, reason } = saved.body.overrides.clone();
    consent.overrides.guards.extend(guards);
    if consent.overrides.reason.is_empty() {
        consent.overrides.reason = reason;
    }
    job.apply_saved(&saved, args.plan, &consent)
}

/// Runs `rel approve`.
pub fn approve(context: &mut Workspace, args: &ApproveArgs) -> Result<u8> {
    let reason = args.reason.as_deref().unwrap_or_default().trim();
    if reason.is_empty() && !args.plan {
        return Err(Error::usage("an approval needs a reason")
            .help("--reason \"read on Tuesday with Ann\""));
    }
    let mut saved = open(context, &args.saved)?;
    is_wanted(&saved, args.digest.as_deref())?;
    let root = context.root()?;
    let (context, project) = context.with_project()?;
    let job = job(context, project, &root, &saved)?;
    let user = system_user();
    if !args.plan {
        // Printed before the rest is read.
        saved.may_approve(job.environment, &user)?;
    }
    let (plan, given) = job.computed(&saved)?;
    if !context.output.json {
        ui::print(&ui::approval_view::text(
            context.output.screen,
            &saved,
            &plan,
            &given,
        ));
    }
    let is_approved = !args.plan;
    if is_approved {
        if args.digest.is_none() && ui::is_person() && !context.output.json {
            ask(&saved)?;
        }
        // Another user may have approved it meanwhile; it is still what was shown.
        let shown = saved.digest.clone();
        saved = read(context, &args.saved)?;
        is_wanted(&saved, Some(&shown))?;
        saved.approve(job.environment, user.clone(), Workspace::now_s(), reason)?;
        let path = context.dir.join(&args.saved);
        fs::write_atomically(&path, saved.text()?.as_bytes())?;
    }
    if context.output.json {
        let user = is_approved.then_some(&user);
        ui::print_json(&serde_json::json!({
            "digest": saved.digest, "user": user, "given": given.inputs, "plan": to_json(&plan)?,
        }));
        return Ok(EXIT_OK);
    }
    if !context.output.screen.is_quiet {
        let digest = &saved.digest;
        match is_approved {
            true => ui::tell(format!(
                "`{user}` approved plan {}",
                &digest[..DIGITS_SHOWN]
            )),
            false => ui::tell(format!(
                "to approve it: `rel approve FILE --digest {digest} --reason ...`"
            )),
        }
    }
    Ok(EXIT_OK)
}

/// Checks that a plan has the digest that the user read.
fn is_wanted(saved: &PlanFile, digest: Option<&str>) -> Result<()> {
    match digest {
        Some(digest) if saved.digest.len() > digest.len() => Err(Error::usage(format!(
            "`{digest}` is too short for a digest: it takes all {} digits",
            saved.digest.len()
        ))
        .help("a short digest can match another plan")),
        Some(digest) if saved.digest != digest => {
            Err(Error::usage("this is not the plan that was shown")
                .note("shown", digest)
                .note("found", saved.digest.clone())
                .help("nothing was approved; read it again: `rel approve FILE --plan`"))
        }
        _ => Ok(()),
    }
}

/// Asks the person at the terminal, who has the plan before them.
fn ask(saved: &PlanFile) -> Result<()> {
    let digest = &saved.digest[..DIGITS_SHOWN];
    let question = format!("Approve plan {digest}? [y/N] ");
    // A signal ends the program: nothing has been written.
    match ui::ask(&ui::Text::from(question), &Cancel::default()) {
        Some(true) => Ok(()),
        _ => {
            Err(Error::usage(format!("plan {digest} was not approved")).help("nothing was changed"))
        }
    }
}

/// Reads a saved plan and takes over what it was made with.
fn open(context: &mut Workspace, file: &Path) -> Result<PlanFile> {
    let saved = read(context, file)?;
    context.use_plan_vars(&saved.body.vars, saved.body.hosts_file.as_deref())?;
    Ok(saved)
}

fn read(context: &Workspace, file: &Path) -> Result<PlanFile> {
    let path = context.dir.join(file);
    let text = fs::read_text(&path).context("read", &path)?;
    PlanFile::parse(&file.display().to_string(), &text)
}

/// Returns the call that a saved plan was made by, with the checkout that is here.
fn job<'a>(
    context: &'a Workspace,
    project: &'a Project,
    root: &'a Path,
    saved: &PlanFile,
) -> Result<EnvironmentRun<'a>> {
    let body = &saved.body;
    if body.project != project.name {
        return Err(mismatch(
            "project",
            format!("`{}` in the file, `{}` here", body.project, project.name),
        ));
    }
    let environment = find_environment(project, &body.environment)?;
    let given = environment.params.iter().map(|p| body.params.get(&p.name));
    let given: Option<Vec<String>> = given.map(Option::<&String>::cloned).collect();
    let params = match given {
        Some(values) => params(environment, &values)?,
        None => {
            return Err(mismatch(
                "params",
                "differ between the file and this checkout",
            ));
        }
    };
    if params != body.params {
        return Err(mismatch(
            "params",
            "differ between the file and this checkout",
        ));
    }
    Ok(EnvironmentRun {
        context,
        project,
        root,
        environment,
        params,
        promoted: body.promoted.clone(),
    })
}

impl EnvironmentRun<'_> {
    /// Saves a plan of which everything is known.
    pub(super) fn save(
        &self,
        out: &Path,
        roots: &[TargetId],
        is_open: bool,
        consent: &Confirmations,
        request: &DeployRequest<'_>,
        plan: Plan,
    ) -> Result<()> {
        let steps = plan.jobs.iter().flat_map(|j| &j.steps);
        let unknown = steps.filter(|s| s.verdict == StepVerdict::Unknown).count();
        if is_open || unknown > 0 {
            let names = roots
                .iter()
                .map(|id| self.project.graph.target(*id).name.as_str());
            let names: Vec<&str> = names.collect();
            let mut error =
                Error::usage("a plan can be saved once everything that it needs is built");
            if unknown > 0 {
                let steps = format!("{unknown} {}", plural(unknown, "step"));
                error = error.note("not known yet", steps);
            }
            return Err(error.help(format!("first: `rel build {}`", names.join(" "))));
        }
        let path = self.context.dir.join(out);
        if let Some(bytes) = fs::read_optional(&path)? {
            let text = String::from_utf8_lossy(&bytes);
            if !PlanFile::is_one(&text) {
                return Err(Error::usage(format!(
                    "`{}` exists and is not a saved plan",
                    out.display()
                ))
                .help("name another file, or remove it first"));
            }
        }
        let names = roots.iter().map(|id| &self.project.graph.target(*id).name);
        let sha256 = |name: &String| Some((request.artifacts)(std::slice::from_ref(name))?.sha256);
        let artifacts = names.filter_map(|n| Some((n.clone(), sha256(n)?)));
        let (vars, hosts_file) = self.context.cli_vars();
        let below = |f: &Path| f.strip_prefix(self.root).unwrap_or(f).display().to_string();
        let saved = PlanFile::new(PlanContents {
            project: self.project.name.clone(),
            environment: self.environment.name.clone(),
            params: self.params.clone(),
            vars: vars.clone(),
            hosts_file: hosts_file.map(below),
            promoted: request.policy.promoted.clone(),
            is_forced: request.policy.is_forced,
            is_confirmed: consent.is_confirmed,
            overrides: consent.overrides.clone(),
            version: request.version.clone(),
            made_by: system_user(),
            made_at: Workspace::now_s(),
            run_id: request.run_id.clone(),
            files: self.files()?,
            artifacts: artifacts.collect(),
            plan,
        })?;
        fs::write_atomically(&path, saved.text()?.as_bytes())?;
        if !self.context.output.screen.is_quiet {
            let (digest, out) = (&saved.digest[..12], out.display());
            ui::tell(format!("plan {digest} is saved in `{out}`"));
        }
        Ok(())
    }

    /// Returns a saved plan with the texts of this checkout, and what its maker chose.
    fn computed(&self, saved: &PlanFile) -> Result<(Plan, ApprovalView)> {
        let body = &saved.body;
        let files = self.files()?;
        if let Some(file) = plan_changes::other_field(&body.files, &files) {
            return Err(mismatch("file", format!("`{file}` differs here")));
        }
        let roots = self.needs()?;
        let artifacts = self.seen_artifacts(body, &roots)?;
        let (recipes, _) = self.context.load_recipes(self.root)?;
        let secrets = secrets::named(self.project, self.environment, &recipes)?;
        let mut all = Artifacts::default();
        for (target, _, artifact) in &artifacts {
            all.insert(target, Some(artifact.clone()));
        }
        let world = PlanContext {
            project: self.project,
            environment: self.environment,
            params: &self.params,
            version: body.version.as_deref(),
            artifacts: &|names| all.find(names),
            recipes: &recipes,
            secrets: &secrets,
            roots: &approval_check::roots(&self.project.hosts),
            promoted: &self.promoted,
            holders: Some(&body.plan.roles),
        };
        let plan = approval_check::computed(saved, &world)?;
        let artifacts = artifacts.into_iter().map(|(_, seen, _)| seen);
        let given = ApprovalView {
            purpose: self.purpose(),
            inputs: inputs(saved, self.root),
            artifacts: artifacts.collect(),
        };
        Ok((plan, given))
    }

    /// Returns the artifacts of a plan: what it says of them, and what is known of them here.
    fn seen_artifacts(
        &self,
        body: &PlanContents,
        roots: &[TargetId],
    ) -> Result<Vec<(&Target, ArtifactCheck, Artifact)>> {
        // One that cannot be read is one that is not made.
        let made = query::existing_outputs(self.context, self.project, self.root, roots)
            .unwrap_or_default();
        let here = self.artifacts(roots, &made).unwrap_or_default();
        let targets = roots.iter().map(|id| self.project.graph.target(*id));
        let targets: Vec<&Target> = targets.filter(|t| !t.outputs.is_empty()).collect();
        let names: BTreeSet<&String> = targets.iter().map(|t| &t.name).collect();
        if names != body.artifacts.keys().collect() {
            return Err(mismatch(
                "artifacts",
                "belong to other targets in the file than here",
            ));
        }
        let seen = targets.into_iter().filter_map(|target| {
            let sha256 = body.artifacts.get(&target.name)?.clone();
            let here = here.of(&target.name);
            let is_same = here.map(|artifact| artifact.sha256 == sha256);
            let artifact = here.filter(|_| is_same == Some(true)).cloned();
            let artifact = artifact.unwrap_or_else(|| Artifact {
                // Its name is not known either.
                paths: vec![PathBuf::from(format!("{{{}.name}}", target.name))],
                sha256: sha256.clone(),
                is_one_file: false,
                contents: BTreeMap::new(),
            });
            let seen = ArtifactCheck {
                target: target.name.clone(),
                sha256,
                is_same,
            };
            Some((target, seen, artifact))
        });
        Ok(seen.collect())
    }

    /// Returns the digests of the Releasefile, what it includes, and the recipes and drivers
    /// in use.
    fn files(&self) -> Result<BTreeMap<String, String>> {
        let (recipes, recipe_sources) = self.context.load_recipes(self.root)?;
        let uses = self.environment.uses.iter();
        let places = uses.flat_map(|one| recipes.places_of(one));
        let used = places.filter_map(|place| recipe_sources.get(place));
        let all = self.project.sources.files().iter().chain(used);
        Ok(all
            .map(|file| {
                let digest = deploy::protocol::words::hex(file.text.as_bytes());
                (file.path.display().to_string(), digest)
            })
            .collect())
    }

    /// Carries out a saved plan, building nothing; or only asks whether it holds.
    fn apply_saved(
        &self,
        saved: &PlanFile,
        is_question: bool,
        consent: &Confirmations,
    ) -> Result<u8> {
        if !is_question {
            is_allowed(self.environment, Some(saved))?;
        }
        let mut now = PlanContents {
            files: self.files()?,
            artifacts: saved.body.artifacts.clone(),
            ..PlanContents::default()
        };
        // The files first: what is needed is known only if they are the same.
        saved.check_inputs(&now)?;
        let roots = self.needs()?;
        let made: BTreeMap<TargetId, Arc<TargetOutputs>> =
            query::existing_outputs(self.context, self.project, self.root, &roots)?;
        now.artifacts = BTreeMap::new();
        let artifacts = self.artifacts(&roots, &made)?;
        for id in &roots {
            let name = &self.project.graph.target(*id).name;
            if let Some(artifact) = artifacts.of(name) {
                now.artifacts.insert(name.clone(), artifact.sha256.clone());
            }
        }
        saved.check_inputs(&now)?;
        let way = RunOptions {
            is_forced: saved.body.is_forced,
            is_logged: !is_question,
            consent: Some(consent),
            saved: Some(saved),
            ..RunOptions::default()
        };
        self.with_request(&roots, &made, way, |request, progress, cancel| {
            if is_question {
                let (plan, before) = deploy::check_saved(request, saved, &NullProgress, cancel)?;
                self.tell_held(saved, &plan, before);
                is_allowed(self.environment, Some(saved))?;
                return Ok(EXIT_OK);
            }
            let outcome = deploy::apply(request, progress, cancel)?;
            self.tell_outcome(&outcome);
            Ok(EXIT_OK)
        })
    }

    fn tell_held(&self, saved: &PlanFile, plan: &Plan, before: Option<(u64, String)>) {
        let name = &self.environment.name;
        if !self.context.output.json {
            ui::print(&ui::plan_view::plan_text(self.context.output.screen, plan));
        }
        if self.context.output.json {
            let json = serde_json::json!({
                "digest": saved.digest, "holds": before.is_none(), "applied_before": before,
            });
            ui::print_json(&json);
            return;
        }
        let text = match before {
            Some((_, who)) => format!("this plan was carried out already, by {who}"),
            None => String::from("this plan still holds"),
        };
        ui::tell(format!("{name}: {text}"));
    }
}

/// Returns what the maker of a plan chose, as names and values.
fn inputs(saved: &PlanFile, root: &Path) -> Vec<(String, String)> {
    let body = &saved.body;
    let mut inputs = Vec::new();
    let mut add = |name: &str, value: String| inputs.push((name.to_owned(), value));
    for (name, value) in &body.vars {
        add("var", format!("{name}={value}"));
    }
    if let Some(file) = &body.hosts_file {
        let is_ours = fs::RepoPath::new(file).is_inside() && root.join(file).is_file();
        let outside = if is_ours {
            ""
        } else {
            " (outside of this checkout)"
        };
        add("hosts", format!("{file}{outside}"));
    }
    if let Some(version) = &body.version {
        add("version", version.clone());
    }
    match &body.promoted {
        Promoted::None => {}
        Promoted::Hosts(hosts) => add("promoted", hosts.join(" ")),
        Promoted::All => add("promoted", String::from("all hosts that are held back")),
    }
    if body.is_forced {
        add("force", String::from("all steps run"));
    }
    if body.is_confirmed {
        add("confirm", String::from("data may be lost"));
    }
    let Overrides { guards, reason } = &body.overrides;
    if !guards.is_empty() {
        add("override", format!("{}: {reason}", guards.join(" ")));
    }
    for one in &saved.approvals {
        add("approved", format!("{}: {}", one.user, one.reason));
    }
    inputs
}

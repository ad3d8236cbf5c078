//! Saved plans: `--plan-out`, `rel approve FILE`, `rel apply FILE`.
//!
//! What a plan holds and when it is refused is the deploy room's matter; here it is read
//! and written, and held against the files of this machine.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::consent::{Consent, ConsentArgs};
use super::context::Context;
use super::deploy::{Job, Way, find_environment};
use super::query;
use crate::deploy::told::saved::{Body, SavedPlan};
use crate::deploy::{self, Plan, Promoted, Request, Verdict};
use crate::error::{EXIT_OK, Error, IoContext, Result, plural};
use crate::fs;
use crate::graph::TargetId;
use crate::key::Made;
use crate::progress::Silent;
use crate::ui;

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
    #[arg(long)]
    reason: String,
}

/// Runs `rel apply`.
pub fn apply(context: &mut Context, args: &ApplyArgs) -> Result<u8> {
    let saved = open(context, &args.saved)?;
    let root = context.root()?;
    let (context, project) = context.with_project()?;
    let job = Job {
        context,
        project,
        root: &root,
        environment: find_environment(project, &saved.body.environment)?,
        params: saved.body.params.clone(),
        promoted: Promoted::None,
    };
    let consent = args.consent.of(job.environment)?;
    job.apply_saved(&saved, args.plan, &consent)
}

/// Runs `rel approve`.
pub fn approve(context: &mut Context, args: &ApproveArgs) -> Result<u8> {
    if args.reason.trim().is_empty() {
        return Err(Error::usage("an approval needs a reason")
            .hinted("--reason \"read on Tuesday with Ann\""));
    }
    let mut saved = open(context, &args.saved)?;
    let (context, project) = context.with_project()?;
    let environment = find_environment(project, &saved.body.environment)?;
    let user = Context::user();
    saved.approve(
        environment,
        user.clone(),
        Context::now_s(),
        args.reason.trim(),
    )?;
    let path = context.dir.join(&args.saved);
    fs::write_atomically(&path, saved.text()?.as_bytes())?;
    if context.json {
        let digest = &saved.digest;
        ui::print(&format!(
            "{:#}\n",
            serde_json::json!({ "digest": digest, "user": user })
        ));
        return Ok(EXIT_OK);
    }
    ui::print(&ui::deploy::plan_text(context.screen, &saved.body.plan));
    if !context.screen.is_quiet {
        let digest = &saved.digest[..12];
        ui::eprint(&format!("rel: `{user}` approved plan {digest}\n"));
    }
    Ok(EXIT_OK)
}

/// Reads a saved plan and takes over what it was made with.
fn open(context: &mut Context, file: &Path) -> Result<SavedPlan> {
    let path = context.dir.join(file);
    let text = std::fs::read_to_string(&path).context("read", &path)?;
    let saved = SavedPlan::parse(&file.display().to_string(), &text)?;
    context.adopt(&saved.body.vars, saved.body.hosts_file.as_deref())?;
    Ok(saved)
}

impl Job<'_> {
    /// Saves a plan of which everything is known.
    pub(super) fn save(
        &self,
        out: &Path,
        roots: &[TargetId],
        is_open: bool,
        consent: &Consent,
        request: &Request<'_>,
        plan: Plan,
    ) -> Result<()> {
        let steps = plan.jobs.iter().flat_map(|j| &j.steps);
        let unknown = steps.filter(|s| s.verdict == Verdict::Unknown).count();
        if is_open || unknown > 0 {
            let names = roots
                .iter()
                .map(|id| self.project.graph.target(*id).name.as_str());
            let names: Vec<&str> = names.collect();
            let mut error = Error::usage("a plan is saved when all that it needs is made");
            if unknown > 0 {
                let steps = format!("{unknown} {}", plural(unknown, "step"));
                error = error.fact("not known yet", steps);
            }
            return Err(error.hinted(format!("first: `rel build {}`", names.join(" "))));
        }
        let path = self.context.dir.join(out);
        if let Some(bytes) = fs::read_optional(&path)? {
            let text = String::from_utf8_lossy(&bytes);
            if SavedPlan::parse("", &text).is_err() {
                return Err(Error::usage(format!(
                    "`{}` is there and is no saved plan",
                    out.display()
                ))
                .hinted("name another file, or remove it first"));
            }
        }
        let names = roots.iter().map(|id| &self.project.graph.target(*id).name);
        let artifacts = names.filter_map(|n| Some((n.clone(), (request.artifacts)(n)?.sha256)));
        let (vars, hosts_file) = self.context.given();
        let below = |f: &Path| f.strip_prefix(self.root).unwrap_or(f).display().to_string();
        let saved = SavedPlan::new(Body {
            project: self.project.name.clone(),
            environment: self.environment.name.clone(),
            params: self.params.clone(),
            vars: vars.clone(),
            hosts_file: hosts_file.map(below),
            is_forced: request.force,
            is_confirmed: consent.is_confirmed,
            version: request.version.clone(),
            made_by: Context::user(),
            made_at: Context::now_s(),
            run_id: request.run_id.clone(),
            files: self.files()?,
            artifacts: artifacts.collect(),
            plan,
        })?;
        fs::write_atomically(&path, saved.text()?.as_bytes())?;
        if !self.context.screen.is_quiet {
            let (digest, out) = (&saved.digest[..12], out.display());
            ui::eprint(&format!("rel: plan {digest} is saved in `{out}`\n"));
        }
        Ok(())
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
                let digest = deploy::wire::words::hex(file.text.as_bytes());
                (file.path.display().to_string(), digest)
            })
            .collect())
    }

    /// Carries out a saved plan, building nothing; or only asks whether it holds.
    fn apply_saved(&self, saved: &SavedPlan, is_question: bool, consent: &Consent) -> Result<u8> {
        if is_question && !self.context.json {
            ui::print(&ui::deploy::plan_text(
                self.context.screen,
                &saved.body.plan,
            ));
        }
        deploy::told::saved::is_allowed(self.environment, Some(saved))?;
        let mut now = Body {
            files: self.files()?,
            artifacts: saved.body.artifacts.clone(),
            ..Body::default()
        };
        // The files first: what is needed is known only if they are the same.
        saved.is_made_of(&now)?;
        let roots = self.needs()?;
        let made: BTreeMap<TargetId, Arc<Made>> = query::standing(self.project, self.root, &roots)?;
        now.artifacts = BTreeMap::new();
        let artifacts = self.artifacts(&roots, &made)?;
        for id in &roots {
            let name = &self.project.graph.target(*id).name;
            if let Some(artifact) = artifacts.get(name) {
                now.artifacts.insert(name.clone(), artifact.sha256.clone());
            }
        }
        saved.is_made_of(&now)?;
        let way = Way {
            is_forced: saved.body.is_forced,
            is_logged: !is_question,
            consent: Some(consent),
            saved: Some(saved),
            ..Way::default()
        };
        self.on_hosts(&roots, &made, way, |request, progress, interrupted| {
            if is_question {
                let before = deploy::check_saved(request, saved, &Silent, interrupted)?;
                self.tell_held(saved, before);
                return Ok(EXIT_OK);
            }
            let outcome = deploy::apply(request, progress, interrupted)?;
            self.tell_outcome(&outcome);
            Ok(EXIT_OK)
        })
    }

    fn tell_held(&self, saved: &SavedPlan, before: Option<(u64, String)>) {
        let name = &self.environment.name;
        if self.context.json {
            let json = serde_json::json!({
                "digest": saved.digest, "holds": before.is_none(), "applied_before": before,
            });
            ui::print(&format!("{json:#}\n"));
            return;
        }
        let text = match before {
            Some((_, who)) => format!("this plan was carried out already, by {who}"),
            None => String::from("this plan still holds"),
        };
        ui::eprint(&format!("rel: {name}: {text}\n"));
    }
}

//! A runbook as Markdown: what an operator reads, and pastes into a wiki.

use super::host_tables::shown_date;
use super::{Text, shown_time};
use crate::core::error::plural;
use crate::deploy::plan::job_place::RunsOn;
use crate::deploy::plan::step_effects::Reversibility;
use crate::deploy::protocol::words::age_of;
use crate::deploy::report::runbook::{ApprovalDoc, RoleDoc, RolloutDoc, Runbook, StepDoc, UseDoc};

/// Returns the whole page.
pub fn markdown(book: &Runbook) -> Text {
    let mut page = Page::default();
    page.head(book);
    page.before(book);
    page.procedure(book);
    page.after(book);
    page.0
}

/// The text so far.
#[derive(Default)]
struct Page(Text);

impl Page {
    fn line(&mut self, text: impl AsRef<str>) {
        self.0.line(text.as_ref());
    }

    /// A paragraph, or what stands apart like one.
    fn paragraph(&mut self, text: impl AsRef<str>) {
        self.line(text);
        self.line("");
    }

    fn head(&mut self, book: &Runbook) {
        let project = &book.project;
        self.paragraph(format!("# Runbook: {project}, {}", book.purpose));
        if let Some(desc) = &book.desc {
            self.paragraph(format!("{}.", desc.trim_end_matches('.')));
        }
        let version = book.version.as_ref();
        let version = version.map_or(String::new(), |v| format!(" at version {}", code(v)));
        self.paragraph(format!(
            "Written by `rel runbook {}`{version} from the Releasefile: change that, not this page.",
            book.purpose
        ));
        self.paragraph(match (&book.last, book.is_asked) {
            (Some(run), _) => format!(
                "The last run was on {} UTC by {}, took {} and changed {}. Times below are those that each step took when it ran last, on the slowest host.",
                shown_date(run.begun),
                run.who,
                took(run.last.saturating_sub(run.begun)),
                names(&run.hosts),
            ),
            (None, true) => String::from("No host has a record of a finished run."),
            (None, false) => String::from("No host was asked: former runs are unknown."),
        });
        for (host, why) in &book.down {
            self.paragraph(format!("{} did not answer: {why}", code(host)));
        }
    }

    fn before(&mut self, book: &Runbook) {
        self.paragraph("## Before");
        for (name, desc) in &book.needs {
            let desc = desc.as_ref();
            let desc = desc.map_or(String::new(), |d| format!(": {d}"));
            self.line(format!("- {} is built and up to date{desc}.", code(name)));
        }
        for (name, ssh) in &book.hosts {
            let how = ssh.as_deref();
            let how = how.map_or(String::from("it is this machine"), code);
            self.line(format!("- {} can be reached: {how}.", code(name)));
        }
        for (secret, uses) in &book.secrets {
            self.line(format!(
                "- The secret {} can be read, for {}.",
                code(secret),
                names(uses)
            ));
        }
        for part in &book.parts {
            for guard in &part.guards {
                self.line(format!(
                    "- The guard {} of {} lets it through on {}; `--override {guard} --reason \"…\"` overrides it.",
                    code(guard),
                    code(&part.label),
                    names(if part.hosts.is_empty() { &part.held } else { &part.hosts }),
                ));
            }
        }
        for role in &book.roles {
            self.role(role);
        }
        for window in &book.windows {
            self.line(format!(
                "- The time is within {window}; `--override window --reason \"…\"` allows another time."
            ));
        }
        if book
            .parts
            .iter()
            .flat_map(|p| &p.steps)
            .any(|s| s.destroys.is_some())
        {
            self.line("- Data that is destroyed (below) may be lost: confirm it when asked, or with `--confirm`.");
        }
        if let Some(approval) = &book.approval {
            self.line(approved(&book.purpose, approval));
        }
        self.line(format!(
            "- `rel {} --plan` shows what would run, and changes nothing.",
            book.purpose
        ));
        self.line("");
    }

    fn role(&mut self, role: &RoleDoc) {
        let hosts: Vec<String> = role.probes.iter().map(|(host, _)| host.clone()).collect();
        let many = match role.count {
            None => String::from("Any number of"),
            Some(1) => String::from("One of"),
            Some(count) => format!("At most {count} of"),
        };
        let by = role.probes.first().map_or("", |(_, command)| command);
        self.line(format!(
            "- {many} {} has the role {}: where {} succeeds.",
            names(&hosts),
            code(&role.name),
            code(by)
        ));
    }

    fn procedure(&mut self, book: &Runbook) {
        self.paragraph("## Procedure");
        self.paragraph(format!(
            "`rel {}` does all of this, and skips steps that are up to date.",
            book.purpose
        ));
        let mut number = 0;
        for together in book
            .parts
            .chunk_by(|a, b| a.rollout.is_some() && a.rollout == b.rollout)
        {
            let index = together.first().and_then(|part| part.rollout);
            let rollout = index.and_then(|index| book.rollouts.get(index));
            if let (Some(rollout), Some(first)) = (rollout, together.first()) {
                self.rollout(
                    &book.purpose,
                    rollout,
                    first,
                    together.iter().any(|p| p.is_gate),
                );
            }
            for part in together {
                number += 1;
                self.part(number, part);
            }
        }
    }

    fn rollout(&mut self, purpose: &str, rollout: &RolloutDoc, part: &UseDoc, is_gated: bool) {
        self.paragraph(format!("### Rollout `{}`", rollout.name));
        let until = match is_gated {
            true => "; the next one begins when the gates of the one before hold",
            false => "",
        };
        let of = part.waves.len();
        if of > 0 {
            self.paragraph(format!(
                "In {of} {}, one after the other{until}:",
                plural(of, "wave")
            ));
            for (number, hosts) in part.waves.iter().enumerate() {
                self.line(format!("{}. {}", number + 1, names(hosts)));
            }
            self.line("");
        }
        for window in &rollout.windows {
            self.paragraph(format!("A wave begins only within {window}."));
        }
        if let Some(soak) = rollout.soak {
            let soak = humantime::format_duration(soak);
            self.paragraph(format!(
                "A wave that changed runs for {soak} before its gates are asked."
            ));
        }
        if !part.held.is_empty() {
            self.paragraph(format!(
                "Held back: {}. `rel promote {}` lets them follow.",
                names(&part.held),
                purpose
            ));
        }
    }

    fn part(&mut self, number: usize, part: &UseDoc) {
        let kind = if part.is_gate { "Gate" } else { "Use" };
        let on = match (part.hosts.is_empty(), part.rollout) {
            (true, _) if !part.held.is_empty() => {
                format!(", on {}, held back", names(&part.held))
            }
            (true, _) => String::from(", from the machine of the operator"),
            (_, Some(_)) => String::from(", on the hosts of the wave"),
            _ => format!(", on {}", names(&part.hosts)),
        };
        self.paragraph(format!("### {number}. {kind} {}{on}", code(&part.label)));
        let desc = part.desc.as_deref().unwrap_or("");
        let mut said = vec![format!("Recipe {}", code(&part.recipe))];
        if !desc.is_empty() {
            said[0] = format!("{}: {desc}", said[0]);
        }
        if !part.from.is_empty() {
            said.push(format!("It takes from {}", names(&part.from)));
        }
        if !part.after.is_empty() {
            said.push(format!(
                "It is done again when {} changed something",
                names(&part.after)
            ));
        }
        if !part.wraps.is_empty() {
            said.push(format!(
                "It is done when {} will change something, and only then",
                names(&part.wraps)
            ));
        }
        if let Some(age) = part.max_age {
            said.push(format!("It is done again after {}", age_of(age)));
        }
        self.paragraph(said.join(". ") + ".");
        for (at, step) in part.steps.iter().enumerate() {
            self.line(format!("{}. {}", at + 1, sentence(step)));
        }
        self.line("");
    }

    fn after(&mut self, book: &Runbook) {
        let purpose = &book.purpose;
        let steps = || book.parts.iter().flat_map(|p| &p.steps);
        self.paragraph("## When something goes wrong");
        self.line("- If a step fails, all changes of the run are rolled back, in reverse order. The last line of the run reports whether everything was restored.");
        self.line(format!("- An interrupted run (Ctrl-C, a lost connection, a crash) rolls nothing back: `rel {purpose}` continues where it stopped, and repeats nothing."));
        if steps().any(|s| s.is_scope) {
            self.line("- Scopes that were entered are left, however the run ends; `--plan` shows a scope that could not be left as pending.");
        }
        if steps().any(|s| s.is_detached) {
            self.line(format!("- `rel attach {purpose}` follows detached steps, `rel attach {purpose} --stop` ends them."));
        }
        for rollout in &book.rollouts {
            if rollout.is_stopped {
                self.line(format!("- In the rollout {} only the wave that failed is rolled back; earlier waves stay.", code(&rollout.name)));
            }
        }
        self.line(format!("- `rel log {purpose}` shows the logs on all hosts, `rel status {purpose}` the live release, `rel history {purpose}` all runs and their users."));
        self.line("");
        self.paragraph("## Rollback");
        self.paragraph(format!(
            "`rel {purpose} --rollback` undoes the last release, by the journals of the hosts:"
        ));
        let mut none = Vec::new();
        for part in book.parts.iter().rev() {
            for step in part.steps.iter().rev() {
                let name = format!("{}/{}", part.label, step.name);
                if let Some(back) = &step.goes_back {
                    self.line(format!("- {}: {back}", code(&name)));
                } else if step.way_back == Reversibility::None {
                    none.push(name);
                }
            }
        }
        if !none.is_empty() {
            self.line(format!("- Not rolled back: {}.", names(&none)));
        }
    }
}

/// Who must have read a plan before it is carried out.
fn approved(purpose: &str, approval: &ApprovalDoc) -> String {
    let by = match (approval.by.is_empty(), approval.count) {
        (true, 1) => String::from("another user"),
        (true, count) => format!("{count} others"),
        (false, count) => format!("{count} of {}", names(&approval.by)),
    };
    format!(
        "- A saved plan (`rel {purpose} --plan-out FILE`) is approved by {by} (`rel approve FILE --reason \"…\"`), and carried out by `rel apply FILE`."
    )
}

/// A step in one sentence.
fn sentence(step: &StepDoc) -> String {
    let what = match step.is_in_words {
        true => step.what.clone(),
        false => code(&step.what),
    };
    let mut text = format!("**{}**: {what}", step.name);
    match (step.seat, &step.user) {
        (RunsOn::Operator, _) => text.push_str(", from here"),
        (RunsOn::From, _) => text.push_str(", on the host that it takes from"),
        (RunsOn::Host, Some(user)) => text.push_str(&format!(", as {}", code(user))),
        (RunsOn::Host, None) => {}
    }
    if let Some(lost) = &step.destroys {
        text.push_str(&format!(", **destroys** {lost}"));
    }
    if step.is_verified {
        text.push_str(", verified afterwards");
    }
    if step.is_detached {
        text.push_str(", continues when the connection ends");
    }
    if let Some(seconds) = step.took {
        text.push_str(&format!(" ({})", took(seconds)));
    }
    text
}

fn took(seconds: u64) -> String {
    match seconds {
        0 => String::from("less than a second"),
        seconds => shown_time(std::time::Duration::from_secs(seconds)),
    }
}

fn names(names: &[String]) -> String {
    let names: Vec<String> = names.iter().map(|n| code(n)).collect();
    names.join(", ")
}

/// Returns a text that Markdown shows as it is.
fn code(text: &str) -> String {
    match text.contains('`') {
        true => format!("`` {text} ``"),
        false => format!("`{text}`"),
    }
}

//! A step in the words of a program: calls of the functions of `lib/`. Pure.

use crate::deploy::plan::PlannedStep;
use crate::deploy::plan::other_detached::does;
use crate::deploy::plan::use_on_host::{ResolvedAction, ResolvedStep};
use crate::deploy::protocol::detached::dir_name;
use crate::deploy::protocol::journal::column;
use crate::deploy::protocol::program::{COMMON, SUPERVISOR, quote, seconds, strip_comments};
use crate::deploy::recipe::UndoWhen;

/// Returns the lines that carry a step out; `place_in_run` is where it stands in the run.
pub fn step(step: &PlannedStep, place_in_run: &str, root: &str) -> String {
    let mut text = open_step(step, place_in_run, root);
    let dir = quote(step.draft.dir.as_deref().unwrap_or(root));
    // Not indented: a value may have several lines.
    let cd = match step.draft.marks.into_foreign && step.draft.user.is_none() {
        // A link of another user leads root nowhere.
        true => "rel_cd",
        false => "cd --",
    };
    let place = format!("{cd} {dir}\n{}", exports(&step.draft));
    // At the root, because it may make the directory in which the action runs.
    let prepare = step
        .draft
        .prepare
        .as_ref()
        .map_or_else(String::new, |prepare| {
            let script = format!(
                "cd -- {}\n{}eval {}",
                quote(root),
                exports(&step.draft),
                quote(prepare.trim_end())
            );
            match &step.draft.user {
                Some(_) => as_user(&step.draft, &script) + "\n",
                None => format!("( {script} )\n"),
            }
        });
    let action = match (&step.draft.user, &step.draft.act) {
        _ if step.draft.is_detached => String::from(":"),
        (Some(_), ResolvedAction::Run(text)) => {
            as_user(&step.draft, &format!("{place}{}", text.trim_end()))
        }
        (Some(_), act) => wait_as(&step.draft, act, &place),
        (None, _) => format!("{place}{}", act(&step.draft, root)),
    };
    let foreign = match step.draft.marks.into_foreign {
        true => "rel_foreign_ok=1\n",
        false => "",
    };
    let kept = match step.draft.marks.needs_no_undo {
        true => "rel_keeps_nothing=1\n",
        false => "",
    };
    text.push_str(&format!(
        "rel_action() {{\n{foreign}{kept}{prepare}{action}\n}}\n"
    ));
    if !step.draft.verify.is_empty() {
        let is_other = step.draft.user.is_some();
        let first = if is_other { "" } else { &place };
        text.push_str(&format!("rel_verifies=1\nrel_verify() {{\n{first}"));
        for verify in step.draft.verify.iter().map(|v| v.trim_end()) {
            let line = match is_other {
                true => as_user(&step.draft, &format!("{place}{verify}")),
                false => format!("eval {}", quote(verify)),
            };
            text.push_str(&line);
            text.push('\n');
        }
        text.push_str("}\n");
    }
    match step.draft.is_detached {
        true => text.push_str(&detached(&step.draft, &place)),
        false => text.push_str("rel_do\n"),
    }
    text
}

/// Returns the lines that make a step the one at work and lay down its rollback.
///
/// `place` is where it stands in the run; `root` where commands run that do not say otherwise.
pub fn open_step(step: &PlannedStep, place: &str, root: &str) -> String {
    let mut text = format!(
        "\nrel_step {} {} {} {}\n",
        step.seq,
        quote(&step.id),
        quote(&step.key),
        quote(place)
    );
    if let Some((undo, when)) = &step.draft.undo {
        let word = match when {
            UndoWhen::InTurn => "rel_undo",
            UndoWhen::WithRestarts => "rel_undo_start",
            UndoWhen::Last => "rel_undo_last",
        };
        let undo = on_the_way_back(&step.draft, root, undo);
        text.push_str(&format!("{word} {}\n", quote(&undo)));
    }
    if matches!(step.draft.act, ResolvedAction::Await { .. }) {
        text.push_str("rel_only_asks\n");
    }
    if let Some(check) = &step.draft.marks.rollback_check {
        let check = on_the_way_back(&step.draft, root, check);
        text.push_str(&format!("rel_rollback_check {}\n", quote(&check)));
    }
    text
}

/// Returns a command of the rollback as it is kept on the host.
fn on_the_way_back(draft: &ResolvedStep, root: &str, command: &str) -> String {
    let dir = draft.dir.as_deref().unwrap_or(root);
    let script = format!(
        "cd -- {dir} 2>/dev/null || cd {root}\n{}eval {}",
        exports(draft),
        quote(command.trim_end()),
        dir = quote(dir),
        root = quote(root),
    );
    match &draft.user {
        Some(_) => as_user(draft, &script),
        None => format!("( {script} )"),
    }
}

/// Returns the lines that end a step which was carried out from here.
pub fn close_step(step: &PlannedStep, failed: Option<&str>) -> String {
    let (event, detail) = match failed {
        None => ("done", "-".to_owned()),
        Some(why) => ("failed", column(why)),
    };
    format!(
        "rm -f -- \"$rel_tmp/at\"\nrel_journal '{event}' {} {} {} {}\n",
        step.seq,
        quote(&step.id),
        quote(&step.key),
        quote(&detail)
    )
}

/// The call that does it.
fn act(draft: &ResolvedStep, root: &str) -> String {
    match &draft.act {
        ResolvedAction::Run(text) => format!("eval {}", quote(text.trim_end())),
        ResolvedAction::Put {
            sha256,
            to,
            base,
            is_shared,
        } => put(sha256, to, if *is_shared { base } else { "" }),
        ResolvedAction::Write { .. } => write(draft),
        ResolvedAction::Symlink { path, to } => {
            format!("rel_symlink {} {}", quote(path), quote(to))
        }
        ResolvedAction::Scope { name, enter, leave } => {
            let leave = format!("{}{}", place(draft, root), leave.trim_end());
            let enter = enter.trim_end();
            let again = format!("{}{enter}", place(draft, root));
            let [name, leave, again] = [name, &leave, &again].map(|text| quote(text));
            format!("rel_scope {name} {leave} {again}\neval {}", quote(enter))
        }
        ResolvedAction::Await {
            command,
            within,
            every,
        } => format!(
            "rel_wait {} {} {}",
            seconds(*within),
            every.as_secs_f64(),
            quote(command.trim_end())
        ),
        ResolvedAction::Managed {
            start,
            status,
            stop,
            within,
        } => {
            let at_place = |text: &str| match text.trim() {
                "" => String::new(),
                text => format!("( {}{text}\n)", place(draft, root)),
            };
            format!(
                "rel_managed {} {} {} {}",
                quote(&at_place(start)),
                quote(&at_place(status)),
                quote(&at_place(stop)),
                seconds(*within)
            )
        }
        ResolvedAction::Service(service) => {
            let place = place(draft, root);
            // Its standard output is the log already. The mark is for `rel_can_start`.
            let run = format!("{place}# run\n{}", service.run.trim_end());
            let with_place = |text: &str| match text.trim() {
                "" => String::new(),
                text => format!("{place}{text}"),
            };
            format!(
                "rel_service {} {} {} {} {} {}",
                quote(&service.name),
                quote(&service.log),
                quote(&run),
                quote(&with_place(&service.stop)),
                quote(&with_place(&service.ready)),
                seconds(service.within)
            )
        }
        // Carried out from here, between programs.
        ResolvedAction::Fetch { .. } | ResolvedAction::Ask(_) | ResolvedAction::Port(_) => {
            String::from(":")
        }
    }
}

fn place(draft: &ResolvedStep, root: &str) -> String {
    let dir = draft.dir.as_deref().unwrap_or(root);
    format!("cd -- {}\n{}", quote(dir), exports(draft))
}

fn exports(draft: &ResolvedStep) -> String {
    draft
        .env
        .iter()
        .map(|(name, value)| format!("{name}={}\nexport {name}\n", quote(value)))
        .collect()
}

/// Returns a script as it is run by the step's own user.
pub fn as_user(draft: &ResolvedStep, script: &str) -> String {
    match &draft.user {
        Some(user) => format!("rel_as {} {}", quote(user), quote(script)),
        None => script.to_owned(),
    }
}

/// The call that waits for a command of another user: the wait itself is ours.
fn wait_as(draft: &ResolvedStep, act: &ResolvedAction, place: &str) -> String {
    let ResolvedAction::Await {
        command,
        within,
        every,
    } = act
    else {
        return String::from(":");
    };
    let script = as_user(draft, &format!("{place}{}", command.trim_end()));
    let every = every.as_secs_f64();
    format!("rel_wait {} {every} {}", seconds(*within), quote(&script))
}

/// The call that writes a file. A secret is over there already, in no text of ours.
fn write(draft: &ResolvedStep) -> String {
    let ResolvedAction::Write {
        path,
        content,
        mode,
        owner,
    } = &draft.act
    else {
        return String::from(":");
    };
    let path = quote(path);
    let owned = owner.as_deref().map(quote);
    match (&draft.sealed, owned) {
        (Some(_), owned) => {
            let owner = owned.unwrap_or_else(|| "''".into());
            format!("rel_write_secret {path} {mode} {owner}")
        }
        (None, None) => format!("rel_write {path} {mode} {}", quote(content)),
        (None, Some(owner)) => format!("rel_write {path} {mode} {} {owner}", quote(content)),
    }
}

fn put(sha256: &str, to: &str, base: &str) -> String {
    let base = match base {
        "" => String::new(),
        base => format!(" {}", quote(base)),
    };
    format!("rel_put {} {}{base}", quote(sha256), quote(to))
}

/// The call that starts a step which continues without us, or joins it.
fn detached(draft: &ResolvedStep, place: &str) -> String {
    let ResolvedAction::Run(text) = &draft.act else {
        return String::from("rel_do\n");
    };
    let words = [
        dir_name(&draft.id),
        does(draft),
        draft.timeout.map_or(0, seconds).to_string(),
        draft.user.clone().unwrap_or_default(),
        format!("{}\n{}", strip_comments(COMMON), strip_comments(SUPERVISOR)),
        format!("{place}{}", text.trim_end()),
    ];
    let words = words.map(|word| quote(&word));
    format!("rel_do_detached {}\n", words.join(" "))
}

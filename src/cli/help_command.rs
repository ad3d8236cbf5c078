//! `rel help`: help for a command, and the reference entry of a node of the Releasefile.

use super::ui::{self, OutputOptions, Text};
use crate::core::diagnostics::suggest;
use crate::core::error::{EXIT_OK, Error, Result};

/// The page that describes each node under a heading with its name.
const REFERENCE: &str = include_str!("../../docs/reference/releasefile.md");

#[derive(Debug, clap::Args)]
pub struct HelpArgs {
    /// A command, or a node of the Releasefile
    #[arg(value_name = "NAME")]
    name: Option<String>,
}

/// An entry of the reference.
struct NodeEntry<'a> {
    /// Such as `needs (target)`: two parents may have children of one name.
    title: String,
    /// The name of the node.
    node: &'a str,
    /// Markdown, without links.
    text: String,
}

/// Runs `rel help`; `program` is the whole command line interface. Needs no Releasefile.
///
/// # Errors
/// Neither a command nor a node has the name.
pub fn help(output: OutputOptions, args: &HelpArgs, mut program: clap::Command) -> Result<u8> {
    program.build();
    let Some(name) = &args.name else {
        print_help(output, &mut program);
        return Ok(EXIT_OK);
    };
    let entries: Vec<NodeEntry<'_>> = entries().collect();
    let named: Vec<&NodeEntry<'_>> = entries.iter().filter(|e| e.node == name).collect();
    let command = program.find_subcommand_mut(name);
    if output.json {
        let nodes = named.iter().map(|entry| {
            serde_json::json!({ "node": entry.node, "title": entry.title, "text": entry.text })
        });
        let command = command.map(|command| command.render_long_help().to_string());
        let nodes: Vec<serde_json::Value> = nodes.collect();
        if command.is_some() || !nodes.is_empty() {
            ui::print_json(&serde_json::json!({ "command": command, "nodes": nodes }));
            return Ok(EXIT_OK);
        }
    } else if command.is_some() || !named.is_empty() {
        let is_command = command.is_some();
        if let Some(command) = command {
            print_help(output, command);
        }
        for (i, entry) in named.iter().enumerate() {
            if is_command || i > 0 {
                ui::print_line("");
            }
            ui::print_line(output.screen.paint(ui::NAME, &entry.title));
            ui::print(&Text::lines(&entry.text));
        }
        return Ok(EXIT_OK);
    }
    let error = Error::usage(format!("there is no command and no node `{name}`"));
    let commands = program.get_subcommands().map(clap::Command::get_name);
    let known = commands.chain(entries.iter().map(|entry| entry.node));
    Err(match suggest(name, known) {
        Some(near) => error.help(format!("did you mean `{near}`?")),
        None => error.help(
            "`rel help` lists the commands, `rel help target` and `rel help environment` the nodes",
        ),
    })
}

fn print_help(output: OutputOptions, command: &mut clap::Command) {
    let help = command.render_long_help();
    ui::print(&match output.screen.color && ui::is_terminal() {
        true => Text::printed(&help.ansi().to_string(), true),
        false => Text::lines(&help.to_string()),
    });
}

/// Returns the entries of all nodes, in the order of the page: each from its heading to the next.
fn entries() -> impl Iterator<Item = NodeEntry<'static>> {
    let page = REFERENCE.split("\n## ").flat_map(|s| s.split("\n### "));
    page.filter_map(|section| {
        let (heading, text) = section.split_once('\n')?;
        let node = heading.strip_prefix('`')?.split('`').next()?;
        let title = heading.replace('`', "");
        let text = without_links(text.trim()) + "\n";
        Some(NodeEntry { title, node, text })
    })
}

/// Returns Markdown with the text of each link in its place: a terminal follows none.
fn without_links(markdown: &str) -> String {
    let mut text = String::new();
    let mut rest = markdown;
    while let Some((before, after)) = rest.split_once("](") {
        let (Some(open), Some(close)) = (before.rfind('['), after.find(')')) else {
            text.push_str(before);
            text.push_str("](");
            rest = after;
            continue;
        };
        text.push_str(&before[..open]);
        text.push_str(&before[open + 1..]);
        rest = &after[close + 1..];
    }
    text + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_become_their_text() {
        let text = without_links("see [a `b`](x.md#y), [c](#c) and f(x)[1]");
        assert_eq!(text, "see a `b`, c and f(x)[1]");
    }

    #[test]
    fn every_node_has_an_entry_with_type_place_and_example() {
        let entries: Vec<NodeEntry<'_>> = entries().collect();
        for node in [
            "target",
            "inputs",
            "host",
            "environment",
            "use",
            "rollout",
            "gate",
        ] {
            assert!(entries.iter().any(|e| e.node == node), "{node}");
        }
        let needs = entries.iter().filter(|e| e.node == "needs");
        let titles: Vec<&str> = needs.map(|e| e.title.as_str()).collect();
        assert_eq!(titles, ["needs (target)", "needs (environment)"]);
        for entry in &entries {
            let has_example = ["```kdl", " example of"]
                .iter()
                .any(|e| entry.text.contains(e));
            assert!(has_example, "{}", entry.title);
            assert!(!entry.text.contains("]("), "{}", entry.text);
        }
    }
}

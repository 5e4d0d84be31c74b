//! `COVERAGE.md`: every operation with its parameters, every field of a create request and every flag of the docker
//! CLI, as the tables in this crate have them. Made of them by a test, which fails when the file says something else.
//! That the CLI sends what is said here is tried with the CLI itself (`tests/it`).

use crate::create::fields::{self, Rule};
use crate::parameters;
use crate::routes::{Endpoint, find};
use crate::unsupported::{Kind, refuse};
use crate::{containers, exec};
use http::Method;
use std::fmt::Write as _;
use std::path::Path;

const OPERATIONS: &str = include_str!("../tests/data/operations.txt");
const FIELDS: &str = include_str!("../tests/data/create-fields.txt");
const FLAGS: &str = include_str!("../tests/data/flags.txt");

const HEAD: &str = "# What of the Docker Engine API is there

Made from the tables of this crate by its tests (`BULKHEAD_WRITE=1 cargo test -p bulkhead-docker-api coverage` writes it
anew). What is not there is refused by name; nothing is silently accepted.

";

fn render() -> String {
    let mut text = HEAD.to_owned();
    operations(&mut text);
    query_parameters(&mut text);
    for (title, table) in [
        ("Config", ("ContainerConfig", fields::CONFIG)),
        ("HostConfig", ("HostConfig", fields::HOST_CONFIG)),
        ("NetworkingConfig.EndpointsConfig", ("EndpointSettings", fields::ENDPOINT)),
    ] {
        create_fields(&mut text, title, table.0, table.1);
    }
    flags(&mut text);
    text
}

/// As in the documents of the API: `{id}` and `{name}` stand for a name.
fn endpoint(method: &str, path: &str) -> Endpoint {
    let concrete = path.replace("{name:.*}", "x").replace("{id}", "x").replace("{name}", "x");
    find(&Method::from_bytes(method.as_bytes()).unwrap(), &concrete).unwrap().0
}

fn operations(text: &mut String) {
    let mut rows = String::new();
    let (mut there, mut all) = (0, 0);
    for line in OPERATIONS.lines() {
        let mut words = line.split(' ');
        let (method, path) = (words.next().unwrap(), words.next().unwrap());
        let answer = match endpoint(method, path) {
            Endpoint::Unsupported(operation) => {
                let error = refuse(operation, "x").unwrap_err();
                let kind = match operation.kind {
                    Kind::Later(_) => "not yet",
                    _ => "refused",
                };
                format!("{kind}: {} `{}`", error.status.as_u16(), error.message)
            }
            _ => {
                there += 1;
                "there".to_owned()
            }
        };
        all += 1;
        writeln!(rows, "| {method} | `{path}` | {answer} |").unwrap();
    }
    writeln!(text, "## Operations: {there} of {all}\n\n| | | |\n|---|---|---|\n{rows}").unwrap();
}

fn create_fields(text: &mut String, title: &str, object: &str, table: &[(&str, Rule)]) {
    let mut rows = String::new();
    for line in FIELDS.lines() {
        let (of, field) = line.split_once('.').unwrap();
        if of != object {
            continue;
        }
        let (_, rule) = table.iter().find(|(name, _)| *name == field).unwrap();
        writeln!(rows, "| `{field}` | {} |", of_field(rule)).unwrap();
    }
    writeln!(text, "## Fields of `POST /containers/create`: {title}\n\n| | |\n|---|---|\n{rows}").unwrap();
}

fn of_field(rule: &Rule) -> String {
    match rule {
        Rule::Mapped => "carried out".to_owned(),
        Rule::Kept => "shown again by inspect; says nothing about how the container runs".to_owned(),
        Rule::Discarded(why) => format!("shown again by inspect; a warning says: discarded, {why}"),
        Rule::Only(_, why) => format!("only what is so anyway, else refused: {why}"),
        Rule::Refused(why) => format!("refused: {why}"),
    }
}

fn of_parameter(rule: parameters::Rule) -> String {
    match rule {
        parameters::Rule::Taken => "taken".to_owned(),
        parameters::Rule::Idle(why) => format!("makes no difference: {why}"),
        parameters::Rule::Refused(why) => format!("refused: {why}"),
    }
}

fn query_parameters(text: &mut String) {
    let mut rows = String::new();
    let mut row = |call: String, table: &[(&str, parameters::Rule)]| {
        for (name, rule) in table {
            writeln!(rows, "| {call} | `{name}` | {} |", of_parameter(*rule)).unwrap();
        }
    };
    for line in OPERATIONS.lines() {
        let mut words = line.split(' ');
        let (method, path) = (words.next().unwrap(), words.next().unwrap());
        row(format!("{method} `{path}`"), parameters::of(endpoint(method, path)));
    }
    row("all".to_owned(), parameters::OF_CLIENTS);
    writeln!(
        text,
        "## Query parameters of what is there\n\nAny other parameter that says something is refused by name.\n\n\
         | | | |\n|---|---|---|\n{rows}"
    )
    .unwrap();
}

fn flags(text: &mut String) {
    let mut rows = String::new();
    for line in FLAGS.lines() {
        let [command, flag, _, target] = line.split('|').map(str::trim).collect::<Vec<_>>()[..] else {
            panic!("{line}")
        };
        // Of some fields only a part is refused, and behind the mark is why.
        let (target, refused) =
            target.split_once(" # ").map_or((target, None), |(target, why)| (target, Some(why)));
        let shown = if command == "create" { "create, run" } else { command };
        let mut answers: Vec<String> = Vec::new();
        let mut parts = Vec::new();
        if target == "client" {
            answers.push("acts in the client".to_owned());
        } else if let Some((operation, name)) = target.split_once(" ?") {
            let (method, path) = operation.split_once(' ').unwrap();
            parts.push(format!("{method} `{path}?{name}`"));
            answers.push(parameter_answer(endpoint(method, path), name));
        } else {
            for part in target.split(' ') {
                if part == "client" {
                    answers.push("newer clients do not send it".to_owned());
                    continue;
                }
                parts.push(format!("`{}`", part.trim_start_matches('.')));
                let answer = target_answer(command, part);
                if !answers.contains(&answer) {
                    answers.push(answer);
                }
            }
        }
        if let Some(why) = refused {
            answers = vec![format!("refused: {why}")];
        }
        writeln!(rows, "| {shown} | `{flag}` | {} | {} |", parts.join(", "), answers.join("; ")).unwrap();
    }
    writeln!(text, "## Flags of the docker CLI\n\n| | | sends | |\n|---|---|---|---|\n{rows}").unwrap();
}

fn parameter_answer(endpoint: Endpoint, name: &str) -> String {
    let (_, rule) = parameters::of(endpoint).iter().find(|(known, _)| *known == name).unwrap();
    of_parameter(*rule)
}

fn target_answer(command: &str, target: &str) -> String {
    if let Some(name) = target.strip_prefix('?') {
        return parameter_answer(Endpoint::ContainerCreate, name);
    }
    let (object, field) = target.split_once('.').unwrap();
    let table = match (object, command) {
        ("Config", _) => fields::CONFIG,
        ("HostConfig", _) => fields::HOST_CONFIG,
        ("EndpointsConfig", _) => fields::ENDPOINT,
        ("", "exec") => exec::create::FIELDS,
        ("", "update") => containers::update::FIELDS,
        _ => panic!("{command}: {target}"),
    };
    let (_, rule) = table.iter().find(|(known, _)| *known == field).unwrap();
    of_field(rule)
}

#[test]
fn the_file_says_what_the_tables_say() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("COVERAGE.md");
    let rendered = render().trim_end().to_owned() + "\n";
    if std::env::var_os("BULKHEAD_WRITE").is_some() {
        std::fs::write(&path, &rendered).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == rendered, "{} is out of date; see its head for how it is written", path.display());
}

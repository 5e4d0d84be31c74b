//! `COVERAGE.md`: every operation and every field of a create request, as the tables in this crate have them. Made of
//! them by a test, which fails when the file says something else.

use crate::create::fields::{self, Rule};
use crate::routes::{Endpoint, find};
use crate::unsupported::{Kind, refuse};
use http::Method;
use std::fmt::Write as _;
use std::path::Path;

const OPERATIONS: &str = include_str!("../tests/data/operations.txt");
const FIELDS: &str = include_str!("../tests/data/create-fields.txt");

const HEAD: &str = "# What of the Docker Engine API is there

Made from the tables of this crate by its tests (`BULKHEAD_WRITE=1 cargo test -p bulkhead-docker-api coverage` writes it
anew). What is not there is refused by name; nothing is silently accepted.

";

fn render() -> String {
    let mut text = HEAD.to_owned();
    operations(&mut text);
    for (title, table) in [
        ("Config", ("ContainerConfig", fields::CONFIG)),
        ("HostConfig", ("HostConfig", fields::HOST_CONFIG)),
        ("NetworkingConfig.EndpointsConfig", ("EndpointSettings", fields::ENDPOINT)),
    ] {
        create_fields(&mut text, title, table.0, table.1);
    }
    text
}

fn operations(text: &mut String) {
    let mut rows = String::new();
    let (mut there, mut all) = (0, 0);
    for line in OPERATIONS.lines() {
        let mut words = line.split(' ');
        let (method, path) = (words.next().unwrap(), words.next().unwrap());
        let concrete = path.replace("{name:.*}", "x").replace("{id}", "x").replace("{name}", "x");
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let answer = match find(&method, &concrete).unwrap().0 {
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
        let answer = match rule {
            Rule::Mapped => "carried out".to_owned(),
            Rule::Kept => "shown again by inspect; says nothing about how the container runs".to_owned(),
            Rule::Only(_, why) => format!("only what is so anyway, else refused: {why}"),
            Rule::Refused(why) => format!("refused: {why}"),
        };
        writeln!(rows, "| `{field}` | {answer} |").unwrap();
    }
    writeln!(text, "## Fields of `POST /containers/create`: {title}\n\n| | |\n|---|---|\n{rows}").unwrap();
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

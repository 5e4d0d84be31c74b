//! `--change`: Dockerfile instructions that set something in a config (docs.docker.com/reference/dockerfile).

use crate::error::ImageError;
use serde_json::{Map, Value, json};

/// Applies one instruction to the `config` part of an image's config.
pub(super) fn apply(config: &mut Map<String, Value>, line: &str) -> Result<(), ImageError> {
    let wrong = |why: &str| ImageError::invalid(format!("change `{line}`"), why);
    let (instruction, rest) = line.trim().split_once(char::is_whitespace).unwrap_or((line.trim(), ""));
    let rest = rest.trim();
    if rest.is_empty() {
        return Err(wrong("it has no argument"));
    }
    match instruction.to_ascii_uppercase().as_str() {
        "CMD" => set(config, "Cmd", json!(command(rest))),
        "ENTRYPOINT" => set(config, "Entrypoint", json!(command(rest))),
        "USER" => set(config, "User", json!(rest)),
        "WORKDIR" if !rest.starts_with('/') => return Err(wrong("the directory is not absolute")),
        "WORKDIR" => set(config, "WorkingDir", json!(rest)),
        "STOPSIGNAL" => set(config, "StopSignal", json!(rest)),
        "ENV" => {
            for (key, value) in pairs(rest).ok_or_else(|| wrong("it is not `key=value`"))? {
                let list = config.entry("Env").or_insert_with(|| json!([]));
                if let Value::Array(list) = list {
                    let prefix = format!("{key}=");
                    list.retain(|known| !known.as_str().is_some_and(|known| known.starts_with(&prefix)));
                    list.push(json!(format!("{key}={value}")));
                }
            }
        }
        "LABEL" => {
            for (key, value) in pairs(rest).ok_or_else(|| wrong("it is not `key=value`"))? {
                set_in(config, "Labels", &key, json!(value));
            }
        }
        "EXPOSE" => {
            for port in rest.split_whitespace() {
                let (number, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
                if number.parse::<u16>().is_err() || !matches!(protocol, "tcp" | "udp" | "sctp") {
                    return Err(wrong("it is not `port` or `port/protocol`"));
                }
                set_in(config, "ExposedPorts", &format!("{number}/{protocol}"), json!({}));
            }
        }
        "VOLUME" => {
            let paths = match serde_json::from_str::<Vec<String>>(rest) {
                Ok(list) => list,
                Err(_) => rest.split_whitespace().map(str::to_owned).collect(),
            };
            for path in paths {
                set_in(config, "Volumes", &path, json!({}));
            }
        }
        other => {
            let why =
                "only CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER, VOLUME and WORKDIR are".into();
            return Err(ImageError::Unsupported { what: format!("change `{other}`"), why });
        }
    }
    Ok(())
}

fn set(config: &mut Map<String, Value>, key: &str, value: Value) {
    config.insert(key.into(), value);
}

fn set_in(config: &mut Map<String, Value>, field: &str, key: &str, value: Value) {
    if let Value::Object(map) = config.entry(field).or_insert_with(|| json!({})) {
        map.insert(key.into(), value);
    }
}

/// A list as JSON, else a line for the shell.
fn command(text: &str) -> Vec<String> {
    serde_json::from_str(text).unwrap_or_else(|_| vec!["/bin/sh".into(), "-c".into(), text.into()])
}

/// `key=value key="with spaces"`, or `key value` to the end of the line.
fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    let first = text.split_whitespace().next()?;
    if !first.contains('=') {
        let (key, value) = text.split_once(char::is_whitespace)?;
        return Some(vec![(key.into(), value.trim().into())]);
    }
    let mut found = Vec::new();
    for word in words(text) {
        let (key, value) = word.split_once('=')?;
        if key.is_empty() {
            return None;
        }
        found.push((key.to_owned(), value.to_owned()));
    }
    Some(found)
}

/// Words between blanks; quotes keep blanks, a backslash keeps the next character.
fn words(text: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match (letter, quote) {
            ('\\', _) => word.get_or_insert_default().extend(letters.next()),
            ('"' | '\'', None) => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (_, Some(open)) if open == letter => quote = None,
            (_, None) if letter.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_change_the_config() {
        let mut config = Map::new();
        for line in [
            r#"CMD ["/bin/app", "-v"]"#,
            "entrypoint exec app",
            "ENV A=1 B=\"two words\"",
            "ENV A 3 and more",
            "EXPOSE 80 53/udp",
            "LABEL who=me",
            "USER 1000:1000",
            "VOLUME [\"/data\"]",
            "WORKDIR /srv",
            "STOPSIGNAL SIGINT",
        ] {
            apply(&mut config, line).unwrap();
        }
        let expected = json!({
            "Cmd": ["/bin/app", "-v"],
            "Entrypoint": ["/bin/sh", "-c", "exec app"],
            "Env": ["B=two words", "A=3 and more"],
            "ExposedPorts": { "80/tcp": {}, "53/udp": {} },
            "Labels": { "who": "me" },
            "User": "1000:1000",
            "Volumes": { "/data": {} },
            "WorkingDir": "/srv",
            "StopSignal": "SIGINT",
        });
        assert_eq!(Value::Object(config), expected);
    }

    #[test]
    fn what_is_no_such_instruction_is_named() {
        for (line, why) in [
            ("RUN rm -rf /", "`RUN`"),
            ("EXPOSE 99999", "port"),
            ("CMD", "argument"),
            ("WORKDIR x", "absolute"),
            ("ENV =1", "key=value"),
        ] {
            let error = apply(&mut Map::new(), line).unwrap_err().to_string();
            assert!(error.contains(why), "{line}: {error}");
        }
    }
}

//! `--change`: Dockerfile instructions that set something in a config (docs.docker.com/reference/dockerfile).

use super::words::{expand, words};
use crate::error::ImageError;
use serde_json::{Map, Value, json};

/// More ports than a config may have.
const PORTS_MAX: usize = 4096;

/// Applies one instruction to the `config` part of an image's config.
pub(super) fn apply(config: &mut Map<String, Value>, line: &str) -> Result<(), ImageError> {
    let line = line.trim();
    let (instruction, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let instruction = instruction.to_ascii_uppercase();
    let wrong = |why: String| ImageError::invalid(format!("change `{}`", shown(line)), why);
    if line.contains(['\n', '\r']) {
        return Err(wrong("it has more than one line".into()));
    }
    let instruct = match instruction.as_str() {
        "CMD" => cmd,
        "ENTRYPOINT" => entrypoint,
        "ENV" => env,
        "EXPOSE" => expose,
        "LABEL" => label,
        "STOPSIGNAL" => |config: &mut _, rest: &str| one(config, "StopSignal", rest),
        "USER" => |config: &mut _, rest: &str| one(config, "User", rest),
        "VOLUME" => volume,
        "WORKDIR" => workdir,
        other => {
            let why =
                "an image takes CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER, VOLUME and WORKDIR";
            return Err(ImageError::Unsupported {
                what: format!("change `{}`", shown(other)),
                why: why.into(),
            });
        }
    };
    let rest = rest.trim();
    if rest.is_empty() {
        return Err(wrong("it has no argument".into()));
    }
    instruct(config, rest).map_err(wrong)
}

type Change = Result<(), String>;

fn cmd(config: &mut Map<String, Value>, rest: &str) -> Change {
    let words = command(config, rest);
    set(config, "Cmd", words)
}

fn entrypoint(config: &mut Map<String, Value>, rest: &str) -> Change {
    let words = command(config, rest);
    set(config, "Entrypoint", words)
}

fn env(config: &mut Map<String, Value>, rest: &str) -> Change {
    for (key, value) in pairs(rest, &known(config))? {
        let list = config.entry("Env").or_insert_with(|| json!([]));
        if let Value::Array(list) = list {
            let prefix = format!("{key}=");
            list.retain(|known| !known.as_str().is_some_and(|known| known.starts_with(&prefix)));
            list.push(json!(format!("{key}={value}")));
        }
    }
    Ok(())
}

fn label(config: &mut Map<String, Value>, rest: &str) -> Change {
    for (key, value) in pairs(rest, &known(config))? {
        set_in(config, "Labels", &key, json!(value));
    }
    Ok(())
}

fn expose(config: &mut Map<String, Value>, rest: &str) -> Change {
    let mut count = 0;
    for port in words(rest, &known(config))? {
        let (numbers, protocol) = port.split_once('/').unwrap_or((&port, "tcp"));
        let protocol = protocol.to_ascii_lowercase();
        let (first, last) = numbers.split_once('-').unwrap_or((numbers, numbers));
        let (Ok(first), Ok(last)) = (first.parse::<u16>(), last.parse::<u16>()) else {
            return Err("it is not `port`, `first-last` or `port/protocol`".into());
        };
        if first == 0 || first > last || !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
            return Err("ports go from 1 to 65535, protocols are tcp, udp and sctp".into());
        }
        for number in first..=last {
            count += 1;
            if count > PORTS_MAX {
                return Err(format!("it has more than {PORTS_MAX} ports"));
            }
            set_in(config, "ExposedPorts", &format!("{number}/{protocol}"), json!({}));
        }
    }
    Ok(())
}

fn volume(config: &mut Map<String, Value>, rest: &str) -> Change {
    let paths = match serde_json::from_str::<Vec<String>>(rest) {
        Ok(list) => list,
        Err(_) => words(rest, &known(config))?,
    };
    for path in paths {
        if path.trim().is_empty() {
            return Err("a path is empty".into());
        }
        set_in(config, "Volumes", &path, json!({}));
    }
    Ok(())
}

/// A relative one goes on from the last.
fn workdir(config: &mut Map<String, Value>, rest: &str) -> Change {
    let path = expand(rest, &known(config))?;
    let before = config.get("WorkingDir").and_then(Value::as_str).unwrap_or("/");
    let path = if path.starts_with('/') { path } else { format!("{}/{path}", before.trim_end_matches('/')) };
    set(config, "WorkingDir", json!(path))
}

fn one(config: &mut Map<String, Value>, key: &str, rest: &str) -> Change {
    let value = expand(rest, &known(config))?;
    set(config, key, json!(value))
}

fn set(config: &mut Map<String, Value>, key: &str, value: Value) -> Change {
    config.insert(key.into(), value);
    Ok(())
}

fn set_in(config: &mut Map<String, Value>, field: &str, key: &str, value: Value) {
    if let Value::Object(map) = config.entry(field).or_insert_with(|| json!({})) {
        map.insert(key.into(), value);
    }
}

/// What `$NAME` may stand for: the environment as earlier changes have set it.
fn known(config: &Map<String, Value>) -> Vec<(String, String)> {
    let list = config.get("Env").and_then(Value::as_array);
    let pairs = list.into_iter().flatten().filter_map(|entry| entry.as_str()?.split_once('='));
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// A list as JSON, else a line for the config's shell, which expands variables itself.
fn command(config: &Map<String, Value>, text: &str) -> Value {
    if let Ok(words) = serde_json::from_str::<Vec<String>>(text) {
        return json!(words);
    }
    let own = config.get("Shell").and_then(Value::as_array).filter(|words| !words.is_empty());
    let mut words = own.cloned().unwrap_or_else(|| vec![json!("/bin/sh"), json!("-c")]);
    words.push(json!(text));
    words.into()
}

/// `key=value key="with spaces"`, or `key value` to the end of the line.
fn pairs(text: &str, env: &[(String, String)]) -> Result<Vec<(String, String)>, String> {
    let wrong = || "it is not `key=value`".to_owned();
    let (first, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    if !first.contains('=') {
        let value = rest.trim();
        if value.is_empty() {
            return Err(wrong());
        }
        return Ok(vec![(expand(first, env)?, expand(value, env)?)]);
    }
    let pair = |word: String| {
        let (key, value) = word.split_once('=').filter(|(key, _)| !key.is_empty()).ok_or_else(wrong)?;
        Ok((key.to_owned(), value.to_owned()))
    };
    words(text, env)?.into_iter().map(pair).collect()
}

/// A user's line, fit for a message.
fn shown(line: &str) -> String {
    line.chars().filter(|letter| !letter.is_control()).take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_change_the_config() {
        let mut config = Map::new();
        for line in [
            r#"CMD ["/bin/app", "-v"]"#,
            "entrypoint exec app $A",
            "ENV A=1 B=\"two words\" C='$A'",
            "ENV A 3 and more",
            "ENV PATH=/opt/bin:$PATH D=${A}!",
            "EXPOSE 80 53/udp 8000-8002/TCP",
            "LABEL who=me why=\"\\\"so\\\"\"",
            "USER 1000:1000",
            "VOLUME [\"/data\"]",
            "VOLUME /a /b",
            "WORKDIR /srv",
            "WORKDIR app",
            "STOPSIGNAL SIGINT",
        ] {
            apply(&mut config, line).unwrap();
        }
        let expected = json!({
            "Cmd": ["/bin/app", "-v"],
            "Entrypoint": ["/bin/sh", "-c", "exec app $A"],
            "Env": ["B=two words", "C=$A", "A=3 and more", "PATH=/opt/bin:", "D=3 and more!"],
            "ExposedPorts": { "80/tcp": {}, "53/udp": {}, "8000/tcp": {}, "8001/tcp": {}, "8002/tcp": {} },
            "Labels": { "who": "me", "why": "\"so\"" },
            "User": "1000:1000",
            "Volumes": { "/data": {}, "/a": {}, "/b": {} },
            "WorkingDir": "/srv/app",
            "StopSignal": "SIGINT",
        });
        assert_eq!(Value::Object(config), expected);
    }

    #[test]
    fn a_line_is_for_the_shell_of_the_config() {
        let mut config = Map::from_iter([("Shell".to_owned(), json!(["/bin/ash", "-ec"]))]);
        apply(&mut config, "CMD a b").unwrap();
        assert_eq!(config["Cmd"], json!(["/bin/ash", "-ec", "a b"]));
    }

    #[test]
    fn what_is_no_such_instruction_is_named() {
        for (line, why) in [
            ("RUN rm -rf /", "`RUN`"),
            ("", "``"),
            ("EXPOSE 99999", "port"),
            ("EXPOSE 0", "from 1"),
            ("EXPOSE 9-8", "from 1"),
            ("EXPOSE 1-65535", "more than 4096"),
            ("EXPOSE 80/icmp", "protocols"),
            ("CMD", "argument"),
            ("ENV A", "key=value"),
            ("ENV =1", "key=value"),
            ("ENV A=1 B", "key=value"),
            ("ENV A='1", "quote"),
            ("ENV A=${B:-1}", "`$"),
            ("VOLUME [\"\"]", "empty"),
            ("CMD a\nUSER root", "one line"),
        ] {
            let error = apply(&mut Map::new(), line).unwrap_err().to_string();
            assert!(error.contains(why), "{line}: {error}");
        }
    }
}

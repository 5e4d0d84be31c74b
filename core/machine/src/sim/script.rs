//! What a simulated process does: `sim STEP [; STEP …]`, as the container's command.
//!
//! `print TEXT` · `eprint TEXT` · `count N` (numbered lines) · `flood BYTES` · `sleep` (until a signal) ·
//! `ignore-term` · `oom` · `cat` (input to output, until its end) · `size` (of the terminal) · `probe` (ends as the machine was told) · `exit N`. The end of the script is `exit 0`.

/// One thing that a process does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    Print(String),
    PrintError(String),
    /// `line 1` to `line N`.
    Count(u64),
    /// So many bytes, in lines of 100.
    Flood(u64),
    Sleep,
    IgnoreTerm,
    OutOfMemory,
    Cat,
    Size,
    /// Ends as the machine was told that probes do.
    Probe,
    Exit(i32),
}

/// The script in a command; `Err`: what a container says of a command that is not there.
pub fn parse(args: &[String]) -> Result<Vec<Step>, String> {
    let Some((program, words)) = args.split_first() else {
        return Err("no command".into());
    };
    if program != "sim" {
        return Err(format!("exec: \"{program}\": executable file not found in $PATH"));
    }
    words
        .split(|word| word == ";")
        .filter(|step| !step.is_empty())
        .map(|step| {
            let (verb, rest) = step.split_first().map_or(("", step), |(verb, rest)| (verb.as_str(), rest));
            let text = rest.join(" ");
            let number = || text.parse::<u64>().map_err(|_| format!("sim: `{verb} {text}` needs a number"));
            match verb {
                "print" => Ok(Step::Print(text)),
                "eprint" => Ok(Step::PrintError(text)),
                "count" => number().map(Step::Count),
                "flood" => number().map(Step::Flood),
                "sleep" => Ok(Step::Sleep),
                "ignore-term" => Ok(Step::IgnoreTerm),
                "oom" => Ok(Step::OutOfMemory),
                "cat" => Ok(Step::Cat),
                "size" => Ok(Step::Size),
                "probe" => Ok(Step::Probe),
                "exit" => number().map(|code| Step::Exit(i32::from(u8::try_from(code).unwrap_or(u8::MAX)))),
                other => Err(format!("sim: no step `{other}`")),
            }
        })
        .collect()
}

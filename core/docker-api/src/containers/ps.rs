//! `ps` without `ps`: facts of the guest's kernel in the columns that people know.
//!
//! A machine's agent cannot run a program of the image to list its processes, which may have none. Users are numbers,
//! but for root: whose names they would be only the image knows.

use crate::error::ApiError;
use crate::query::clip;
use bulkhead_engine::{Process, Processes};
use chrono::{DateTime, Utc};

const WORKS: &str = "what works: -e, -f, aux and their like, and -o with a list of columns";
const SHELL_DAY_S: u64 = 86_400;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Column {
    User,
    Uid,
    Gid,
    Pid,
    Parent,
    Group,
    Session,
    /// Of a CPU, as a whole number.
    Share,
    SharePercent,
    MemoryPercent,
    Virtual,
    Resident,
    Terminal,
    State,
    States,
    Start,
    StartLong,
    CpuTime,
    /// `M:SS`.
    CpuTimeShort,
    Elapsed,
    ElapsedSeconds,
    Nice,
    Threads,
    Name,
    Command,
}

use Column::{
    Command, CpuTime, CpuTimeShort, Elapsed, ElapsedSeconds, Gid, Group, MemoryPercent, Name, Nice, Parent,
    Pid, Resident, Session, Share, SharePercent, Start, StartLong, State, States, Terminal, Threads, Uid,
    User, Virtual,
};

/// Names after `-o`, the title of the column, what is in it.
const COLUMNS: &[(&str, &str, Column)] = &[
    ("user", "USER", User),
    ("euser", "EUSER", User),
    ("uname", "USER", User),
    ("uid", "UID", Uid),
    ("euid", "EUID", Uid),
    ("gid", "GID", Gid),
    ("egid", "EGID", Gid),
    ("pid", "PID", Pid),
    ("ppid", "PPID", Parent),
    ("pgid", "PGID", Group),
    ("pgrp", "PGRP", Group),
    ("sid", "SID", Session),
    ("sess", "SESS", Session),
    ("c", "C", Share),
    ("pcpu", "%CPU", SharePercent),
    ("%cpu", "%CPU", SharePercent),
    ("pmem", "%MEM", MemoryPercent),
    ("%mem", "%MEM", MemoryPercent),
    ("vsz", "VSZ", Virtual),
    ("vsize", "VSZ", Virtual),
    ("rss", "RSS", Resident),
    ("rsz", "RSZ", Resident),
    ("tty", "TT", Terminal),
    ("tt", "TT", Terminal),
    ("tname", "TTY", Terminal),
    ("s", "S", State),
    ("state", "S", State),
    ("stat", "STAT", States),
    ("stime", "STIME", Start),
    ("start_time", "START", Start),
    ("lstart", "STARTED", StartLong),
    ("time", "TIME", CpuTime),
    ("cputime", "TIME", CpuTime),
    ("etime", "ELAPSED", Elapsed),
    ("etimes", "ELAPSED", ElapsedSeconds),
    ("ni", "NI", Nice),
    ("nice", "NI", Nice),
    ("nlwp", "NLWP", Threads),
    ("thcount", "THCNT", Threads),
    ("comm", "COMMAND", Name),
    ("ucmd", "CMD", Name),
    ("cmd", "CMD", Command),
    ("args", "COMMAND", Command),
    ("command", "COMMAND", Command),
];

const FULL: &[(&str, Column)] = &[
    ("UID", User),
    ("PID", Pid),
    ("PPID", Parent),
    ("C", Share),
    ("STIME", Start),
    ("TTY", Terminal),
    ("TIME", CpuTime),
    ("CMD", Command),
];
const PLAIN: &[(&str, Column)] = &[("PID", Pid), ("TTY", Terminal), ("TIME", CpuTime), ("CMD", Name)];
const BSD_USERS: &[(&str, Column)] = &[
    ("USER", User),
    ("PID", Pid),
    ("%CPU", SharePercent),
    ("%MEM", MemoryPercent),
    ("VSZ", Virtual),
    ("RSS", Resident),
    ("TTY", Terminal),
    ("STAT", States),
    ("START", Start),
    ("TIME", CpuTimeShort),
    ("COMMAND", Command),
];
const BSD_PLAIN: &[(&str, Column)] =
    &[("PID", Pid), ("TTY", Terminal), ("STAT", States), ("TIME", CpuTimeShort), ("COMMAND", Command)];

/// Which columns.
#[derive(Debug, PartialEq, Eq)]
pub struct Layout(Vec<(&'static str, Column)>);

impl Layout {
    /// What stands behind `docker top CONTAINER`. All processes of the container are listed, whatever is chosen.
    pub fn parse(arguments: &str) -> Result<Self, ApiError> {
        let mut chosen: Vec<(&'static str, Column)> = Vec::new();
        let (mut full, mut users, mut bsd) = (false, false, false);
        let mut words = arguments.split_whitespace();
        while let Some(word) = words.next() {
            let refused = || {
                ApiError::bad(format!(
                    "bulkhead: ps argument `{}` (top) is not supported; {WORKS}",
                    clip(word)
                ))
            };
            if let Some(list) = word.strip_prefix("--format=") {
                chosen.extend(columns(list)?);
                continue;
            }
            let dash = word.starts_with('-');
            let letters = word.trim_start_matches('-');
            if letters.is_empty() || word.starts_with("--") {
                return Err(refused());
            }
            bsd |= !dash;
            for (at, letter) in letters.char_indices() {
                match letter {
                    'o' => {
                        let rest = letters.get(at + 1..).unwrap_or_default();
                        let list = if rest.is_empty() { words.next().unwrap_or_default() } else { rest };
                        chosen.extend(columns(list)?);
                        break;
                    }
                    'e' | 'A' | 'a' | 'd' | 'w' | 'x' => {}
                    'f' if dash => full = true,
                    'u' => users = true,
                    _ => return Err(refused()),
                }
            }
        }
        let ready = match (users, full, bsd) {
            _ if !chosen.is_empty() => return with_pid(chosen),
            (true, ..) => BSD_USERS,
            (false, true, _) => FULL,
            (false, false, true) => BSD_PLAIN,
            (false, false, false) => PLAIN,
        };
        Ok(Self(ready.to_vec()))
    }

    pub fn titles(&self) -> Vec<&'static str> {
        self.0.iter().map(|(title, _)| *title).collect()
    }

    pub fn row(&self, all: &Processes, process: &Process) -> Vec<String> {
        self.0.iter().map(|(_, column)| cell(*column, all, process)).collect()
    }
}

/// As dockerd, which needs the column for itself, and has users that know this text.
fn with_pid(chosen: Vec<(&'static str, Column)>) -> Result<Layout, ApiError> {
    match chosen.iter().any(|(_, column)| *column == Pid) {
        true => Ok(Layout(chosen)),
        false => Err(ApiError::bad("Couldn't find PID field in ps output")),
    }
}

fn columns(list: &str) -> Result<Vec<(&'static str, Column)>, ApiError> {
    let names: Vec<&str> = list.split(',').filter(|name| !name.is_empty()).collect();
    if names.is_empty() {
        return Err(ApiError::bad("bulkhead: ps argument `-o` (top) needs a list of columns: -o pid,cmd"));
    }
    let find = |name: &str| {
        let found = COLUMNS.iter().find(|(known, ..)| *known == name);
        found.map(|(_, title, column)| (*title, *column)).ok_or_else(|| {
            let known: Vec<&str> = COLUMNS.iter().map(|(known, ..)| *known).collect();
            ApiError::bad(format!(
                "bulkhead: ps column `{}` (top) is not known; these are: {}",
                clip(name),
                known.join(", ")
            ))
        })
    };
    names.into_iter().map(find).collect()
}

fn cell(column: Column, all: &Processes, process: &Process) -> String {
    let ticks_per_s = u64::from(all.ticks_per_s.max(1));
    let age_ticks = all.uptime_ticks.saturating_sub(process.started_ticks);
    let (age_s, cpu_s) = (age_ticks / ticks_per_s, process.cpu_ticks / ticks_per_s);
    // A process that has just begun has no share yet.
    let permille = process.cpu_ticks.saturating_mul(1000).checked_div(age_ticks).unwrap_or(0);
    match column {
        User if process.uid == 0 => "root".into(),
        User | Uid => process.uid.to_string(),
        Gid => process.gid.to_string(),
        Pid => process.pid.to_string(),
        Parent => process.parent.to_string(),
        Group => process.group.to_string(),
        Session => process.session.to_string(),
        Share => (permille / 10).to_string(),
        SharePercent => tenths(permille),
        MemoryPercent => {
            tenths(process.resident_bytes.saturating_mul(1000).checked_div(all.memory_bytes).unwrap_or(0))
        }
        Virtual => (process.virtual_bytes >> 10).to_string(),
        Resident => (process.resident_bytes >> 10).to_string(),
        Terminal => terminal(process.terminal),
        State => letter(process.state).to_string(),
        States => states(process),
        Start => started(all, age_s, |at, now| match (now - at).num_seconds() < 86_400 {
            true => at.format("%H:%M").to_string(),
            false => at.format("%b%d").to_string(),
        }),
        StartLong => started(all, age_s, |at, _| at.format("%a %b %e %H:%M:%S %Y").to_string()),
        CpuTime => clock(cpu_s, true),
        CpuTimeShort => format!("{}:{:02}", cpu_s / 60, cpu_s % 60),
        Elapsed => clock(age_s, false),
        ElapsedSeconds => age_s.to_string(),
        Nice => process.nice.to_string(),
        Threads => process.threads.to_string(),
        Name => process.name.clone(),
        Command if process.command.is_empty() => format!("[{}]", process.name),
        Command => process.command.clone(),
    }
}

fn tenths(permille: u64) -> String {
    format!("{}.{}", permille / 10, permille % 10)
}

/// `[days-]hours:minutes:seconds`; without hours where there are none, and they need not be there.
fn clock(seconds: u64, hours_always: bool) -> String {
    let (days, rest) = (seconds / SHELL_DAY_S, seconds % SHELL_DAY_S);
    let (hours, minutes, seconds) = (rest / 3600, rest / 60 % 60, rest % 60);
    match (days, hours) {
        (0, 0) if !hours_always => format!("{minutes:02}:{seconds:02}"),
        (0, _) => format!("{hours:02}:{minutes:02}:{seconds:02}"),
        _ => format!("{days}-{hours:02}:{minutes:02}:{seconds:02}"),
    }
}

/// By the guest's clock, which may say anything.
fn started(all: &Processes, age_s: u64, form: impl Fn(DateTime<Utc>, DateTime<Utc>) -> String) -> String {
    let now_s = all.unix_ns / 1_000_000_000;
    let at =
        |seconds: u64| i64::try_from(seconds).ok().and_then(|seconds| DateTime::from_timestamp(seconds, 0));
    match (at(now_s.saturating_sub(age_s)), at(now_s)) {
        (Some(started), Some(now)) => form(started, now),
        _ => "?".into(),
    }
}

fn letter(state: u8) -> char {
    if state.is_ascii_alphabetic() { char::from(state) } else { '?' }
}

fn states(process: &Process) -> String {
    let mut states = String::from(letter(process.state));
    let marks = [
        (process.nice < 0, '<'),
        (process.nice > 0, 'N'),
        (process.session == process.pid, 's'),
        (process.threads > 1, 'l'),
        (process.foreground && process.terminal != 0, '+'),
    ];
    states.extend(marks.into_iter().filter(|(so, _)| *so).map(|(_, mark)| mark));
    states
}

/// From a device number as proc(5) packs it.
fn terminal(device: u32) -> String {
    let (major, minor) = ((device >> 8) & 0xfff, (device & 0xff) | ((device >> 12) & 0xf_ff00));
    match major {
        136..=143 => format!("pts/{}", (major - 136) * 256 + minor),
        4 if minor < 64 => format!("tty{minor}"),
        4 => format!("ttyS{}", minor - 64),
        5 if minor == 1 => "console".into(),
        _ => "?".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Processes {
        Processes {
            uptime_ticks: 10_000,
            ticks_per_s: 100,
            // 2023-11-14T22:13:20Z
            unix_ns: 1_700_000_000_000_000_000,
            memory_bytes: 100 << 20,
            ..Processes::default()
        }
    }

    fn shell() -> Process {
        Process {
            pid: 7,
            parent: 1,
            group: 7,
            session: 7,
            uid: 1000,
            gid: 50,
            terminal: 136 << 8 | 3,
            state: b'S',
            foreground: true,
            threads: 1,
            started_ticks: 4_000,
            cpu_ticks: 1_500,
            virtual_bytes: 4 << 20,
            resident_bytes: 1 << 20,
            name: "sh".into(),
            command: "sh -c x".into(),
            ..Process::default()
        }
    }

    fn check(arguments: &str, titles: &str, row: &str) {
        let layout = Layout::parse(arguments).unwrap();
        assert_eq!(layout.titles().join(" "), titles, "{arguments}");
        assert_eq!(layout.row(&all(), &shell()).join(" "), row, "{arguments}");
    }

    #[test]
    fn layouts_of_ps() {
        let full = "UID PID PPID C STIME TTY TIME CMD";
        for arguments in ["-ef", "-e -f", "-f", "-Af"] {
            check(arguments, full, "1000 7 1 25 22:12 pts/3 00:00:15 sh -c x");
        }
        let users = "USER PID %CPU %MEM VSZ RSS TTY STAT START TIME COMMAND";
        for arguments in ["aux", "axu", "-aux", "auxww"] {
            check(arguments, users, "1000 7 25.0 1.0 4096 1024 pts/3 Ss+ 22:12 0:15 sh -c x");
        }
        check("-e", "PID TTY TIME CMD", "7 pts/3 00:00:15 sh");
        check("ax", "PID TTY STAT TIME COMMAND", "7 pts/3 Ss+ 0:15 sh -c x");
    }

    #[test]
    fn columns_may_be_chosen() {
        check("-o pid,cmd", "PID CMD", "7 sh -c x");
        check("-eo pid,comm", "PID COMMAND", "7 sh");
        check("-opid -o etime,etimes,rss", "PID ELAPSED ELAPSED RSS", "7 01:00 60 1024");
        check("o pid,user,stat,ni,nlwp", "PID USER STAT NI NLWP", "7 1000 Ss+ 0 1");
        check("-o pid,lstart", "PID STARTED", "7 Tue Nov 14 22:12:20 2023");
    }

    #[test]
    fn others_are_refused_by_name() {
        for (arguments, text) in [
            ("-Z", "bulkhead: ps argument `-Z` (top) is not supported"),
            ("--forest", "`--forest`"),
            ("-p 1", "`-p`"),
            ("-o", "needs a list of columns"),
            ("-o pid,magic", "ps column `magic` (top) is not known; these are: user,"),
            ("-o cmd", "Couldn't find PID field in ps output"),
        ] {
            let error = Layout::parse(arguments).unwrap_err();
            assert!(error.status == 400 && error.message.contains(text), "{arguments}: {}", error.message);
        }
    }

    #[test]
    fn whatever_a_guest_says_has_a_form() {
        let mut wild = Process { name: "x".into(), started_ticks: u64::MAX, ..Process::default() };
        (wild.cpu_ticks, wild.resident_bytes, wild.nice) = (u64::MAX, u64::MAX, -1);
        let all = Processes { unix_ns: u64::MAX, ..Processes::default() };
        let every: Vec<&str> = COLUMNS.iter().map(|(name, ..)| *name).collect();
        let layout = Layout::parse(&format!("-o {}", every.join(","))).unwrap();
        assert_eq!(layout.row(&all, &wild).len(), COLUMNS.len());
        assert_eq!(cell(Command, &all, &wild), "[x]");
        assert_eq!((clock(90_061, true), clock(59, false)), ("1-01:01:01".into(), "00:59".into()));
    }
}

//! Which user a container's process runs as: `user[:group]`, looked up in the image's own files.
//!
//! There is no name service in a static program, and there must not be: only what the image says counts.

use crate::failure::{CODE_CANNOT_RUN, Failure};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    pub home: String,
}

const ID_MAX: u32 = i32::MAX.unsigned_abs();
/// Linux' limit is 65536; a process that needs more than this is a mistake.
const GROUPS_MAX: usize = 1024;

/// A line of passwd(5).
struct Account<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

/// A line of group(5).
struct Group<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

fn accounts(passwd: &str) -> impl Iterator<Item = Account<'_>> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let name = fields.next()?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        Some(Account { name, uid, gid, home: fields.nth(1).unwrap_or_default() })
    })
}

fn groups(group: &str) -> impl Iterator<Item = Group<'_>> {
    group.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let name = fields.next()?;
        Some(Group { name, gid: fields.nth(1)?.parse().ok()?, members: fields.next().unwrap_or_default() })
    })
}

/// Names win over numbers, as a user may be called `1000`.
pub fn resolve(wanted: &str, passwd: &str, group: &str) -> Result<Identity, Failure> {
    let (user, wanted_group) = wanted.split_once(':').unwrap_or((wanted, ""));
    let number = number(user)?;
    let account = if user.is_empty() {
        accounts(passwd).find(|account| account.uid == 0)
    } else {
        accounts(passwd)
            .find(|account| account.name == user)
            .or_else(|| accounts(passwd).find(|account| Some(account.uid) == number))
    };
    let mut identity = match (&account, number) {
        (Some(account), _) => {
            let home = if account.home.is_empty() { "/" } else { account.home };
            Identity { uid: account.uid, gid: account.gid, groups: Vec::new(), home: home.to_owned() }
        }
        (None, None) if !user.is_empty() => {
            return Err(unknown(format!("unable to find user {user}: no matching entries in passwd file")));
        }
        (None, number) => {
            Identity { uid: number.unwrap_or(0), gid: 0, groups: Vec::new(), home: "/".to_owned() }
        }
    };
    if !wanted_group.is_empty() {
        identity.gid = group_id(wanted_group, group)?;
    } else if let Some(account) = account {
        let member = |group: &Group<'_>| group.members.split(',').any(|name| name.trim() == account.name);
        identity.groups = groups(group).filter(member).map(|group| group.gid).take(GROUPS_MAX).collect();
    }
    Ok(identity)
}

/// Groups beside those of the user's, by name or number; each once.
pub fn add_groups(identity: &mut Identity, wanted: &[String], group: &str) -> Result<(), Failure> {
    for name in wanted {
        let gid = group_id(name, group)?;
        if !identity.groups.contains(&gid) && identity.groups.len() < GROUPS_MAX {
            identity.groups.push(gid);
        }
    }
    Ok(())
}

fn group_id(wanted: &str, group: &str) -> Result<u32, Failure> {
    if let Some(found) = groups(group).find(|group| group.name == wanted) {
        return Ok(found.gid);
    }
    number(wanted)?
        .ok_or_else(|| unknown(format!("unable to find group {wanted}: no matching entries in group file")))
}

fn number(text: &str) -> Result<Option<u32>, Failure> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    match text.parse() {
        Ok(id) if id <= ID_MAX => Ok(Some(id)),
        _ => Err(unknown(format!("uids and gids must be in range 0-{ID_MAX}"))),
    }
}

fn unknown(message: String) -> Failure {
    Failure::new(CODE_CANNOT_RUN, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n# a comment\nweb:x:33:34:w:/var/www:/bin/false\n\
                          1000:x:7:7::/seven:\nbob:x:1000:1000::/home/bob:/bin/sh\nbroken:x\nhomeless:x:9:9\n";
    const GROUP: &str = "root:x:0:\nadm:x:4:web,bob\nlogs:x:5:bob\nweb:x:34:\nbad\n";

    fn check(wanted: &str, expect: Result<(u32, u32, &[u32], &str), &str>) {
        let found = resolve(wanted, PASSWD, GROUP);
        let expect = expect
            .map(|(uid, gid, groups, home)| Identity {
                uid,
                gid,
                groups: groups.to_vec(),
                home: home.to_owned(),
            })
            .map_err(|message| Failure::new(126, message));
        assert_eq!(found, expect, "{wanted}");
    }

    #[test]
    fn users_are_found_as_docker_finds_them() {
        check("", Ok((0, 0, &[], "/root")));
        check("web", Ok((33, 34, &[4], "/var/www")));
        check("33", Ok((33, 34, &[4], "/var/www")));
        check("bob", Ok((1000, 1000, &[4, 5], "/home/bob")));
        check("bob:logs", Ok((1000, 5, &[], "/home/bob")));
        check("bob:77", Ok((1000, 77, &[], "/home/bob")));
        check("1000", Ok((7, 7, &[], "/seven")));
        check("4242", Ok((4242, 0, &[], "/")));
        check("4242:web", Ok((4242, 34, &[], "/")));
        check(":web", Ok((0, 34, &[], "/root")));
        check("homeless", Ok((9, 9, &[], "/")));
    }

    #[test]
    fn unknown_ones_are_refused_in_dockers_words() {
        check("eve", Err("unable to find user eve: no matching entries in passwd file"));
        check("bob:eve", Err("unable to find group eve: no matching entries in group file"));
        check("4294967295", Err("uids and gids must be in range 0-2147483647"));
        check("99999999999999999999", Err("uids and gids must be in range 0-2147483647"));
        check("-1", Err("unable to find user -1: no matching entries in passwd file"));
    }

    #[test]
    fn groups_are_added_by_name_and_number() {
        let mut identity = resolve("bob", PASSWD, GROUP).unwrap();
        let add = |identity: &mut Identity, names: &[&str]| {
            let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
            add_groups(identity, &names, GROUP)
        };
        add(&mut identity, &["web", "777", "adm"]).unwrap();
        assert_eq!(identity.groups, [4, 5, 34, 777]);
        let unknown = add(&mut identity, &["eve"]).unwrap_err();
        assert_eq!(unknown.message, "unable to find group eve: no matching entries in group file");
    }

    #[test]
    fn an_image_without_the_files_has_root_and_numbers() {
        assert_eq!(
            resolve("", "", ""),
            Ok(Identity { uid: 0, gid: 0, groups: Vec::new(), home: "/".to_owned() })
        );
        assert_eq!(resolve("12:13", "", "").map(|id| (id.uid, id.gid)), Ok((12, 13)));
    }
}

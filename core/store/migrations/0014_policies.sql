-- Sets of policies that are or were in force; the newest is the one in force.
create table policy_revisions (
    number bigint primary key check (number > 0),
    digest text collate "C" not null,
    schema text not null,
    files json not null,
    origin json not null,
    is_folder boolean not null,
    at timestamptz not null,
    by_caller text not null,
    comment text not null
);
create index policy_revisions_digest on policy_revisions (digest, number);
create index policy_revisions_folder on policy_revisions (number) where is_folder;

create table policy_drafts (
    name text collate "C" primary key,
    revision bigint not null check (revision > 0),
    base bigint not null check (base >= 0),
    files json not null,
    changed_at timestamptz not null,
    changed_by text not null
);

-- Lists over all VCHs, page by page.
create index decisions_newest on decisions (at, id);
drop index decisions_at;

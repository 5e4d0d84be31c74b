-- Components that were installed, by the digest of their bytes.
create table plugins (
    digest text collate "C" primary key,
    name text collate "C" not null,
    manifest json not null,
    component bytea not null,
    installed_at timestamptz not null,
    installed_by text not null
);
create index plugins_name on plugins (name);

-- Plugins at work. What no class and no VCH is named for is everywhere.
create table bindings (
    name text collate "C" primary key,
    digest text collate "C" not null references plugins (digest),
    class text collate "C",
    vch_id uuid references vchs (id) on delete cascade,
    position integer not null,
    mode text not null check (mode in ('enforce', 'monitor')),
    on_failure text not null check (on_failure in ('refuse', 'skip')),
    settings json not null,
    revision bigint not null check (revision > 0),
    changed_at timestamptz not null,
    changed_by text not null,
    check (class is null or vch_id is null)
);
create index bindings_digest on bindings (digest);
create index bindings_vch on bindings (vch_id);

alter table decisions add column plugins json not null default '[]';
alter table decisions alter column plugins drop default;

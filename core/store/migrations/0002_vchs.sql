create table vchs (
    id uuid primary key,
    name text not null,
    tenant text not null,
    class text not null,
    parent_id uuid references vchs (id),
    -- Ids from the topmost VCH down to this one, each followed by `/`: a subtree is a prefix.
    pool_path text collate "C" not null check (pool_path like '%' || id::text || '/'),
    settings json not null,
    created_at timestamptz not null,
    deleting boolean not null default false,
    constraint vchs_name_key unique (name)
);
create index vchs_parent on vchs (parent_id);
create unique index vchs_pool_path on vchs (pool_path);

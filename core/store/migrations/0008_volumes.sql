create table volumes (
    id uuid primary key,
    vch_id uuid not null references vchs (id),
    name text collate "C" not null,
    labels json not null,
    options json not null,
    size_bytes bigint not null check (size_bytes > 0),
    owner text not null,
    anonymous boolean not null,
    created_at timestamptz not null,
    -- Its file system is complete and was left clean.
    settled boolean not null default false,
    -- Removed, its name is free, and its disk is being deleted; the row goes once the disk is gone.
    condemned boolean not null default false,
    constraint volumes_vch_id_key unique (vch_id, id)
);
create unique index volumes_name_key on volumes (vch_id, name) where not condemned;

-- Which containers have which volumes: no volume under a container is ever taken for unused.
create table container_volumes (
    vch_id uuid not null,
    container_id text collate "C" not null,
    volume_id uuid not null,
    -- One of its mounts can be written.
    writable boolean not null,
    primary key (container_id, volume_id),
    foreign key (vch_id, container_id) references containers (vch_id, id) on delete cascade,
    constraint container_volumes_volume_fkey foreign key (vch_id, volume_id) references volumes (vch_id, id)
);
create index container_volumes_volume on container_volumes (vch_id, volume_id);

create table layers (
    vch_id uuid not null references vchs (id),
    diff_id text collate "C" not null,
    size_bytes bigint not null check (size_bytes >= 0),
    disk_bytes bigint not null check (disk_bytes >= 0),
    -- Nothing uses it and its disk is being deleted; the row goes once the disk is gone.
    condemned boolean not null default false,
    primary key (vch_id, diff_id)
);

create table images (
    vch_id uuid not null references vchs (id),
    id text collate "C" not null,
    -- Byte for byte: its digest is the id.
    config_json text not null,
    config json not null,
    added_at timestamptz not null,
    primary key (vch_id, id)
);

create table image_layers (
    vch_id uuid not null,
    image_id text collate "C" not null,
    -- From the bottom; the same layer may occur twice.
    position integer not null check (position >= 0),
    diff_id text collate "C" not null,
    primary key (vch_id, image_id, position),
    foreign key (vch_id, image_id) references images (vch_id, id) on delete cascade,
    foreign key (vch_id, diff_id) references layers (vch_id, diff_id)
);
create index image_layers_diff_id on image_layers (vch_id, diff_id);

create table image_origins (
    vch_id uuid not null,
    image_id text collate "C" not null,
    registry text not null,
    repository text not null,
    digest text collate "C" not null,
    primary key (vch_id, image_id, registry, repository, digest),
    foreign key (vch_id, image_id) references images (vch_id, id) on delete cascade
);
create index image_origins_digest on image_origins (vch_id, digest);

create table image_references (
    vch_id uuid not null,
    reference text collate "C" not null,
    image_id text collate "C" not null,
    primary key (vch_id, reference),
    foreign key (vch_id, image_id) references images (vch_id, id) on delete cascade
);
create index image_references_image on image_references (vch_id, image_id);

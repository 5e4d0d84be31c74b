create table containers (
    id text collate "C" primary key check (id ~ '^[0-9a-f]{64}$'),
    vch_id uuid not null references vchs (id),
    name text not null,
    -- The server that drives it, and the start of that server that may write.
    server_id uuid not null references servers (id),
    epoch bigint not null,
    image_id text collate "C" not null,
    image_name text not null,
    owner text not null,
    created_at timestamptz not null,
    -- As asked and as decided, apart: defaults are neither frozen nor applied twice.
    ask json not null,
    spec json not null,
    client_view json not null,
    memory_bytes bigint not null check (memory_bytes > 0),
    -- What is wanted; goal and run repeat what `desired` holds, for queries.
    goal text not null check (goal in ('rest', 'run', 'stop', 'gone')),
    desired_run bigint not null check (desired_run >= 0),
    desired json not null,
    -- What is; written under the fence of server and epoch. `status_run` is 0 before the first run.
    status_name text not null check (status_name in ('created', 'starting', 'running', 'exited')),
    status_run bigint not null check (status_run >= 0),
    status json not null,
    constraint containers_name_key unique (vch_id, name),
    constraint containers_vch_id_key unique (vch_id, id),
    constraint containers_image_fkey foreign key (vch_id, image_id) references images (vch_id, id)
);
create index containers_server on containers (server_id);
create index containers_image on containers (vch_id, image_id);

-- The layer disks of a container: its own list, so that no layer under a container is ever taken for unused.
create table container_layers (
    vch_id uuid not null,
    container_id text collate "C" not null,
    position integer not null check (position >= 0),
    diff_id text collate "C" not null,
    primary key (container_id, position),
    foreign key (vch_id, container_id) references containers (vch_id, id) on delete cascade,
    constraint container_layers_layer_fkey foreign key (vch_id, diff_id) references layers (vch_id, diff_id)
);
create index container_layers_diff_id on container_layers (vch_id, diff_id);

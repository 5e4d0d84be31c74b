create table networks (
    id text collate "C" primary key check (id ~ '^[0-9a-f]{64}$'),
    vch_id uuid not null references vchs (id) on delete cascade,
    name text not null,
    spec json not null,
    created_at timestamptz not null,
    constraint networks_name_key unique (vch_id, name)
);

-- A container's place on a network. The network may go before a container that rests: it is found missing at the start.
create table endpoints (
    id text collate "C" primary key check (id ~ '^[0-9a-f]{64}$'),
    vch_id uuid not null,
    container_id text collate "C" not null,
    network_id text collate "C" not null,
    wish json not null,
    -- While its container runs; address and mac repeat what `lease` holds, so that nobody else has them.
    lease json,
    address text collate "C",
    mac text collate "C",
    constraint endpoints_once unique (container_id, network_id),
    constraint endpoints_address_key unique (network_id, address),
    constraint endpoints_mac_key unique (network_id, mac),
    foreign key (vch_id, container_id) references containers (vch_id, id) on delete cascade
);

-- Ports of the host that lead to a container, while it runs.
create table published_ports (
    server_id uuid not null references servers (id),
    vch_id uuid not null,
    container_id text collate "C" not null,
    protocol text not null check (protocol in ('tcp', 'udp')),
    host_address text not null,
    host_port integer not null check (host_port between 1 and 65535),
    inner_port integer not null check (inner_port between 1 and 65535),
    container_port integer not null check (container_port between 1 and 65535),
    primary key (server_id, protocol, host_port, host_address),
    constraint published_ports_inner_key unique (vch_id, protocol, inner_port),
    foreign key (vch_id, container_id) references containers (vch_id, id) on delete cascade
);
create index published_ports_container on published_ports (container_id);

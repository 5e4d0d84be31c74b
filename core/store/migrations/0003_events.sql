-- The counter of a VCH's events, apart from the VCH's row so that numbering waits for nothing else.
create table vch_event_seq (
    vch_id uuid primary key references vchs (id) on delete cascade,
    last_seq bigint not null default 0,
    last_at timestamptz not null default '-infinity'
);

-- `attributes` is json and not jsonb here and below: what guests and images write may hold `\u0000`, which jsonb refuses.
create table events (
    vch_id uuid not null references vchs (id) on delete cascade,
    seq bigint not null check (seq > 0),
    at timestamptz not null,
    kind text not null,
    action text not null,
    actor text not null,
    attributes json not null,
    primary key (vch_id, seq)
);
create index events_at on events (vch_id, at);

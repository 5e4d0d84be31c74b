-- An installation of the server. Its epoch counts its starts; what an earlier start still writes is refused.
create table servers (
    id uuid primary key,
    name text not null,
    epoch bigint not null check (epoch > 0),
    claimed_at timestamptz not null
);

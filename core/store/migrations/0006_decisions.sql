-- No foreign keys: decisions and audit outlive what they are about.
create table decisions (
    id text collate "C" primary key,
    vch_id uuid not null,
    at timestamptz not null,
    action text not null,
    caller text not null,
    resource text not null,
    verdict text not null check (verdict in ('allow', 'deny')),
    reasons json not null,
    policy_set text not null,
    inputs json not null,
    took_us bigint not null check (took_us >= 0)
);
create index decisions_vch on decisions (vch_id, at);
create index decisions_at on decisions (at);

create table audit (
    id bigint generated always as identity primary key,
    at timestamptz not null,
    vch_id uuid,
    caller text not null,
    action text not null,
    resource text not null,
    decision_id text collate "C",
    outcome text not null
);
create index audit_vch on audit (vch_id, id);

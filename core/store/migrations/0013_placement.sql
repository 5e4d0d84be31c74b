-- Where a container is. What was made before is where there was nothing else.
alter table containers add column host text collate "C" not null default 'default';
alter table containers alter column host drop default;
alter table containers add column datastore text collate "C" not null default 'default';
alter table containers alter column datastore drop default;

-- How that was chosen.
alter table decisions add column placement json;

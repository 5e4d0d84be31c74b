-- Which of the VCH's volume stores a volume is in, and the folder of the host that this one had; none: the data folder.
alter table volumes add column store text collate "C" not null default 'default';
alter table volumes add column folder text collate "C";
alter table volumes alter column store drop default;
create index volumes_store on volumes (vch_id, store);

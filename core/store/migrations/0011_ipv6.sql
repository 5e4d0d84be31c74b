-- IPv6 on networks: nobody else has the address while its container runs.
alter table endpoints add column address6 text collate "C";
alter table endpoints add constraint endpoints_address6_key unique (network_id, address6);
